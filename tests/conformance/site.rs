//! The broker that most of these tests share, and a place in it for each of them.
//!
//! A place has an application of its own (its sessions and limits touch nobody else's) and topics
//! of its own. The broker ends with the last test that holds it.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, Version},
};

/// Room for tests that connect many clients of one identity, and for all that ask the admin API at
/// the same time.
const SETTINGS: &[(&str, &str)] = &[
    ("TOLLGATE_LIMITS_HTTP_REQUESTS_PER_SECOND_MAX", "1000000"),
    ("TOLLGATE_LIMITS_CONNECTIONS_PER_IDENTITY_MAX", "1000"),
    ("TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX", "1000"),
];

static SHARED: Mutex<Weak<Broker>> = Mutex::new(Weak::new());
static PLACES: AtomicUsize = AtomicUsize::new(0);

/// A broker, an application that may do anything on it, and topics that nobody else uses.
pub(crate) struct Site {
    pub(crate) broker: Arc<Broker>,
    pub(crate) token: String,
    place: usize,
}

impl Site {
    /// A place in the shared broker.
    pub(crate) fn new() -> Site {
        Site::on(shared())
    }

    /// A place in a broker.
    pub(crate) fn on(broker: Arc<Broker>) -> Site {
        let place = PLACES.fetch_add(1, Ordering::Relaxed);
        let token = create_app(&broker, &format!("app-{place}"), &["#"], &["#"]);
        Site {
            broker,
            token,
            place,
        }
    }

    /// A broker of its own, for filters that see every topic, restarts and settings.
    pub(crate) fn alone(settings: &[(&str, &str)]) -> Site {
        let settings: Vec<_> = SETTINGS.iter().chain(settings).copied().collect();
        Site::on(Arc::new(Broker::start_with(&settings)))
    }

    /// A topic (or filter) of this place.
    pub(crate) fn topic(&self, rest: &str) -> String {
        format!("place-{}/{rest}", self.place)
    }

    /// A CONNECT with the application's token.
    pub(crate) fn connect<'a>(&'a self, version: Version, client_id: &'a str) -> Connect<'a> {
        Connect::with_token(version, client_id, &self.token)
    }

    /// A clean client.
    pub(crate) fn client(&self, version: Version, client_id: &str) -> Client {
        self.log_in(&self.connect(version, client_id))
    }

    /// A client whose session is kept.
    pub(crate) fn kept(&self, version: Version, client_id: &str) -> Client {
        self.log_in(&self.connect(version, client_id).kept())
    }

    /// A client that asks for more.
    pub(crate) fn log_in(&self, connect: &Connect<'_>) -> Client {
        Client::connect(&self.broker, connect)
    }

    /// What a new subscriber finds retained under a filter of this place: topics and payloads.
    pub(crate) fn retained(&self, filter: &str) -> BTreeSet<(String, String)> {
        // What is retained comes filter by filter: a marker under the second one ends the first.
        let marker = format!("marker-of-place-{}", self.place);
        let mut reader = self.client(Version::V5, "reader of what is retained");
        assert_eq!(reader.retain(1, &marker, b"marker"), 0);
        assert!(reader.subscribe(filter, 0) < 0x80, "{filter}");
        assert!(reader.subscribe(&marker, 0) < 0x80, "{marker}");
        let mut found = BTreeSet::new();
        loop {
            let message = reader.next();
            if message.topic == marker {
                return found;
            }
            found.insert((message.topic.clone(), message.text()));
        }
    }
}

/// Tries with 1, 2, 4… seconds until the machine is quick enough: `attempt` says whether what had
/// to come about within that time did.
pub(crate) fn in_time(attempt: impl FnMut(u32) -> bool) {
    let is_in_time = [1, 2, 4, 8, 16, 32].into_iter().any(attempt);
    assert!(is_in_time, "32 s were not enough");
}

/// An application that may publish to and receive what these filters say; its token.
pub(crate) fn create_app(
    broker: &Broker,
    name: &str,
    publish: &[&str],
    subscribe: &[&str],
) -> String {
    let wanted = json!({"name": name, "publish": publish, "subscribe": subscribe});
    let created = ask(broker, "POST", "apps", &wanted);
    created["token"].as_str().expect("a token").to_owned()
}

/// Gives an application other filters; the answer is the receipt.
pub(crate) fn set_scope(
    broker: &Broker,
    name: &str,
    publish: &[&str],
    subscribe: &[&str],
) -> Value {
    let wanted = json!({"publish": publish, "subscribe": subscribe});
    ask(broker, "PATCH", &format!("apps/{name}/scope"), &wanted)
}

/// Ends an application's credentials; the answer is the receipt.
pub(crate) fn revoke_app(broker: &Broker, name: &str) -> Value {
    ask(broker, "POST", &format!("apps/{name}/revoke"), &json!({}))
}

/// A call of the admin API that must succeed.
fn ask(broker: &Broker, method: &str, path: &str, wanted: &Value) -> Value {
    let file = broker.dir().join("secrets").join("admin.token");
    let admin_token = fs::read_to_string(file).expect("made at the first start");
    let url = format!("{}/admin/v1/{path}", broker.admin_url());
    let request = match method {
        "PATCH" => ureq::patch(url),
        _ => ureq::post(url),
    };
    let request = request.header("authorization", format!("Bearer {}", admin_token.trim()));
    let mut reply = request
        .send_json(wanted)
        .unwrap_or_else(|error| panic!("{method} {path} {wanted}: {error}"));
    reply.body_mut().read_json().expect("JSON")
}

fn shared() -> Arc<Broker> {
    // A test that panics while it holds the lock leaves a usable (or no) broker behind.
    let mut held = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    held.upgrade().unwrap_or_else(|| {
        let broker = Arc::new(Broker::start_with(SETTINGS));
        *held = Arc::downgrade(&broker);
        broker
    })
}
