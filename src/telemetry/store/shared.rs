//! What the threads and the queries of one store have in common.
//!
//! One lock for the state, held for short work: no file is touched under it. A second one
//! (`commit`) lets seal and compaction change the directory one at a time; it is held across the
//! writing of a manifest and taken before the state's.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::file::FileError;
use super::files::{self, DataFile, Files, Footers};
use super::head::Generation;
use super::latest::Latest;
use super::manifest::Manifest;
use super::options::HistoryOptions;
use super::{BARRIER_MAX, DAMAGE_KEPT_MAX, FileDamage, HistoryStatus, QueryError};
use crate::journal::{Damage, Hold, Journal, Offset};

/// How long the reader may wait for room before queries read the journal themselves.
const STALL_MAX: Duration = Duration::from_secs(1);

/// How long a clean stop waits for the reader.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

pub(super) struct Shared {
    pub(super) journal: Journal,
    pub(super) options: HistoryOptions,
    pub(super) footers: Footers,
    pub(super) latest: Latest,
    /// Keeps what is not sealed yet.
    pub(super) hold: Hold,
    /// A std mutex, as it is held for short work and never across a wait but the barrier's own.
    state: Mutex<State>,
    /// Whoever changes the list of files holds it.
    pub(super) commit: Mutex<()>,
    /// `read` has grown, or everything stops.
    advanced: Condvar,
    /// A query waits, or everything stops.
    asked: Condvar,
    /// A generation waits to be sealed or was sealed, the list of files has changed, or everything
    /// stops.
    pub(super) turned: Condvar,
    stopping: AtomicBool,
    /// No more queries.
    refusing: AtomicBool,
}

pub(super) struct State {
    pub(super) active: Generation,
    /// When its first sample came.
    pub(super) active_since: Option<Instant>,
    pub(super) sealing: Option<Arc<Sealing>>,
    /// An empty generation whose storage the next one takes, and since when it is there. Memory
    /// that comes and goes by many MiB leaves holes.
    pub(super) spare: Option<(Generation, Instant)>,
    /// Every record up to this one is in the head or in files.
    pub(super) read: Offset,
    pub(super) read_received_ms: u64,
    /// Every record up to this one is in files.
    pub(super) sealed: Offset,
    pub(super) files: Files,
    /// Since when the reader waits for room.
    pub(super) stalled_since: Option<Instant>,
    /// Devices deleted; as many as the registry holds.
    pub(super) tombstones: HashMap<Uuid, Offset>,
    /// Those whose bytes may be in files, and how often the files were looked through since.
    pub(super) unpurged: HashMap<Uuid, u8>,
    /// Figures and damage, as the status tells them.
    pub(super) told: HistoryStatus,
    /// The reader has ended, so the head changes no more.
    pub(super) reader_ended: bool,
    /// The seal thread has ended.
    pub(super) seal_ended: bool,
    /// Queries at the read barrier.
    waiting: usize,
}

/// A generation that is being written.
pub(super) struct Sealing {
    pub(super) samples: Generation,
    /// The last offset that belongs to it, with samples or without.
    pub(super) last: Offset,
}

impl State {
    /// Begins a new generation at `next`; what was active is to be sealed. There is none that is
    /// being sealed.
    pub(super) fn turn(&mut self, next: Offset, last: Offset) {
        let spare = self.spare.take();
        let spare = spare.map(|(spare, _)| spare.beginning(next));
        let new = spare.unwrap_or_else(|| Generation::new(next));
        let full = std::mem::replace(&mut self.active, new);
        self.active_since = None;
        self.sealing = Some(Arc::new(Sealing {
            samples: full,
            last,
        }));
    }

    /// Records of the device before this offset are not to be seen.
    pub(super) fn hidden_before(&self, device: Uuid) -> Offset {
        self.tombstones.get(&device).copied().unwrap_or_default()
    }
}

