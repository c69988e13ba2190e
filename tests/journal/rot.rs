//! REL-27, REL-05: flipped bits and blocks are detected, reported with their place, and never
//! served; everything else is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tollgate::journal::{DAMAGE_REPORTS_MAX, Damage, JournalOptions, Offset};

use super::fault_disk::{FaultDisk, Image};
use super::support::{Bench, DIR, Random, open, open_with, options, until};

const HEADER_BLOCK: usize = 4096;
const RECORDS: u64 = 120;

/// Three segments and more, closed cleanly.
fn journal() -> Image {
    let disk = FaultDisk::new(1);
    let bench = open(&disk);
    let mut submitter = bench.submitter();
    let mut next = 1;
    while next <= RECORDS {
        let samples: Vec<_> = (next..next + 4)
            .map(|n| (n, (n * 37 % 500) as usize))
            .collect();
        bench.write(&mut submitter, &samples);
        next += 4;
    }
    // Not while its helper still makes the next file: the image is the same every time.
    until("the next segment is prepared", || {
        let segments = bench.journal.usage().segments;
        bench.journal.usage().bytes == (segments + 1) * super::support::SEGMENT_BYTES
    });
    bench.journal.close().unwrap();
    let mut image = disk.image();
    image.retain(|path, _| path.extension().is_some_and(|end| end == "journal"));
    image
}

/// Last byte of every file that means something, plus one.
fn written(image: &Image) -> BTreeMap<PathBuf, usize> {
    let end = |file: &Vec<u8>| file.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    image
        .iter()
        .map(|(path, file)| (path.clone(), end(file)))
        .collect()
}

/// What is served is right, what is not served is reported, and at the flipped place.
fn check(bench: &Bench, file: &PathBuf, at: usize, must_report: bool, what: &str) {
    let (records, damage) = bench.read_all();
    let mut expected = 1;
    let covers = |damage: &[Damage], offset: u64| {
        let offset = Offset::new(offset);
        damage
            .iter()
            .any(|one| one.first <= offset && offset < one.next)
    };
    for (offset, number) in &records {
        assert_eq!(
            offset.number(),
            *number,
            "{what}: a record at a wrong place"
        );
        for missing in expected..*number {
            assert!(
                covers(&damage, missing),
                "{what}: {missing} is silently missing"
            );
        }
        assert!(*number >= expected, "{what}: {number} comes twice");
        expected = number + 1;
    }
    for missing in expected..=RECORDS {
        let cut = bench.recovery.last.number() < missing;
        assert!(
            cut || covers(&damage, missing),
            "{what}: {missing} is silently missing"
        );
    }
    let reports = bench.recovery.damage.iter().chain(&damage);
    let mut places: Vec<_> = reports.map(|one| (&one.file, one.position)).collect();
    places.extend(
        bench
            .recovery
            .cut
            .as_ref()
            .map(|cut| (&cut.file, cut.position)),
    );
    let named = places
        .iter()
        .any(|(path, position)| *path == file && *position <= at as u64);
    assert!(
        named || !must_report,
        "{what}: not reported, only {places:?}"
    );
    assert!(
        places.iter().all(|(path, _)| *path == file),
        "{what}: wrong file in {places:?}"
    );
}

/// Whether a change of this byte must be seen: the file's last segment is searched to its end, of
/// the others everything up to the last batch. The rest of a header's block is never read.
fn means_something(at: usize, written: usize, is_last: bool) -> bool {
    let in_header = at % HEADER_BLOCK < 64 && at < 2 * HEADER_BLOCK;
    in_header || (at >= 2 * HEADER_BLOCK && (is_last || at < written))
}

#[test]
fn rel_27_flipped_bits() {
    let image = journal();
    let written = written(&image);
    let files: Vec<_> = image.keys().cloned().collect();
    assert!(files.len() >= 3);
    let mut random = Random::new(27);
    for _ in 0..3_000 {
        let index = random.below(files.len() as u64) as usize;
        let file = &files[index];
        // Most flips where something is written.
        let bound = if random.chance(90) {
            written[file]
        } else {
            image[file].len()
        };
        let at = random.below(bound as u64) as usize;
        let bit = random.below(8);
        let mut flipped = image.clone();
        flipped.get_mut(file).unwrap()[at] ^= 1 << bit;
        let what = format!("bit {bit} of byte {at} of {}", file.display());
        let bench = open(&FaultDisk::from_image(&flipped, 1));
        let is_last = index == files.len() - 1;
        check(
            &bench,
            file,
            at,
            means_something(at, written[file], is_last),
            &what,
        );
        // One flip costs one commit at most, and nothing of a header.
        let (records, _) = bench.read_all();
        assert!(
            records.len() as u64 >= RECORDS - 8,
            "{what}: only {} left",
            records.len()
        );
    }
}

#[test]
fn rel_27_flipped_blocks() {
    let image = journal();
    let written = written(&image);
    let files: Vec<_> = image.keys().cloned().collect();
    let mut random = Random::new(28);
    for _ in 0..600 {
        let index = random.below(files.len() as u64) as usize;
        let file = &files[index];
        let size = [512, 4096][random.below(2) as usize];
        let block = random.below((written[file] / size) as u64 + 1) as usize;
        let mut flipped = image.clone();
        let bytes = flipped.get_mut(file).unwrap();
        let end = ((block + 1) * size).min(bytes.len());
        let zeros = random.chance(50);
        for byte in &mut bytes[block * size..end] {
            *byte = if zeros { 0 } else { random.next() as u8 };
        }
        let changed = (0..bytes.len()).filter(|at| bytes[*at] != image[file][*at]);
        let is_last = index == files.len() - 1;
        let seen: Vec<_> = changed
            .filter(|at| means_something(*at, written[file], is_last))
            .collect();
        let what = format!(
            "block {block} of {size} bytes of {}, zeros: {zeros}",
            file.display()
        );
        let bench = open(&FaultDisk::from_image(&flipped, 1));
        check(
            &bench,
            file,
            seen.last().copied().unwrap_or(end),
            !seen.is_empty(),
            &what,
        );
    }
}

