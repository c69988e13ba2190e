//! Gathering: what the head, the files and at need the journal hold of a device.

use std::sync::Arc;
use std::sync::atomic::Ordering as Atomic;

use uuid::Uuid;

use super::best::{Best, Order};
use super::file::{FileError, OpenFile, Wanted};
use super::files::{DataFile, Files};
use super::follow;
use super::rows::Row;
use super::shared::Shared;
use super::{Point, Query, QueryError};
use crate::journal::Offset;

/// How often a query begins again because a compaction took a file from under it.
const ATTEMPTS_MAX: usize = 10;

/// Answers a query.
pub(super) fn points(shared: &Shared, query: &Query) -> Result<Vec<Point>, QueryError> {
    if query.limit == 0 || query.from_ms >= query.to_ms {
        return Ok(Vec::new());
    }
    let mut best = Best::new(query);
    again(|| {
        let files = newer(shared, query.device, &mut |row, order| match query
            .left_out
            .iter()
            .any(|mark| mark.holds(row))
        {
            true => Ok(()),
            false => best.offer(row, order),
        })?;
        gather(shared, query, &files, &mut best)
    })?;
    // Gathering takes a while, and a device can be forgotten meanwhile.
    let hidden = shared.lock().hidden_before(query.device);
    best.into_points(hidden)
}

/// Runs it until no file was taken from under it.
pub(super) fn again<T>(
    mut attempt: impl FnMut() -> Result<T, Interrupted>,
) -> Result<T, QueryError> {
    for _ in 1..ATTEMPTS_MAX {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(Interrupted::Gone { .. }) => {}
            Err(Interrupted::Failed(error)) => return Err(error),
        }
    }
    attempt().map_err(|interrupted| match interrupted {
        Interrupted::Failed(error) => error,
        Interrupted::Gone { error } => error,
    })
}

/// Why an attempt has no answer.
pub(super) enum Interrupted {
    /// A file is not there any more, as it was replaced by another.
    Gone {
        /// For the last attempt.
        error: QueryError,
    },
    /// For good.
    Failed(QueryError),
}

impl From<QueryError> for Interrupted {
    fn from(error: QueryError) -> Self {
        Self::Failed(error)
    }
}

/// The files as they were at one moment, and what they hide.
pub(super) struct View {
    pub(super) files: Files,
    pub(super) hidden: Offset,
}

/// Waits until what is durable now has been read, and visits all samples of the device that are
/// not in files, those of the same record from the last to the first (or as `order` says). Answers
/// the files of the same moment.
pub(super) fn newer(
    shared: &Shared,
    device: Uuid,
    visit: &mut dyn FnMut(&Row<'_>, Order) -> Result<(), QueryError>,
) -> Result<View, QueryError> {
    let durable = shared.journal.durable();
    let state = shared.wait_until_read(durable)?;
    let hidden = state.hidden_before(device);
    let view = View {
        files: Arc::clone(&state.files),
        hidden,
    };
    let sealing = state.sealing.clone();
    let unread = (state.read < durable).then(|| (state.read.next(), durable));
    // The head is this module's own, and so is what its samples are gathered in.
    state
        .active
        .visit(device, hidden, |row| visit(row, Order::Descending))?;
    drop(state);
    if let Some(sealing) = sealing {
        sealing
            .samples
            .visit(device, hidden, |row| visit(row, Order::Descending))?;
    }
    if let Some(range) = unread {
        let range = (range.0.max(hidden), range.1);
        follow::visit_unread(shared, device, range, |row| visit(row, Order::Ascending))?;
    }
    Ok(view)
}

/// Offers what the files hold.
fn gather(
    shared: &Shared,
    query: &Query,
    view: &View,
    best: &mut Best<'_>,
) -> Result<(), Interrupted> {
    let mut files: Vec<_> = view.files.iter().collect();
    // Those that are likely to have the answer first: the others are ruled out by it.
    if query.newest_first {
        files.sort_by_key(|file| std::cmp::Reverse(file.entry.greatest_ts));
    } else {
        files.sort_by_key(|file| file.entry.least_ts);
    }
    for file in files {
        let wanted = Wanted {
            device: Some(query.device),
            keys: query.keys.as_deref(),
            times: best.times(),
            left_out: &query.left_out,
        };
        visit_file(shared, file, wanted, |row| {
            if row.offset < view.hidden.number() {
                return Ok(());
            }
            best.offer(row, Order::Ascending)
        })?;
    }
    Ok(())
}

/// Visits what a file holds of a device; damage is reported and the rest visited.
pub(super) fn visit_file(
    shared: &Shared,
    file: &DataFile,
    wanted: Wanted<'_>,
    mut visit: impl FnMut(&Row<'_>) -> Result<(), QueryError>,
) -> Result<(), Interrupted> {
    let Some(open) = open_for(shared, file, wanted)? else {
        return Ok(());
    };
    let cursor = match open.read(wanted, false) {
        Ok(cursor) => cursor,
        Err(error) => {
            shared.report_file(file, &error);
            return Ok(());
        }
    };
    let mut rows: u32 = 0;
    cursor.visit(
        wanted,
        |error| {
            shared.report_file(file, &error);
            Ok(())
        },
        |row| {
            rows = rows.wrapping_add(1);
            if rows.is_multiple_of(1_024) && shared.is_refusing() {
                return Err(QueryError::Stopping);
            }
            visit(row)
        },
    )?;
    Ok(())
}

/// Opens a file unless it cannot hold what is wanted or is damaged beyond that.
pub(super) fn open_for(
    shared: &Shared,
    file: &DataFile,
    wanted: Wanted<'_>,
) -> Result<Option<Arc<OpenFile>>, Interrupted> {
    if shared.is_refusing() {
        return Err(QueryError::Stopping.into());
    }
    if wanted
        .device
        .is_some_and(|device| file.rules_out(device, wanted.times))
    {
        return Ok(None);
    }
    match shared.footers.open(file) {
        Ok(open) => Ok(Some(open)),
        Err(error @ FileError::Damaged { .. }) => {
            shared.report_file(file, &error);
            Ok(None)
        }
        Err(error) => opening_failed(shared, file, error),
    }
}

fn opening_failed(
    shared: &Shared,
    file: &DataFile,
    error: FileError,
) -> Result<Option<Arc<OpenFile>>, Interrupted> {
    let is_listed = shared
        .lock()
        .files
        .iter()
        .any(|listed| std::ptr::eq(&**listed, file));
    let is_missing = matches!(
        &error,
        FileError::Open { source, .. } if source.kind() == std::io::ErrorKind::NotFound
    );
    if is_missing && is_listed {
        shared.report_file(file, &error);
        return Ok(None);
    }
    let FileError::Open { path, source } = error else {
        return Ok(None);
    };
    let error = QueryError::File { file: path, source };
    if is_missing && !file.is_damaged.load(Atomic::Relaxed) {
        return Err(Interrupted::Gone { error });
    }
    Err(error.into())
}
