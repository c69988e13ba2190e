//! Topic names and filters (MQTT 5 section 4.7): types that cannot be wrong, and matching.
//!
//! Everything here is iterative and works on bytes: `/`, `+`, `#` and `$` are ASCII, so they never
//! stand inside a multi-byte character (SEC-09).

use std::fmt;

/// Levels a topic name or filter may have; more is refused (SEC-09). Bounds the work of a match.
pub const TOPIC_LEVELS_MAX: usize = 128;

/// Bytes a topic name or filter may have; more is refused (SEC-09). Bounds what the tree stores.
pub const TOPIC_BYTES_MAX: usize = 4_096;

/// A valid topic name, borrowed: not empty, no wildcards, no control or non-characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic<'a>(&'a str);

impl<'a> Topic<'a> {
    /// Checks a topic name.
    ///
    /// # Errors
    /// What SEC-08 and SEC-09 refuse: see [`TopicError`].
    #[inline]
    pub fn new(text: &'a str) -> Result<Topic<'a>, TopicError> {
        // The hot path: a text of n bytes has at most n + 1 levels, so only its characters count.
        if !text.is_empty() && text.len() < TOPIC_LEVELS_MAX && is_plain(text.as_bytes()) {
            return Ok(Topic(text));
        }
        check_characters(text)?;
        check_size(text)?;
        // [MQTT-3.3.2-2]
        match text.bytes().any(|byte| byte == b'+' || byte == b'#') {
            true => Err(TopicError::Wildcard),
            false => Ok(Topic(text)),
        }
    }

    /// A name that was checked before.
    #[inline]
    pub(super) fn checked(text: &'a str) -> Topic<'a> {
        debug_assert_eq!(Topic::new(text), Ok(Topic(text)));
        Topic(text)
    }

    /// The name as it came.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The levels, separated by `/`; at least one, at most [`TOPIC_LEVELS_MAX`]. May be empty.
    pub fn levels(self) -> impl Iterator<Item = &'a str> {
        self.0.split('/')
    }

    /// Whether the name starts with `$`, which wildcards at the first level do not match
    /// [MQTT-4.7.2-1].
    #[must_use]
    pub fn is_dollar(self) -> bool {
        self.0.starts_with('$')
    }
}

impl fmt::Display for Topic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A valid topic filter, borrowed, shared (`$share/{name}/{filter}`) or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter<'a> {
    text: &'a str,
    /// The part that is matched; all of `text` unless it is shared.
    matched: &'a str,
}

impl<'a> Filter<'a> {
    /// Checks a topic filter. `$share/` is read the same way in every version (SEC-10).
    ///
    /// # Errors
    /// What SEC-08, SEC-09 and SEC-10 refuse: see [`FilterError`].
    pub fn new(text: &'a str) -> Result<Filter<'a>, FilterError> {
        check_characters(text)?;
        check_size(text)?;
        let matched = match text.strip_prefix("$share/") {
            None => text,
            Some(rest) => {
                // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
                let (name, filter) = rest.split_once('/').ok_or(FilterError::Share)?;
                if name.is_empty() || filter.is_empty() || name.contains(['+', '#']) {
                    return Err(FilterError::Share);
                }
                filter
            }
        };
        check_wildcards(matched)?;
        Ok(Filter { text, matched })
    }

    /// The filter as it came, with `$share/{name}/`.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.text
    }

    /// The filter without `$share/{name}/`.
    #[must_use]
    pub const fn matched(self) -> &'a str {
        self.matched
    }

    /// The levels of the filter without `$share/{name}/`; `+` and `#` stand as levels of their own.
    pub fn levels(self) -> impl Iterator<Item = &'a str> {
        self.matched.split('/')
    }

    /// The name of the share group; `None` when the subscription is not shared.
    #[must_use]
    pub fn share_name(self) -> Option<&'a str> {
        let share_len = self.text.len().checked_sub(self.matched.len())?;
        self.text
            .get(..share_len)?
            .strip_prefix("$share/")?
            .strip_suffix('/')
    }

    /// Whether the filter holds `+` or `#`.
    #[must_use]
    pub fn has_wildcard(self) -> bool {
        self.matched
            .bytes()
            .any(|byte| byte == b'+' || byte == b'#')
    }

    /// Whether a message to `topic` belongs to this subscription (section 4.7).
    #[must_use]
    pub fn matches(self, topic: Topic<'_>) -> bool {
        // Wildcards at the first level do not match `$` topics [MQTT-4.7.2-1].
        if topic.is_dollar() && self.matched.starts_with(['+', '#']) {
            return false;
        }
        let mut names = topic.levels();
        for level in self.levels() {
            // `#` also matches the level above it: "a/#" matches "a" (section 4.7.1.2).
            if level == "#" {
                return true;
            }
            match names.next() {
                Some(name) if level == "+" || level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// Whether every topic that `other` matches is matched by this filter too. Share names do not
    /// count: who reads through a group reads.
    #[must_use]
    pub fn covers(self, other: &Filter<'_>) -> bool {
        if other.matched.starts_with('$') && self.matched.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = self.levels();
        let mut others = other.levels();
        while let Some(level) = levels.next() {
            if level == "#" {
                return true;
            }
            match others.next() {
                Some("#") => {
                    // `#` matches the level above too, which `+/#` does not; but above the first
                    // level, and above "/", there is no topic.
                    let above = other.matched != "#" && other.matched != "/#";
                    return !above && level == "+" && levels.next() == Some("#");
                }
                Some(name) if level == "+" || level == name => {}
                _ => return false,
            }
        }
        others.next().is_none()
    }
}

impl fmt::Debug for Filter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.text).finish()
    }
}

