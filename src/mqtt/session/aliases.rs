//! Topic aliases: short numbers in place of topic names, for one connection and one direction.

use std::sync::Arc;

use super::Close;
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::{Publish, ReasonCode};

/// A topic that a client named by its alias; shared with the table, so that it costs nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aliased(Arc<str>);

impl Aliased {
    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> Topic<'_> {
        Topic::checked(&self.0)
    }
}

/// The aliases a client has given on this connection.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// By alias, from 1.
    topics: Vec<Option<Arc<str>>>,
}

/// What the server has given on this connection: the topics it sent first.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// Aliases that may be given.
    maximum: u16,
    /// The topic of alias 1, 2, ….
    topics: Vec<Box<str>>,
}

/// How a topic is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// By its name.
    Name,
    /// By its name and this alias, which stands for it from then on.
    Introduced(u16),
    /// By this alias alone.
    Alias(u16),
}

impl Inbound {
    /// The topic that an alias of `publish` stands for; `None` where the packet names it itself.
    ///
    /// # Errors
    /// 0x94: an alias above `maximum` [MQTT-3.3.2-9], or one that stands for nothing. The codec
    /// has refused 0 [MQTT-3.3.2-8].
    #[inline]
    pub(super) fn resolve(
        &mut self,
        publish: &Publish<'_>,
        maximum: u16,
    ) -> Result<Option<Aliased>, Close> {
        match publish.properties.topic_alias {
            None => Ok(None),
            Some(alias) => self.look_up(publish, alias, maximum),
        }
    }

    fn look_up(
        &mut self,
        publish: &Publish<'_>,
        alias: u16,
        maximum: u16,
    ) -> Result<Option<Aliased>, Close> {
        let invalid = Close::because(ReasonCode::TopicAliasInvalid);
        if alias == 0 || alias > maximum {
            return Err(invalid);
        }
        let place = usize::from(alias) - 1;
        let held = self.topics.get(place).and_then(Option::as_ref);
        if publish.topic.is_empty() {
            let topic = held.ok_or(invalid)?;
            return Ok(Some(Aliased(Arc::clone(topic))));
        }
        // Named again with the topic it has: nothing changes.
        if held.is_some_and(|held| **held == *publish.topic) {
            return Ok(None);
        }
        if self.topics.len() <= place {
            self.topics.resize(place + 1, None);
        }
        if let Some(slot) = self.topics.get_mut(place) {
            *slot = Some(publish.topic.into());
        }
        Ok(None)
    }
}

impl Outbound {
    /// For a client that takes `maximum` aliases.
    pub(super) fn new(maximum: u16) -> Self {
        Self {
            maximum,
            topics: Vec::new(),
        }
    }

    /// Whether the client takes aliases at all.
    pub(super) const fn is_possible(&self) -> bool {
        self.maximum > 0
    }

    /// How `topic` is to be written. Once it was written so, [`Outbound::wrote`] must follow.
    pub(super) fn find(&self, topic: &str) -> Written {
        if self.maximum == 0 || topic.len() < TOPIC_BYTES_MIN {
            return Written::Name;
        }
        let held = self.topics.iter().position(|held| **held == *topic);
        let number = |place: usize| u16::try_from(place + 1).ok();
        match held.and_then(number) {
            Some(alias) => Written::Alias(alias),
            None => match number(self.topics.len()).filter(|&alias| alias <= self.maximum) {
                Some(alias) => Written::Introduced(alias),
                None => Written::Name,
            },
        }
    }

    /// `topic` was written as `written` says.
    pub(super) fn wrote(&mut self, topic: &str, written: Written) {
        if let Written::Introduced(_) = written {
            self.topics.push(topic.into());
        }
    }
}

/// An alias takes three bytes: a topic that is not longer gets none.
const TOPIC_BYTES_MIN: usize = 4;
