//! What a connection may publish to and receive: the one gate (SEC-30, SEC-31).

use std::iter::Peekable;
use std::str::Split;
use std::sync::Arc;

use super::Rights;
use crate::mqtt::topic::{Filter, FilterBuf, Topic};

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
    own: OwnTopics,
    publish: Rules,
    receive: Rules,
}

/// What of the virtual device topics is open: they are a device's own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OwnTopics {
    None,
    /// What its token has a right for.
    Some(Rights, Arc<Own>),
    All,
}

#[derive(Debug, PartialEq, Eq)]
struct Own {
    publish: Rules,
    receive: Rules,
}

/// What begins the virtual topics of the connected device. They are endpoints of the broker: what
/// is published there reaches no other client (TB-10), and no scope covers them. Each ends with
/// `/`, so that it always stands for whole levels.
pub(super) const DEVICE_PREFIXES: [&str; 4] =
    ["v1/devices/me/", "v1/gateway/", "v2/", "/provision/"];

/// Whether a topic is one of the virtual device topics: never an ordinary one, for nobody.
#[must_use]
pub fn is_device_topic(topic: Topic<'_>) -> bool {
    is_below_device_prefix(topic.as_str())
}

/// As [`is_device_topic`] for the text of a topic or a filter. A wildcard before the end of a
/// prefix makes the texts differ.
pub(super) fn is_below_device_prefix(text: &str) -> bool {
    DEVICE_PREFIXES
        .iter()
        .any(|prefix| text.starts_with(prefix))
}

impl Permit {
    /// A plain device: its own virtual topics and nothing else.
    #[must_use]
    pub fn device() -> Permit {
        Permit::new(true, Vec::new(), Vec::new())
    }

    /// A plain device whose token has these rights on its own topics.
    #[must_use]
    pub fn device_with(rights: Rights) -> Permit {
        let own = if rights == Rights::ALL {
            OwnTopics::All
        } else {
            let (publish, receive) = rights.filters();
            let (publish, receive) = (Rules::new(publish), Rules::new(receive));
            OwnTopics::Some(rights, Arc::new(Own { publish, receive }))
        };
        Permit {
            own,
            ..Permit::device()
        }
    }

    /// This permit, with the own topics that `other` has.
    #[must_use]
    pub(super) fn with_own_topics_of(&self, other: &Permit) -> Permit {
        Permit {
            own: other.own.clone(),
            ..self.clone()
        }
    }

    /// What these filters match outside of the device topics, and nothing else. None of them is
    /// shared.
    #[must_use]
    pub fn filters(publish: Vec<FilterBuf>, receive: Vec<FilterBuf>) -> Permit {
        Permit::new(false, publish, receive)
    }

    pub(super) fn new(is_device: bool, publish: Vec<FilterBuf>, receive: Vec<FilterBuf>) -> Permit {
        Permit {
            own: if is_device {
                OwnTopics::All
            } else {
                OwnTopics::None
            },
            publish: Rules::new(publish),
            receive: Rules::new(receive),
        }
    }

    /// Whether `action` on this topic is allowed. The topic is in its final form: aliases are
    /// resolved, nothing is rewritten afterwards (SEC-38).
    #[must_use]
    pub fn allows(&self, action: Action, topic: Topic<'_>) -> bool {
        if is_device_topic(topic) {
            return match (&self.own, action) {
                (OwnTopics::All, _) => true,
                (OwnTopics::None, _) => false,
                (OwnTopics::Some(_, own), Action::Publish) => own.publish.allow(topic),
                (OwnTopics::Some(_, own), Action::Receive) => own.receive.allow(topic),
            };
        }
        match action {
            // The `$` trees are the broker's (SEC-33), whatever a filter says.
            Action::Publish => !topic.is_dollar() && self.publish.allow(topic),
            Action::Receive => self.receive.allow(topic),
        }
    }

    /// Whether a subscription may be made: the whole filter lies inside what may be received;
    /// `$share` gives no more than the plain filter (SEC-32). `v1/devices/me/#` may be made; the
    /// level above, which its `#` also matches, stays denied at delivery; so do the device topics
    /// where a wider filter is granted.
    #[must_use]
    pub fn allows_filter(&self, filter: &Filter<'_>) -> bool {
        if is_below_device_prefix(filter.matched()) {
            return match &self.own {
                OwnTopics::All => true,
                OwnTopics::None => false,
                OwnTopics::Some(_, own) => own.receive.cover(filter),
            };
        }
        self.receive.cover(filter)
    }

    /// Whether anything beside the device topics may be received under an allowed filter of which
    /// this holds.
    #[must_use]
    pub fn receives(&self, which: impl Fn(&Filter<'_>) -> bool) -> bool {
        self.receive
            .filters()
            .any(|filter| which(&filter.as_filter()))
    }

    /// Whether nothing is allowed by `other` that is not allowed here. May say no where the truth
    /// is yes, never the other way round.
    #[must_use]
    pub fn covers(&self, other: &Permit) -> bool {
        self.own.covers(&other.own)
            && self.publish.cover_all(&other.publish)
            && self.receive.cover_all(&other.receive)
    }
}

impl OwnTopics {
    fn covers(&self, other: &OwnTopics) -> bool {
        match (self, other) {
            (OwnTopics::All, _) | (_, OwnTopics::None) => true,
            (OwnTopics::Some(mine, _), OwnTopics::Some(theirs, _)) => mine.covers(*theirs),
            _ => false,
        }
    }
}

/// Filters of which one has to match.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules {
    /// Those without wildcards, in order: looked up, not gone through.
    names: Box<[FilterBuf]>,
    patterns: Box<[Pattern]>,
}

