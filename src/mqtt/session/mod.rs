//! One client's session as a pure state machine: packets and `now` go in, replies and steps come
//! out. It knows no socket, no clock, no journal and no rights.
//!
//! The caller (a connection of a worker) feeds it packets with [`Session::handle`] and does what
//! the returned [`Step`] asks for. A PUBLISH comes back as [`Step::Publish`]: the caller asks the
//! rights gate and stores the message, then tells the verdict with [`Session::settle`], which
//! queues the acknowledgement.
//!
//! Replies leave by two lanes ([`Replies`]). Acknowledgements (CONNACK, PUBACK, PUBREC, PUBCOMP,
//! SUBACK, UNSUBACK) are *ordered*: they wait for the journal and leave in order of arrival
//! [MQTT-4.6.0-2]. What acknowledges nothing (PINGRESP, DISCONNECT) is *prompt*.
//!
//! Split by concern: [`connect`] opens a session and writes CONNACK, [`inbound`] takes PUBLISH and
//! the QoS 2 handshake, [`outbound`] writes what the server starts, [`timers`] is keep-alive.

pub mod connect;
pub mod inbound;
pub mod outbound;
mod packet_ids;
pub mod timers;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Instant;

pub use connect::{ConnectRefusal, Opening};
pub use inbound::{Ending, Refused, Verdict};
pub use packet_ids::PacketIds;
use timers::KeepAlive;

use crate::mqtt::topic::Filter;
use crate::mqtt::wire::{
    Packet, PacketId, Publish, ReasonCode, Subscribe, Unsubscribe, Version, WireError,
};

/// What the server grants every session; checked at start, the same for all.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// Longest packet taken, in bytes with its fixed header; announced in CONNACK.
    pub packet_size_max: u32,
    /// QoS 1 and 2 messages a client may have unacknowledged; announced as Receive Maximum.
    pub receive_maximum: u16,
    /// Longest keep alive in seconds; 0 and longer wishes get this one (SEC-80).
    pub keep_alive_max_s: u16,
    /// Longest session expiry in seconds (SEC-28).
    pub session_expiry_max_s: u32,
    /// Filters one session may hold (SEC-28). A SUBSCRIBE beyond it is answered with 0x97 (3.1.1:
    /// 0x80) for each filter that does not fit.
    pub subscriptions_max: usize,
    /// Filters of one packet that are looked at. Further ones of a SUBSCRIBE are answered as
    /// above; an UNSUBSCRIBE with more ends the connection.
    pub filters_per_packet_max: usize,
    /// QoS 2 messages whose PUBREL has not come, at least `receive_maximum` (SEC-28).
    pub unreleased_max: u16,
}

/// The bytes a packet calls forth. The caller owns and empties the buffers, so that a session
/// allocates nothing for its acknowledgements.
#[derive(Debug, Default)]
pub struct Replies {
    /// Acknowledgements: they leave in order of arrival, not before their facts are durable.
    pub ordered: Vec<u8>,
    /// What acknowledges nothing and may leave at once.
    pub prompt: Vec<u8>,
    /// Acknowledgements of PUBLISH in `ordered` that give back a place of Receive Maximum.
    pub places: u16,
}

impl Replies {
    /// Empties the lanes and keeps their memory.
    pub fn clear(&mut self) {
        self.ordered.clear();
        self.prompt.clear();
        self.places = 0;
    }
}

/// What the caller has to do after [`Session::handle`].
#[derive(Debug)]
pub enum Step<'p> {
    /// Nothing more: the replies say it all.
    Done,
    /// Ask the gate, store, then call [`Session::settle`].
    Publish(Publish<'p>),
    /// A QoS 2 message that is held already came again; it is acknowledged and goes no further.
    Repeated,
    /// Record the release of this QoS 2 packet id, then call [`Session::released`].
    Release(PacketId),
    /// The packet id of a PUBREL is not held: its release happened before, and is acknowledged
    /// again.
    ReleasedBefore,
    /// Decide each filter, then call [`Session::subscribe`].
    Subscribe(Subscribe<'p>),
    /// Call [`Session::unsubscribe`].
    Unsubscribe(Unsubscribe<'p>),
    /// The client says goodbye. `with_will` is true for MQTT 5's 0x04.
    Disconnected {
        /// The will is to be published although the client said goodbye.
        with_will: bool,
    },
}

/// Why the server ends the connection. MQTT 5 clients are told the reason, others see the close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// What DISCONNECT says in MQTT 5.
    pub reason: ReasonCode,
}

impl Close {
    /// A close for `reason`.
    #[must_use]
    pub const fn because(reason: ReasonCode) -> Self {
        Self { reason }
    }
}

impl From<&WireError> for Close {
    fn from(error: &WireError) -> Self {
        Self::because(error.reason())
    }
}

/// The part of a session that outlives its connection: subscriptions and unfinished QoS 2 ids
/// are kept together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionState {
    /// Filters granted, with their QoS (0 or 1).
    pub subscriptions: BTreeSet<Subscribed>,
    /// QoS 2 packet ids whose PUBREL has not come yet.
    pub unreleased: PacketIds,
}

