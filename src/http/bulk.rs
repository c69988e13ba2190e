//! Many devices in one request: import as a stream of rows, export as large pages.
//!
//! An import's body has a row in each line (JSON) and no length limit of its own: rows are staged
//! as they come, and added in one transaction when the body has ended properly. A body that breaks
//! off, or comes too slowly, changes nothing.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawQuery, Request, State};
use axum::http::header;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::REQUEST_TIME_MAX;
use super::api::{
    DeviceEntry, EXPORT_PER_PAGE_MAX, ExportPage, IMPORT_ROWS_MAX, Imported, RowError, Terms,
};
use super::body;
use super::caller::caller;
use super::parameters::Parameters;
use super::refused::{Code, Refused};
use super::service::Shared;
use super::views::{change_of, refused_by_registry, terms_view};
use crate::identity::{Import, ImportRow};

/// Path of both, whole. Not below `devices`: a device may have any name.
pub(super) const PATH: &str = "/admin/v1/bulk/devices";

/// Longest time for an import; a million rows take a fraction of it.
pub(super) const IMPORT_TIME_MAX: Duration = Duration::from_secs(600);

/// Longest row, bytes: every field at its limit, escaped, fits.
const ROW_BYTES_MAX: usize = 48 * 1024;

/// Pieces of a body that wait to be staged; more wait in the socket.
const PIECES_WAITING_MAX: usize = 16;

/// What the API and the registry say of it is the same.
const _: () = assert!(IMPORT_ROWS_MAX == crate::identity::IMPORT_ROWS_MAX);

/// A line of an import's body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    profile: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    label: Option<Cow<'a, str>>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    terms: Option<Terms>,
}

/// What the staging thread is told.
enum Piece {
    Bytes(Bytes),
    /// The body ended as it should. Without it nothing is committed.
    End,
}

/// `POST /admin/v1/bulk/devices`
pub(super) async fn import(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Json<Imported>, Refused> {
    let mut parameters = Parameters::new(query.as_deref())?;
    let skip_bad = match parameters.text("skip_bad")?.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            let message = "`skip_bad` is true or false";
            return Err(Refused::new(Code::BadParameter, message).target("skip_bad"));
        }
    };
    parameters.finish(&["skip_bad"])?;
    let declared = request.headers().get(header::CONTENT_TYPE);
    if declared.is_none_or(|declared| declared != "application/x-ndjson") {
        let message = "send one JSON object a line, with Content-Type: application/x-ndjson";
        return Err(Refused::new(Code::NotJson, message).target("Content-Type"));
    }
    let (pieces, staged) = mpsc::channel(PIECES_WAITING_MAX);
    let import = shared.registry.by(caller()).import();
    let work = shared.lanes.bulk(move || stage(import, staged, skip_bad));
    let feed = feed(request, pieces);
    // The body is read only as fast as it is staged. A refusal ends both.
    let (imported, fed) = tokio::join!(work, feed);
    fed?;
    let imported = imported?;
    tracing::info!(
        created = imported.created,
        bad = imported.bad,
        "devices were imported"
    );
    Ok(Json(imported))
}

/// `GET /admin/v1/bulk/devices`
pub(super) async fn export(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
) -> Result<Json<ExportPage>, Refused> {
    let mut parameters = Parameters::new(query.as_deref())?;
    let after = parameters.text("after")?;
    let limit = parameters.number("limit", 1..=EXPORT_PER_PAGE_MAX)?;
    parameters.finish(&["after", "limit"])?;
    let limit = limit.unwrap_or(EXPORT_PER_PAGE_MAX);
    let registry = shared.registry.clone();
    let call = move || {
        let devices = registry.list(after.as_deref(), limit);
        devices.map_err(|error| refused_by_registry(&error))
    };
    let (devices, more) = shared.lanes.registry(call).await?;
    let next = devices.last().filter(|_| more);
    Ok(Json(ExportPage {
        next: next.map(|(device, _)| device.name.clone()),
        total: shared.registry.devices_total(),
        devices: devices
            .into_iter()
            .map(|(device, terms)| DeviceEntry {
                name: device.name,
                id: device.id,
                profile: device.profile,
                label: device.label,
                publish: device.scope.publish().map(str::to_owned).collect(),
                subscribe: device.scope.subscribe().map(str::to_owned).collect(),
                terms: terms_view(&terms),
            })
            .collect(),
    }))
}

