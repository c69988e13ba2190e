//! The index of retained messages: the last message of each topic, kept for who comes later.
//!
//! An ordered map in byte order of the topics, behind one lock. A SUBSCRIBE without wildcards is a
//! look-up; one with wildcards is a [`Cursor`] that walks the topics which share the filter's
//! beginning, jumps over whole branches that cannot match, and stops after a fixed amount of work:
//! `#` over a million messages is many short steps, between which a worker does other things and
//! others write.
//!
//! - **Two steps.** A message is *admitted* when it comes in, against the limits, and *applied*
//!   when its record is durable and it has an offset. In between it counts and is not seen.
//! - **Order.** What is seen is what the journal says, whichever worker applies first: of two
//!   messages for one topic the later offset stays, and a clear leaves a mark until every worker
//!   has applied what stands before it ([`Applier`], `order.rs`). So nothing that is seen differs
//!   from what a restart shows.
//! - **Limits.** Messages and bytes, of all and of each publisher (SEC-41); beyond them a message
//!   is refused with the limit's name, and what is retained stays as it was. Replacing by
//!   something not larger and clearing always work. Nothing is evicted.
//! - **Cost.** A change or look-up is O(log n). A walk costs O(matches + branches that `+` opens),
//!   each step at most [`STEP_COST_MAX`] units under the read lock.
//! - **Expiry.** An expired message is never found. It keeps its place until a [`Sweep`] passes.
//! - **Revoked publishers.** Their messages are not found from the moment on at which
//!   [`RetainedIndex::end_publisher`] is told, and keep their place until a sweep passes.
//! - **Memory.** About 300 bytes for a message beside topic (twice) and content, which is shared
//!   with whoever is being sent it. Reading many back is quickest in order of topic.
//! - **Not here:** who may read (the gate asks at every delivery), how it is sent, the disk.

mod accounts;
mod limits;
mod order;
mod scan;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::mqtt::message::Message;
use crate::mqtt::topic::{Filter, FilterBuf, Topic};

use accounts::{Accounts, Size};
use order::Marks;
use walk::Walk;

pub use limits::{RetainedFull, RetainedLimits};
pub use order::{Applier, MARKS_MAX};
pub use walk::STEP_COST_MAX;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The topic's first.
    New,
    /// It took the place of an earlier one.
    Replaced,
    /// It cleared an earlier one, or there was none.
    Cleared,
    /// A later one or a later clear, by its offset, is there already.
    Outdated,
}

/// A retained message that a walk found.
#[derive(Clone, Debug)]
pub struct Found {
    /// A valid topic name.
    pub topic: Arc<str>,
    /// Its message.
    pub message: Arc<Message>,
    /// The message's record in the journal.
    pub offset: u64,
}

/// Whether a walk is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more: step again.
    More,
    /// Everything was seen.
    Done,
}

/// Where a walk for one filter stands. It holds no lock and stays valid whatever changes: what is
/// added behind it is found, what is removed is not.
#[derive(Debug)]
pub struct Cursor {
    filter: FilterBuf,
    before_serial: u64,
    /// The walk goes on with the first topic that is not below this; `None` when it is over.
    next: Option<String>,
    spare: String,
}

/// Where a pass over everything stands; begins anew when it is over.
#[derive(Debug, Default)]
pub struct Sweep {
    next: String,
}

/// The size of the index, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetainedFigures {
    /// Topics with a message, expired ones included until they are swept.
    pub messages: usize,
    /// Bytes of their topics, properties and payloads; with those that are on their way.
    pub bytes: usize,
}

/// All retained messages. See the module's page.
#[derive(Debug)]
pub struct RetainedIndex {
    limits: RetainedLimits,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: BTreeMap<Arc<str>, Held>,
    accounts: Accounts,
    marks: Marks,
    /// Publishers whose state was dropped, with the first generation that counts again. One entry
    /// (about 40 bytes) for each since the process began.
    ended: HashMap<u128, u32>,
}

/// The last message of a topic.
#[derive(Clone, Debug)]
struct Held {
    message: Arc<Message>,
    offset: u64,
    /// See [`RetainedIndex::apply`].
    serial: u64,
}

impl Cursor {
    /// A walk over all topics that the filter matches. Messages with a serial from
    /// `before_serial` on are left out: they came after the subscription, which delivered them.
    #[must_use]
    pub fn new(filter: Filter<'_>, before_serial: u64) -> Cursor {
        let mut next = String::new();
        scan::begin(filter, &mut next);
        Cursor {
            filter: filter.into(),
            before_serial,
            next: Some(next),
            spare: String::new(),
        }
    }

