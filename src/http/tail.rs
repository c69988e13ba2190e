//! `GET /admin/v1/telemetry/tail`: telemetry as it becomes durable, one JSON object a line.
//!
//! Each tail has a thread of its own, which reads the journal and waits while the caller does not
//! read; a caller that takes nothing for [`super::REQUEST_TIME_MAX`] is cut off. A tail holds
//! nothing in the journal: one that is overtaken goes on with the oldest record kept, and says so.

use std::collections::{HashMap, HashSet};

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::access::Caller;
use super::admin::in_registry;
use super::lines::{self, IDLE_WAIT, Lines, PART_BYTES};
use super::parameters::{Parameters, bad};
use super::refused::Refused;
use super::service::Shared;
use crate::broker::feed::Start;
use crate::identity::{Registry, RegistryError};
use crate::journal::{Entry, Journal, JournalError, Offset, Reader, Record, RecordKind};

/// Devices one tail may name.
const DEVICES_MAX: usize = 100;

/// Names of devices remembered by one tail; beyond it they are asked for again.
const NAMES_MAX: usize = 10_000;

/// A message of a device.
#[derive(Serialize)]
struct Line<'a> {
    offset: u64,
    ts: u64,
    device: Uuid,
    name: &'a str,
    /// Perhaps somebody else's (`revoke --since`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    suspect: bool,
    payload: Payload<'a>,
}

/// JSON as it was sent; text, if only our scanner can read it.
#[derive(Serialize)]
#[serde(untagged)]
enum Payload<'a> {
    Json(&'a RawValue),
    Text(std::borrow::Cow<'a, str>),
}

/// Records that are lost, or were let go of before they were read.
#[derive(Serialize)]
struct Missed {
    missed_from: u64,
    missed_to: u64,
}

/// Answers with lines until the caller goes.
pub(super) async fn tail(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let mut parameters = Parameters::new(query.as_deref())?;
    let names = parameters.list("devices")?.unwrap_or_default();
    let from = parameters.text("from")?;
    let without_suspect = parameters.flag("without_suspect")?;
    parameters.finish(&["devices", "from", "without_suspect"])?;
    if names.len() > DEVICES_MAX {
        return Err(bad("devices", &format!("names more than {DEVICES_MAX}")));
    }
    let start = from.map(|text| {
        let forms = "must be earliest, an offset, milliseconds since the epoch or RFC 3339";
        Start::parse(&text).ok_or_else(|| bad("from", forms))
    });
    let start = start.transpose()?;
    let resolve = move |registry: &Registry| -> Result<HashSet<Uuid>, RegistryError> {
        let ids = names.iter().map(|name| Ok(registry.device(name)?.id));
        ids.collect()
    };
    let wanted = in_registry(&shared, resolve).await?;
    let (lines, reply) = lines::reply();
    let (journal, registry) = (shared.journal.clone(), shared.registry.clone());
    // Fixed before the reply begins: what is acknowledged after it is in it.
    let now = journal.durable().next().number();
    shared.lanes.tail(move || {
        let mut tail = Tail {
            dead: registry.tombstones().into_iter().collect(),
            names: HashMap::new(),
            registry,
            caller,
            wanted,
            without_suspect,
            not_before_ms: 0,
            lines,
        };
        if let Err(error) = tail.run(&journal, start.unwrap_or(Start::Offset(now))) {
            tracing::warn!(%error, "a tail ends: the journal cannot be read");
        }
    })?;
    Ok(reply)
}

struct Tail {
    registry: Registry,
    caller: Caller,
    dead: HashMap<Uuid, u64>,
    names: HashMap<Uuid, String>,
    /// Empty for all.
    wanted: HashSet<Uuid>,
    without_suspect: bool,
    not_before_ms: u64,
    lines: Lines,
}

impl Tail {
    /// Follows the journal until nobody reads the lines any more, or may.
    fn run(&mut self, journal: &Journal, start: Start) -> Result<(), JournalError> {
        let (from, not_before_ms) = start.resolve(journal)?;
        self.not_before_ms = not_before_ms;
        let mut reader: Reader = journal.reader(Offset::new(from));
        let mut part = Vec::new();
        while !self.lines.is_closed() && self.caller.may_go_on(&self.registry) {
            let expected = reader.position().number();
            let is_more = match reader.next()? {
                Some(Entry::Batch(batch)) => {
                    self.missed(expected, batch.first().number(), &mut part);
                    for record in batch {
                        self.line(&record, &mut part);
                        if part.len() >= PART_BYTES && !self.send(&mut part) {
                            return Ok(());
                        }
                    }
                    part.len() < PART_BYTES / 2
                }
                Some(Entry::Damage(damage)) => {
                    self.missed(damage.first.number(), damage.next.number(), &mut part);
                    true
                }
                None => {
                    if part.is_empty() {
                        let read = Offset::new(expected.saturating_sub(1));
                        let _durable = journal.wait_past(read, IDLE_WAIT);
                    }
                    false
                }
            };
            if !is_more && !self.send(&mut part) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn send(&self, part: &mut Vec<u8>) -> bool {
        lines::send(&self.lines, part)
    }

    fn missed(&self, missed_from: u64, next: u64, part: &mut Vec<u8>) {
        if next > missed_from {
            let missed_to = next - 1;
            write(
                &Missed {
                    missed_from,
                    missed_to,
                },
                part,
            );
        }
    }

    fn line(&mut self, record: &Record<'_>, part: &mut Vec<u8>) {
        let header = &record.header;
        let (device, offset) = (header.device, record.offset.number());
        let is_dead = self.dead.get(&device).is_some_and(|dead| offset <= *dead)
            || self.registry.is_deleted(device);
        let is_wanted = self.wanted.is_empty() || self.wanted.contains(&device);
        if header.kind != RecordKind::Telemetry || is_dead || !is_wanted {
            return;
        }
        let suspect = self.registry.is_suspect(device, header.credential, offset);
        if header.received_ms < self.not_before_ms || (suspect && self.without_suspect) {
            return;
        }
        self.not_before_ms = 0;
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        let registry = &self.registry;
        let name = self
            .names
            .entry(device)
            .or_insert_with(|| registry.device_name(device).unwrap_or_default());
        let payload = match serde_json::from_slice(record.body) {
            // One line is one message, whatever white space the device sent.
            Ok(json) if !record.body.contains(&b'\n') && !record.body.contains(&b'\r') => {
                Payload::Json(json)
            }
            _ => Payload::Text(String::from_utf8_lossy(record.body)),
        };
        write(
            &Line {
                offset,
                ts: header.received_ms,
                device,
                name,
                suspect,
                payload,
            },
            part,
        );
    }
}

fn write(line: &impl Serialize, part: &mut Vec<u8>) {
    // Numbers, an id and text are always written; what was written stands in memory.
    if serde_json::to_writer(&mut *part, line).is_ok() {
        part.push(b'\n');
    }
}