/// Damage is where a later commit is good; what is torn is only ever at the end.
#[test]
fn rel_05_a_bad_batch_with_a_good_one_behind_is_damage() {
    let mut flipped = journal();
    let file = flipped.keys().next().unwrap().clone();
    flipped.get_mut(&file).unwrap()[8192 + 40 + 60] ^= 0x10;
    let bench = open(&FaultDisk::from_image(&flipped, 1));
    assert_eq!(bench.recovery.cut, None);
    let verification = bench.journal.verify().unwrap();
    let expected = Damage {
        file: file.clone(),
        position: 8192,
        first: Offset::new(1),
        next: Offset::new(5),
        what: "the batch's checksum does not hold".to_owned(),
    };
    assert_eq!(verification.damage, [expected]);
    assert_eq!(verification.damage_total, 1);
    assert_eq!(verification.records, RECORDS - 4);
}

/// After a clean stop the very last commit is no torn tail either: the closing batch says so.
#[test]
fn rel_05_a_bad_last_batch_is_damage_after_a_clean_stop() {
    let disk = FaultDisk::new(1);
    let bench = open(&disk);
    let mut submitter = bench.submitter();
    bench.write(&mut submitter, &[(1, 20), (2, 20)]);
    let last_at = 8192 + (40 + 2 * (52 + 20)) / 8 * 8;
    bench.write(&mut submitter, &[(3, 20)]);
    for closed in [false, true] {
        if closed {
            bench.journal.close().unwrap();
        }
        let mut image = disk.image();
        let file = PathBuf::from(DIR).join(format!("{:020}.journal", 1));
        image.get_mut(&file).unwrap()[last_at + 40 + 60] ^= 1;
        let recovery = open(&FaultDisk::from_image(&image, 1)).recovery;
        let lost = recovery
            .damage
            .iter()
            .map(|one| (one.position, one.first, one.next));
        let lost: Vec<_> = lost.collect();
        let last_at = last_at as u64;
        if closed {
            assert_eq!(
                (lost, recovery.cut),
                (vec![(last_at, Offset::new(3), Offset::new(4))], None)
            );
            assert_eq!(
                recovery.last,
                Offset::new(3),
                "its offset is not given twice"
            );
        } else {
            assert_eq!(
                (lost, recovery.cut.map(|cut| cut.position)),
                (vec![], Some(last_at))
            );
            assert_eq!(recovery.last, Offset::new(2));
        }
    }
}

#[test]
fn a_missing_file_is_damage() {
    let mut holed = journal();
    let files: Vec<_> = holed.keys().cloned().collect();
    holed.remove(&files[1]);
    let bench = open(&FaultDisk::from_image(&holed, 1));
    let (records, damage) = bench.read_all();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(
        damage[0].file,
        PathBuf::from(DIR).join(files[0].file_name().unwrap())
    );
    let lost = damage[0].next.number() - damage[0].first.number();
    assert_eq!(records.len() as u64 + lost, RECORDS);
}

/// Without a header no batch of the file can be told from a payload: all of it is reported, the
/// file stays as it is, and no offset of it is used twice.
#[test]
fn both_headers_of_the_last_file_lost() {
    let mut headless = journal();
    let file = headless.keys().last().unwrap().clone();
    let first: u64 = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    headless.get_mut(&file).unwrap()[..2 * HEADER_BLOCK].fill(0xff);
    let disk = FaultDisk::from_image(&headless, 1);
    let bench = open(&disk);
    let next = bench.recovery.last.number() + 1;
    assert!(next > RECORDS, "{next} may be used already");
    let damage = &bench.recovery.damage;
    assert_eq!(
        (
            damage.len(),
            damage[0].first.number(),
            damage[0].next.number()
        ),
        (1, first, next)
    );
    bench.write(&mut bench.submitter(), &[(next, 10)]);
    let (records, damage) = bench.read_all();
    assert_eq!(damage.len(), 1);
    assert_eq!(records.len() as u64, first);
    assert_eq!(disk.image()[&file], headless[&file]);
}

/// A report has at most 1,000 entries; all damage is counted.
#[test]
fn a_damage_report_has_a_limit() {
    let disk = FaultDisk::new(1);
    let large = JournalOptions {
        segment_bytes: 1024 * 1024,
        ..options()
    };
    let bench = open_with(&disk, large.clone()).unwrap();
    let mut submitter = bench.submitter();
    let commits = 2 * DAMAGE_REPORTS_MAX as u64 + 10;
    for number in 1..=commits {
        bench.write(&mut submitter, &[(number, 4)]);
    }
    let mut image = disk.image();
    let file = image
        .get_mut(&PathBuf::from(DIR).join(format!("{:020}.journal", 1)))
        .unwrap();
    let batch = 40 + 52 + 4;
    for number in (0..commits as usize - 1).step_by(2) {
        file[8192 + number * batch + 60] ^= 1;
    }
    let bench = open_with(&FaultDisk::from_image(&image, 1), large).unwrap();
    assert_eq!(bench.recovery.damage.len(), DAMAGE_REPORTS_MAX);
    let verification = bench.journal.verify().unwrap();
    assert_eq!(verification.damage.len(), DAMAGE_REPORTS_MAX);
    assert_eq!(verification.damage_total, commits / 2);
    assert_eq!(verification.records, commits / 2);
}
