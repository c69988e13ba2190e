//! Reading back what `encode/packing.rs` writes: whole numbers in few bits.
//!
//! What is garbled answers `None`; nothing here trusts a length it has read.

/// Values of a group of packed ones.
const GROUP: usize = 8;

/// Values of a part of a block of deltas.
const PART: usize = 32;

/// Most bytes of a packed part, and eight behind it that may be read with the last value.
const PART_BYTES: usize = PART * 8 + 8;

/// Calls `visit` for the stretches of `count` small numbers of one width, packed ones one by one.
pub(super) fn hybrid(
    bytes: &[u8],
    width: u32,
    count: usize,
    mut visit: impl FnMut(u32, usize),
) -> Option<()> {
    if width > u32::BITS {
        return None;
    }
    let (mut rest, mut left) = (bytes, count);
    while left > 0 {
        let header = usize::try_from(varint(&mut rest)?).ok()?;
        if header & 1 == 0 {
            let bytes = usize::try_from(width.div_ceil(8)).ok()?;
            let (now, later) = rest.split_at_checked(bytes)?;
            rest = later;
            let value = now
                .iter()
                .rev()
                .fold(0, |all, byte| all << 8 | u32::from(*byte));
            let rows = (header >> 1).min(left);
            if rows == 0 {
                return None;
            }
            visit(value, rows);
            left -= rows;
            continue;
        }
        let bytes = (header >> 1).checked_mul(usize::try_from(width).ok()?)?;
        let (mut now, later) = rest.split_at_checked(bytes)?;
        rest = later;
        let mut groups = header >> 1;
        if groups == 0 {
            return None;
        }
        while groups > 0 && left > 0 {
            // As many groups as a part has, so that there is one way to unpack.
            let some = groups.min(PART / GROUP);
            let (part, behind) = now.split_at_checked(some * bytes / (header >> 1))?;
            let values = unpack(part, width)?;
            let here = (some * GROUP).min(left);
            for value in values.iter().take(here) {
                visit(u32::try_from(*value).ok()?, 1);
            }
            (now, groups, left) = (behind, groups - some, left - here);
        }
    }
    Some(())
}

/// Adds `wanted` values that are written as differences.
pub(super) fn delta(bytes: &[u8], wanted: usize, out: &mut Vec<i64>) -> Option<()> {
    let mut rest = bytes;
    let block = usize::try_from(varint(&mut rest)?).ok()?;
    let parts = usize::try_from(varint(&mut rest)?).ok()?;
    let count = usize::try_from(varint(&mut rest)?).ok()?;
    if parts == 0 || block != parts.checked_mul(PART)? || parts > PART {
        return None; // other sizes of blocks are not ours
    }
    let mut value = zigzag(&mut rest)?;
    if count != wanted {
        return None;
    }
    let Some(mut left) = count.checked_sub(1) else {
        return Some(());
    };
    out.push(value);
    while left > 0 {
        let least = zigzag(&mut rest)?;
        let (widths, later) = rest.split_at_checked(parts)?;
        rest = later;
        for width in widths {
            if left == 0 {
                break;
            }
            let here = left.min(PART);
            left -= here;
            if *width == 0 {
                for _ in 0..here {
                    value = value.wrapping_add(least);
                    out.push(value);
                }
                continue;
            }
            let (part, later) = rest.split_at_checked(usize::from(*width) * PART / 8)?;
            rest = later;
            let above = unpack(part, u32::from(*width))?;
            out.extend(above.iter().take(here).map(|above| {
                value = value.wrapping_add(least).wrapping_add(above.cast_signed());
                value
            }));
        }
    }
    Some(())
}

/// Up to 32 values of `width` bits, 64 at most; zeros behind them.
#[inline]
fn unpack(bytes: &[u8], width: u32) -> Option<[u64; PART]> {
    let mut held = [0; PART_BYTES];
    held.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let width = usize::try_from(width).ok().filter(|width| *width <= 64)?;
    let mask = u64::MAX
        .checked_shr(64 - u32::try_from(width).ok()?)
        .unwrap_or_default();
    let mut values = [0; PART];
    let mut bit = 0;
    for value in &mut values {
        let from = held.get(bit / 8..)?;
        let shift = bit % 8;
        let low = u64::from_le_bytes(*from.first_chunk()?) >> shift;
        *value = if width + shift <= 64 {
            low & mask
        } else {
            (low | u64::from(*from.get(8)?) << (64 - shift)) & mask
        };
        bit += width;
    }
    Some(values)
}

/// A number of a length that it tells itself.
pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0_u64, 0_u32);
    loop {
        let (byte, later) = rest.split_first()?;
        *rest = later;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

fn zigzag(rest: &mut &[u8]) -> Option<i64> {
    let number = varint(rest)?;
    Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}
