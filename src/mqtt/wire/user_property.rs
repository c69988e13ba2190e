//! The two properties that may repeat, as borrowed lists: user properties and, in a PUBLISH,
//! subscription identifiers.

use std::fmt;

use super::error::WireError;
use super::property::{self, Property};
use super::reader::Reader;
use super::writer::Sink;

/// User properties one packet may hold; more is refused with 0x97 (SEC-11).
pub const USER_PROPERTIES_MAX: usize = 64;

/// Bytes of user properties (names and values with their lengths) one packet may hold; more is
/// refused with 0x97 (SEC-11).
pub const USER_PROPERTIES_BYTES_MAX: usize = 8 * 1_024;

/// The user properties of one packet, in their order [MQTT-3.3.2-18].
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a>(List<'a, (&'a str, &'a str)>);

impl<'a> UserProperties<'a> {
    /// User properties to be written.
    #[must_use]
    pub const fn new(pairs: &'a [(&'a str, &'a str)]) -> UserProperties<'a> {
        UserProperties(List::Items(pairs))
    }

    /// Those that stand in a checked property block, between other properties.
    pub(super) const fn in_block(block: &'a [u8]) -> UserProperties<'a> {
        UserProperties(List::Block(block))
    }

    /// Names and values in their order; a name may stand more than once.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let (block, items) = self.0.parts();
        let mut block = Reader::new(block);
        let mut items = items.iter();
        std::iter::from_fn(move || {
            if let Some(&pair) = items.next() {
                return Some(pair);
            }
            loop {
                let (property, mut value) = property::next_checked(&mut block)?;
                if property == Property::UserProperty {
                    let name = property.name();
                    return Some((value.text(name).ok()?, value.text(name).ok()?));
                }
            }
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(super) fn put<S: Sink>(&self, sink: &mut S) {
        if let List::Items([]) = self.0 {
            return;
        }
        for (name, value) in self.iter() {
            sink.byte(Property::UserProperty as u8);
            sink.prefixed(Property::UserProperty.name(), name.as_bytes());
            sink.prefixed(Property::UserProperty.name(), value.as_bytes());
        }
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The subscription identifiers of a PUBLISH to a client, in their order; 1 to 268,435,455 each.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a>(List<'a, u32>);

impl<'a> SubscriptionIds<'a> {
    /// Subscription identifiers to be written, one for each subscription that matched
    /// [MQTT-3.3.4-4].
    #[must_use]
    pub const fn new(ids: &'a [u32]) -> SubscriptionIds<'a> {
        SubscriptionIds(List::Items(ids))
    }

    pub(super) const fn in_block(block: &'a [u8]) -> SubscriptionIds<'a> {
        SubscriptionIds(List::Block(block))
    }

    /// The identifiers in their order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        let (block, items) = self.0.parts();
        let mut block = Reader::new(block);
        let mut items = items.iter();
        std::iter::from_fn(move || {
            if let Some(&id) = items.next() {
                return Some(id);
            }
            loop {
                let (property, mut value) = property::next_checked(&mut block)?;
                if property == Property::SubscriptionIdentifier {
                    return value.variable(property.name()).ok();
                }
            }
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(super) fn put<S: Sink>(&self, sink: &mut S) {
        if let List::Items([]) = self.0 {
            return;
        }
        for id in self.iter() {
            sink.property_variable(Property::SubscriptionIdentifier, Some(id));
        }
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What one packet has left of its user properties; a CONNECT has two blocks and one budget.
#[derive(Debug, Default)]
pub(super) struct Budget {
    count: usize,
    bytes: usize,
}

impl Budget {
    /// Counts one user property.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<(), WireError> {
        // At most 65 additions of at most 131,074 before the limit ends the packet.
        self.count += 1;
        self.bytes += 4 + name.len() + value.len();
        if self.count > USER_PROPERTIES_MAX || self.bytes > USER_PROPERTIES_BYTES_MAX {
            let Budget { count, bytes } = *self;
            return Err(WireError::UserProperties { count, bytes });
        }
        Ok(())
    }
}

/// Either read (somewhere in a checked property block) or about to be written.
#[derive(Clone, Copy)]
enum List<'a, T> {
    Block(&'a [u8]),
    Items(&'a [T]),
}

impl<'a, T> List<'a, T> {
    const fn parts(&self) -> (&'a [u8], &'a [T]) {
        match *self {
            List::Block(block) => (block, &[]),
            List::Items(items) => (&[], items),
        }
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        List::Items(&[])
    }
}
