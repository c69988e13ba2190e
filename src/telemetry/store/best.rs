//! The answer of one query while it is being gathered: the best points so far, bounded.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::hasher::Cheap;
use super::rows::Row;
use super::{Point, Query, QueryError, RESULT_BYTES_MAX};
use crate::journal::Offset;
use crate::telemetry::sample::OwnedValue;

/// Bytes a point takes beside its key and text, while gathered and in the answer, rounded up.
const POINT_BYTES: usize = 128;

/// Points gathered beyond twice the limit before the worse ones are dropped.
const SLACK: usize = 1_024;

/// At most `limit` points, those that come first in the query's order. Leaving one out is final:
/// there are `limit` better places, and places do not get worse by what comes later.
pub(super) struct Best<'q> {
    query: &'q Query,
    keys: HashMap<Arc<str>, (), Cheap>,
    points: Vec<Candidate>,
    /// Number of the next candidate.
    arrivals: u64,
    /// The worst place that is still among the best, once there are `limit` better ones.
    worst: Option<(i64, Arc<str>)>,
    bytes: usize,
}

/// In which order a source gives samples of the same record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Each sample is later than those before it.
    Ascending,
    /// Each sample is earlier than those before it.
    Descending,
}

struct Candidate {
    ts_ms: i64,
    key: Arc<str>,
    offset: u64,
    /// Of equal records the greater one counts.
    arrival: i64,
    value: OwnedValue,
}

impl<'q> Best<'q> {
    pub(super) fn new(query: &'q Query) -> Self {
        Self {
            query,
            keys: HashMap::default(),
            points: Vec::new(),
            arrivals: 0,
            worst: None,
            bytes: 0,
        }
    }

    /// The times that can still be part of the answer, from the first up to the second.
    pub(super) fn times(&self) -> (i64, i64) {
        let (from, to) = (self.query.from_ms, self.query.to_ms);
        match &self.worst {
            None => (from, to),
            Some((worst, _)) if self.query.newest_first => (from.max(*worst), to),
            Some((worst, _)) => (from, to.min(worst.saturating_add(1))),
        }
    }

    /// Takes a point if it can be part of the answer.
    ///
    /// # Errors
    /// [`QueryError::TooLarge`]
    pub(super) fn offer(&mut self, row: &Row<'_>, order: Order) -> Result<(), QueryError> {
        if !self.wants(row.key, row.ts_ms) {
            return Ok(());
        }
        let arrival = i64::try_from(self.arrivals).unwrap_or(i64::MAX);
        self.arrivals += 1;
        let value = row.value.clone().into_owned();
        self.bytes += point_bytes(row.key, &value);
        let key = self.intern(row.key);
        self.points.push(Candidate {
            ts_ms: row.ts_ms,
            key,
            offset: row.offset,
            arrival: match order {
                Order::Ascending => arrival,
                Order::Descending => -arrival,
            },
            value,
        });
        let is_crowded = self.points.len() > self.query.limit.saturating_mul(2).max(SLACK);
        // Twice the limit, so that sorting is worth while each time.
        if is_crowded || self.bytes > 2 * RESULT_BYTES_MAX {
            self.settle()?;
        }
        Ok(())
    }

    /// The answer in its order, without records before `hidden`.
    ///
    /// # Errors
    /// [`QueryError::TooLarge`]
    pub(super) fn into_points(mut self, hidden: Offset) -> Result<Vec<Point>, QueryError> {
        self.settle()?;
        let point = |candidate: Candidate| Point {
            key: candidate.key.as_ref().to_owned(),
            ts_ms: candidate.ts_ms,
            value: candidate.value,
            offset: Offset::new(candidate.offset),
        };
        let seen = |candidate: &Candidate| candidate.offset >= hidden.number();
        Ok(self.points.into_iter().filter(seen).map(point).collect())
    }

    fn wants(&self, key: &str, ts_ms: i64) -> bool {
        (self.query.from_ms..self.query.to_ms).contains(&ts_ms)
            && self
                .query
                .keys
                .as_ref()
                .is_none_or(|keys| keys.iter().any(|wanted| wanted == key))
            && self.worst.as_ref().is_none_or(|(worst_ts, worst_key)| {
                let order = (ts_ms, key).cmp(&(*worst_ts, &**worst_key));
                self.directed(order).is_le()
            })
    }

    /// Sorts, lets the later of equal places stand, and drops what is beyond the limit.
    fn settle(&mut self) -> Result<(), QueryError> {
        let newest_first = self.query.newest_first;
        let directed = |order: Ordering| match newest_first {
            true => order.reverse(),
            false => order,
        };
        let place = |one: &Candidate, other: &Candidate| {
            one.ts_ms
                .cmp(&other.ts_ms)
                .then_with(|| one.key.cmp(&other.key))
        };
        self.points.sort_unstable_by(|one, other| {
            directed(place(one, other))
                .then_with(|| (other.offset, other.arrival).cmp(&(one.offset, one.arrival)))
        });
        // The first of equal ones is the latest, and it is what stays.
        self.points
            .dedup_by(|later, first| place(later, first).is_eq());
        self.points.truncate(self.query.limit);
        self.bytes = self
            .points
            .iter()
            .map(|point| point_bytes(&point.key, &point.value))
            .sum();
        if self.points.len() == self.query.limit {
            let last = self.points.last();
            self.worst = last.map(|last| (last.ts_ms, Arc::clone(&last.key)));
        }
        // Those of points that were dropped would stay for ever.
        self.keys.clear();
        if self.bytes > RESULT_BYTES_MAX {
            return Err(QueryError::TooLarge);
        }
        Ok(())
    }

    fn directed(&self, order: Ordering) -> Ordering {
        match self.query.newest_first {
            true => order.reverse(),
            false => order,
        }
    }

    fn intern(&mut self, key: &str) -> Arc<str> {
        if let Some((known, ())) = self.keys.get_key_value(key) {
            return Arc::clone(known);
        }
        let key: Arc<str> = Arc::from(key);
        self.keys.insert(Arc::clone(&key), ());
        key
    }
}

fn point_bytes(key: &str, value: &OwnedValue) -> usize {
    POINT_BYTES + 2 * key.len() + value.text_len()
}
