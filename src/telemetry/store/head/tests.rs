use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::journal::RecordKind;
use crate::telemetry::sample::OwnedValue;
use crate::telemetry::store::best::{Best, Order};
use crate::telemetry::store::{Point, Query, QueryError};

fn device(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn header(device: Uuid) -> RecordHeader {
    RecordHeader {
        kind: RecordKind::Telemetry,
        qos: 1,
        profile_flags: 0,
        parser_version: 1,
        received_ms: 0,
        device,
        credential: 7,
        generation: 3,
        session: 0,
        packet_id: 0,
    }
}

fn everything(device: Uuid) -> Query {
    Query {
        device,
        keys: None,
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        limit: usize::MAX,
        newest_first: false,
        left_out: Vec::new(),
    }
}

fn sample<'a>(key: &'a str, ts_ms: i64, value: Value<'a>) -> Sample<'a> {
    Sample {
        key: Cow::Borrowed(key),
        ts_ms,
        value,
    }
}

fn try_collect(head: &Generation, query: &Query, hidden: Offset) -> Result<Vec<Point>, QueryError> {
    let mut best = Best::new(query);
    head.visit(query.device, hidden, |row| {
        best.offer(row, Order::Descending)
    })?;
    best.into_points(hidden)
}

fn collected(head: &Generation, query: &Query, hidden: Offset) -> Vec<Point> {
    try_collect(head, query, hidden).unwrap()
}

#[test]
fn every_kind_of_value_comes_back_as_it_was() {
    let values = [
        Value::Long(i64::MIN),
        Value::Long(-1),
        Value::Double(-0.25),
        Value::Bool(true),
        Value::Bool(false),
        Value::Text("grün".into()),
        Value::Text("".into()),
        Value::Json("{\"a\":[]}".into()),
    ];
    let mut head = Generation::new(Offset::new(1));
    let samples: Vec<_> = (0..)
        .zip(&values)
        .map(|(ts_ms, value)| sample("a", ts_ms, value.clone()))
        .collect();
    head.append(&header(device(1)), Offset::new(1), &samples);
    let points = collected(&head, &everything(device(1)), Offset::ZERO);
    let found: Vec<_> = points.into_iter().map(|point| point.value).collect();
    let expected: Vec<_> = values.into_iter().map(Value::into_owned).collect();
    assert_eq!(found, expected);
}

/// Many devices in some parts, in no order of theirs, and one that is a part of its own.
#[test]
fn a_generation_of_several_parts_comes_in_order_and_whole() {
    const DEVICES: u64 = 300;
    let mut head = Generation::new(Offset::new(1));
    let mut expected = BTreeMap::new();
    for offset in 1..60_000_u64 {
        let number = match offset % 3 {
            0 => 1_000_000,
            _ => u128::from(offset.wrapping_mul(0x9e37_79b9) % DEVICES),
        };
        // Sometimes a record of two times.
        let ts_ms = i64::try_from(offset).unwrap();
        let mut samples = vec![
            sample("a", ts_ms, Value::Long(ts_ms)),
            sample("b", ts_ms, Value::Bool(true)),
        ];
        if offset % 7 == 0 {
            samples.push(sample("a", -ts_ms, Value::Double(0.5)));
        }
        head.append(&header(device(number)), Offset::new(offset), &samples);
        for sample in samples {
            let place = (number, sample.key.to_string(), sample.ts_ms);
            expected.insert(place, (offset, sample.value.into_owned()));
        }
    }
    let hidden = |device: Uuid| Offset::new(if device.as_u128() == 5 { 30_000 } else { 0 });
    expected.retain(|(device, _, _), (offset, _)| *device != 5 || *offset >= 30_000);
    let mut found = Vec::new();
    let done: Result<(), Infallible> = head.visit_runs(hidden, |run| {
        for at in 0..run.rows() {
            let row = run.row(at).unwrap();
            let device = Uuid::from_bytes(row.device).as_u128();
            let place = (device, row.key.to_owned(), row.ts_ms);
            found.push((place, (row.offset, row.value.clone().into_owned())));
        }
        Ok(())
    });
    assert!(done.is_ok());
    assert!(found == expected.into_iter().collect::<Vec<_>>());
    assert!(part::Parts::of(&head).count() > 3);
}

#[test]
fn the_later_place_wins_within_a_record_and_the_later_record_before_it() {
    let mut head = Generation::new(Offset::new(1));
    let twice = [
        sample("a", 5, Value::Long(1)),
        sample("b", 5, Value::Long(2)),
        sample("a", 5, Value::Long(3)),
    ];
    head.append(&header(device(1)), Offset::new(1), &twice);
    let other = [sample("a", 5, Value::Long(4))];
    head.append(&header(device(2)), Offset::new(2), &other);
    let points = collected(&head, &everything(device(1)), Offset::ZERO);
    let found: Vec<_> = points
        .iter()
        .map(|point| (&*point.key, &point.value))
        .collect();
    assert_eq!(
        found,
        [("a", &OwnedValue::Long(3)), ("b", &OwnedValue::Long(2))]
    );
    let later = [sample("a", 5, Value::Long(5))];
    head.append(&header(device(1)), Offset::new(9), &later);
    let points = collected(&head, &everything(device(1)), Offset::ZERO);
    assert_eq!(points[0].value, OwnedValue::Long(5));
    assert_eq!(points[0].offset, Offset::new(9));
}

#[test]
fn storage_that_is_used_again_holds_nothing_of_before() {
    let fill = |head: &mut Generation, keys: [&str; 2], from: u64| {
        for number in from..from + 1_000 {
            let samples = keys.map(|key| sample(key, 5, Value::Long(1)));
            let of = device(u128::from(number % 10));
            head.append(&header(of), Offset::new(number), &samples);
        }
    };
    let mut head = Generation::new(Offset::new(1));
    fill(&mut head, ["a", "b"], 1);
    let bytes = head.bytes();
    let mut head = head.emptied().unwrap().beginning(Offset::new(2_000));
    assert!(head.is_empty() && head.bytes() <= bytes);
    assert_eq!(head.first(), Offset::new(2_000));
    assert_eq!(collected(&head, &everything(device(1)), Offset::ZERO), []);
    fill(&mut head, ["c", "a"], 2_000);
    let points = collected(&head, &everything(device(1)), Offset::ZERO);
    let found: Vec<_> = points.iter().map(|point| &*point.key).collect();
    assert_eq!(found, ["a", "c"]);
    // Hardly used it would only be in the way.
    let mut head = head.emptied().unwrap();
    head.append(&header(device(1)), Offset::new(1), &[]);
    assert!(head.emptied().is_none());
}

#[test]
fn answers_are_bounded_in_bytes() {
    let large = "x".repeat(400 * 1024);
    let mut head = Generation::new(Offset::new(1));
    for number in 0..200_i64 {
        let value = Value::Text(Cow::Owned(large.clone()));
        let offset = Offset::new(number.unsigned_abs() + 1);
        let samples = [sample("a", number, value)];
        head.append(&header(device(1)), offset, &samples);
    }
    let mut query = everything(device(1));
    let result = try_collect(&head, &query, Offset::ZERO);
    assert!(matches!(result, Err(QueryError::TooLarge)), "{result:?}");
    // A limit keeps it within bounds, and what leaves the answer is not counted any more.
    query.limit = 100;
    assert_eq!(collected(&head, &query, Offset::ZERO).len(), 100);
}

#[derive(Clone, Debug)]
struct Record {
    device: u128,
    gap: u64,
    samples: Vec<(String, i64, Option<String>)>,
}

fn record() -> impl Strategy<Value = Record> {
    let text = proptest::option::of("[a-z]{0,40}");
    let samples = vec(("[a-d]", -3_i64..10, text), 0..6);
    (0_u128..4, 1_u64..4, samples).prop_map(|(device, gap, samples)| Record {
        device,
        gap,
        samples,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a plain list: within its bytes a generation answers exactly what it took, and gives
    /// it sorted and without what was replaced.
    #[test]
    fn holds_what_it_took_and_stays_within_its_bytes(
        records in vec(record(), 0..400),
        bytes_max in 4_200_usize..40_000,
        hidden in 0_u64..300,
        (from_ms, to_ms, limit, newest_first) in (-3_i64..5, 3_i64..10, 1_usize..30, any::<bool>()),
    ) {
        let mut head = Generation::new(Offset::new(1));
        let mut list = Vec::new();
        let mut offset = 0;
        for record in &records {
            offset += record.gap;
            let samples: Vec<_> = record
                .samples
                .iter()
                .map(|(key, ts_ms, text)| {
                    let text = text.clone().map(|text| Value::Text(text.into()));
                    sample(key, *ts_ms, text.unwrap_or(Value::Long(7)))
                })
                .collect();
            if !head.has_room(Offset::new(offset), &samples, bytes_max) {
                break;
            }
            head.append(&header(device(record.device)), Offset::new(offset), &samples);
            prop_assert!(head.bytes() <= bytes_max, "{} of {bytes_max}", head.bytes());
            list.extend(samples.into_iter().map(|sample| (record.device, offset, sample)));
        }
        let hidden = Offset::new(hidden);
        let mut sorted = BTreeMap::new();
        for number in 0..4 {
            let query = Query { from_ms, to_ms, limit, newest_first, ..everything(device(number)) };
            let mut expected = BTreeMap::new();
            for (of, offset, sample) in &list {
                let value = sample.value.clone().into_owned();
                let place = (*of, sample.key.to_string(), sample.ts_ms);
                sorted.insert(place, (*offset, value.clone()));
                let within = (from_ms..to_ms).contains(&sample.ts_ms);
                if *of == number && Offset::new(*offset) >= hidden && within {
                    expected.insert((sample.ts_ms, sample.key.to_string()), (*offset, value));
                }
            }
            let point = |((ts_ms, key), (offset, value))| Point {
                key, ts_ms, value, offset: Offset::new(offset),
            };
            let mut expected: Vec<Point> = expected.into_iter().map(point).collect();
            if newest_first {
                expected.reverse();
            }
            expected.truncate(limit);
            prop_assert_eq!(collected(&head, &query, hidden), expected);
        }
        let mut found = Vec::new();
        let done: Result<(), Infallible> = head.visit_runs(|_| Offset::ZERO, |run| {
            for at in 0..run.rows() {
                let row = run.row(at).unwrap();
                let device = Uuid::from_bytes(row.device).as_u128();
                assert_eq!((row.credential, row.generation), (7, 3));
                let place = (device, row.key.to_owned(), row.ts_ms);
                found.push((place, (row.offset, row.value.clone().into_owned())));
            }
            assert!(run.row(run.rows()).is_none());
            Ok(())
        });
        prop_assert!(done.is_ok());
        prop_assert_eq!(found, sorted.into_iter().collect::<Vec<_>>());
    }
}
