//! What a connection may publish to and receive: the one gate (SEC-30, SEC-31).

use crate::mqtt::topic::{Filter, Topic};

/// What is asked about a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To publish to it.
    Publish,
    /// To be given a message on it, whichever way it comes: live, retained, queued, resent,
    /// shared, will.
    Receive,
}

/// Compiled rights. Whatever no rule allows is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    publish: Box<[Rule]>,
    receive: Box<[Rule]>,
}

/// One thing that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// Every topic that begins with this text. The text ends with `/` and has no wildcard, so
    /// that it always stands for whole levels.
    Below(&'static str),
}

/// The virtual topics of the connected device. They are endpoints of the broker: what is
/// published there reaches no other client (TB-10).
const DEVICE_TOPICS: [Rule; 4] = [
    Rule::Below("v1/devices/me/"),
    Rule::Below("v1/gateway/"),
    Rule::Below("v2/"),
    Rule::Below("/provision/"),
];

impl Permit {
    /// A plain device: its own virtual topics and nothing else.
    #[must_use]
    pub fn device() -> Permit {
        Permit {
            publish: Box::new(DEVICE_TOPICS),
            receive: Box::new(DEVICE_TOPICS),
        }
    }

    /// Whether `action` on this topic is allowed. The topic is in its final form: aliases are
    /// resolved, nothing is rewritten afterwards (SEC-38).
    #[must_use]
    pub fn allows(&self, action: Action, topic: Topic<'_>) -> bool {
        let rules = match action {
            Action::Publish => &self.publish,
            Action::Receive => &self.receive,
        };
        rules.iter().any(|rule| rule.allows_topic(topic.as_str()))
    }

    /// Whether a subscription may be made: the whole filter lies inside what may be received;
    /// `$share` gives no more than the plain filter (SEC-32). `v1/devices/me/#` may be made; the
    /// level above, which its `#` also matches, stays denied at delivery.
    #[must_use]
    pub fn allows_filter(&self, filter: &Filter<'_>) -> bool {
        self.receive
            .iter()
            .any(|rule| rule.allows_filter(filter.matched()))
    }
}

impl Rule {
    fn allows_topic(&self, topic: &str) -> bool {
        match self {
            Rule::Below(prefix) => topic.starts_with(prefix),
        }
    }

    fn allows_filter(&self, filter: &str) -> bool {
        match self {
            // A wildcard before the end of the prefix makes the texts differ.
            Rule::Below(prefix) => filter.starts_with(prefix),
        }
    }
}
