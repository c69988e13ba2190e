//! What `tollgate device …` and `tollgate app …` have in common.

use std::io::{self, BufRead as _, BufWriter, IsTerminal as _, Read as _, Write};

use clap::Args;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    cli::{
        CliError,
        client::{Client, path_step},
        moment, print, print_json, revoke,
        table::{Columns, aligned, shown},
        terms::{self, TermsOptions},
    },
    http::api::{
        ChangeScope, ChangeTerms, CredentialView, DEVICES_PER_PAGE_MAX, Receipt, RevokeAll, Rotate,
        TokenText,
    },
};

/// The kind of a token, as the API has it.
const ACCESS_TOKEN: &str = "access_token";

const LIMITED: revoke::Verb = ("changed the terms of", "would change the terms of");
const ROLLED_BACK: revoke::Verb = ("rolled back", "would roll back");
const ROTATED: revoke::Verb = ("rotated", "would rotate");
const RESCOPED: revoke::Verb = ("changed the scope of", "would change the scope of");

/// A kind of identity as the API shows it.
pub(super) trait Kind: Serialize + DeserializeOwned {
    /// Its name in the address of all of them, and in a page.
    const ALL: &'static str;
    /// What an empty list is told as.
    const NONE: &'static str;
    /// The heading of a list.
    const HEADING: &'static [&'static str];
    type Page: DeserializeOwned;
    type Changed: Serialize + DeserializeOwned;
    type Rotated: Serialize + DeserializeOwned;

    /// The names of its kind among those who are to be revoked.
    fn among(wanted: &mut RevokeAll) -> &mut Vec<String>;
    fn id(&self) -> Uuid;
    fn name(&self) -> &str;
    fn publish(&self) -> &[String];
    fn subscribe(&self) -> &[String];
    fn credentials(&self) -> &[CredentialView];
    /// The facts in front of its filters and credentials, each with its name.
    fn facts(&self) -> Vec<(&'static str, String)>;
    /// Its row in a list.
    fn row(&self) -> Vec<String>;
    /// The parts of a page, and the name where the next begins.
    fn of_page(page: Self::Page) -> (Vec<Self>, Option<String>);
    /// What is warned of comes last, here and in a rotation.
    fn of_changed(changed: &Self::Changed) -> (&Self, Receipt, &[String]);
    fn of_rotated(rotated: &Self::Rotated) -> (&Self, &TokenText, Receipt, &[String]);
    /// What to do with its newest token.
    fn shown_once(&self, client: &Client, token: &TokenText) -> String;
}

#[derive(Debug, Args)]
pub(super) struct ChosenToken {
    /// Use this token instead of a random one; `-` reads it from standard input, where no list
    /// of processes shows it
    #[arg(long, value_name = "TEXT")]
    token: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Filters {
    /// Filters of topics it may publish to from now on, in place of those there are
    #[arg(long, value_name = "FILTER", num_args = 1..)]
    publish: Option<Vec<String>>,
    /// Filters of topics it may receive from now on, in place of those there are
    #[arg(long, value_name = "FILTER", num_args = 1..)]
    subscribe: Option<Vec<String>>,
    /// Take all filters away that are not given here
    #[arg(long)]
    clear: bool,
}

#[derive(Debug, Args)]
pub(super) struct Limits {
    /// Only the token with this number, as `show` lists them [default: every live one]
    #[arg(long, value_name = "NUMBER")]
    credential: Option<u64>,
    #[command(flatten)]
    terms: TermsOptions,
}

#[derive(Debug, Args)]
pub(super) struct Overlap {
    /// How long the old token lives on, such as 30s, 12h or 7d; 0s ends it at once
    #[arg(long, value_name = "LENGTH", default_value = "24h")]
    grace: String,
    /// End the old token when the new one is first used, if that is earlier
    #[arg(long)]
    retire_on_use: bool,
}

pub(super) fn show<T: Kind>(client: &Client, one: &str, json: bool) -> Result<(), CliError> {
    let view: T = client.get(&path_of::<T>(one))?;
    if json {
        return print_json(&view);
    }
    print(&details(&view))
}

pub(super) fn scope<T: Kind>(
    client: &Client,
    one: &str,
    filters: Filters,
    json: bool,
) -> Result<(), CliError> {
    let or_none = |list: Option<Vec<String>>| list.or_else(|| filters.clear.then(Vec::new));
    let body = ChangeScope {
        publish: or_none(filters.publish),
        subscribe: or_none(filters.subscribe),
    };
    let reply: T::Changed = client.patch(&format!("{}/scope", path_of::<T>(one)), &body)?;
    revoke::changed::<T>(RESCOPED, &reply, json)?;
    if json {
        return Ok(());
    }
    let (one, ..) = T::of_changed(&reply);
    print(&fields(&scope_facts(one)))
}

pub(super) fn limit<T: Kind>(
    client: &Client,
    one: &str,
    limits: Limits,
    json: bool,
) -> Result<(), CliError> {
    let Some(terms) = limits.terms.read()? else {
        let what = "give what is to change: --expires, --not-before, --from, --allow, \
                    --connections, --rate or --bound-to";
        return Err(CliError::Usage(what.to_owned()));
    };
    let body = ChangeTerms {
        credential: limits.credential,
        terms,
    };
    let reply: T::Changed = client.patch(&format!("{}/terms", path_of::<T>(one)), &body)?;
    revoke::changed::<T>(LIMITED, &reply, json)?;
    if json {
        return Ok(());
    }
    let (one, ..) = T::of_changed(&reply);
    print(&credentials(one))
}

pub(super) fn rotate<T: Kind>(
    client: &Client,
    one: &str,
    (chosen, overlap, terms): (ChosenToken, Overlap, TermsOptions),
    json: bool,
) -> Result<(), CliError> {
    let body = Rotate {
        token: chosen.read()?,
        terms: terms.read()?,
        grace_s: Some(overlap.seconds()?),
        retire_on_use: overlap.retire_on_use,
    };
    let reply: T::Rotated = client.post(&format!("{}/rotate", path_of::<T>(one)), &body)?;
    let (one, token, receipt, warnings) = T::of_rotated(&reply);
    warn(warnings);
    if json {
        return print_json(&reply);
    }
    let ended = revoke::ended(ROTATED, one.name(), one.id(), receipt);
    let older = credentials(one);
    print(&format!(
        "{ended}\n{older}{}",
        one.shown_once(client, token)
    ))
}

pub(super) fn roll_back<T: Kind>(client: &Client, one: &str, json: bool) -> Result<(), CliError> {
    let reply: T::Changed = client.post_empty(&format!("{}/rollback", path_of::<T>(one)))?;
    revoke::changed::<T>(ROLLED_BACK, &reply, json)?;
    if json {
        return Ok(());
    }
    let (one, ..) = T::of_changed(&reply);
    print(&credentials(one))
}

/// What is warned of in a reply. On standard error: programs read the reply.
pub(super) fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("tollgate: warning: {}", shown(warning));
    }
}