    /// The filter.
    #[must_use]
    pub fn filter(&self) -> Filter<'_> {
        self.filter.as_filter()
    }
}

impl RetainedIndex {
    /// An empty index.
    #[must_use]
    pub fn new(limits: RetainedLimits) -> RetainedIndex {
        RetainedIndex {
            limits,
            state: RwLock::default(),
        }
    }

    /// A worker's mark of how far it has applied what it wrote. Every worker that applies has one.
    #[must_use]
    pub fn applier(&self) -> Applier {
        self.write().marks.applier()
    }

    /// Lets a message in that is to be retained, before it is recorded; without a payload it is a
    /// clear, which is always let in. It counts from now on; [`RetainedIndex::apply`] or
    /// [`RetainedIndex::withdraw`] must follow.
    ///
    /// # Errors
    /// A limit that it would pass; nothing changed.
    pub fn admit(&self, message: &Message) -> Result<(), RetainedFull> {
        let (topic, size) = (message.topic().as_str(), Size::of(message));
        let state = &mut *self.write();
        let before = state.size_of(topic);
        state.accounts.admit(topic, before, size, &self.limits)
    }

    /// Takes back what was admitted and could not be recorded.
    pub fn withdraw(&self, message: &Message) {
        let state = &mut *self.write();
        let topic = message.topic().as_str();
        let seen = state.seen_size(topic);
        state.accounts.settle(topic, seen);
    }

    /// Takes a message whose record is durable at `offset`: it is its topic's last from now on;
    /// without a payload the topic has none. What comes too late, or from a publisher whose rights
    /// ended, is not kept. `serial` says when it was matched: walks that began before leave it out
    /// ([`Cursor::new`]); 0 for what was there at the start.
    pub fn apply(&self, message: &Arc<Message>, offset: u64, serial: u64) -> Kept {
        let text = message.topic().as_str();
        let mut guard = self.write();
        let state = &mut *guard;
        let held = state.messages.get(text);
        let before = held.and_then(|held| Size::of(&held.message));
        let is_late =
            held.is_some_and(|held| held.offset > offset) || state.marks.is_cleared(text, offset);
        let is_clear = message.content().payload().is_empty() || state.is_dead(message);
        let (kept, old, after) = match (is_late, is_clear) {
            (true, _) => (Kept::Outdated, None, before),
            (false, true) => {
                state.marks.clear(text, offset);
                (Kept::Cleared, state.messages.remove(text), None)
            }
            (false, false) => {
                let held = Held {
                    message: Arc::clone(message),
                    offset,
                    serial,
                };
                let (kept, old) = state.put(text, held);
                (kept, old, Size::of(message))
            }
        };
        state.accounts.applied(text, before, after);
        drop(guard);
        drop(old); // without the lock
        kept
    }

    /// The message of one topic, unless it has expired.
    #[must_use]
    pub fn get(&self, topic: Topic<'_>, now_ms: u64) -> Option<Arc<Message>> {
        let state = self.read();
        let held = state.messages.get(topic.as_str())?;
        let is_found = state.is_found(&held.message, now_ms);
        is_found.then(|| Arc::clone(&held.message))
    }

    /// Appends what one step of a walk finds, at most [`STEP_COST_MAX`] messages, in byte order of
    /// the topics.
    pub fn step(&self, cursor: &mut Cursor, now_ms: u64, found: &mut Vec<Found>) -> Progress {
        let Some(next) = cursor.next.take() else {
            return Progress::Done;
        };
        let filter = cursor.filter.as_filter();
        let spare = std::mem::take(&mut cursor.spare);
        let mut walk = Walk::new(filter, cursor.before_serial, now_ms, next, spare);
        let state = self.read();
        let progress = if filter.has_wildcard() {
            walk.run(&state, found)
        } else {
            walk.look_up(&state, found);
            Progress::Done
        };
        drop(state);
        let (next, spare) = walk.into_places();
        if progress == Progress::More {
            cursor.next = Some(next);
        }
        cursor.spare = spare;
        progress
    }

    /// Removes expired messages: one step of a pass over everything. Returns how many went.
    pub fn sweep_expired(&self, sweep: &mut Sweep, now_ms: u64) -> (usize, Progress) {
        self.sweep(sweep, |_, message| message.is_expired(now_ms))
    }

    /// Messages of one publisher that are retained, or on their way to it.
    #[must_use]
    pub fn messages_of(&self, publisher: u128) -> usize {
        self.read().accounts.messages_of(publisher)
    }

