//! What a client sends, packet by packet: taken, or parked until there is room for it.

use super::connection::{Clocks, Connection, End, Inner};
use super::outbox::Purpose;
use super::publish::Recorded;
use super::queued::ENTRY_ROOM_BYTES;
use super::worker::Worker;
use crate::broker::record::SUBSCRIPTION_BYTES;
use crate::device_api;
use crate::limits::FILTERS_BYTES_MAX;
use crate::metrics::Refusal;
use crate::mqtt::session::{Close, Replies, Step};
use crate::mqtt::topic::TOPIC_BYTES_MAX;
use crate::mqtt::wire::{self, PacketType, Publish, QoS, Sender, Version, WireError};

/// What became of one packet.
pub(super) enum Taken {
    /// It is done with.
    Yes,
    /// It has to wait, and so has everything behind it.
    NotNow,
}

impl Connection {
    /// Handles whole packets from the front of `input`; tells how many bytes they were.
    pub(super) fn consume(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        input: &[u8],
        clocks: Clocks,
        replies: &mut Replies,
        recorded: &mut Recorded,
    ) -> (usize, Result<(), End>) {
        let packet_size_max = worker.shared.limits.packet_size_max;
        let mut taken = 0;
        loop {
            let rest = input.get(taken..).unwrap_or(&[]);
            let framed = worker.alone(|| wire::frame(rest, packet_size_max));
            let packet = match framed {
                Ok(Some(frame)) => match frame.packet(rest) {
                    Some(packet) => packet,
                    None => return (taken, Ok(())),
                },
                Ok(None) => return (taken, Ok(())),
                Err(error) => return (taken, Err(End::Closed(Close::from(&error)))),
            };
            match self.take_packet(worker, inner, packet, clocks, replies, recorded) {
                Ok(Taken::Yes) => taken += packet.len(),
                Ok(Taken::NotNow) => {
                    inner.is_stalled = true;
                    return (taken, Ok(()));
                }
                Err(end) => return (taken, Err(end)),
            }
        }
    }

    pub(super) fn take_packet(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        packet: &[u8],
        clocks: Clocks,
        replies: &mut Replies,
        recorded: &mut Recorded,
    ) -> Result<Taken, End> {
        if let Some((bytes, purpose)) = self.needs_room(worker, inner, packet) {
            let behind = !inner.parked.is_empty();
            if behind || !worker.make_room(bytes, purpose) {
                // The client was heard, whatever the journal does (SEC-80).
                inner.session.heard(clocks.now);
                return self.park(worker, inner, packet, clocks);
            }
        }
        if worker.is_route_full.get() && self.must_wait_to_route(worker, inner, packet) {
            inner.session.heard(clocks.now);
            return self.park(worker, inner, packet, clocks);
        }
        let version = inner.session.version();
        let decoded = worker.alone(|| {
            // Not in release builds.
            tracing::trace!(slot = self.slot, bytes = packet.len(), "a packet came");
            decode_publish(version, packet)
        });
        if let Some(decoded) = decoded {
            let publish = decoded.map_err(|error| End::Closed(Close::from(&error)))?;
            return self
                .take_publish(worker, inner, &publish, clocks, replies, recorded)
                .map(|()| Taken::Yes)
                .map_err(End::Closed);
        }
        let step = worker.alone(|| {
            let decoded = wire::decode(version, Sender::Client, packet);
            let decoded = decoded.map_err(|error| Close::from(&error))?;
            inner.session.handle(&decoded, clocks.now, replies)
        });
        match step.map_err(End::Closed)? {
            // PUBLISH was taken above.
            Step::Done | Step::Publish(..) | Step::Repeated => {}
            // Its PUBREL leaves with the acknowledgements.
            Step::Received { offset, .. } => {
                recorded.any |= self.record_received(worker, offset, clocks);
            }
            Step::Settled(item) => match item.queued_offset() {
                Some(offset) => {
                    worker.settle(self.session_number, offset);
                    self.has_room_again(worker, inner);
                }
                None => inner.has_settled = true,
            },
            Step::ReleasedBefore => recorded.any = true,
            Step::Release(packet_id) => {
                self.release(worker, inner, packet_id, clocks, replies, recorded);
            }
            Step::Subscribe(subscribe) => {
                self.subscribe(worker, inner, &subscribe, clocks, replies, recorded)
                    .map_err(End::Closed)?;
            }
            Step::Unsubscribe(unsubscribe) => {
                self.unsubscribe(worker, inner, &unsubscribe, clocks, replies, recorded)
                    .map_err(End::Closed)?;
            }
            Step::Disconnected { .. } => return Err(End::Disconnected),
        }
        Ok(Taken::Yes)
    }

