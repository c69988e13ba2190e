use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::telemetry::sample::Value;
use crate::telemetry::store::encode::Encoder;
use crate::telemetry::store::file::OpenFile;

type Series = ([u8; 16], String, i64);

/// Rows of one file: where, and with which offset.
fn file() -> impl Strategy<Value = BTreeMap<Series, u64>> {
    let series = (0_u8..3, "[ab]", 0_i64..40);
    let series = series.prop_map(|(device, key, ts_ms)| ([device; 16], key, ts_ms));
    btree_map(series, 0_u64..5, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 64,
        ..ProptestConfig::default()
    })]

    /// Against a plain map, and against the merge of single rows.
    #[test]
    fn stretches_of_files_are_merged_as_their_rows_are(files in vec(file(), 1..6)) {
        let dir = tempfile::tempdir().unwrap();
        let mut expected: BTreeMap<Series, (u64, i64)> = BTreeMap::new();
        let mut open = Vec::new();
        for (number, rows) in (0_i64..).zip(&files) {
            let path = dir.path().join(number.to_string());
            let mut encoder = Encoder::create(&path).unwrap();
            for ((device, key, ts_ms), offset) in rows {
                // The value tells the file.
                let row = Row {
                    device: *device,
                    key,
                    ts_ms: *ts_ms,
                    value: Value::Long(number),
                    offset: *offset,
                    credential: 1,
                    generation: 1,
                };
                encoder.push(&row).unwrap();
                let found = (*offset, number);
                let known = expected.entry((*device, key.clone(), *ts_ms)).or_insert(found);
                *known = found.max(*known);
            }
            encoder.finish().unwrap();
            open.push(OpenFile::open(&path, None).unwrap());
        }
        let expected: Vec<_> = expected.into_iter().collect();
        let cursors = || open.iter().map(|open| open.read(Wanted::ALL, true).unwrap());
        let told = |row: &Row<'_>| {
            let Value::Long(number) = row.value else { panic!("{row:?}") };
            ((row.device, row.key.to_owned(), row.ts_ms), (row.offset, number))
        };
        let mut found = Vec::new();
        let pages = open.iter().map(|open| open.pages().unwrap());
        let mut plain = Plain::new().unwrap();
        merge_stretches(pages.collect(), &mut plain, |batch, rows| {
            found.extend(rows.map(|at| told(&batch.row(at).unwrap())));
            Ok::<_, FileError>(())
        })
        .unwrap();
        prop_assert_eq!(&found, &expected);
        let mut found = Vec::new();
        let sources = cursors().map(|cursor| Source::File(Box::new(cursor), Wanted::ALL));
        merge(sources.collect(), Err, |row| {
            found.push(told(row));
            Ok::<_, FileError>(())
        })
        .unwrap();
        prop_assert_eq!(&found, &expected);
    }
}
