//! The tokens that an import makes, and the file that keeps them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use csv::ByteRecord;

use super::Rows;
use crate::{cli::CliError, http::api::TokenText};

/// The tokens that are made here, and their file.
pub(super) struct Tokens {
    /// One for each row, `None` where the file has one.
    made: Vec<Option<TokenText>>,
    file: Option<PathBuf>,
}

impl Tokens {
    /// Makes what is missing and puts it on disk.
    pub(super) fn make(rows: &Rows, out: Option<&Path>, origin: &str) -> Result<Tokens, CliError> {
        let missing = |record: &ByteRecord| rows.columns.get(record, 1).is_none();
        let Some(first) = rows.records.iter().position(missing) else {
            let (made, file) = (Vec::new(), None);
            return Ok(Tokens { made, file });
        };
        let Some(out) = out else {
            return Err(CliError::Usage(missing_at(rows, first, origin)));
        };
        let made = rows
            .records
            .iter()
            .map(|record| missing(record).then(TokenText::generate))
            .collect();
        let tokens = Tokens {
            made,
            file: Some(out.to_owned()),
        };
        tokens.write(out, rows, &[], true)?;
        Ok(tokens)
    }

    pub(super) fn of(&self, row: usize) -> Option<&TokenText> {
        self.made.get(row)?.as_ref()
    }

    fn write(&self, path: &Path, rows: &Rows, left_out: &[u32], new: bool) -> Result<(), CliError> {
        let failed = |error: io::Error| {
            let advice = match error.kind() {
                io::ErrorKind::AlreadyExists => "; it may hold tokens: name another file",
                _ => "",
            };
            CliError::Usage(format!(
                "{} cannot be written: {error}{advice}",
                path.display()
            ))
        };
        let part = path.with_extension("part");
        let target = if new { path } else { part.as_path() };
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(target)
            .map_err(failed)?;
        let mut out = csv::Writer::from_writer(io::BufWriter::new(file));
        let wrong = |error: csv::Error| failed(error.into());
        out.write_record(["name", "token"]).map_err(wrong)?;
        for (at, record) in rows.records.iter().enumerate() {
            if let (Some(token), false) = (self.of(at), is_among(left_out, at)) {
                let name = rows.columns.get(record, 0).unwrap_or_default();
                out.write_record([&*name, token.expose()]).map_err(wrong)?;
            }
        }
        let buffered = out
            .into_inner()
            .map_err(|error| failed(io::Error::other(error.to_string())))?;
        let file = buffered
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        if !new {
            fs::rename(&part, path).map_err(failed)?;
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new(".")));
        folder.and_then(|folder| folder.sync_all()).map_err(failed)
    }

    /// The import is done: the file keeps the tokens of the devices that exist. The file, if it
    /// holds any; else it is removed.
    pub(super) fn keep(&self, rows: &Rows, left_out: &[u32]) -> Result<Option<&Path>, CliError> {
        let Some(path) = self.file.as_deref() else {
            return Ok(None);
        };
        let is_made = |at: usize| self.of(at).is_some() && !is_among(left_out, at);
        if !(0..rows.records.len()).any(is_made) {
            self.remove();
            return Ok(None);
        }
        if !left_out.is_empty() {
            self.write(path, rows, left_out, false)?;
        }
        Ok(Some(path))
    }

    /// Nothing was imported: the tokens are nobody's.
    pub(super) fn remove(&self) {
        if let Some(path) = &self.file {
            let _ = fs::remove_file(path);
        }
    }

    /// It is not known whether something was imported.
    pub(super) fn left(&self, error: &CliError) {
        match error {
            CliError::NoBroker { .. } | CliError::AdminToken { .. } | CliError::Usage(_) => {
                if let (Some(path), CliError::NoBroker { .. }) = (&self.file, error) {
                    eprintln!(
                        "tollgate: {} is kept: if the import was done all the same, its tokens \
                         are those of the devices; `tollgate device list` tells",
                        path.display()
                    );
                } else {
                    self.remove();
                }
            }
            _ => self.remove(),
        }
    }
}

/// Whether the row at this place is among those with these numbers, which count from 1.
fn is_among(numbers: &[u32], at: usize) -> bool {
    u32::try_from(at + 1).is_ok_and(|row| numbers.binary_search(&row).is_ok())
}

/// What to do about a row without a token, the `first` of them. An export has no token in any.
fn missing_at(rows: &Rows, first: usize, origin: &str) -> String {
    if rows.columns.has_tokens() {
        return format!(
            "{origin}, line {}, column token: is empty. Give it one, or name a file with \
             --tokens-out: then tokens are made and written there",
            rows.line_of(first)
        );
    }
    format!(
        "{origin} has no column token, as an export of devices has none. Name a file with \
         --tokens-out: then each device of it is made with a new token, written there; also one \
         whose token was revoked, unless you take its row out"
    )
}
