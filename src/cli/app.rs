//! `tollgate app …`: which applications may receive telemetry and publish.

use std::fmt::Write as _;

use clap::{Args, Subcommand};

use crate::{
    cli::{
        CliError,
        client::{Client, Target, path_step},
        device::{ChosenToken, credential_row},
        moment, print, print_json,
        table::{aligned, shown},
    },
    config::Sources,
    http::api::{
        AppCreated, AppEnded, AppPage, AppRotated, AppView, CreateApp, DEVICES_PER_PAGE_MAX,
        Receipt, RotateDevice, TokenText,
    },
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    target: Target,
    /// Print the broker's reply as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create an application; its token is shown once
    Create(Create),
    /// List all applications by name
    List,
    /// Show an application, what it may do, and its credentials
    Show(Named),
    /// Give an application a new token, shown once; the old one ends at once
    Rotate {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        chosen: ChosenToken,
    },
    /// End an application's tokens, close its connections and drop its sessions
    Revoke(Named),
    /// Remove an application, its tokens and its sessions
    Delete(Named),
}

#[derive(Debug, Args)]
struct Create {
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
}

#[derive(Debug, Args)]
struct Named {
    /// Name or id of the application
    app: String,
}

pub(super) fn run(arguments: Arguments, sources: &Sources) -> Result<(), CliError> {
    let client = Client::new(&arguments.target, sources)?;
    let json = arguments.json;
    match arguments.command {
        Command::Create(wanted) => create(&client, wanted, json),
        Command::List => list(&client, json),
        Command::Show(Named { app }) => {
            let view: AppView = client.get(&path_of(&app))?;
            if json {
                print_json(&view)
            } else {
                print(&details(&view))
            }
        }
        Command::Rotate { named, chosen } => rotate(&client, &named.app, chosen, json),
        Command::Revoke(Named { app }) => {
            let reply: AppEnded = client.post_empty(&format!("{}/revoke", path_of(&app)))?;
            if json {
                return print_json(&reply);
            }
            print(&ended("revoked", &reply.app, reply.receipt))
        }
        Command::Delete(Named { app }) => {
            let reply: AppEnded = client.delete(&path_of(&app))?;
            if json {
                return print_json(&reply);
            }
            print(&ended("deleted", &reply.app, reply.receipt))
        }
    }
}

fn create(client: &Client, wanted: Create, json: bool) -> Result<(), CliError> {
    let body = CreateApp {
        name: wanted.name,
        token: wanted.chosen.read()?,
        publish: wanted.publish,
        subscribe: wanted.subscribe,
    };
    let reply: AppCreated = client.post("/apps", &body)?;
    if json {
        return print_json(&reply);
    }
    print(&format!(
        "{}{}",
        details(&reply.app),
        shown_once(&reply.token)
    ))
}

fn rotate(client: &Client, app: &str, chosen: ChosenToken, json: bool) -> Result<(), CliError> {
    let body = RotateDevice {
        token: chosen.read()?,
    };
    let reply: AppRotated = client.post(&format!("{}/rotate", path_of(app)), &body)?;
    if json {
        return print_json(&reply);
    }
    let ended = ended("rotated", &reply.app, reply.receipt);
    print(&format!("{ended}{}", shown_once(&reply.token)))
}

/// Most pages asked for: the registry takes far fewer applications.
const PAGES_MAX: usize = 100;

fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let mut apps: Vec<AppView> = Vec::new();
    let mut after = String::new();
    for _ in 0..PAGES_MAX {
        let path = format!("/apps?limit={DEVICES_PER_PAGE_MAX}{after}");
        let page: AppPage = client.get(&path)?;
        apps.extend(page.apps);
        match page.next {
            Some(next) => after = format!("&after={}", path_step(&next)),
            None => break,
        }
    }
    if json {
        return print_json(&AppPage { apps, next: None });
    }
    if apps.is_empty() {
        return print("no applications yet; make one with: tollgate app create NAME\n");
    }
    let rows: Vec<_> = apps.iter().map(row).collect();
    print(&aligned(
        ["NAME", "ID", "PUBLISH", "SUBSCRIBE", "LIVE TOKENS"],
        &rows,
    ))
}

fn row(app: &AppView) -> [String; 5] {
    let credentials = &app.identity.credentials;
    let live = credentials.iter().filter(|held| held.revoked_ms.is_none());
    [
        shown(&app.identity.name),
        app.identity.id.to_string(),
        filters(&app.publish),
        filters(&app.subscribe),
        live.count().to_string(),
    ]
}

fn filters(filters: &[String]) -> String {
    if filters.is_empty() {
        return "nothing".to_owned();
    }
    let texts: Vec<String> = filters.iter().map(|filter| shown(filter)).collect();
    texts.join(" ")
}

fn details(app: &AppView) -> String {
    let identity = &app.identity;
    let mut out = format!(
        "app        {}\nid         {}\ncreated    {}\npublish    {}\nsubscribe  {}\n",
        shown(&identity.name),
        identity.id,
        moment::show_unsigned(identity.created_ms),
        filters(&app.publish),
        filters(&app.subscribe),
    );
    let rows: Vec<_> = identity.credentials.iter().map(credential_row).collect();
    if !rows.is_empty() {
        let heading = ["CREDENTIAL", "KIND", "CREATED", "STATE"];
        let _ = write!(out, "\n{}", aligned(heading, &rows));
    }
    out
}

fn ended(what: &str, app: &AppView, receipt: Receipt) -> String {
    format!(
        "{what} {} ({}): {} connections closed, {} sessions and {} messages dropped, confirmed \
         everywhere in {} ms\n",
        shown(&app.identity.name),
        app.identity.id,
        receipt.connections,
        receipt.sessions,
        receipt.queued,
        receipt.milliseconds
    )
}

fn shown_once(token: &TokenText) -> String {
    format!(
        "\ntoken      {}\n           shown once: keep it now; it is the MQTT user name\n",
        shown(token.expose())
    )
}

fn path_of(app: &str) -> String {
    format!("/apps/{}", path_step(app))
}
