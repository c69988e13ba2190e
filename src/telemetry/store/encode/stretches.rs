//! A column as stretches of equal values: what, and for how many rows.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use super::super::hasher::Cheap;
use super::packing::{Hybrid, width_of};

/// Numbers of values, and for how many rows each stands.
#[derive(Default)]
pub(super) struct Stretches {
    list: Vec<(u32, usize)>,
}

impl Stretches {
    /// The value goes on for `count` more rows.
    #[inline]
    pub(super) fn push(&mut self, value: u32, count: usize) {
        match self.list.last_mut() {
            Some((last, rows)) if *last == value => *rows += count,
            _ => self.list.push((value, count)),
        }
    }

    /// Starts a stretch, whatever was before it.
    pub(super) fn last(&self) -> Option<u32> {
        self.list.last().map(|(value, _)| *value)
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// For reading it from front to back.
    pub(super) fn walk(&self) -> Walk<'_> {
        Walk {
            rest: &self.list,
            used: 0,
        }
    }
}

/// A place in stretches.
pub(super) struct Walk<'s> {
    rest: &'s [(u32, usize)],
    /// Rows of the first one that are behind.
    used: usize,
}

impl Walk<'_> {
    /// Calls `visit` for the stretches of the next `rows` rows.
    pub(super) fn take(&mut self, mut rows: usize, mut visit: impl FnMut(u32, usize)) {
        while rows > 0
            && let Some(((value, count), later)) = self.rest.split_first()
        {
            let left = count - self.used;
            let now = left.min(rows);
            visit(*value, now);
            rows -= now;
            self.used += now;
            if now == left {
                (self.rest, self.used) = (later, 0);
            }
        }
    }

    /// Writes the next `rows` rows as numbers of a dictionary of so many values, to `out`.
    pub(super) fn numbers(&mut self, rows: usize, count: usize, out: &mut Vec<u8>) {
        let width = width_of(count);
        out.push(u8::try_from(width).unwrap_or_default());
        let mut hybrid = Hybrid::new(out, width);
        self.take(rows, |value, count| hybrid.push(value, count));
        hybrid.finish();
    }

    /// Writes for the next `rows` rows which of them have the value `wanted`, as the levels of an
    /// optional column; answers how many have.
    pub(super) fn levels(&mut self, rows: usize, wanted: u32, out: &mut Vec<u8>) -> usize {
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        let mut hybrid = Hybrid::new(out, 1);
        let mut present = 0;
        let mut open = (0, 0);
        self.take(rows, |value, count| {
            let level = u32::from(value == wanted);
            if level == 1 {
                present += count;
            }
            // Stretches of two other kinds are one here.
            if level != open.0 {
                hybrid.push(open.0, open.1);
                open = (level, 0);
            }
            open.1 += count;
        });
        hybrid.push(open.0, open.1);
        hybrid.finish();
        let len = u32::try_from(out.len() - at - 4).unwrap_or_default();
        if let Some(place) = out.get_mut(at..at + 4) {
            place.copy_from_slice(&len.to_le_bytes());
        }
        present
    }
}

/// A column of few values in stretches, with the list of them.
pub(super) struct Listed<T> {
    pub(super) stretches: Stretches,
    pub(super) values: Vec<T>,
    known: HashMap<T, u32, Cheap>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self {
            stretches: Stretches::default(),
            values: Vec::new(),
            known: HashMap::default(),
        }
    }
}

impl<T: Copy + Eq + Hash> Listed<T> {
    /// The value goes on for `count` more rows.
    #[inline]
    pub(super) fn push(&mut self, value: T, count: usize) {
        let last = self.stretches.last().and_then(|last| self.value(last));
        let number = match (last, self.stretches.last()) {
            (Some(last), Some(number)) if last == value => number,
            _ => self.number(value),
        };
        self.stretches.push(number, count);
    }

    /// The values of more rows.
    pub(super) fn extend(&mut self, values: &[T]) {
        for stretch in values.chunk_by(|one, other| one == other) {
            if let Some(value) = stretch.first() {
                self.push(*value, stretch.len());
            }
        }
    }

    fn value(&self, number: u32) -> Option<T> {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        self.values.get(place).copied()
    }

    fn number(&mut self, value: T) -> u32 {
        let next = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        *self.known.entry(value).or_insert_with(|| {
            self.values.push(value);
            next
        })
    }

    pub(super) fn clear(&mut self) {
        self.stretches.clear();
        self.values.clear();
        self.known.clear();
    }
}

/// The values of a column as numbers of a dictionary, unless there are too many different ones.
#[derive(Default)]
pub(super) struct Numbered {
    pub(super) values: Vec<u64>,
    /// Of each row.
    pub(super) numbers: Vec<u32>,
    /// Numbers by hash, one higher, as 0 is an empty place.
    table: Vec<u32>,
}

/// Places of the table in which values are sought, for each value that may be in it.
const PLACES_PER_VALUE: usize = 2;

impl Numbered {
    /// Takes the place of what it held. False when there are more than `most` (a power of two)
    /// different ones; it then means nothing.
    pub(super) fn list(&mut self, values: impl Iterator<Item = u64>, most: usize) -> bool {
        self.values.clear();
        self.numbers.clear();
        self.table.clear();
        self.table.resize(most * PLACES_PER_VALUE, 0);
        let mut last: Option<(u64, u32)> = None;
        for value in values {
            let number = match last {
                Some((same, number)) if same == value => Some(number),
                _ => self.number(value, most),
            };
            let Some(number) = number else {
                return false;
            };
            self.numbers.push(number);
            last = Some((value, number));
        }
        true
    }

    #[inline]
    fn number(&mut self, value: u64, most: usize) -> Option<u32> {
        use std::hash::BuildHasher;
        let mask = self.table.len() - 1;
        let hash = Cheap::default().hash_one(value);
        let mut at = usize::try_from(hash >> 20).unwrap_or_default() & mask;
        loop {
            let place = self.table.get_mut(at)?;
            let Some(number) = place.checked_sub(1) else {
                if self.values.len() >= most {
                    return None;
                }
                let number = u32::try_from(self.values.len()).ok()?;
                *place = number + 1;
                self.values.push(value);
                return Some(number);
            };
            let known = usize::try_from(number).ok()?;
            if self.values.get(known) == Some(&value) {
                return Some(number);
            }
            at = (at + 1) & mask;
        }
    }
}

/// The parts of so many rows that are pages.
pub(super) fn pages(rows: usize, page: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows)
        .step_by(page)
        .map(move |start| start..rows.min(start + page))
}
