//! Who it is that sends a CONNECT: a token, MQTT Basic credentials, or a user's token.

use std::net::IpAddr;

use super::greeter::Greeter;
use super::retire;
use crate::identity::{Principal, Shown, USER_ID_PREFIX};
use crate::mqtt::session::ConnectRefusal;
use crate::mqtt::wire::{Connect, Version};

/// TB-01, TB-02 and TB-04: the user name is the device access token, and a password beside it is
/// ignored; or client id, user name and password are those of MQTT Basic.
/// Tokens of users are the password, or the user name where there is none (ID-42).
pub(super) fn authenticate(
    greeter: &Greeter,
    connect: &Connect<'_>,
    from: IpAddr,
) -> Result<Principal, ConnectRefusal> {
    let shown = shown(connect);
    if let Some((id, token)) = user_token(connect) {
        let user = greeter.shared.registry.authenticate_user(id, token);
        // A device's token may have any form.
        let device = || greeter.shared.registry.admit_client(shown, from).ok();
        return user.or_else(device).ok_or(ConnectRefusal::BadUserToken);
    }
    match greeter.shared.registry.admit_client(shown, from) {
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
