//! `tollgate token …`: what a token is worth, without a device trying it, and who still uses an old
//! one.

use clap::{Args, Subcommand};

use crate::{
    cli::{
        CliError,
        client::{Client, Operator, path_step},
        identity::read_token,
        moment, print, print_json,
        table::{aligned, shown},
        terms,
    },
    config::Sources,
    http::api::{TokenCheck, TokenReport, TokenText, TokenUsage, UsageConnection, UsagePage},
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
    /// Say whose token this is, or since when it is nobody's
    Check {
        /// The token; `-` or nothing reads it from standard input, where no list of processes
        /// shows it
        token: Option<String>,
    },
    /// Say who still uses a token that was rotated, since when, and from where
    Usage {
        /// Name or id of a device or application [default: all of them]
        device: Option<String>,
    },
}

pub(super) fn run(arguments: Arguments, sources: &Sources) -> Result<(), CliError> {
    let client = arguments.operator.client(sources)?;
    let json = arguments.operator.json;
    let token = match arguments.command {
        Command::Usage { device } => return usage(&client, device.as_deref(), json),
        Command::Check { token } => token,
    };
    let token = match token.as_deref() {
        None | Some("-") => read_token()?,
        Some(text) => TokenText::new(text.to_owned()),
    };
    let report: TokenReport = client.post("/tokens/check", &TokenCheck { token })?;
    if json {
        print_json(&report)
    } else {
        print(&sentence(&report))
    }
}

/// Most pages asked for; more is a loop.
const PAGES_MAX: usize = 10_000;

fn usage(client: &Client, device: Option<&str>, json: bool) -> Result<(), CliError> {
    let device = device.map(|one| format!("&device={}", path_step(one)));
    let (mut tokens, mut after) = (Vec::new(), 0);
    for _ in 0..PAGES_MAX {
        let device = device.as_deref().unwrap_or_default();
        let path = format!("/tokens/usage?limit=1000&after={after}{device}");
        let page: UsagePage = client.get(&path)?;
        tokens.extend(page.tokens);
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    if json {
        return print_json(&UsagePage { tokens, next: None });
    }
    if tokens.is_empty() {
        return print("no old token is live\n");
    }
    let rows: Vec<_> = tokens.iter().map(usage_row).collect();
    let heading = ["NAME", "OLD", "NEW", "ENDS", "STILL IN USE", "NEW IN USE"];
    print(&aligned(heading, &rows))
}

fn usage_row(token: &TokenUsage) -> [String; 6] {
    let connection = |held: &UsageConnection| {
        let since = moment::show_unsigned(held.since_ms);
        format!("since {since} from {}", held.from)
    };
    let connected: Vec<String> = token.connections.iter().map(connection).collect();
    let in_use = match (token.last_used_ms, token.last_used_from) {
        _ if !connected.is_empty() => connected.join(", "),
        (Some(at), Some(from)) => {
            format!("not now; last {} from {from}", moment::show_unsigned(at))
        }
        _ => "not seen".to_owned(),
    };
    [
        shown(&token.name),
        token.credential.to_string(),
        token.superseded_by.to_string(),
        token
            .expires_ms
            .map_or_else(|| "never".to_owned(), moment::show_unsigned),
        in_use,
        format!("{} connected", token.connections_new),
    ]
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
            "live{} {} {} ({device}), credential {credential}, since {}\n{}",
            terms::opens(report),
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
            connections_max: None,
            messages_max: None,
            certificate: None,
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
