//! `tollgate device …`: who may come in.

mod export;
mod import;

use std::{fmt::Write as _, net::SocketAddr};

use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::{
    app::banner::{Over, host_of, publish_line, relative},
    cli::{
        CliError,
        client::{Client, Operator},
        credential,
        identity::{self, ChosenToken, Filters, Kind, Limits, Overlap, details, live_tokens},
        moment, print, print_json,
        revoke::{self, DryRun},
        table::shown,
        terms::TermsOptions,
    },
    config::Sources,
    http::api::{
        Create, CredentialView, DeviceChanged, DeviceCreated, DevicePage, DeviceView, Receipt,
        RevokeAll, Rotated, TokenText,
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
    /// Create a device; its token is shown once
    Create(New),
    /// List all devices by name
    List,
    /// Create many devices from a CSV file, all or none
    Import(import::Arguments),
    /// Write all devices to a CSV file, without their tokens
    Export(export::Arguments),
    /// Show a device and its credentials
    Show(Named),
    /// Change what a device may publish and receive besides its own topics
    Scope {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        filters: Filters,
    },
    /// Change until when, from where and for what a device's token is good
    Limit {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        limits: Limits,
    },
    /// Give a device a new token, shown once; the old one lives on for the grace time
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
    /// End all tokens of devices, their connections and sessions; of several all or none
    Revoke(Leaving),
    /// Add, list or end what lets a device in besides its token
    Credential(credential::Arguments),
    /// Remove a device, its tokens and its telemetry
    Delete {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        dry: DryRun,
    },
}

#[derive(Debug, Args)]
struct New {
    /// Name of the new device, unique in the registry
    name: String,
    #[command(flatten)]
    chosen: ChosenToken,
    /// Filters of topics it may publish to besides its own; %d stands for its id, %n for its name
    #[arg(long, value_name = "FILTER", num_args = 1..)]
    publish: Vec<String>,
    /// Filters of topics it may receive besides its own, such as site/%d/commands
    #[arg(long, value_name = "FILTER", num_args = 1..)]
    subscribe: Vec<String>,
    #[command(flatten)]
    terms: TermsOptions,
}

#[derive(Debug, Args)]
struct Leaving {
    /// Names or ids of the devices
    #[arg(required = true)]
    devices: Vec<String>,
    /// Mark what they wrote from this time on as perhaps somebody else's: RFC 3339, milliseconds
    /// since the epoch, or how long ago (10m); see query --without-suspect
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    #[command(flatten)]
    dry: DryRun,
}

#[derive(Debug, Args)]
struct Named {
    /// Name or id of the device
    device: String,
}

pub(super) fn run(arguments: Arguments, sources: &Sources) -> Result<(), CliError> {
    let client = arguments.operator.client(sources)?;
    let json = arguments.operator.json;
    match arguments.command {
        Command::Create(wanted) => create(&client, wanted, json),
        Command::List => identity::list::<DeviceView>(&client, json),
        Command::Import(arguments) => import::run(&client, &arguments, json),
        Command::Export(arguments) => export::run(&client, &arguments),
        Command::Show(Named { device }) => identity::show::<DeviceView>(&client, &device, json),
        Command::Scope { named, filters } => {
            identity::scope::<DeviceView>(&client, &named.device, filters, json)
        }
        Command::Limit { named, limits } => {
            identity::limit::<DeviceView>(&client, &named.device, limits, json)
        }
        Command::Rotate {
            named,
            chosen,
            overlap,
            terms,
        } => {
            let wanted = (chosen, overlap, terms);
            identity::rotate::<DeviceView>(&client, &named.device, wanted, json)
        }
        Command::Rollback(Named { device }) => {
            identity::roll_back::<DeviceView>(&client, &device, json)
        }
        Command::Credential(arguments) => credential::run::<DeviceView>(&client, arguments, json),
        Command::Revoke(leaving) => {
            let how = (leaving.dry, leaving.since.as_deref());
            revoke::run::<DeviceView>(&client, leaving.devices, how, json)
        }
        Command::Delete { named, dry } => {
            revoke::delete::<DeviceView>(&client, &named.device, dry, json)
        }
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
    let reply: DeviceCreated = client.post("/devices", &body)?;
    identity::warn(&reply.warnings);
    if json {
        return print_json(&reply);
    }
    let once = reply.device.shown_once(client, &reply.token);
    print(&format!("{}{once}", details(&reply.device)))
}

impl Kind for DeviceView {
    const ALL: &'static str = "devices";
    const NONE: &'static str = "no devices yet; make one with: tollgate device create NAME\n";
    const HEADING: &'static [&'static str] = &["NAME", "ID", "CREATED", "LIVE TOKENS"];
    type Page = DevicePage;
    type Changed = DeviceChanged;
    type Rotated = Rotated;

    fn among(wanted: &mut RevokeAll) -> &mut Vec<String> {
        &mut wanted.devices
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
            ("device", shown(&self.name)),
            ("id", self.id.to_string()),
            ("created", moment::show_unsigned(self.created_ms)),
        ];
        let texts = [("profile", &self.profile), ("label", &self.label)];
        let texts = texts.iter().filter(|(_, text)| !text.is_empty());
        facts.extend(texts.map(|(name, text)| (*name, shown(text))));
        facts
    }

    fn row(&self) -> Vec<String> {
        vec![
            shown(&self.name),
            self.id.to_string(),
            moment::show_unsigned(self.created_ms),
            live_tokens(self),
        ]
    }

    fn of_page(page: DevicePage) -> (Vec<DeviceView>, Option<String>) {
        (page.devices, page.next)
    }

    fn of_changed(changed: &DeviceChanged) -> (&DeviceView, Receipt, &[String]) {
        (&changed.device, changed.receipt, &changed.warnings)
    }

    fn of_rotated(rotated: &Rotated) -> (&DeviceView, &TokenText, Receipt, &[String]) {
        let Rotated {
            device,
            token,
            receipt,
            warnings,
        } = rotated;
        (device, token, *receipt, warnings)
    }

    fn shown_once(&self, client: &Client, token: &TokenText) -> String {
        let token = token.expose();
        let mut out = format!(
            "\ntoken    {}\n         shown once: keep it now\n",
            shown(token)
        );
        if let Some(line) = line_to_paste(client, token, identity::is_bound(self)) {
            let _ = write!(out, "\nSend a value:\n\n  {line}\n");
        }
        out
    }
}

/// A line that sends a value with this token, by the listener where that can be: a token that
/// needs a certificate beside it goes by TLS.
fn line_to_paste(client: &Client, token: &str, is_bound: bool) -> Option<String> {
    let config = &client.config;
    let line = |address: &SocketAddr, over| {
        publish_line(&device_host(client, *address), *address, token, over)
    };
    let plain = config.mqtt.listen.first().filter(|_| !is_bound);
    if let Some(address) = plain {
        return Some(line(address, Over::Tcp));
    }
    let ca = relative(&config.ca_certificate());
    let over = match is_bound {
        true => Over::MutualTls { ca: &ca },
        false => Over::Tls { ca: &ca },
    };
    config
        .mqtts
        .listen
        .first()
        .map(|address| line(address, over))
}

/// Where devices find the broker: beside its admin API when that is on another machine.
fn device_host(client: &Client, address: SocketAddr) -> String {
    match client.host() {
        "127.0.0.1" | "::1" => host_of(address),
        host => host.to_owned(),
    }
}
