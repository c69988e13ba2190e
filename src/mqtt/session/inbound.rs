//! PUBLISH from the client, at every QoS, and the QoS 2 handshake that follows.

use std::time::Instant;

use super::{Aliased, Close, Replies, Session, Step, outbound};
use crate::mqtt::wire::{AckKind, PacketId, Publish, QoS, ReasonCode, Version, write_ack};

/// What became of a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Taken: its record is on its way, the acknowledgement follows the record.
    Accepted,
    /// Not taken.
    Refused(Refused),
}

/// What a PUBLISH is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// New, and to be settled. Where an alias stood for its topic, here is the topic; else the
    /// packet names it.
    New(Option<Aliased>),
    /// A QoS 2 message that is held already: it is acknowledged again and goes no further.
    Repeated,
}

/// A refusal, and how clients that cannot be told the reason learn of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// MQTT 5's reason, 0x80 and above.
    pub reason: ReasonCode,
    /// What becomes of the connection.
    pub ending: Ending,
}

/// What a refusal does to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It stays; 3.1.1 gets its ordinary acknowledgement for what is dropped (TB-14).
    Stays,
    /// It ends if the client cannot be told the reason (3.1.1, and QoS 0 in MQTT 5), so that it
    /// does not take its message for stored (TB-16).
    ClosesUntold,
    /// It ends: no acknowledgement can say the reason.
    Closes,
}

impl Session {
    /// Settles a PUBLISH that [`Session::handle`] gave out as [`Step::Publish`].
    ///
    /// # Errors
    /// The refusal ends the connection.
    pub fn settle(
        &mut self,
        qos: QoS,
        packet_id: Option<PacketId>,
        verdict: Verdict,
        replies: &mut Replies,
    ) -> Result<(), Close> {
        let reason = match verdict {
            Verdict::Accepted => ReasonCode::Success,
            Verdict::Refused(refused) => {
                let is_told = self.version == Version::V5 && packet_id.is_some();
                match refused.ending {
                    Ending::Closes => return Err(Close::because(refused.reason)),
                    Ending::ClosesUntold if !is_told => {
                        return Err(Close::because(refused.reason));
                    }
                    Ending::ClosesUntold | Ending::Stays => {}
                }
                refused.reason
            }
        };
        let Some(packet_id) = packet_id else {
            return Ok(());
        };
        if qos == QoS::ExactlyOnce {
            self.acknowledge(AckKind::PubRec, packet_id, reason, replies);
            if verdict == Verdict::Accepted {
                self.state.unreleased.insert(packet_id);
            } else if self.version == Version::V5 {
                // MQTT 5, 4.9: a PUBREC of 0x80 and above gives the place back.
                replies.places = replies.places.saturating_add(1);
            }
        } else {
            self.acknowledge(AckKind::PubAck, packet_id, reason, replies);
            replies.places = replies.places.saturating_add(1);
        }
        Ok(())
    }

    /// Settles a PUBREL that [`Session::handle`] gave out as [`Step::Release`].
    pub fn released(&mut self, packet_id: PacketId, replies: &mut Replies) {
        self.state.unreleased.remove(packet_id);
        self.pubcomp(packet_id, ReasonCode::Success, replies);
        replies.places = replies.places.saturating_add(1);
    }

    /// Acknowledgements that give back this many places of Receive Maximum have left.
    pub fn acknowledged(&mut self, places: u16) {
        self.unacknowledged = self.unacknowledged.saturating_sub(places);
    }

    /// As [`Session::handle`], for a PUBLISH. DUP says nothing at QoS 1: what comes again is a
    /// message like any other [MQTT-4.3.2-5].
    ///
    /// # Errors
    /// As [`Session::handle`].
    #[inline]
    pub fn handle_publish(
        &mut self,
        publish: &Publish<'_>,
        now: Instant,
        replies: &mut Replies,
    ) -> Result<Incoming, Close> {
        self.heard(now);
        // First, whatever becomes of the message: the alias is the connection's (SEC-12).
        let maximum = self.limits.topic_aliases_max;
        let topic = self.aliases_in.resolve(publish, maximum)?;
        let Some(packet_id) = publish.packet_id else {
            return Ok(Incoming::New(topic));
        };
        if publish.qos == QoS::ExactlyOnce && self.state.unreleased.contains(packet_id) {
            // [MQTT-4.3.3-10] the same message again: acknowledged, not taken twice.
            let success = ReasonCode::Success;
            self.acknowledge(AckKind::PubRec, packet_id, success, replies);
            return Ok(Incoming::Repeated);
        }
        self.take_place(publish.qos)?;
        Ok(Incoming::New(topic))
    }

    pub(super) fn handle_pubrel<'p>(
        &mut self,
        packet_id: PacketId,
        replies: &mut Replies,
    ) -> Step<'p> {
        if self.state.unreleased.contains(packet_id) {
            return Step::Release(packet_id);
        }
        // [MQTT-4.3.3-11] PUBCOMP answers every PUBREL; for an id that is not held the release
        // has happened before.
        self.pubcomp(packet_id, ReasonCode::PacketIdentifierNotFound, replies);
        Step::ReleasedBefore
    }

    fn pubcomp(&self, packet_id: PacketId, reason: ReasonCode, replies: &mut Replies) {
        let out = &mut replies.ordered;
        write_ack(out, AckKind::PubComp, self.version, packet_id, reason);
    }

    /// PUBACK or PUBREC; with the reason in words for a client that asked for them.
    #[inline]
    fn acknowledge(
        &self,
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
        replies: &mut Replies,
    ) {
        let out = &mut replies.ordered;
        match self.words(reason) {
            None => write_ack(out, kind, self.version, packet_id, reason),
            words => outbound::ack_with_words(kind, packet_id, reason, words, out),
        }
    }

    /// Receive Maximum for MQTT 5, the cap on unfinished QoS 2 ids for all (SEC-28).
    fn take_place(&mut self, qos: QoS) -> Result<(), Close> {
        let is_beyond =
            self.version == Version::V5 && self.unacknowledged >= self.limits.receive_maximum;
        let unreleased = self.state.unreleased.len();
        let is_full =
            qos == QoS::ExactlyOnce && unreleased >= usize::from(self.limits.unreleased_max);
        if is_beyond || is_full {
            return Err(Close::because(ReasonCode::ReceiveMaximumExceeded));
        }
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        Ok(())
    }
}
