//! SUBSCRIBE and UNSUBSCRIBE: each filter through the rights gate, then to whoever serves it: the
//! device platform, the application feed, or the subscription tree.

use super::connection::{Clocks, Connection, Inner};
use super::durables::is_ordinary;
use super::feed::Feeding;
use super::publish::Recorded;
use super::walks::Walk;
use super::worker::Worker;
use crate::broker::feed::Wanted;
use crate::broker::record;
use crate::device_api;
use crate::identity::IdentityKind;
use crate::journal::RecordKind;
use crate::mqtt::session::{Close, Granted, Replies};
use crate::mqtt::topic::Filter;
use crate::mqtt::wire::{QoS, ReasonCode, Subscribe, Unsubscribe};

/// Who serves a subscription.
enum Source {
    /// The device platform, with this highest QoS.
    Device(QoS),
    /// The application feed.
    Feed,
    /// The subscription tree.
    Tree,
}

impl Connection {
    pub(super) fn subscribe(
        &self,
        worker: &Worker,
        inner: &mut Inner,
        subscribe: &Subscribe<'_>,
        clocks: Clocks,
        replies: &mut Replies,
        recorded: &mut Recorded,
    ) -> Result<(), Close> {
        let mut wishes = Vec::new();
        let subscriptions = &mut inner.subscriptions;
        let feeding = inner.feeding.as_deref();
        let taken = inner.session.subscribe(
            subscribe,
            |wanted| match self.serves(&wanted.filter)? {
                Source::Device(qos) => Ok(Granted { qos, start: 0 }),
                Source::Feed => {
                    let asked = Feeding::grant(feeding, worker, subscribe, &wanted.filter);
                    let (granted, wish) = asked?;
                    wishes.push(wish);
                    Ok(granted)
                }
                Source::Tree => {
                    let (tree, options) = (&worker.shared.router.tree, wanted.options);
                    let entered = worker.with_subscriptions(self, subscriptions, |own| {
                        tree.subscribe(own, wanted.filter, options, wanted.id)
                    });
                    match entered {
                        Some(Ok(_)) => Ok(Granted {
                            qos: QoS::ExactlyOnce,
                            start: 0,
                        }),
                        Some(Err(_)) | None => Err(ReasonCode::QuotaExceeded),
                    }
                }
            },
            replies,
        )?;
        let walks = taken.iter().filter(|taken| taken.sends_retained);
        let walks = walks.filter(|taken| is_ordinary(&taken.filter));
        // Behind the subscriptions: what they did not find is in it.
        let now = || worker.shared.router.under_way.now();
        inner
            .walks
            .extend(walks.map(|taken| Walk::new(taken, now())));
        self.take_up(worker, inner, wishes);
        if taken.iter().any(|taken| taken.is_changed) {
            self.record_change(worker, inner, clocks, recorded)?;
        }
        recorded.any |= self.session_number != 0;
        Ok(())
    }

    /// Who serves a filter, if the gate lets it pass.
    fn serves(&self, filter: &Filter<'_>) -> Result<Source, ReasonCode> {
        let is_allowed = self.permit.borrow().allows_filter(filter);
        match &self.principal.kind {
            IdentityKind::Device if device_api::is_allowed(filter) => match is_allowed {
                true => device_api::grant(filter).map(Source::Device),
                false => Err(ReasonCode::NotAuthorized),
            },
            // TB-11: letter by letter; what a scope covers is beside it.
            IdentityKind::Device if !is_allowed || !is_ordinary(filter) => {
                Err(ReasonCode::TopicFilterInvalid)
            }
            IdentityKind::Application | IdentityKind::User if !is_allowed => {
                Err(ReasonCode::NotAuthorized)
            }
            IdentityKind::Application if Wanted::of(filter).is_some() => Ok(Source::Feed),
            _ if is_ordinary(filter) => Ok(Source::Tree),
            _ => Err(ReasonCode::TopicFilterInvalid),
        }
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
        let ended = inner.session.unsubscribe(unsubscribe, replies)?;
        if !ended.is_empty() {
            self.unsubscribed(worker, inner, &ended);
            self.record_change(worker, inner, clocks, recorded)?;
        }
        recorded.any |= self.session_number != 0;
        Ok(())
    }

    /// Subscriptions that the session does not hold any more bring nothing from now on.
    pub(super) fn unsubscribed(&self, worker: &Worker, inner: &mut Inner, ended: &[Filter<'_>]) {
        self.drop_feeds(worker, inner);
        let tree = &worker.shared.router.tree;
        inner
            .walks
            .retain(|walk| !ended.iter().any(|filter| walk.is_for(filter)));
        for &filter in ended.iter().filter(|filter| is_ordinary(filter)) {
            let subscriptions = &mut inner.subscriptions;
            worker.with_subscriptions(self, subscriptions, |own| tree.unsubscribe(own, filter));
            if filter.share_name().is_some() {
                let taken = inner
                    .session
                    .take_shared(|held| held == filter.as_str(), false);
                worker.route_shared(self.session_number, taken);
            }
        }
    }

    /// Writes the session down as it is now.
    fn record_change(
        &self,
        worker: &Worker,
        inner: &Inner,
        clocks: Clocks,
        recorded: &mut Recorded,
    ) -> Result<(), Close> {
        if self.session_number == 0 {
            return Ok(());
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
        // Room was made before the packet was handled. What is not recorded is not acknowledged.
        if !worker.record(&header, &body) {
            return Err(Close::because(ReasonCode::QuotaExceeded));
        }
        recorded.any = true;
        Ok(())
    }
}
