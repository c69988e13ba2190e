//! The two ways in which Parquet writes whole numbers in few bits.
//!
//! Both are written here, as the files of this store consist of stretches: a device or a key that
//! stays for a thousand rows is one step instead of a thousand. A property test reads what was
//! written with the library.

/// Values of a group: stretches and packed values change over only between groups.
const GROUP: usize = 8;

/// Values of a block of deltas, and of one part of it, which has a width of its own.
const BLOCK: usize = 128;
const PART: usize = 32;
const PARTS: usize = BLOCK / PART;

/// Small numbers of one width (`RLE`): stretches of one value, and packed ones.
pub(super) struct Hybrid<'o> {
    out: &'o mut Vec<u8>,
    width: u32,
    /// Values that are not written yet. They are packed; only the last group may be short.
    packed: Vec<u32>,
}

impl<'o> Hybrid<'o> {
    /// Writes behind what is in `out`. `width`: bits of the greatest value, 32 at most.
    pub(super) fn new(out: &'o mut Vec<u8>, width: u32) -> Self {
        Self {
            out,
            width,
            packed: Vec::new(),
        }
    }

    /// Adds a value `count` times.
    #[inline]
    pub(super) fn push(&mut self, value: u32, count: usize) {
        let fill = self.packed.len().next_multiple_of(GROUP) - self.packed.len();
        if count < fill + GROUP {
            self.packed.extend(std::iter::repeat_n(value, count));
            return;
        }
        self.packed.extend(std::iter::repeat_n(value, fill));
        self.end_packed();
        varint(self.out, wide(count - fill) << 1);
        let bytes = usize::try_from(self.width.div_ceil(8)).unwrap_or_default();
        let value = value.to_le_bytes();
        self.out
            .extend_from_slice(value.get(..bytes).unwrap_or_default());
    }

    /// Adds values one by one.
    pub(super) fn extend(&mut self, values: &[u32]) {
        // Only stretches that fill groups are worth a look.
        let mut open = (0, 0);
        let (groups, rest) = values.as_chunks::<GROUP>();
        for group in groups {
            let [first, ..] = *group;
            let is_stretch = group.iter().all(|value| *value == first);
            if is_stretch && open.0 == first && open.1 > 0 {
                open.1 += GROUP;
                continue;
            }
            self.push(open.0, open.1);
            open = (first, 0);
            if is_stretch {
                open.1 = GROUP;
            } else {
                self.packed.extend_from_slice(group);
            }
        }
        self.push(open.0, open.1);
        self.packed.extend_from_slice(rest);
    }

    /// Writes what is left; a last group is filled with zeros.
    pub(super) fn finish(mut self) {
        self.end_packed();
    }

    fn end_packed(&mut self) {
        if self.packed.is_empty() {
            return;
        }
        let groups = self.packed.len().div_ceil(GROUP);
        self.packed.resize(groups * GROUP, 0);
        varint(self.out, wide(groups) << 1 | 1);
        let width = usize::try_from(self.width).unwrap_or_default();
        // Whole groups are whole bytes.
        let mut words = Words::new(self.out, groups * width);
        for value in self.packed.drain(..) {
            words.push(u64::from(value), self.width);
        }
        words.finish();
    }
}

/// Bits one behind the other in a part of a list that is as long as they are.
struct Words<'o> {
    rest: &'o mut [u8],
    bits: u64,
    held: u32,
}

impl<'o> Words<'o> {
    /// Behind what is in `out`: so many whole bytes.
    fn new(out: &'o mut Vec<u8>, bytes: usize) -> Self {
        let at = out.len();
        out.resize(at + bytes, 0);
        Self {
            rest: out.get_mut(at..).unwrap_or_default(),
            bits: 0,
            held: 0,
        }
    }

    /// The next value, which has no bits beyond `width`, 64 at most.
    #[inline]
    fn push(&mut self, value: u64, width: u32) {
        self.bits |= value << self.held;
        let held = self.held + width;
        if held < u64::BITS {
            self.held = held;
            return;
        }
        if let Some((word, rest)) = std::mem::take(&mut self.rest).split_first_chunk_mut() {
            *word = self.bits.to_le_bytes();
            self.rest = rest;
        }
        self.held = held - u64::BITS;
        // A shift by all 64 bits leaves nothing, which the processor does not know.
        self.bits = value.checked_shr(width - self.held).unwrap_or_default();
    }

    fn finish(self) {
        for (place, byte) in self.rest.iter_mut().zip(self.bits.to_le_bytes()) {
            *place = byte;
        }
    }
}

/// Bits of the greatest of so many numbers, counted from 0.
pub(super) fn width_of(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}

/// Differences from value to value (`DELTA_BINARY_PACKED`). They may wrap around.
pub(super) fn delta(out: &mut Vec<u8>, values: &[i64]) {
    let first = values.first().copied().unwrap_or_default();
    varint(out, wide(BLOCK));
    varint(out, wide(PARTS));
    varint(out, wide(values.len()));
    zigzag(out, first);
    let later = values.get(1..).unwrap_or_default();
    for (block, before) in later.chunks(BLOCK).zip(values.chunks(BLOCK)) {
        let mut deltas = [0_i64; BLOCK];
        let mut least = i64::MAX;
        for (delta, (value, before)) in deltas.iter_mut().zip(block.iter().zip(before)) {
            *delta = value.wrapping_sub(*before);
            least = least.min(*delta);
        }
        // What is behind the last value takes no bits of its own.
        let mut above = [0_u64; BLOCK];
        for (above, delta) in above.iter_mut().zip(&deltas).take(block.len()) {
            *above = delta.wrapping_sub(least).cast_unsigned();
        }
        zigzag(out, least);
        let at = out.len();
        out.extend_from_slice(&[0; PARTS]);
        let (parts, _) = above.as_chunks::<PART>();
        for (number, part) in parts.iter().enumerate().take(block.len().div_ceil(PART)) {
            let width = u64::BITS - part.iter().fold(0, |all, one| all | one).leading_zeros();
            if let Some(place) = out.get_mut(at + number) {
                *place = u8::try_from(width).unwrap_or_default();
            }
            pack(out, part, width);
        }
    }
}

/// Each value in `width` bits, 64 at most; together they are whole bytes.
fn pack(out: &mut Vec<u8>, values: &[u64; PART], width: u32) {
    if width == 0 {
        return;
    }
    let bytes = PART / 8 * usize::try_from(width).unwrap_or_default();
    let mut words = Words::new(out, bytes);
    for value in values {
        words.push(*value, width);
    }
    words.finish();
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn zigzag(out: &mut Vec<u8>, number: i64) {
    varint(out, (number << 1 ^ number >> 63).cast_unsigned());
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
