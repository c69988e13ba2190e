//! A worker's end of the journal: hand a batch over, learn what is durable.

use std::sync::Arc;

use super::record::{BATCH_BYTES_MAX, Batch, Offset};

/// Called once per sync that made something of its submitter durable, and when space returns.
/// Runs on the journal's thread: it must be short and must not panic.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// One worker's way into the journal. Two of its batches may be in flight.
pub struct Submitter {
    _wake: Wake,
}

impl Submitter {
    pub(super) fn new(wake: Wake) -> Submitter {
        Submitter { _wake: wake }
    }

    /// Hands a batch over; answers the offset of its last record. The records are durable (and may
    /// be acknowledged) once [`Submitter::durable`] has reached that offset. An empty batch is
    /// accepted, changes nothing, and answers the last offset handed out.
    ///
    /// # Errors
    /// The batch itself, unchanged, while two batches of this submitter are in flight, and while
    /// the journal is full, failed or closed. Except for the last two the wake says when to retry.
    pub fn submit(&mut self, batch: Batch) -> Result<Offset, Batch> {
        Err(batch)
    }

    /// An empty batch, a recycled one when there is one: no allocation after warm-up.
    #[must_use]
    pub fn take_batch(&mut self) -> Batch {
        Batch::with_limit(BATCH_BYTES_MAX)
    }

    /// True when [`Submitter::submit`] would take a batch now.
    #[must_use]
    pub fn can_submit(&self) -> bool {
        false
    }

    /// Every record up to this offset is on stable storage. One atomic load.
    #[must_use]
    pub fn durable(&self) -> Offset {
        Offset::ZERO
    }
}
