//! Several sorted sources as one: in order, and of equal places only what counts.

use std::cmp::Ordering;

use super::cursor::Cursor;
use super::file::{FileError, Wanted};
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
    while let Some((least, second)) = two_least(&started) {
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

/// The sources that stand on the first and on the second row.
fn two_least(sources: &[Source<'_>]) -> Option<(usize, Option<usize>)> {
    let mut least: Option<(usize, Row<'_>)> = None;
    let mut second: Option<(usize, Row<'_>)> = None;
    for (number, source) in sources.iter().enumerate() {
        let Some(row) = source.row() else { continue };
        let is_before = |other: &Option<(usize, Row<'_>)>| match other {
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
        if self.is_set
            && self.ts_ms == row.ts_ms
            && self.device == row.device
            && self.key == row.key
        {
            return false;
        }
        if !self.is_set || self.key != row.key {
            self.key.clear();
            self.key.push_str(row.key);
        }
        (self.is_set, self.device, self.ts_ms) = (true, row.device, row.ts_ms);
        true
    }
}
