//! The index of retained messages: the last message of each topic, kept for who comes later.
//!
//! An ordered map in byte order of the topics, behind one lock. A SUBSCRIBE without wildcards is a
//! look-up; one with wildcards is a [`Cursor`] that walks the topics which share the filter's
//! beginning, jumps over whole branches that cannot match, and stops after a fixed amount of work:
//! `#` over a million messages is many short steps, between which a worker does other things and
//! others write.
//!
//! - **Cost.** A change or look-up is O(log n). A walk costs O(matches + branches that `+` opens),
//!   each step at most [`STEP_COST_MAX`] units under the read lock.
//! - **Limits.** Messages and bytes, of all and of each publisher (SEC-41); beyond them a message
//!   is refused with the limit's name, and what is retained stays as it was. Replacing by
//!   something not larger and clearing always work. Nothing is evicted.
//! - **Expiry.** An expired message is never found. It keeps its place until a [`Sweep`] passes.
//! - **Order.** Every message has its journal offset. Of two for one topic the later one stays,
//!   in whatever order they come; a clear leaves no trace, so clears and sets of one topic must
//!   come in order of offset.
//! - **Memory.** About 200 bytes for a message beside topic and body; bodies are shared.
//!   Reading many back is quickest in order of topic.
//! - **Not here:** who may read (the gate asks at every delivery), how it is sent, the disk.

mod limits;
mod scan;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use uuid::Uuid;

use crate::mqtt::topic::{Filter, FilterBuf, Topic};
use crate::mqtt::wire::QoS;

pub use limits::{RetainedFull, RetainedLimits};

/// Work of one step of a walk: a topic looked at costs 1, a jump [`JUMP_COST`]. 20 µs, and 0.1 ms
/// where nothing is in the caches: `retained_one_step_of_all` in benches/tree.rs.
pub const STEP_COST_MAX: usize = 256;

/// A jump searches from the root of the map: as much as looking at so many topics.
const JUMP_COST: usize = 8;

/// Topics in a row without a match that are walked over before a jump is tried.
const WALK_BEFORE_JUMP: usize = 4;

/// The last message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Who published it: the message goes when this identity does.
    pub publisher: Uuid,
    /// With which credential; the gate refuses the message once it has ended.
    pub credential: u64,
    /// The generation of the identity then.
    pub generation: u32,
    /// The QoS it was published with.
    pub qos: QoS,
    /// Its record in the journal.
    pub offset: u64,
    /// When it arrived, Unix time in milliseconds: what counts down its expiry.
    pub received_ms: u64,
    /// When it ends, Unix time in milliseconds; `None` is never.
    pub expires_ms: Option<u64>,
    /// Bytes of `body` that are properties, before the payload.
    pub properties_bytes: u32,
    /// Properties as they are sent, then the payload. Not empty: an empty payload clears.
    pub body: Bytes,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The topic's first.
    New,
    /// It took the place of an earlier one.
    Replaced,
    /// A later one, by its offset, is there already.
    Outdated,
}

/// A retained message that a walk found.
#[derive(Clone, Debug)]
pub struct Found {
    /// A valid topic name.
    pub topic: Arc<str>,
    /// Its message.
    pub message: Arc<Retained>,
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
    before_offset: u64,
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
    /// Bytes of their topics and bodies.
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
    messages: BTreeMap<Arc<str>, Arc<Retained>>,
    total: Usage,
    by_publisher: HashMap<Uuid, Usage>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    messages: usize,
    bytes: usize,
}

