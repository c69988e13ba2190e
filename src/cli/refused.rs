//! `tollgate refused`: which clients do not get in, and why.

use std::{thread, time::Duration};

use clap::Args;

use crate::{
    cli::{
        CliError,
        client::{Client, Target},
        moment, print, print_json,
        table::{aligned, shown},
    },
    config::Sources,
    http::api::{RefusedClient, RefusedClients},
};

/// How often the broker is asked for more.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Go on with clients that are refused from now on
    #[arg(long)]
    follow: bool,
    /// Print JSON: with --follow one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments, sources: &Sources) -> Result<(), CliError> {
    let client = Client::new(&arguments.target, sources)?;
    let mut reply: RefusedClients = client.get("/refused")?;
    if !arguments.follow {
        if arguments.json {
            return print_json(&reply);
        }
        return print(&table(&reply.refused));
    }
    loop {
        for row in &reply.refused {
            if arguments.json {
                let text = serde_json::to_string(row).map_err(CliError::Reply)?;
                print(&format!("{text}\n"))?;
            } else {
                print(&format!("{}\n", cells(row).join("  ")))?;
            }
        }
        thread::sleep(EVERY);
        reply = client.get(&format!("/refused?after={}", reply.next))?;
    }
}

fn table(rows: &[RefusedClient]) -> String {
    if rows.is_empty() {
        return "no client was refused since the broker started\n".to_owned();
    }
    let rows: Vec<_> = rows.iter().map(cells).collect();
    aligned(
        ["LAST", "COUNT", "FROM", "CLIENT ID", "REASON", "TOKEN"],
        &rows,
    )
}

fn cells(row: &RefusedClient) -> [String; 6] {
    let whose = match (&row.name, row.identity) {
        (Some(name), _) => shown(name),
        (None, Some(id)) => id.to_string(),
        (None, None) => String::new(),
    };
    let token = match (row.credential, row.ended_ms) {
        (Some(number), Some(ended)) => {
            let ended = moment::show_unsigned(ended);
            format!("{number} of {whose}, ended {ended}")
        }
        (Some(number), None) => format!("{number} of {whose}"),
        (None, _) => "-".to_owned(),
    };
    [
        moment::show_unsigned(row.last_ms),
        row.count.to_string(),
        shown(&row.from),
        if row.client_id.is_empty() {
            "-".to_owned()
        } else {
            shown(&row.client_id)
        },
        row.reason.clone(),
        token,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_23_a_refused_client_is_one_harmless_row() {
        let row = RefusedClient {
            first_ms: 0,
            last_ms: 7,
            count: 3,
            from: "192.0.2.1".to_owned(),
            client_id: "a\r\n\u{1b}[1m".to_owned(),
            reason: "bad_credential".to_owned(),
            credential: Some(4),
            identity: None,
            name: Some("boiler".to_owned()),
            ended_ms: Some(0),
        };
        let text = table(&[row]);
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(
            text.contains("4 of boiler, ended 1970-01-01T00:00:00.000Z"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
    }
}
