//! From what was written to what a key may hold.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::{
    CertificatePair,
    error::{ConfigError, Expected},
    key::{Key, Shape},
    layer::{Found, Layers, Raw},
};
use crate::limits::{Network, Networks};

/// Most addresses one listener may have; each costs a thread.
const ADDRESSES_MAX: usize = 16;

/// Most networks in one list; every connection is compared with each.
const NETWORKS_MAX: usize = 64;

/// Most pairs in `mqtts.more_certificates`; a handshake looks through them.
const PAIRS_MAX: usize = 64;

/// Most names in `certs.names`; a certificate with more is refused by small clients.
const NAMES_MAX: usize = 64;

/// Most filters that one scope of the identity service may stand for.
pub(super) const RIGHTS_MAX: usize = 32;

impl Layers {
    pub(super) fn number<T: TryFrom<u64>>(&self, key: &'static Key) -> Result<T, ConfigError> {
        let found = self.find(key);
        let Shape::Number { least, most, .. } = key.shape else {
            return Err(refused(key, found));
        };
        let number = match &found.value {
            Raw::Integer(number) => u64::try_from(*number).ok(),
            Raw::Word(word) => word.trim().replace('_', "").parse().ok(),
            _ => None,
        };
        number
            .filter(|number| (least..=most).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| refused(key, found))
    }

    pub(super) fn switch(&self, key: &'static Key) -> Result<bool, ConfigError> {
        let found = self.find(key);
        match &found.value {
            Raw::Switch(switch) => Ok(*switch),
            Raw::Word(word) if word == "true" => Ok(true),
            Raw::Word(word) if word == "false" => Ok(false),
            _ => Err(refused(key, found)),
        }
    }

    pub(super) fn choice(&self, key: &'static Key) -> Result<&'static str, ConfigError> {
        let found = self.find(key);
        let Shape::Choice(words) = key.shape else {
            return Err(refused(key, found));
        };
        words
            .iter()
            .find(|word| found.text() == Some(**word))
            .copied()
            .ok_or_else(|| refused(key, found))
    }

    pub(super) fn path(&self, key: &'static Key) -> Result<PathBuf, ConfigError> {
        let found = self.find(key);
        match found.text() {
            Some(text) if !text.is_empty() => Ok(PathBuf::from(text)),
            _ => Err(refused(key, found)),
        }
    }

    pub(super) fn optional_path(&self, key: &'static Key) -> Result<Option<PathBuf>, ConfigError> {
        let found = self.find(key);
        match found.text() {
            Some("") => Ok(None),
            Some(text) => Ok(Some(PathBuf::from(text))),
            None => Err(refused(key, found)),
        }
    }

    pub(super) fn addresses(&self, key: &'static Key) -> Result<Vec<SocketAddr>, ConfigError> {
        let found = self.find(key);
        if found.text() == Some("off") {
            return Ok(Vec::new());
        }
        let addresses: Option<Vec<SocketAddr>> = found
            .items()
            .and_then(|items| items.iter().map(|item| item.parse().ok()).collect());
        addresses
            .filter(|addresses| addresses.len() <= ADDRESSES_MAX)
            .ok_or_else(|| refused(key, found))
    }

    pub(super) fn names(&self, key: &'static Key) -> Result<Vec<String>, ConfigError> {
        let found = self.find(key);
        match found.items() {
            Some(names) if names.len() <= NAMES_MAX && names.iter().all(|name| is_name(name)) => {
                Ok(names)
            }
            _ => Err(refused(key, found)),
        }
    }

    pub(super) fn origins(&self, key: &'static Key) -> Result<Vec<String>, ConfigError> {
        let found = self.find(key);
        match found.items() {
            Some(items) if items.len() <= NAMES_MAX && items.iter().all(|it| is_origin(it)) => {
                Ok(items)
            }
            _ => Err(refused(key, found)),
        }
    }

    pub(super) fn networks(&self, key: &'static Key) -> Result<Networks, ConfigError> {
        let found = self.find(key);
        let networks: Option<Vec<Network>> = found
            .items()
            .and_then(|items| items.iter().map(|item| item.parse().ok()).collect());
        networks
            .filter(|networks| networks.len() <= NETWORKS_MAX)
            .map(Networks::from_iter)
            .ok_or_else(|| refused(key, found))
    }

    pub(super) fn pairs(&self, key: &'static Key) -> Result<Vec<CertificatePair>, ConfigError> {
        let found = self.find(key);
        let pair = |item: &String| {
            let (certificate, key) = item.split_once(':')?;
            (!certificate.is_empty() && !key.is_empty()).then(|| CertificatePair {
                certificate: certificate.into(),
                key: key.into(),
            })
        };
        let pairs: Option<Vec<_>> = found
            .items()
            .and_then(|items| items.iter().map(pair).collect());
        pairs
            .filter(|pairs| pairs.len() <= PAIRS_MAX)
            .ok_or_else(|| refused(key, found))
    }

    pub(super) fn rights(&self, key: &'static Key) -> Result<Vec<String>, ConfigError> {
        let found = self.find(key);
        let is_right = |item: &String| {
            let filter = item
                .strip_prefix("subscribe ")
                .or_else(|| item.strip_prefix("publish "));
            filter.is_some_and(|filter| !filter.is_empty())
        };
        match found.items() {
            Some(items) if items.len() <= RIGHTS_MAX && items.iter().all(is_right) => Ok(items),
            _ => Err(refused(key, found)),
        }
    }

    pub(super) fn filter(&self, key: &'static Key) -> Result<String, ConfigError> {
        let found = self.find(key);
        match found.text() {
            Some(text) if is_filter(text) => Ok(text.to_owned()),
            _ => Err(refused(key, found)),
        }
    }

    /// The error for a value that does not go with another.
    pub(super) fn conflict(&self, key: &'static Key, problem: String) -> ConfigError {
        let found = self.find(key);
        let place = found.place;
        ConfigError::Conflict {
            place,
            key,
            found: found.value.to_string(),
            problem,
        }
    }
}

impl Found {
    fn text(&self) -> Option<&str> {
        match &self.value {
            Raw::Text(text) | Raw::Word(text) => Some(text),
            _ => None,
        }
    }

