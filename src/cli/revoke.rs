//! What `revoke` and `delete` have in common: who, whether it is only asked what would end, and the
//! receipt in words.

use clap::Args;
use uuid::Uuid;

use crate::{
    cli::{
        CliError,
        client::{Client, path_step},
        identity::{Kind, warn},
        moment, print, print_json,
        table::shown,
    },
    http::api::{Receipt, Revocation, Revoke, RevokeAll},
};

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct DryRun {
    /// Only say what would end; change nothing
    #[arg(long)]
    dry_run: bool,
}

impl DryRun {
    /// These users.
    pub(super) fn of_users(self, users: Vec<String>) -> RevokeAll {
        RevokeAll {
            users,
            dry_run: self.dry_run,
            ..RevokeAll::default()
        }
    }
}

/// Revokes one by its own address, several by one commit.
pub(super) fn run<T: Kind>(
    client: &Client,
    names: Vec<String>,
    (dry, since): (DryRun, Option<&str>),
    json: bool,
) -> Result<(), CliError> {
    let since_ms = since.map(past).transpose()?;
    let wish = Revoke {
        dry_run: dry.dry_run,
        since_ms,
    };
    if let [one] = &*names {
        let path = format!("/{}/{}/revoke", T::ALL, path_step(one));
        let reply: T::Changed = match wish == Revoke::default() {
            true => client.post_empty(&path)?,
            false => client.post(&path, &wish)?,
        };
        return changed::<T>(REVOKED, &reply, json);
    }
    let mut wanted = RevokeAll {
        dry_run: dry.dry_run,
        since_ms,
        ..RevokeAll::default()
    };
    *T::among(&mut wanted) = names;
    all(client, &wanted, json)
}

/// A point in time that is over.
fn past(text: &str) -> Result<u64, CliError> {
    let now_ms = moment::now_ms();
    let usage = |why: String| CliError::Usage(format!("--since {text:?} cannot be read: {why}"));
    let ms = moment::parse(text, now_ms).map_err(usage)?;
    let is_past = (0..=now_ms).contains(&ms);
    let ms = u64::try_from(ms).ok().filter(|_| is_past);
    ms.ok_or_else(|| usage("it must be a time between 1970 and now".to_owned()))
}

/// Revokes everybody who is named.
pub(super) fn all(client: &Client, wanted: &RevokeAll, json: bool) -> Result<(), CliError> {
    let reply: Revocation = client.post("/revocations", wanted)?;
    if json {
        return print_json(&reply);
    }
    let lines = reply.revoked.iter();
    let lines = lines.map(|one| ended(REVOKED, &one.name, one.id, one.receipt));
    let mut text: String = lines.collect();
    if reply.revoked.len() != 1 {
        text.push_str(&format!("all together: {}\n", words(reply.receipt)));
    }
    print(&text)
}

/// Deletes one.
pub(super) fn delete<T: Kind>(
    client: &Client,
    one: &str,
    dry: DryRun,
    json: bool,
) -> Result<(), CliError> {
    let query = if dry.dry_run { "?dry_run=true" } else { "" };
    let path = format!("/{}/{}{query}", T::ALL, path_step(one));
    let reply: T::Changed = client.delete(&path)?;
    changed::<T>(DELETED, &reply, json)
}

/// What was done, and what would be.
pub(super) type Verb = (&'static str, &'static str);

const REVOKED: Verb = ("revoked", "would revoke");
const DELETED: Verb = ("deleted", "would delete");

/// What became of one.
pub(super) fn changed<T: Kind>(verb: Verb, reply: &T::Changed, json: bool) -> Result<(), CliError> {
    let (one, receipt, warnings) = T::of_changed(reply);
    warn(warnings);
    if json {
        return print_json(reply);
    }
    print(&ended(verb, one.name(), one.id(), receipt))
}

/// A line that says what became of whom.
pub(super) fn ended(verb: Verb, name: &str, id: Uuid, receipt: Receipt) -> String {
    let verb = if receipt.dry_run { verb.1 } else { verb.0 };
    format!("{verb} {} ({id}): {}\n", shown(name), words(receipt))
}

fn words(receipt: Receipt) -> String {
    let end = match receipt.dry_run {
        true => "nothing was changed".to_owned(),
        false => format!("confirmed everywhere in {} ms", receipt.milliseconds),
    };
    let marked = receipt.suspect_from.map_or_else(String::new, |offset| {
        format!("; what it wrote from record {offset} on is marked as suspect")
    });
    format!(
        "{} connections closed; {} sessions, {} subscriptions, {} queued, {} in-flight and {} \
         unfinished messages, {} wills and {} retained messages dropped; {end}{marked}",
        receipt.connections,
        receipt.sessions,
        receipt.subscriptions,
        receipt.queued,
        receipt.in_flight,
        receipt.unfinished,
        receipt.wills,
        receipt.retained,
    )
}
