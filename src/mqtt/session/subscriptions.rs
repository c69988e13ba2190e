//! SUBSCRIBE and UNSUBSCRIBE: what a session is subscribed to, and what each packet changes.

use super::{Close, Replies, Session, outbound};
use crate::limits::FILTERS_BYTES_MAX;
use crate::mqtt::topic::Filter;
use crate::mqtt::wire::{
    QoS, ReasonCode, RetainHandling, Subscribe, Subscription, SubscriptionOptions, Unsubscribe,
    Version,
};

/// One granted subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// The filter, as it was sent.
    pub filter: Box<str>,
    /// The options granted; the QoS is the granted maximum.
    pub options: SubscriptionOptions,
    /// The subscription identifier, 1 to 268,435,455.
    pub id: Option<u32>,
    /// Where the source of its messages began; its owner knows what that means. 0 is "live".
    pub start: u64,
}

/// The subscriptions of a session, in order of their filters; one for each filter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscriptionSet {
    held: Vec<Subscribed>,
    bytes: usize,
}

/// What is granted for a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The highest QoS; what was asked for bounds it too.
    pub qos: QoS,
    /// See [`Subscribed::start`].
    pub start: u64,
}

/// One filter of a SUBSCRIBE, before it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'p> {
    /// The filter.
    pub filter: Filter<'p>,
    /// The options asked for.
    pub options: SubscriptionOptions,
    /// The subscription identifier.
    pub id: Option<u32>,
    /// The session has no subscription with this filter.
    pub is_new: bool,
}

/// One filter of a SUBSCRIBE that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken<'p> {
    /// The filter.
    pub filter: Filter<'p>,
    /// The options granted.
    pub options: SubscriptionOptions,
    /// The subscription identifier.
    pub id: Option<u32>,
    /// The session had no subscription with this filter.
    pub is_new: bool,
    /// The session's list is another than before: to be recorded.
    pub is_changed: bool,
    /// Retained messages that match are to be sent, behind the SUBACK.
    pub sends_retained: bool,
}

impl SubscriptionSet {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// True without any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes of all filters together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The subscription with exactly this filter.
    #[must_use]
    pub fn get(&self, filter: &str) -> Option<&Subscribed> {
        self.held.get(self.place(filter).ok()?)
    }

    /// Makes or replaces a subscription [MQTT-3.8.4-3]; what it replaced.
    pub fn insert(&mut self, subscribed: Subscribed) -> Option<Subscribed> {
        match self.place(&subscribed.filter) {
            Ok(place) => {
                let held = self.held.get_mut(place)?;
                Some(std::mem::replace(held, subscribed))
            }
            Err(place) => {
                self.bytes += subscribed.filter.len();
                self.held.insert(place, subscribed);
                None
            }
        }
    }

    /// Ends a subscription: what it was.
    pub fn remove(&mut self, filter: &str) -> Option<Subscribed> {
        let place = self.place(filter).ok()?;
        let removed = self.held.remove(place);
        self.bytes -= removed.filter.len();
        Some(removed)
    }

    /// The subscriptions in order of their filters.
    pub fn iter(&self) -> std::slice::Iter<'_, Subscribed> {
        self.held.iter()
    }

    fn place(&self, filter: &str) -> Result<usize, usize> {
        self.held
            .binary_search_by(|held| (*held.filter).cmp(filter))
    }
}

impl FromIterator<Subscribed> for SubscriptionSet {
    fn from_iter<I: IntoIterator<Item = Subscribed>>(all: I) -> Self {
        let mut set = Self::default();
        for subscribed in all {
            set.insert(subscribed);
        }
        set
    }
}

