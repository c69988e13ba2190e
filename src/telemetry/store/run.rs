//! Rows of one series by column, borrowed from wherever they are.

use std::ops::Range;

use super::rows::Row;
use crate::telemetry::sample::Value;

/// Rows of one series in order of time. All columns have as many rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    /// Bytes of the device's id.
    pub(super) device: [u8; 16],
    /// Name of the series.
    pub(super) key: &'a str,
    /// Milliseconds since the Unix epoch.
    pub(super) ts: &'a [i64],
    /// Numbers of the journal records they came with.
    pub(super) offsets: &'a [i64],
    /// The credentials they came by.
    pub(super) credentials: &'a [i64],
    /// The device's generations then.
    pub(super) generations: &'a [i32],
    /// The values.
    pub(super) values: Values<'a>,
}

/// The values of rows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values<'a> {
    /// Whole numbers only.
    Longs(&'a [i64]),
    /// Other numbers only.
    Doubles(&'a [f64]),
    /// Of any kind.
    Any(&'a [Value<'a>]),
}

impl<'a> Run<'a> {
    pub(super) fn rows(&self) -> usize {
        self.ts.len()
    }

    /// Some of its rows.
    pub(super) fn part(&self, rows: &Range<usize>) -> Run<'a> {
        Run {
            ts: part(self.ts, rows),
            offsets: part(self.offsets, rows),
            credentials: part(self.credentials, rows),
            generations: part(self.generations, rows),
            values: match self.values {
                Values::Longs(values) => Values::Longs(part(values, rows)),
                Values::Doubles(values) => Values::Doubles(part(values, rows)),
                Values::Any(values) => Values::Any(part(values, rows)),
            },
            ..*self
        }
    }

    /// One of its rows.
    pub(super) fn row(&self, at: usize) -> Option<Row<'a>> {
        Some(Row {
            device: self.device,
            key: self.key,
            ts_ms: *self.ts.get(at)?,
            value: match self.values {
                Values::Longs(values) => Value::Long(*values.get(at)?),
                Values::Doubles(values) => Value::Double(*values.get(at)?),
                Values::Any(values) => values.get(at)?.clone(),
            },
            offset: self.offsets.get(at)?.cast_unsigned(),
            credential: self.credentials.get(at)?.cast_unsigned(),
            generation: self.generations.get(at)?.cast_unsigned(),
        })
    }
}

fn part<'a, T>(column: &'a [T], rows: &Range<usize>) -> &'a [T] {
    column.get(rows.clone()).unwrap_or_default()
}
