//! Messages to the client: what is offered, what goes now, and what its acknowledgements settle.

use std::sync::Arc;

use super::encoded::Encoded;
use super::in_flight::{InFlight, Item, Received};
use super::queue::{Delivered, Full, Progress, Unsettled, Withdrawn};
use crate::mqtt::message::Message;
use crate::mqtt::session::aliases::Written;
use crate::mqtt::session::{Close, Replies, Session, SessionState, Step};
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::{AckKind, Forward, PacketId, QoS, ReasonCode, write_ack};

/// What [`Session::next_outgoing`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A PUBLISH was written.
    Publish {
        /// Its QoS, 1 or 2.
        qos: QoS,
        /// It was sent before.
        is_again: bool,
    },
    /// A PUBREL was written that an earlier connection owed.
    Release,
    /// Nothing was written: record that the message at this offset has this packet id, and call
    /// [`Session::assigned`] once that is durable.
    Assign {
        /// Its record in the journal.
        offset: u64,
        /// The id it will be sent with.
        packet_id: PacketId,
    },
    /// Nothing was written: the message has left the queue and will not be sent. One with an
    /// offset other than 0 is to be recorded as settled.
    LeftOut {
        /// Its record in the journal, 0 if it has none.
        offset: u64,
        /// Why.
        why: LeftOut,
    },
    /// There is nothing to do until a message is offered, an acknowledgement comes or an
    /// assignment is durable.
    Nothing,
}

/// What [`Session::send_qos_1`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Straight {
    /// The message was written. Nothing of it is kept but its packet id.
    Sent,
    /// It is not sent, and nothing waits for it.
    LeftOut(LeftOut),
    /// Something goes before it, or the client takes no more now: [`Session::offer`] it.
    MustWait,
}

/// Why a message is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Its time is over [MQTT-3.3.2-5].
    Expired,
    /// The client takes no packet as long: as if it had been sent [MQTT-3.1.2-25].
    TooLarge,
    /// The gate does not let it through any more.
    NotAllowed,
}

impl Session {
    /// Takes a message of QoS 1 or 2 into the queue; [`Session::next_outgoing`] sends it.
    ///
    /// # Errors
    /// The queue is full: the message is not taken, to be counted, and settled if it is recorded.
    pub fn offer(&mut self, message: Arc<Message>, how: Delivered) -> Result<(), Full> {
        self.state.queue.offer(self.limits.queue, message, how)
    }

    /// Appends a message at QoS 0 to `out`. `encoded` is what the subscribers of this message
    /// share. Whoever calls must have room for it: what was written must be sent, as it may name
    /// a topic alias for the first time.
    ///
    /// # Errors
    /// It is not sent: expired, or longer than the client takes.
    pub fn send_qos_0(
        &mut self,
        message: &Message,
        (retain, ids): (bool, &[u32]),
        now_ms: u64,
        encoded: &mut Encoded,
        out: &mut Vec<u8>,
    ) -> Result<(), LeftOut> {
        if message.is_expired(now_ms) {
            return Err(LeftOut::Expired);
        }
        if !ids.is_empty() || self.aliases_out.is_possible() {
            let forward = Forward {
                subscription_ids: ids,
                ..message.forward(retain, now_ms)
            };
            return self.write(forward, out);
        }
        let how = (QoS::AtMostOnce, retain);
        let packet = encoded.packet(message, self.version, how, now_ms);
        let packet = packet.filter(|packet| self.takes(packet.len()));
        packet.ok_or(LeftOut::TooLarge)?.append(out);
        Ok(())
    }

