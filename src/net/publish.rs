//! What a connection records: messages, releases and session changes, each behind the rights gate.

use super::connection::{Clocks, Connection, Inner};
use super::feed::Feeding;
use super::worker::Worker;
use crate::broker::feed::Wanted;
use crate::broker::record;
use crate::device_api::{self, Route, Why};
use crate::identity::{Action, IdentityKind, Principal};
use crate::journal::{RecordHeader, RecordKind};
use crate::metrics::Refusal;
use crate::mqtt::session::{Close, Ending, Granted, Incoming, Refused, Replies, Verdict};
use crate::mqtt::topic::Filter;
use crate::mqtt::wire::{PacketId, Publish, ReasonCode, Subscribe, Unsubscribe};

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
        match inner.session.handle_publish(publish, clocks.now, replies) {
            Ok(Incoming::New(aliased)) => {
                let topic = aliased.as_ref().map(|aliased| aliased.topic().as_str());
                let publish = Publish {
                    topic: topic.unwrap_or(publish.topic),
                    ..*publish
                };
                self.publish(worker, inner, &publish, clocks, replies, recorded)
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
        publish: &Publish<'_>,
        clocks: Clocks,
        replies: &mut Replies,
        recorded: &mut Recorded,
    ) -> Result<(), Close> {
        let verdict = match self.route(worker, publish) {
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
        inner
            .session
            .settle(publish.qos, publish.packet_id, verdict, replies)
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

    pub(super) fn subscribe(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        subscribe: &Subscribe<'_>,
        clocks: Clocks,
        replies: &mut Replies,
        recorded: &mut Recorded,
    ) -> Result<(), Close> {
        let Principal { permit, kind, .. } = &self.principal;
        let mut wishes = Vec::new();
        let feeding = inner.feeding.as_deref();
        let taken = inner.session.subscribe(
            subscribe,
            |wanted| {
                let filter = &wanted.filter;
                // The gate has the last word on what the allow-list knows.
                let is_allowed = permit.allows_filter(filter);
                let allowed = is_allowed.then_some(()).ok_or(ReasonCode::NotAuthorized);
                match kind {
                    IdentityKind::Device => {
                        let qos = device_api::grant(filter)?;
                        allowed.map(|()| Granted { qos, start: 0 })
                    }
                    IdentityKind::Application => {
                        allowed?;
                        let (granted, wish) = Feeding::grant(feeding, worker, subscribe, filter)?;
                        wishes.push(wish);
                        Ok(granted)
                    }
                }
            },
            replies,
        )?;
        self.take_up(worker, inner, wishes);
        if taken.iter().any(|taken| taken.is_changed) {
            self.record_change(worker, inner, clocks, recorded);
        }
        recorded.any |= self.session_number != 0;
        Ok(())
    }

    pub(super) fn unsubscribe(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        unsubscribe: &Unsubscribe<'_>,
        clocks: Clocks,
        replies: &mut Replies,
        recorded: &mut Recorded,
    ) -> Result<(), Close> {
        let known = |filter: &Filter<'_>| match self.principal.kind {
            IdentityKind::Device => device_api::is_allowed(filter),
            IdentityKind::Application => Wanted::of(filter).is_some(),
        };
        let ended = inner.session.unsubscribe(unsubscribe, known, replies)?;
        if !ended.is_empty() {
            self.drop_feeds(worker, inner);
            self.record_change(worker, inner, clocks, recorded);
        }
        recorded.any |= self.session_number != 0;
        Ok(())
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
    fn route(&self, worker: &Worker, publish: &Publish<'_>) -> Route {
        let permit = &self.principal.permit;
        let is_allowed = publish
            .topic_name()
            .is_some_and(|topic| permit.allows(Action::Publish, topic));
        if self.principal.kind == IdentityKind::Application {
            // No endpoint of the broker is an application's.
            device_api::refuse_application(publish.topic, is_allowed)
        } else if is_allowed {
            device_api::route(publish, &worker.shared.profile)
        } else {
            device_api::refuse_foreign(publish.topic)
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

    fn record_change(
        &self,
        worker: &Worker,
        inner: &Inner,
        clocks: Clocks,
        recorded: &mut Recorded,
    ) {
        if self.session_number == 0 {
            return;
        }
        let mut body = Vec::new();
        let session = &inner.session;
        let subscriptions = &session.state().subscriptions;
        record::encode(
            session.expiry_s(),
            &self.key.client_id,
            subscriptions,
            &mut body,
        );
        let header = self.header(worker, RecordKind::SessionChange, None, clocks);
        recorded.any |= worker.record(&header, &body);
    }
}

fn refusal(why: Why) -> Refusal {
    match why {
        Why::BadPayload => Refusal::BadPayload,
        Why::UnknownTopic => Refusal::UnknownTopic,
        Why::SystemTopic => Refusal::NotAuthorized,
        Why::PayloadTooLarge => Refusal::PayloadTooLarge,
    }
}
