//! SUBSCRIBE and UNSUBSCRIBE: each filter through the rights gate, then to whoever serves it: the
//! device platform, the application feed, or the subscription tree.

use super::connection::{Clocks, Connection, Inner};
use super::durables::is_ordinary;
use super::feed::Feeding;
use super::publish::Recorded;
use super::worker::Worker;
use crate::broker::feed::Wanted;
use crate::broker::record;
use crate::device_api;
use crate::identity::{IdentityKind, Principal};
use crate::journal::RecordKind;
use crate::mqtt::session::{Close, Granted, Replies};
use crate::mqtt::topic::{Filter, FilterBuf};
use crate::mqtt::wire::{ReasonCode, Subscribe, Unsubscribe};

/// Who serves a subscription.
enum Source {
    /// The device platform, with this highest QoS.
    Device(u8),
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
        let mut entered = Vec::new();
        let subscriptions = &mut inner.subscriptions;
        let feeding = inner.feeding.as_deref();
        let mut asked = subscribe.filters();
        let id = subscribe.subscription_id;
        let changed = inner.session.subscribe(
            subscribe,
            |filter| {
                let options = asked.next().map(|asked| asked.options).unwrap_or_default();
                match self.serves(filter)? {
                    Source::Device(qos) => Ok(Granted { qos, start: 0 }),
                    Source::Feed => {
                        let (granted, wish) = Feeding::grant(feeding, worker, subscribe, filter)?;
                        wishes.push(wish);
                        Ok(granted)
                    }
                    Source::Tree => {
                        let tree = &worker.shared.router.tree;
                        let outcome = worker.with_subscriptions(self, subscriptions, |own| {
                            tree.subscribe(own, *filter, options, id)
                        });
                        match outcome {
                            Some(Ok(_)) => {}
                            Some(Err(_)) | None => return Err(ReasonCode::QuotaExceeded),
                        }
                        entered.push(FilterBuf::from(*filter));
                        let qos = options.qos.as_u8();
                        Ok(Granted { qos, start: 0 })
                    }
                }
            },
            replies,
        )?;
        self.take_up(worker, inner, wishes);
        self.take_back(worker, inner, &entered);
        if changed {
            self.record_change(worker, inner, clocks, recorded);
        }
        recorded.any |= self.session_number != 0;
        Ok(())
    }

    /// Who serves a filter, if the gate lets it pass.
    fn serves(&self, filter: &Filter<'_>) -> Result<Source, ReasonCode> {
        let Principal { permit, kind, .. } = &self.principal;
        let is_allowed = permit.allows_filter(filter);
        match kind {
            IdentityKind::Device if device_api::is_allowed(filter) => match is_allowed {
                true => device_api::grant(filter).map(Source::Device),
                false => Err(ReasonCode::NotAuthorized),
            },
            // TB-11: letter by letter; what a scope covers is beside it.
            IdentityKind::Device if !is_allowed || !is_ordinary(filter) => {
                Err(ReasonCode::TopicFilterInvalid)
            }
            IdentityKind::Application if !is_allowed => Err(ReasonCode::NotAuthorized),
            IdentityKind::Application if Wanted::of(filter).is_some() => Ok(Source::Feed),
            _ if is_ordinary(filter) => Ok(Source::Tree),
            _ => Err(ReasonCode::TopicFilterInvalid),
        }
    }

    /// Takes filters out of the tree that the session did not hold after all: it has as many as it
    /// may have.
    fn take_back(&self, worker: &Worker, inner: &mut Inner, entered: &[FilterBuf]) {
        let tree = &worker.shared.router.tree;
        for filter in entered {
            let filter = filter.as_filter();
            let mut held = inner.session.state().subscriptions.iter();
            if !held.any(|held| *held.filter == *filter.as_str()) {
                let subscriptions = &mut inner.subscriptions;
                worker.with_subscriptions(self, subscriptions, |own| tree.unsubscribe(own, filter));
            }
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
        let known = |filter: &Filter<'_>| match self.principal.kind {
            IdentityKind::Device => device_api::is_allowed(filter) || is_ordinary(filter),
            IdentityKind::Application => Wanted::of(filter).is_some() || is_ordinary(filter),
        };
        if inner.session.unsubscribe(unsubscribe, known, replies)? {
            self.drop_feeds(worker, inner);
            let tree = &worker.shared.router.tree;
            for filter in unsubscribe.filters().filter(is_ordinary) {
                let subscriptions = &mut inner.subscriptions;
                worker.with_subscriptions(self, subscriptions, |own| tree.unsubscribe(own, filter));
            }
            self.record_change(worker, inner, clocks, recorded);
        }
        recorded.any |= self.session_number != 0;
        Ok(())
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
