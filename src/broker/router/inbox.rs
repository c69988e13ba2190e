//! What other workers have for a worker: bounded, put once per turn, woken once per batch.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::parcel::Parcel;

/// Emptied parcels that are kept for their memory.
const SPARE_MAX: usize = 4;

/// Parcels for one worker. Any worker puts, its own takes.
#[derive(Debug)]
pub struct Inbox {
    // A std lock, a leaf: pointers are moved under it, nothing else.
    state: Mutex<State>,
    came: Notify,
    bytes_max: usize,
    /// The turns of all workers: those that found no room are woken by them.
    turns: Box<[Arc<Notify>]>,
}

#[derive(Debug, Default)]
struct State {
    parcels: VecDeque<Parcel>,
    bytes: usize,
    spare: Vec<Parcel>,
    /// Workers that found no room.
    refused: Vec<usize>,
    /// Times a parcel found none, since the figures were read.
    waits: u64,
}

/// The size of an inbox, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxFigures {
    /// Bytes that wait.
    pub bytes: usize,
    /// Parcels that found no room since the start.
    pub waits: u64,
}

impl Inbox {
    pub(super) fn new(bytes_max: usize, turns: &[Arc<Notify>]) -> Inbox {
        Inbox {
            state: Mutex::default(),
            came: Notify::new(),
            bytes_max,
            turns: turns.into(),
        }
    }

    /// Puts a parcel of worker `from` in and gives an empty one back for its memory.
    ///
    /// # Errors
    /// The parcel itself: there is no room. The turn of `from` is woken when there is. An empty
    /// inbox takes any parcel.
    pub fn put(&self, from: usize, parcel: Parcel) -> Result<Parcel, Parcel> {
        let mut state = self.lock();
        if !state.parcels.is_empty() && state.bytes + parcel.bytes() > self.bytes_max {
            state.waits += 1;
            if !state.refused.contains(&from) {
                state.refused.push(from);
            }
            return Err(parcel);
        }
        state.bytes += parcel.bytes();
        state.parcels.push_back(parcel);
        let spare = state.spare.pop().unwrap_or_default();
        drop(state);
        self.came.notify_one();
        Ok(spare)
    }

    /// Waits until something is there.
    pub async fn came(&self) {
        self.came.notified().await;
    }

    /// The next parcel, in the order in which they came; `None` when it is empty.
    pub fn take(&self) -> Option<Parcel> {
        let mut state = self.lock();
        let parcel = state.parcels.pop_front()?;
        state.bytes = state.bytes.saturating_sub(parcel.bytes());
        let refused = mem::take(&mut state.refused);
        drop(state);
        for from in refused {
            if let Some(turn) = self.turns.get(from) {
                turn.notify_one();
            }
        }
        Some(parcel)
    }

    /// Takes a parcel back that was delivered, for its memory.
    pub fn recycle(&self, mut parcel: Parcel) {
        parcel.clear();
        let mut state = self.lock();
        if state.spare.len() < SPARE_MAX {
            state.spare.push(parcel);
        }
    }

    /// The size now.
    #[must_use]
    pub fn figures(&self) -> InboxFigures {
        let state = self.lock();
        InboxFigures {
            bytes: state.bytes,
            waits: state.waits,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
