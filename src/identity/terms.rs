//! The terms of a token: when it is valid, from where, beside which certificate, and what it allows
//! (SEC-54).
//!
//! Tokens without terms cost nothing. The end of a token stands in the index; what few have (the
//! beginning, rights, networks, quotas) in a table beside it, about 30 bytes each. What many tokens
//! have alike is kept once; with a quota or a certificate, or where nobody else has the same, it is
//! about 150 bytes more, 17 for each network and 32 for a certificate.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;

use super::certificate::Certified;
use super::{Fingerprint, IdentityKind, QUOTA_MAX, Quota, RegistryError, Rights, TokenRefusal};
use crate::limits::{Network, Networks};
use crate::store::terms::TermsRow;

/// Networks that one token may name.
pub const NETWORKS_MAX: usize = 16;

/// Latest end of a token: the index keeps whole seconds in 32 bits. 7 February 2106.
pub const EXPIRES_MAX_MS: u64 = u32::MAX as u64 * SECOND_MS;

const SECOND_MS: u64 = 1_000;

/// When a token is valid, from where, and what it allows on the device topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When it begins to be valid; wall clock, ms.
    pub not_before_ms: Option<u64>,
    /// When it ends by itself; wall clock, ms, whole seconds.
    pub expires_ms: Option<u64>,
    /// Its rights on the device topics; an application has none to lose.
    pub rights: Rights,
    /// Where it may be used from; anywhere without any.
    pub networks: Vec<Network>,
    /// Connections that it may have at once, 1 to [`QUOTA_MAX`]; within those of its identity.
    pub connections_max: Option<u32>,
    /// Messages that may come with it in a second, 1 to [`QUOTA_MAX`].
    pub messages_max: Option<u32>,
    /// The client's certificate without which it opens no door; needed by no certificate.
    pub certificate: Option<Fingerprint>,
}

impl Default for Terms {
    fn default() -> Self {
        Terms {
            not_before_ms: None,
            expires_ms: None,
            rights: Rights::ALL,
            networks: Vec::new(),
            connections_max: None,
            messages_max: None,
            certificate: None,
        }
    }
}

/// A change of terms: what is not given stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TermsChange {
    /// When it begins to be valid; wall clock, ms.
    pub not_before_ms: Option<Option<u64>>,
    /// When it ends by itself; wall clock, ms.
    pub expires_ms: Option<Option<u64>>,
    /// Its rights on the device topics.
    pub rights: Option<Rights>,
    /// Where it may be used from.
    pub networks: Option<Vec<Network>>,
    /// Connections that it may have at once.
    pub connections_max: Option<Option<u32>>,
    /// Messages that may come with it in a second.
    pub messages_max: Option<Option<u32>>,
    /// The client's certificate that it needs beside it.
    pub certificate: Option<Option<Fingerprint>>,
}

impl TermsChange {
    /// The terms after the change, checked as a whole. A moment within a second counts as the end
    /// of that second.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] with what cannot be.
    pub(super) fn of(
        &self,
        before: Terms,
        kind: IdentityKind,
        now_ms: u64,
    ) -> Result<Terms, RegistryError> {
        let expires_ms = match self.expires_ms {
            Some(wanted) => wanted.map(whole_seconds),
            None => before.expires_ms,
        };
        let terms = Terms {
            not_before_ms: self.not_before_ms.unwrap_or(before.not_before_ms),
            expires_ms,
            rights: self.rights.unwrap_or(before.rights),
            networks: self.networks.clone().unwrap_or(before.networks),
            connections_max: self.connections_max.unwrap_or(before.connections_max),
            messages_max: self.messages_max.unwrap_or(before.messages_max),
            certificate: self.certificate.unwrap_or(before.certificate),
        };
        match self.fault(&terms, kind, now_ms) {
            None => Ok(terms),
            Some((field, what)) => Err(RegistryError::Invalid { field, what }),
        }
    }

