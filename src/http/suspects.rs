//! What revoked credentials wrote from a time on: from a time to a record, and into the file of
//! marks. All of it blocks.

use super::api::SuspectView;
use super::refused::Refused;
use super::service::ServiceState;
use super::views::refused_by_registry;
use crate::broker::feed::Start;
use crate::identity::{Registry, Since, SuspectRow};
use crate::journal::{Entry, Journal, JournalError, Offset};
use crate::telemetry::{History, Suspect, SuspectMark};

/// The first record that came at this time or later. Where the journal no longer reaches back to
/// it, one before it: moments are noted about once a minute while many come.
pub(super) fn since(shared: &ServiceState, from_ms: u64) -> Result<Since, Refused> {
    let (journal, registry) = (&shared.journal, &shared.registry);
    let found = first_since(journal, from_ms).map_err(|error| Refused::internal(&error))?;
    let begin = journal.first().number();
    let first_offset = if found > begin || begin <= 1 {
        found
    } else {
        let before = registry.record_before(from_ms);
        let before = before.map_err(|error| refused_by_registry(&error))?;
        // At most where the journal begins; everything, if nobody knows.
        before.unwrap_or(0).saturating_add(1).min(found)
    };
    Ok(Since {
        from_ms,
        first_offset,
    })
}

/// The first record of the journal that was received at this time or later; the one behind its
/// end, if there is none.
fn first_since(journal: &Journal, from_ms: u64) -> Result<u64, JournalError> {
    let (begin, _) = Start::Time(from_ms).resolve(journal)?;
    let end = journal.durable().next();
    let mut reader = journal.reader(Offset::new(begin));
    while let Some(entry) = reader.next()? {
        let Entry::Batch(batch) = entry else {
            continue;
        };
        let mut records = batch.iter();
        if let Some(found) = records.find(|record| record.header.received_ms >= from_ms) {
            return Ok(found.offset.number());
        }
    }
    Ok(end.number())
}

/// Writes the marks for those who read the files. A failure is told and made good by the next
/// start: the marks themselves are on disk.
pub(super) fn publish(registry: &Registry, history: &History) {
    let written = registry.suspects(None).map(|rows| {
        let marks: Vec<SuspectMark> = rows.iter().map(mark).collect();
        history.write_suspects(&marks)
    });
    match written {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the file of suspect samples is not written"),
        Err(error) => tracing::error!(%error, "the marks of suspect samples cannot be read"),
    }
}

/// What is left out of a query.
pub(super) fn suspect(row: &SuspectRow) -> Suspect {
    Suspect {
        first: Offset::new(row.first_offset),
        credential_max: row.credential_max,
    }
}

pub(super) fn view(row: &SuspectRow) -> SuspectView {
    SuspectView {
        from_ms: row.from_ms,
        revoked_ms: row.revoked_ms,
        first_offset: row.first_offset,
        credential_max: row.credential_max,
    }
}

fn mark(row: &SuspectRow) -> SuspectMark {
    SuspectMark {
        device: row.device,
        suspect: suspect(row),
        from_ms: row.from_ms,
        revoked_ms: row.revoked_ms,
    }
}
