//! What a broker must do, in a page: sessions, subscriptions, queues, windows, retained messages
//! and rights. It says what each client must see next; it has no sockets and no time.

use std::collections::{BTreeMap, VecDeque};

/// How a client subscribes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) as_published: bool,
    /// 0 always, 1 if new, 2 never.
    pub(crate) retain_handling: u8,
    /// Subscription identifier; 0 is none.
    pub(crate) id: u8,
}

/// A message as a client must see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Delivery {
    pub(crate) topic: usize,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) payload: String,
    pub(crate) ids: Vec<u8>,
}

/// A delivery of QoS 1 or 2 that has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) delivery: Delivery,
    /// QoS 2 and PUBREC came: what is open is PUBREL.
    pub(crate) is_received: bool,
}

/// What one client must see because of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Sent again, in order, with DUP and the ids they had: places in `Session::sent`.
    pub(crate) again: Vec<usize>,
    /// PUBREL again, for these places.
    pub(crate) released: Vec<usize>,
    /// New ones of QoS 1 and 2, in order.
    pub(crate) new: Vec<Delivery>,
    /// Of QoS 0, in order.
    pub(crate) loose: Vec<Delivery>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    pub(crate) subscriptions: BTreeMap<usize, Options>,
    pub(crate) sent: Vec<Sent>,
    waiting: VecDeque<Delivery>,
    /// QoS 2 of the client's own that is not released: whether it was taken.
    pub(crate) unreleased: BTreeMap<u16, (usize, bool, String)>,
    pub(crate) is_kept: bool,
    pub(crate) window: usize,
}

/// The whole of it. Clients, topics and filters are places in the lists of the driver.
pub(crate) struct Reference {
    pub(crate) topics: &'static [&'static str],
    pub(crate) filters: &'static [&'static str],
    /// Which client may publish to a topic, subscribe to a filter, and receive a topic.
    pub(crate) may_publish: fn(client: usize, topic: &str) -> bool,
    pub(crate) may_subscribe: fn(client: usize, filter: &str) -> bool,
    pub(crate) sessions: Vec<Option<Session>>,
    pub(crate) connected: Vec<bool>,
    pub(crate) retained: BTreeMap<usize, (u8, String)>,
    /// A broker that knows no Retain As Published: to see that a difference is found.
    pub(crate) is_forgetful: bool,
}

impl Reference {
    /// CONNECT of a client that is not connected (or is taken over): session present, and what
    /// it sees.
    pub(crate) fn connect(
        &mut self,
        client: usize,
        clean: bool,
        is_kept: bool,
        window: usize,
    ) -> (bool, Seen) {
        self.end(client);
        if clean {
            self.sessions[client] = None;
        }
        let is_present = self.sessions[client].is_some();
        let session = self.sessions[client].get_or_insert_with(Session::default);
        session.is_kept = is_kept;
        session.window = window;
        self.connected[client] = true;
        let mut seen = Seen::default();
        // What was sent goes again; of what was received PUBREL does.
        for (place, sent) in session.sent.iter().enumerate() {
            if sent.is_received {
                seen.released.push(place);
            } else {
                seen.again.push(place);
            }
        }
        seen.new = session.fill();
        (is_present, seen)
    }

    /// The end of a connection, however it came.
    pub(crate) fn end(&mut self, client: usize) {
        self.connected[client] = false;
        if self.sessions[client]
            .as_ref()
            .is_some_and(|session| !session.is_kept)
        {
            self.sessions[client] = None;
        }
    }