    /// True for a PUBLISH that may route something while there is no room for that. A name of the
    /// device platform routes nothing; what comes under an alias may.
    pub(super) fn must_wait_to_route(&self, worker: &Worker, inner: &Inner, packet: &[u8]) -> bool {
        if worker.can_route() {
            return false;
        }
        match decode_publish(inner.session.version(), packet) {
            Some(Ok(publish)) => !device_api::is_virtual(publish.topic),
            // No PUBLISH, or one that ends the connection.
            Some(Err(_)) | None => false,
        }
    }

    /// The room that the packet and its acknowledgement may need, and for what; `None` if it
    /// needs none.
    pub(super) fn needs_room(
        &self,
        worker: &Worker,
        inner: &Inner,
        packet: &[u8],
    ) -> Option<(usize, Purpose)> {
        match PacketType::from_first_byte(*packet.first()?).ok()? {
            // An alias may stand for a topic that the record holds.
            PacketType::Publish => Some((packet.len() + TOPIC_BYTES_MAX, Purpose::Message)),
            PacketType::PubRel => Some((packet.len(), Purpose::Message)),
            PacketType::PubRec if self.session_number != 0 => {
                Some((ENTRY_ROOM_BYTES, Purpose::Message))
            }
            // The record holds the whole session: its client id and all its filters.
            PacketType::Subscribe | PacketType::Unsubscribe => {
                let held = &inner.session.state().subscriptions;
                let filters = (held.bytes() + packet.len()).min(FILTERS_BYTES_MAX);
                // One of the packet takes at least three bytes there.
                let count = held.len() + packet.len() / 3;
                let count = count.min(worker.shared.limits.subscriptions_max.max(held.len()));
                let bytes = self.key.client_id.len() + filters + count * SUBSCRIPTION_BYTES + 8;
                Some((bytes, Purpose::Session))
            }
            // It ends what was sent before it, so it comes behind that.
            PacketType::Disconnect if !inner.parked.is_empty() => Some((0, Purpose::Message)),
            // Its answer stands in line behind CONNACK.
            PacketType::PingReq if inner.connack_waits => Some((0, Purpose::Session)),
            _ => None,
        }
    }

    fn park(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        packet: &[u8],
        clocks: Clocks,
    ) -> Result<Taken, End> {
        if worker.is_stuck() && is_qos_0_publish(packet) {
            // A storage that stays full: what cannot be acknowledged is refused, and counted.
            worker.count_received(QoS::AtMostOnce);
            worker.count_refused(Refusal::StorageFull);
            return self.hear_alias(inner, packet, clocks);
        }
        let was_empty = inner.parked.is_empty();
        if !inner
            .parked
            .push(packet, worker.shared.limits.receive_maximum)
        {
            return Ok(Taken::NotNow);
        }
        if was_empty {
            worker.resume_later(self.slot, self.generation);
        }
        Ok(Taken::Yes)
    }

    /// A message that is dropped may still give a topic its alias (SEC-12).
    fn hear_alias(&self, inner: &mut Inner, packet: &[u8], clocks: Clocks) -> Result<Taken, End> {
        let version = inner.session.version();
        if let Some(decoded) = decode_publish(version, packet) {
            let publish = decoded.map_err(|error| End::Closed(Close::from(&error)))?;
            // At QoS 0 there is nothing to reply.
            let heard = inner
                .session
                .handle_publish(&publish, clocks.now, &mut Replies::default());
            heard.map_err(End::Closed)?;
        }
        Ok(Taken::Yes)
    }
}

/// `None` if the packet is no PUBLISH.
#[inline]
fn decode_publish(version: Version, packet: &[u8]) -> Option<Result<Publish<'_>, WireError>> {
    wire::decode_publish(version, Sender::Client, packet, device_api::TELEMETRY_TOPIC)
}

fn is_qos_0_publish(packet: &[u8]) -> bool {
    packet
        .first()
        .is_some_and(|first| first >> 4 == 3 && first & 0b0110 == 0)
}
