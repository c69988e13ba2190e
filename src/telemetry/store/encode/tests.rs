use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::telemetry::sample::{OwnedValue, Value};
use crate::telemetry::store::cursor::Cursor;
use crate::telemetry::store::file::{OpenFile, Wanted};
use crate::telemetry::store::pages::Plain;

/// A row that owns what it holds.
#[derive(Clone, Debug, PartialEq)]
struct Owned {
    device: [u8; 16],
    key: String,
    ts_ms: i64,
    offset: u64,
    credential: u64,
    generation: u32,
    value: OwnedValue,
}

impl Owned {
    fn of(row: &Row<'_>) -> Self {
        Self {
            device: row.device,
            key: row.key.to_owned(),
            ts_ms: row.ts_ms,
            offset: row.offset,
            credential: row.credential,
            generation: row.generation,
            value: row.value.clone().into_owned(),
        }
    }

    fn row(&self) -> Row<'_> {
        Row {
            device: self.device,
            key: &self.key,
            ts_ms: self.ts_ms,
            value: self.value.as_value(),
            offset: self.offset,
            credential: self.credential,
            generation: self.generation,
        }
    }
}

fn cursor(path: &Path, written: &Written) -> Cursor {
    let open = OpenFile::open(path, Some(written.tail_crc)).unwrap();
    open.read(Wanted::ALL, true).unwrap()
}

fn read(path: &Path, written: &Written) -> Vec<Owned> {
    let mut cursor = cursor(path, written);
    let mut rows = Vec::new();
    while cursor.advance().unwrap() {
        rows.push(Owned::of(&cursor.row().unwrap()));
    }
    rows
}

fn written(path: &Path, rows: &[Owned]) -> Written {
    let mut encoder = Encoder::create(path).unwrap();
    for row in rows {
        encoder.push(&row.row()).unwrap();
    }
    let written = encoder.finish().unwrap();
    assert_eq!(written.rows, rows.len() as u64);
    assert_eq!(written.bytes, std::fs::metadata(path).unwrap().len());
    written
}

/// Writes a file row by row, another one from it by stretches, and reads both.
fn comes_back(rows: &[Owned]) {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a"), dir.path().join("b"));
    let of_first = written(&first, rows);
    assert!(read(&first, &of_first) == rows);
    let mut encoder = Encoder::create(&second).unwrap();
    let open = OpenFile::open_for_all(&first, of_first.tail_crc).unwrap();
    let mut pages = open.pages().unwrap();
    let mut plain = Plain::new().unwrap();
    let mut more = pages.advance_by(1, &mut plain).unwrap();
    let mut same = Vec::new();
    while more {
        let (batch, at) = pages.batch().unwrap();
        let end = batch.series_end(at);
        same.extend((at..end).map(|at| Owned::of(&batch.row(at).unwrap())));
        encoder.push_stretch(batch, &(at..end)).unwrap();
        more = pages.advance_by(end - at, &mut plain).unwrap();
    }
    assert!(pages.batch().is_none() && same == rows);
    let of_second = encoder.finish().unwrap();
    assert!(read(&second, &of_second) == rows);
    assert_eq!(of_first.times, of_second.times);
    assert_eq!(of_first.devices, of_second.devices);
}

/// Rows of many series over several row groups. `value`: from the number of the row.
fn many(rows: u32, series: u32, value: impl Fn(u32) -> OwnedValue) -> Vec<Owned> {
    let row = |number: u32| Owned {
        device: u128::from(number / (2 * series)).to_be_bytes(),
        key: format!("{}", number / series % 2),
        ts_ms: i64::from(number % series) * 1_000,
        offset: u64::from(number),
        credential: u64::from(number / 70_000),
        generation: number / 90_000,
        value: value(number),
    };
    (0..rows).map(row).collect()
}