impl<'a> IntoIterator for &'a SubscriptionSet {
    type Item = &'a Subscribed;
    type IntoIter = std::slice::Iter<'a, Subscribed>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Session {
    /// Answers SUBSCRIBE. `decide` is asked for each filter in order, last: what it grants is
    /// held, so it may put the subscription into the tree. Returns what was granted, in order,
    /// also where it replaces what an earlier filter of the same packet made [MQTT-3.8.4-5].
    ///
    /// # Errors
    /// The client takes no packet as long as the answer; nothing changed.
    pub fn subscribe<'p>(
        &mut self,
        subscribe: &Subscribe<'p>,
        mut decide: impl FnMut(&Wanted<'p>) -> Result<Granted, ReasonCode>,
        replies: &mut Replies,
    ) -> Result<Vec<Taken<'p>>, Close> {
        self.check_answer(subscribe.filters().count())?;
        let mut codes = Vec::new();
        let mut taken = Vec::new();
        let mut refused = ReasonCode::Success;
        for (at, wanted) in subscribe.filters().enumerate() {
            let outcome = if at < self.limits.filters_per_packet_max {
                self.take(wanted, subscribe.subscription_id, &mut decide)
            } else {
                Err(ReasonCode::QuotaExceeded)
            };
            codes.push(match outcome {
                Ok(granted) => {
                    taken.push(granted);
                    granted.options.qos.as_u8()
                }
                // [MQTT-3.9.3-2] 3.1.1 knows one refusal.
                Err(_) if self.version != Version::V5 => 0x80,
                Err(reason) => {
                    if !refused.is_error() {
                        refused = reason;
                    }
                    reason.as_u8()
                }
            });
        }
        let bytes = u32::try_from(codes.len()).unwrap_or(u32::MAX);
        let has_room = self.client_packet_size_max.saturating_sub(bytes) >= SUBACK_WORDS_BYTES_MAX;
        let words = self.words(refused).filter(|_| has_room);
        outbound::suback(self.version, subscribe.packet_id, &codes, words, replies);
        Ok(taken)
    }

    /// Answers UNSUBSCRIBE; a filter without a subscription gets 0x11, whether or not there could
    /// have been one (MQTT 5, 3.10.4). Returns the filters whose subscriptions ended.
    ///
    /// # Errors
    /// More filters than one packet may have, or the client takes no packet as long as the
    /// answer; nothing changed.
    pub fn unsubscribe<'p>(
        &mut self,
        unsubscribe: &Unsubscribe<'p>,
        replies: &mut Replies,
    ) -> Result<Vec<Filter<'p>>, Close> {
        let filters = unsubscribe.filters().count();
        if filters > self.limits.filters_per_packet_max {
            return Err(Close::because(ReasonCode::QuotaExceeded));
        }
        self.check_answer(filters)?;
        let mut codes = Vec::new();
        let mut ended = Vec::new();
        for filter in unsubscribe.filters() {
            // [MQTT-3.10.4-1]: compared character by character.
            let removed = self.state.subscriptions.remove(filter.as_str());
            codes.push(match &removed {
                Some(_) => ReasonCode::Success.as_u8(),
                None => ReasonCode::NoSubscriptionExisted.as_u8(),
            });
            if removed.is_some() {
                ended.push(filter);
            }
        }
        outbound::unsuback(self.version, unsubscribe.packet_id, &codes, replies);
        Ok(ended)
    }

    /// Ends a subscription that may not be held any more.
    pub fn end_subscription(&mut self, filter: &str) {
        self.state.subscriptions.remove(filter);
    }

    /// [MQTT-3.1.2-24]: a SUBACK or UNSUBACK of `codes` codes must fit into what the client takes.
    fn check_answer(&self, codes: usize) -> Result<(), Close> {
        // At most: type and length (5), packet id (2), no properties (1).
        let bytes = u32::try_from(codes).unwrap_or(u32::MAX).saturating_add(8);
        if bytes > self.client_packet_size_max {
            return Err(Close::because(ReasonCode::PacketTooLarge));
        }
        Ok(())
    }

    fn take<'p>(
        &mut self,
        wanted: Subscription<'p>,
        id: Option<u32>,
        decide: &mut impl FnMut(&Wanted<'p>) -> Result<Granted, ReasonCode>,
    ) -> Result<Taken<'p>, ReasonCode> {
        let Subscription { filter, options } = wanted;
        let held = &self.state.subscriptions;
        let is_new = held.get(filter.as_str()).is_none();
        let is_full = held.len() >= self.limits.subscriptions_max
            || held.bytes() + filter.as_str().len() > FILTERS_BYTES_MAX;
        if is_new && is_full {
            return Err(ReasonCode::QuotaExceeded);
        }
        let wanted = Wanted {
            filter,
            options,
            id,
            is_new,
        };
        let Granted { qos, start } = decide(&wanted)?;
        let options = SubscriptionOptions {
            qos: qos.min(options.qos),
            ..options
        };
        let subscribed = Subscribed {
            filter: filter.as_str().into(),
            options,
            id,
            start,
        };
        let before = self.state.subscriptions.insert(subscribed);
        let now = self.state.subscriptions.get(filter.as_str());
        Ok(Taken {
            filter,
            options,
            id,
            is_new,
            is_changed: before.as_ref() != now,
            sends_retained: start == 0 && sends_retained(filter, options, is_new),
        })
    }
}

/// [MQTT-3.3.1-9] to [MQTT-3.3.1-11]; never for a shared subscription (section 4.8.2).
fn sends_retained(filter: Filter<'_>, options: SubscriptionOptions, is_new: bool) -> bool {
    let is_wanted = match options.retain_handling {
        RetainHandling::Send => true,
        RetainHandling::SendIfNew => is_new,
        RetainHandling::DoNotSend => false,
    };
    is_wanted && filter.share_name().is_none()
}

/// Room for the reason of a SUBACK beside its codes, in bytes.
const SUBACK_WORDS_BYTES_MAX: u32 = 127;
