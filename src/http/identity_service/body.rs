//! What a request to the identity service asks for: version, body, scopes, life time.

use axum::extract::Request;
use serde_json::{Map, Value};

use super::{API_VERSIONS, Cause, Refusal, Signed};
use crate::http::body;
use crate::http::parameters::Parameters;
use crate::identity::{LIFE_MINUTES, UserScopes, WantedToken, content_hash};

/// Longest body, bytes.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// A request that is signed as a whole, and speaks a version that is known.
pub(super) struct Call {
    /// The version of the access key that signed it.
    pub(super) access_key: u32,
    body: Vec<u8>,
}

impl Call {
    /// Reads the body and holds it to what was signed.
    pub(super) async fn read(request: Request) -> Result<Call, Refusal> {
        let (head, body) = request.into_parts();
        let signed: &Signed = head.extensions.get().ok_or_else(Refusal::denied)?;
        let deadline = head.extensions.get();
        let body = body::read(&head.headers, deadline, body, BODY_BYTES_MAX).await?;
        if content_hash(&body) != signed.content_hash {
            return Err(Refusal::denied());
        }
        check_version(head.uri.query())?;
        Ok(Call {
            access_key: signed.access_key,
            body,
        })
    }

    /// The members of the body; none where it is empty.
    pub(super) fn members(&self) -> Result<Map<String, Value>, Refusal> {
        if self.body.is_empty() {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(members)) => Ok(members),
            _ => Err(Refusal::new(
                Cause::InvalidRequest,
                "the body is no JSON object",
            )),
        }
    }
}

/// ID-08. Versions differ in what they know, not in what is the same in all; there is one answer.
fn check_version(query: Option<&str>) -> Result<(), Refusal> {
    let version = Parameters::new(query).and_then(|mut all| all.text("api-version"));
    match version {
        Ok(Some(version)) if API_VERSIONS.contains(&version.as_str()) => Ok(()),
        _ => Err(Refusal::new(
            Cause::UnsupportedApiVersion,
            format!(
                "the parameter api-version must be one of {}",
                API_VERSIONS.join(", ")
            ),
        )
        .target("api-version")),
    }
}

/// The token that a body asks for; `None` where it names no scopes, which `member` may leave out
/// or have as an empty list.
pub(super) fn wanted_token(
    members: &Map<String, Value>,
    member: &'static str,
) -> Result<Option<WantedToken>, Refusal> {
    let minutes = minutes(members.get("expiresInMinutes"))?;
    let names = match members.get(member) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(names)) if names.is_empty() => return Ok(None),
        Some(Value::Array(names)) => names.iter().map(Value::as_str).collect::<Option<Vec<_>>>(),
        Some(_) => None,
    };
    let names = names.ok_or_else(|| {
        let message = format!("{member} must be a list of strings");
        Refusal::new(Cause::InvalidRequest, message).target(member)
    })?;
    let scopes = UserScopes::named(names).map_err(|_| bad_scopes())?;
    let life_s = minutes * 60;
    Ok(Some(WantedToken { scopes, life_s }))
}

/// ID-10.
pub(super) fn bad_scopes() -> Refusal {
    let message = "the scopes must be one or more of chat, chat.join, chat.join.limited, voip, \
                   voip.join";
    Refusal::new(Cause::InvalidScopes, message).target("scopes")
}

/// ID-11.
fn minutes(value: Option<&Value>) -> Result<u32, Refusal> {
    let (least, most) = (LIFE_MINUTES.start(), LIFE_MINUTES.end());
    let refused = |cause| {
        let message = format!("expiresInMinutes must be a whole number from {least} to {most}");
        Refusal::new(cause, message).target("expiresInMinutes")
    };
    match value {
        None | Some(Value::Null) => Ok(*most),
        Some(Value::Number(number)) => number
            .as_u64()
            .and_then(|minutes| u32::try_from(minutes).ok())
            .filter(|minutes| LIFE_MINUTES.contains(minutes))
            .ok_or_else(|| refused(Cause::InvalidExpiration)),
        Some(_) => Err(refused(Cause::InvalidRequest)),
    }
}
