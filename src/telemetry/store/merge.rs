//! Several sorted sources as one: in order, and of equal places only what counts.

use std::cmp::Ordering;
use std::ops::Range;

use super::cursor::Cursor;
use super::file::{FileError, Wanted};
use super::pages::{Batch, Pages, Plain};
use super::rows::Row;
use crate::telemetry::sample::OwnedValue;

/// A sorted source that stands on a row.
pub(super) enum Source<'w> {
    /// A file, and what of it is wanted.
    File(Box<Cursor>, Wanted<'w>),
    /// Samples in memory, the next one last.
    Memory(Vec<Held>),
}

/// A sample in memory.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) device: [u8; 16],
    pub(super) key: Box<str>,
    pub(super) ts_ms: i64,
    pub(super) offset: u64,
    pub(super) value: OwnedValue,
}

impl Held {
    pub(super) fn new(row: &Row<'_>) -> Self {
        Self {
            device: row.device,
            key: Box::from(row.key),
            ts_ms: row.ts_ms,
            offset: row.offset,
            value: row.value.clone().into_owned(),
        }
    }

    pub(super) fn row(&self) -> Row<'_> {
        Row {
            device: self.device,
            key: &self.key,
            ts_ms: self.ts_ms,
            value: self.value.as_value(),
            offset: self.offset,
            credential: 0,
            generation: 0,
        }
    }
}

impl Source<'_> {
    /// Samples in the order in which they were found, from the newest to the oldest; of equal
    /// ones the first counts.
    pub(super) fn memory(mut held: Vec<Held>) -> Self {
        held.sort_by(|one, other| one.row().order(&other.row()));
        held.reverse();
        // A source stands on its first row once it was advanced, which takes one away.
        if let Some(first) = held.last().cloned() {
            held.push(first);
        }
        Self::Memory(held)
    }

    fn row(&self) -> Option<Row<'_>> {
        match self {
            Self::File(cursor, _) => cursor.row(),
            Self::Memory(held) => held.last().map(Held::row),
        }
    }

    fn advance(&mut self) -> Result<bool, FileError> {
        match self {
            Self::File(cursor, wanted) => cursor.advance_to(*wanted),
            Self::Memory(held) => {
                held.pop();
                Ok(!held.is_empty())
            }
        }
    }
}

/// Calls `emit` for every row in order; of rows with equal device, key and time for the one with
/// the greatest offset, or of the last source. A source that fails is told to `damage`, which
/// decides whether the others go on.
///
/// # Errors
/// Those of `emit` and `damage`.
pub(super) fn merge<E>(
    mut sources: Vec<Source<'_>>,
    mut damage: impl FnMut(FileError) -> Result<(), E>,
    mut emit: impl FnMut(&Row<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut started = Vec::with_capacity(sources.len());
    // The last one first, as of equal rows the first one found counts.
    for mut source in sources.drain(..).rev() {
        match source.advance() {
            Ok(true) => started.push(source),
            Ok(false) => {}
            Err(error) => damage(error)?,
        }
    }
    let mut last = Last::default();
    while let Some((least, second)) = two_least(&started, Source::row) {
        while let Some(source) = started.get_mut(least) {
            if let Some(row) = source.row()
                && last.is_new(&row)
            {
                emit(&row)?;
            }
            let more = source.advance();
            let ended = match more {
                Ok(more) => !more,
                Err(error) => {
                    damage(error)?;
                    true
                }
            };
            if ended {
                started.remove(least);
                break;
            }
            // Stretches of one source are long: another is only looked at when it is its turn.
            let Some(second) = second else { continue };
            let rows = started.get(least).zip(started.get(second));
            let order = rows.and_then(|(one, other)| Some(one.row()?.order(&other.row()?)));
            if order.is_none_or(|order| order != Ordering::Less) {
                break;
            }
        }
    }
    Ok(())
}

/// The same for whole files, with stretches of one series instead of rows: of the rows from which
/// on and up to which `emit` is told, all count. Devices that send on from where they were have no
/// times twice, so that a stretch is all that a file has of a series.
///
/// # Errors
/// Those of `emit`, and what is wrong with a file.
pub(super) fn merge_stretches<E: From<FileError>>(
    mut files: Vec<Pages>,
    plain: &mut Plain,
    mut emit: impl FnMut(&Batch, Range<usize>) -> Result<(), E>,
) -> Result<(), E> {
    // The last one first, as of equal rows the first one found counts.
    files.reverse();
    let mut started = Vec::with_capacity(files.len());
    for mut file in files {
        if file.advance_by(1, plain)? {
            started.push(file);
        }
    }
    let mut last = Last::default();
    while let Some((number, second)) = two_least(&started, Place::of) {
        let limit = second.and_then(|second| Place::of(started.get(second)?));
        let Some(file) = started.get(number) else {
            break;
        };
        let (Some((batch, at)), Some(place)) = (file.batch(), Place::of(file)) else {
            break;
        };
        let end = match limit {
            Some(limit) if limit.series() == place.series() => {
                let series = at..batch.series_end(at);
                let before = batch
                    .ts(&series)
                    .partition_point(|ts_ms| *ts_ms < limit.ts_ms);
                // At the same time as another one it counts alone: it has the greater offset.
                at + before.max(1)
            }
            _ => batch.series_end(at),
        };
        let is_new = last.is_new_at(place.series(), place.ts_ms);
        let rows = if is_new { at..end } else { at + 1..end };
        if let Some(ts_ms) = batch.ts(&rows).last() {
            last.ts_ms = *ts_ms;
            emit(batch, rows)?;
        }
        let more = match started.get_mut(number) {
            Some(file) => file.advance_by(end - at, plain)?,
            None => false,
        };
        if !more {
            started.remove(number);
        }
    }
    Ok(())
}

/// Where a file stands, for comparing.
#[derive(Clone, Copy)]
struct Place<'c> {
    device: [u8; 16],
    key: &'c str,
    ts_ms: i64,
    offset: u64,
}

