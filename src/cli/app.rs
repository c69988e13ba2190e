//! `tollgate app …`: which applications may receive telemetry and publish.

use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::{
    cli::{
        CliError,
        client::{Client, Operator},
        credential,
        identity::{
            self, ChosenToken, Filters, Kind, Limits, Overlap, details, listed, live_tokens,
        },
        moment, print, print_json,
        revoke::{self, DryRun},
        table::shown,
        terms::TermsOptions,
    },
    config::Sources,
    http::api::{
        AppChanged, AppCreated, AppPage, AppRotated, AppView, Create, CredentialView, Receipt,
        RevokeAll, TokenText,
    },
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    operator: Operator,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create an application; its token is shown once
    Create(New),
    /// List all applications by name
    List,
    /// Show an application, what it may do, and its credentials
    Show(Named),
    /// Change what an application may publish and receive
    Scope {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        filters: Filters,
    },
    /// Change until when and from where an application's token is good
    Limit {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        limits: Limits,
    },
    /// Give an application a new token, shown once; the old one lives on for the grace time
    Rotate {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        chosen: ChosenToken,
        #[command(flatten)]
        overlap: Overlap,
        #[command(flatten)]
        terms: TermsOptions,
    },
    /// Take a rotation back: the newest token ends, the one before lives on
    Rollback(Named),
    /// End all tokens of applications, their connections and sessions; of several all or none
    Revoke(Leaving),
    /// Add, list or end what lets an application in besides its token
    Credential(credential::Arguments),
    /// Remove an application, its tokens and its sessions
    Delete {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        dry: DryRun,
    },
}

#[derive(Debug, Args)]
struct New {
    /// Name of the new application, unique among devices and applications
    name: String,
    #[command(flatten)]
    chosen: ChosenToken,
    /// Filters of topics it may publish to [default: none]
    #[arg(long, value_name = "FILTER", num_args = 1..)]
    publish: Vec<String>,
    /// Filters of topics it may receive, such as v1/devices/+/telemetry [default: none]
    #[arg(long, value_name = "FILTER", num_args = 1..)]
    subscribe: Vec<String>,
    #[command(flatten)]
    terms: TermsOptions,
}

#[derive(Debug, Args)]
struct Leaving {
    /// Names or ids of the applications
    #[arg(required = true)]
    apps: Vec<String>,
    #[command(flatten)]
    dry: DryRun,
}

#[derive(Debug, Args)]
struct Named {
    /// Name or id of the application
    app: String,
}

pub(super) fn run(arguments: Arguments, sources: &Sources) -> Result<(), CliError> {
    let client = arguments.operator.client(sources)?;
    let json = arguments.operator.json;
    match arguments.command {
        Command::Create(wanted) => create(&client, wanted, json),
        Command::List => identity::list::<AppView>(&client, json),
        Command::Show(Named { app }) => identity::show::<AppView>(&client, &app, json),
        Command::Scope { named, filters } => {
            identity::scope::<AppView>(&client, &named.app, filters, json)
        }
        Command::Limit { named, limits } => {
            identity::limit::<AppView>(&client, &named.app, limits, json)
        }
        Command::Revoke(Leaving { apps, dry }) => {
            revoke::run::<AppView>(&client, apps, (dry, None), json)
        }
        Command::Rotate {
            named,
            chosen,
            overlap,
            terms,
        } => {
            let wanted = (chosen, overlap, terms);
            identity::rotate::<AppView>(&client, &named.app, wanted, json)
        }
        Command::Rollback(Named { app }) => identity::roll_back::<AppView>(&client, &app, json),
        Command::Credential(arguments) => credential::run::<AppView>(&client, arguments, json),
        Command::Delete { named, dry } => revoke::delete::<AppView>(&client, &named.app, dry, json),
    }
}

fn create(client: &Client, wanted: New, json: bool) -> Result<(), CliError> {
    let body = Create {
        name: wanted.name,
        token: wanted.chosen.read()?,
        publish: wanted.publish,
        subscribe: wanted.subscribe,
        terms: wanted.terms.read()?,
    };
    let reply: AppCreated = client.post("/apps", &body)?;
    identity::warn(&reply.warnings);
    if json {
        return print_json(&reply);
    }
    let once = reply.app.shown_once(client, &reply.token);
    print(&format!("{}{once}", details(&reply.app)))
}

impl Kind for AppView {
    const ALL: &'static str = "apps";
    const NONE: &'static str = "no applications yet; make one with: tollgate app create NAME\n";
    const HEADING: &'static [&'static str] = &["NAME", "ID", "PUBLISH", "SUBSCRIBE", "LIVE TOKENS"];
    type Page = AppPage;
    type Changed = AppChanged;
    type Rotated = AppRotated;

    fn among(wanted: &mut RevokeAll) -> &mut Vec<String> {
        &mut wanted.apps
    }

    fn id(&self) -> Uuid {
        self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn publish(&self) -> &[String] {
        &self.publish
    }

    fn subscribe(&self) -> &[String] {
        &self.subscribe
    }

    fn credentials(&self) -> &[CredentialView] {
        &self.credentials
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![
            ("app", shown(&self.name)),
            ("id", self.id.to_string()),
            ("created", moment::show_unsigned(self.created_ms)),
        ];
        if self.publish.is_empty() && self.subscribe.is_empty() {
            // It can do nothing at all, which a device never is.
            facts.push(("publish", listed(&[])));
            facts.push(("subscribe", listed(&[])));
        }
        facts
    }

    fn row(&self) -> Vec<String> {
        vec![
            shown(&self.name),
            self.id.to_string(),
            listed(&self.publish),
            listed(&self.subscribe),
            live_tokens(self),
        ]
    }

    fn of_page(page: AppPage) -> (Vec<AppView>, Option<String>) {
        (page.apps, page.next)
    }

    fn of_changed(changed: &AppChanged) -> (&AppView, Receipt, &[String]) {
        (&changed.app, changed.receipt, &changed.warnings)
    }

    fn of_rotated(rotated: &AppRotated) -> (&AppView, &TokenText, Receipt, &[String]) {
        let AppRotated {
            app,
            token,
            receipt,
            warnings,
        } = rotated;
        (app, token, *receipt, warnings)
    }

    fn shown_once(&self, _client: &Client, token: &TokenText) -> String {
        format!(
            "\ntoken      {}\n           shown once: keep it now; it is the MQTT user name\n",
            shown(token.expose())
        )
    }
}
