//! Why a request was refused: code, status, words; and how that becomes a reply.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::api::{ApiError, ErrorBody, RowError};

/// A request that is not done, for the caller to read. Never holds what the caller must not see:
/// no secret, no path, no cause from inside (SEC-76).
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: Code,
    pub(super) message: String,
    /// Field, parameter or header at fault.
    pub(super) target: Option<String>,
    /// Bad rows of an import.
    pub(super) rows: Vec<RowError>,
}

/// Declares the codes with their status: the closed list that `docs/openapi.yaml` shows.
macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $status:ident $text:literal,)+) => {
        /// For programs: what kind of refusal it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Code { $($(#[$doc])* $code,)+ }

        impl Code {
            /// Every code.
            #[cfg(test)]
            pub(super) const ALL: &'static [Code] = &[$(Code::$code,)+];

            pub(super) fn as_str(self) -> &'static str {
                match self { $(Code::$code => $text,)+ }
            }

            pub(super) fn status(self) -> StatusCode {
                match self { $(Code::$code => StatusCode::$status,)+ }
            }
        }
    };
}

codes! {
    /// The request is not what HTTP asks for: the Host header, mostly.
    BadRequest = BAD_REQUEST "bad_request",
    /// The body is no JSON.
    BadJson = BAD_REQUEST "bad_json",
    /// A parameter in the address is missing, unknown or out of range.
    BadParameter = BAD_REQUEST "bad_parameter",
    /// No admin token, or a wrong one.
    Unauthorized = UNAUTHORIZED "unauthorized",
    /// The admin token has a smaller scope than this needs.
    ScopeMissing = FORBIDDEN "scope_missing",
    /// The request was meant for a host that this server is not.
    HostRefused = FORBIDDEN "host_refused",
    /// No such endpoint.
    NotFound = NOT_FOUND "not_found",
    /// No such device.
    DeviceNotFound = NOT_FOUND "device_not_found",
    /// No such application.
    AppNotFound = NOT_FOUND "app_not_found",
    /// No such user.
    UserNotFound = NOT_FOUND "user_not_found",
    /// No such admin token.
    AdminTokenNotFound = NOT_FOUND "admin_token_not_found",
    /// No such live credential.
    CredentialNotFound = NOT_FOUND "credential_not_found",
    /// The endpoint exists, but not with this method.
    MethodNotAllowed = METHOD_NOT_ALLOWED "method_not_allowed",
    /// The body did not arrive in time.
    BodyTimeout = REQUEST_TIMEOUT "body_timeout",
    /// Another device has the name.
    NameTaken = CONFLICT "name_taken",
    /// The token is in use, or was.
    TokenTaken = CONFLICT "token_taken",
    /// The registry is at its limit.
    RegistryFull = CONFLICT "registry_full",
    /// The body is too long.
    BodyTooLarge = PAYLOAD_TOO_LARGE "body_too_large",
    /// The body is not declared as JSON.
    NotJson = UNSUPPORTED_MEDIA_TYPE "not_json",
    /// JSON, but a field is missing, unknown, or has a value that is not accepted.
    BadField = UNPROCESSABLE_ENTITY "bad_field",
    /// Rows of an import are bad, and none was to be left out.
    ImportRefused = UNPROCESSABLE_ENTITY "import_refused",
    /// The passphrase of a backup is too short.
    WeakPassphrase = UNPROCESSABLE_ENTITY "weak_passphrase",
    /// More requests than the server takes.
    TooManyRequests = TOO_MANY_REQUESTS "too_many_requests",
    /// A fault of the broker; its log says more.
    Internal = INTERNAL_SERVER_ERROR "internal",
    /// As many requests of that kind as the server does at once are running.
    Busy = SERVICE_UNAVAILABLE "busy",
    /// The history has not read yet what was durable when it was asked.
    HistoryBehind = SERVICE_UNAVAILABLE "history_behind",
    /// The change is durable; not every worker has confirmed it.
    NotConfirmed = SERVICE_UNAVAILABLE "not_confirmed",
    /// The disk has no room for the change.
    StorageFull = SERVICE_UNAVAILABLE "storage_full",
    /// The request took longer than a request may.
    RequestTimeout = SERVICE_UNAVAILABLE "request_timeout",
}

/// Seconds after which a refused request is worth another try: each cause passes by itself, or
/// does not pass sooner for asking more often.
const RETRY_AFTER_S: &str = "1";

impl Code {
    /// Which part of the request is at fault, where nothing says so more closely; of what is no
    /// fault of the caller's, none.
    fn part_at_fault(self) -> Option<String> {
        let part = match self {
            Code::BadJson | Code::BodyTimeout | Code::BodyTooLarge | Code::ImportRefused => "body",
            Code::NotFound => "path",
            Code::MethodNotAllowed => "method",
            code if code.status().is_client_error() => "request",
            _ => return None,
        };
        Some(part.to_owned())
    }
}

impl Refused {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Refused {
        Refused {
            code,
            message: message.into(),
            target: None,
            rows: Vec::new(),
        }
    }

    /// Names the field, parameter or header at fault.
    pub(super) fn target(self, target: impl Into<String>) -> Refused {
        Refused {
            target: Some(target.into()),
            ..self
        }
    }

    /// A fault of ours: the cause goes to the log, not to the caller.
    pub(super) fn internal(cause: &dyn std::fmt::Display) -> Refused {
        tracing::error!("an HTTP request failed: {cause}");
        Refused::new(
            Code::Internal,
            "the broker could not do this; its log says why",
        )
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let error = ErrorBody {
            code: self.code.as_str().to_owned(),
            message: self.message,
            target: self.target.or_else(|| self.code.part_at_fault()),
            rows: self.rows,
        };
        let mut response = (status, Json(ApiError { error })).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"tollgate\""),
            );
        }
        if [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ]
        .contains(&status)
        {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response
    }
}
