//! REL-26: the last segment cut at every byte, and blocks of its last commit lost.

use std::path::PathBuf;

use tollgate::journal::Offset;

use super::fault_disk::{FaultDisk, Image};
use super::support::{DIR, open};

const DATA_START: usize = 8192;

/// A batch as `docs/journal-format.md` lays it out: end position in the file, last offset.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    end: usize,
    last: u64,
}

/// A reading of the format that shares no code with the journal's.
fn batches(file: &[u8]) -> Vec<Place> {
    let number = |at: usize, len: usize| {
        file[at..at + len]
            .iter()
            .rev()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let mut places = Vec::new();
    let mut at = DATA_START;
    while at + 40 <= file.len() && number(at, 8) == number(16, 8) {
        let body_len = number(at + 28, 4) as usize;
        let end = (at + 40 + body_len).next_multiple_of(8);
        places.push(Place {
            start: at,
            end,
            last: number(at + 16, 8) + number(at + 24, 4) - 1,
        });
        at = end;
    }
    places
}

fn segment(first: u64) -> PathBuf {
    PathBuf::from(DIR).join(format!("{first:020}.journal"))
}

/// One commit per batch in one segment, not closed.
fn journal(batches: &[&[(u64, usize)]]) -> Image {
    let disk = FaultDisk::new(1);
    let bench = open(&disk);
    let mut submitter = bench.submitter();
    for batch in batches {
        bench.write(&mut submitter, batch);
    }
    let mut image = disk.image();
    image.retain(|path, _| *path == segment(1));
    image
}

fn comes_back(image: &Image, last: u64, cut_at: Option<u64>, what: &str) {
    let disk = FaultDisk::from_image(image, 1);
    let bench = open(&disk);
    let cut = bench.recovery.cut.as_ref();
    assert_eq!(bench.recovery.last, Offset::new(last), "{what}");
    assert_eq!(cut.map(|cut| cut.position), cut_at, "{what}: {cut:?}");
    assert!(
        cut.is_none_or(|cut| cut.file == segment(1) && cut.bytes > 0),
        "{what}: {cut:?}"
    );
    let (records, damage) = bench.read_all();
    assert!(damage.is_empty(), "{what}: {damage:?}");
    let expected: Vec<_> = (1..=last)
        .map(|number| (Offset::new(number), number))
        .collect();
    assert_eq!(records, expected, "{what}");
    // The place of the lost records is taken by new ones, and nothing stale shows behind them.
    bench.write(&mut bench.submitter(), &[(last + 1, 50)]);
    let (records, damage) = bench.read_all();
    assert!(
        damage.is_empty() && records.len() as u64 == last + 1,
        "{what}: {damage:?}"
    );
}

#[test]
fn rel_26_last_segment_cut_at_every_byte() {
    let image = journal(&[
        &[(1, 5)],
        &[(2, 0), (3, 1), (4, 120)],
        &[(5, 33)],
        &[(6, 300), (7, 7)],
        &[(8, 64)],
    ]);
    let file = &image[&segment(1)];
    let places = batches(file);
    assert_eq!(places.len(), 5);
    let written = places[4].end;
    // Before the first batch only few cuts make a difference.
    let cuts = (0..DATA_START).step_by(61).chain(DATA_START..=written);
    for cut in cuts {
        for zeros in [false, true] {
            let mut cut_image = image.clone();
            let file = cut_image.get_mut(&segment(1)).unwrap();
            let len = file.len();
            file.truncate(cut);
            if zeros {
                file.resize(len, 0);
            }
            // A batch whose last bytes are zero anyway is whole without them.
            let is_whole =
                |place: &&Place| file.get(..place.end) == image[&segment(1)].get(..place.end);
            let whole = places.iter().rev().find(is_whole);
            let last = whole.map_or(0, |place| place.last);
            let end = whole.map_or(DATA_START, |place| place.end);
            assert!(zeros || whole.is_none_or(|place| place.end <= cut));
            let torn = file.iter().skip(end).any(|byte| *byte != 0);
            let cut_at = torn.then_some(end as u64);
            comes_back(
                &cut_image,
                last,
                cut_at,
                &format!("cut at {cut}, zeros: {zeros}"),
            );
        }
    }
}

#[test]
fn rel_26_any_block_of_the_last_commit_lost() {
    let large: Vec<_> = (4..20).map(|number| (number, 600)).collect();
    let image = journal(&[&[(1, 10), (2, 20)], &[(3, 30)], &large]);
    let places = batches(&image[&segment(1)]);
    let last = places[2];
    for size in [512, 4096] {
        for block in last.start / size..=(last.end - 1) / size {
            let mut torn = image.clone();
            let file = torn.get_mut(&segment(1)).unwrap();
            // The block as it was before: zeros behind the commit that was synced last.
            let start = (block * size).max(last.start);
            let end = ((block + 1) * size).min(last.end);
            file[start..end].fill(0);
            let what = format!("block {block} of {size} bytes lost");
            let whole_again = file.iter().skip(last.start).all(|byte| *byte == 0);
            assert!(!whole_again);
            comes_back(&torn, 3, Some(last.start as u64), &what);
        }
    }
}

/// A torn tail that happens to be followed by an old batch of another file stays a torn tail.
#[test]
fn a_batch_of_another_file_is_never_taken() {
    let other = journal(&[&[(1, 10)], &[(2, 20)], &[(3, 30)]]);
    let mut image = journal(&[&[(1, 10)], &[(2, 20)]]);
    let stale = other[&segment(1)].clone();
    let place = batches(&stale)[2];
    let file = image.get_mut(&segment(1)).unwrap();
    file[place.start..place.end].copy_from_slice(&stale[place.start..place.end]);
    comes_back(
        &image,
        2,
        Some(place.start as u64),
        "a stale batch of another file",
    );
}

/// After a cut, what was behind it is never served: neither at the next start nor later.
#[test]
fn nothing_behind_a_cut_comes_back() {
    let mut torn = journal(&[&[(1, 10)], &[(2, 200)], &[(3, 30)]]);
    let places = batches(&torn[&segment(1)]);
    torn.get_mut(&segment(1)).unwrap()[places[2].end - 9] ^= 1;
    let mut disk = FaultDisk::from_image(&torn, 1);
    for start in 0..4u64 {
        let bench = open(&disk);
        let last = 2 + start;
        assert_eq!(bench.recovery.last, Offset::new(last));
        assert_eq!(bench.recovery.cut.is_some(), start == 0);
        bench.write(&mut bench.submitter(), &[(last + 1, 10)]);
        let (records, damage) = bench.read_all();
        assert_eq!(damage, []);
        let expected: Vec<_> = (1..=last + 1).map(|n| (Offset::new(n), n)).collect();
        assert_eq!(records, expected);
        disk = disk.kill();
    }
}