/// One granted subscription.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscribed {
    /// The filter, as it was sent.
    pub filter: Box<str>,
    /// Granted maximum QoS.
    pub qos: u8,
}

/// A connected client's session.
#[derive(Debug)]
pub struct Session {
    version: Version,
    limits: SessionLimits,
    keep_alive: KeepAlive,
    /// Seconds the state is kept after the connection; 0 ends it with the connection.
    expiry_s: u32,
    client_packet_size_max: u32,
    /// QoS 1 and QoS 2 messages taken whose PUBACK or PUBCOMP has not left yet.
    unacknowledged: u16,
    state: SessionState,
}

impl Session {
    /// The protocol version the client speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// How long the state outlives the connection, in seconds; `u32::MAX` is "does not expire".
    #[must_use]
    pub fn expiry_s(&self) -> u32 {
        self.expiry_s
    }

    /// What would survive the connection.
    #[must_use]
    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// Takes one packet. `Err` ends the connection: write [`Session::disconnect`] and close.
    ///
    /// # Errors
    /// The client broke the protocol, or a limit; the reason is MQTT 5's.
    pub fn handle<'p>(
        &mut self,
        packet: &Packet<'p>,
        now: Instant,
        replies: &mut Replies,
    ) -> Result<Step<'p>, Close> {
        self.keep_alive.heard(now);
        match packet {
            Packet::Publish(publish) => Ok(match self.handle_publish(publish, now, replies)? {
                true => Step::Publish(*publish),
                false => Step::Repeated,
            }),
            Packet::PubRel(ack) => Ok(self.handle_pubrel(ack.packet_id, replies)),
            Packet::PubRec(ack) => Ok(self.handle_pubrec(ack.packet_id, ack.reason, replies)),
            // Nothing was sent that these could settle: ignored, as the standard allows (P-41).
            Packet::PubAck(_) | Packet::PubComp(_) => Ok(Step::Done),
            Packet::Subscribe(subscribe) => Ok(Step::Subscribe(*subscribe)),
            Packet::Unsubscribe(unsubscribe) => Ok(Step::Unsubscribe(*unsubscribe)),
            Packet::PingReq => {
                outbound::pingresp(replies);
                Ok(Step::Done)
            }
            Packet::Disconnect(disconnect) => {
                self.handle_disconnect(disconnect.reason, disconnect.properties.session_expiry_s)
            }
            // [MQTT-3.1.0-2] a second CONNECT; [MQTT-4.12.0-6] AUTH without an agreed method
            // (SEC-26); and what only a server may send (SEC-07).
            Packet::Connect(_)
            | Packet::Auth(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => Err(Close::because(ReasonCode::ProtocolError)),
        }
    }

    /// Answers SUBSCRIBE: `decide` names the granted QoS or the refusal of each filter.
    /// Returns true if the set of subscriptions changed.
    ///
    /// # Errors
    /// The client takes no packet as long as the answer; nothing changed.
    pub fn subscribe(
        &mut self,
        subscribe: &Subscribe<'_>,
        mut decide: impl FnMut(&Filter<'_>) -> Result<u8, ReasonCode>,
        replies: &mut Replies,
    ) -> Result<bool, Close> {
        self.check_answer(subscribe.filters().count())?;
        let mut codes = Vec::new();
        let mut changed = false;
        for (at, wanted) in subscribe.filters().enumerate() {
            let granted = if at < self.limits.filters_per_packet_max {
                decide(&wanted.filter)
                    .map(|most| most.min(wanted.options.qos as u8))
                    .and_then(|qos| self.hold(&wanted.filter, qos))
            } else {
                Err(ReasonCode::QuotaExceeded)
            };
            codes.push(match granted {
                Ok((qos, is_new)) => {
                    changed |= is_new;
                    qos
                }
                // [MQTT-3.9.3-2] 3.1.1 knows one refusal.
                Err(_) if self.version != Version::V5 => 0x80,
                Err(reason) => reason.as_u8(),
            });
        }
        outbound::suback(self.version, subscribe.packet_id, &codes, replies);
        Ok(changed)
    }

    /// Answers UNSUBSCRIBE: `known` tells whether a filter could ever have been subscribed to.
    /// Returns true if the set of subscriptions changed.
    ///
    /// # Errors
    /// More filters than one packet may have, or the client takes no packet as long as the
    /// answer; nothing changed.
    pub fn unsubscribe(
        &mut self,
        unsubscribe: &Unsubscribe<'_>,
        mut known: impl FnMut(&Filter<'_>) -> bool,
        replies: &mut Replies,
    ) -> Result<bool, Close> {
        let filters = unsubscribe.filters().count();
        if filters > self.limits.filters_per_packet_max {
            return Err(Close::because(ReasonCode::QuotaExceeded));
        }
        self.check_answer(filters)?;
        let mut codes = Vec::new();
        let mut changed = false;
        for filter in unsubscribe.filters() {
            let before = self.state.subscriptions.len();
            self.state
                .subscriptions
                .retain(|held| *held.filter != *filter.as_str());
            let removed = self.state.subscriptions.len() != before;
            changed |= removed;
            codes.push(match (removed, known(&filter)) {
                (true, _) => ReasonCode::Success.as_u8(),
                (false, true) => ReasonCode::NoSubscriptionExisted.as_u8(),
                (false, false) => ReasonCode::TopicFilterInvalid.as_u8(),
            });
        }
        outbound::unsuback(self.version, unsubscribe.packet_id, &codes, replies);
        Ok(changed)
    }

    /// [MQTT-3.1.2-24]: a SUBACK or UNSUBACK of `codes` codes must fit into what the client takes.
    fn check_answer(&self, codes: usize) -> Result<(), Close> {
        // At most: type and length (5), packet id (2), no properties (1).
        let bytes = u32::try_from(codes).unwrap_or(u32::MAX).saturating_add(8);
        if bytes > self.client_packet_size_max {
            return Err(Close::because(ReasonCode::PacketTooLarge));
        }
        Ok(())
    }

    fn hold(&mut self, filter: &Filter<'_>, qos: u8) -> Result<(u8, bool), ReasonCode> {
        // [MQTT-3.8.4-3] an equal filter replaces the subscription.
        let before = self
            .state
            .subscriptions
            .iter()
            .find(|held| *held.filter == *filter.as_str());
        match before {
            Some(held) if held.qos == qos => return Ok((qos, false)),
            Some(held) => {
                let held = held.clone();
                self.state.subscriptions.remove(&held);
            }
            None if self.state.subscriptions.len() >= self.limits.subscriptions_max => {
                return Err(ReasonCode::QuotaExceeded);
            }
            None => {}
        }
        self.state.subscriptions.insert(Subscribed {
            filter: filter.as_str().into(),
            qos,
        });
        Ok((qos, true))
    }

    fn handle_disconnect<'p>(
        &mut self,
        reason: ReasonCode,
        expiry_s: Option<u32>,
    ) -> Result<Step<'p>, Close> {
        if let Some(expiry_s) = expiry_s {
            // MQTT 5, 3.14.2.2.2: an expiry of 0 at CONNECT cannot be raised at the end (P-49).
            if self.expiry_s == 0 && expiry_s != 0 {
                return Err(Close::because(ReasonCode::ProtocolError));
            }
            self.expiry_s = self.limits.expiry(expiry_s);
        }
        Ok(Step::Disconnected {
            with_will: reason == ReasonCode::DisconnectWithWillMessage,
        })
    }
}

impl SessionLimits {
    /// The session expiry granted for a wish, in seconds.
    fn expiry(&self, wished_s: u32) -> u32 {
        wished_s.min(self.session_expiry_max_s)
    }

    /// The keep alive granted for a wish, in seconds (SEC-80).
    fn keep_alive(&self, wished_s: u16) -> u16 {
        timers::granted(wished_s, self.keep_alive_max_s)
    }
}