/// Reads the body and hands it on. Ends early when the other side has.
async fn feed(request: Request, pieces: mpsc::Sender<Piece>) -> Result<(), Refused> {
    let mut body = request.into_body().into_data_stream();
    loop {
        let next = timeout(REQUEST_TIME_MAX, body.next()).await;
        let piece = match next {
            Ok(Some(Ok(bytes))) => Piece::Bytes(bytes),
            Ok(None) => Piece::End,
            Ok(Some(Err(_))) => {
                let message = "the body ended before it was complete; nothing was imported";
                return Err(Refused::new(Code::BadRequest, message));
            }
            Err(_) => {
                let message = "the body came too slowly; nothing was imported";
                return Err(Refused::new(Code::BodyTimeout, message));
            }
        };
        let is_end = matches!(piece, Piece::End);
        // Nobody takes it any more: the staging has ended with a refusal, which is the answer.
        if pieces.send(piece).await.is_err() || is_end {
            return Ok(());
        }
    }
}

/// Stages rows until the end of the body, then commits. Runs on a thread that may block.
fn stage(
    mut import: Import,
    mut pieces: mpsc::Receiver<Piece>,
    skip_bad: bool,
) -> Result<Imported, Refused> {
    let mut rest: Vec<u8> = Vec::new();
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Bytes(bytes)) => stage_lines(&mut import, &mut rest, &bytes)?,
            Some(Piece::End) => break,
            None => {
                // What the reader of the body says is the answer.
                return Err(Refused::new(Code::BadRequest, "the body ended early"));
            }
        }
    }
    if !rest.is_empty() {
        stage_line(&mut import, &rest)?;
    }
    drop(pieces);
    let done = import.commit(skip_bad);
    let done = done.map_err(|error| refused_by_registry(&error))?;
    let rows: Vec<RowError> = done
        .faults
        .into_iter()
        .map(|fault| RowError {
            row: fault.row,
            field: fault.field.to_owned(),
            message: fault.what,
        })
        .collect();
    if done.faults_total > 0 && !skip_bad {
        let message = format!(
            "{} bad rows, nothing was imported; correct them, or leave them out with skip_bad=true",
            done.faults_total
        );
        return Err(Refused {
            rows,
            ..Refused::new(Code::ImportRefused, message)
        });
    }
    Ok(Imported {
        created: done.created,
        bad: done.faults_total,
        rows,
    })
}

/// Takes the whole lines out of what has come; keeps the last one's beginning in `rest`.
fn stage_lines(import: &mut Import, rest: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Refused> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(first) = lines.next() else {
        return Ok(());
    };
    if rest.len().saturating_add(first.len()) > ROW_BYTES_MAX {
        return Err(row_too_long());
    }
    rest.extend_from_slice(first);
    for line in lines {
        let whole = std::mem::take(rest);
        stage_line(import, &whole)?;
        *rest = whole;
        rest.clear();
        if line.len() > ROW_BYTES_MAX {
            return Err(row_too_long());
        }
        rest.extend_from_slice(line);
    }
    Ok(())
}

fn stage_line(import: &mut Import, line: &[u8]) -> Result<(), Refused> {
    // serde would take an array for the fields in their order, which nobody documented.
    let is_object = line.trim_ascii_start().first() == Some(&b'{');
    let staged = match serde_json::from_slice::<Line<'_>>(line) {
        _ if !is_object => import.unreadable("row", "is no JSON object".to_owned()),
        Ok(mut row) => match row.terms.take().map(change_of).transpose() {
            Ok(terms) => import.add(&ImportRow {
                name: &row.name,
                token: &row.token,
                id: row.id.as_deref(),
                profile: row.profile.as_deref(),
                label: row.label.as_deref(),
                publish: &row.publish,
                subscribe: &row.subscribe,
                terms: terms.as_ref(),
            }),
            Err((field, what)) => import.unreadable(field, what),
        },
        // Read again for words that hold no value of the caller's (SEC-55).
        Err(_) => import.unreadable("row", body::fault_of::<Line<'_>>(line)),
    };
    staged.map_err(|error| refused_by_registry(&error))
}

fn row_too_long() -> Refused {
    let message = format!("a row is longer than {ROW_BYTES_MAX} bytes; nothing was imported");
    Refused::new(Code::BodyTooLarge, message)
}
