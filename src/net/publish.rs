//! What a client publishes: through the rights gate to the journal or to its subscribers.

use super::connection::{Clocks, Connection, Inner};
use super::route::{Routing, Sent};
use super::wills::publisher_of;
use super::worker::Worker;
use crate::broker::tree::Subscriber;
use crate::device_api::{self, Route, Why};
use crate::identity::{Action, IdentityKind};
use crate::journal::{RecordHeader, RecordKind};
use crate::metrics::Refusal;
use crate::mqtt::message::{Message, Publisher};
use crate::mqtt::session::{Close, Ending, Incoming, Refused, Replies, Verdict};
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::{PacketId, Publish, QoS, ReasonCode};

/// What the acks of one step depend on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recorded {
    /// A record was written, or one of an earlier connection of the session may still be on its
    /// way: a repeated PUBLISH, a second PUBREL and a resumed session are answered only when
    /// everything recorded so far is durable.
    pub(super) any: bool,
    /// CONNACK depends on it.
    pub(super) connack: bool,
}

impl Connection {
    /// Takes a PUBLISH that was read.
    pub(super) fn take_publish(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        publish: &Publish<'_>,
        clocks: Clocks,
        replies: &mut Replies,
        recorded: &mut Recorded,
    ) -> Result<(), Close> {
        worker.count_received(publish.qos);
        if let Some(figures) = &self.principal.figures {
            figures.received();
        }
        let incoming = worker.alone(|| {
            let session = &mut inner.session;
            session.handle_publish(publish, clocks.now, replies)
        });
        match incoming {
            Ok(Incoming::New(aliased)) => {
                let named = aliased.as_ref().map(|aliased| aliased.topic());
                // Where only an alias says it, the session has the name.
                let Some(topic) = named.or_else(|| publish.topic_name()) else {
                    worker.count_refused(Refusal::ProtocolError);
                    return Err(Close::because(ReasonCode::TopicAliasInvalid));
                };
                self.publish(worker, inner, (publish, topic), clocks, replies, recorded)
            }
            Ok(Incoming::Repeated) => {
                worker.count_repeated();
                recorded.any = true;
                Ok(())
            }
            Err(close) => {
                worker.count_refused(Refusal::ProtocolError);
                Err(close)
            }
        }
    }

    /// Gate, route, record, verdict: the way of a PUBLISH.
    fn publish(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        (publish, topic): (&Publish<'_>, Topic<'_>),
        clocks: Clocks,
        replies: &mut Replies,
        recorded: &mut Recorded,
    ) -> Result<(), Close> {
        let is_in_time = match &*self.quota.borrow() {
            Some(place) => place.takes_message(clocks.now),
            None => true,
        };
        if !is_in_time {
            worker.count_refused(Refusal::RateExceeded);
            let session = &mut inner.session;
            let verdict = too_many(publish.qos);
            return session.settle(publish.qos, publish.packet_id, verdict, replies);
        }
        let route = worker.alone(|| self.decide(worker, topic, publish.payload));
        let verdict = match route {
            Route::Ordinary => self.route_on(worker, publish, topic, clocks, recorded),
            Route::Telemetry => {
                let packet_id = publish.packet_id.filter(|_| publish.qos.as_u8() == 2);
                let header = RecordHeader {
                    qos: publish.qos.as_u8(),
                    ..self.header(worker, RecordKind::Telemetry, packet_id, clocks)
                };
                self.store(worker, &header, publish, clocks, recorded)
            }
            Route::Drop(why) => {
                worker.count_refused(refusal(why));
                Verdict::Accepted
            }
            Route::Refuse(refused, why) => {
                worker.count_refused(refusal(why));
                Verdict::Refused(refused)
            }
        };
        worker.alone(|| {
            let session = &mut inner.session;
            session.settle(publish.qos, publish.packet_id, verdict, replies)
        })
    }

    /// Records the release of a QoS 2 message; PUBCOMP waits for it.
    pub(super) fn release(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        packet_id: PacketId,
        clocks: Clocks,
        replies: &mut Replies,
        recorded: &mut Recorded,
    ) {
        if self.session_number != 0 {
            let header = self.header(worker, RecordKind::Release, Some(packet_id), clocks);
            recorded.any |= worker.record(&header, &[]);
        }
        inner.session.released(packet_id, replies);
    }

