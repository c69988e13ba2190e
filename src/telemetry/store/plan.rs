//! Which files are merged next. Pure, so that a test can play years of it.
//!
//! A file's tier is how often its size has grown eightfold. Eight files of a tier, with nothing
//! larger between them, become one of the next tier, and so do fewer that fill a file, and any 16
//! neighbours; so a sample is written some four times in all, and there are few files. Neighbours
//! only: a file's name goes on telling the offsets in it.

use std::ops::Range;

/// Files of a tier that are merged.
const FILES_PER_TIER: usize = 8;

/// Most files merged at a time: each costs memory for what is being decoded of it.
const FILES_MERGED_MAX: usize = 16;

/// Bytes below which a file is of the lowest tier, but for a factor of eight.
const TIER_BYTES: u64 = 64 * 1024;

/// Bytes of a file from which on it is left as it is: whole files are what retention removes, and
/// what the footer of a merge takes in memory grows with it, some 50 KiB for each MiB.
pub(super) const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A file as far as the plan is concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Its length.
    pub(super) bytes: u64,
    /// Least and greatest time in it.
    pub(super) times: (i64, i64),
    /// It must stay as it is.
    pub(super) is_fixed: bool,
}

/// The neighbours to merge next, if any. `span_max_ms`: no file may hold a longer stretch of time.
pub(super) fn next(files: &[Candidate], span_max_ms: Option<i64>) -> Option<Range<usize>> {
    let tiers = files.iter().map(|file| tier(file.bytes));
    let highest = tiers.max()?;
    (0..=highest).find_map(|highest| run(files, highest, span_max_ms))
}

fn tier(bytes: u64) -> u32 {
    (bytes / TIER_BYTES).max(1).ilog2() / 3
}

/// A run of neighbours not above a tier with enough files of just this one.
fn run(files: &[Candidate], highest: u32, span_max_ms: Option<i64>) -> Option<Range<usize>> {
    let mut start = 0;
    while start < files.len() {
        let mut end = start;
        let (mut bytes, mut of_tier, mut is_full) = (0_u64, 0, false);
        let (mut least, mut greatest) = (i64::MAX, i64::MIN);
        for file in files.get(start..).into_iter().flatten() {
            let times = (least.min(file.times.0), greatest.max(file.times.1));
            let is_too_long =
                span_max_ms.is_some_and(|span| times.1.saturating_sub(times.0) > span);
            let is_candidate = !file.is_fixed && tier(file.bytes) <= highest;
            is_full = is_candidate && bytes.saturating_add(file.bytes) > FILE_BYTES_MAX;
            let fits = is_candidate
                && !is_full
                && end - start < FILES_MERGED_MAX
                && !(is_too_long && end > start);
            if !fits {
                break;
            }
            (least, greatest) = times;
            bytes += file.bytes;
            of_tier += usize::from(tier(file.bytes) == highest);
            end += 1;
        }
        let is_long = end - start >= FILES_MERGED_MAX;
        if of_tier >= FILES_PER_TIER || is_long || is_full && of_tier >= 2 {
            return Some(start..end);
        }
        start = end.max(start + 1);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn file(bytes: u64) -> Candidate {
        Candidate {
            bytes,
            times: (0, 0),
            is_fixed: false,
        }
    }

    /// Seals files of a size and merges as planned; the files at the end, and bytes written.
    fn play(bytes: u64, count: usize) -> (Vec<Candidate>, u64) {
        let (mut files, mut written) = (Vec::new(), 0);
        for _ in 0..count {
            files.push(file(bytes));
            while let Some(range) = next(&files, None) {
                let merged = files.drain(range.clone()).map(|file| file.bytes).sum();
                written += merged;
                files.insert(range.start, file(merged));
            }
        }
        (files, written)
    }

    #[test]
    fn few_files_are_left_and_each_byte_is_written_a_few_times() {
        for bytes in [100, MIB, 3 * MIB, 40 * MIB] {
            let (files, written) = play(bytes, 2_000);
            let total: u64 = files.iter().map(|file| file.bytes).sum();
            assert_eq!(total, bytes * 2_000);
            let full = usize::try_from(total / FILE_BYTES_MAX).unwrap();
            assert!(
                files.len() <= 2 * full + 20,
                "{bytes}: {} files",
                files.len()
            );
            let times = written / total;
            // Tiny files are all of one tier: merged by up to 16, a few hundred bytes each time.
            let times_max = if bytes < MIB { 600 } else { 7 };
            assert!(
                times <= times_max,
                "{bytes}: each byte written {times} times"
            );
            assert!(files.iter().all(|file| file.bytes <= FILE_BYTES_MAX));
        }
    }

    #[test]
    fn damaged_files_and_long_times_are_borders() {
        let mut files = vec![file(MIB); 15];
        assert_eq!(next(&files, None), Some(0..15));
        files[7].is_fixed = true;
        assert_eq!(next(&files, None), None);
        files.push(file(MIB));
        assert_eq!(next(&files, None), Some(8..16));
        let days: Vec<_> = (0..20)
            .map(|day| Candidate {
                times: (day, day + 1),
                ..file(MIB)
            })
            .collect();
        assert_eq!(next(&days, Some(9)), Some(0..9));
        assert_eq!(next(&days, Some(2)), None);
        assert_eq!(next(&[], None), None);
    }

    #[test]
    fn files_of_two_tiers_in_turn_do_not_pile_up() {
        let mut files: Vec<_> = (0..15)
            .map(|number| file(if number % 4 == 3 { MIB } else { 1_000 }))
            .collect();
        assert_eq!(next(&files, None), None);
        files.push(file(1_000));
        assert_eq!(next(&files, None), Some(0..16));
    }
}
