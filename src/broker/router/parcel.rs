//! Messages with their addresses, from one worker to another, in buffers that are used again.

use std::sync::Arc;

use crate::broker::tree::Subscriber;
use crate::mqtt::message::Message;
use crate::mqtt::wire::QoS;

/// Memory a parcel keeps while it is empty, in addresses.
const TARGETS_KEPT_MAX: usize = 4_096;

/// Messages for one worker, in order.
#[derive(Debug, Default)]
pub struct Parcel {
    routes: Vec<Route>,
    targets: Vec<Target>,
    ids: Vec<u32>,
    bytes: usize,
}

/// One copy of a message: for whom, and how it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The session.
    pub to: Subscriber,
    /// The lower one of the message's QoS and the highest of the matching subscriptions.
    pub qos: QoS,
    /// The Retain flag it is sent with.
    pub retain: bool,
    ids_start: u32,
    ids_len: u32,
}

/// A message of a parcel, with its addresses there.
#[derive(Clone, Copy, Debug)]
pub struct Routed<'a> {
    /// The message.
    pub message: &'a Arc<Message>,
    /// Its record in the journal; 0 if it has none.
    pub offset: u64,
    /// The whole filter of the share group whose member gets it; `None` for other subscriptions,
    /// and where nobody asks later.
    pub share: Option<&'a Arc<str>>,
    /// Those who get it, in order of slot.
    pub targets: &'a [Target],
    ids: &'a [u32],
}

#[derive(Debug)]
struct Route {
    message: Arc<Message>,
    offset: u64,
    share: Option<Arc<str>>,
    /// Where its targets end.
    end: usize,
}

impl Parcel {
    /// True without any message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Bytes of its messages, each once, and of their addresses.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies: a message counts once for each who gets it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Adds an address; [`Parcel::seal`] says of which message.
    pub fn push(&mut self, to: Subscriber, qos: QoS, retain: bool, ids: &[u32]) {
        let ids_start = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        self.ids.extend_from_slice(ids);
        self.bytes += size_of::<Target>() + size_of_val(ids);
        self.targets.push(Target {
            to,
            qos,
            retain,
            ids_start,
            ids_len: u32::try_from(ids.len()).unwrap_or(0),
        });
    }

    /// True if addresses were added since the last message.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.targets.len() > self.routes.last().map_or(0, |route| route.end)
    }

    /// The addresses since the last message are of this one.
    pub fn seal(&mut self, message: Arc<Message>, offset: u64, share: Option<Arc<str>>) {
        self.bytes += size_of::<Route>() + message.bytes();
        self.routes.push(Route {
            message,
            offset,
            share,
            end: self.targets.len(),
        });
    }

    /// The messages, in order.
    pub fn iter(&self) -> impl Iterator<Item = Routed<'_>> {
        let mut start = 0;
        self.routes.iter().map(move |route| {
            let targets = self.targets.get(start..route.end).unwrap_or_default();
            start = route.end;
            Routed {
                message: &route.message,
                offset: route.offset,
                share: route.share.as_ref(),
                targets,
                ids: &self.ids,
            }
        })
    }

    /// Takes over what `other` holds, and leaves it empty.
    pub fn append(&mut self, other: &mut Parcel) {
        if self.is_empty() {
            return std::mem::swap(self, other);
        }
        let ids_start = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        let start = self.targets.len();
        let targets = other.targets.drain(..).map(|target| Target {
            ids_start: target.ids_start.saturating_add(ids_start),
            ..target
        });
        self.targets.extend(targets);
        self.ids.append(&mut other.ids);
        let routes = other.routes.drain(..).map(|route| Route {
            end: route.end + start,
            ..route
        });
        self.routes.extend(routes);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// The offsets so far were places in a batch whose first record has this offset.
    pub fn rebase(&mut self, first: u64) {
        for route in &mut self.routes {
            route.offset = route.offset.saturating_add(first);
        }
    }

    /// Empties it and keeps some of its memory.
    pub fn clear(&mut self) {
        self.routes.clear();
        self.targets.clear();
        self.ids.clear();
        self.bytes = 0;
        if self.targets.capacity() > TARGETS_KEPT_MAX {
            *self = Parcel::default();
        }
    }
}

impl Routed<'_> {
    /// The subscription identifiers that go with a copy.
    #[must_use]
    pub fn ids(&self, target: &Target) -> &[u32] {
        let start = usize::try_from(target.ids_start).unwrap_or(usize::MAX);
        let len = usize::try_from(target.ids_len).unwrap_or(0);
        let ids = self.ids.get(start..start.saturating_add(len));
        ids.unwrap_or_default()
    }
}