impl<'c> Place<'c> {
    fn of(file: &'c Pages) -> Option<Self> {
        let (device, key, ts_ms, offset) = file.here()?;
        Some(Self {
            device,
            key,
            ts_ms,
            offset,
        })
    }

    fn series(&self) -> ([u8; 16], &'c str) {
        (self.device, self.key)
    }
}

/// As [`Row::order`].
impl Ordered for Place<'_> {
    fn order(&self, other: &Self) -> Ordering {
        self.device
            .cmp(&other.device)
            .then_with(|| self.key.cmp(other.key))
            .then_with(|| self.ts_ms.cmp(&other.ts_ms))
            .then_with(|| other.offset.cmp(&self.offset))
    }
}

impl Ordered for Row<'_> {
    fn order(&self, other: &Self) -> Ordering {
        Row::order(self, other)
    }
}

/// What sources are merged by.
trait Ordered {
    fn order(&self, other: &Self) -> Ordering;
}

/// The sources that stand on the first and on the second row.
fn two_least<'s, S, R: Ordered>(
    sources: &'s [S],
    row: impl Fn(&'s S) -> Option<R>,
) -> Option<(usize, Option<usize>)> {
    let mut least: Option<(usize, R)> = None;
    let mut second: Option<(usize, R)> = None;
    for (number, source) in sources.iter().enumerate() {
        let Some(row) = row(source) else { continue };
        let is_before = |other: &Option<(usize, R)>| match other {
            None => true,
            Some((_, other)) => row.order(other) == Ordering::Less,
        };
        if is_before(&least) {
            second = least.replace((number, row));
        } else if is_before(&second) {
            second = Some((number, row));
        }
    }
    let (least, _) = least?;
    Some((least, second.map(|(number, _)| number)))
}

/// The place that was met last.
#[derive(Default)]
struct Last {
    is_set: bool,
    device: [u8; 16],
    key: String,
    ts_ms: i64,
}

impl Last {
    fn is_new(&mut self, row: &Row<'_>) -> bool {
        self.is_new_at((row.device, row.key), row.ts_ms)
    }

    fn is_new_at(&mut self, (device, key): ([u8; 16], &str), ts_ms: i64) -> bool {
        if self.is_set && self.ts_ms == ts_ms && self.device == device && self.key == key {
            return false;
        }
        if !self.is_set || self.key != key {
            self.key.clear();
            self.key.push_str(key);
        }
        (self.is_set, self.device, self.ts_ms) = (true, device, ts_ms);
        true
    }
}

#[cfg(test)]
mod tests;
