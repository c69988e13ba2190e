//! How a file comes into the history, whoever made it: written, named, listed.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::encode::{Encoder, Written};
use super::files::DataFile;
use super::manifest::{self, FileEntry};
use super::shared::{Shared, State};
use crate::journal::Offset;

/// The names of the steps, as the tests know them.
pub(super) struct Steps {
    pub(super) written: &'static str,
    pub(super) named: &'static str,
}

/// What a finished file is for.
pub(super) struct Change<'c> {
    /// The offsets it has the samples of.
    pub(super) range: (Offset, Offset),
    /// Files it replaces.
    pub(super) removed: &'c [Arc<DataFile>],
    /// Everything up to here is in files then, if that changes.
    pub(super) sealed: Option<Offset>,
    pub(super) steps: Steps,
}

/// Writes a file that nobody knows yet. None, and no file, when `fill` adds no row; no file is left
/// of a failure either.
///
/// # Errors
/// Those of `fill`, or what the system says.
pub(super) fn write<E: From<io::Error>>(
    path: &Path,
    fill: impl FnOnce(&mut Encoder) -> Result<(), E>,
) -> Result<Option<Written>, E> {
    let filled = || {
        let mut encoder = Encoder::create(path)?;
        fill(&mut encoder)?;
        if encoder.rows() == 0 {
            return Ok(None);
        }
        Ok(Some(encoder.finish()?))
    };
    let written = filled();
    if !matches!(written, Ok(Some(_))) {
        // What is left of it would only take room that is wanted.
        match fs::remove_file(path) {
            Err(error) if written.is_ok() => return Err(error.into()),
            _ => {}
        }
    }
    written
}

/// Gives the file its name and puts it in the list, each step durable before the next one; `also`
/// is called when the list changes. Without a file the list changes all the same.
///
/// # Errors
/// What the system says; the list has not changed then.
pub(super) fn publish(
    shared: &Shared,
    unfinished: &Path,
    written: Option<&Written>,
    change: &Change<'_>,
    also: impl FnOnce(&mut State),
) -> io::Result<()> {
    let dir = &shared.options.dir;
    let _commit = shared.commit.lock().unwrap_or_else(PoisonError::into_inner);
    let mut file = None;
    if let Some(written) = written {
        let name = free_name(shared, change.range);
        shared.options.step(change.steps.written);
        fs::rename(unfinished, dir.join(&name))?;
        manifest::sync_dir(dir)?;
        shared.options.step(change.steps.named);
        file = Some(DataFile::new(dir, FileEntry::new(name, written)));
    }
    shared.replace_files(change.removed, file, change.sealed, also)
}

/// A name that no file has: the offsets, and a number where a journal that was replaced gives the
/// same ones again.
fn free_name(shared: &Shared, range: (Offset, Offset)) -> String {
    let files = Arc::clone(&shared.lock().files);
    (0..)
        .map(|again| manifest::file_name(range, again))
        .find(|name| files.iter().all(|file| file.entry.name != *name))
        .unwrap_or_default()
}
