//! The answer of one query while it is being gathered: the best points so far, bounded.

use std::collections::BTreeMap;

use super::{Point, Query, QueryError, RESULT_BYTES_MAX};
use crate::journal::Offset;
use crate::telemetry::sample::OwnedValue;

/// Bytes a point takes beside its key and text, in the map and in the answer, rounded up.
const POINT_BYTES: usize = 128;

/// At most `limit` points, those that come first in the query's order. Leaving one out is final:
/// there are `limit` better places, and places do not get worse by what comes later.
pub(super) struct Best<'q> {
    query: &'q Query,
    points: BTreeMap<(i64, Box<str>), (Offset, OwnedValue)>,
    bytes: usize,
}

/// In which order a source gives its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Each sample is later than those before it.
    Ascending,
    /// Each sample is earlier than those before it.
    Descending,
}

impl<'q> Best<'q> {
    pub(super) fn new(query: &'q Query) -> Self {
        Self {
            query,
            points: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Whether a point of this key and time can be part of the answer.
    pub(super) fn wants(&self, key: &str, ts_ms: i64) -> bool {
        (self.query.from_ms..self.query.to_ms).contains(&ts_ms)
            && self
                .query
                .keys
                .as_ref()
                .is_none_or(|keys| keys.iter().any(|wanted| wanted == key))
            && (self.points.len() < self.query.limit || self.is_before_last(key, ts_ms))
    }

    /// Takes a wanted point, unless a later record has given one for its place.
    ///
    /// # Errors
    /// [`QueryError::TooLarge`]
    pub(super) fn offer(
        &mut self,
        (key, ts_ms): (&str, i64),
        offset: Offset,
        order: Order,
        value: OwnedValue,
    ) -> Result<(), QueryError> {
        let place = (ts_ms, Box::from(key));
        if let Some((known, _)) = self.points.get(&place)
            && (*known > offset || (*known == offset && order == Order::Descending))
        {
            return Ok(());
        }
        self.bytes += point_bytes(key, &value);
        if let Some((_, replaced)) = self.points.insert(place, (offset, value)) {
            self.bytes -= point_bytes(key, &replaced);
        }
        if self.points.len() > self.query.limit {
            let last = match self.query.newest_first {
                true => self.points.pop_first(),
                false => self.points.pop_last(),
            };
            if let Some(((_, key), (_, value))) = last {
                self.bytes -= point_bytes(&key, &value);
            }
        }
        if self.bytes > RESULT_BYTES_MAX {
            Err(QueryError::TooLarge)
        } else {
            Ok(())
        }
    }

    /// The answer in its order, without records before `hidden`.
    pub(super) fn into_points(self, hidden: Offset) -> Vec<Point> {
        let points = self
            .points
            .into_iter()
            .filter(|(_, (offset, _))| *offset >= hidden)
            .map(|((ts_ms, key), (offset, value))| Point {
                key: key.into_string(),
                ts_ms,
                value,
                offset,
            });
        match self.query.newest_first {
            true => points.rev().collect(),
            false => points.collect(),
        }
    }

    /// Whether the place comes before the last one of the answer, or is that place.
    fn is_before_last(&self, key: &str, ts_ms: i64) -> bool {
        let last = match self.query.newest_first {
            true => self.points.first_key_value(),
            false => self.points.last_key_value(),
        };
        let Some(((last_ts_ms, last_key), _)) = last else {
            return false;
        };
        let order = (ts_ms, key).cmp(&(*last_ts_ms, last_key));
        if self.query.newest_first {
            order.is_ge()
        } else {
            order.is_le()
        }
    }
}

fn point_bytes(key: &str, value: &OwnedValue) -> usize {
    POINT_BYTES + 2 * key.len() + value.text_len()
}
