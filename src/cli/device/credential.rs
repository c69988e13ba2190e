//! `tollgate device credential …`: what opens the door besides tokens, and the end of one of
//! several.

use clap::{Args, Subcommand};

use crate::{
    cli::{
        CliError,
        client::{Client, path_step},
        identity::{self, read_secret},
        print, print_json,
        table::shown,
    },
    http::api::{AddCredential, CredentialAdded, DeviceChanged, DeviceView, TokenText},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let a device in with a client id, a user name, or both, and perhaps a password
    Add(New),
    /// End one credential and close its connections; the others stay
    End {
        /// Name or id of the device
        device: String,
        /// Number of the credential, as `device show` lists them
        credential: u64,
    },
}

#[derive(Debug, Args)]
struct New {
    /// Name or id of the device
    device: String,
    /// The client id that it must have [default: any]
    #[arg(long, value_name = "TEXT")]
    client_id: Option<String>,
    /// The user name that it must show; without it none
    #[arg(long, value_name = "TEXT")]
    user_name: Option<String>,
    /// The password that it must show; `-` reads it from standard input, where no list of processes
    /// shows it [default: any]
    #[arg(long, value_name = "TEXT", requires = "user_name")]
    password: Option<String>,
}

pub(super) fn run(client: &Client, arguments: Arguments, json: bool) -> Result<(), CliError> {
    match arguments.command {
        Command::Add(wanted) => add(client, wanted, json),
        Command::End { device, credential } => end(client, &device, credential, json),
    }
}

fn add(client: &Client, wanted: New, json: bool) -> Result<(), CliError> {
    let password = match wanted.password.as_deref() {
        Some("-") => Some(read_secret("password")?),
        given => given.map(|text| TokenText::new(text.to_owned())),
    };
    let body = AddCredential {
        client_id: wanted.client_id.map(TokenText::new),
        user_name: wanted.user_name.map(TokenText::new),
        password,
    };
    let path = format!("/devices/{}/credentials", path_step(&wanted.device));
    let reply: CredentialAdded = client.post(&path, &body)?;
    if json {
        return print_json(&reply);
    }
    let credential = &reply.credential;
    print(&format!(
        "credential  {}\nasks for    {}\n",
        credential.id,
        shown(&credential.asks_for.join(", "))
    ))
}

fn end(client: &Client, device: &str, credential: u64, json: bool) -> Result<(), CliError> {
    let path = format!("/devices/{}/credentials/{credential}", path_step(device));
    let reply: DeviceChanged = client.delete(&path)?;
    identity::changed::<DeviceView>("ended a credential of", &reply, json)
}
