//! A stretch of a file's rows by column, as they were decoded.

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
            device: self.device.value(at).try_into().ok()?,
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
