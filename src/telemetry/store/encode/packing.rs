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
        for stretch in values.chunk_by(|one, other| one == other) {
            if let Some(value) = stretch.first() {
                self.push(*value, stretch.len());
            }
        }
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
        let (mut bits, mut held) = (0_u64, 0);
        for value in self.packed.drain(..) {
            bits |= u64::from(value) << held;
            held += self.width;
            if held >= 32 {
                let word = bits & u64::from(u32::MAX);
                let word = u32::try_from(word).unwrap_or_default();
                self.out.extend_from_slice(&word.to_le_bytes());
                bits >>= 32;
                held -= 32;
            }
        }
        // Whole groups are whole bytes.
        let bytes = usize::try_from(held / 8).unwrap_or_default();
        self.out
            .extend_from_slice(bits.to_le_bytes().get(..bytes).unwrap_or_default());
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
    let mut previous = first;
    for block in values.get(1..).unwrap_or_default().chunks(BLOCK) {
        let mut deltas = [0_i64; BLOCK];
        let mut least = i64::MAX;
        for (delta, value) in deltas.iter_mut().zip(block) {
            *delta = value.wrapping_sub(previous);
            previous = *value;
            least = least.min(*delta);
        }
        zigzag(out, least);
        let mut widths = [0_u8; PARTS];
        let at = out.len();
        out.extend_from_slice(&widths);
        let deltas = deltas.get(..block.len()).unwrap_or_default();
        for (part, width) in deltas.chunks(PART).zip(&mut widths) {
            let mut above = [0_u64; PART];
            let mut all = 0;
            for (above, delta) in above.iter_mut().zip(part) {
                *above = delta.wrapping_sub(least).cast_unsigned();
                all |= *above;
            }
            let bits = u64::BITS - all.leading_zeros();
            *width = u8::try_from(bits).unwrap_or_default();
            pack(out, &above, bits);
        }
        if let Some(place) = out.get_mut(at..at + PARTS) {
            place.copy_from_slice(&widths);
        }
    }
}

/// Each value in `width` bits, 64 at most; together they are whole bytes.
fn pack(out: &mut Vec<u8>, values: &[u64; PART], width: u32) {
    let (mut bits, mut held) = (0_u128, 0);
    for value in values {
        bits |= u128::from(*value) << held;
        held += width;
        if held >= u64::BITS {
            let word = u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
            out.extend_from_slice(&word.to_le_bytes());
            bits >>= u64::BITS;
            held -= u64::BITS;
        }
    }
    let bytes = usize::try_from(held / 8).unwrap_or_default();
    out.extend_from_slice(bits.to_le_bytes().get(..bytes).unwrap_or_default());
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
