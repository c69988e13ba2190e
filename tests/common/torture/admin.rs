//! The admin API as an operator's script uses it, with answers that may fail to come.

use std::{
    net::SocketAddr,
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::device::FIRST_TS;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

/// How long after a start the store may take to read what the journal holds.
const READ_LIMIT: Duration = Duration::from_secs(180);

/// Points in one answer at most, as the API allows.
const POINTS_MAX: u64 = 10_000;

/// A script with the admin token in its hand.
#[derive(Clone)]
pub(crate) struct Admin {
    token: String,
    agent: ureq::Agent,
}

impl Admin {
    /// With the token of the broker that runs in `dir`.
    pub(crate) fn new(dir: &Path) -> Admin {
        let file = dir.join("secrets/admin.token");
        let token = std::fs::read_to_string(file).expect("the first start made an admin token");
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_LIMIT))
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        Admin {
            token: token.trim().to_owned(),
            agent,
        }
    }

    /// POST under `/admin/v1`; None when no answer came: it may or may not have been done.
    ///
    /// # Panics
    /// If the broker refuses.
    pub(crate) fn post(&self, http: SocketAddr, path: &str, body: &Value) -> Option<Value> {
        let request = self
            .agent
            .post(format!("http://{http}/admin/v1{path}"))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        answer(path, request.send(body.to_string()))
    }

    /// GET under `/admin/v1`, as `post`.
    pub(crate) fn get(&self, http: SocketAddr, path: &str) -> Option<Value> {
        let request = self
            .agent
            .get(format!("http://{http}/admin/v1{path}"))
            .header("authorization", format!("Bearer {}", self.token));
        answer(path, request.call())
    }

    /// As `get`, for history: right after a start the store may still be reading the journal, and
    /// says so with 503 after 5 s (architecture section 3).
    pub(crate) fn get_when_read(&self, http: SocketAddr, path: &str) -> Value {
        let deadline = Instant::now() + READ_LIMIT;
        loop {
            if let Some(view) = self.get(http, path) {
                return view;
            }
            assert!(
                Instant::now() < deadline,
                "no history within {READ_LIMIT:?}"
            );
        }
    }

    /// Makes a device; its id and its token.
    pub(crate) fn create(&self, http: SocketAddr, name: &str) -> Option<(uuid::Uuid, String)> {
        let created = self.post(http, "/devices", &json!({ "name": name }))?;
        let id = created["device"]["id"].as_str()?.parse().expect("a UUID");
        Some((id, created["token"].as_str()?.to_owned()))
    }

    /// Ends a device's credentials; true when the broker said that it is done.
    pub(crate) fn revoke(&self, http: SocketAddr, name: &str) -> bool {
        let path = format!("/devices/{name}/revoke");
        self.post(http, &path, &json!({})).is_some()
    }

    /// The numbers of the messages that history has of a device, of those in this range.
    ///
    /// # Panics
    /// If the broker does not answer, or a value is not what was sent at its time.
    pub(crate) fn numbers(&self, http: SocketAddr, name: &str, range: Range<u64>) -> Vec<u64> {
        let mut numbers = Vec::new();
        let mut first = range.start;
        while first < range.end {
            let next = range.end.min(first + POINTS_MAX);
            let (from, to) = (FIRST_TS + first, FIRST_TS + next);
            let path = format!(
                "/devices/{name}/telemetry?keys=n&from={from}&to={to}&limit={POINTS_MAX}&order=asc"
            );
            let view = self.get_when_read(http, &path);
            for point in view["points"].as_array().expect("a list of points") {
                let n = point["value"].as_u64().expect("n is a whole number");
                assert_eq!(
                    point["ts"],
                    FIRST_TS + n,
                    "a value at a wrong time: {point}"
                );
                numbers.push(n);
            }
            first = next;
        }
        numbers
    }
}

fn answer(
    path: &str,
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Option<Value> {
    let mut response = response.ok()?;
    let status = response.status();
    let text = response
        .body_mut()
        .with_config()
        .limit(1 << 30)
        .read_to_string();
    // A broker that is killed in the middle of an answer has not answered.
    let text = text.ok()?;
    // 503 while it stops, or "durable, not yet confirmed": nothing was promised.
    if status == 503 {
        return None;
    }
    assert!(status.is_success(), "{path}: {status}: {text}");
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}")))
}