    /// From now on nothing is found that this publisher retained with a generation below
    /// `generation` (SEC-35), and none of its messages that are on their way is kept. Returns how
    /// many there were; [`RetainedIndex::sweep_publisher`] gives their memory back.
    pub fn end_publisher(&self, publisher: u128, generation: u32) -> usize {
        let state = &mut *self.write();
        let first = state.ended.entry(publisher).or_default();
        *first = generation.max(*first);
        state.accounts.messages_of(publisher)
    }

    /// Removes the messages of a publisher that ended: one step. Returns how many went.
    pub fn sweep_publisher(&self, sweep: &mut Sweep, publisher: u128) -> (usize, Progress) {
        if self.read().accounts.messages_of(publisher) == 0 {
            return (0, Progress::Done);
        }
        self.sweep(sweep, |state, message| {
            message.publisher().identity == publisher && state.is_dead(message)
        })
    }

    /// The size now.
    #[must_use]
    pub fn figures(&self) -> RetainedFigures {
        let state = self.read();
        RetainedFigures {
            messages: state.messages.len(),
            bytes: state.accounts.bytes(),
        }
    }

    /// Clears that are remembered until every worker has applied what stands before them.
    #[must_use]
    pub fn marks(&self) -> usize {
        self.read().marks.len()
    }

    fn sweep(
        &self,
        sweep: &mut Sweep,
        ends: impl Fn(&State, &Message) -> bool,
    ) -> (usize, Progress) {
        let (ended, progress) = self.find_ended(sweep, &ends);
        let count = match ended.is_empty() {
            true => 0,
            false => self.remove_ended(&ended, &ends),
        };
        (count, progress)
    }

    /// The topics of one step whose message ends.
    fn find_ended(
        &self,
        sweep: &mut Sweep,
        ends: impl Fn(&State, &Message) -> bool,
    ) -> (Vec<Arc<str>>, Progress) {
        let mut ended = Vec::new();
        let mut last = None;
        let state = self.read();
        let from = (Bound::Included(sweep.next.as_str()), Bound::Unbounded);
        for (topic, held) in state.messages.range::<str, _>(from).take(STEP_COST_MAX) {
            if ends(&state, &held.message) {
                ended.push(Arc::clone(topic));
            }
            last = Some(topic);
        }
        let Some(last) = last else {
            sweep.next.clear();
            return (ended, Progress::Done);
        };
        scan::follow(last, &mut sweep.next);
        (ended, Progress::More)
    }

    /// Removes the messages of these topics, but for those that were replaced by one that stays.
    fn remove_ended(&self, topics: &[Arc<str>], ends: impl Fn(&State, &Message) -> bool) -> usize {
        let mut removed = Vec::with_capacity(topics.len());
        let mut guard = self.write();
        let state = &mut *guard;
        for topic in topics {
            let Some(held) = state.messages.get(topic) else {
                continue;
            };
            if !ends(state, &held.message) {
                continue;
            }
            // One that is earlier in the journal must not come after it.
            let (before, offset) = (Size::of(&held.message), held.offset);
            state.marks.clear(topic, offset);
            state.accounts.applied_unbooked(topic, before);
            removed.extend(state.messages.remove(topic));
        }
        drop(guard);
        removed.len() // they are freed without the lock
    }

    /// A std lock: nothing awaits while it is held, and writers are not starved by readers.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn put(&mut self, topic: &str, held: Held) -> (Kept, Option<Held>) {
        match self.messages.get_mut(topic) {
            Some(place) => (Kept::Replaced, Some(std::mem::replace(place, held))),
            None => (Kept::New, self.messages.insert(topic.into(), held)),
        }
    }

    fn is_found(&self, message: &Message, now_ms: u64) -> bool {
        !message.is_expired(now_ms) && !self.is_dead(message)
    }

    /// The publisher's rights ended after it published.
    fn is_dead(&self, message: &Message) -> bool {
        let publisher = message.publisher();
        let first = self.ended.get(&publisher.identity);
        first.is_some_and(|first| publisher.generation < *first)
    }

    /// What the topic's message takes, as far as it is seen.
    fn seen_size(&self, topic: &str) -> Option<Size> {
        let held = self.messages.get(topic)?;
        Size::of(&held.message)
    }

    /// What the topic counts for.
    fn size_of(&self, topic: &str) -> Option<Size> {
        let booked = self.accounts.booked(topic);
        booked.unwrap_or_else(|| self.seen_size(topic))
    }
}

#[cfg(test)]
mod tests;
