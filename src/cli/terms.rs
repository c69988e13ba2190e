//! The terms of a token as they are typed and shown: when it is valid, from where, beside which
//! certificate, and for what.

use clap::Args;

use crate::{
    cli::{CliError, identity::listed, moment, table::shown},
    http::api::{self, CredentialView, Terms, TokenReport},
};

/// Terms of a token.
#[derive(Debug, Default, Args)]
pub(super) struct TermsOptions {
    /// When the token ends by itself: 90d (from now), 2027-01-31T12:00:00Z, or never
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// When the token begins to be valid: 1h (from now), 2027-01-31T12:00:00Z, or now
    #[arg(long, value_name = "WHEN")]
    not_before: Option<String>,
    /// Networks that the token may be used from, such as 10.0.0.0/8 or 2001:db8::7; or anywhere
    #[arg(long, value_name = "NETWORK", num_args = 1..)]
    from: Option<Vec<String>>,
    /// What a device's token allows on the device topics: telemetry, attributes_read,
    /// attributes_write, rpc; or all, or none
    #[arg(long, value_name = "RIGHT", num_args = 1..)]
    allow: Option<Vec<String>>,
    /// Connections that the token may have at once; or any
    #[arg(long, value_name = "NUMBER")]
    connections: Option<String>,
    /// Messages that may come with the token in a second; or any
    #[arg(long, value_name = "NUMBER")]
    rate: Option<String>,
    /// SHA-256 fingerprint of the client certificate without which the token opens no door, as
    /// openssl x509 -noout -fingerprint -sha256 prints it; or none
    #[arg(long, value_name = "FINGERPRINT")]
    bound_to: Option<String>,
}

impl TermsOptions {
    /// What was typed; `None` for nothing.
    pub(super) fn read(self) -> Result<Option<Terms>, CliError> {
        let now = moment::now_ms();
        let terms = Terms {
            not_before_ms: when("--not-before", self.not_before.as_deref(), "now", now)?,
            expires_ms: when("--expires", self.expires.as_deref(), "never", now)?,
            rights: match one_or_more("--allow", self.allow, &["all", "none"])? {
                None => None,
                Some(names) => match names.first().map(String::as_str) {
                    Some("all") => Some(None),
                    Some("none") => Some(Some(Vec::new())),
                    _ => Some(Some(names)),
                },
            },
            connections_max: quota("--connections", self.connections.as_deref())?,
            messages_max: quota("--rate", self.rate.as_deref())?,
            certificate: self.bound_to.as_deref().map(fingerprint).transpose()?,
            networks: one_or_more("--from", self.from, &["anywhere"])?.map(
                |networks| match networks.first().map(String::as_str) {
                    Some("anywhere") => Vec::new(),
                    _ => networks,
                },
            ),
        };
        Ok((terms != Terms::default()).then_some(terms))
    }
}

/// A moment ahead, or the word that stands for none.
fn when(
    option: &str,
    text: Option<&str>,
    none: &str,
    now_ms: i64,
) -> Result<Option<Option<u64>>, CliError> {
    let Some(text) = text else {
        return Ok(None);
    };
    if text == none {
        return Ok(Some(None));
    }
    let moment = moment::parse_ahead(text, now_ms);
    let moment = moment.and_then(|at| u64::try_from(at).map_err(|_| "this is before 1970".into()));
    let at =
        moment.map_err(|what| CliError::Usage(format!("{option} {text:?}: {what}, or {none}")))?;
    Ok(Some(Some(at)))
}

/// A fingerprint as the broker writes it, or the word that stands for none.
fn fingerprint(text: &str) -> Result<Option<String>, CliError> {
    if text == "none" {
        return Ok(None);
    }
    // OpenSSL puts what it is before it.
    let digits = text.rsplit('=').next().unwrap_or(text).trim();
    let read = api::fingerprint(digits);
    let read = read.map_err(|what| CliError::Usage(format!("--bound-to {text:?} {what}; or none")));
    read.map(Some)
}