impl fmt::Display for Filter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// A valid topic name, owned: what a topic alias or a retained message keeps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicBuf(Box<str>);

impl TopicBuf {
    /// The name, borrowed; nothing is checked again.
    #[must_use]
    pub const fn as_topic(&self) -> Topic<'_> {
        Topic(&self.0)
    }
}

impl From<Topic<'_>> for TopicBuf {
    fn from(topic: Topic<'_>) -> TopicBuf {
        TopicBuf(topic.0.into())
    }
}

/// A valid topic filter, owned: what a subscription keeps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterBuf {
    text: Box<str>,
    /// Bytes of `$share/{name}/`; 0 when not shared.
    share_len: usize,
}

impl FilterBuf {
    /// The filter, borrowed; nothing is checked again.
    #[must_use]
    pub fn as_filter(&self) -> Filter<'_> {
        let matched = self.text.get(self.share_len..).unwrap_or_default();
        Filter {
            text: &self.text,
            matched,
        }
    }
}

impl From<Filter<'_>> for FilterBuf {
    fn from(filter: Filter<'_>) -> FilterBuf {
        let share_len = filter.text.len().saturating_sub(filter.matched.len());
        FilterBuf {
            text: filter.text.into(),
            share_len,
        }
    }
}

/// Why a text is no topic name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Names have at least one character [MQTT-4.7.3-1].
    #[error("empty")]
    Empty,
    /// `+` or `#` in a name [MQTT-3.3.2-2].
    #[error("contains a wildcard")]
    Wildcard,
    /// U+0000 [MQTT-4.7.3-2], a control character or a non-character (SEC-08).
    #[error("contains U+{0:04X}")]
    Character(u32),
    /// Over [`TOPIC_BYTES_MAX`].
    #[error("has {0} bytes, at most 4096 are taken")]
    TooLong(usize),
    /// Over [`TOPIC_LEVELS_MAX`].
    #[error("has {0} levels, at most 128 are taken")]
    TooDeep(usize),
}

/// Why a text is no topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// What holds for names and filters alike.
    #[error(transparent)]
    Text(#[from] TopicError),
    /// `+` beside other characters of its level [MQTT-4.7.1-2].
    #[error("contains a + that is not a level of its own")]
    Plus,
    /// `#` not as the last level [MQTT-4.7.1-1].
    #[error("contains a # that is not the last level")]
    Hash,
    /// `$share/` without a name, with a wildcard in it, or without a filter [MQTT-4.8.2-1].
    #[error("is not $share/name/filter")]
    Share,
}

/// The first character that may not stand in topics, filters, client identifiers and user names
/// (SEC-08): U+0000, the control characters and the non-characters (MQTT 5 section 1.5.4).
#[inline]
pub(crate) fn forbidden_character(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| (0x20..0x7F).contains(&byte)) {
        return None;
    }
    text.chars()
        .map(u32::from)
        .find(|&character| is_forbidden(character))
}

/// Whether all bytes are printable ASCII, neither `+` nor `#`. Looks at eight bytes at a time; a
/// tail shorter than that is looked at together with bytes before it.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut bad = words.iter().fold(0, |bad, word| bad | not_plain(*word));
    bad |= match bytes.last_chunk::<8>() {
        Some(last) => not_plain(*last),
        None => tail.iter().fold(0, |bad, byte| bad | not_plain([*byte; 8])),
    };
    bad == 0
}

/// Not 0 if one of eight bytes is no printable ASCII character, or `+`, or `#`.
///
/// Each sum works on bytes below 0x80 and stays below 0x100, so that no carry crosses a byte; where
/// a byte is above, its own top bit is the answer already.
#[inline]
const fn not_plain(bytes: [u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x80 * ONES;
    let word = u64::from_ne_bytes(bytes);
    let at_least_space = word.wrapping_add(0x60 * ONES);
    let delete = word.wrapping_add(ONES);
    let not_plus = (word ^ (0x2B * ONES)).wrapping_add(0x7F * ONES);
    let not_hash = (word ^ (0x23 * ONES)).wrapping_add(0x7F * ONES);
    (word | delete | !(at_least_space & not_plus & not_hash)) & TOPS
}

fn is_forbidden(character: u32) -> bool {
    matches!(character, 0..=0x1F | 0x7F..=0x9F | 0xFDD0..=0xFDEF) || character & 0xFFFE == 0xFFFE
}

#[inline]
fn check_characters(text: &str) -> Result<(), TopicError> {
    forbidden_character(text).map_or(Ok(()), |character| Err(TopicError::Character(character)))
}

#[inline]
fn check_size(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    // A text of n bytes has at most n + 1 levels.
    if text.len() < TOPIC_LEVELS_MAX {
        return Ok(());
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong(text.len()));
    }
    let levels = text.bytes().filter(|&byte| byte == b'/').count() + 1;
    if levels > TOPIC_LEVELS_MAX {
        Err(TopicError::TooDeep(levels))
    } else {
        Ok(())
    }
}

fn check_wildcards(matched: &str) -> Result<(), FilterError> {
    let mut levels = matched.split('/').peekable();
    while let Some(level) = levels.next() {
        // [MQTT-4.7.1-1], [MQTT-4.7.1-2]
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(FilterError::Hash);
        }
        if level.contains('+') && level != "+" {
            return Err(FilterError::Plus);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