/// Whether its newest live token needs a client's certificate beside it.
pub(super) fn is_bound<T: Kind>(one: &T) -> bool {
    let mut credentials = one.credentials().iter().rev();
    let newest = credentials.find(|held| held.revoked_ms.is_none() && held.kind == ACCESS_TOKEN);
    newest.is_some_and(|held| held.certificate.is_some())
}

/// Most pages asked for, however short they are; more is a loop.
const PAGES_MAX: usize = 10_000;

/// Prints each page as it comes: a million devices are not held in memory.
pub(super) fn list<T: Kind>(client: &Client, json: bool) -> Result<(), CliError> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut columns = Columns::new(T::HEADING);
    let (mut after, mut are_any) = (String::new(), false);
    for _ in 0..PAGES_MAX {
        let path = format!("/{}?limit={DEVICES_PER_PAGE_MAX}{after}", T::ALL);
        let (found, next) = T::of_page(client.get(&path)?);
        if json {
            let begin = (!are_any).then_some(T::ALL);
            write_json(&mut out, begin, &found)?;
        } else if !found.is_empty() {
            let rows: Vec<_> = found.iter().map(T::row).collect();
            write(&mut out, &columns.lines(&rows))?;
        }
        are_any |= json || !found.is_empty();
        match next {
            Some(next) => after = format!("&after={}", path_step(&next)),
            None => break,
        }
    }
    match (json, are_any) {
        (true, _) => write(&mut out, "\n  ]\n}\n")?,
        (false, true) => {}
        (false, false) => write(&mut out, T::NONE)?,
    }
    out.flush().map_err(CliError::Output)
}

/// Writes one object a line; `begin` is the name of the list, before its first.
fn write_json<T: Serialize>(
    out: &mut impl Write,
    begin: Option<&str>,
    found: &[T],
) -> Result<(), CliError> {
    let mut separator = match begin {
        Some(list) => {
            write(out, &format!("{{\n  \"{list}\": ["))?;
            "\n    "
        }
        None => ",\n    ",
    };
    for one in found {
        let text = serde_json::to_string(one).map_err(CliError::Reply)?;
        write(out, separator)?;
        write(out, &text)?;
        separator = ",\n    ";
    }
    Ok(())
}

fn write(out: &mut impl Write, text: &str) -> Result<(), CliError> {
    out.write_all(text.as_bytes()).map_err(CliError::Output)
}

/// Everything about one.
pub(super) fn details<T: Kind>(one: &T) -> String {
    let mut facts = one.facts();
    facts.extend(scope_facts(one));
    let mut out = fields(&facts);
    let credentials = credentials(one);
    if !credentials.is_empty() {
        out.push('\n');
        out.push_str(&credentials);
    }
    out
}

