//! `tollgate token check`: what a token is worth, without a device trying it.

use clap::{Args, Subcommand};

use crate::{
    cli::{
        CliError,
        client::{Client, Target},
        identity::read_token,
        moment, print, print_json,
        table::shown,
        terms,
    },
    config::Sources,
    http::api::{TokenCheck, TokenReport, TokenText},
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
    /// Say whose token this is, or since when it is nobody's
    Check {
        /// The token; `-` or nothing reads it from standard input, where no list of processes
        /// shows it
        token: Option<String>,
    },
}

pub(super) fn run(arguments: Arguments, sources: &Sources) -> Result<(), CliError> {
    let client = Client::new(&arguments.target, sources)?;
    let Command::Check { token } = arguments.command;
    let token = match token.as_deref() {
        None | Some("-") => read_token()?,
        Some(text) => TokenText::new(text.to_owned()),
    };
    let report: TokenReport = client.post("/tokens/check", &TokenCheck { token })?;
    if arguments.json {
        print_json(&report)
    } else {
        print(&sentence(&report))
    }
}

fn sentence(report: &TokenReport) -> String {
    match report {
        TokenReport::Live {
            kind,
            device,
            name,
            credential,
            since_ms,
            ..
        } => format!(
            "live: {}opens the door for {} {} ({device}), credential {credential}, since {}\n{}",
            terms::refused(report),
            shown(kind),
            shown(name),
            moment::show_unsigned(*since_ms),
            terms::lines(report)
        ),
        TokenReport::Revoked {
            kind,
            device,
            name,
            credential,
            since_ms,
            revoked_ms,
            expired,
        } => format!(
            "{}: was of {} ({device}), credential {credential}, from {} until {}\n",
            if *expired { "expired" } else { "revoked" },
            name.as_deref().map_or_else(
                || format!("a deleted {}", shown(kind)),
                |name| format!("{} {}", shown(kind), shown(name))
            ),
            moment::show_unsigned(*since_ms),
            moment::show_unsigned(*revoked_ms)
        ),
        TokenReport::Unknown { hint } => match hint {
            Some(hint) => format!("unknown: nobody has or had it; {}\n", shown(hint)),
            None => "unknown: nobody has or had it\n".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn each_state_of_a_token_has_its_sentence() {
        let (device, credential) = (Uuid::nil(), 3);
        let live = TokenReport::Live {
            kind: "device".to_owned(),
            device,
            name: "boiler".to_owned(),
            credential,
            since_ms: 0,
            refused: None,
            not_before_ms: None,
            expires_ms: None,
            rights: None,
            networks: Vec::new(),
            publish: Vec::new(),
            subscribe: Vec::new(),
        };
        assert_eq!(
            sentence(&live),
            format!(
                "live: opens the door for device boiler ({device}), credential 3, since \
                     1970-01-01T00:00:00.000Z\n"
            )
        );
        let revoked = TokenReport::Revoked {
            kind: "device".to_owned(),
            device,
            name: None,
            credential,
            since_ms: 0,
            revoked_ms: 1,
            expired: false,
        };
        assert!(sentence(&revoked).starts_with("revoked: was of a deleted device ("));
        let unknown = TokenReport::Unknown {
            hint: Some("the checksum is wrong".to_owned()),
        };
        assert!(sentence(&unknown).ends_with("it; the checksum is wrong\n"));
        assert_eq!(
            sentence(&TokenReport::Unknown { hint: None })
                .lines()
                .count(),
            1
        );
    }
}
