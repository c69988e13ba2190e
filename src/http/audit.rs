//! `GET /admin/v1/audit`, `…/events`, `…/refused`: what was changed, who came, who was refused.
//!
//! Records are read from the audit's files, in the order of their times, and sent as they stand
//! there, one a line. A reply that follows has a thread of its own, as a tail has, and ends when
//! nobody reads it any more, or may. What was told before a request is in its reply.

use std::io;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::{Extension, Json};
use tokio::task::spawn_blocking;

use super::access::Caller;
use super::api::{RefusedClient, RefusedClients};
use super::lines::{self, IDLE_WAIT, Lines, PART_BYTES};
use super::parameters::{Parameters, bad};
use super::refused::Refused;
use super::service::Shared;
use crate::audit::{self, Audit, Reader, What, record};

/// How long a request waits for what was told before it to be written.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(2);

/// Largest time that can be asked for: the year 9999.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// `GET /admin/v1/audit`
pub(super) async fn read(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let mut parameters = Parameters::new(query.as_deref())?;
    let since = parameters.number("since", 0..=TIME_MS_MAX)?;
    let follow = parameters.flag("follow")?;
    let wanted = wanted(&mut parameters)?;
    parameters.finish(&["since", "follow", "events"])?;
    let wanted = Wanted {
        since,
        follow,
        events: wanted,
    };
    send(&shared, caller, wanted)
}

/// `GET /admin/v1/events`: alarms and refusals from now on, as they come.
pub(super) async fn events(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let mut parameters = Parameters::new(query.as_deref())?;
    let events = wanted(&mut parameters)?;
    parameters.finish(&["events"])?;
    let usual = [What::Alarm, What::Refused, What::LeftOut, What::TakenOver];
    let usual = || usual.map(What::as_str).to_vec();
    let wanted = Wanted {
        since: None,
        follow: true,
        events: Some(events.unwrap_or_else(usual)),
    };
    send(&shared, caller, wanted)
}

/// `GET /admin/v1/refused`
pub(super) async fn refused(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Json<RefusedClients>, Refused> {
    let mut parameters = Parameters::new(query.as_deref())?;
    let after = parameters.number("after", 0..=u64::MAX)?;
    parameters.finish(&["after"])?;
    let audit = shared.audit.clone();
    let rows = spawn_blocking(move || {
        audit.catch_up(CATCH_UP_WITHIN);
        audit.refused_after(after.unwrap_or(0))
    });
    let rows = rows
        .await
        .map_err(|panicked| Refused::internal(&panicked))?;
    Ok(Json(RefusedClients {
        next: rows.last().map_or(after.unwrap_or(0), |row| row.sequence),
        refused: rows.into_iter().map(view).collect(),
    }))
}

/// The events that are asked for by name.
fn wanted(parameters: &mut Parameters) -> Result<Option<Vec<&'static str>>, Refused> {
    let Some(names) = parameters.list("events")? else {
        return Ok(None);
    };
    let known = names.iter().map(|name| {
        let mut all = What::ALL.iter().map(|what| what.as_str());
        let unknown = || {
            let all: Vec<_> = What::ALL.iter().map(|what| what.as_str()).collect();
            bad(
                "events",
                &format!("has an unknown name; known are: {}", all.join(", ")),
            )
        };
        all.find(|known| known == name).ok_or_else(unknown)
    });
    known.collect::<Result<_, _>>().map(Some)
}

struct Wanted {
    since: Option<u64>,
    follow: bool,
    events: Option<Vec<&'static str>>,
}

/// Answers with lines.
fn send(shared: &Shared, caller: Caller, wanted: Wanted) -> Result<Response, Refused> {
    let (lines, reply) = lines::reply();
    let (audit, registry) = (shared.audit.clone(), shared.registry.clone());
    let may_go_on = move || caller.may_go_on(&registry);
    // Fixed before the reply begins: what is told after it is in it.
    let now = audit::now_ms();
    shared.lanes.tail(move || {
        if let Err(error) = run(&audit, &wanted, now, (&lines, &may_go_on)) {
            tracing::warn!(%error, "a reader of the audit ends: its files cannot be read");
        }
    })?;
    Ok(reply)
}

fn run(
    audit: &Audit,
    wanted: &Wanted,
    now: u64,
    (lines, may_go_on): (&Lines, &dyn Fn() -> bool),
) -> io::Result<()> {
    audit.catch_up(CATCH_UP_WITHIN);
    let since = wanted.since.or(wanted.follow.then_some(now));
    let since = since.map(record::shown_time);
    let mut reader = Reader::new(audit.directory(), since.as_deref())?;
    let mut written = audit.written(None, Duration::ZERO);
    let mut part = Vec::new();
    while !lines.is_closed() {
        let line = reader.next(Some(&written))?;
        let is_end = line.is_none();
        if let Some(line) = line.filter(|line| is_wanted(wanted, &line.text)) {
            part.extend_from_slice(&line.text);
            part.push(b'\n');
        }
        if (is_end || part.len() >= PART_BYTES) && !may_go_on() {
            return Ok(());
        }
        if (is_end || part.len() >= PART_BYTES) && !lines::send(lines, &mut part) {
            return Ok(());
        }
        if is_end {
            if !wanted.follow {
                return Ok(());
            }
            written = audit.written(Some(written.round), IDLE_WAIT);
        }
    }
    Ok(())
}

fn is_wanted(wanted: &Wanted, line: &[u8]) -> bool {
    let Some(events) = &wanted.events else {
        return true;
    };
    let name = audit::event_of(line);
    events.iter().any(|event| Some(*event) == name)
}

fn view(row: audit::RefusedClient) -> RefusedClient {
    let known = row.known;
    RefusedClient {
        first_ms: row.first_ms,
        last_ms: row.last_ms,
        count: row.count,
        from: row.from.to_string(),
        client_id: row.client_id.into(),
        reason: row.reason.to_owned(),
        credential: known.as_ref().map(|known| known.credential),
        identity: known.as_ref().map(|known| known.identity),
        name: known
            .as_ref()
            .and_then(|known| known.name.as_deref().map(str::to_owned)),
        ended_ms: known.and_then(|known| known.ended_ms),
    }
}
