//! Nested values as compact strict JSON.

use std::fmt::Write;

use super::error::PayloadError;
use super::json::{Events, Kind, Scanner, Token, unescape};

/// The value of `token` without blanks and comments, with quotes where strict JSON needs them.
/// Numbers keep their text. Of equal names in an object the last value counts and the first place,
/// at every level. `depth`: the containers around the value.
///
/// # Errors
/// Those of the scanner; a token it has read before gives none.
pub(super) fn compact(text: &str, token: Token, depth: u32) -> Result<String, PayloadError> {
    let mut writer = Writer {
        text,
        out: String::with_capacity(token.end - token.start),
        members: Vec::new(),
        objects: Vec::new(),
    };
    Scanner::at(text, token).walk(depth, &mut writer)?;
    Ok(writer.out)
}

struct Writer<'a> {
    text: &'a str,
    out: String,
    /// The members of all objects that are open, those of an inner one behind those of an outer.
    members: Vec<Member>,
    /// Where in `members` each open object begins; at most as many as the nesting allows.
    objects: Vec<usize>,
}

/// A member of an open object, by its places in the output.
#[derive(Clone, Copy)]
struct Member {
    name: usize,
    value: usize,
}

impl Events for Writer<'_> {
    fn open(&mut self, object: bool) {
        self.separate();
        self.out.push(if object { '{' } else { '[' });
        if object {
            self.objects.push(self.members.len());
        }
    }

    fn close(&mut self, object: bool) {
        if object && let Some(begin) = self.objects.pop() {
            self.drop_duplicates(begin);
            self.members.truncate(begin);
        }
        self.out.push(if object { '}' } else { ']' });
    }

    fn name(&mut self, name: Token) {
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        let start = self.out.len();
        self.string(name);
        self.out.push(':');
        self.members.push(Member {
            name: start,
            value: self.out.len(),
        });
    }

    fn scalar(&mut self, value: Token) {
        self.separate();
        match value.kind {
            Kind::Null => self.out.push_str("null"),
            Kind::Bool(true) => self.out.push_str("true"),
            Kind::Bool(false) => self.out.push_str("false"),
            Kind::Text | Kind::EscapedText => self.string(value),
            Kind::Number | Kind::Object | Kind::Array => self.out.push_str(value.raw(self.text)),
        }
    }
}

impl Writer<'_> {
    /// A comma before an array element that is not the first. A string ends with a quote, so the
    /// last byte tells what was written before.
    fn separate(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with(['[', ':']) {
            self.out.push(',');
        }
    }

    fn string(&mut self, token: Token) {
        self.out.push('"');
        let raw = token.raw(self.text);
        if token.kind == Kind::EscapedText {
            unescape(raw).for_each(|character| push_escaped(&mut self.out, character));
        } else {
            raw.chars()
                .for_each(|character| push_escaped(&mut self.out, character));
        }
        self.out.push('"');
    }

    /// Rewrites the innermost object if a name is there twice.
    fn drop_duplicates(&mut self, begin: usize) {
        let members = self.members.get(begin..).unwrap_or_default();
        let Some(first) = members.first() else { return };
        let name = |member: &Member| self.out.get(member.name..member.value).unwrap_or_default();
        let mut order: Vec<usize> = (0..members.len()).collect();
        // Sorted by name, so that no choice of names makes this slow.
        order.sort_by_key(|&index| members.get(index).map(name));
        let same = |a: &usize, b: &usize| members.get(*a).map(name) == members.get(*b).map(name);
        if order
            .windows(2)
            .all(|pair| !matches!(pair, [a, b] if same(a, b)))
        {
            return;
        }
        let mut kept: Vec<(usize, usize)> = order
            .chunk_by(same)
            .filter_map(|group| Some((*group.first()?, *group.last()?)))
            .collect();
        kept.sort_unstable();
        let mut rewritten = String::with_capacity(self.out.len() - first.name);
        for (_, index) in kept {
            let Some(member) = members.get(index) else {
                continue;
            };
            // A member ends before the comma of the next one.
            let end = members
                .get(index + 1)
                .map_or(self.out.len(), |next| next.name - 1);
            if !rewritten.is_empty() {
                rewritten.push(',');
            }
            rewritten.push_str(self.out.get(member.name..end).unwrap_or_default());
        }
        self.out.truncate(first.name);
        self.out.push_str(&rewritten);
    }
}

fn push_escaped(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\0'..='\u{1f}' => {
            // Writing into a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        }
        _ => out.push(character),
    }
}
