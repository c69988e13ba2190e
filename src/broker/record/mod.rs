//! How the broker's facts are written in the journal: the bodies of its records, a kind each.
//!
//! | kind | file | body |
//! |---|---|---|
//! | `SessionBegin`, `SessionChange`, `FeedProgress` | [`session`] | a session, a feed's progress |
//! | `Message` | [`message`] | a message, and the stored sessions that get it |
//! | `Assigned`, `Received`, `Settled` | [`queue`] | what became of messages in queues |
//! | `Will` | [`will`] | a session's will; empty takes it away |
//!
//! `Telemetry` is its payload; `Release` and `SessionEnd` have no body. All numbers are little
//! endian. A body is read whole or not at all: what is cut, padded or marked by something this
//! version does not know gives `None`. The journal's checksum was verified before, so `None` means
//! a record of another version, and is reported.

mod bytes;
pub mod message;
pub mod queue;
pub mod session;
pub mod will;

pub use message::{Flags, MessageRecord, Target, Targets};
pub use session::{
    SUBSCRIPTION_BYTES, SessionBody, decode, decode_progress, encode, encode_progress,
};
