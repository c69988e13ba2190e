//! A stored session as the journal tells it, and as a row of the state database.

use std::collections::HashMap;

use uuid::Uuid;

use crate::broker::feed::RestoredFeed;
use crate::broker::record::SessionBody;
use crate::broker::record::session::{options_from_u8, options_to_u8};
use crate::mqtt::session::{PacketIds, Subscribed};
use crate::mqtt::wire::PacketId;
use crate::store::sessions::{FilterRow, SessionRow};

/// All but its queue and its will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) device: Uuid,
    /// The newest generation of the identity that used it.
    pub(super) generation: u32,
    pub(super) body: SessionBody,
    pub(super) unreleased: PacketIds,
    /// Of each feed, by its filter, the offset up to which it is settled.
    pub(super) settled: HashMap<Box<str>, u64>,
}

impl Session {
    pub(super) fn from_row(row: SessionRow) -> Session {
        let settled = row.filters.iter();
        let settled = settled.filter_map(|row| Some((row.filter.as_str().into(), row.settled?)));
        let settled = settled.collect();
        let subscribed = |row: FilterRow| {
            Some(Subscribed {
                filter: row.filter.into(),
                options: options_from_u8(row.options)?,
                id: row.id,
                start: row.start,
            })
        };
        let ids = row.unreleased.into_iter();
        Session {
            device: row.device,
            generation: row.generation,
            body: SessionBody {
                expiry_s: row.expiry_s,
                client_id: row.client_id.into(),
                subscriptions: row.filters.into_iter().filter_map(subscribed).collect(),
            },
            unreleased: ids.filter_map(PacketId::new).collect(),
            settled,
        }
    }

    pub(super) fn row(&self, number: u32) -> SessionRow {
        let subscriptions = self.body.subscriptions.iter();
        SessionRow {
            number,
            device: self.device,
            generation: self.generation,
            client_id: self.body.client_id.to_string(),
            expiry_s: self.body.expiry_s,
            unreleased: self.unreleased.iter().map(PacketId::get).collect(),
            filters: subscriptions
                .map(|held| FilterRow {
                    options: options_to_u8(held.options),
                    id: held.id,
                    filter: held.filter.to_string(),
                    start: held.start,
                    settled: self.settled.get(&held.filter).copied(),
                })
                .collect(),
        }
    }

    /// The session with this body now: what else it has stays, but for feeds that start anew,
    /// which have settled nothing.
    pub(super) fn with_body(mut self, body: SessionBody) -> Session {
        let start = |body: &SessionBody, filter: &str| {
            let held = body.subscriptions.get(filter);
            held.map(|held| held.start)
        };
        self.settled
            .retain(|filter, _| start(&self.body, filter) == start(&body, filter));
        self.body = body;
        self
    }

    pub(super) fn feeds(&self, number: u32) -> impl Iterator<Item = RestoredFeed> + '_ {
        let feeds = self.body.subscriptions.iter();
        feeds
            .filter(|held| held.start != 0)
            .map(move |held| RestoredFeed {
                session: number,
                identity: self.device,
                filter: held.filter.clone(),
                start: held.start,
                settled: self.settled.get(&held.filter).copied(),
            })
    }
}
