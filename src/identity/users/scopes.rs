//! What tokens of users allow: five scopes, and the topics that each stands for (specification of
//! the identity service, sections 3.1 and 7.2).
//!
//! The reference knows no topics; the table here is the default of `[identity]` in `config.toml`,
//! where an operator narrows or widens it. `{id}` stands for the user's id and is put in level by
//! level, after the filter was taken apart: an id is one level without wildcards.

use uuid::Uuid;

use super::id;
use crate::identity::Permit;
use crate::identity::permit::is_below_device_prefix;
use crate::mqtt::topic::{Filter, FilterBuf};

/// One scope of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserScope {
    /// Everything about threads.
    Chat,
    /// Threads, without making, changing or deleting them.
    ChatJoin,
    /// As [`UserScope::ChatJoin`], without adding and removing members.
    ChatJoinLimited,
    /// Everything about calls.
    Voip,
    /// Calls, without beginning any.
    VoipJoin,
}

impl UserScope {
    /// Every scope, in the order in which tokens name them.
    pub const ALL: [UserScope; 5] = [
        UserScope::Chat,
        UserScope::ChatJoin,
        UserScope::ChatJoinLimited,
        UserScope::Voip,
        UserScope::VoipJoin,
    ];

    /// Its name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            UserScope::Chat => "chat",
            UserScope::ChatJoin => "chat.join",
            UserScope::ChatJoinLimited => "chat.join.limited",
            UserScope::Voip => "voip",
            UserScope::VoipJoin => "voip.join",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserScopes(u8);

impl UserScopes {
    /// The scopes with these names, letter by letter; doubles count once.
    ///
    /// # Errors
    /// A name that is none, or `None` where there is none at all.
    pub fn named<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, Option<&'n str>> {
        let mut bits = 0;
        for name in names {
            let scope = UserScope::ALL
                .into_iter()
                .find(|scope| scope.as_str() == name);
            bits |= scope.ok_or(Some(name))?.bit();
        }
        if bits == 0 {
            return Err(None);
        }
        Ok(UserScopes(bits))
    }

    pub(super) const fn from_bits(bits: u8) -> UserScopes {
        UserScopes(bits)
    }

    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    /// Whether a scope is among them.
    #[must_use]
    pub const fn has(self, scope: UserScope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Their names, separated by commas.
    #[must_use]
    pub fn listed(self) -> String {
        let held = UserScope::ALL.into_iter().filter(|scope| self.has(*scope));
        held.map(UserScope::as_str).collect::<Vec<_>>().join(",")
    }
}

/// What begins a filter that may be published to.
const PUBLISH: &str = "publish ";

/// What begins a filter that may be received.
const SUBSCRIBE: &str = "subscribe ";

/// Stands for the user's id.
const ID: &str = "{id}";

/// Filters that one scope may stand for.
pub const USER_FILTERS_MAX: usize = 32;

/// The topics of each scope, in the order of [`UserScope::ALL`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserTopics([Topics; 5]);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Topics {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

impl UserTopics {
    /// What each scope stands for unless the operator says otherwise. Each as `subscribe FILTER`
    /// or `publish FILTER`.
    pub const DEFAULT: [&'static [&'static str]; 5] = [
        &[
            "subscribe chat/+/#",
            "subscribe user/{id}/#",
            "publish chat/+/messages",
            "publish chat/+/typing",
            "publish chat/+/members",
            "publish chat/+/admin",
        ],
        &[
            "subscribe chat/+/#",
            "subscribe user/{id}/#",
            "publish chat/+/messages",
            "publish chat/+/typing",
            "publish chat/+/members",
        ],
        &[
            "subscribe chat/+/#",
            "subscribe user/{id}/#",
            "publish chat/+/messages",
            "publish chat/+/typing",
        ],
        &[
            "subscribe call/+/#",
            "subscribe user/{id}/#",
            "publish call/+/signal",
            "publish call/+/admin",
        ],
        &[
            "subscribe call/+/#",
            "subscribe user/{id}/#",
            "publish call/+/signal",
        ],
    ];

    /// Checks what an operator wrote: for each scope at most [`USER_FILTERS_MAX`] filters, outside
    /// of the device topics and the `$` trees, `{id}` alone on its level.
    ///
    /// # Errors
    /// The scope's place, and what is wrong with which of its filters.
    pub fn new<T: AsRef<str>>(lists: [&[T]; 5]) -> Result<UserTopics, (usize, String)> {
        let mut topics: [Topics; 5] = Default::default();
        for (place, (topics, list)) in topics.iter_mut().zip(lists).enumerate() {
            if list.len() > USER_FILTERS_MAX {
                let found = list.len();
                let what = format!("has {found} filters, the limit is {USER_FILTERS_MAX}");
                return Err((place, what));
            }
            for text in list {
                let text = text.as_ref();
                let (held, filter) = if let Some(filter) = text.strip_prefix(PUBLISH) {
                    (&mut topics.publish, filter)
                } else if let Some(filter) = text.strip_prefix(SUBSCRIBE) {
                    (&mut topics.subscribe, filter)
                } else {
                    let what = format!("has {text:?}, which is no `publish` or `subscribe` filter");
                    return Err((place, what));
                };
                if let Some(why) = fault(filter) {
                    return Err((place, format!("has the filter {filter:?}, which {why}")));
                }
                held.push(filter.to_owned());
            }
        }
        Ok(UserTopics(topics))
    }

