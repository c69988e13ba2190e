//! The command line: one file per command, each a client of the API that others use.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done; the broker stopped cleanly |
//! | 1 | another error |
//! | 2 | wrong arguments or wrong configuration |
//! | 3 | the journal could not be written: the broker ended itself to keep its promises |
//! | 4 | the start was refused: directory locked or not writable, port in use, secrets open |
//! | 5 | no broker answers |
//! | 6 | the broker refused the request |
//! | 7 | done in part: bad rows were skipped |
//! | 8 | the passphrase does not open the backup |
//! | 9 | the backup is damaged, or none |
//! | 10 | the backup is of a newer version |

mod admin_token;
mod app;
mod audit;
mod backup;
mod bench;
mod check;
mod client;
mod credential;
mod device;
mod error;
mod identity;
mod logging;
mod moment;
mod progress;
mod query;
mod refused;
mod restore;
mod revoke;
mod serve;
mod settings;
mod store;
mod table;
mod tail;
mod terms;
mod token;
mod users;
mod words;

use std::io::{self, Write};

use clap::{Parser, Subcommand};

pub use bench::BenchError;
pub use error::CliError;

use settings::Settings;

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    about = "An MQTT broker for IoT fleets in which every device carries a token",
    after_help = AFTER_HELP,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done; the broker stopped cleanly
  1  another error
  2  wrong arguments or configuration
  3  the journal could not be written
  4  start refused: directory, port, secrets, certificates
  5  no broker answers
  6  the broker refused the request
  7  done in part: bad rows were skipped
  8  the passphrase does not open the backup
  9  the backup is damaged, or none
  10 the backup is of a newer version";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker (the default)
    Serve,
    /// Create, list, show, scope, limit, rotate, revoke or delete devices
    Device(device::Arguments),
    /// Create, list, show, scope, limit, rotate, revoke or delete applications
    App(app::Arguments),
    /// Create, list or revoke tokens of the admin API
    AdminToken(admin_token::Arguments),
    /// Say what a token is worth, and who still uses an old one
    Token(token::Arguments),
    /// Users of the identity service, their tokens, and the keys of back ends
    Identity(users::Arguments),
    /// Read a device's telemetry back
    Query(query::Arguments),
    /// Print what devices send, as it becomes durable
    Tail(tail::Arguments),
    /// What was changed, who came and who was refused; and whether the records are as written
    Audit(audit::Arguments),
    /// The newest clients that were refused, and why
    Refused(refused::Arguments),
    /// Check configuration, directories, certificates and ports without starting anything
    Check(check::Arguments),
    /// Write everything an installation needs into one sealed file, while the broker runs or not
    Backup(backup::Arguments),
    /// Put a backup in place, where nothing is yet
    Restore(restore::Arguments),
    /// Verify the files of the history, or say where they are
    Store(store::Arguments),
    /// Put load on any broker and measure it
    Bench(bench::Arguments),
}

impl Arguments {
    /// Reads the command line. `--help` and wrong arguments end the process here, with code 0 and
    /// 2.
    pub fn read() -> Arguments {
        Arguments::parse()
    }
}

/// Does what was asked for.
///
/// # Errors
/// Why it was not done; [`CliError::exit_code`] is the process's exit code.
pub fn run(arguments: Arguments) -> Result<(), CliError> {
    let sources = arguments.settings.sources();
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(&sources),
        Command::Device(command) => device::run(command, &sources),
        Command::App(command) => app::run(command, &sources),
        Command::AdminToken(command) => admin_token::run(command, &sources),
        Command::Token(command) => token::run(command, &sources),
        Command::Identity(command) => users::run(command, &sources),
        Command::Query(command) => query::run(&command, &sources),
        Command::Tail(command) => tail::run(&command, &sources),
        Command::Audit(command) => audit::run(&command, &sources),
        Command::Refused(command) => refused::run(&command, &sources),
        Command::Check(command) => check::run(&command, &sources),
        Command::Backup(command) => backup::run(&command, &sources),
        Command::Restore(command) => restore::run(&command, &sources),
        Command::Store(command) => store::run(&command, &sources),
        Command::Bench(command) => bench::run(command),
    }
}

/// Writes a command's whole output at once, so that a reader that went away (`| head`) is an
/// error value and not a panic.
fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(CliError::Output)
}

