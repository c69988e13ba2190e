//! Gathering the newest points of series out of sorted rows.

use std::sync::Arc;

use uuid::Uuid;

use super::{Latest, Series};
use crate::telemetry::store::rows::Row;

/// Series gathered before they are brought in under the lock.
const GATHERED_MAX: usize = 1_024;

/// Takes the last row of each series out of sorted rows.
pub(in crate::telemetry::store) struct Newest<'l> {
    latest: &'l Latest,
    gathered: Vec<(Uuid, Series)>,
    /// Names of the series before, and which of them is likely to come next: devices have the same.
    names: Vec<Arc<str>>,
    next: usize,
}

/// Names that are tried before a new one is made.
const NAMES_MAX: usize = 32;

impl<'l> Newest<'l> {
    pub(in crate::telemetry::store) fn new(latest: &'l Latest) -> Self {
        Self {
            latest,
            gathered: Vec::with_capacity(GATHERED_MAX),
            names: Vec::new(),
            next: 0,
        }
    }

    pub(in crate::telemetry::store) fn add(&mut self, row: &Row<'_>) {
        let device = Uuid::from_bytes(row.device);
        if let Some((last, series)) = self.gathered.last_mut()
            && *last == device
            && *series.key == *row.key
        {
            if (series.ts_ms, series.offset) <= (row.ts_ms, row.offset) {
                (series.ts_ms, series.offset) = (row.ts_ms, row.offset);
                series.value = row.value.clone().into_owned();
            }
            return;
        }
        if self.gathered.len() >= GATHERED_MAX {
            self.latest.add(&mut self.gathered);
        }
        let series = Series {
            key: self.name(row.key),
            ts_ms: row.ts_ms,
            offset: row.offset,
            value: row.value.clone().into_owned(),
        };
        self.gathered.push((device, series));
    }

    fn name(&mut self, key: &str) -> Arc<str> {
        let (before, from) = self.names.split_at_checked(self.next).unwrap_or_default();
        let found = from.iter().chain(before).position(|name| **name == *key);
        let at = match found {
            Some(steps) => (self.next + steps) % self.names.len(),
            None if self.names.len() < NAMES_MAX => {
                self.names.push(Arc::from(key));
                self.names.len() - 1
            }
            None => return Arc::from(key),
        };
        self.next = at + 1;
        self.names
            .get(at)
            .map_or_else(|| Arc::from(key), Arc::clone)
    }

    pub(in crate::telemetry::store) fn finish(mut self) {
        self.latest.add(&mut self.gathered);
    }
}