/// Only the credentials of one.
pub(super) fn credentials_of<T: Kind>(
    client: &Client,
    one: &str,
    json: bool,
) -> Result<(), CliError> {
    let view: T = client.get(&path_of::<T>(one))?;
    if json {
        return print_json(&view.credentials());
    }
    print(&credentials(&view))
}

/// A line for each credential, with a heading; nothing without any.
fn credentials<T: Kind>(one: &T) -> String {
    credential_lines(one.credentials())
}

/// The same.
pub(super) fn credential_lines(credentials: &[CredentialView]) -> String {
    let rows: Vec<_> = credentials.iter().map(credential_row).collect();
    if rows.is_empty() {
        return String::new();
    }
    aligned(["CREDENTIAL", "KIND", "CREATED", "STATE"], &rows)
}

/// How many of its credentials are live.
pub(super) fn live_tokens<T: Kind>(one: &T) -> String {
    let credentials = one.credentials().iter();
    let live = credentials.filter(|held| held.revoked_ms.is_none());
    live.count().to_string()
}

/// Filters on one line.
pub(super) fn listed(filters: &[String]) -> String {
    if filters.is_empty() {
        return "nothing".to_owned();
    }
    let texts: Vec<String> = filters.iter().map(|filter| shown(filter)).collect();
    texts.join(" ")
}

fn scope_facts<T: Kind>(one: &T) -> Vec<(&'static str, String)> {
    if one.publish().is_empty() && one.subscribe().is_empty() {
        return Vec::new();
    }
    vec![
        ("publish", listed(one.publish())),
        ("subscribe", listed(one.subscribe())),
    ]
}

/// Facts below each other.
fn fields(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = facts
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"));
    lines.collect()
}

fn credential_row(credential: &CredentialView) -> [String; 4] {
    let state = match credential.revoked_ms {
        Some(at) => format!("revoked {}", moment::show_unsigned(at)),
        None => {
            let mut state = "live".to_owned();
            let terms = terms::line(credential);
            if !terms.is_empty() {
                state = format!("{state}; {terms}");
            }
            if let Some(by) = credential.superseded_by {
                state = format!("{state}; replaced by {by}");
            }
            if credential.retires_older {
                state.push_str("; ends those before it when it is used");
            }
            state
        }
    };
    let kind = shown(&credential.kind).replace('_', " ");
    let chosen = match credential.asks_for.as_slice() {
        _ if credential.fingerprint.is_some() => {
            let fingerprint = credential.fingerprint.as_deref().unwrap_or_default();
            format!(" ({})", shown(fingerprint))
        }
        [] if credential.chosen => " (chosen)".to_owned(),
        [] => String::new(),
        asks_for => {
            let asks: Vec<String> = asks_for
                .iter()
                .map(|part| asked(credential, part))
                .collect();
            format!(" ({})", asks.join(", "))
        }
    };
    [
        credential.id.to_string(),
        format!("{kind}{chosen}"),
        moment::show_unsigned(credential.created_ms),
        state,
    ]
}

/// A part of what a client must show, with the name where that may be shown.
fn asked(credential: &CredentialView, part: &str) -> String {
    let name = match part {
        "client_id" => credential.client_id.as_deref(),
        "user_name" => credential.user_name.as_deref(),
        _ => None,
    };
    let part = shown(&part.replace('_', " "));
    match name {
        Some(name) => format!("{part} {}", shown(name)),
        None => part,
    }
}

fn path_of<T: Kind>(one: &str) -> String {
    format!("/{}/{}", T::ALL, path_step(one))
}

impl Overlap {
    /// The grace time, in seconds; parts of one count as a whole one.
    fn seconds(&self) -> Result<u64, CliError> {
        let text = &self.grace;
        let ms = match text.as_str() {
            "0" => 0,
            text => moment::parse_length(text)
                .map_err(|what| CliError::Usage(format!("--grace {text:?}: {what}")))?,
        };
        Ok(u64::try_from(ms).unwrap_or(0).div_ceil(1_000))
    }
}

impl ChosenToken {
    pub(super) fn read(self) -> Result<Option<TokenText>, CliError> {
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
    read_secret("token")
}

/// Reads a secret from standard input, asking a person for it by this name.
pub(super) fn read_secret(what: &str) -> Result<TokenText, CliError> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        eprint!("{what}: ");
    }
    let mut text = String::new();
    let mut input = stdin.lock().take(INPUT_BYTES_MAX);
    input.read_line(&mut text).map_err(CliError::Input)?;
    let token = text.trim_end_matches(['\r', '\n']);
    if token.is_empty() {
        return Err(CliError::Usage(format!("standard input holds no {what}")));
    }
    Ok(TokenText::new(token.to_owned()))
}
