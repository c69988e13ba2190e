//! Refusals as the platform's clients expect them (section 11.0).

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::http::refused::{Code, Refused};

/// Body of a refusal.
#[derive(Serialize)]
struct Body {
    status: u16,
    message: String,
    #[serde(rename = "errorCode")]
    error_code: u32,
    timestamp: u64,
}

/// The reply to a request that is not done.
pub(in crate::http) fn in_platform_form(refused: Refused) -> Response {
    let status = refused.code.status();
    let status = match status {
        // The platform knows no other word for a request it cannot read.
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        status => status,
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let timestamp = since.unwrap_or_default().as_millis();
    let body = Body {
        status: status.as_u16(),
        message: match refused.code {
            Code::Unauthorized => "Authentication failed".to_owned(),
            _ => refused.message,
        },
        error_code: error_code(refused.code),
        timestamp: u64::try_from(timestamp).unwrap_or(u64::MAX),
    };
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
        let again = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, again);
    }
    response
}

fn error_code(code: Code) -> u32 {
    match code {
        Code::Unauthorized => 10,
        Code::HostRefused => 20,
        Code::BadParameter => 30,
        Code::BadRequest | Code::BadJson | Code::BadField | Code::NotJson => 31,
        Code::NotFound | Code::DeviceNotFound | Code::MethodNotAllowed => 32,
        Code::TooManyRequests => 33,
        Code::NameTaken | Code::TokenTaken => 35,
        Code::RegistryFull => 41,
        _ => 2,
    }
}
