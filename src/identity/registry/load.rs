//! What a start reads from the database: on as many threads as there are cores, as it is the
//! longest part of a start with a million tokens. Nothing is written meanwhile.

use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use uuid::Uuid;

use crate::identity::IdentityKind;
use crate::identity::basic::Basics;
use crate::identity::index::TokenIndex;
use crate::identity::marks::Marks;
use crate::identity::retire;
use crate::identity::scopes::{SCOPES_BYTES_MAX, Scopes};
use crate::identity::terms::TermsTable;
use crate::store::load::{self as rows, Counts};
use crate::store::{Connection, Store, StoreError, devices, scopes, suspects, terms};

/// Threads that load, at most: the disk and the locks of the tables do not serve more.
const THREADS_MAX: u64 = 4;

/// Rows that are worth a thread of their own: about 10 ms.
const ROWS_PER_THREAD_MIN: u64 = 16 * 1024;

/// All that is kept of the database.
pub(super) struct Loaded {
    pub(super) index: TokenIndex,
    pub(super) basics: Basics,
    pub(super) terms: TermsTable,
    pub(super) scopes: Scopes,
    pub(super) marks: Marks,
    pub(super) counts: Counts,
    pub(super) tombstones: Vec<(Uuid, u64)>,
    /// When the next token ends by itself; wall clock, ms.
    pub(super) next_end_ms: Option<u64>,
}

/// Loads everything.
pub(super) fn load(store: &Store) -> Result<Loaded, StoreError> {
    let extent = store.read(rows::extent)?;
    // One token each is the rule. Too few or too many is only a question of speed.
    let index = TokenIndex::with_capacity(usize::try_from(extent.identities).unwrap_or(0));
    let terms = TermsTable::default();
    let scopes = Scopes::new(SCOPES_BYTES_MAX);
    let marks = Marks::default();
    let (basics, counts, tombstones, next_end_ms) = thread::scope(|threads| {
        let mut started = Vec::new();
        for ids in shares(&extent.credentials) {
            let (index, terms) = (&index, &terms);
            let work = move || store.scan(|connection| tokens(connection, ids, index, terms));
            started.push(threads.spawn(work));
        }
        for numbers in shares(&extent.scopes) {
            let scopes = &scopes;
            let work = move || store.scan(|connection| scoped(connection, numbers, scopes));
            started.push(threads.spawn(work));
        }
        let rest = store.scan(|connection| {
            let counts = rows::counts(connection)?;
            let tombstones = devices::tombstones(connection)?;
            marks.set(&suspects::of(connection, None)?);
            let next_end_ms = terms::next_end(connection)?;
            Ok((Basics::read(connection)?, counts, tombstones, next_end_ms))
        });
        for thread in started {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        }
        rest
    })?;
    Ok(Loaded {
        index,
        basics,
        terms,
        scopes,
        marks,
        counts,
        tombstones,
        next_end_ms,
    })
}

fn tokens(
    connection: &Connection,
    ids: RangeInclusive<u64>,
    index: &TokenIndex,
    terms: &TermsTable,
) -> Result<(), StoreError> {
    rows::each_live(connection, ids, |live| {
        let kind = IdentityKind::from_number(live.kind);
        retire::learn(
            index,
            terms,
            kind,
            (live.device, live.generation),
            &live.row,
        );
    })
}

fn scoped(
    connection: &Connection,
    numbers: RangeInclusive<u64>,
    held: &Scopes,
) -> Result<(), StoreError> {
    // Neighbours are often alike.
    let mut last = None;
    scopes::each(connection, numbers, |scoped| {
        let kind = IdentityKind::from_number(scoped.kind);
        let common = match &last {
            Some((of, filters, common)) if *of == kind && *filters == scoped.filters => {
                Arc::clone(common)
            }
            _ => held.common(kind, &scoped.filters),
        };
        held.hold(scoped.id, &scoped.name, Arc::clone(&common));
        last = Some((kind, scoped.filters, common));
    })
}

/// A range of row numbers, one share for each thread.
fn shares(rows: &RangeInclusive<u64>) -> Vec<RangeInclusive<u64>> {
    let (first, last) = (*rows.start(), *rows.end());
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let all = last.saturating_sub(first).saturating_add(1);
    let wanted = (all / ROWS_PER_THREAD_MIN).clamp(1, cores.min(THREADS_MAX));
    let each = all.div_ceil(wanted);
    let begins = (0..wanted).map(|share| first.saturating_add(share.saturating_mul(each)));
    let shares = begins.map(|begin| begin..=begin.saturating_add(each - 1).min(last));
    shares.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_row_once() {
        let end = ROWS_PER_THREAD_MIN * 4 + 3;
        for rows in [0..=0, 1..=1, 7..=100, 1..=end, 5..=(i64::MAX as u64)] {
            let shares = shares(&rows);
            let mut next = *rows.start();
            for share in &shares {
                assert_eq!(*share.start(), next);
                assert!(share.start() <= share.end(), "{share:?} of {rows:?}");
                next = share.end() + 1;
            }
            assert_eq!(next, rows.end() + 1);
        }
    }
}
