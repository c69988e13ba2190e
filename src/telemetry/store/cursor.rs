//! The rows of a file, one after the other.

use std::path::PathBuf;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{
    Array, BooleanArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray,
};
use arrow_schema::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::file::{FileError, Wanted};
use super::rows::{Row, column};
use crate::telemetry::sample::Value;

/// Rows of one file, one after the other.
pub(super) struct Cursor {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    columns: Option<Columns>,
    at: usize,
}

impl Cursor {
    pub(super) fn new(path: PathBuf, reader: ParquetRecordBatchReader) -> Self {
        Self {
            path,
            reader,
            columns: None,
            at: 0,
        }
    }

    /// Goes to the next row; false at the end. A new cursor stands before the first row.
    ///
    /// # Errors
    /// [`FileError::Damaged`]
    pub(super) fn advance(&mut self) -> Result<bool, FileError> {
        if let Some(columns) = &self.columns {
            self.at += 1;
            if self.at < columns.rows {
                return Ok(true);
            }
        }
        loop {
            let batch = match self.reader.next() {
                None => {
                    self.columns = None;
                    return Ok(false);
                }
                Some(batch) => {
                    batch.map_err(|error: ArrowError| self.damaged(error.to_string()))?
                }
            };
            let columns = Columns::new(&batch);
            let columns =
                columns.ok_or_else(|| self.damaged("its columns are others".to_owned()))?;
            if columns.rows > 0 {
                self.columns = Some(columns);
                self.at = 0;
                return Ok(true);
            }
        }
    }

    /// The row it stands on; `None` before the first and behind the last.
    pub(super) fn row(&self) -> Option<Row<'_>> {
        self.columns.as_ref()?.row(self.at)
    }

    /// Calls `visit` for all rows that are wanted, to the end or until it fails.
    ///
    /// # Errors
    /// Those of `visit`, or what `damage` makes of a damaged file's error.
    pub(super) fn visit<E>(
        mut self,
        wanted: Wanted<'_>,
        damage: impl FnOnce(FileError) -> Result<(), E>,
        mut visit: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => return damage(error),
            }
            if let Some(row) = self.row()
                && wanted.holds(&row)
            {
                visit(&row)?;
            }
        }
    }

    /// Goes on to the next row that is wanted; false at the end.
    ///
    /// # Errors
    /// [`FileError::Damaged`]
    pub(super) fn advance_to(&mut self, wanted: Wanted<'_>) -> Result<bool, FileError> {
        while self.advance()? {
            if self.row().is_some_and(|row| wanted.holds(&row)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn damaged(&self, what: String) -> FileError {
        FileError::Damaged {
            path: self.path.clone(),
            what,
        }
    }
}

/// A stretch of rows by column.
struct Columns {
    rows: usize,
    device: FixedSizeBinaryArray,
    key: StringArray,
    ts: Int64Array,
    long: Int64Array,
    double: Float64Array,
    bool: BooleanArray,
    text: StringArray,
    json: StringArray,
    offset: Int64Array,
    credential: Option<Int64Array>,
    generation: Option<Int32Array>,
}

impl Columns {
    fn new(batch: &RecordBatch) -> Option<Self> {
        let column = |place: usize| batch.columns().get(place).map(|column| &**column);
        let int64 = |place: usize| column(place)?.as_primitive_opt::<Int64Type>().cloned();
        let string = |place: usize| column(place)?.as_string_opt::<i32>().cloned();
        let generation = column(column::GENERATION);
        Some(Self {
            rows: batch.num_rows(),
            device: column(column::DEVICE)?.as_fixed_size_binary_opt()?.clone(),
            key: string(column::KEY)?,
            ts: int64(column::TS)?,
            long: int64(column::LONG)?,
            double: column(column::DOUBLE)?
                .as_primitive_opt::<Float64Type>()?
                .clone(),
            bool: column(column::BOOL)?.as_boolean_opt()?.clone(),
            text: string(column::TEXT)?,
            json: string(column::JSON)?,
            offset: int64(column::OFFSET)?,
            credential: int64(column::CREDENTIAL),
            generation: generation
                .and_then(|column| column.as_primitive_opt::<Int32Type>())
                .cloned(),
        })
    }

    fn row(&self, at: usize) -> Option<Row<'_>> {
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
        if self.double.is_valid(at) {
            Value::Double(self.double.value(at))
        } else if self.long.is_valid(at) {
            Value::Long(self.long.value(at))
        } else if self.bool.is_valid(at) {
            Value::Bool(self.bool.value(at))
        } else if self.json.is_valid(at) {
            Value::Json(self.json.value(at).into())
        } else {
            Value::Text(self.text.value(at).into())
        }
    }
}
