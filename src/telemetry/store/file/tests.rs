use tempfile::TempDir;

use super::*;
use crate::telemetry::sample::Value;
use crate::telemetry::store::encode::Encoder;

/// Devices, series of each, rows of each series: 4 row groups of 16 pages and some.
const DEVICES: u8 = 4;
const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const SERIES_ROWS: i64 = 40_000;

/// Rows of a page, as the files' documentation says.
const PAGE_ROWS: u64 = 8_192;

fn device(number: u8) -> [u8; 16] {
    [number; 16]
}

fn file() -> (TempDir, OpenFile) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let mut encoder = Encoder::create(&path).unwrap();
    for number in 0..DEVICES {
        for key in KEYS {
            for ts_ms in 0..SERIES_ROWS {
                let row = Row {
                    device: device(number),
                    key,
                    ts_ms,
                    value: Value::Double(0.5),
                    offset: 1,
                    credential: 1,
                    generation: 1,
                };
                encoder.push(&row).unwrap();
            }
        }
    }
    let written = encoder.finish().unwrap();
    let open = OpenFile::open(&path, Some(written.tail_crc)).unwrap();
    (dir, open)
}

/// Rows that are decoded, and those among them that are wanted.
fn decoded(open: &OpenFile, wanted: Wanted<'_>) -> (u64, u64) {
    let mut cursor = open.read(wanted, false).unwrap();
    let (mut rows, mut found) = (0, 0);
    while cursor.advance().unwrap() {
        rows += 1;
        found += u64::from(wanted.holds(&cursor.row().unwrap()));
    }
    (rows, found)
}

/// Rows of the pages that so many rows in a stretch touch at most, and of those on the borders of
/// series and devices, whose bounds are wide.
fn pages(rows: u64, borders: u64) -> u64 {
    (rows.div_ceil(PAGE_ROWS) + 1 + borders) * PAGE_ROWS
}

#[test]
fn what_the_indexes_rule_out_is_not_decoded() {
    let (_dir, open) = file();
    let series_rows = SERIES_ROWS.unsigned_abs();
    let keys = ["c".to_owned()];
    for number in 0..DEVICES {
        let of_device = Wanted {
            device: Some(Uuid::from_bytes(device(number))),
            ..Wanted::ALL
        };
        let (rows, found) = decoded(&open, of_device);
        assert_eq!(found, 4 * series_rows);
        assert!(rows <= pages(found, 0), "{rows} rows of a device");
        let of_series = Wanted {
            keys: Some(&keys),
            ..of_device
        };
        let (rows, found) = decoded(&open, of_series);
        assert_eq!(found, series_rows);
        assert!(rows <= pages(found, 2), "{rows} rows of a series");
        let of_times = Wanted {
            times: (20_000, 20_100),
            ..of_series
        };
        let (rows, found) = decoded(&open, of_times);
        assert_eq!(found, 100);
        assert!(rows <= pages(found, 4), "{rows} rows of some times");
    }
    let of_nobody = Wanted {
        device: Some(Uuid::from_bytes([9; 16])),
        ..Wanted::ALL
    };
    assert_eq!(decoded(&open, of_nobody), (0, 0));
}

#[test]
fn columns_without_values_are_not_decoded() {
    let (_dir, open) = file();
    let groups: Vec<usize> = (0..open.row_groups()).collect();
    let empty = |place: usize| open.is_empty(&groups, place);
    let empty: Vec<usize> = (0..NAMES.len()).filter(|place| empty(*place)).collect();
    assert_eq!(
        empty,
        [column::LONG, column::BOOL, column::TEXT, column::JSON]
    );
}