/// A filter with a wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    filter: FilterBuf,
    /// Bytes in front of the first level with a wildcard, without the `/` in front of a `#`: with
    /// these begins every topic that it matches. Most topics are told apart here.
    fixed_len: usize,
    /// Its one wildcard is a `#` behind whole levels: what begins with those levels matches.
    is_tail: bool,
}

impl Rules {
    fn new(filters: Vec<FilterBuf>) -> Rules {
        let (patterns, mut names): (Vec<_>, Vec<_>) = filters
            .into_iter()
            .partition(|filter| filter.as_filter().has_wildcard());
        names.sort_unstable_by(|a, b| text(a).cmp(text(b)));
        Rules {
            names: names.into(),
            patterns: patterns.into_iter().map(Pattern::new).collect(),
        }
    }

    fn allow(&self, topic: Topic<'_>) -> bool {
        let (names, name) = (&self.names, topic.as_str());
        names
            .binary_search_by(|known| text(known).cmp(name))
            .is_ok()
            || self.patterns.iter().any(|pattern| pattern.matches(topic))
    }

    fn filters(&self) -> impl Iterator<Item = &FilterBuf> {
        let patterns = self.patterns.iter().map(|pattern| &pattern.filter);
        self.names.iter().chain(patterns)
    }

    fn cover(&self, filter: &Filter<'_>) -> bool {
        covered(filter, self.filters())
    }

    fn cover_all(&self, other: &Rules) -> bool {
        other
            .filters()
            .all(|filter| self.cover(&filter.as_filter()))
    }
}

impl Pattern {
    fn new(filter: FilterBuf) -> Pattern {
        let matched = filter.as_filter().matched();
        let fixed = matched.split(['+', '#']).next().unwrap_or_default();
        let is_tail = matched.get(fixed.len()..) == Some("#");
        let fixed = match is_tail {
            // `a/#` matches `a` too.
            true => fixed.strip_suffix('/').unwrap_or(fixed),
            false => fixed,
        };
        Pattern {
            fixed_len: fixed.len(),
            is_tail: is_tail && !fixed.is_empty(),
            filter,
        }
    }

    fn matches(&self, topic: Topic<'_>) -> bool {
        let filter = self.filter.as_filter();
        let fixed = filter.matched().as_bytes().get(..self.fixed_len);
        let Some(rest) = fixed.and_then(|fixed| topic.as_str().as_bytes().strip_prefix(fixed))
        else {
            return false;
        };
        match self.is_tail {
            true => rest.first().is_none_or(|&next| next == b'/'),
            false => filter.matches(topic),
        }
    }
}

fn text(filter: &FilterBuf) -> &str {
    filter.as_filter().matched()
}

/// An allowed filter on the way along the filter that is asked about.
enum Walk<'a> {
    /// Its levels that are not used up.
    At(Peekable<Split<'a, char>>),
    /// Its `#` was reached: it matches whatever follows.
    All,
}

/// Whether every topic that `wanted` matches is matched by one of `allowed`: by all of them
/// together, so that `a/#` lies inside `a`, `a/+` and `a/+/#`.
///
/// Along `wanted`, level by level, go the allowed filters that match so far. Where `wanted` has a
/// wildcard, a name that no filter mentions stands for all names: what matches it matches any.
fn covered<'a>(wanted: &Filter<'_>, allowed: impl Iterator<Item = &'a FilterBuf>) -> bool {
    let wild_start = |filter: &str| filter.starts_with(['+', '#']);
    // Wildcards at the first level do not match `$` topics [MQTT-4.7.2-1].
    let is_dollar = wanted.matched().starts_with('$');
    let mut walks: Vec<Walk<'a>> = allowed
        .map(text)
        .filter(|filter| !(is_dollar && wild_start(filter)))
        .map(|filter| Walk::At(filter.split('/').peekable()))
        .collect();
    for (passed, level) in wanted.levels().enumerate() {
        if level == "#" {
            // The level above belongs to it, unless there is no topic: above the first level, and
            // above "/", there is none.
            let above = passed > 0 && wanted.matched() != "/#";
            return covers_rest(walks, above);
        }
        let name = (level != "+").then_some(level);
        walks.retain_mut(|walk| step(walk, name));
    }
    walks.iter_mut().any(ends)
}

/// Whether any number of further levels is matched; from none on if `above`, else from one on.
fn covers_rest(mut walks: Vec<Walk<'_>>, above: bool) -> bool {
    if above && !walks.iter_mut().any(ends) {
        return false;
    }
    loop {
        walks.retain_mut(|walk| step(walk, None));
        if !walks.iter_mut().any(ends) {
            return false;
        }
        // Filters that end go one by one; what is left in the end matches everything.
        if walks.iter().all(|walk| matches!(walk, Walk::All)) {
            return true;
        }
    }
}

/// Goes one level on; false if the filter does not match it. `None` is a name that no filter has.
fn step(walk: &mut Walk<'_>, name: Option<&str>) -> bool {
    let Walk::At(levels) = walk else {
        return true;
    };
    match levels.next() {
        Some("#") => {
            *walk = Walk::All;
            true
        }
        Some("+") => true,
        Some(level) => name == Some(level),
        None => false,
    }
}

/// Whether the filter matches a topic that ends here.
fn ends(walk: &mut Walk<'_>) -> bool {
    match walk {
        Walk::All => true,
        Walk::At(levels) => matches!(levels.peek(), None | Some(&"#")),
    }
}
