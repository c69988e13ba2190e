//! Texts of a row group, each kept once, as a dictionary has them.

use std::hash::BuildHasher;

use super::super::hasher::Cheap;

/// Different texts with their numbers, in order of their first appearance.
#[derive(Default)]
pub(super) struct Names {
    /// Each with its length before it, in four bytes.
    plain: Vec<u8>,
    /// Where each begins in `plain`, behind its length, and its hash.
    places: Vec<(usize, u64)>,
    /// Numbers by hash, one higher, as 0 is an empty place; at least twice as many places as texts.
    table: Vec<u32>,
}

/// Places of the first table.
const TABLE_LEN_MIN: usize = 64;

impl Names {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// All of them, as a dictionary page has them.
    pub(super) fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// The text with this number.
    #[inline]
    pub(super) fn get(&self, number: u32) -> &[u8] {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let Some((begin, _)) = self.places.get(number) else {
            return &[];
        };
        let next = number.checked_add(1).and_then(|next| self.places.get(next));
        let end = next.map_or(self.plain.len(), |(next, _)| next - LEN_BYTES);
        self.plain.get(*begin..end).unwrap_or_default()
    }

    /// The number of a text, which is kept if it is a new one.
    #[inline]
    pub(super) fn number(&mut self, text: &[u8]) -> u32 {
        if self.places.len() * 2 >= self.table.len() {
            self.grow();
        }
        let hash = Cheap::default().hash_one(text);
        let mask = self.table.len() - 1;
        let mut at = place(hash, mask);
        while let Some(known) = self.table.get(at).and_then(|number| number.checked_sub(1)) {
            let held = self
                .places
                .get(usize::try_from(known).unwrap_or(usize::MAX));
            if held.is_some_and(|(_, other)| *other == hash) && self.get(known) == text {
                return known;
            }
            at = (at + 1) & mask;
        }
        // A row group has as many texts as rows at most.
        let number = u32::try_from(self.places.len()).unwrap_or(u32::MAX - 1);
        if let Some(free) = self.table.get_mut(at) {
            *free = number + 1;
        }
        let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.plain.extend_from_slice(&len.to_le_bytes());
        self.places.push((self.plain.len(), hash));
        self.plain.extend_from_slice(text);
        number
    }

    /// Forgets them; storage that is not large is kept.
    pub(super) fn clear(&mut self) {
        if self.plain.capacity() > PLAIN_KEPT_MAX || self.table.len() > TABLE_KEPT_MAX {
            *self = Self::default();
            return;
        }
        self.plain.clear();
        self.places.clear();
        self.table.fill(0);
    }

    fn grow(&mut self) {
        let len = (self.table.len() * 2).max(TABLE_LEN_MIN);
        let mut table = vec![0_u32; len];
        let mask = len - 1;
        for (number, (_, hash)) in (1..).zip(&self.places) {
            let mut at = place(*hash, mask);
            while table.get(at).is_some_and(|taken| *taken != 0) {
                at = (at + 1) & mask;
            }
            if let Some(free) = table.get_mut(at) {
                *free = number;
            }
        }
        self.table = table;
    }
}

/// Bytes of the length before each.
const LEN_BYTES: usize = size_of::<u32>();

/// Storage kept for the next row group: few row groups have more.
const PLAIN_KEPT_MAX: usize = 1024 * 1024;
const TABLE_KEPT_MAX: usize = 64 * 1024;

fn place(hash: u64, mask: usize) -> usize {
    usize::try_from(hash >> 20).unwrap_or_default() & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_has_one_number_and_comes_back_by_it() {
        let mut names = Names::default();
        for round in 0..2 {
            for _ in 0..3 {
                for number in 0..1_000_u32 {
                    // Of any length, none included.
                    let text = "x".repeat(usize::try_from(number % 40).unwrap());
                    let text = format!("{text}{}", number / 40);
                    let text = if number == 0 { "" } else { &text };
                    assert_eq!(names.number(text.as_bytes()), number, "round {round}");
                    assert_eq!(names.get(number), text.as_bytes());
                }
            }
            assert_eq!(names.len(), 1_000);
            assert_eq!(names.plain().first_chunk(), Some(&[0; 4]));
            assert_eq!(names.get(1_000), b"");
            names.clear();
            assert_eq!((names.len(), names.plain()), (0, &[][..]));
        }
    }
}
