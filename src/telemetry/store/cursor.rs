//! The rows of a file, one after the other.

use std::path::PathBuf;

use arrow_schema::ArrowError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::columns::Columns;
use super::file::{FileError, Wanted};
use super::rows::Row;

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
            if self.at < columns.rows() {
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
            if columns.rows() > 0 {
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