    /// Whether it is granted, and what is retained for it.
    pub(crate) fn subscribe(
        &mut self,
        client: usize,
        filter: usize,
        options: Options,
    ) -> Option<Seen> {
        if !(self.may_subscribe)(client, self.filters[filter]) {
            return None;
        }
        let retained: Vec<_> = self.retained.clone().into_iter().collect();
        let topics = self.topics;
        let pattern = self.filters[filter];
        let session = self.sessions[client].as_mut().expect("it is connected");
        let is_new = session.subscriptions.insert(filter, options).is_none();
        let mut seen = Seen::default();
        if options.retain_handling == 2 || (options.retain_handling == 1 && !is_new) {
            return Some(seen);
        }
        for (topic, (qos, payload)) in retained {
            if !matches(pattern, topics[topic]) {
                continue;
            }
            let delivery = Delivery {
                topic,
                qos: qos.min(options.qos),
                retain: true,
                payload,
                ids: (options.id != 0)
                    .then_some(options.id)
                    .into_iter()
                    .collect(),
            };
            if delivery.qos == 0 {
                seen.loose.push(delivery);
            } else {
                session.waiting.push_back(delivery);
            }
        }
        seen.new = session.fill();
        Some(seen)
    }

    /// Whether there was such a subscription.
    pub(crate) fn unsubscribe(&mut self, client: usize, filter: usize) -> bool {
        let session = self.sessions[client].as_mut().expect("it is connected");
        session.subscriptions.remove(&filter).is_some()
    }

    /// What each connected client sees; None if the publisher may not.
    pub(crate) fn publish(
        &mut self,
        from: usize,
        topic: usize,
        qos: u8,
        retain: bool,
        payload: &str,
    ) -> Option<Vec<Seen>> {
        let name = self.topics[topic];
        if !(self.may_publish)(from, name) {
            return None;
        }
        if retain && payload.is_empty() {
            self.retained.remove(&topic);
        } else if retain {
            self.retained.insert(topic, (qos, payload.to_owned()));
        }
        let mut all = vec![Seen::default(); self.sessions.len()];
        for (client, session) in self.sessions.iter_mut().enumerate() {
            let is_own = client == from;
            let is_forgetful = self.is_forgetful;
            let Some(session) = session else {
                continue;
            };
            let matching: Vec<&Options> = session
                .subscriptions
                .iter()
                .filter(|(filter, options)| {
                    matches(self.filters[**filter], name) && !(options.no_local && is_own)
                })
                .map(|(_, options)| options)
                .collect();
            let Some(granted) = matching.iter().map(|options| options.qos).max() else {
                continue;
            };
            let mut ids: Vec<u8> = matching.iter().map(|options| options.id).collect();
            ids.retain(|id| *id != 0);
            ids.sort_unstable();
            let delivery = Delivery {
                topic,
                qos: qos.min(granted),
                retain: retain
                    && !is_forgetful
                    && matching.iter().any(|options| options.as_published),
                payload: payload.to_owned(),
                ids,
            };
            let is_connected = self.connected[client];
            if delivery.qos == 0 {
                if is_connected {
                    all[client].loose.push(delivery);
                }
                continue;
            }
            session.waiting.push_back(delivery);
            if is_connected {
                all[client].new = session.fill();
            }
        }
        Some(all)
    }

    /// An acknowledgement that ends the delivery at this place; what follows from it.
    pub(crate) fn settle(&mut self, client: usize, place: usize) -> Seen {
        let session = self.sessions[client].as_mut().expect("it is connected");
        session.sent.remove(place);
        Seen {
            new: session.fill(),
            ..Seen::default()
        }
    }
}

impl Session {
    /// Moves what waits into the window; it is sent.
    fn fill(&mut self) -> Vec<Delivery> {
        let mut new = Vec::new();
        while self.sent.len() < self.window {
            let Some(delivery) = self.waiting.pop_front() else {
                break;
            };
            self.sent.push(Sent {
                delivery: delivery.clone(),
                is_received: false,
            });
            new.push(delivery);
        }
        new
    }
}

/// Section 4.7, level by level; written from the standard, not from the code under test.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    let mut filter = filter.split('/');
    let mut topic = topic.split('/');
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

#[test]
fn the_reference_matches_as_the_standard_says() {
    for (filter, topic, expected) in [
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("a/+", "a", false),
        ("a/+", "a/", true),
        ("+/b", "a/b", true),
        ("+", "a/b", false),
        ("a", "A", false),
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
    }
}
