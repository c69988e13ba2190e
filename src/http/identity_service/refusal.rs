//! Refusals as the SDKs expect them (section 4 of the specification).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::refused::{Code, Refused};

/// A request to the identity service that is not done.
#[derive(Debug)]
pub(in crate::http) struct Refusal {
    cause: Cause,
    message: String,
    target: Option<&'static str>,
}

/// Declares the causes with their status and code.
macro_rules! causes {
    ($($cause:ident = $status:ident $text:literal,)+) => {
        /// What kind of refusal it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(in crate::http) enum Cause { $($cause,)+ }

        impl Cause {
            /// Every cause.
            #[cfg(test)]
            pub(in crate::http) const ALL: &'static [Cause] = &[$(Cause::$cause,)+];

            pub(in crate::http) fn code(self) -> &'static str {
                match self { $(Cause::$cause => $text,)+ }
            }

            pub(in crate::http) fn status(self) -> StatusCode {
                match self { $(Cause::$cause => StatusCode::$status,)+ }
            }
        }
    };
}

causes! {
    Denied = UNAUTHORIZED "Denied",
    InvalidRequest = BAD_REQUEST "InvalidRequest",
    InvalidScopes = BAD_REQUEST "InvalidScopes",
    InvalidExpiration = BAD_REQUEST "InvalidExpiration",
    UnsupportedApiVersion = BAD_REQUEST "UnsupportedApiVersion",
    NotConfigured = BAD_REQUEST "NotConfigured",
    QuotaExceeded = FORBIDDEN "QuotaExceeded",
    NotFound = NOT_FOUND "NotFound",
    IdentityNotFound = NOT_FOUND "IdentityNotFound",
    MethodNotAllowed = METHOD_NOT_ALLOWED "MethodNotAllowed",
    RequestTimeout = REQUEST_TIMEOUT "RequestTimeout",
    PayloadTooLarge = PAYLOAD_TOO_LARGE "PayloadTooLarge",
    TooManyRequests = TOO_MANY_REQUESTS "TooManyRequests",
    InternalError = INTERNAL_SERVER_ERROR "InternalError",
    ServiceUnavailable = SERVICE_UNAVAILABLE "ServiceUnavailable",
}

/// Body of a refusal. Members that would be null are left out.
#[derive(Serialize)]
pub(in crate::http) struct Body<'r> {
    pub(in crate::http) error: Inner<'r>,
}

/// The inside of it.
#[derive(Serialize)]
pub(in crate::http) struct Inner<'r> {
    code: &'static str,
    message: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'static str>,
    details: [(); 0],
}

impl Refusal {
    pub(in crate::http) fn new(cause: Cause, message: impl Into<String>) -> Refusal {
        Refusal {
            cause,
            message: message.into(),
            target: None,
        }
    }

    /// Every kind of bad signature: nothing tells which part was wrong.
    pub(in crate::http) fn denied() -> Refusal {
        Refusal::new(Cause::Denied, "Denied by the resource provider.")
    }

    /// Names the member at fault.
    pub(in crate::http) fn target(self, target: &'static str) -> Refusal {
        Refusal {
            target: Some(target),
            ..self
        }
    }

    /// Its body.
    pub(in crate::http) fn body(&self) -> Body<'_> {
        Body {
            error: Inner {
                code: self.cause.code(),
                message: &self.message,
                target: self.target,
                details: [],
            },
        }
    }
}

/// What the admin API would say, in the words of the service.
impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        let cause = match refused.code {
            Code::UserNotFound => Cause::IdentityNotFound,
            Code::RegistryFull => Cause::QuotaExceeded,
            Code::Unauthorized => return Refusal::denied(),
            Code::BodyTooLarge => Cause::PayloadTooLarge,
            Code::BodyTimeout => Cause::RequestTimeout,
            Code::TooManyRequests => Cause::TooManyRequests,
            Code::NotFound => Cause::NotFound,
            Code::MethodNotAllowed => Cause::MethodNotAllowed,
            Code::Internal => Cause::InternalError,
            _ if refused.code.status().is_server_error() => Cause::ServiceUnavailable,
            _ => Cause::InvalidRequest,
        };
        Refusal::new(cause, refused.message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.cause.status();
        let mut response = (status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("HMAC-SHA256");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ]
        .contains(&status)
        {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_09_refusals_of_the_registry_have_their_codes() {
        for (code, expected) in [
            (Code::UserNotFound, "IdentityNotFound 404"),
            (Code::Unauthorized, "Denied 401"),
            (Code::BodyTooLarge, "PayloadTooLarge 413"),
            (Code::TooManyRequests, "TooManyRequests 429"),
            (Code::RegistryFull, "QuotaExceeded 403"),
            (Code::StorageFull, "ServiceUnavailable 503"),
            (Code::NotConfirmed, "ServiceUnavailable 503"),
            (Code::Internal, "InternalError 500"),
            (Code::BadRequest, "InvalidRequest 400"),
        ] {
            let refusal = Refusal::from(Refused::new(code, "m"));
            let found = format!(
                "{} {}",
                refusal.cause.code(),
                refusal.cause.status().as_u16()
            );
            assert_eq!(found, expected);
        }
    }
}