/// A number, or the word that stands for none.
fn quota(option: &str, text: Option<&str>) -> Result<Option<Option<u32>>, CliError> {
    match text {
        None => Ok(None),
        Some("any") => Ok(Some(None)),
        Some(text) => text.parse().map(|number| Some(Some(number))).map_err(|_| {
            CliError::Usage(format!(
                "{option} {text:?}: allowed is a whole number, or any"
            ))
        }),
    }
}

/// Values of which some stand alone.
fn one_or_more(
    option: &str,
    values: Option<Vec<String>>,
    alone: &[&str],
) -> Result<Option<Vec<String>>, CliError> {
    let Some(values) = values else {
        return Ok(None);
    };
    let found = values.iter().find(|value| alone.contains(&value.as_str()));
    match found {
        Some(word) if values.len() > 1 => Err(CliError::Usage(format!(
            "{option}: {word} says it all; give it alone, or leave it out"
        ))),
        _ => Ok(Some(values)),
    }
}

/// What terms say, wherever they are shown.
struct Shown<'t> {
    not_before_ms: Option<u64>,
    expires_ms: Option<u64>,
    rights: Option<&'t [String]>,
    networks: &'t [String],
    connections_max: Option<u32>,
    messages_max: Option<u32>,
    certificate: Option<&'t str>,
}

impl Shown<'_> {
    /// Facts, each with its name; none where there are no terms.
    fn facts(&self) -> Vec<(&'static str, String)> {
        let number = |number: u32| number.to_string();
        let facts = [
            ("not before", self.not_before_ms.map(moment::show_unsigned)),
            ("until", self.expires_ms.map(moment::show_unsigned)),
            (
                "only from",
                (!self.networks.is_empty()).then(|| listed(self.networks)),
            ),
            ("only for", self.rights.map(listed)),
            ("connections at most", self.connections_max.map(number)),
            ("messages a second at most", self.messages_max.map(number)),
            ("only beside the certificate", self.certificate.map(shown)),
        ];
        let facts = facts.into_iter();
        facts
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

/// The terms of a credential on one line; empty without any.
pub(super) fn line(credential: &CredentialView) -> String {
    let shown = Shown {
        not_before_ms: credential.not_before_ms,
        expires_ms: credential.expires_ms,
        rights: credential.rights.as_deref(),
        networks: &credential.networks,
        connections_max: credential.connections_max,
        messages_max: credential.messages_max,
        certificate: credential.certificate.as_deref(),
    };
    let facts = shown.facts().into_iter();
    let facts: Vec<String> = facts
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    facts.join("; ")
}

/// What holds for a live token, a line each.
pub(super) fn lines(report: &TokenReport) -> String {
    let TokenReport::Live {
        not_before_ms,
        expires_ms,
        rights,
        networks,
        connections_max,
        messages_max,
        certificate,
        publish,
        subscribe,
        ..
    } = report
    else {
        return String::new();
    };
    let shown = Shown {
        not_before_ms: *not_before_ms,
        expires_ms: *expires_ms,
        rights: rights.as_deref(),
        networks,
        connections_max: *connections_max,
        messages_max: *messages_max,
        certificate: certificate.as_deref(),
    };
    let mut facts = shown.facts();
    for (name, filters) in [("may publish to", publish), ("may receive", subscribe)] {
        if !filters.is_empty() {
            facts.push((name, listed(filters)));
        }
    }
    let lines = facts
        .iter()
        .map(|(name, value)| format!("  {name} {value}\n"));
    lines.collect()
}

/// Whether a live token opens the door as it is, in front of whose it is.
pub(super) fn opens(report: &TokenReport) -> String {
    match report {
        TokenReport::Live {
            refused: Some(why), ..
        } => format!(
            ", but opens no door as it is: {}; it belongs to",
            shown(why)
        ),
        _ => ": opens the door for".to_owned(),
    }
}
