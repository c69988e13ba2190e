//! What a connection may publish to and receive: the one gate (SEC-30, SEC-31).

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
    publish: Box<[Rule]>,
    receive: Box<[Rule]>,
}

/// One thing that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// Every topic that begins with this text. The text ends with `/` and has no wildcard, so
    /// that it always stands for whole levels.
    Below(&'static str),
    /// Every topic that this filter matches.
    Matching(FilterBuf),
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

    /// What these filters match and nothing else. None of them is shared.
    #[must_use]
    pub fn filters(publish: Vec<FilterBuf>, receive: Vec<FilterBuf>) -> Permit {
        let rules = |filters: Vec<FilterBuf>| filters.into_iter().map(Rule::Matching).collect();
        Permit {
            publish: rules(publish),
            receive: rules(receive),
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
        rules.iter().any(|rule| rule.allows_topic(topic))
    }

    /// Whether a subscription may be made: the whole filter lies inside what may be received;
    /// `$share` gives no more than the plain filter (SEC-32). `v1/devices/me/#` may be made; the
    /// level above, which its `#` also matches, stays denied at delivery.
    #[must_use]
    pub fn allows_filter(&self, filter: &Filter<'_>) -> bool {
        let below = |rule: &Rule| match rule {
            // A wildcard before the end of the prefix makes the texts differ.
            Rule::Below(prefix) => filter.matched().starts_with(prefix),
            Rule::Matching(_) => false,
        };
        let matching = self.receive.iter().filter_map(|rule| match rule {
            Rule::Matching(allowed) => Some(allowed.as_filter()),
            Rule::Below(_) => None,
        });
        self.receive.iter().any(below) || covered(filter, matching)
    }
}

impl Rule {
    fn allows_topic(&self, topic: Topic<'_>) -> bool {
        match self {
            Rule::Below(prefix) => topic.as_str().starts_with(prefix),
            Rule::Matching(filter) => filter.as_filter().matches(topic),
        }
    }
}

/// An allowed filter on the way along the filter that is asked about.
enum Walk<'a> {
    /// Its levels that are not used up.
    At(std::iter::Peekable<Box<dyn Iterator<Item = &'a str> + 'a>>),
    /// Its `#` was reached: it matches whatever follows.
    All,
}

/// Whether every topic that `wanted` matches is matched by one of `allowed`: by all of them
/// together, so that `a/#` lies inside `a`, `a/+` and `a/+/#`.
///
/// Along `wanted`, level by level, go the allowed filters that match so far. Where `wanted` has a
/// wildcard, a name that no filter mentions stands for all names: what matches it matches any.
fn covered<'a>(wanted: &Filter<'_>, allowed: impl Iterator<Item = Filter<'a>>) -> bool {
    let wild_start = |filter: &str| filter.starts_with(['+', '#']);
    // Wildcards at the first level do not match `$` topics [MQTT-4.7.2-1].
    let is_dollar = wanted.matched().starts_with('$');
    let mut walks: Vec<Walk<'a>> = allowed
        .filter(|filter| !(is_dollar && wild_start(filter.matched())))
        .map(|filter| {
            let levels: Box<dyn Iterator<Item = &'a str>> = Box::new(filter.levels());
            Walk::At(levels.peekable())
        })
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