    /// A list; one string stands for a list of one, and in the environment commas divide.
    fn items(&self) -> Option<Vec<String>> {
        match &self.value {
            Raw::Text(text) => Some(vec![text.clone()]),
            Raw::Word(word) if word.is_empty() => Some(Vec::new()),
            Raw::Word(word) => Some(word.split(',').map(|item| item.trim().to_owned()).collect()),
            Raw::List(items) => items
                .iter()
                .map(|item| match item {
                    Raw::Text(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            _ => None,
        }
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Text(text) | Raw::Word(text) => write!(f, "{text:?}"),
            Raw::Integer(number) => write!(f, "{number}"),
            Raw::Switch(switch) => write!(f, "{switch}"),
            Raw::List(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
                }
                f.write_char(']')
            }
            Raw::Other(text) => f.write_str(text),
        }
    }
}

fn refused(key: &'static Key, found: Found) -> ConfigError {
    let Found { value, place } = found;
    ConfigError::Value {
        place,
        key,
        found: value.to_string(),
        expected: Expected(&key.shape),
    }
}

/// A host name or an IP address that a certificate can carry.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(label))
}

/// What a browser may send as `Origin`.
fn is_origin(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"/?#@,\"\\".contains(&byte);
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_plain);
    text == "null"
        || text
            .split_once("://")
            .is_some_and(|(scheme, host)| is_part(scheme) && is_part(host))
}

/// A level, or a list of `target=level` and levels: what `--log` takes, without its rarer forms.
fn is_filter(text: &str) -> bool {
    let level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].contains(&word.to_lowercase().as_str())
    };
    text.split(',').all(|part| match part.split_once('=') {
        Some((target, word)) => !target.trim().is_empty() && level(word.trim()),
        None => level(part.trim()),
    })
}