    /// What a user with these scopes may do; rights add up.
    pub(super) fn compile(&self, scopes: UserScopes, resource: Uuid, user: Uuid) -> Permit {
        let id = id::text(resource, user);
        let held = || {
            let all = UserScope::ALL.into_iter().zip(&self.0);
            all.filter(|(scope, _)| scopes.has(*scope))
                .map(|(_, topics)| topics)
        };
        let compiled = |patterns: Vec<&String>| -> Vec<FilterBuf> {
            let mut filters: Vec<FilterBuf> = Vec::with_capacity(patterns.len());
            for pattern in patterns {
                if let Some(filter) = substituted(pattern, &id)
                    && !filters.contains(&filter)
                {
                    filters.push(filter);
                }
            }
            filters
        };
        Permit::filters(
            compiled(held().flat_map(|topics| &topics.publish).collect()),
            compiled(held().flat_map(|topics| &topics.subscribe).collect()),
        )
    }
}

impl Default for UserTopics {
    fn default() -> UserTopics {
        UserTopics::new(UserTopics::DEFAULT).expect("a test holds the constant to it")
    }
}

/// The filter that a pattern stands for.
fn substituted(pattern: &str, id: &str) -> Option<FilterBuf> {
    let levels: Vec<&str> = pattern
        .split('/')
        .map(|level| if level == ID { id } else { level })
        .collect();
    Filter::new(&levels.join("/")).ok().map(FilterBuf::from)
}

/// What is wrong with a filter, as the rest of a sentence.
fn fault(text: &str) -> Option<String> {
    let filter = match Filter::new(text) {
        Ok(filter) => filter,
        Err(error) => return Some(error.to_string()),
    };
    if filter.share_name().is_some() || text.starts_with('$') {
        return Some("is in a $ tree, which is closed to users".to_owned());
    }
    if is_below_device_prefix(text) {
        return Some("lies in the device topics, which devices have for themselves".to_owned());
    }
    let inside = |level: &str| level != ID && level.contains(ID);
    filter
        .levels()
        .any(inside)
        .then(|| format!("has {ID} inside of a level; it stands alone between slashes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Action;
    use crate::mqtt::topic::Topic;

    #[test]
    fn id_10_scopes_are_compared_letter_by_letter() {
        let names = |names: &[&'static str]| UserScopes::named(names.iter().copied());
        for scope in UserScope::ALL {
            assert!(names(&[scope.as_str()]).unwrap().has(scope));
        }
        let both = names(&["voip", "chat", "chat"]).unwrap();
        assert_eq!(both.listed(), "chat,voip");
        assert_eq!(names(&[]), Err(None));
        for bad in ["Chat", "chat ", "", "chat.leave", "CHAT"] {
            assert_eq!(names(&["chat", bad]), Err(Some(bad)));
        }
    }

    /// The table of the specification, section 7.2.
    #[test]
    fn id_43_scopes_stand_for_topics() {
        let (resource, user) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let own = format!("user/{}/inbox", id::text(resource, user));
        let other = format!("user/{}/inbox", id::text(resource, Uuid::from_u128(3)));
        let table: [(&str, [bool; 8]); 5] = [
            ("chat", [true, true, true, true, true, true, false, false]),
            (
                "chat.join",
                [true, true, true, true, true, false, false, false],
            ),
            (
                "chat.join.limited",
                [true, true, true, true, false, false, false, false],
            ),
            (
                "voip",
                [false, true, false, false, false, false, true, true],
            ),
            (
                "voip.join",
                [false, true, false, false, false, false, true, false],
            ),
        ];
        for (scope, expected) in table {
            let scopes = UserScopes::named([scope]).unwrap();
            let permit = UserTopics::default().compile(scopes, resource, user);
            let allows = |action, text: &str| permit.allows(action, Topic::new(text).unwrap());
            let found = [
                allows(Action::Receive, "chat/7/messages"),
                allows(Action::Receive, &own),
                allows(Action::Publish, "chat/7/messages"),
                allows(Action::Publish, "chat/7/typing"),
                allows(Action::Publish, "chat/7/members"),
                allows(Action::Publish, "chat/7/admin"),
                allows(Action::Publish, "call/7/signal"),
                allows(Action::Publish, "call/7/admin"),
            ];
            assert_eq!(found, expected, "{scope}");
            for text in [&own, "chat/7", "chat/7/messages/1", "v1/devices/me/x", "x"] {
                assert!(!allows(Action::Publish, text), "{scope} {text}");
            }
            for text in [&other, "$SYS/broker/uptime", "v1/devices/me/x", "x"] {
                assert!(!allows(Action::Receive, text), "{scope} {text}");
            }
            let calls = scope.starts_with("voip");
            assert_eq!(allows(Action::Receive, "call/7/signal"), calls);
        }
        let all = UserScopes::named(UserScope::ALL.map(UserScope::as_str)).unwrap();
        let permit = UserTopics::default().compile(all, resource, user);
        for text in ["chat/7/admin", "call/7/admin"] {
            assert!(permit.allows(Action::Publish, Topic::new(text).unwrap()));
        }
    }

    #[test]
    fn a_template_that_would_open_other_topics_is_refused() {
        let refused = |text: &str| {
            let list = [text.to_owned()];
            UserTopics::new([&[], &list, &[], &[], &[]]).unwrap_err()
        };
        for bad in [
            "chat/#",
            "publish a/#/b",
            "subscribe $SYS/#",
            "subscribe $share/g/a",
            "publish v1/devices/me/telemetry",
            "publish a/x{id}/b",
        ] {
            assert_eq!(refused(bad).0, 1, "{bad}");
        }
        let many = vec!["publish a".to_owned(); USER_FILTERS_MAX + 1];
        assert_eq!(
            UserTopics::new([&[], &[], &[], &[], &many]).unwrap_err().0,
            4
        );
    }
}
