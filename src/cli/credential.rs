//! `tollgate device credential …` and `tollgate app credential …`: what opens the door besides
//! tokens, and the end of one of several.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

use crate::{
    cli::{
        CliError,
        client::{Client, path_step},
        identity::{self, Kind, read_secret},
        print, print_json, revoke,
        table::shown,
        terms::TermsOptions,
    },
    http::api::{AddCredential, CredentialAdded, TokenText},
};

const ENDED: revoke::Verb = ("ended a credential of", "would end a credential of");

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add MQTT Basic credentials (client id, user name, or both, and perhaps a password), or a
    /// certificate
    Add(Box<New>),
    /// List credentials, ended ones of late too
    List {
        /// Name or id of whose they are
        name: String,
    },
    /// End one credential and close its connections; the others stay
    Remove {
        /// Name or id of whose it is
        name: String,
        /// Its number, as `list` shows it
        credential: u64,
    },
}

#[derive(Debug, Args)]
struct New {
    /// Name or id of who may come in with them
    name: String,
    /// The client id that a client must have [default: any]
    #[arg(long, value_name = "TEXT")]
    client_id: Option<String>,
    /// The user name that a client must show
    #[arg(long, value_name = "TEXT")]
    user_name: Option<String>,
    /// The password that a client must show; `-` reads it from standard input, where no list of
    /// processes shows it [default: any]
    #[arg(long, value_name = "TEXT", requires = "user_name")]
    password: Option<String>,
    /// File of the certificate (PEM) that a client must show in the TLS handshake, in place of all
    /// of these
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["client_id", "user_name", "password", "replace"]
    )]
    certificate: Option<PathBuf>,
    /// Take the place of live credentials that have the same names, such as for a new password:
    /// those end, and sessions stay
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    terms: TermsOptions,
}

pub(super) fn run<T: Kind>(
    client: &Client,
    arguments: Arguments,
    json: bool,
) -> Result<(), CliError> {
    match arguments.command {
        Command::Add(wanted) => add::<T>(client, *wanted, json),
        Command::List { name } => identity::credentials_of::<T>(client, &name, json),
        Command::Remove { name, credential } => {
            let path = format!("{}/credentials/{credential}", path_of::<T>(&name));
            let reply: T::Changed = client.delete(&path)?;
            revoke::changed::<T>(ENDED, &reply, json)
        }
    }
}

fn add<T: Kind>(client: &Client, wanted: New, json: bool) -> Result<(), CliError> {
    let password = match wanted.password.as_deref() {
        Some("-") => Some(read_secret("password")?),
        given => given.map(|text| TokenText::new(text.to_owned())),
    };
    if wanted.client_id.is_none() && wanted.user_name.is_none() && wanted.certificate.is_none() {
        let what = "give what a client must show: --user-name (with --password), --client-id, or \
                    --certificate FILE";
        return Err(CliError::Usage(what.to_owned()));
    }
    let certificate = wanted.certificate.as_deref().map(read_certificate);
    let body = AddCredential {
        certificate: certificate.transpose()?,
        client_id: wanted.client_id.map(TokenText::new),
        user_name: wanted.user_name.map(TokenText::new),
        password,
        terms: wanted.terms.read()?,
        replace: wanted.replace,
    };
    let path = format!("{}/credentials", path_of::<T>(&wanted.name));
    let reply: CredentialAdded = client.post(&path, &body)?;
    for warning in &reply.warnings {
        eprintln!("tollgate: added, and of no use yet: {}", shown(warning));
    }
    if json {
        return print_json(&reply);
    }
    let ended = reply.receipt.map_or_else(String::new, |receipt| {
        let connections = receipt.connections;
        format!("the one before ended, and {connections} connections with it\n")
    });
    let credentials = identity::credential_lines(&[reply.credential]);
    print(&format!("{credentials}{ended}"))
}

/// A file may hold a whole chain: what is sent of it the broker bounds.
fn read_certificate(path: &Path) -> Result<String, CliError> {
    fs::read_to_string(path).map_err(|error| {
        let path = path.display();
        CliError::Usage(format!("--certificate {path}: {error}"))
    })
}

fn path_of<T: Kind>(one: &str) -> String {
    format!("/{}/{}", T::ALL, path_step(one))
}
