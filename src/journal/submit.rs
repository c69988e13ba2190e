//! A worker's end of the journal: hand a batch over, learn what is durable.

use std::sync::Arc;

use super::record::{Batch, Offset};
use super::shared::{Shared, lock};

/// Called once per sync that made something of its submitter durable, and when space returns.
/// Runs on the journal's thread: it must be short and must not panic.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// One worker's way into the journal. Some of its batches may be in flight, up to 16 and about as
/// many bytes as two full ones.
pub struct Submitter {
    shared: Arc<Shared>,
    slot: usize,
}

impl Submitter {
    pub(super) fn new(shared: Arc<Shared>, wake: Wake) -> Submitter {
        let slot = lock(&shared.queue).join(wake);
        Submitter { shared, slot }
    }

    /// Hands a batch over; answers the offset of its last record. The records are durable (and may
    /// be acknowledged) once [`Submitter::durable`] has reached that offset. An empty batch is
    /// accepted, changes nothing, and answers the last offset handed out.
    ///
    /// # Errors
    /// The batch itself, unchanged, while as much of this submitter as may be is in flight, and
    /// while the journal is full, failed or closed. Except for the last two the wake says when to
    /// retry.
    pub fn submit(&mut self, batch: Batch) -> Result<Offset, Batch> {
        if batch.bytes_len() > self.shared.batch_bytes_max {
            return Err(batch);
        }
        let mut queue = lock(&self.shared.queue);
        let offset = queue.submit(self.slot, batch)?;
        // A system call only when the committer sleeps.
        let wake = queue.has_work() && std::mem::take(&mut queue.committer_idle);
        drop(queue);
        if wake {
            self.shared.work.notify_one();
        }
        Ok(offset)
    }

    /// An empty batch, a recycled one when there is one: no allocation after warm-up.
    #[must_use]
    pub fn take_batch(&mut self) -> Batch {
        let spare = lock(&self.shared.queue).spare(self.slot);
        spare.unwrap_or_else(|| Batch::with_limit(self.shared.batch_bytes_max))
    }

    /// True when [`Submitter::submit`] would take a batch now.
    #[must_use]
    pub fn can_submit(&self) -> bool {
        lock(&self.shared.queue).takes(self.slot)
    }

    /// Every record up to this offset is on stable storage. One atomic load.
    #[must_use]
    pub fn durable(&self) -> Offset {
        Offset::new(self.shared.durable())
    }
}

impl Drop for Submitter {
    /// What it submitted is committed all the same; its wake is not called any more for it.
    fn drop(&mut self) {
        lock(&self.shared.queue).leave(self.slot);
    }
}
