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
    /// It came through the share group, and had this QoS when it was published.
    pub(crate) share: Option<u8>,
    /// Who published it: the messages of one client come in their order.
    pub(crate) from: usize,
}

/// The publisher of what has no order among other messages: wills, retained messages, and what a
/// share group hands on.
pub(crate) const ANYBODY: usize = usize::MAX;

/// A will as CONNECT sets it.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub(crate) topic: usize,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// By more than a sequence takes.
    pub(crate) is_delayed: bool,
    pub(crate) payload: String,
}

/// A message as it is published.
struct Published<'a> {
    /// Whose it is.
    owner: usize,
    topic: usize,
    qos: u8,
    retain: bool,
    payload: &'a str,
    /// A will comes from no connection.
    is_will: bool,
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
    pub(crate) waiting: VecDeque<Delivery>,
    pub(crate) will: Option<Will>,
    /// Payloads of QoS 0 that came while the client was away: it gets them if it comes soon.
    pub(crate) missed: Vec<String>,
    /// It is in the share group, with this QoS.
    pub(crate) share: Option<u8>,
    /// QoS 2 of the client's own that is not released: whether it was taken.
    pub(crate) unreleased: BTreeMap<u16, (usize, bool, String)>,
    pub(crate) is_kept: bool,
    pub(crate) window: usize,
}

/// The whole of it. Clients, topics and filters are places in the lists of the driver.
pub(crate) struct Reference {
    pub(crate) topics: &'static [&'static str],
    pub(crate) filters: &'static [&'static str],
    /// Which client may publish to a topic, or receive it, and subscribe to a filter; the last
    /// says that rights were narrowed.
    pub(crate) may_publish: fn(client: usize, topic: &str, is_narrowed: bool) -> bool,
    pub(crate) may_subscribe: fn(client: usize, filter: &str, is_narrowed: bool) -> bool,
    pub(crate) is_narrowed: bool,
    pub(crate) sessions: Vec<Option<Session>>,
    pub(crate) connected: Vec<bool>,
    /// QoS, payload, and whose it is.
    pub(crate) retained: BTreeMap<usize, (u8, String, usize)>,
    /// Payloads of wills that were published and not asked for.
    pub(crate) wills: Vec<String>,
    /// A broker that knows no Retain As Published: to see that a difference is found.
    pub(crate) is_forgetful: bool,
}