/// Prints a reply as it came, for programs.
fn print_json<T: serde::Serialize>(reply: &T) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(reply).map_err(CliError::Reply)?;
    print(&format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;

    /// What each command asks the broker, or why it asks nothing. Everything that a command does to
    /// a running broker anybody may do by the same endpoints.
    const ENDPOINTS: &[(&str, &str)] = &[
        ("admin-token create", "POST /admin/v1/admin-tokens"),
        ("admin-token list", "GET /admin/v1/admin-tokens"),
        (
            "admin-token revoke",
            "DELETE /admin/v1/admin-tokens/{admin_token}",
        ),
        ("app create", "POST /admin/v1/apps"),
        (
            "app credential add",
            "POST /admin/v1/apps/{app}/credentials",
        ),
        ("app credential list", "GET /admin/v1/apps/{app}"),
        (
            "app credential remove",
            "DELETE /admin/v1/apps/{app}/credentials/{credential}",
        ),
        ("app delete", "DELETE /admin/v1/apps/{app}"),
        ("app limit", "PATCH /admin/v1/apps/{app}/terms"),
        ("app list", "GET /admin/v1/apps"),
        ("app revoke", "POST /admin/v1/apps/{app}/revoke"),
        ("app rollback", "POST /admin/v1/apps/{app}/rollback"),
        ("app rotate", "POST /admin/v1/apps/{app}/rotate"),
        ("app scope", "PATCH /admin/v1/apps/{app}/scope"),
        ("app show", "GET /admin/v1/apps/{app}"),
        ("audit", "GET /admin/v1/audit"),
        ("backup", "POST /admin/v1/backup"),
        ("bench", "a client of any broker"),
        ("check", "looks at this machine, and starts nothing"),
        ("device create", "POST /admin/v1/devices"),
        (
            "device credential add",
            "POST /admin/v1/devices/{device}/credentials",
        ),
        ("device credential list", "GET /admin/v1/devices/{device}"),
        (
            "device credential remove",
            "DELETE /admin/v1/devices/{device}/credentials/{credential}",
        ),
        ("device delete", "DELETE /admin/v1/devices/{device}"),
        ("device export", "GET /admin/v1/bulk/devices"),
        ("device import", "POST /admin/v1/bulk/devices"),
        ("device limit", "PATCH /admin/v1/devices/{device}/terms"),
        ("device list", "GET /admin/v1/devices"),
        ("device revoke", "POST /admin/v1/devices/{device}/revoke"),
        (
            "device rollback",
            "POST /admin/v1/devices/{device}/rollback",
        ),
        ("device rotate", "POST /admin/v1/devices/{device}/rotate"),
        ("device scope", "PATCH /admin/v1/devices/{device}/scope"),
        ("device show", "GET /admin/v1/devices/{device}"),
        ("identity key list", "GET /admin/v1/identity"),
        (
            "identity key renew",
            "POST /admin/v1/identity/keys/{key}/renew",
        ),
        (
            "identity token issue",
            "POST /identities/{id}/:issueAccessToken",
        ),
        (
            "identity token revoke",
            "POST /identities/{id}/:revokeAccessTokens",
        ),
        ("identity user create", "POST /identities"),
        ("identity user delete", "DELETE /identities/{id}"),
        ("identity user list", "GET /admin/v1/users"),
        ("identity user revoke", "POST /admin/v1/users/{user}/revoke"),
        ("identity user show", "GET /admin/v1/users/{user}"),
        ("query", "GET /admin/v1/devices/{device}/telemetry"),
        ("refused", "GET /admin/v1/refused"),
        ("restore", "makes an installation where none is"),
        ("serve", "is the broker"),
        ("store", "reads the files of a broker that need not run"),
        ("tail", "GET /admin/v1/telemetry/tail"),
        ("token check", "POST /admin/v1/tokens/check"),
        ("token usage", "GET /admin/v1/tokens/usage"),
    ];

    fn leaves(command: &clap::Command, above: &str, found: &mut BTreeSet<String>) {
        for below in command.get_subcommands() {
            let name = format!("{above} {}", below.get_name());
            let name = name.trim_start().to_owned();
            if below.has_subcommands() && !["audit", "bench", "store"].contains(&below.get_name()) {
                leaves(below, &name, found);
            } else {
                found.insert(name);
            }
        }
    }

    #[test]
    fn whatever_a_command_asks_the_broker_anybody_may_ask() {
        let mut commands = BTreeSet::new();
        leaves(&Arguments::command(), "", &mut commands);
        let listed = ENDPOINTS.iter().map(|(command, _)| (*command).to_owned());
        assert_eq!(commands, listed.collect());
        let described = include_str!("../../docs/openapi.yaml");
        for (command, endpoint) in ENDPOINTS {
            let Some((method, path)) = endpoint.split_once(" /") else {
                continue;
            };
            let paths = described.split("\n  /").find(|item| {
                let line = item.lines().next().unwrap_or_default();
                line.strip_suffix(':') == Some(path)
            });
            let method = format!("\n    {}:\n", method.to_lowercase());
            let is_there = paths.is_some_and(|item| item.contains(&method));
            assert!(is_there, "{command}: {endpoint} is not described");
        }
    }
}
