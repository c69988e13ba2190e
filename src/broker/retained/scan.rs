//! From one topic to the next that a filter may match, in byte order of the topics.
//!
//! Below, "the topics behind `a/x/`" are those that begin with it: in byte order they stand
//! together, and the first that may follow them is `a/x0`, because `0` comes after `/`. Siblings
//! whose names go on with a character before `/` (`a/x-y`) stand between `a/x` and `a/x/…`.

use crate::mqtt::topic::Filter;

/// Writes to `target` where a search begins: no topic before it is matched.
pub(super) fn begin(filter: Filter<'_>, target: &mut String) {
    target.clear();
    for (number, level) in filter.levels().enumerate() {
        if level == "+" || level == "#" {
            return;
        }
        if number > 0 {
            target.push('/');
        }
        target.push_str(level);
    }
}

/// Writes to `target` a text behind `topic`, which the filter does not match, such that it matches
/// no topic between the two. False if it matches nothing behind `topic`.
pub(super) fn skip(filter: Filter<'_>, topic: &str, target: &mut String) -> bool {
    target.clear();
    let begins_open = filter.matched().starts_with(['+', '#']);
    if begins_open && topic.starts_with('$') {
        target.push('%'); // the character behind `$` [MQTT-4.7.2-1]
        return true;
    }
    let mut has_plus = false;
    let mut levels = filter.levels();
    // Where the level begins in the topic.
    let mut start = 0;
    for name in topic.split('/') {
        let before = topic.get(..start).unwrap_or_default();
        let Some(level) = levels.next() else {
            // The topic has more levels than the filter, and so has everything behind `before`.
            return has_plus && pass(before, target);
        };
        if level == "#" {
            return false; // it would have been a match
        }
        if level == "+" {
            has_plus = true;
        } else if level != name {
            // Behind `before` only this level, and what is below it, can match.
            target.push_str(before);
            target.push_str(level);
            if target.as_str() > topic {
                return true;
            }
            target.push('/');
            if target.as_str() > topic {
                return true;
            }
            target.clear();
            return has_plus && pass(before, target);
        }
        start += name.len() + 1;
    }
    // The topic ends before the filter does: the next one may be anything.
    follow(topic, target);
    true
}

/// Writes the first text behind `topic`: no topic contains U+0000.
pub(super) fn follow(topic: &str, target: &mut String) {
    target.clear();
    target.push_str(topic);
    target.push('\0');
}

/// Writes the first text that does not begin with `before`, which ends with `/`.
fn pass(before: &str, target: &mut String) -> bool {
    let Some(path) = before.strip_suffix('/') else {
        return false;
    };
    target.push_str(path);
    target.push('0');
    true
}