    fn fault(
        &self,
        terms: &Terms,
        kind: IdentityKind,
        now_ms: u64,
    ) -> Option<(&'static str, String)> {
        if let Some(end) = terms.expires_ms {
            if self.expires_ms.is_some() && end <= now_ms {
                let what = "is over already; to end a token now, rotate or revoke it";
                return Some(("expires_ms", what.to_owned()));
            }
            if end > EXPIRES_MAX_MS {
                let what = format!("is {end}, the latest is {EXPIRES_MAX_MS} (February 2106)");
                return Some(("expires_ms", what));
            }
            if terms.not_before_ms.is_some_and(|begin| begin >= end) {
                let what = format!("is not before expires_ms, {end}: it would never be valid");
                return Some(("not_before_ms", what));
            }
        }
        if terms.not_before_ms.is_some_and(|at| at > EXPIRES_MAX_MS) {
            let what = format!("is after {EXPIRES_MAX_MS} (February 2106)");
            return Some(("not_before_ms", what));
        }
        if terms.rights != Rights::ALL && kind != IdentityKind::Device {
            let what = "are those of devices on their own topics; what an application may do is \
                        said by its filters";
            return Some(("rights", what.to_owned()));
        }
        let quotas = [
            ("connections_max", terms.connections_max),
            ("messages_max", terms.messages_max),
        ];
        for (field, quota) in quotas {
            if quota.is_some_and(|quota| !(1..=QUOTA_MAX).contains(&quota)) {
                let what = format!("must be 1 to {QUOTA_MAX}; to let nobody in, revoke the token");
                return Some((field, what));
            }
        }
        let found = terms.networks.len();
        (found > NETWORKS_MAX).then(|| {
            let what = format!("are {found}, the limit is {NETWORKS_MAX}");
            ("networks", what)
        })
    }
}

impl Terms {
    /// The same, ending then at the latest (wall clock, ms).
    pub(super) fn until(self, ends_ms: u64) -> Terms {
        let ends_ms = whole_seconds(ends_ms).min(EXPIRES_MAX_MS);
        let own = self.expires_ms.unwrap_or(ends_ms);
        Terms {
            expires_ms: Some(own.min(ends_ms)),
            ..self
        }
    }

    pub(super) fn from_row(row: &TermsRow, expires_ms: Option<u64>) -> Terms {
        Terms {
            not_before_ms: row.not_before_ms,
            expires_ms,
            rights: row.rights.map_or(Rights::ALL, Rights::from_bits),
            networks: networks(row),
            connections_max: row.connections_max,
            messages_max: row.messages_max,
            certificate: row.certificate.as_deref().copied().map(Fingerprint),
        }
    }

    /// All but the end, which stands with the credential.
    pub(super) fn row(&self) -> TermsRow {
        let networks: Vec<String> = self.networks.iter().map(ToString::to_string).collect();
        TermsRow {
            not_before_ms: self.not_before_ms,
            rights: (self.rights != Rights::ALL).then(|| self.rights.bits()),
            networks: networks.join("\n").into(),
            connections_max: self.connections_max,
            messages_max: self.messages_max,
            certificate: self.certificate.map(|known| Box::new(known.0)),
        }
    }
}

/// What of a row's networks this version can read. One that it cannot read (a newer one wrote it)
/// lets nobody in: it stands for a network that no client is in.
fn networks(row: &TermsRow) -> Vec<Network> {
    let nowhere = || "0.0.0.0/32".parse().expect("an address");
    let read = |text: &str| text.parse().unwrap_or_else(|_| nowhere());
    row.networks.lines().map(read).collect()
}

/// A moment as the end of its second, so that nothing ends earlier than it was said.
pub(super) fn whole_seconds(at_ms: u64) -> u64 {
    at_ms.div_ceil(SECOND_MS).saturating_mul(SECOND_MS)
}

/// The end of a token as the index has it.
pub(super) fn index_seconds(expires_ms: Option<u64>) -> u32 {
    match expires_ms {
        // Beyond is refused where it is set.
        Some(at) => u32::try_from(at.div_ceil(SECOND_MS))
            .unwrap_or(u32::MAX)
            .max(1),
        None => 0,
    }
}

/// The other way round.
pub(super) fn from_index_seconds(seconds: u32) -> Option<u64> {
    (seconds != 0).then(|| u64::from(seconds) * SECOND_MS)
}

