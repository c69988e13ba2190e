//! A session's subscription in twelve bytes: as the tree keeps it, and as a match yields it.

use std::fmt;

use crate::mqtt::wire::{QoS, SubscriptionOptions};

/// Workers the tree can tell apart; `workers.count` goes as far.
pub const WORKERS_MAX: u16 = 1_024;

/// Largest subscription identifier (MQTT 5 section 3.8.2.1.2).
pub const SUBSCRIPTION_ID_MAX: u32 = 268_435_455;

const QOS_MASK: u16 = 0b11;
const NO_LOCAL: u16 = 1 << 2;
const RETAIN_AS_PUBLISHED: u16 = 1 << 3;
/// `id` is a place in the list of identifiers that belongs to the match.
const SEVERAL_IDS: u16 = 1 << 4;
/// Only kept up to date for members of a share group.
const CONNECTED: u16 = 1 << 5;
/// The mark of a session that is kept in the journal: its slot is its number there.
const DURABLE: u16 = 1 << 15;
/// The worker stands above the marks.
const WORKER_SHIFT: u32 = 6;

const _: () =
    assert!(size_of::<Delivery>() == 12 && WORKERS_MAX as u32 <= 1 << (16 - WORKER_SHIFT));

/// Where a session lives. Ordered by worker, then slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber {
    worker: u16,
    slot: u32,
    generation: u16,
}

impl Subscriber {
    /// The session in `slot` of its home worker. `generation` is the worker's own mark against a
    /// slot that was given to another session while a delivery was under way.
    ///
    /// `None` when `worker` is not below [`WORKERS_MAX`].
    #[must_use]
    pub const fn new(worker: u16, slot: u32, generation: u16) -> Option<Subscriber> {
        if worker >= WORKERS_MAX {
            return None;
        }
        Some(Subscriber {
            worker,
            slot,
            generation,
        })
    }

    /// A session that is kept in the journal under this number.
    #[must_use]
    pub const fn durable(worker: u16, number: u32) -> Option<Subscriber> {
        Subscriber::new(worker, number, DURABLE)
    }

    /// A session that ends with its connection, in this slot.
    #[must_use]
    pub const fn transient(worker: u16, slot: u32, generation: u32) -> Option<Subscriber> {
        Subscriber::new(worker, slot, Subscriber::mark(generation))
    }

    /// What a connection's generation is as a mark: its lower 15 bits.
    #[must_use]
    pub const fn mark(generation: u32) -> u16 {
        let [low, high, ..] = generation.to_le_bytes();
        u16::from_le_bytes([low, high]) & (DURABLE - 1)
    }

    /// The number of a session that is kept in the journal; `None` for one that is not.
    #[must_use]
    pub const fn number(self) -> Option<u32> {
        match self.generation {
            DURABLE => Some(self.slot),
            _ => None,
        }
    }

    /// The home worker, below [`WORKERS_MAX`].
    #[must_use]
    pub const fn worker(self) -> u16 {
        self.worker
    }

    /// The session's slot on that worker.
    #[must_use]
    pub const fn slot(self) -> u32 {
        self.slot
    }

    /// The mark against a reused slot.
    #[must_use]
    pub const fn generation(self) -> u16 {
        self.generation
    }

    /// Order and identity of a subscriber as one number.
    pub(super) const fn key(self) -> u64 {
        (self.worker as u64) << 48 | (self.slot as u64) << 16 | self.generation as u64
    }
}

/// One copy of a message for one session: who, and how it is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    slot: u32,
    /// The subscription identifier, 0 for none.
    pub(super) id: u32,
    generation: u16,
    /// Worker and marks.
    place: u16,
}

impl Delivery {
    pub(super) fn new(to: Subscriber, options: SubscriptionOptions, id: Option<u32>) -> Delivery {
        let mut place = to.worker << WORKER_SHIFT | u16::from(options.qos.as_u8());
        if options.no_local {
            place |= NO_LOCAL;
        }
        if options.retain_as_published {
            place |= RETAIN_AS_PUBLISHED;
        }
        Delivery {
            slot: to.slot,
            id: id.unwrap_or(0),
            generation: to.generation,
            place,
        }
    }

    /// Who it is for.
    #[must_use]
    pub const fn subscriber(&self) -> Subscriber {
        Subscriber {
            worker: self.worker(),
            slot: self.slot,
            generation: self.generation,
        }
    }

