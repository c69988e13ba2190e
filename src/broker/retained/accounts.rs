//! What retained messages take, of all and of each publisher, from the moment they are admitted.
//!
//! A topic counts for the message that was admitted last, as long as changes of it are on their
//! way; then for the one that is seen. So a burst is held to the limits although nothing of it is
//! applied yet.
//!
//! Invariant: the sums are those of all topics, each with its booking, or without one with what is
//! seen.

use std::collections::HashMap;

use super::limits::{RetainedFull, RetainedLimits};
use crate::mqtt::message::Message;

/// What a message counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    publisher: u128,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    messages: usize,
    bytes: usize,
}

/// A topic with changes on their way. As many as fit into the batches that are.
#[derive(Debug)]
struct Booked {
    changes: u32,
    size: Option<Size>,
}

#[derive(Debug, Default)]
pub(super) struct Accounts {
    total: Usage,
    by_publisher: HashMap<u128, Usage>,
    booked: HashMap<Box<str>, Booked>,
}

impl Size {
    /// `None` for a message that clears.
    pub(super) fn of(message: &Message) -> Option<Size> {
        let content = message.content();
        let payload = content.payload().len();
        (payload > 0).then(|| Size {
            publisher: message.publisher().identity,
            bytes: content.topic().as_str().len() + content.properties().len() + payload,
        })
    }
}

impl Accounts {
    /// What a topic with changes on their way counts for.
    pub(super) fn booked(&self, topic: &str) -> Option<Option<Size>> {
        self.booked.get(topic).map(|booked| booked.size)
    }

    pub(super) fn bytes(&self) -> usize {
        self.total.bytes
    }

    pub(super) fn messages_of(&self, publisher: u128) -> usize {
        let usage = self.by_publisher.get(&publisher);
        usage.map_or(0, |usage| usage.messages)
    }

    /// Books a change of a topic from `before` to `after`.
    pub(super) fn admit(
        &mut self,
        topic: &str,
        before: Option<Size>,
        after: Option<Size>,
        limits: &RetainedLimits,
    ) -> Result<(), RetainedFull> {
        if let Some(after) = after {
            self.check(before, after, limits)?;
        }
        self.change(before, after);
        match self.booked.get_mut(topic) {
            Some(booked) => {
                booked.changes += 1;
                booked.size = after;
            }
            None => {
                let (changes, size) = (1, after);
                self.booked.insert(topic.into(), Booked { changes, size });
            }
        }
        Ok(())
    }

    /// One booked change of a topic is over; `seen` is what is seen of the topic now. True if
    /// there was a booking.
    pub(super) fn settle(&mut self, topic: &str, seen: Option<Size>) -> bool {
        let Some(booked) = self.booked.get_mut(topic) else {
            return false;
        };
        booked.changes -= 1;
        let (changes, size) = (booked.changes, booked.size);
        if changes == 0 {
            self.booked.remove(topic);
            self.change(size, seen);
        }
        true
    }

    /// What is seen of a topic went from `before` to `after`, by a change that was booked, or by
    /// one that was not (a restart).
    pub(super) fn applied(&mut self, topic: &str, before: Option<Size>, after: Option<Size>) {
        if !self.settle(topic, after) {
            self.change(before, after);
        }
    }

    /// What is seen of a topic ended by itself.
    pub(super) fn applied_unbooked(&mut self, topic: &str, before: Option<Size>) {
        if !self.booked.contains_key(topic) {
            self.change(before, None);
        }
    }

    fn check(
        &self,
        before: Option<Size>,
        after: Size,
        limits: &RetainedLimits,
    ) -> Result<(), RetainedFull> {
        let freed = before.map_or(0, |size| size.bytes);
        if before.is_none() && self.total.messages >= limits.messages_max {
            return Err(RetainedFull::Messages(self.total.messages));
        }
        let total = self.total.bytes - freed + after.bytes;
        if total > limits.bytes_max && after.bytes > freed {
            return Err(RetainedFull::Bytes(total));
        }
        let usage = self.by_publisher.get(&after.publisher);
        let usage = usage.copied().unwrap_or_default();
        let own = before.filter(|size| size.publisher == after.publisher);
        let freed = own.map_or(0, |size| size.bytes);
        if own.is_none() && usage.messages >= limits.publisher_messages_max {
            return Err(RetainedFull::PublisherMessages(usage.messages));
        }
        let total = usage.bytes - freed + after.bytes;
        if total > limits.publisher_bytes_max && after.bytes > freed {
            return Err(RetainedFull::PublisherBytes(total));
        }
        Ok(())
    }

    fn change(&mut self, before: Option<Size>, after: Option<Size>) {
        if before == after {
            return;
        }
        if let Some(size) = after {
            let usage = self.by_publisher.entry(size.publisher).or_default();
            for usage in [&mut self.total, usage] {
                usage.messages += 1;
                usage.bytes += size.bytes;
            }
        }
        let Some(size) = before else { return };
        self.total.messages -= 1;
        self.total.bytes -= size.bytes;
        if let Some(usage) = self.by_publisher.get_mut(&size.publisher) {
            usage.messages -= 1;
            usage.bytes -= size.bytes;
            if usage.messages == 0 {
                self.by_publisher.remove(&size.publisher);
            }
        }
    }

    /// Nothing is on its way.
    #[cfg(test)]
    pub(super) fn is_settled(&self) -> bool {
        self.booked.is_empty()
    }

    /// The sums over topics, for tests of the invariant.
    #[cfg(test)]
    pub(super) fn is_sum_of<'a>(
        &self,
        seen: impl Iterator<Item = (&'a str, Option<Size>)>,
    ) -> bool {
        let mut sum = Accounts::default();
        for (topic, size) in seen {
            if !self.booked.contains_key(topic) {
                sum.change(None, size);
            }
        }
        for booked in self.booked.values() {
            sum.change(None, booked.size);
        }
        (sum.total, &sum.by_publisher) == (self.total, &self.by_publisher)
    }
}