impl Shared {
    /// Opens the directory; answers also the first record to read.
    pub(super) fn open(
        journal: Journal,
        options: HistoryOptions,
        tombstones: HashMap<Uuid, Offset>,
    ) -> io::Result<(Self, Offset)> {
        let opened = files::open(&options.dir, journal.first())?;
        let end = journal.durable();
        let mut from = opened.sealed.next();
        if end < opened.sealed {
            tracing::error!(
                sealed = opened.sealed.number(),
                journal_end = end.number(),
                "the journal ends before what the history has of it: it was cut or replaced; all \
                 that the history has is kept"
            );
            from = end.next();
        }
        let is_gap = journal.first() > from;
        if is_gap {
            tracing::error!(
                sealed = opened.sealed.number(),
                journal_first = journal.first().number(),
                "the journal begins behind what the history has: the records between are lost"
            );
        }
        let from = from.max(journal.first());
        let told = HistoryStatus {
            // No file of the journal is there to be named.
            damage_total: u64::from(is_gap),
            file_damage_total: u64::try_from(opened.damage.len()).unwrap_or(u64::MAX),
            file_damage: Vec::new(),
            ..HistoryStatus::default()
        };
        let state = State {
            active: Generation::new(from),
            active_since: None,
            sealing: None,
            spare: None,
            read: Offset::new(from.number().saturating_sub(1)),
            read_received_ms: 0,
            sealed: opened.sealed.min(end),
            files: opened.files,
            stalled_since: None,
            unpurged: tombstones.keys().map(|device| (*device, 0)).collect(),
            tombstones,
            told,
            reader_ended: false,
            seal_ended: false,
            waiting: 0,
        };
        let latest = Latest::new(options.latest_bytes_max);
        let shared = Self {
            hold: journal.hold(from),
            journal,
            options,
            footers: Footers::default(),
            latest,
            state: Mutex::new(state),
            commit: Mutex::new(()),
            advanced: Condvar::new(),
            asked: Condvar::new(),
            turned: Condvar::new(),
            stopping: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
        };
        for (file, what) in opened.damage {
            shared.tell_file_damage(&file, what);
        }
        Ok((shared, from))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here can panic half-way through a change, so a poisoned state is a good one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Queries end; the threads may go on.
    pub(super) fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    pub(super) fn refuse(&self) {
        self.refusing.store(true, Ordering::Relaxed);
        // Under the lock, or a query could miss it between its look and its sleep.
        drop(self.lock());
        self.advanced.notify_all();
        self.latest.wake();
    }

    /// Waits until everything durable has been read, but not long: what is left is read again
    /// after the next start.
    pub(super) fn catch_up(&self) {
        let end = Instant::now() + CATCH_UP_MAX;
        let wanted = self.journal.durable();
        let mut state = self.lock();
        while state.read < wanted && Instant::now() < end && !self.is_stopping() {
            state = self.wait_for_turn(state, Duration::from_millis(5));
        }
    }

    /// The read barrier: ends when everything up to `wanted` has been read, or when the reader has
    /// no room to read it; then the state's `read` is before `wanted`.
    pub(super) fn wait_until_read(
        &self,
        wanted: Offset,
    ) -> Result<MutexGuard<'_, State>, QueryError> {
        let deadline = Instant::now() + BARRIER_MAX;
        let mut state = self.lock();
        state.waiting += 1;
        self.asked.notify_one();
        let result = loop {
            if self.is_refusing() {
                break Err(QueryError::Stopping);
            }
            let now = Instant::now();
            let stalled = state.stalled_since;
            let has_stalled = |since: Instant| now.duration_since(since) >= STALL_MAX;
            if state.read >= wanted || stalled.is_some_and(has_stalled) {
                break Ok(());
            }
            let mut left = deadline.saturating_duration_since(now);
            if left.is_zero() {
                let read = state.read;
                break Err(QueryError::Behind { read, wanted });
            }
            if stalled.is_some() {
                left = left.min(STALL_MAX);
            }
            let waited = self.advanced.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting -= 1;
        result.map(|()| state)
    }

    /// Everything before `next` has been read: queries that wait for it go on.
    pub(super) fn advance(&self, next: Offset, received_ms: u64) {
        let mut state = self.lock();
        state.read = state.read.max(Offset::new(next.number().saturating_sub(1)));
        state.read_received_ms = state.read_received_ms.max(received_ms);
        drop(state);
        self.advanced.notify_all();
    }

    /// Lets some time pass, but no longer than until a query waits or everything stops.
    pub(super) fn pause(&self, time: Duration) {
        let state = self.lock();
        let undisturbed = |state: &mut State| state.waiting == 0 && !self.is_stopping();
        let waited = self.asked.wait_timeout_while(state, time, undisturbed);
        drop(waited);
    }

    /// Waits for a turn of the head or of the files, but not longer than `time`.
    pub(super) fn wait_for_turn<'a>(
        &self,
        state: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        let waited = self.turned.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn stop(&self) {
        self.refuse();
        self.stopping.store(true, Ordering::Relaxed);
        // Under the lock, or a thread could miss it between its look and its sleep.
        drop(self.lock());
        self.advanced.notify_all();
        self.asked.notify_all();
        self.turned.notify_all();
    }

    /// Ends when the last seal is done. After [`Self::stop`].
    pub(super) fn wait_until_closed(&self) {
        let mut state = self.lock();
        while !state.seal_ended {
            state = self.wait_for_turn(state, Duration::from_secs(1));
        }
    }

    pub(super) fn forget(&self, device: Uuid, before: Offset) {
        let mut state = self.lock();
        let hidden = state.tombstones.entry(device).or_default();
        *hidden = before.max(*hidden);
        state.unpurged.insert(device, 0);
        drop(state);
        self.latest.forget(device, before);
    }

    /// Replaces files of the list, durably, and calls `also` in the same step. The caller holds
    /// `commit`. Files that are gone are removed.
    ///
    /// # Errors
    /// What the system says; nothing has changed then.
    pub(super) fn replace_files(
        &self,
        removed: &[Arc<DataFile>],
        added: Option<Arc<DataFile>>,
        sealed: Option<Offset>,
        also: impl FnOnce(&mut State),
    ) -> io::Result<()> {
        let state = self.lock();
        let sealed = sealed.unwrap_or(state.sealed);
        let is_removed =
            |file: &Arc<DataFile>| removed.iter().any(|removed| Arc::ptr_eq(removed, file));
        let mut files: Vec<_> = state.files.iter().cloned().collect();
        drop(state);
        files.retain(|file| !is_removed(file));
        files.extend(added);
        files.sort_by_key(|file| file.entry.offsets());
        let manifest = Manifest {
            sealed: sealed.number(),
            files: files.iter().map(|file| file.entry.clone()).collect(),
            ..Manifest::empty()
        };
        manifest.save(&self.options.dir)?;
        self.options.step("the manifest is replaced");
        let mut state = self.lock();
        state.files = Arc::new(files);
        state.sealed = sealed;
        also(&mut state);
        drop(state);
        self.turned.notify_all();
        for file in removed {
            self.footers.forget(file);
            // Left over it is removed at the next start; readers that have it open go on.
            if let Err(error) = std::fs::remove_file(&file.path) {
                let file = file.path.display();
                tracing::warn!(%file, %error, "an old file of the history stays");
            }
        }
        Ok(())
    }

    /// Notes damage of the journal and tells the operator; each place once, whoever meets it.
    pub(super) fn report(&self, damage: &Damage) {
        let mut state = self.lock();
        let same = |known: &Damage| known.file == damage.file && known.position == damage.position;
        if state.told.damage.iter().any(same) {
            return;
        }
        state.told.damage_total += 1;
        let kept = state.told.damage.len() < DAMAGE_KEPT_MAX;
        if kept {
            state.told.damage.push(damage.clone());
        }
        drop(state);
        if kept {
            tracing::warn!(
                file = %damage.file.display(),
                position = damage.position,
                first = damage.first.number(),
                next = damage.next.number(),
                what = %damage.what,
                "the journal is damaged; the records before `next` are lost, all others are served"
            );
        }
    }

    /// Notes that a file is damaged; once a file.
    pub(super) fn report_file(&self, file: &DataFile, error: &FileError) {
        if file.is_damaged.swap(true, Ordering::Relaxed) {
            return;
        }
        self.lock().told.file_damage_total += 1;
        let what = match error {
            FileError::Damaged { what, .. } => what.clone(),
            FileError::Open { source, .. } => source.to_string(),
        };
        self.tell_file_damage(&file.path, what);
    }

    fn tell_file_damage(&self, file: &Path, what: String) {
        tracing::error!(
            file = %file.display(),
            what,
            "a file of the history is damaged; what can be read of it and all others are served"
        );
        let damage = FileDamage {
            file: PathBuf::from(file),
            what,
        };
        let mut state = self.lock();
        if state.told.file_damage.len() < DAMAGE_KEPT_MAX {
            state.told.file_damage.push(damage);
        }
    }

    pub(super) fn status(&self) -> HistoryStatus {
        let latest = self.latest.usage();
        let state = self.lock();
        let sealing = state.sealing.as_ref();
        let first = sealing.map_or(state.active.first(), |sealing| sealing.samples.first());
        HistoryStatus {
            read: state.read,
            read_received_ms: state.read_received_ms,
            sealed: state.sealed,
            head_first: first,
            head_bytes: state.active.bytes()
                + sealing.map_or(0, |sealing| sealing.samples.bytes())
                + state.spare.as_ref().map_or(0, |(spare, _)| spare.bytes()),
            files: state.files.len(),
            file_bytes: state.files.iter().map(|file| file.entry.bytes).sum(),
            file_rows: state.files.iter().map(|file| file.entry.rows).sum(),
            unpurged: state.unpurged.len(),
            latest_bytes: latest.0,
            latest_evictions: latest.1,
            ..state.told.clone()
        }
    }
}