    /// The home worker of the session.
    #[must_use]
    pub const fn worker(&self) -> u16 {
        self.place >> WORKER_SHIFT
    }

    /// The session's slot on that worker.
    #[must_use]
    pub const fn slot(&self) -> u32 {
        self.slot
    }

    /// The subscription identifier of a member of a share group, or of any subscription that is
    /// alone.
    #[must_use]
    pub const fn id(&self) -> Option<u32> {
        if self.place & SEVERAL_IDS != 0 || self.id == 0 {
            return None;
        }
        Some(self.id)
    }

    /// The highest QoS among the matching subscriptions [MQTT-3.3.4-2]; the message is sent with
    /// the lower one of this and its own.
    #[must_use]
    pub fn qos(&self) -> QoS {
        match self.place & QOS_MASK {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        }
    }

    /// Whether the publisher's Retain flag is kept.
    #[must_use]
    pub const fn retain_as_published(&self) -> bool {
        self.place & RETAIN_AS_PUBLISHED != 0
    }

    /// Whether the session has a connection, as far as the tree was told. Only meaningful for
    /// members of a share group.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.place & CONNECTED != 0
    }

    pub(super) const fn no_local(&self) -> bool {
        self.place & NO_LOCAL != 0
    }

    pub(super) const fn key(&self) -> u64 {
        self.subscriber().key()
    }

    pub(super) const fn connected(self, is_connected: bool) -> Delivery {
        let place = if is_connected {
            self.place | CONNECTED
        } else {
            self.place & !CONNECTED
        };
        Delivery { place, ..self }
    }

    /// What the session asked for. Retain Handling is not kept: it only counts at SUBSCRIBE.
    pub(super) fn options(&self) -> SubscriptionOptions {
        SubscriptionOptions {
            qos: self.qos(),
            no_local: self.no_local(),
            retain_as_published: self.retain_as_published(),
            ..SubscriptionOptions::default()
        }
    }

    /// The identifiers: one of its own, or a list in `lists`.
    pub(super) fn ids<'a>(&'a self, lists: &'a [u32]) -> &'a [u32] {
        if self.place & SEVERAL_IDS == 0 {
            return match self.id {
                0 => &[],
                _ => std::slice::from_ref(&self.id),
            };
        }
        let list = usize::try_from(self.id).ok().and_then(|at| lists.get(at..));
        let Some((count, ids)) = list.and_then(|list| list.split_first()) else {
            return &[];
        };
        let count = usize::try_from(*count).unwrap_or(0);
        ids.get(..count).unwrap_or(ids)
    }

    /// Two subscriptions of one session as one delivery: the highest QoS, all identifiers, also
    /// equal ones (MQTT 5 section 3.3.4), and the Retain flag if one of them keeps it. A list
    /// that becomes necessary is appended to `lists`.
    pub(super) fn merged(self, other: Delivery, lists: &mut Vec<u32>) -> Delivery {
        let qos = (self.place & QOS_MASK).max(other.place & QOS_MASK);
        let marks = (self.place | other.place) & (RETAIN_AS_PUBLISHED | CONNECTED);
        let mut place = self.worker() << WORKER_SHIFT | marks | qos;
        let (mine, others) = (self.ids(lists).len(), other.ids(lists).len());
        let id = match (mine, others) {
            (0, 0) => 0,
            (_, 0) => {
                place |= self.place & SEVERAL_IDS;
                self.id
            }
            (0, _) => {
                place |= other.place & SEVERAL_IDS;
                other.id
            }
            _ => {
                let start = u32::try_from(lists.len()).unwrap_or(u32::MAX);
                lists.push(u32::try_from(mine + others).unwrap_or(u32::MAX));
                self.append_ids(lists);
                other.append_ids(lists);
                place |= SEVERAL_IDS;
                start
            }
        };
        Delivery { id, place, ..self }
    }

    fn append_ids(&self, lists: &mut Vec<u32>) {
        if self.place & SEVERAL_IDS == 0 {
            lists.push(self.id);
            return;
        }
        let count = self.ids(lists).len();
        let start = usize::try_from(self.id).map_or(usize::MAX, |at| at.saturating_add(1));
        lists.extend_from_within(start..start.saturating_add(count));
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("subscriber", &self.subscriber())
            .field("qos", &self.qos())
            .field("no_local", &self.no_local())
            .field("retain_as_published", &self.retain_as_published())
            .field("has_several_ids", &(self.place & SEVERAL_IDS != 0))
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