    /// As [`Session::send_qos_0`] at QoS 1, for a session that ends with its connection and a
    /// message that goes to nobody else if this client does not acknowledge it: once written, it
    /// need not be held. Its place in the client's Receive Maximum and in what may wait for one
    /// client is taken as by any other.
    pub fn send_qos_1(
        &mut self,
        message: &Message,
        (retain, ids): (bool, &[u32]),
        now_ms: u64,
        encoded: &mut Encoded,
        out: &mut Vec<u8>,
    ) -> Straight {
        if message.is_expired(now_ms) {
            return Straight::LeftOut(LeftOut::Expired);
        }
        if self.state.queue.has_unsent() || self.state.queue.is_full(self.limits.queue) {
            return Straight::MustWait;
        }
        let item = Item {
            source: super::in_flight::QUEUE,
            number: self.state.queue.next_number(),
            order: 0,
        };
        let Some(packet_id) = self.state.in_flight.start(item) else {
            return Straight::MustWait;
        };
        let written = if ids.is_empty() && !self.aliases_out.is_possible() {
            let how = (QoS::AtLeastOnce, retain);
            let packet = encoded.packet(message, self.version, how, now_ms);
            let packet = packet.filter(|packet| self.takes(packet.len()));
            let packet = packet.ok_or(LeftOut::TooLarge);
            packet.map(|packet| packet.append_with(packet_id, out))
        } else {
            let forward = Forward {
                qos: QoS::AtLeastOnce,
                packet_id: Some(packet_id),
                subscription_ids: ids,
                ..message.forward(retain, now_ms)
            };
            self.write(forward, out)
        };
        if let Err(why) = written {
            self.state.in_flight.let_go(packet_id);
            return Straight::LeftOut(why);
        }
        self.state.queue.sent_straight();
        Straight::Sent
    }

    /// Whether the client takes a packet of so many bytes [MQTT-3.1.2-24].
    #[inline]
    fn takes(&self, bytes: usize) -> bool {
        u32::try_from(bytes).is_ok_and(|bytes| bytes <= self.client_packet_size_max)
    }

    /// True if [`Session::next_outgoing`] may have something to do.
    #[must_use]
    #[inline]
    pub fn has_outgoing(&self) -> bool {
        self.state.queue.has_unsent() || self.state.in_flight.has_releases()
    }

    /// Does the next thing for the queue: appends one packet to `out`, or says what is to be done
    /// first. Call it until it says [`Outgoing::Nothing`] or there is no room for more.
    ///
    /// `may` is the gate: it is asked for every message before it is sent, also again.
    pub fn next_outgoing(
        &mut self,
        now_ms: u64,
        mut may: impl FnMut(Topic<'_>) -> bool,
        out: &mut Vec<u8>,
    ) -> Outgoing {
        if let Some(packet_id) = self.state.in_flight.next_release() {
            let success = ReasonCode::Success;
            write_ack(out, AckKind::PubRel, self.version, packet_id, success);
            return Outgoing::Release;
        }
        // The message that was let through in this call already.
        let mut asked = None;
        loop {
            if let Some(slot) = self.state.queue.to_send() {
                let (number, message) = (slot.number, Arc::clone(&slot.message));
                if !slot.was_sent && message.is_expired(now_ms) {
                    return self.leave_out(number, LeftOut::Expired);
                }
                if asked != Some(number) && !may(message.topic()) {
                    return self.leave_out(number, LeftOut::NotAllowed);
                }
                return self.send_next(&message, now_ms, out);
            }
            let Some(slot) = self.state.queue.to_assign() else {
                return Outgoing::Nothing;
            };
            let number = slot.number;
            // Early, so that no id is recorded for what will not be sent.
            if slot.message.is_expired(now_ms) {
                return self.leave_out(number, LeftOut::Expired);
            }
            if !may(slot.message.topic()) {
                return self.leave_out(number, LeftOut::NotAllowed);
            }
            asked = Some(number);
            let (offset, is_exact) = (slot.how.offset, slot.how.qos == QoS::ExactlyOnce);
            let item = Item {
                source: super::in_flight::QUEUE,
                number,
                order: offset,
            };
            let Some(packet_id) = self.state.in_flight.assign(item, is_exact) else {
                return Outgoing::Nothing;
            };
            if self.state.queue.assign(packet_id) {
                return Outgoing::Assign { offset, packet_id };
            }
        }
    }

    /// The assignments up to this packet id, in the order in which they were given out, are
    /// durable: their messages may go.
    pub fn assigned(&mut self, packet_id: PacketId) {
        self.state.queue.recorded(packet_id);
    }

    /// Takes out what came through a share group that `which` names by its whole filter, for
    /// another member: what waits, and with `and_sent` also what was sent at QoS 1 and not
    /// acknowledged. What has an offset is to be recorded as settled for this session.
    pub fn take_shared(
        &mut self,
        which: impl Fn(&str) -> bool,
        and_sent: bool,
    ) -> Vec<(Arc<Message>, Delivered)> {
        self.state.take_shared(which, and_sent)
    }

    /// Takes messages out of the queue that `may`, the gate, does not let through any more. What
    /// has an offset is to be recorded as settled.
    pub fn withdraw(&mut self, may: impl Fn(Topic<'_>) -> bool) -> Withdrawn {
        let SessionState {
            queue, in_flight, ..
        } = &mut self.state;
        queue.withdraw(in_flight, may, true)
    }

    pub(in crate::mqtt::session) fn handle_puback<'p>(
        &mut self,
        packet_id: PacketId,
    ) -> Result<Step<'p>, Close> {
        let in_flight = &mut self.state.in_flight;
        if in_flight.is_exact(packet_id) == Some(true) {
            return Err(Close::because(ReasonCode::ProtocolError));
        }
        // Whatever its reason: it is not sent again, to nobody [MQTT-4.8.2-6]. One that settles
        // nothing is ignored, as the standard allows (P-41).
        let Some(item) = in_flight.acknowledge(packet_id) else {
            return Ok(Step::Done);
        };
        if item.queued_offset().is_some() {
            self.state.queue.acknowledged(item.number);
        }
        Ok(Step::Settled(item))
    }

