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
//! the QoS 2 handshake, [`subscriptions`] is SUBSCRIBE and UNSUBSCRIBE, [`outbound`] is what the
//! server starts, [`aliases`] are topic aliases, [`timers`] is keep-alive, [`authentication`] the
//! order of AUTH.

pub mod aliases;
pub mod authentication;
pub mod connect;
pub mod inbound;
pub mod outbound;
mod packet_ids;
pub mod subscriptions;
pub mod timers;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

pub use aliases::Aliased;
use authentication::Authentication;
pub use connect::{ConnectRefusal, Opening};
pub use inbound::{Ending, Incoming, Refused, Verdict};
pub use outbound::delivery::{LeftOut, Outgoing, Straight};
pub use outbound::encoded::Encoded;
pub use outbound::in_flight::{InFlight, Item, QUEUE, Sending, source_number};
pub use outbound::queue::{
    Delivered, Full, Ids, Progress, Queue, QueueLimits, Unsettled, Withdrawn,
};
pub use packet_ids::PacketIds;
pub use subscriptions::{Granted, Subscribed, SubscriptionSet, Taken, Wanted};
use timers::KeepAlive;

use crate::mqtt::message::Will;
use crate::mqtt::wire::{
    Disconnect, Packet, PacketId, Publish, ReasonCode, Subscribe, Unsubscribe, Version, WireError,
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
    /// Topic aliases a client may give on a connection, announced as Topic Alias Maximum; and the
    /// most that the server gives, whatever the client takes.
    pub topic_aliases_max: u16,
    /// What may wait for one client.
    pub queue: QueueLimits,
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
    /// Ask the gate, store, then call [`Session::settle`]. With a topic that an alias stood for.
    Publish(Publish<'p>, Option<Aliased>),
    /// A QoS 2 message that is held already came again; it is acknowledged and goes no further.
    Repeated,
    /// Record the release of this QoS 2 packet id, then call [`Session::released`].
    Release(PacketId),
    /// The packet id of a PUBREL is not held: its release happened before, and is acknowledged
    /// again.
    ReleasedBefore,
    /// The client has this message, or refused it: it is over. One of the queue with an offset
    /// ([`Item::queued_offset`]) is to be recorded as settled; no acknowledgement waits for that.
    Settled(Item),
    /// The client has received this QoS 2 message of the queue. Where the offset is not 0, record
    /// that: its PUBREL stands among the ordered replies and leaves behind the record.
    Received {
        /// The message's record in the journal, 0 if it has none.
        offset: u64,
        /// Its packet id.
        packet_id: PacketId,
    },
    /// Decide each filter, then call [`Session::subscribe`].
    Subscribe(Subscribe<'p>),
    /// Call [`Session::unsubscribe`].
    Unsubscribe(Unsubscribe<'p>),
    /// The client says goodbye. `with_will` is true for MQTT 5's 0x04, and where it reports an
    /// error.
    Disconnected {
        /// The will is to be published although the client said goodbye.
        with_will: bool,
    },
}

/// Why the server ends the connection. MQTT 5 clients are told the reason, others see the close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// One that DISCONNECT can say.
    reason: ReasonCode,
}

impl Close {
    /// A close for `reason`; a protocol error where DISCONNECT cannot say it: what a second CONNECT
    /// is refused for is of no interest.
    #[must_use]
    pub const fn because(reason: ReasonCode) -> Self {
        if Disconnect::can_say(reason) {
            Self { reason }
        } else {
            Self {
                reason: ReasonCode::ProtocolError,
            }
        }
    }

    /// What DISCONNECT says in MQTT 5.
    #[must_use]
    pub const fn reason(self) -> ReasonCode {
        self.reason
    }
}

impl From<&WireError> for Close {
    fn from(error: &WireError) -> Self {
        Self::because(error.reason())
    }
}

/// The part of a session that outlives its connection: it is kept as a whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionState {
    /// What it is subscribed to.
    pub subscriptions: SubscriptionSet,
    /// QoS 2 packet ids whose PUBREL has not come yet.
    pub unreleased: PacketIds,
    /// Messages to the client that are not acknowledged: their packet ids.
    pub in_flight: InFlight,
    /// Messages for the client: what waits, and what is not received.
    pub queue: Queue,
    /// What is published unless the client says goodbye, or comes back in time.
    pub will: Option<Arc<Will>>,
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
    /// Refusals carry their reason in words.
    wants_reasons: bool,
    /// QoS 1 and QoS 2 messages taken whose PUBACK or PUBCOMP has not left yet.
    unacknowledged: u16,
    authentication: Authentication,
    aliases_in: aliases::Inbound,
    aliases_out: aliases::Outbound,
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

    /// Takes out what would survive the connection, without copying it; an empty session is left.
    pub fn take_state(&mut self) -> SessionState {
        self.state.disconnect();
        std::mem::take(&mut self.state)
    }

    /// Takes the will away: it is published now, or never.
    pub fn take_will(&mut self) -> Option<Arc<Will>> {
        self.state.will.take()
    }

    /// The messages to the client that are not acknowledged.
    pub fn in_flight(&mut self) -> &mut InFlight {
        &mut self.state.in_flight
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
                Incoming::New(topic) => Step::Publish(*publish, topic),
                Incoming::Repeated => Step::Repeated,
            }),
            Packet::PubRel(ack) => Ok(self.handle_pubrel(ack.packet_id, replies)),
            Packet::PubRec(ack) => self.handle_pubrec(ack.packet_id, ack.reason, replies),
            Packet::PubAck(ack) => self.handle_puback(ack.packet_id),
            Packet::PubComp(ack) => self.handle_pubcomp(ack.packet_id),
            Packet::Subscribe(subscribe) => Ok(Step::Subscribe(*subscribe)),
            Packet::Unsubscribe(unsubscribe) => Ok(Step::Unsubscribe(*unsubscribe)),
            Packet::PingReq => {
                outbound::pingresp(replies);
                Ok(Step::Done)
            }
            Packet::Disconnect(disconnect) => {
                self.handle_disconnect(disconnect.reason, disconnect.properties.session_expiry_s)
            }
            // SEC-26. A session opens when its client is let in: nothing waits for the answer.
            Packet::Auth(auth) => {
                let let_in = self.authentication.handle(auth, &mut replies.prompt)?;
                debug_assert!(!let_in, "no method is supported");
                Ok(Step::Done)
            }
            // [MQTT-3.1.0-2] a second CONNECT; and what only a server may send (SEC-07).
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => Err(Close::because(ReasonCode::ProtocolError)),
        }
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
        // Only a normal goodbye takes the will away: [MQTT-3.14.4-3]; 3.1.1: [MQTT-3.1.2-10].
        let with_will = reason != ReasonCode::NORMAL_DISCONNECTION;
        if !with_will {
            self.state.will = None;
        }
        Ok(Step::Disconnected { with_will })
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
