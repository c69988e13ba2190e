//! `tollgate admin-token …`: who may ask the admin API for what.

use clap::{Args, Subcommand};

use crate::{
    cli::{
        CliError,
        client::{Client, Operator, path_step},
        moment, print, print_json,
        table::{aligned, shown},
    },
    config::Sources,
    http::api::{AdminTokenCreated, AdminTokenPage, AdminTokenView, CreateAdminToken},
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
    /// Create an admin token; it is shown once
    Create(New),
    /// List all admin tokens by name
    List,
    /// End an admin token
    Revoke {
        /// Name of the token
        name: String,
    },
}

#[derive(Debug, Args)]
struct New {
    /// Name of the new token: who or what uses it
    name: String,
    /// read: look at everything. operate: also create, change, revoke and delete devices and
    /// applications. admin: also admin tokens, keys of back ends, backups
    #[arg(long, value_parser = ["read", "operate", "admin"])]
    scope: String,
    /// When it ends by itself: a time from now (30d), RFC 3339, or milliseconds since the epoch
    /// [default: never]
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
}

/// Most pages asked for; more is a loop.
const PAGES_MAX: usize = 1_000;

pub(super) fn run(arguments: Arguments, sources: &Sources) -> Result<(), CliError> {
    let json = arguments.operator.json;
    let client = arguments.operator.client(sources)?;
    match arguments.command {
        Command::Create(wanted) => create(&client, wanted, json),
        Command::List => list(&client, json),
        Command::Revoke { name } => revoke(&client, &name, json),
    }
}

fn create(client: &Client, wanted: New, json: bool) -> Result<(), CliError> {
    let expires = wanted.expires.as_deref();
    let body = CreateAdminToken {
        name: wanted.name,
        scope: wanted.scope,
        expires_ms: expires.map(end).transpose()?,
    };
    let reply: AdminTokenCreated = client.post("/admin-tokens", &body)?;
    if json {
        return print_json(&reply);
    }
    let made = &reply.admin_token;
    print(&format!(
        "name     {}\nscope    {}\nexpires  {}\n\ntoken    {}\n         shown once: keep it now; \
         commands take it from TOLLGATE_ADMIN_TOKEN\n",
        shown(&made.name),
        shown(&made.scope),
        expiry(made),
        shown(reply.token.expose())
    ))
}

/// Prints each page as it comes.
fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let mut after = String::new();
    for _ in 0..PAGES_MAX {
        let page: AdminTokenPage = client.get(&format!("/admin-tokens?limit=1000{after}"))?;
        if json {
            print_json(&page)?;
        } else if page.admin_tokens.is_empty() {
            print("no admin tokens besides secrets/admin.token\n")?;
        } else {
            let rows: Vec<_> = page.admin_tokens.iter().map(row).collect();
            print(&aligned(["NAME", "SCOPE", "CREATED", "EXPIRES"], &rows))?;
        }
        match page.next {
            Some(next) => after = format!("&after={}", path_step(&next)),
            None => break,
        }
    }
    Ok(())
}

fn row(token: &AdminTokenView) -> [String; 4] {
    [
        shown(&token.name),
        shown(&token.scope),
        moment::show_unsigned(token.created_ms),
        expiry(token),
    ]
}

fn revoke(client: &Client, name: &str, json: bool) -> Result<(), CliError> {
    let gone: AdminTokenView = client.delete(&format!("/admin-tokens/{}", path_step(name)))?;
    if json {
        return print_json(&gone);
    }
    print(&format!("revoked {}\n", shown(&gone.name)))
}

fn expiry(token: &AdminTokenView) -> String {
    match token.expires_ms {
        None => "never".to_owned(),
        Some(at) if token.expired => format!("{} (over)", moment::show_unsigned(at)),
        Some(at) => moment::show_unsigned(at),
    }
}

/// When a token ends: a length of time counts from now.
fn end(text: &str) -> Result<u64, CliError> {
    let now = moment::now_ms();
    let at = match moment::parse_length(text) {
        Ok(length) => Ok(now.saturating_add(length)),
        Err(_) => moment::parse(text, now),
    };
    let wrong = |what: &str| CliError::Usage(format!("--expires {text}: {what}"));
    let at = at.map_err(|_| {
        wrong("allowed is a time from now (30d), RFC 3339 or milliseconds since the epoch")
    })?;
    u64::try_from(at).map_err(|_| wrong("is before 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token_is_a_time_from_now_or_a_moment() {
        assert_eq!(end("1769860800000").unwrap(), 1_769_860_800_000);
        assert_eq!(end("2026-01-31T12:00:00Z").unwrap(), 1_769_860_800_000);
        let now = u64::try_from(moment::now_ms()).unwrap();
        let day = end("1d").unwrap();
        assert!(day >= now + 86_400_000 && day < now + 86_460_000, "{day}");
        for wrong in ["", "soon", "-5", "1x"] {
            assert!(matches!(end(wrong), Err(CliError::Usage(_))), "{wrong}");
        }
    }
}
