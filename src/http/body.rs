//! Reading a request body: at most 1 MiB, in time, and JSON that says where it is wrong.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::{Instant, timeout_at};

use super::refused::{Code, Refused};

/// Longest body, bytes (SEC-75). The largest honest one is a device with a chosen token, some
/// hundred bytes; beyond the limit the request is refused with 413 and the connection closed.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// When the request's time is over; put into its extensions as it arrives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(pub(super) Instant);

/// A body that must be there.
pub(super) struct JsonBody<T>(pub(super) T);

/// A body that may be empty, which means the defaults.
pub(super) struct OptionalJsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let (head, body) = request.into_parts();
        // Before the body is asked for: a refused client need not send it.
        expect_json(&head.headers)?;
        let bytes = read(&head.headers, head.extensions.get(), body, BODY_BYTES_MAX).await?;
        parse(&bytes).map(JsonBody)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let (head, body) = request.into_parts();
        let bytes = read(&head.headers, head.extensions.get(), body, BODY_BYTES_MAX).await?;
        if bytes.is_empty() {
            return Ok(OptionalJsonBody(T::default()));
        }
        expect_json(&head.headers)?;
        parse(&bytes).map(OptionalJsonBody)
    }
}

/// The declared type must be JSON: a form that a web page can send without asking never is.
fn expect_json(headers: &HeaderMap) -> Result<(), Refused> {
    let declared = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = declared.and_then(|value| value.split(';').next());
    if essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let message = "send the body as JSON, with the header Content-Type: application/json";
    Err(Refused::new(Code::NotJson, message).target("Content-Type"))
}

/// The whole of a body that has at most `most` bytes.
pub(super) async fn read(
    headers: &HeaderMap,
    deadline: Option<&Deadline>,
    body: Body,
    most: usize,
) -> Result<Vec<u8>, Refused> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    if declared.is_some_and(|length| length > limit) {
        return Err(too_large(most));
    }
    match deadline {
        Some(Deadline(at)) => timeout_at(*at, collect(body, most))
            .await
            .map_err(|_| late())?,
        None => collect(body, most).await,
    }
}

async fn collect(body: Body, most: usize) -> Result<Vec<u8>, Refused> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk: Bytes = chunk
            .map_err(|_| Refused::new(Code::BadRequest, "the body ended before it was complete"))?;
        if bytes.len().saturating_add(chunk.len()) > most {
            return Err(too_large(most));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn too_large(most: usize) -> Refused {
    let message = format!("the body is longer than {most} bytes");
    Refused::new(Code::BodyTooLarge, message)
}

fn late() -> Refused {
    Refused::new(Code::BodyTimeout, "the body did not arrive in time")
}

/// What is wrong with a text that is no such value, in words that hold none of it.
pub(super) fn fault_of<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> String {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read: Result<T, _> = serde_path_to_error::deserialize(&mut reader);
    let refused = match read {
        Ok(_) => return "has something behind its end".to_owned(),
        Err(error) => explain(error.inner(), &error.path().to_string()),
    };
    let (_, what) = refused.message.split_once(": ").unwrap_or_default();
    format!("cannot be read: {what}")
}

/// Reads JSON; what is wrong is said by line, column and field, never by repeating a value: the
/// value may be a token (SEC-55).
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refused> {
    // serde would take an array for the fields in their order, which nobody documented.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Refused::new(Code::BadField, "the body must be an object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        explain(error.inner(), &path)
    })?;
    reader.end().map_err(|error| explain(&error, "."))?;
    Ok(value)
}

fn explain(error: &serde_json::Error, path: &str) -> Refused {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    // serde_json ends its messages with the place, which we say ourselves.
    let what = text.split(" at line ").next().unwrap_or_default();
    match error.classify() {
        Category::Data => {
            let (what, field) = fault(what, &text, path);
            let refused = Refused::new(
                Code::BadField,
                format!("line {line}, column {column}: {what}"),
            );
            match field {
                Some(field) => refused.target(field),
                None => refused,
            }
        }
        Category::Syntax | Category::Eof | Category::Io => Refused::new(
            Code::BadJson,
            format!("line {line}, column {column}: no JSON: {what}"),
        ),
    }
}