/// What holds for live tokens beside their ends, by credential. At most as many as there are
/// tokens.
#[derive(Default)]
pub(super) struct TermsTable {
    held: DashMap<u64, Arc<Held>>,
    // A leaf lock, taken by the writer thread and when the registry is loaded.
    common: Mutex<HashMap<TermsRow, Arc<Held>>>,
}

/// Different terms that are remembered so that the next token can share them: a megabyte of them.
const COMMON_MAX: usize = 4_096;

/// What is asked when a token is shown.
pub(super) struct Held {
    pub(super) not_before_ms: u64,
    pub(super) rights: Rights,
    networks: Networks,
    /// What it is bound to. Few tokens are: a box is smaller than an empty place.
    certificate: Option<Box<Fingerprint>>,
    /// One for all connections of the token, as long as it has a quota.
    pub(super) quota: Option<Arc<Quota>>,
}

impl Held {
    fn new(row: &TermsRow, quota: Option<Arc<Quota>>) -> Held {
        Held {
            quota,
            not_before_ms: row.not_before_ms.unwrap_or(0),
            rights: row.rights.map_or(Rights::ALL, Rights::from_bits),
            networks: networks(row).into_iter().collect(),
            certificate: (row.certificate.as_deref()).map(|known| Box::new(Fingerprint(*known))),
        }
    }

    /// Whether it is bound to a client's certificate.
    pub(super) fn is_bound(&self) -> bool {
        self.certificate.is_some()
    }

    /// Why it does not open the door for a client that shows this; `None` if it does (SEC-72).
    pub(super) fn unlike(&self, shown: Certified) -> Option<TokenRefusal> {
        let wanted = **self.certificate.as_ref()?;
        match shown {
            Certified::With(good) if good.fingerprint == wanted => None,
            Certified::With(_) | Certified::Nothing => Some(TokenRefusal::Certificate),
            Certified::NotAsked => Some(TokenRefusal::CertificateNotAsked),
        }
    }

    /// Whether it may be used from there. Who is not said to be anywhere is in no network.
    pub(super) fn is_from(&self, address: Option<IpAddr>) -> bool {
        self.networks.is_empty() || address.is_some_and(|address| self.networks.contains(address))
    }
}

impl TermsTable {
    /// What holds for a credential.
    pub(super) fn of(&self, credential: u64) -> Option<Arc<Held>> {
        // Copied out: the guard is a lock and must not outlive this line.
        Some(Arc::clone(self.held.get(&credential)?.value()))
    }

    /// Keeps what holds for a live credential from now on; before the index says that there is
    /// something.
    pub(super) fn hold(&self, credential: u64, row: &TermsRow) {
        let has_quota = row.connections_max.is_some() || row.messages_max.is_some();
        let before = self.of(credential).and_then(|held| held.quota.clone());
        let quota = before.or_else(|| has_quota.then(Arc::default));
        if let Some(quota) = &quota {
            quota.limit(row.connections_max, row.messages_max);
        }
        let held = match quota.filter(|_| has_quota) {
            // The count of what is used is the token's own.
            Some(quota) => Arc::new(Held::new(row, Some(quota))),
            // So is a certificate: to remember it for others would only push out what they share.
            None if row.certificate.is_some() => Arc::new(Held::new(row, None)),
            None => self.common(row),
        };
        self.held.insert(credential, held);
    }

    fn common(&self, row: &TermsRow) -> Arc<Held> {
        let mut common = self.common.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = common.get(row) {
            return Arc::clone(held);
        }
        let held = Arc::new(Held::new(row, None));
        if common.len() >= COMMON_MAX {
            // Whoever has them keeps them; who comes next shares with those that come then.
            common.clear();
        }
        common.insert(row.clone(), Arc::clone(&held));
        held
    }

    /// Forgets credentials that ended, or of which the index says that there is nothing.
    pub(super) fn forget(&self, credentials: impl IntoIterator<Item = u64>) {
        for credential in credentials {
            let held = self.held.remove(&credential);
            if let Some(quota) = held.and_then(|(_, held)| held.quota.clone()) {
                quota.limit(None, None);
            }
        }
    }

    /// Tokens with terms beside an end.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}