    pub(in crate::mqtt::session) fn handle_pubrec<'p>(
        &mut self,
        packet_id: PacketId,
        reason: ReasonCode,
        replies: &mut Replies,
    ) -> Result<Step<'p>, Close> {
        let in_flight: &mut InFlight = &mut self.state.in_flight;
        if reason.is_error() {
            if in_flight.is_exact(packet_id) == Some(false) {
                return Err(Close::because(ReasonCode::ProtocolError));
            }
            // [MQTT-4.3.3-4]: only without an error there is a PUBREL.
            let item = in_flight.refuse(packet_id);
            return Ok(self.settled(item));
        }
        let (outcome, reason, lane) = match in_flight.receive(packet_id) {
            Received::WrongQos => return Err(Close::because(ReasonCode::ProtocolError)),
            // PUBREL for something never sent says so, and the client can let go (P-42).
            Received::Unknown => (
                Step::Done,
                ReasonCode::PacketIdentifierNotFound,
                &mut replies.prompt,
            ),
            // Behind the first PUBREL, which may still wait for its record.
            Received::Again => (Step::Done, ReasonCode::Success, &mut replies.ordered),
            Received::New(item) => {
                self.state.queue.remove(item.number);
                let step = Step::Received {
                    offset: item.order,
                    packet_id,
                };
                (step, ReasonCode::Success, &mut replies.ordered)
            }
        };
        write_ack(lane, AckKind::PubRel, self.version, packet_id, reason);
        Ok(outcome)
    }

    pub(in crate::mqtt::session) fn handle_pubcomp<'p>(
        &mut self,
        packet_id: PacketId,
    ) -> Result<Step<'p>, Close> {
        let in_flight = &mut self.state.in_flight;
        let item = in_flight.complete(packet_id);
        if item.is_none() && in_flight.is_exact(packet_id).is_some() {
            // Sent, but neither received nor of QoS 2.
            return Err(Close::because(ReasonCode::ProtocolError));
        }
        Ok(self.settled(item))
    }

    fn settled<'p>(&mut self, item: Option<Item>) -> Step<'p> {
        let Some(item) = item else {
            return Step::Done;
        };
        if item.queued_offset().is_some() {
            self.state.queue.remove(item.number);
        }
        Step::Settled(item)
    }

    fn send_next(&mut self, message: &Message, now_ms: u64, out: &mut Vec<u8>) -> Outgoing {
        let Some(slot) = self.state.queue.to_send() else {
            return Outgoing::Nothing;
        };
        let (number, qos, is_again) = (slot.number, slot.how.qos, slot.was_sent);
        let Some(packet_id) = slot.packet_id else {
            return Outgoing::Nothing;
        };
        if !self.state.in_flight.begin(packet_id) {
            return Outgoing::Nothing;
        }
        let retain = slot.how.retain;
        let ids = slot.how.ids.clone();
        let written = ids.with(|ids| {
            let forward = Forward {
                dup: is_again,
                qos,
                packet_id: Some(packet_id),
                subscription_ids: ids,
                ..message.forward(retain, now_ms)
            };
            self.write(forward, out)
        });
        if let Err(why) = written {
            return self.leave_out(number, why);
        }
        self.state.queue.sent();
        Outgoing::Publish { qos, is_again }
    }

    fn leave_out(&mut self, number: u64, why: LeftOut) -> Outgoing {
        let Some(slot) = self.state.queue.remove(number) else {
            return Outgoing::Nothing;
        };
        if let Some(packet_id) = slot.packet_id {
            self.state.in_flight.let_go(packet_id);
        }
        Outgoing::LeftOut {
            offset: slot.how.offset,
            why,
        }
    }

    /// Writes one PUBLISH, with an alias where the client has room for one.
    fn write(&mut self, mut forward: Forward<'_>, out: &mut Vec<u8>) -> Result<(), LeftOut> {
        let topic = forward.topic;
        let written = self.aliases_out.find(topic);
        match written {
            Written::Name => {}
            Written::Introduced(alias) => forward.topic_alias = Some(alias),
            Written::Alias(alias) => {
                forward.topic = "";
                forward.topic_alias = Some(alias);
            }
        }
        let size = forward.packet_size(self.version);
        if size.is_none_or(|size| size > self.client_packet_size_max) {
            return Err(LeftOut::TooLarge);
        }
        forward.write(self.version, out);
        self.aliases_out.wrote(topic, written);
        Ok(())
    }
}

