//! Who comes in: what a connection knows of its identity after CONNECT, and how it is found out,
//! again whenever something may have changed.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::certificate::{Certified, Origin};
use super::index::{TokenEntry, TokenKey};
use super::registry::{Shared, now_ms};
use super::terms;
use super::token::TOKEN_BYTES_MAX;
use super::{GoodCertificate, IdentityKind, Permit, Quota, Registry, Rights, UserFigures};

/// Who a connection belongs to and what it may do.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The device, application or user.
    pub identity: Uuid,
    /// Which of them.
    pub kind: IdentityKind,
    /// The credential that it showed.
    pub credential: u64,
    /// The identity's generation when it showed it.
    pub generation: u32,
    /// How its payloads are read.
    pub profile: ProfileFlags,
    /// What it may publish to and receive. Compiled once, shared.
    pub permit: Arc<Permit>,
    /// When the credential ends by itself, wall clock in ms.
    pub expires_at_ms: Option<u64>,
    /// The certificate that its client showed; it is no later than with this that it ends.
    pub certificate: Option<Arc<GoodCertificate>>,
    /// What is counted of a user; nobody else is counted.
    pub figures: Option<Arc<UserFigures>>,
    /// The quota of its credential, if that has one.
    pub quota: Option<Arc<Quota>>,
    /// Something is to be done when its credential is used ([`Registry::note_use`]).
    pub(super) is_watched: bool,
    /// Where its credential stands in the index.
    pub(super) key: TokenKey,
}

/// Flags of the device's profile, as they stand in journal records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileFlags(pub u8);

/// A credential that does not open the door. Clients are not told which of these it was (SEC-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAdmitted {
    /// What is wrong with it.
    pub why: TokenRefusal,
    /// Whose it is and its number, if it is one.
    pub of: Option<(Uuid, u64)>,
}

/// Why a credential does not open the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// No live one is like it.
    Unknown,
    /// Its time has not begun.
    NotYet,
    /// Its time is over.
    Expired,
    /// It may not be used from where it was shown.
    Network,
    /// It is bound to a client's certificate, and another was shown, or none.
    Certificate,
    /// It is bound to a client's certificate, and the listener asks for none.
    CertificateNotAsked,
    /// No authority vouches for the certificate beside it, and it is not bound to that one.
    Unvouched,
}

impl fmt::Display for TokenRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenRefusal::Unknown => "no live token is like it",
            TokenRefusal::NotYet => "its time has not begun",
            TokenRefusal::Expired => "its time is over",
            TokenRefusal::Network => "it may not be used from this address",
            TokenRefusal::Certificate => "the client certificate it is bound to was not shown",
            TokenRefusal::CertificateNotAsked => {
                "it is bound to a client certificate, and the listener asks for none"
            }
            TokenRefusal::Unvouched => {
                "nobody vouches for the client certificate beside it, and it is not bound to that"
            }
        })
    }
}

pub(super) const UNKNOWN: NotAdmitted = NotAdmitted {
    why: TokenRefusal::Unknown,
    of: None,
};

impl Registry {
    /// Who shows this token as its user name, from this address. Allocates nothing, but for a
    /// device whose scope has placeholders or whose token has not all rights besides a scope: its
    /// permit is compiled here. Touches memory only.
    ///
    /// # Errors
    /// The token is unknown (everything that is no live token, SEC-20), too early or late, shown
    /// from outside of its networks, or bound to a certificate.
    pub fn admit(&self, user_name: &str, from: Option<IpAddr>) -> Result<Principal, NotAdmitted> {
        if user_name.is_empty() || user_name.len() > TOKEN_BYTES_MAX {
            return Err(UNKNOWN);
        }
        let shared = self.shared();
        let digest = shared.key.token_digest(user_name);
        shared.admit(&digest, None, Origin::plain(from))
    }

    /// As [`Registry::admit`] from nowhere in particular: a token that is bound to networks does
    /// not open the door.
    #[must_use]
    pub fn authenticate(&self, user_name: &str) -> Option<Principal> {
        self.admit(user_name, None).ok()
    }

    /// A principal as it would be if it came now: with the rights, the generation and the end that
    /// its credential has by now. Asked after the connection was registered, so that a change in
    /// between is not missed (SEC-34), and of every connection after a change. Touches memory
    /// only.
    ///
    /// # Errors
    /// It would not be let in.
    pub fn readmit(&self, principal: &Principal, from: IpAddr) -> Result<Principal, NotAdmitted> {
        let shared = self.shared();
        let entry = shared.index.find(principal.key);
        let entry = entry.filter(|entry| entry.credential == principal.credential);
        let entry = entry.ok_or(UNKNOWN)?;
        if principal.kind != IdentityKind::User {
            let certificate = principal.certificate.as_deref();
            let origin = Origin {
                address: Some(from),
                certificate: certificate.map_or(Certified::Nothing, |good| Certified::With(*good)),
            };
            return shared.principal(principal.key, entry, origin);
        }
        // What a user may was said by the token, once and for all.
        if !shared.users.knows(principal.credential) {
            return Err(UNKNOWN);
        }
        Ok(Principal {
            generation: entry.generation,
            ..principal.clone()
        })
    }

