//! What is told of clients: plain facts on their way to the audit's thread, which makes events of
//! them. A notice is small, so that a queue of them is.

use std::net::IpAddr;

use uuid::Uuid;

use super::event::{Event, What, cut};
use super::refused::{Known, RefusedClient};

/// Bytes of a client id that are told.
const CLIENT_ID_BYTES_MAX: usize = 64;

/// How tokens begin that the broker made, and those of users.
const TOKEN_BEGINNINGS: [&str; 3] = ["tgd_", "tga_", "eyJ"];

/// What is told of a client id that holds a token.
const HIDDEN: &str = "(hidden: it holds a token)";

/// What is told of one that came without user name and password.
const HIDDEN_ALONE: &str = "(hidden: it came alone, and may be a credential)";

/// A client that was let in.
#[derive(Clone, Debug)]
pub struct Connected {
    /// Where it comes from.
    pub from: IpAddr,
    /// What it came over: `tcp`, `tls`, `ws` or `wss`.
    pub over: &'static str,
    /// What it belongs to: `device`, `application` or `user`.
    pub kind: &'static str,
    /// Which one.
    pub identity: Uuid,
    /// Public number of its credential.
    pub credential: u64,
    /// Its client id.
    pub client_id: ClientId,
}

/// A client that was refused.
#[derive(Clone, Debug)]
pub struct RefusedClientNotice {
    /// Where it comes from.
    pub from: IpAddr,
    /// Its client id; empty if it sent none, or did not come as far.
    pub client_id: ClientId,
    /// Why, as the label of the metric has it.
    pub reason: &'static str,
    /// It is one of too many failures from its address.
    pub is_throttled: bool,
    /// Keyed digests of what it showed: its credential may be found by one of them.
    pub digests: Vec<[u8; 32]>,
    /// Its identity and credential, if they are known.
    pub known: Option<(Uuid, u64)>,
}

/// A session that another connection took over.
#[derive(Clone, Debug)]
pub struct TakenOver {
    /// Whose it is.
    pub identity: Uuid,
    /// Public number of the credential that came.
    pub credential: u64,
    /// Where the older connection comes from.
    pub before: IpAddr,
    /// Where the newer one comes from.
    pub from: IpAddr,
    /// The client id of the newer one.
    pub client_id: ClientId,
}

/// A client id, cut to what is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientId(Box<str>);

impl ClientId {
    /// Its beginning; the rest is marked as left out.
    #[must_use]
    pub fn new(text: &str) -> ClientId {
        let shown = cut(text, CLIENT_ID_BYTES_MAX);
        if shown.len() == text.len() {
            return ClientId(shown.into());
        }
        ClientId(format!("{shown}\u{2026}").into())
    }

    /// As [`ClientId::new`], unless it holds what the client `shows` as its token or password, or
    /// looks like a token itself: some clients use one for both (SEC-55).
    #[must_use]
    pub fn beside(text: &str, shows: [&str; 2]) -> ClientId {
        let is_token = TOKEN_BEGINNINGS.iter().any(|begin| text.contains(begin));
        let holds = |shown: &str| !shown.is_empty() && text.contains(shown);
        if is_token || shows.into_iter().any(holds) {
            return ClientId(HIDDEN.into());
        }
        ClientId::new(text)
    }

    /// One that came without anything else, and so may be the credential.
    #[must_use]
    pub fn alone(text: &str) -> ClientId {
        match text {
            "" => ClientId::default(),
            _ => ClientId(HIDDEN_ALONE.into()),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Anything of this, with its time.
pub(super) enum Notice {
    Connected(Connected),
    Refused(RefusedClientNotice),
    TakenOver(TakenOver),
    Event(Event),
}

impl Connected {
    pub(super) fn event(&self) -> Event {
        Event::new(What::Connected)
            .text("kind", self.kind)
            .id("id", self.identity)
            .number("credential", self.credential)
            .text("client_id", self.client_id.as_str())
            .address("from", self.from)
            .text("over", self.over)
    }
}

impl TakenOver {
    pub(super) fn event(&self) -> Event {
        Event::new(What::TakenOver)
            .id("id", self.identity)
            .number("credential", self.credential)
            .text("client_id", self.client_id.as_str())
            .address("before", self.before)
            .address("from", self.from)
    }

    pub(super) fn alarm(&self) -> Event {
        Event::new(What::Alarm)
            .text("alarm", "token_two_addresses")
            .id("id", self.identity)
            .number("credential", self.credential)
            .address("before", self.before)
            .address("from", self.from)
    }
}

/// The event of a refusal, as its row in the table has it.
pub(super) fn refused_event(row: &RefusedClient) -> Event {
    let event = Event::new(What::Refused)
        .text("reason", row.reason)
        .address("from", row.from)
        .text("client_id", &row.client_id);
    match &row.known {
        None => event,
        Some(known) => told(known, event),
    }
}

fn told(known: &Known, event: Event) -> Event {
    let event = event
        .id("id", known.identity)
        .maybe("name", known.name.as_deref())
        .number("credential", known.credential);
    match known.ended_ms {
        Some(ended_ms) => event.number("ended_ms", ended_ms),
        None => event,
    }
}
