//! Stored sessions between two starts: a reader of the journal that keeps the state database's
//! `session` table a little behind, and the start that catches up.
//!
//! The journal's records are the truth (`SessionBegin`, `SessionChange`, `SessionEnd`, and for QoS 2
//! the messages and releases that carry a packet id). A [`Checkpointer`] applies them to a shadow
//! of all sessions and writes the shadow to the database together with the offset it has reached,
//! in one transaction. A start loads that and replays the rest of the journal, so its time does
//! not grow with the journal. After a crash a session counts as disconnected at the start.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{OptionalExtension, params};
use uuid::Uuid;

use super::record::{self, SessionBody};
use super::sessions::{SessionKey, Stored};
use crate::journal::{Entry, Journal, JournalError, Offset, Record, RecordKind};
use crate::mqtt::session::{PacketIds, SessionState};
use crate::mqtt::wire::PacketId;
use crate::store::{Store, StoreError};
