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
            return Err(CliError::Usage(format!(
                "{origin}, line {}, column token: is empty. Give it one, or name a file with \
                 --tokens-out: then tokens are made and written there",
                rows.line_of(first)
            )));
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
            let is_out =
                u32::try_from(at + 1).is_ok_and(|row| left_out.binary_search(&row).is_ok());
            if let (Some(token), false) = (self.of(at), is_out) {
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

    /// The import is done: the file keeps the tokens of the devices that exist.
    pub(super) fn keep(&self, rows: &Rows, left_out: &[u32]) -> Result<(), CliError> {
        match &self.file {
            Some(path) if !left_out.is_empty() => self.write(path, rows, left_out, false),
            _ => Ok(()),
        }
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