/// What is wrong with a field, without its value, and the field's name.
fn fault(what: &str, text: &str, path: &str) -> (String, Option<String>) {
    for kind in ["missing field `", "unknown field `", "duplicate field `"] {
        if let Some(rest) = what.strip_prefix(kind) {
            let name = rest.split('`').next().unwrap_or_default();
            return (what.to_owned(), Some(name.to_owned()));
        }
    }
    // "invalid type: string \"…\", expected …": the tail is ours, the middle is the caller's.
    let expected = text.rsplit_once(", expected ").map_or("", |(_, tail)| tail);
    let expected = expected.split(" at line ").next().unwrap_or_default();
    let field = (path != "." && path != "?").then(|| path.to_owned());
    let what = match (&field, expected) {
        (Some(field), "") => format!("`{field}` has a value that is not accepted"),
        (Some(field), expected) => format!("`{field}` must be {expected}"),
        (None, "") => "a value that is not accepted".to_owned(),
        (None, expected) => format!("the body must be {expected}"),
    };
    (what, field)
}

#[cfg(test)]
mod tests {
    use super::super::api::Create;
    use super::*;

    fn refusal(text: &str) -> (Code, String, Option<String>) {
        let refused = parse::<Create>(text.as_bytes()).unwrap_err();
        (refused.code, refused.message, refused.target)
    }

    #[test]
    fn bad_json_names_line_and_column() {
        let (code, message, _) = refusal("{\"name\":\n  }");
        assert_eq!(code, Code::BadJson);
        assert_eq!(message, "line 2, column 3: no JSON: expected value");
        let (code, message, _) = refusal("{\"name\":\"a\"");
        assert_eq!(code, Code::BadJson);
        assert!(
            message.starts_with("line 1, column 11: no JSON: EOF"),
            "{message}"
        );
        assert_eq!(refusal("{\"name\":\"a\"} x").0, Code::BadJson);
        assert_eq!(refusal("{\"name\":\"\u{0}\"}").0, Code::BadJson);
        assert_eq!(
            parse::<Create>(b"{\"name\":\"\xff\"}").unwrap_err().code,
            Code::BadJson
        );
    }

    #[test]
    fn a_bad_field_is_named() {
        let (code, message, target) = refusal("{}");
        assert_eq!((code, target.as_deref()), (Code::BadField, Some("name")));
        assert_eq!(message, "line 1, column 2: missing field `name`");
        let (_, message, target) = refusal(r#"{"name":"a","tokn":"b"}"#);
        assert_eq!(target.as_deref(), Some("tokn"));
        assert!(
            message.contains("expected one of `name`, `token`"),
            "{message}"
        );
        let (code, message, target) = refusal(r#"{"name":5}"#);
        assert_eq!((code, target.as_deref()), (Code::BadField, Some("name")));
        assert_eq!(message, "line 1, column 9: `name` must be a string");
        assert_eq!(
            refusal(r#"{"name":"a","name":"a"}"#).2.as_deref(),
            Some("name")
        );
    }

    #[test]
    fn sec_55_a_value_is_never_repeated() {
        for text in [
            r#""tgd_secret""#,
            r#"["tgd_secret, expected x"]"#,
            r#"{"name":{"a":"tgd_secret"}}"#,
            r#"{"name":"a","token":["tgd_secret"]}"#,
            r#"{"name":"a","token":"tgd_secret" at line 7"#,
        ] {
            let (_, message, target) = refusal(text);
            assert!(!message.contains("secret"), "{message}");
            assert!(!target.unwrap_or_default().contains("secret"), "{text}");
        }
    }
}
