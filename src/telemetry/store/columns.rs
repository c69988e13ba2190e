//! A stretch of a file's rows by column, as they were decoded.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{
    Array, BooleanArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray,
};

use super::rows::{NAMES, Row, column};
use crate::telemetry::sample::Value;

/// Rows by column. Columns that were not read are missing: credential and generation are 0 then, a
/// column of values has none.
pub(super) struct Columns {
    rows: usize,
    device: FixedSizeBinaryArray,
    key: StringArray,
    ts: Int64Array,
    long: Option<Int64Array>,
    double: Option<Float64Array>,
    bool: Option<BooleanArray>,
    text: Option<StringArray>,
    json: Option<StringArray>,
    offset: Int64Array,
    credential: Option<Int64Array>,
    generation: Option<Int32Array>,
}

/// The values of rows that all have a number of one kind.
pub(super) enum Numbers<'c> {
    Longs(&'c [i64]),
    Doubles(&'c [f64]),
}

impl Columns {
    /// `None` if the batch has other columns than a file of this store.
    pub(super) fn new(batch: &RecordBatch) -> Option<Self> {
        let column = |place: usize| {
            batch
                .column_by_name(NAMES.get(place)?)
                .map(|column| &**column)
        };
        let int64 = |place: usize| column(place)?.as_primitive_opt::<Int64Type>().cloned();
        let string = |place: usize| column(place)?.as_string_opt::<i32>().cloned();
        let required = |array: &dyn Array| array.null_count() == 0;
        let found = Self {
            rows: batch.num_rows(),
            device: column(column::DEVICE)?.as_fixed_size_binary_opt()?.clone(),
            key: string(column::KEY)?,
            ts: int64(column::TS)?,
            long: int64(column::LONG),
            double: column(column::DOUBLE)
                .and_then(|column| column.as_primitive_opt::<Float64Type>())
                .cloned(),
            bool: column(column::BOOL)
                .and_then(|column| column.as_boolean_opt())
                .cloned(),
            text: string(column::TEXT),
            json: string(column::JSON),
            offset: int64(column::OFFSET)?,
            credential: int64(column::CREDENTIAL),
            generation: column(column::GENERATION)
                .and_then(|column| column.as_primitive_opt::<Int32Type>())
                .cloned(),
        };
        (required(&found.device) && required(&found.key)).then_some(found)
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn row(&self, at: usize) -> Option<Row<'_>> {
        if at >= self.rows {
            return None;
        }
        Some(Row {
            device: self.device(at)?,
            key: self.key.value(at),
            ts_ms: self.ts.value(at),
            value: self.value(at),
            offset: self.offset.value(at).cast_unsigned(),
            credential: self
                .credential
                .as_ref()
                .map_or(0, |column| column.value(at).cast_unsigned()),
            generation: self
                .generation
                .as_ref()
                .map_or(0, |column| column.value(at).cast_unsigned()),
        })
    }

    pub(super) fn device(&self, at: usize) -> Option<[u8; 16]> {
        (at < self.rows).then(|| self.device.value(at).try_into().ok())?
    }

    pub(super) fn key(&self, at: usize) -> Option<&str> {
        (at < self.rows).then(|| self.key.value(at))
    }

    pub(super) fn ts(&self, rows: &Range<usize>) -> &[i64] {
        self.ts.values().get(rows.clone()).unwrap_or_default()
    }

    pub(super) fn offsets(&self, rows: &Range<usize>) -> &[i64] {
        self.offset.values().get(rows.clone()).unwrap_or_default()
    }

    /// The times of the first and the last of these rows.
    pub(super) fn ends(&self, rows: &Range<usize>) -> Option<(i64, i64)> {
        let times = self.ts(rows);
        times.first().copied().zip(times.last().copied())
    }

    /// Empty if they were not read.
    pub(super) fn credentials(&self, rows: &Range<usize>) -> &[i64] {
        let column = self.credential.as_ref().map(|column| &**column.values());
        column
            .and_then(|values| values.get(rows.clone()))
            .unwrap_or_default()
    }

    /// Empty if they were not read.
    pub(super) fn generations(&self, rows: &Range<usize>) -> &[i32] {
        let column = self.generation.as_ref().map(|column| &**column.values());
        column
            .and_then(|values| values.get(rows.clone()))
            .unwrap_or_default()
    }

    /// The values of these rows, if they all have a number of one kind, and nothing of them was
    /// left unread.
    pub(super) fn numbers(&self, rows: &Range<usize>) -> Option<Numbers<'_>> {
        let are_all = |array: &dyn Array| {
            array.nulls().is_none_or(|nulls| {
                nulls.null_count() == 0 || nulls.slice(rows.start, rows.len()).null_count() == 0
            })
        };
        if self.credential.is_none() || self.generation.is_none() {
            return None; // they are to be written, row by row
        }
        if let Some(doubles) = self.double.as_ref().filter(|doubles| are_all(*doubles)) {
            return doubles.values().get(rows.clone()).map(Numbers::Doubles);
        }
        let longs = self.long.as_ref().filter(|longs| are_all(*longs))?;
        longs.values().get(rows.clone()).map(Numbers::Longs)
    }

    /// Where the series of this row ends, behind its last row.
    pub(super) fn series_end(&self, at: usize) -> usize {
        let (Some(device), Some(key)) = (self.device(at), self.key(at)) else {
            return self.rows;
        };
        let is_same = |row: usize| {
            self.key(row).is_some_and(|other| other == key)
                && self.device(row).is_some_and(|other| other == device)
        };
        // Rows are sorted: steps that grow, and then the place between the last two.
        let (mut last, mut step) = (at, 1);
        while is_same(last + step) {
            last += step;
            step *= 2;
        }
        let mut beyond = (last + step).min(self.rows);
        while beyond - last > 1 {
            let middle = last + (beyond - last) / 2;
            if is_same(middle) {
                last = middle;
            } else {
                beyond = middle;
            }
        }
        beyond
    }

    fn value(&self, at: usize) -> Value<'_> {
        let is_here = |array: &dyn Array| array.is_valid(at);
        if let Some(double) = self.double.as_ref().filter(|array| is_here(*array)) {
            Value::Double(double.value(at))
        } else if let Some(long) = self.long.as_ref().filter(|array| is_here(*array)) {
            Value::Long(long.value(at))
        } else if let Some(bool) = self.bool.as_ref().filter(|array| is_here(*array)) {
            Value::Bool(bool.value(at))
        } else if let Some(json) = self.json.as_ref().filter(|array| is_here(*array)) {
            Value::Json(json.value(at).into())
        } else {
            Value::Text(self.text.as_ref().map_or("", |text| text.value(at)).into())
        }
    }
}
