//! Who it is that sends a CONNECT: a certificate, a token, MQTT Basic credentials, or a user's
//! token.
//!
//! # Invariants
//! 1. A certificate that was shown is never passed over: it is its holder's who comes in, or an
//!    authority vouches for it, or the token beside it is bound to it; and the connection ends with
//!    it.
//! 2. What names two identities lets nobody in (SEC-22).
//! 3. Whether a token may be used beside what was shown is asked of the registry alone (SEC-54);
//!    the client is told what it would be told of any wrong one.

use std::net::IpAddr;

use super::greeter::Greeter;
use super::retire;
use super::tls::Certificate;
use crate::identity::{
    Certified, Fingerprint, GoodCertificate, Origin, Principal, Shown, USER_ID_PREFIX,
};
use crate::mqtt::session::ConnectRefusal;
use crate::mqtt::wire::{Connect, Version};

/// Who it is. TB-03: with a certificate it is its holder, and tokens and names are not considered;
/// unless they are somebody else's, or the certificate is nobody's: then it stands beside a token,
/// as one of an authority or as the one that the token is bound to.
///
/// # Errors
/// What CONNACK says.
pub(super) fn authenticate(
    greeter: &Greeter,
    connect: &Connect<'_>,
    (from, certificate): (IpAddr, &Certificate),
) -> Result<Principal, ConnectRefusal> {
    let coming = |certificate| Origin {
        address: Some(from),
        certificate,
    };
    let (der, ends_ms, is_vouched_for) = match certificate {
        Certificate::NotAsked => {
            return by_connect(greeter, connect, coming(Certified::NotAsked));
        }
        Certificate::None => return by_connect(greeter, connect, coming(Certified::Nothing)),
        Certificate::Good {
            der,
            ends_ms,
            is_vouched_for,
        } => (der, *ends_ms, *is_vouched_for),
        Certificate::Refused(why) => {
            tracing::debug!(%from, %why, "a client's certificate was refused");
            return Err(ConnectRefusal::BadCertificate);
        }
    };
    let good = GoodCertificate {
        fingerprint: Fingerprint::of(der),
        ends_ms,
        is_vouched_for,
    };
    let registry = &greeter.shared.registry;
    match registry.admit_certificate(good, from) {
        Ok(principal) => {
            // Its holder vouches for it: any token of somebody else counts.
            let known = GoodCertificate {
                is_vouched_for: true,
                ..good
            };
            let other = match registry.admit_client(shown(connect), coming(Certified::With(known)))
            {
                Ok(other) => Some(other.identity),
                // Somebody's, though it opens no door here.
                Err(refused) => refused.of.map(|(identity, _)| identity),
            };
            let is_user = user_token(connect)
                .is_some_and(|(id, token)| registry.authenticate_user(id, token).is_some());
            if is_user || other.is_some_and(|other| other != principal.identity) {
                return Err(ConnectRefusal::BadCertificate);
            }
            Ok(principal)
        }
        Err(refused) if refused.of.is_none() => {
            let beside = by_connect(greeter, connect, coming(Certified::With(good)));
            beside.map_err(|refusal| match is_vouched_for {
                true => beside_nobody(refusal),
                // Whatever else was shown: nothing is told of a token here.
                false => ConnectRefusal::BadCertificate,
            })
        }
        Err(refused) => {
            let fingerprint = good.fingerprint;
            tracing::debug!(%from, %fingerprint, why = %refused.why, "a certificate was refused");
            Err(ConnectRefusal::BadCertificate)
        }
    }
}

/// A certificate of nobody with nothing beside it is refused as that (TB-03).
fn beside_nobody(refusal: ConnectRefusal) -> ConnectRefusal {
    match refusal {
        ConnectRefusal::UnknownClientId | ConnectRefusal::NoCredentials => {
            ConnectRefusal::BadCertificate
        }
        other => other,
    }
}

/// TB-01, TB-02 and TB-04: the user name is the device access token, and a password beside it is
/// ignored; or client id, user name and password are those of MQTT Basic.
/// Tokens of users are the password, or the user name where there is none (ID-42).
fn by_connect(
    greeter: &Greeter,
    connect: &Connect<'_>,
    origin: Origin,
) -> Result<Principal, ConnectRefusal> {
    let (shown, registry) = (shown(connect), &greeter.shared.registry);
    if let Some((id, token)) = user_token(connect) {
        // No token of a user is bound to a certificate.
        let user = match origin.certificate {
            Certified::With(good) if good.is_vouched_for => {
                let user = registry.authenticate_user(id, token);
                user.map(|user| user.with_certificate(good))
            }
            Certified::With(_) => None,
            Certified::Nothing | Certified::NotAsked => registry.authenticate_user(id, token),
        };
        // A device's token may have any form.
        let device = || registry.admit_client(shown, origin).ok();
        return user.or_else(device).ok_or(ConnectRefusal::BadUserToken);
    }
    match registry.admit_client(shown, origin) {
        Ok(principal) => return Ok(principal),
        Err(refused) => {
            if let Some(refusal) = retire::known_token(refused) {
                return Err(refusal);
            }
        }
    }
    let is_old = connect.version != Version::V5;
    Err(match (connect.user_name, connect.password) {
        (None | Some(""), _) if is_old && greeter.shared.empty_user_name_code_4 => {
            ConnectRefusal::MissingUserName
        }
        (None, None) if connect.client_id.is_empty() => ConnectRefusal::NoCredentials,
        (None, None) => ConnectRefusal::UnknownClientId,
        _ => ConnectRefusal::BadCredentials,
    })
}

/// What it shows of a token or MQTT Basic credentials.
pub(super) fn shown<'c>(connect: &Connect<'c>) -> Shown<'c> {
    Shown {
        client_id: connect.client_id,
        user_name: connect.user_name,
        password: connect.password,
    }
}

/// The id and the token of a user, if it is one who connects: the id is empty where the token says
/// it all.
pub(super) fn user_token<'c>(connect: &Connect<'c>) -> Option<(&'c str, &'c [u8])> {
    let user_name = connect.user_name.unwrap_or("");
    let password = connect.password.unwrap_or(&[]);
    if user_name.starts_with(USER_ID_PREFIX) {
        return Some((user_name, password));
    }
    if user_name.is_empty() {
        return is_like_jwt(password).then_some(("", password));
    }
    (password.is_empty() && is_like_jwt(user_name.as_bytes())).then_some(("", user_name.as_bytes()))
}

/// Whether a text begins like a signed token and has its three parts.
fn is_like_jwt(text: &[u8]) -> bool {
    text.starts_with(b"eyJ") && text.iter().filter(|byte| **byte == b'.').count() == 2
}
