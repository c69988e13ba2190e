use std::borrow::Cow;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::telemetry::history::Point;

fn device(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn everything(device: Uuid) -> Query {
    Query {
        device,
        keys: None,
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        limit: usize::MAX,
        newest_first: false,
    }
}

fn sample<'a>(key: &'a str, ts_ms: i64, value: Value<'a>) -> Sample<'a> {
    Sample {
        key: Cow::Borrowed(key),
        ts_ms,
        value,
    }
}

fn collected(head: &Head, query: &Query, hidden: Offset) -> Vec<Point> {
    let mut best = Best::new(query);
    head.collect(query, hidden, &mut best).unwrap();
    best.into_points(hidden)
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
    let mut head = Head::new(1 << 20, Offset::new(1));
    let samples: Vec<_> = (0..)
        .zip(&values)
        .map(|(ts_ms, value)| sample("a", ts_ms, value.clone()))
        .collect();
    head.append(device(1), Offset::new(1), &samples);
    let points = collected(&head, &everything(device(1)), Offset::ZERO);
    let found: Vec<_> = points.into_iter().map(|point| point.value).collect();
    let expected: Vec<_> = values.into_iter().map(Value::into_owned).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_later_place_wins_within_a_record_and_the_later_record_before_it() {
    let mut head = Head::new(1 << 20, Offset::new(1));
    let twice = [
        sample("a", 5, Value::Long(1)),
        sample("b", 5, Value::Long(2)),
        sample("a", 5, Value::Long(3)),
    ];
    head.append(device(1), Offset::new(1), &twice);
    head.append(device(2), Offset::new(2), &[sample("a", 5, Value::Long(4))]);
    let points = collected(&head, &everything(device(1)), Offset::ZERO);
    let found: Vec<_> = points
        .iter()
        .map(|point| (&*point.key, &point.value))
        .collect();
    assert_eq!(
        found,
        [("a", &OwnedValue::Long(3)), ("b", &OwnedValue::Long(2))]
    );
    head.append(device(1), Offset::new(9), &[sample("a", 5, Value::Long(5))]);
    let points = collected(&head, &everything(device(1)), Offset::ZERO);
    assert_eq!(points[0].value, OwnedValue::Long(5));
    assert_eq!(points[0].offset, Offset::new(9));
}

#[test]
fn a_record_larger_than_the_head_is_not_kept() {
    let mut head = Head::new(4_096, Offset::new(1));
    head.append(device(1), Offset::new(1), &[sample("a", 1, Value::Long(1))]);
    assert_eq!(head.first(), Offset::new(1));
    let large = "x".repeat(5_000);
    head.append(
        device(1),
        Offset::new(7),
        &[sample("a", 2, Value::Text(large.into()))],
    );
    assert_eq!(head.first(), Offset::new(8));
    assert_eq!(head.bytes(), 0);
    assert_eq!(collected(&head, &everything(device(1)), Offset::ZERO), []);
    head.append(device(1), Offset::new(9), &[sample("a", 3, Value::Long(1))]);
    assert_eq!(head.first(), Offset::new(8));
    assert_eq!(
        collected(&head, &everything(device(1)), Offset::ZERO).len(),
        1
    );
}

#[test]
fn answers_are_bounded_in_bytes() {
    let large = "x".repeat(400 * 1024);
    let mut head = Head::new(1 << 30, Offset::new(1));
    for number in 0..200_i64 {
        let value = Value::Text(Cow::Owned(large.clone()));
        let offset = Offset::new(number.unsigned_abs() + 1);
        head.append(device(1), offset, &[sample("a", number, value)]);
    }
    let mut query = everything(device(1));
    let mut best = Best::new(&query);
    let result = head.collect(&query, Offset::ZERO, &mut best);
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

    /// Against a plain list: within its bytes the head answers exactly what it says it holds.
    #[test]
    fn holds_what_it_says_and_stays_within_its_bytes(
        records in vec(record(), 0..400),
        bytes_max in 1_000_usize..40_000,
        hidden in 0_u64..300,
        (from_ms, to_ms, limit, newest_first) in (-3_i64..5, 3_i64..10, 1_usize..30, any::<bool>()),
    ) {
        let mut head = Head::new(bytes_max, Offset::new(1));
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
            head.append(device(record.device), Offset::new(offset), &samples);
            prop_assert!(head.bytes() <= bytes_max);
            list.extend(samples.into_iter().map(|sample| (record.device, offset, sample)));
        }
        let hidden = Offset::new(hidden).max(head.first());
        for number in 0..4 {
            let query = Query { from_ms, to_ms, limit, newest_first, ..everything(device(number)) };
            let mut expected = std::collections::BTreeMap::new();
            for (of, offset, sample) in &list {
                let within = (from_ms..to_ms).contains(&sample.ts_ms);
                if *of == number && Offset::new(*offset) >= hidden && within {
                    let value = sample.value.clone().into_owned();
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
    }
}
