//! Live sessions and what outlives them: who is connected, take-over, revocation, checkpoints.
//!
//! A session is keyed by (identity, client id) — by the identity alone where a device may have
//! only one — and has one *home worker*, `hash(key)`: take-over, resume and revocation of a
//! session are local to that worker and need no lock. [`sessions`] is a worker's table,
//! [`identity_places`] what one identity may have over all tables, [`control`] the lane by which
//! admin calls reach every worker, [`record`] how session changes and messages are written to the
//! journal, [`feed`] gives telemetry to applications, and [`checkpoint`] is the reader that turns
//! those records into rows of the state database, so that a start replays only the journal's end.
//! [`tree`] finds the sessions that get a message, [`retained`] the messages that a new
//! subscription gets, and [`router`] is what all workers share to bring one to the other.

pub mod checkpoint;
pub mod control;
pub mod feed;
pub mod identity_places;
pub mod record;
pub mod retained;
pub mod router;
pub mod sessions;
pub mod tree;
pub mod vital;

pub use checkpoint::{Checkpointer, RestoreError, Restored};
pub use control::{COMMANDS_WAITING_MAX, Command, Control, LiveConnection, NotConfirmed, Receipt};
pub use identity_places::{IdentityLimits, IdentityPlaces, NoPlace};
pub use sessions::{Reserved, SessionKey, SessionTable, Stored};