/// A merge has up to 16 files open.
#[test]
fn who_reads_all_rows_keeps_the_blocks_of_one_row_group() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    // Of squares, as differences of multiples are all alike.
    let square = |number: u32| u64::from(number) * u64::from(number);
    let scrambled = |number: u32| square(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
    let value = |number: u32| OwnedValue::Long(scrambled(number).cast_signed());
    let file = written(&path, &many(600_000, 35, value));
    let blocks = usize::try_from(file.bytes).unwrap() / BLOCK_BYTES;
    let open = OpenFile::open(&path, None).unwrap();
    let mut pages = open.pages().unwrap();
    let mut plain = Plain::new().unwrap();
    let mut most = 0;
    let mut step = 1;
    while pages.advance_by(step, &mut plain).unwrap() {
        let (batch, at) = pages.batch().unwrap();
        step = batch.rows() - at;
        most = most.max(pages.blocks());
    }
    // Groups are not cut where blocks are, and the last one is smaller.
    let of_group = blocks.div_ceil(open.row_groups()) + 2;
    assert!(
        most <= of_group && 2 * of_group < blocks,
        "{most} of {blocks}"
    );
}

#[test]
fn large_files_of_every_kind_come_back() {
    let scrambled = |number: u32| u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let kinds: [&dyn Fn(u32) -> OwnedValue; 7] = [
        &|number| OwnedValue::Double(f64::from(number % 400) / 10.0),
        &|number| OwnedValue::Double(f64::from_bits(scrambled(number) >> 2)),
        &|number| OwnedValue::Long(i64::from(number)),
        &|number| OwnedValue::Long(scrambled(number).cast_signed()),
        &|number| OwnedValue::Long((scrambled(number) >> 60).cast_signed() * 1_000_000),
        &|number| OwnedValue::Bool(number % 3 == 0),
        &|number| match number / 100 % 5 {
            0 => OwnedValue::Text(format!("text {number}")),
            1 => OwnedValue::Json("[]".to_owned()),
            2 => OwnedValue::Double(0.5),
            3 => OwnedValue::Bool(true),
            _ => OwnedValue::Long(number.into()),
        },
    ];
    for kind in kinds {
        comes_back(&many(150_000, 35, kind));
    }
    // One long series, and series of one row each.
    comes_back(&many(140_000, 200_000, kinds[0]));
    comes_back(&many(20_000, 1, kinds[2]));
}

#[test]
fn many_keys_end_a_row_group_early() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let rows: Vec<_> = (0..20_000)
        .map(|number| Owned {
            key: format!("{number:0300}"),
            ..many(1, 1, |_| OwnedValue::Long(1))[0].clone()
        })
        .collect();
    let written = written(&path, &rows);
    assert!(read(&path, &written) == rows);
    let open = OpenFile::open(&path, None).unwrap();
    assert!(open.row_groups() >= 5, "{}", open.row_groups());
}

fn value() -> impl Strategy<Value = OwnedValue> {
    prop_oneof![
        4 => any::<i64>().prop_map(OwnedValue::Long),
        4 => (0_i64..20).prop_map(OwnedValue::Long),
        4 => any::<i32>().prop_map(|number| OwnedValue::Double(f64::from(number) / 8.0)),
        1 => any::<bool>().prop_map(OwnedValue::Bool),
        1 => "\\PC{0,90}".prop_map(OwnedValue::Text),
        1 => Just(OwnedValue::Json("{}".to_owned())),
    ]
}

prop_compose! {
    fn series()(
        device in 0_u128..5,
        key in "[ab]|\\PC{60,80}",
        values in vec((any::<i64>(), 0_u64..9, 0_u32..2, value()), 0..200),
    ) -> Vec<Owned> {
        let owned = |(ts_ms, credential, generation, value)| Owned {
            device: device.to_be_bytes(),
            key: key.clone(),
            ts_ms,
            offset: credential,
            credential,
            generation,
            value,
        };
        values.into_iter().map(owned).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 64,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_rows_come_back(list in vec(series(), 0..20)) {
        let mut rows = list.concat();
        rows.sort_by(|one, other| one.row().order(&other.row()));
        rows.dedup_by(|later, first| later.row().series_order(&first.row()).is_eq());
        if !rows.is_empty() {
            comes_back(&rows);
        }
    }
}

#[test]
fn a_double_keeps_its_bits() {
    let value = Value::Double(f64::MIN_POSITIVE);
    let mut row = many(1, 1, |_| OwnedValue::Long(1));
    row[0].value = value.into_owned();
    comes_back(&row);
}
