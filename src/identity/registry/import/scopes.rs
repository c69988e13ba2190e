//! The different scopes of an import: a million rows that read alike have one.

use std::collections::HashMap;
use std::num::NonZeroU32;

use crate::store::scopes::Filters;

/// The different scopes of an import. Rows that are alike share one.
#[derive(Default)]
pub(super) struct StagedScopes {
    pub(super) all: Vec<Filters>,
    places: HashMap<Filters, NonZeroU32>,
    bytes: usize,
}

/// Bytes that the different scopes of one import may have; more are imported in parts.
const SCOPES_BYTES_MAX: usize = 64 * 1024 * 1024;

impl StagedScopes {
    /// Where a scope stands, counted from 1; `None` for an empty one.
    pub(super) fn place(
        &mut self,
        scope: Filters,
    ) -> Result<Option<NonZeroU32>, (&'static str, String)> {
        if scope.is_empty() {
            return Ok(None);
        }
        if let Some(place) = self.places.get(&scope) {
            return Ok(Some(*place));
        }
        // Kept twice, with what a map and two lists of texts take.
        self.bytes += 2 * scope.bytes() + 200;
        if self.bytes > SCOPES_BYTES_MAX {
            let what = format!(
                "is one scope too many: the different scopes of one import have at most \
                 {SCOPES_BYTES_MAX} bytes; use %d, or import the file in parts"
            );
            return Err(("subscribe", what));
        }
        self.all.push(scope.clone());
        let place = u32::try_from(self.all.len()).ok().and_then(NonZeroU32::new);
        if let Some(place) = place {
            self.places.insert(scope, place);
        }
        Ok(place)
    }
}
