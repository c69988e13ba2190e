//! A worker's end of the journal: hand a batch over, learn what is durable.

use std::sync::Arc;

use super::queue::HandedOver;
use super::record::{Batch, Offset};
use super::shared::{Shared, lock};

/// Called once per sync that made something of its submitter durable, and when space returns.
/// Runs on the journal's thread: it must be short and must not panic.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// One worker's way into the journal. What it hands over while a commit is under way goes with the
/// next one: up to 32 batches, and about as many bytes as a full one has.
pub struct Submitter {
    shared: Arc<Shared>,
    slot: usize,
}

impl Submitter {
    pub(super) fn new(shared: Arc<Shared>, wake: Wake) -> Submitter {
        let slot = lock(&shared.queue).join(wake);
        Submitter { shared, slot }
    }

    /// Hands over what is in a batch and leaves it empty. The records are durable (and may be
    /// acknowledged) once [`Submitter::durable`] has reached the offset that is answered. An empty
    /// batch is accepted, changes nothing, and answers the last offset handed out.
    ///
    /// `None`: nothing was taken, and the batch is as it was. So it is while as much of this
    /// submitter as may wait does, and while the journal is full, failed or closed. Except for the
    /// last two the wake says when to try again.
    #[must_use]
    pub fn hand_over(&mut self, batch: &mut Batch) -> Option<HandedOver> {
        let mut queue = lock(&self.shared.queue);
        let handed_over = queue.hand_over(self.slot, batch)?;
        // A system call only when the committer sleeps.
        let wake = queue.has_work() && std::mem::take(&mut queue.committer_idle);
        drop(queue);
        if wake {
            self.shared.work.notify_one();
        }
        Some(handed_over)
    }

    /// As [`Submitter::hand_over`]; answers the offset of the batch's last record.
    ///
    /// # Errors
    /// The batch itself, unchanged.
    pub fn submit(&mut self, mut batch: Batch) -> Result<Offset, Batch> {
        match self.hand_over(&mut batch) {
            Some(done) => {
                lock(&self.shared.queue).give_back(self.slot, batch);
                Ok(done.last)
            }
            None => Err(batch),
        }
    }

    /// An empty batch, a recycled one when there is one: no allocation after warm-up.
    #[must_use]
    pub fn take_batch(&mut self) -> Batch {
        let spare = lock(&self.shared.queue).spare(self.slot);
        spare.unwrap_or_else(|| Batch::with_limit(self.shared.batch_bytes_max))
    }

    /// True when a batch with so many bytes would be taken now.
    #[must_use]
    pub fn can_submit(&self, bytes: usize) -> bool {
        lock(&self.shared.queue).takes(self.slot, bytes)
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