impl SessionState {
    /// Takes a message for a client that is not connected. As [`Session::offer`].
    ///
    /// # Errors
    /// The queue is full.
    pub fn offer(
        &mut self,
        limits: super::queue::QueueLimits,
        message: Arc<Message>,
        how: Delivered,
    ) -> Result<(), Full> {
        self.queue.offer(limits, message, how)
    }

    /// As [`Session::take_shared`], for a session without connection.
    pub fn take_shared(
        &mut self,
        which: impl Fn(&str) -> bool,
        and_sent: bool,
    ) -> Vec<(Arc<Message>, Delivered)> {
        self.queue.take_shared(&mut self.in_flight, which, and_sent)
    }

    /// As [`Session::withdraw`], for a session without connection.
    pub fn withdraw(&mut self, may: impl Fn(Topic<'_>) -> bool) -> Withdrawn {
        self.queue.withdraw(&mut self.in_flight, may, false)
    }

    /// Messages that a withdrawal would take out: waiting, and with a packet id.
    #[must_use]
    pub fn outside(&self, may: impl Fn(Topic<'_>) -> bool) -> (usize, usize) {
        self.queue.outside(may)
    }

    /// The connection is over.
    pub(in crate::mqtt::session) fn disconnect(&mut self) {
        self.queue.disconnect(&mut self.in_flight);
    }

    /// What of the queue is not settled: first what the client has received without PUBCOMP, in
    /// the order of the PUBRECs, then the rest in the order in which it is to be sent.
    pub fn unsettled(&self) -> impl Iterator<Item = Unsettled> + '_ {
        let received = self.in_flight.received();
        let queued = received.filter_map(|(packet_id, item)| {
            Some(Unsettled {
                message: None,
                how: Delivered {
                    qos: QoS::ExactlyOnce,
                    offset: item.queued_offset()?,
                    ..Delivered::default()
                },
                progress: Progress::Received(packet_id),
            })
        });
        queued.chain(self.queue.unsettled())
    }

    /// Puts back what [`SessionState::unsettled`] gave, in the same order; what has a packet id is
    /// sent with it again, and with DUP. Only for a state whose queue and in-flight messages are
    /// empty. Limits are not asked: nothing that was taken is dropped.
    pub fn restore(&mut self, all: Vec<Unsettled>) {
        self.queue.restore(&mut self.in_flight, all);
    }
}
