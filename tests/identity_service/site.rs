//! A broker with an access key, and signed requests made by hand.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::SystemTime,
};

use serde_json::Value;
use tollgate::http::identity_service::{AccessKeyText, signed_headers};

use crate::common::{
    broker::{Broker, Setup},
    client::Client,
    packets::{Connect, Version},
    secrets,
    wire::ANSWER_LIMIT,
};

/// A broker with HTTPS and one access key.
pub(crate) struct Site {
    pub(crate) broker: Broker,
    pub(crate) key: String,
}

/// A reply, taken apart.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Site {
    pub(crate) fn start() -> Site {
        Site::start_with(&[])
    }

    /// With some environment variables of its own.
    pub(crate) fn start_with(overrides: &[(&str, &str)]) -> Site {
        let setup = Setup::new().set("TOLLGATE_HTTPS_LISTEN", "127.0.0.1:0");
        let setup = overrides
            .iter()
            .fold(setup, |setup, (key, value)| setup.set(key, value));
        let broker = setup.start();
        let key = renew(&broker, "primary");
        Site { broker, key }
    }

    /// What SDKs are given: always TLS.
    pub(crate) fn connection_string(&self) -> String {
        let port = self.broker.address("https").port();
        format!("endpoint=https://localhost:{port}/;accesskey={}", self.key)
    }

    /// A signed request over plain HTTP.
    pub(crate) fn call(&self, method: &str, target: &str, body: &str) -> Reply {
        self.call_by(&self.key, method, target, body)
    }

    /// A request signed with this key.
    pub(crate) fn call_by(&self, key: &str, method: &str, target: &str, body: &str) -> Reply {
        let host = self.broker.address("http").to_string();
        let key = AccessKeyText::parse(key).expect("a key");
        let now = SystemTime::now();
        let signed = signed_headers(&key, method, &host, target, body.as_bytes(), now);
        let headers: Vec<String> = signed
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        self.send(method, target, &headers, body)
    }

    /// A request with these headers.
    pub(crate) fn send(&self, method: &str, target: &str, headers: &[String], body: &str) -> Reply {
        let address = self.broker.address("http");
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("a time");
        let mut text = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            text += &format!("Host: {address}\r\n");
        }
        for header in headers {
            text += &format!("{header}\r\n");
        }
        text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(text.as_bytes()).expect("it reads");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        Reply::parse(&reply)
    }

    /// Creates a user; its id.
    pub(crate) fn create(&self) -> String {
        let reply = self.call("POST", CREATE, "");
        assert_eq!(reply.status, 201, "{reply:?}");
        text(&reply.json()["identity"]["id"])
    }

    /// Issues a token with these scopes.
    pub(crate) fn issue(&self, user: &str, scopes: &[&str]) -> String {
        let body = serde_json::json!({ "scopes": scopes }).to_string();
        let reply = self.call("POST", &operation(user, ISSUE), &body);
        assert_eq!(reply.status, 200, "{reply:?}");
        text(&reply.json()["token"])
    }

    pub(crate) fn revoke(&self, user: &str) {
        let reply = self.call("POST", &operation(user, REVOKE), "");
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    }

    pub(crate) fn delete(&self, user: &str) {
        let reply = self.call("DELETE", &operation(user, ""), "");
        assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    }

    /// Connects with a token as the password.
    pub(crate) fn connect(&self, version: Version, user: &str, token: &str) -> Client {
        Client::connect(&self.broker, &with_token(version, "c", Some(user), token))
    }

    /// The code of the CONNACK for a token.
    pub(crate) fn connack(&self, version: Version, user: Option<&str>, token: &str) -> u8 {
        let mut wire = self.broker.wire();
        wire.send(&with_token(version, "probe", user, token).encode());
        let connack = wire.packet();
        assert_eq!(connack[0], 0x20);
        connack[3]
    }
}

impl Reply {
    fn parse(text: &str) -> Reply {
        secrets::harvest(text);
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no reply: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let headers = lines.filter_map(|line| line.split_once(": "));
        Reply {
            status: status.and_then(|text| text.parse().ok()).expect("a status"),
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Status and code of a refusal, whose body has the form of section 4.
    pub(crate) fn refusal(&self) -> String {
        let body = self.json();
        let error = &body["error"];
        assert!(error["message"].is_string(), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        format!("{} {}", self.status, text(&error["code"]))
    }
}

pub(crate) const CREATE: &str = "/identities?api-version=2023-10-01";
pub(crate) const ISSUE: &str = "/:issueAccessToken";
pub(crate) const REVOKE: &str = "/:revokeAccessTokens";

/// The target of an operation on a user.
pub(crate) fn operation(user: &str, what: &str) -> String {
    format!("/identities/{user}{what}?api-version=2023-10-01")
}

/// Makes an access key.
pub(crate) fn renew(broker: &Broker, name: &str) -> String {
    let renewed = broker.cli_json(&["identity", "key", "renew", name, "--json"]);
    text(&renewed["access_key"])
}

/// A CONNECT with a token as the password.
pub(crate) fn with_token<'a>(
    version: Version,
    client_id: &'a str,
    user: Option<&'a str>,
    token: &'a str,
) -> Connect<'a> {
    Connect {
        user_name: user,
        password: Some(token.as_bytes()),
        ..Connect::anonymous(version, client_id)
    }
}

pub(crate) fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}