impl Reference {
    pub(crate) fn new(
        topics: &'static [&'static str],
        filters: &'static [&'static str],
        clients: usize,
    ) -> Reference {
        Reference {
            topics,
            filters,
            may_publish: |_, _, _| true,
            may_subscribe: |_, _, _| true,
            is_narrowed: false,
            sessions: vec![None; clients],
            connected: vec![false; clients],
            retained: BTreeMap::new(),
            wills: Vec::new(),
            is_forgetful: false,
        }
    }

    /// CONNECT of a client, whose older connection is lost by it: session present, and what
    /// everybody sees.
    pub(crate) fn connect(
        &mut self,
        client: usize,
        (clean, is_kept): (bool, bool),
        window: usize,
        will: Option<Will>,
    ) -> (bool, Vec<Seen>) {
        let mut all = self.end(client, false);
        if clean && let Some(session) = self.sessions[client].take() {
            // With its session a will is due, whatever its delay.
            self.publish_will(client, session.will, &mut all);
        }
        let is_present = self.sessions[client].is_some();
        let session = self.sessions[client].get_or_insert_with(Session::default);
        session.is_kept = is_kept;
        session.window = window;
        session.will = will;
        self.connected[client] = true;
        let seen = &mut all[client];
        // What was sent goes again; of what was received PUBREL does.
        for (place, sent) in session.sent.iter().enumerate() {
            if sent.is_received {
                seen.released.push(place);
            } else {
                seen.again.push(place);
            }
        }
        seen.new = session.fill();
        (is_present, all)
    }

    /// The end of a connection, which DISCONNECT without a reason ends without its will.
    pub(crate) fn end(&mut self, client: usize, is_goodbye: bool) -> Vec<Seen> {
        let mut all = vec![Seen::default(); self.sessions.len()];
        if !std::mem::take(&mut self.connected[client]) {
            return all;
        }
        let session = self.sessions[client].as_mut().expect("it was connected");
        if is_goodbye {
            session.will = None;
        }
        let is_kept = session.is_kept;
        let will = session.will.take_if(|will| !will.is_delayed || !is_kept);
        if !is_kept {
            self.sessions[client] = None;
        }
        self.publish_will(client, will, &mut all);
        all
    }

    fn publish_will(&mut self, owner: usize, will: Option<Will>, all: &mut [Seen]) {
        let is_narrowed = self.is_narrowed;
        let may = |will: &Will| (self.may_publish)(owner, self.topics[will.topic], is_narrowed);
        let Some(will) = will.filter(may) else {
            return;
        };
        self.wills.push(will.payload.clone());
        let published = Published {
            owner,
            topic: will.topic,
            qos: will.qos,
            retain: will.retain,
            payload: &will.payload,
            is_will: true,
        };
        self.spread(&published, all);
    }

    /// The rights of this client are fewer from now on: subscriptions outside of them end.
    pub(crate) fn narrow(&mut self, client: usize) {
        self.is_narrowed = true;
        if let Some(session) = &mut self.sessions[client] {
            let (may, filters) = (self.may_subscribe, self.filters);
            session
                .subscriptions
                .retain(|filter, _| may(client, filters[*filter], true));
        }
    }

    /// Nothing is sent that may not be received.
    pub(crate) fn may_be_sent(&self, client: usize, delivery: &Delivery) -> bool {
        (self.may_publish)(client, self.topics[delivery.topic], self.is_narrowed)
    }

    /// All that there is of this client is gone.
    pub(crate) fn revoke(&mut self, client: usize) {
        self.connected[client] = false;
        self.sessions[client] = None;
        self.retained.retain(|_, (_, _, owner)| *owner != client);
    }

    /// Those that a SUBSCRIBE brings.
    fn retained_for(&self, client: usize, filter: usize, options: Options) -> Vec<Delivery> {
        let session = self.sessions[client].as_ref().expect("it is connected");
        let is_new = !session.subscriptions.contains_key(&filter);
        if options.retain_handling == 2 || (options.retain_handling == 1 && !is_new) {
            return Vec::new();
        }
        let all = self.retained.iter();
        let matching = all.filter(|(topic, _)| matches(self.filters[filter], self.topics[**topic]));
        let found = matching.map(|(topic, (qos, payload, _))| Delivery {
            topic: *topic,
            qos: (*qos).min(options.qos),
            retain: true,
            payload: payload.clone(),
            ids: [options.id].into_iter().filter(|id| *id != 0).collect(),
            share: None,
            from: ANYBODY,
        });
        // The gate is asked for each of them, too.
        found
            .filter(|found| self.may_be_sent(client, found))
            .collect()
    }

    /// How many of them need a place in the client's window.
    pub(crate) fn retained_count(&self, client: usize, filter: usize, options: Options) -> usize {
        let found = self.retained_for(client, filter, options);
        found.iter().filter(|found| found.qos > 0).count()
    }

    /// Whether it is granted, and what is retained for it.
    pub(crate) fn subscribe(
        &mut self,
        client: usize,
        filter: usize,
        options: Options,
    ) -> Option<Seen> {
        if !(self.may_subscribe)(client, self.filters[filter], self.is_narrowed) {
            return None;
        }
        let retained = self.retained_for(client, filter, options);
        let session = self.sessions[client].as_mut().expect("it is connected");
        session.subscriptions.insert(filter, options);
        let mut seen = Seen::default();
        for delivery in retained {
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
        if !(self.may_publish)(from, self.topics[topic], self.is_narrowed) {
            return None;
        }
        let mut all = vec![Seen::default(); self.sessions.len()];
        let published = Published {
            owner: from,
            topic,
            qos,
            retain,
            payload,
            is_will: false,
        };
        self.spread(&published, &mut all);
        Some(all)
    }

    /// Whether a client that is away would get it at QoS 0.
    pub(crate) fn is_missed(&self, topic: usize, qos: u8) -> bool {
        let clients = self.sessions.iter().zip(&self.connected);
        let mut away = clients
            .filter_map(|(session, is_connected)| session.as_ref().filter(|_| !is_connected));
        away.any(|session| {
            let mut held = session.subscriptions.iter();
            held.any(|(filter, options)| {
                qos.min(options.qos) == 0 && matches(self.filters[*filter], self.topics[topic])
            })
        })
    }

    /// Brings a message to everybody; `all` is what they see.
    fn spread(&mut self, published: &Published<'_>, all: &mut [Seen]) {
        let Published { topic, payload, .. } = *published;
        let name = self.topics[topic];
        if published.retain && payload.is_empty() {
            self.retained.remove(&topic);
        } else if published.retain {
            let held = (published.qos, payload.to_owned(), published.owner);
            self.retained.insert(topic, held);
        }
        for (client, session) in self.sessions.iter_mut().enumerate() {
            let is_own = client == published.owner && !published.is_will;
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
                qos: published.qos.min(granted),
                retain: published.retain
                    && !is_forgetful
                    && matching.iter().any(|options| options.as_published),
                payload: payload.to_owned(),
                ids,
                share: None,
                from: match published.is_will {
                    true => ANYBODY,
                    false => published.owner,
                },
            };
            let is_connected = self.connected[client];
            if delivery.qos == 0 {
                if is_connected {
                    all[client].loose.push(delivery);
                } else {
                    session.missed.push(delivery.payload);
                }
                continue;
            }
            session.waiting.push_back(delivery);
            if is_connected {
                all[client].new.extend(session.fill());
            }
        }
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
    /// These came, and are not in the order in which they were expected: that of the broker counts,
    /// as long as each publisher's own is kept. False if it is not.
    pub(crate) fn reorder(
        &mut self,
        came: &[Delivery],
        shown: impl Fn(&Delivery) -> Delivery,
    ) -> bool {
        let begin = self.sent.len() - came.len();
        let sent = self.sent.split_off(begin).into_iter();
        let mut pending: Vec<Delivery> = sent.map(|sent| sent.delivery).collect();
        pending.extend(self.waiting.drain(..));
        for one in came {
            let place = (0..pending.len()).find(|place| {
                let (before, from) = (&pending[..*place], pending[*place].from);
                shown(&pending[*place]) == *one
                    && (from == ANYBODY || before.iter().all(|held| held.from != from))
            });
            let Some(place) = place else {
                return false;
            };
            self.sent.push(Sent {
                delivery: pending.remove(place),
                is_received: false,
            });
        }
        self.waiting = pending.into();
        true
    }

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