    /// Whether the credential of a principal is live. It may have other terms than it had:
    /// [`Registry::readmit`] tells.
    #[must_use]
    pub fn is_current(&self, principal: &Principal) -> bool {
        let shared = self.shared();
        let entry = shared.index.find(principal.key);
        entry.is_some_and(|entry| entry.credential == principal.credential)
            && (principal.kind != IdentityKind::User || shared.users.knows(principal.credential))
    }

    /// What an identity may do now, for what waits in its name: queued messages and wills are asked
    /// about again when they go (SEC-37, SEC-38). Touches memory only. Who does not exist, or is
    /// an application that was deleted, has the rights of a plain device: no ordinary topic.
    #[must_use]
    pub fn permit(&self, identity: Uuid) -> Arc<Permit> {
        let scoped = self.shared().scopes.permit(identity);
        scoped.unwrap_or_else(|| self.shared().plain(Rights::ALL))
    }

    /// What the holder of this credential may do now, for what waits in its name: of a user what
    /// the token allows, of everybody else what the identity may, as far as the token has the
    /// right. A token of a user that ended or expired allows nothing.
    #[must_use]
    pub fn permit_of(&self, identity: Uuid, credential: u64) -> Arc<Permit> {
        let shared = self.shared();
        if let Some(permit) = shared.users.permit_now(identity, credential) {
            return permit;
        }
        let held = shared.terms.of(credential);
        let rights = held.map_or(Rights::ALL, |held| held.rights);
        shared.permit(self.permit(identity), rights)
    }
}

impl Shared {
    pub(super) fn principal(
        &self,
        key: TokenKey,
        entry: TokenEntry,
        origin: Origin,
    ) -> Result<Principal, NotAdmitted> {
        let kind = IdentityKind::from_number(entry.kind);
        let (identity, credential) = (entry.identity, entry.credential);
        let refused = |why| NotAdmitted {
            why,
            of: Some((identity, credential)),
        };
        let expires_at_ms = terms::from_index_seconds(entry.expires_s);
        if expires_at_ms.is_some_and(|at| at <= now_ms()) {
            return Err(refused(TokenRefusal::Expired));
        }
        let (mut rights, mut quota, mut is_bound) = (Rights::ALL, None, false);
        if entry.has_terms {
            // Not there: it ended a moment ago.
            let held = self.terms.of(credential).ok_or(UNKNOWN)?;
            if held.not_before_ms > 0 && held.not_before_ms > now_ms() {
                return Err(refused(TokenRefusal::NotYet));
            }
            if !held.is_from(origin.address) {
                return Err(refused(TokenRefusal::Network));
            }
            if let Some(why) = held.unlike(origin.certificate) {
                return Err(refused(why));
            }
            is_bound = held.is_bound();
            rights = held.rights;
            quota.clone_from(&held.quota);
        }
        if let Certified::With(good) = &origin.certificate
            && !(good.is_vouched_for || is_bound || self.is_itself(key, good))
        {
            return Err(refused(TokenRefusal::Unvouched));
        }
        let permit = match self.scopes.permit(identity) {
            Some(scoped) => self.permit(scoped, rights),
            None if kind == IdentityKind::Device => self.plain(rights),
            // Deleted a moment ago. Users' tokens are looked up elsewhere.
            None => return Err(UNKNOWN),
        };
        let principal = Principal {
            identity,
            kind,
            credential,
            generation: entry.generation,
            profile: ProfileFlags::default(),
            permit,
            expires_at_ms,
            certificate: None,
            figures: None,
            quota,
            is_watched: entry.is_watched,
            key,
        };
        Ok(match origin.certificate {
            Certified::With(good) => principal.with_certificate(good),
            Certified::Nothing | Certified::NotAsked => principal,
        })
    }

    /// The permit of an identity, as far as a token has the rights.
    fn permit(&self, of_identity: Arc<Permit>, rights: Rights) -> Arc<Permit> {
        if rights == Rights::ALL {
            return of_identity;
        }
        Arc::new(of_identity.with_own_topics_of(&self.plain(rights)))
    }

    /// The one permit of all devices without a scope whose tokens have these rights.
    fn plain(&self, rights: Rights) -> Arc<Permit> {
        let place = self.permits.get(usize::from(rights.bits()));
        let place = place.expect("there is a place for every combination of rights");
        Arc::clone(place.get_or_init(|| Arc::new(Permit::device_with(rights))))
    }
}
