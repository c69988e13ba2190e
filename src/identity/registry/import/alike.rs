//! What many rows of an import have alike is staged once: a million rows have few scopes.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;

/// The different values of an import. Rows that are alike share one.
pub(super) struct Alike<T> {
    pub(super) all: Vec<T>,
    places: HashMap<T, NonZeroU32>,
    bytes: usize,
}

/// Bytes that the different values of one import may have; more are imported in parts.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a value costs beside its texts, twice: its fields, its place in a list and in a map.
const COST_BYTES: usize = 200;

impl<T> Default for Alike<T> {
    fn default() -> Self {
        Alike {
            all: Vec::new(),
            places: HashMap::new(),
            bytes: 0,
        }
    }
}

impl<T: Clone + Eq + Hash> Alike<T> {
    /// Where a value with texts of so many bytes stands, counted from 1. The error is the limit
    /// that it does not fit into.
    pub(super) fn place(&mut self, value: T, bytes: usize) -> Result<Option<NonZeroU32>, usize> {
        if let Some(place) = self.places.get(&value) {
            return Ok(Some(*place));
        }
        // Kept twice.
        self.bytes += 2 * bytes + COST_BYTES;
        if self.bytes > BYTES_MAX {
            return Err(BYTES_MAX);
        }
        self.all.push(value.clone());
        let place = u32::try_from(self.all.len()).ok().and_then(NonZeroU32::new);
        if let Some(place) = place {
            self.places.insert(value, place);
        }
        Ok(place)
    }
}

/// What stands at a place.
pub(super) fn at<T>(all: &[T], place: Option<NonZeroU32>) -> Option<&T> {
    let place = usize::try_from(place?.get()).ok()?;
    all.get(place - 1)
}
