//! `tollgate device …`: who may come in.

mod export;
mod import;

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    net::SocketAddr,
};

use clap::{Args, Subcommand};

use crate::{
    app::banner::{host_of, publish_line, relative},
    cli::{
        CliError,
        client::{Client, Target, path_step},
        moment, print, print_json,
        table::{aligned, shown},
    },
    config::Sources,
    http::api::{
        CreateDevice, CredentialView, DEVICES_PER_PAGE_MAX, Deleted, DeviceCreated, DevicePage,
        DeviceView, Receipt, Revoked, RotateDevice, Rotated, TokenText,
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
    /// Create a device; its token is shown once
    Create {
        /// Name of the new device, unique in the registry
        name: String,
        #[command(flatten)]
        chosen: ChosenToken,
    },
    /// List all devices by name
    List,
    /// Create many devices from a CSV file, all or none
    Import(import::Arguments),
    /// Write all devices to a CSV file, without their tokens
    Export(export::Arguments),
    /// Show a device and its credentials
    Show(Named),
    /// Give a device a new token, shown once; the old one ends at once
    Rotate {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        chosen: ChosenToken,
    },
    /// End a device's tokens and close its connections
    Revoke(Named),
    /// Remove a device, its tokens and its telemetry
    Delete(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// Name or id of the device
    device: String,
}

#[derive(Debug, Args)]
struct ChosenToken {
    /// Use this token instead of a random one; `-` reads it from standard input, where no list
    /// of processes shows it
    #[arg(long, value_name = "TEXT")]
    token: Option<String>,
}

pub(super) fn run(arguments: Arguments, sources: &Sources) -> Result<(), CliError> {
    let client = Client::new(&arguments.target, sources)?;
    let json = arguments.json;
    match arguments.command {
        Command::Create { name, chosen } => create(&client, name, chosen, json),
        Command::List => list(&client, json),
        Command::Import(arguments) => import::run(&client, &arguments, json),
        Command::Export(arguments) => export::run(&client, &arguments),
        Command::Show(Named { device }) => {
            let view: DeviceView = client.get(&path_of(&device))?;
            if json {
                print_json(&view)
            } else {
                print(&details(&view))
            }
        }
        Command::Rotate { named, chosen } => rotate(&client, &named.device, chosen, json),
        Command::Revoke(Named { device }) => {
            let reply: Revoked = client.post_empty(&format!("{}/revoke", path_of(&device)))?;
            if json {
                return print_json(&reply);
            }
            print(&ended("revoked", &reply.device, reply.receipt))
        }
        Command::Delete(Named { device }) => {
            let reply: Deleted = client.delete(&path_of(&device))?;
            if json {
                return print_json(&reply);
            }
            print(&ended("deleted", &reply.device, reply.receipt))
        }
    }
}

fn create(client: &Client, name: String, chosen: ChosenToken, json: bool) -> Result<(), CliError> {
    let reply: DeviceCreated = client.post(
        "/devices",
        &CreateDevice {
            name,
            token: chosen.read()?,
        },
    )?;
    if json {
        return print_json(&reply);
    }
    print(&format!(
        "{}{}",
        details(&reply.device),
        shown_once(client, &reply.token)
    ))
}

fn rotate(client: &Client, device: &str, chosen: ChosenToken, json: bool) -> Result<(), CliError> {
    let body = RotateDevice {
        token: chosen.read()?,
    };
    let reply: Rotated = client.post(&format!("{}/rotate", path_of(device)), &body)?;
    if json {
        return print_json(&reply);
    }
    let ended = ended("rotated", &reply.device, reply.receipt);
    print(&format!("{ended}{}", shown_once(client, &reply.token)))
}

/// Most pages asked for: 10 million devices; more is a loop, not a fleet.
const PAGES_MAX: usize = 10_000;

fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let mut devices: Vec<DeviceView> = Vec::new();
    let mut after = String::new();
    for _ in 0..PAGES_MAX {
        let path = format!("/devices?limit={DEVICES_PER_PAGE_MAX}{after}");
        let page: DevicePage = client.get(&path)?;
        devices.extend(page.devices);
        match page.next {
            Some(next) => after = format!("&after={}", path_step(&next)),
            None => break,
        }
    }
    if json {
        return print_json(&DevicePage {
            devices,
            next: None,
        });
    }
    if devices.is_empty() {
        return print("no devices yet; make one with: tollgate device create NAME\n");
    }
    let rows: Vec<_> = devices.iter().map(row).collect();
    print(&aligned(["NAME", "ID", "CREATED", "LIVE TOKENS"], &rows))
}

fn row(device: &DeviceView) -> [String; 4] {
    let live = device
        .credentials
        .iter()
        .filter(|credential| credential.revoked_ms.is_none());
    [
        shown(&device.name),
        device.id.to_string(),
        moment::show_unsigned(device.created_ms),
        live.count().to_string(),
    ]
}

fn details(device: &DeviceView) -> String {
    let mut out = format!(
        "device   {}\nid       {}\ncreated  {}\n",
        shown(&device.name),
        device.id,
        moment::show_unsigned(device.created_ms)
    );
    for (what, text) in [("profile  ", &device.profile), ("label    ", &device.label)] {
        if !text.is_empty() {
            let _ = writeln!(out, "{what}{}", shown(text));
        }
    }
    let rows: Vec<_> = device.credentials.iter().map(credential_row).collect();
    if !rows.is_empty() {
        let heading = ["CREDENTIAL", "KIND", "CREATED", "STATE"];
        let _ = write!(out, "\n{}", aligned(heading, &rows));
    }
    out
}

fn credential_row(credential: &CredentialView) -> [String; 4] {
    let state = match credential.revoked_ms {
        Some(at) => format!("revoked {}", moment::show_unsigned(at)),
        None => "live".to_owned(),
    };
    let kind = shown(&credential.kind).replace('_', " ");
    let chosen = if credential.chosen { " (chosen)" } else { "" };
    [
        credential.id.to_string(),
        format!("{kind}{chosen}"),
        moment::show_unsigned(credential.created_ms),
        state,
    ]
}

fn ended(what: &str, device: &DeviceView, receipt: Receipt) -> String {
    format!(
        "{what} {} ({}): {} connections closed, {} sessions and {} messages dropped, confirmed \
         everywhere in {} ms\n",
        shown(&device.name),
        device.id,
        receipt.connections,
        receipt.sessions,
        receipt.queued,
        receipt.milliseconds
    )
}

/// The token and what to do with it.
fn shown_once(client: &Client, token: &TokenText) -> String {
    let token = token.expose();
    let mut out = format!(
        "\ntoken    {}\n         shown once: keep it now\n",
        shown(token)
    );
    let config = &client.config;
    if let Some(address) = config.mqtt.listen.first() {
        let line = publish_line(&device_host(client, *address), *address, token, None);
        let _ = write!(out, "\nSend a value:\n\n  {line}\n");
    } else if let Some(address) = config.mqtts.listen.first() {
        let ca = relative(&config.ca_certificate());
        let line = publish_line(&device_host(client, *address), *address, token, Some(&ca));
        let _ = write!(out, "\nSend a value:\n\n  {line}\n");
    }
    out
}

/// Where devices find the broker: beside its admin API when that is on another machine.
fn device_host(client: &Client, address: SocketAddr) -> String {
    match client.host() {
        "127.0.0.1" | "::1" => host_of(address),
        host => host.to_owned(),
    }
}

fn path_of(device: &str) -> String {
    format!("/devices/{}", path_step(device))
}

impl ChosenToken {
    fn read(self) -> Result<Option<TokenText>, CliError> {
        match self.token.as_deref() {
            Some("-") => read_token().map(Some),
            Some(text) => Ok(Some(TokenText::new(text.to_owned()))),
            None => Ok(None),
        }
    }
}

/// Most bytes read from standard input: any token is shorter.
const INPUT_BYTES_MAX: u64 = 4_096;

/// The one token on standard input: its first line.
pub(super) fn read_token() -> Result<TokenText, CliError> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        eprint!("token: ");
    }
    let mut text = String::new();
    let mut input = stdin.lock().take(INPUT_BYTES_MAX);
    input.read_line(&mut text).map_err(CliError::Input)?;
    let token = text.trim_end_matches(['\r', '\n']);
    if token.is_empty() {
        return Err(CliError::Usage("standard input holds no token".to_owned()));
    }
    Ok(TokenText::new(token.to_owned()))
}
