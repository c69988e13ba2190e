//! A broker with somebody on it who has one of everything that a revocation ends.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, Version},
    wire::Wire,
};

/// How long a state may take to come about, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// How often it is asked: the API answers 100 requests a second.
const ASK_INTERVAL: Duration = Duration::from_millis(25);

/// Which listener clients use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Tcp,
    Tls,
}

impl Over {
    pub(crate) const BOTH: [Over; 2] = [Over::Tcp, Over::Tls];

    pub(crate) fn wire(self, broker: &Broker) -> Wire {
        match self {
            Over::Tcp => broker.wire(),
            Over::Tls => broker.wire_tls(),
        }
    }

    pub(crate) fn connect(self, broker: &Broker, connect: &Connect<'_>) -> Client {
        Client::over(self.wire(broker), connect)
    }
}

/// The answer of the admin API: status and body.
pub(crate) fn ask(broker: &Broker, method: &str, path: &str, wanted: &Value) -> (u16, Value) {
    let file = broker.dir().join("secrets").join("admin.token");
    let admin_token = fs::read_to_string(file).expect("made at the first start");
    let url = format!("{}/admin/v1/{path}", broker.admin_url());
    let bearer = format!("Bearer {}", admin_token.trim());
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let reply = match method {
        "POST" if wanted.is_null() => agent.post(url).header("authorization", bearer).send_empty(),
        "DELETE" => agent.delete(url).header("authorization", bearer).call(),
        "GET" => agent.get(url).header("authorization", bearer).call(),
        "PATCH" => agent
            .patch(url)
            .header("authorization", bearer)
            .send_json(wanted),
        _ => agent
            .post(url)
            .header("authorization", bearer)
            .send_json(wanted),
    };
    let mut reply = reply.unwrap_or_else(|error| panic!("{method} {path} {wanted}: {error}"));
    let body = reply.body_mut().read_json().expect("JSON");
    (reply.status().as_u16(), body)
}

/// As [`ask`], for what must succeed.
pub(crate) fn ask_ok(broker: &Broker, method: &str, path: &str, wanted: &Value) -> Value {
    let (status, body) = ask(broker, method, path, wanted);
    assert!((200..300).contains(&status), "{method} {path}: {body}");
    body
}

/// An application with this scope in both directions; its token.
pub(crate) fn create_app(broker: &Broker, name: &str, filters: &[&str]) -> String {
    let wanted = json!({"name": name, "publish": filters, "subscribe": filters});
    let created = ask_ok(broker, "POST", "apps", &wanted);
    created["token"].as_str().expect("a token").to_owned()
}

/// A receipt without its time.
pub(crate) fn figures(receipt: &Value) -> Value {
    let mut receipt = receipt.clone();
    let members = receipt.as_object_mut().expect("a receipt");
    members.remove("milliseconds");
    members.remove("dry_run");
    receipt
}

/// Asks until the answer is as it must become.
pub(crate) fn wait_until(what: &str, mut ask: impl FnMut() -> Option<()>) {
    let deadline = Instant::now() + LIMIT;
    while ask().is_none() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        thread::sleep(ASK_INTERVAL);
    }
}

/// Clients of one application that have one of everything.
pub(crate) struct Everything {
    /// Connected, kept: 2 subscriptions, 3 messages queued, 1 in flight, 2 QoS 2 messages of its
    /// own unfinished, a will, 2 retained messages.
    pub(crate) live: Client,
    /// Connected, not kept: 1 subscription.
    pub(crate) short: Client,
    /// Who publishes, of another application.
    pub(crate) other: Client,
}

/// What ends with all that [`Everything`] has, and the session `away` (1 subscription, 2 messages
/// queued, a will that waits).
pub(crate) fn all_of_it() -> Value {
    json!({
        "connections": 2, "sessions": 3, "subscriptions": 4, "queued": 5, "in_flight": 1,
        "unfinished": 2, "wills": 2, "retained": 2,
    })
}

impl Everything {
    /// Below `name/`, for the application `name` with this token; `other` may publish there.
    pub(crate) fn make(
        broker: &Broker,
        over: Over,
        (name, token): (&str, &str),
        other: &str,
    ) -> Everything {
        let topic = |rest: &str| format!("{name}/{rest}");
        let (will, a, b, c) = (topic("will"), topic("a"), topic("b"), topic("c"));
        let with_will = |client_id| Connect {
            will: Some((1, true, &will, b"will")),
            ..Connect::with_token(Version::V5, client_id, token).kept()
        };
        let away = with_will("away").will_delay(3_600);
        let mut away = over.connect(broker, &away);
        assert_eq!(away.subscribe(&b, 1), 1);
        away.wire.reset();
        let mut live = over.connect(broker, &with_will("live").receive_maximum(1));
        assert_eq!(live.subscribe(&a, 1), 1);
        assert_eq!(live.subscribe(&topic("d"), 2), 2);
        let mut short = Connect::with_token(Version::V5, "short", token);
        short.clean = true;
        let mut short = over.connect(broker, &short);
        assert_eq!(short.subscribe(&c, 0), 0);
        let mut other = over.connect(broker, &Connect::with_token(Version::V5, "other", other));
        for number in 0..4 {
            assert_eq!(other.publish(1, &a, number.to_string().as_bytes()), 0);
        }
        assert_eq!(live.next().text(), "0");
        for number in 0..2 {
            assert_eq!(other.publish(1, &b, number.to_string().as_bytes()), 0);
            let retained = topic(&format!("retained/{number}"));
            assert_eq!(live.retain(1, &retained, b"retained"), 0);
            let id = live.fresh_id();
            live.send_publish(4, id, &topic("x"), &[], b"unfinished");
            assert_eq!(live.expect_ack(0x50, id), 0);
        }
        Everything { live, short, other }
    }

    /// Waits until it is all there, as a dry run sees it.
    pub(crate) fn wait(broker: &Broker, name: &str) {
        let path = format!("apps/{name}/revoke");
        wait_until("everything", || {
            let foreseen = ask_ok(broker, "POST", &path, &json!({"dry_run": true}));
            (figures(&foreseen["receipt"]) == all_of_it()).then_some(())
        });
    }
}
