//! The identity service on the wire (specification: identity.md): `/identities…` and
//! `/teamsUser/…`, as unmodified SDKs know them. Other authentication, other errors and other names
//! than the admin API; the registry behind both is one.
//!
//! A request is signed with an access key ([`signature`]). That is checked before anything else, on
//! the head alone, so that strangers cost no body and learn nothing (401 before 404). Which names
//! this server goes by is not asked here: the signature covers the Host header, and no web page has
//! a key.

mod body;
mod directory;
mod keys;
mod refusal;
mod signature;
mod users;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use axum::response::IntoResponse;
use uuid::Uuid;

pub use crate::identity::AccessKeyText;
pub(super) use directory::{list, one};
pub(super) use keys::{public_keys, renew, show};
pub(super) use refusal::{Cause, Refusal};
pub use signature::{Signed, signed_headers};
pub(super) use users::{create, delete, exchange, issue, revoke};

use super::caller::Ends;
use super::service::Shared;
use crate::audit;

/// Below these every request is the identity service's.
const PREFIXES: [&str; 2] = ["/identities", "/teamsUser/"];

/// Where the public key of tokens is read.
pub(super) const PUBLIC_KEYS_PATH: &str = "/.well-known/jwks.json";

/// The versions of the interface that clients may ask for (ID-08).
pub const API_VERSIONS: [&str; 4] = ["2021-03-07", "2022-06-01", "2022-10-01", "2023-10-01"];

const SUPPORTED: HeaderName = HeaderName::from_static("api-supported-versions");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");

/// Longest request id of a client that is sent back, bytes.
const CLIENT_REQUEST_ID_BYTES_MAX: usize = 128;

/// Whether a path belongs to the identity service.
pub(super) fn is_ours(path: &str) -> bool {
    PREFIXES
        .iter()
        .any(|prefix| match path.strip_prefix(prefix) {
            Some(rest) => prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
            None => false,
        })
}

/// Checks the signature of a request, and leaves in its extensions who signed what.
pub(super) fn admit<B>(shared: &Shared, request: &mut Request<B>) -> Result<(), Refusal> {
    let now = std::time::SystemTime::now();
    let verify = |text: &str, mac: &[u8]| shared.registry.verify_signature(text, mac);
    let signed = Signed::verify(
        request.method(),
        request.uri(),
        request.headers(),
        now,
        verify,
    );
    match signed {
        Ok(signed) => {
            request.extensions_mut().insert(signed);
            Ok(())
        }
        Err(why) => {
            tracing::debug!(%why, "a request to the identity service is not signed as it must be");
            Err(Refusal::denied())
        }
    }
}

/// Who signed a request that was let in: the version of its access key.
pub(super) fn signer<B>(request: &Request<B>, ends: Ends) -> audit::Caller {
    let signed = request.extensions().get::<Signed>();
    let by = signed.map_or_else(String::new, |signed| {
        format!("access key {}", signed.access_key)
    });
    audit::Caller {
        by: by.into(),
        from: Some(ends.peer),
    }
}

/// The id that a client gave its request, to be sent back.
pub(super) fn client_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(CLIENT_REQUEST_ID)?;
    (id.len() <= CLIENT_REQUEST_ID_BYTES_MAX).then(|| id.clone())
}

/// Puts in what every reply has.
pub(super) fn finish(response: &mut Response<Body>, client_id: Option<HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(SUPPORTED, HeaderValue::from_static(API_VERSIONS_TEXT));
    if let Ok(id) = HeaderValue::from_str(&Uuid::new_v4().to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(id) = client_id {
        headers.insert(CLIENT_REQUEST_ID, id);
    }
}

const API_VERSIONS_TEXT: &str = "2021-03-07, 2022-06-01, 2022-10-01, 2023-10-01";

/// A reply, or the refusal in its own form.
fn answer(result: Result<Response<Body>, Refusal>) -> Response<Body> {
    result.unwrap_or_else(IntoResponse::into_response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_the_service_are_told_from_others() {
        for path in [
            "/identities",
            "/identities/",
            "/identities/8:acs:x/:y",
            "/teamsUser/:exchangeAccessToken",
        ] {
            assert!(is_ours(path), "{path}");
        }
        for path in ["/", "/identitiesx", "/teamsUser", "/admin/v1/identity"] {
            assert!(!is_ours(path), "{path}");
        }
        assert_eq!(API_VERSIONS_TEXT, API_VERSIONS.join(", "));
    }
}