    /// A record header in this connection's name.
    pub(super) fn header(
        &self,
        worker: &Worker,
        kind: RecordKind,
        packet_id: Option<PacketId>,
        clocks: Clocks,
    ) -> RecordHeader {
        RecordHeader {
            kind,
            qos: 0,
            profile_flags: worker.shared.profile.scan.profile_flags(),
            parser_version: device_api::PARSER_VERSION,
            received_ms: clocks.wall_ms,
            device: self.principal.identity,
            credential: self.principal.credential,
            generation: self.principal.generation,
            session: self.session_number,
            packet_id: packet_id.map_or(0, PacketId::get),
        }
    }

    /// The one gate, then the device platform's routing.
    fn decide(&self, worker: &Worker, topic: Topic<'_>, payload: &[u8]) -> Route {
        let is_allowed = self.may(Action::Publish, topic);
        let name = topic.as_str();
        if self.principal.kind != IdentityKind::Device {
            device_api::route_application(name, is_allowed)
        } else if is_allowed {
            device_api::route(name, payload, &worker.shared.profile)
        } else {
            device_api::refuse_foreign(name)
        }
    }

    /// Sends an ordinary message to whoever subscribed.
    fn route_on(
        &self,
        worker: &Worker,
        publish: &Publish<'_>,
        topic: Topic<'_>,
        clocks: Clocks,
        recorded: &mut Recorded,
    ) -> Verdict {
        let is_exact = publish.qos == QoS::ExactlyOnce && self.session_number != 0;
        let packet_id = publish.packet_id.filter(|_| is_exact);
        let routing = Routing {
            topic,
            qos: publish.qos,
            retain: publish.retain,
            from: self.subscriber(worker),
            packet: packet_id.map(|packet_id| (self.session_number, packet_id)),
            will_of: None,
        };
        let publisher = self.publisher();
        let sent = worker.route(routing, clocks.now, || {
            Message::of_publish(publish, topic, publisher, clocks.wall_ms)
        });
        let why = match sent {
            Sent::Routed => {
                worker.count_routed(publish.qos);
                return Verdict::Accepted;
            }
            Sent::Recorded => {
                recorded.any = true;
                return Verdict::Accepted;
            }
            Sent::NoRoom => Refusal::StorageFull,
            Sent::RetainedFull => Refusal::RetainedFull,
        };
        worker.count_refused(why);
        Verdict::Refused(Refused {
            reason: ReasonCode::QuotaExceeded,
            ending: Ending::ClosesUntold,
        })
    }

    /// Who publishes here.
    pub(super) fn publisher(&self) -> Publisher {
        publisher_of(&self.principal)
    }

    /// Its session's place in the subscription tree.
    pub(super) fn subscriber(&self, worker: &Worker) -> Option<Subscriber> {
        let home = u16::try_from(worker.index).ok()?;
        match self.session_number {
            0 => Subscriber::transient(home, self.slot, self.generation),
            number => Subscriber::durable(home, number),
        }
    }

    fn store(
        &self,
        worker: &Worker,
        header: &RecordHeader,
        publish: &Publish<'_>,
        clocks: Clocks,
        recorded: &mut Recorded,
    ) -> Verdict {
        if worker.message(header, publish, clocks.now) {
            recorded.any = true;
            return Verdict::Accepted;
        }
        // Room was made before the packet was handled; a record that still does not fit is
        // refused, never half-taken.
        worker.count_refused(Refusal::StorageFull);
        let reason = ReasonCode::QuotaExceeded;
        Verdict::Refused(Refused {
            reason,
            ending: Ending::ClosesUntold,
        })
    }
}

/// A message beyond the rate of its token: dropped where nothing was promised, else refused, or the
/// connection ends where that cannot be told.
fn too_many(qos: QoS) -> Verdict {
    if qos == QoS::AtMostOnce {
        return Verdict::Accepted;
    }
    Verdict::Refused(Refused {
        reason: ReasonCode::QuotaExceeded,
        ending: Ending::ClosesUntold,
    })
}

fn refusal(why: Why) -> Refusal {
    match why {
        Why::BadPayload => Refusal::BadPayload,
        Why::UnknownTopic => Refusal::UnknownTopic,
        Why::NotAuthorized | Why::SystemTopic => Refusal::NotAuthorized,
        Why::PayloadTooLarge => Refusal::PayloadTooLarge,
    }
}