impl Cursor {
    /// A walk over all topics that the filter matches. Messages with an offset from
    /// `before_offset` on are left out: they came after the subscription, which delivered them.
    #[must_use]
    pub fn new(filter: Filter<'_>, before_offset: u64) -> Cursor {
        let mut next = String::new();
        scan::begin(filter, &mut next);
        Cursor {
            filter: filter.into(),
            before_offset,
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

impl Retained {
    fn is_alive(&self, now_ms: u64) -> bool {
        self.expires_ms.is_none_or(|expires| expires > now_ms)
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

    /// Keeps a message as its topic's last.
    ///
    /// # Errors
    /// A limit that it would pass; what was retained stays.
    pub fn set(&self, topic: Topic<'_>, message: Retained) -> Result<Kept, RetainedFull> {
        let topic = topic.as_str();
        let message = Arc::new(message);
        let mut state = self.write();
        let old = state.messages.get(topic);
        if old.is_some_and(|old| old.offset > message.offset) {
            return Ok(Kept::Outdated);
        }
        let old = old.map(|old| (old.publisher, size(topic, old)));
        self.check(&state, &message, size(topic, &message), old)?;
        if let Some((publisher, bytes)) = old {
            state.count_out(publisher, bytes);
        }
        state.count_in(message.publisher, size(topic, &message));
        let replaced = match state.messages.get_mut(topic) {
            Some(place) => Some(std::mem::replace(place, message)),
            None => state.messages.insert(topic.into(), message),
        };
        drop(state); // the old body is freed without the lock
        Ok(match replaced {
            Some(_) => Kept::Replaced,
            None => Kept::New,
        })
    }

    /// Removes the topic's message, unless it is later than `offset`, the record that clears it.
    /// True if one went.
    pub fn clear(&self, topic: Topic<'_>, offset: u64) -> bool {
        let mut state = self.write();
        let is_earlier = |held: &Arc<Retained>| held.offset <= offset;
        if !state.messages.get(topic.as_str()).is_some_and(is_earlier) {
            return false;
        }
        let old = state.remove(topic.as_str());
        drop(state); // the old body is freed without the lock
        old.is_some()
    }

    /// The message of one topic, unless it has expired.
    #[must_use]
    pub fn get(&self, topic: Topic<'_>, now_ms: u64) -> Option<Arc<Retained>> {
        let state = self.read();
        let held = state.messages.get(topic.as_str())?;
        held.is_alive(now_ms).then(|| Arc::clone(held))
    }

    /// Appends what one step of a walk finds, at most [`STEP_COST_MAX`] messages, in byte order of
    /// the topics.
    pub fn step(&self, cursor: &mut Cursor, now_ms: u64, found: &mut Vec<Found>) -> Progress {
        let Some(next) = cursor.next.take() else {
            return Progress::Done;
        };
        let filter = cursor.filter.as_filter();
        let mut walk = Walk {
            filter,
            before_offset: cursor.before_offset,
            now_ms,
            next,
            spare: std::mem::take(&mut cursor.spare),
            budget: STEP_COST_MAX,
        };
        let state = self.read();
        let progress = if filter.has_wildcard() {
            walk.run(&state, found)
        } else {
            let held = state.messages.get_key_value(filter.matched());
            if let Some((topic, message)) = held {
                walk.emit(topic, message, found);
            }
            Progress::Done
        };
        drop(state);
        if progress == Progress::More {
            cursor.next = Some(walk.next);
        }
        cursor.spare = walk.spare;
        progress
    }

    /// Removes expired messages: one step of a pass over everything. Returns how many went.
    pub fn sweep_expired(&self, sweep: &mut Sweep, now_ms: u64) -> (usize, Progress) {
        self.sweep(sweep, |message| !message.is_alive(now_ms))
    }

    /// Removes the messages of a publisher whose right ended (SEC-35): one step. Returns how many
    /// went; it is over at once when none of its messages are left. The caller lets in no more of
    /// them first, or passes again until the first step is over at once.
    pub fn sweep_publisher(&self, sweep: &mut Sweep, publisher: Uuid) -> (usize, Progress) {
        if !self.read().by_publisher.contains_key(&publisher) {
            return (0, Progress::Done);
        }
        self.sweep(sweep, |message| message.publisher == publisher)
    }

    /// The size now.
    #[must_use]
    pub fn figures(&self) -> RetainedFigures {
        let total = self.read().total;
        RetainedFigures {
            messages: total.messages,
            bytes: total.bytes,
        }
    }

    fn sweep(&self, sweep: &mut Sweep, ends: impl Fn(&Retained) -> bool) -> (usize, Progress) {
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
        ends: impl Fn(&Retained) -> bool,
    ) -> (Vec<Arc<str>>, Progress) {
        let mut ended = Vec::new();
        let mut last = None;
        let state = self.read();
        let from = (Bound::Included(sweep.next.as_str()), Bound::Unbounded);
        for (topic, message) in state.messages.range::<str, _>(from).take(STEP_COST_MAX) {
            if ends(message) {
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
    fn remove_ended(&self, topics: &[Arc<str>], ends: impl Fn(&Retained) -> bool) -> usize {
        let mut removed = Vec::with_capacity(topics.len());
        let mut state = self.write();
        for topic in topics {
            if state.messages.get(topic).is_some_and(|held| ends(held)) {
                removed.extend(state.remove(topic));
            }
        }
        drop(state);
        removed.len() // the bodies are freed without the lock
    }

    /// Whether the message fits, `old` being the publisher and size of what it would replace.
    fn check(
        &self,
        state: &State,
        message: &Retained,
        bytes: usize,
        old: Option<(Uuid, usize)>,
    ) -> Result<(), RetainedFull> {
        let freed = old.map_or(0, |(_, bytes)| bytes);
        if old.is_none() && state.total.messages >= self.limits.messages_max {
            return Err(RetainedFull::Messages(state.total.messages));
        }
        let total = state.total.bytes - freed + bytes;
        if total > self.limits.bytes_max && bytes > freed {
            return Err(RetainedFull::Bytes(total));
        }
        let usage = state.by_publisher.get(&message.publisher);
        let usage = usage.copied().unwrap_or_default();
        let own = old.filter(|(publisher, _)| *publisher == message.publisher);
        let freed = own.map_or(0, |(_, bytes)| bytes);
        if own.is_none() && usage.messages >= self.limits.publisher_messages_max {
            return Err(RetainedFull::PublisherMessages(usage.messages));
        }
        let total = usage.bytes - freed + bytes;
        if total > self.limits.publisher_bytes_max && bytes > freed {
            return Err(RetainedFull::PublisherBytes(total));
        }
        Ok(())
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
    fn remove(&mut self, topic: &str) -> Option<(Arc<str>, Arc<Retained>)> {
        let (topic, old) = self.messages.remove_entry(topic)?;
        self.count_out(old.publisher, size(&topic, &old));
        Some((topic, old))
    }

    fn count_in(&mut self, publisher: Uuid, bytes: usize) {
        let usage = self.by_publisher.entry(publisher).or_default();
        for usage in [&mut self.total, usage] {
            usage.messages += 1;
            usage.bytes += bytes;
        }
    }

    fn count_out(&mut self, publisher: Uuid, bytes: usize) {
        self.total.messages -= 1;
        self.total.bytes -= bytes;
        if let Some(usage) = self.by_publisher.get_mut(&publisher) {
            usage.messages -= 1;
            usage.bytes -= bytes;
            if usage.messages == 0 {
                self.by_publisher.remove(&publisher);
            }
        }
    }
}

/// One step of a walk.
struct Walk<'a> {
    filter: Filter<'a>,
    before_offset: u64,
    now_ms: u64,
    next: String,
    spare: String,
    budget: usize,
}

impl Walk<'_> {
    fn run(&mut self, state: &State, found: &mut Vec<Found>) -> Progress {
        while let Some(left) = self.budget.checked_sub(JUMP_COST) {
            self.budget = left;
            if !self.stretch(state, found) {
                return Progress::Done;
            }
        }
        Progress::More
    }

    /// Walks from `next` until a jump pays or the budget ends, and puts `next` there. False when
    /// nothing behind it can match.
    fn stretch(&mut self, state: &State, found: &mut Vec<Found>) -> bool {
        let from = (Bound::Included(self.next.as_str()), Bound::Unbounded);
        let mut misses = 0;
        // The last topic that was looked at, and whether it was matched.
        let mut last = None;
        for (topic, message) in state.messages.range::<str, _>(from) {
            let is_match = Topic::new(topic).is_ok_and(|topic| self.filter.matches(topic));
            if is_match {
                self.emit(topic, message, found);
                misses = 0;
            } else {
                misses += 1;
            }
            last = Some((topic, is_match));
            self.budget = self.budget.saturating_sub(1);
            if self.budget == 0 || misses > WALK_BEFORE_JUMP {
                break;
            }
        }
        match last {
            None => return false,
            Some((topic, true)) => scan::follow(topic, &mut self.spare),
            Some((topic, false)) => {
                if !scan::skip(self.filter, topic, &mut self.spare) {
                    return false;
                }
            }
        }
        std::mem::swap(&mut self.next, &mut self.spare);
        true
    }

    fn emit(&self, topic: &Arc<str>, message: &Arc<Retained>, found: &mut Vec<Found>) {
        if message.offset < self.before_offset && message.is_alive(self.now_ms) {
            found.push(Found {
                topic: Arc::clone(topic),
                message: Arc::clone(message),
            });
        }
    }
}

fn size(topic: &str, message: &Retained) -> usize {
    topic.len() + message.body.len()
}

#[cfg(test)]
mod tests;
