//! Device payloads and their history, through the public API.

use tollgate::telemetry::{PayloadError, ScanOptions, Value, check, scan};

/// The server's time in these tests.
const NOW_MS: u64 = 42;

/// What a payload means, in the notation of the golden file.
fn meaning(payload: &[u8], options: ScanOptions) -> String {
    let mut samples = Vec::new();
    let scanned = scan(payload, options, NOW_MS, |sample| {
        let time = if sample.ts_ms == 42 {
            String::new()
        } else {
            format!("@{}", sample.ts_ms)
        };
        let value = match &sample.value {
            Value::Long(value) => format!("long {value}"),
            Value::Double(value) if value.abs() < 1e-4 && *value != 0.0 => {
                format!("double {value:e}")
            }
            Value::Double(value) => format!("double {value}"),
            Value::Bool(value) => format!("bool {value}"),
            Value::Text(text) => format!("text {}", visible(text)),
            Value::Json(text) => format!("json {}", text.replace('\\', "\\\\")),
        };
        samples.push(format!("{}{time}={value}", sample.key));
    });
    let checked = check(payload, options);
    match (scanned, checked) {
        (Ok(()), Ok(checked)) => {
            assert_eq!(
                checked.samples as usize,
                samples.len(),
                "the gate counts otherwise"
            );
            if samples.is_empty() {
                "none".to_owned()
            } else {
                samples.join(" | ")
            }
        }
        (Err(error), Err(same)) => {
            assert_eq!(error, same, "gate and store differ");
            assert!(samples.is_empty(), "a bad payload has emitted samples");
            let name = format!("{error:?}");
            let name = name.split([' ', '{']).next().unwrap().to_owned();
            format!("bad {name} {}", error.position())
        }
        (scanned, checked) => panic!("gate and store differ: {checked:?}, {scanned:?}"),
    }
}

fn visible(text: &str) -> String {
    let escape = |character: char| match character {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\0'..='\u{1f}' => format!("\\u{{{:x}}}", u32::from(character)),
        _ => character.to_string(),
    };
    text.chars().map(escape).collect()
}

#[test]
fn tb_16_tb_20_to_tb_23_payloads_mean_what_the_tables_say() {
    let golden = include_str!("data/telemetry/payloads.tsv");
    let mut rows = 0;
    let mut wrong = Vec::new();
    for (number, line) in golden.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        let [id, payload, expected] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("line {} has not three columns", number + 1);
        };
        let payload = payload
            .replace('␊', "\n")
            .replace('␍', "\r")
            .replace('␉', "\t")
            .replace('␛', "\u{1}")
            .replace('␀', "\0");
        let found = meaning(payload.as_bytes(), ScanOptions::default());
        if found != expected {
            wrong.push(format!(
                "{id} {payload:?}\n  expected {expected}\n  found    {found}"
            ));
        }
        rows += 1;
    }
    assert!(
        wrong.is_empty(),
        "{} of {rows} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(rows > 100, "the golden file is cut: {rows} rows");
}

#[test]
fn tb_22_strings_stay_strings_when_the_profile_says_so() {
    let options = ScanOptions {
        cast_strings: false,
        ..ScanOptions::default()
    };
    let payload = br#"{"a":"25","b":25,"c":.5,"d":"2.5",e:9223372036854775808}"#;
    let expected = "a=text 25 | b=long 25 | c=text .5 | d=text 2.5 | e=text 9223372036854775808";
    assert_eq!(meaning(payload, options), expected);
    // What the gate accepted is read back the same way from a journal record.
    let flags = options.profile_flags();
    assert_eq!(ScanOptions::from_profile_flags(flags), options);
    assert_eq!(ScanOptions::from_profile_flags(0), ScanOptions::default());
    assert_eq!(ScanOptions::default().profile_flags(), 0);
}

#[test]
fn tb_22_strings_longer_than_the_limit_are_bad() {
    let options = ScanOptions {
        string_bytes_max: Some(4),
        ..ScanOptions::default()
    };
    for (payload, expected) in [
        (r#"{"a":"1234"}"#, "a=long 1234"),
        (r#"{"a":"12345"}"#, "bad StringTooLong 6"),
        (r#"{a:12345}"#, "a=long 12345"),
        (r#"{a:abcde}"#, "bad StringTooLong 3"),
        (r#"{"a":"äöü"}"#, "bad StringTooLong 6"),
        (r#"{"a":"\u00e4\u00f6"}"#, "a=text äö"),
        (r#"{"a":"\u00e4\u00f6x"}"#, "bad StringTooLong 6"),
        // Neither keys nor JSON values are measured, nor what does not count.
        (
            r#"{"abcdef":{"x":"12345"}}"#,
            r#"abcdef=json {"x":"12345"}"#,
        ),
        (r#"{"a":"12345","a":1}"#, "a=long 1"),
        (r#"{"ts":1,"values":{"a":"12345"}}"#, "bad StringTooLong 23"),
        (
            r#"{"ts":1,"values":{"a":1},"metadata":"12345"}"#,
            "a@1=long 1",
        ),
        (r#"[{"a":1},{"a":"12345"}]"#, "bad StringTooLong 15"),
    ] {
        assert_eq!(meaning(payload.as_bytes(), options), expected, "{payload}");
    }
}

#[test]
fn tb_16_invalid_utf8_is_bad_wherever_it_stands() {
    let options = ScanOptions::default();
    assert_eq!(meaning(b"{\"a\":\"\xff\"}", options), "bad NotUtf8 6");
    assert_eq!(meaning(b"{a:1}//\xc3", options), "bad NotUtf8 7");
    assert_eq!(meaning(b"{a:\"\xed\xa0\x80\"}", options), "bad NotUtf8 4");
    // A byte order mark at the start is none of the document's.
    assert_eq!(meaning("\u{feff}{a:1}".as_bytes(), options), "a=long 1");
}

#[test]
fn sec_01_nesting_is_64_deep_at_most() {
    let options = ScanOptions::default();
    let nested = |open: &str, close: &str, times: usize| {
        format!("{{a:{}1{}}}", open.repeat(times), close.repeat(times)).into_bytes()
    };
    assert!(check(&nested("[", "]", 63), options).is_ok());
    assert!(check(&nested("{b:", "}", 63), options).is_ok());
    assert_eq!(meaning(&nested("[", "]", 64), options), "bad TooDeep 66");
    assert_eq!(meaning(&nested("{b:", "}", 64), options), "bad TooDeep 192");
    let record = |times: usize| {
        format!(
            "[{{ts:1,values:{{a:{}{}}}}}]",
            "[".repeat(times),
            "]".repeat(times)
        )
        .into_bytes()
    };
    assert!(check(&record(61), options).is_ok());
    assert_eq!(meaning(&record(62), options), "bad TooDeep 78");
    // Far beyond: neither the stack nor the time grows out of hand.
    let bottomless = "[".repeat(1 << 20);
    assert_eq!(
        meaning(format!("{{a:{bottomless}").as_bytes(), options),
        "bad TooDeep 66"
    );
    assert_eq!(meaning(bottomless.as_bytes(), options), "bad NotARecord 1");
}

#[test]
fn sec_01_many_keys_alike_or_not_take_no_quadratic_time() {
    let options = ScanOptions::default();
    let distinct: Vec<String> = (0..10_000).map(|key| format!("{key}:1")).collect();
    let payload = format!("{{{}}}", distinct.join(","));
    assert_eq!(check(payload.as_bytes(), options).unwrap().samples, 10_000);
    let alike = format!("{{{}}}", vec!["a:1,\"\\u0061\":2"; 8_000].join(","));
    assert_eq!(meaning(alike.as_bytes(), options), "a=long 2");
    let pairs: Vec<String> = (0..40).map(|key| format!("k{}:{key}", key % 20)).collect();
    let payload = format!("{{{}}}", pairs.join(","));
    let expected: Vec<String> = (20..40)
        .map(|key| format!("k{}=long {key}", key - 20))
        .collect();
    assert_eq!(meaning(payload.as_bytes(), options), expected.join(" | "));
}

#[test]
fn a_scan_within_a_scan_is_as_good_as_any() {
    let mut inner = 0;
    let visit = |_: tollgate::telemetry::Sample<'_>| {
        inner += check(b"{x:1,y:2,x:3}", ScanOptions::default())
            .unwrap()
            .samples;
    };
    scan(b"[{a:1,b:2},{c:3}]", ScanOptions::default(), NOW_MS, visit).unwrap();
    assert_eq!(inner, 6);
}

#[test]
fn payload_errors_say_what_and_where_but_not_what_was_sent() {
    let text = |payload: &[u8]| {
        check(payload, ScanOptions::default())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(text(b""), "the payload is empty");
    assert_eq!(
        text(b"{a:1"),
        "expected `,` or the closing bracket at byte 4, found the end"
    );
    assert_eq!(
        text(b"{a 1}"),
        "expected `:` behind the name at byte 3, found `1`"
    );
    assert_eq!(
        text(b"{\x07:1}x"),
        "data behind the end of the document at byte 5"
    );
    assert_eq!(
        text(b"{a:\x0c"),
        "expected a value at byte 3, found byte 0x0c"
    );
    assert_eq!(
        text(b"[secret]"),
        PayloadError::NotARecord { position: 1 }.to_string()
    );
}

mod properties {
    use std::collections::BTreeMap;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::{Map, Number, Value as Json, json};
    use tollgate::telemetry::{OwnedValue, ScanOptions, check, scan};

    use super::{NOW_MS, meaning};

    /// Keys that collide with each other and with the names that mean something, now and then.
    fn key() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "[a-z]{1,3}",
            1 => Just("ts".to_owned()),
            1 => Just("values".to_owned()),
            1 => Just("metadata".to_owned()),
            2 => "\\PC{0,12}",
            1 => any::<String>(),
        ]
    }

    fn scalar() -> impl Strategy<Value = Json> {
        prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            (-1000_i64..1000).prop_map(Json::from),
            any::<f64>().prop_map(|value| Number::from_f64(value).map_or(Json::Null, Json::from)),
            (-1_000_000_i64..1_000_000).prop_map(|value| json!(value as f64 / 1000.0)),
            any::<String>().prop_map(Json::from),
            "-?[0-9.]{0,20}".prop_map(Json::from),
        ]
    }

    fn value() -> impl Strategy<Value = Json> {
        scalar().prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6).prop_map(Json::from),
                btree_map(key(), inner, 0..6)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    fn members() -> impl Strategy<Value = Map<String, Json>> {
        btree_map(key(), value(), 0..30).prop_map(|map| map.into_iter().collect())
    }

    fn record() -> impl Strategy<Value = Json> {
        prop_oneof![
            members().prop_map(Json::Object),
            (any::<i64>(), members()).prop_map(|(ts, values)| json!({"ts": ts, "values": values})),
            (scalar(), members()).prop_map(|(ts, values)| json!({"ts": ts, "values": values})),
        ]
    }

    fn document() -> impl Strategy<Value = Json> {
        prop_oneof![4 => record(), 2 => vec(record(), 0..5).prop_map(Json::from), 1 => value()]
    }

    /// The samples of strict JSON in the plainest way: a tree, and the tables read off it.
    fn reference(document: &Json) -> Option<Vec<(String, i64, OwnedValue)>> {
        let mut samples = Vec::new();
        let records = match document {
            Json::Array(records) => records.as_slice(),
            Json::Object(_) => std::slice::from_ref(document),
            _ => return None,
        };
        for record in records {
            let record = record.as_object()?;
            let (ts_ms, members) = match (record.get("ts"), record.get("values")) {
                (Some(ts), Some(values)) => (reference_ts(ts)?, values.as_object()?),
                _ => (NOW_MS as i64, record),
            };
            for (key, value) in members {
                if let Some(value) = reference_value(value) {
                    samples.push((key.clone(), ts_ms, value));
                }
            }
        }
        samples.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        Some(samples)
    }

    fn reference_ts(ts: &Json) -> Option<i64> {
        match ts {
            Json::Number(number) if number.is_f64() => {
                let whole = number.as_f64()?.trunc();
                let decided =
                    whole.abs() < 9e18 && number.to_string().split(['e', 'E']).count() == 1;
                // How far a fraction or an exponent is followed is said by the golden rows.
                if decided {
                    Some(whole as i64)
                } else {
                    reference_ts_exponent(&number.to_string())
                }
            }
            Json::Number(number) => number.as_i64(),
            Json::String(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn reference_ts_exponent(text: &str) -> Option<i64> {
        match reference_number(text) {
            OwnedValue::Long(value) => Some(value),
            OwnedValue::Double(value) => Some(value.trunc() as i64),
            _ => None,
        }
    }

    fn reference_value(value: &Json) -> Option<OwnedValue> {
        Some(match value {
            Json::Null => return None,
            Json::Bool(value) => OwnedValue::Bool(*value),
            Json::Number(number) => reference_number(&number.to_string()),
            Json::String(text) => {
                let unsigned = text.strip_prefix('-').unwrap_or(text);
                let reads_as_number = !unsigned.is_empty()
                    && !unsigned.ends_with('.')
                    && unsigned.matches('.').count() <= 1
                    && unsigned
                        .chars()
                        .all(|digit| digit.is_ascii_digit() || digit == '.');
                match reads_as_number {
                    true => reference_number(text),
                    false => OwnedValue::Text(text.clone()),
                }
            }
            Json::Array(_) | Json::Object(_) => OwnedValue::Json(value.to_string()),
        })
    }

    /// By way of a number written out in full, digit by digit.
    fn reference_number(text: &str) -> OwnedValue {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i64 = exponent.parse().unwrap();
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let negative = whole.starts_with('-');
        let mut digits: Vec<u8> = whole
            .trim_start_matches('-')
            .bytes()
            .chain(fraction.bytes())
            .collect();
        let mut scale = fraction.len() as i64 - exponent;
        let has_point = mantissa.contains('.') && !text.contains(['e', 'E']);
        let kept_scale = scale;
        let is_zero = digits.iter().all(|digit| *digit == b'0');
        while scale > 0 && digits.last() == Some(&b'0') {
            digits.pop();
            scale -= 1;
        }
        if !has_point && (scale <= 0 || is_zero) {
            let zeros = if is_zero {
                0
            } else {
                usize::try_from(-scale).unwrap()
            };
            let sign = if negative { "-" } else { "" };
            let digits = String::from_utf8(digits).unwrap();
            let full = format!("{sign}{digits}{}", "0".repeat(zeros));
            let full = if is_zero { "0".to_owned() } else { full };
            return full
                .parse()
                .map_or(OwnedValue::Text(text.to_owned()), OwnedValue::Long);
        }
        if kept_scale <= 16 && text.parse::<f64>().unwrap().is_finite() {
            return OwnedValue::Double(text.parse().unwrap());
        }
        OwnedValue::Text(text.to_owned())
    }

    fn scanned(payload: &[u8]) -> Option<Vec<(String, i64, OwnedValue)>> {
        let mut samples = Vec::new();
        let result = scan(payload, ScanOptions::default(), NOW_MS, |sample| {
            samples.push((
                sample.key.into_owned(),
                sample.ts_ms,
                sample.value.into_owned(),
            ));
        });
        samples.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        result.ok().map(|()| samples)
    }

    /// Text made of what the grammar is made of: it goes deeper than random bytes.
    fn shreds() -> impl Strategy<Value = String> {
        let shred = prop_oneof![
            4 => "[{}\\[\\]:;,=#/*\"' \n\\\\]{1,3}",
            2 => "[a-z0-9.eE+-]{1,4}",
            2 => prop::sample::select(vec![
                "{\"a\":", "ts", "\"ts\":1,", "\"values\":{", "}", "]", "true", "NULL", "=>", "/*", "*/",
                "//", "\\u00e4", "\\ud83d", "1e5", "-0.5", "ä", "{a:1}", "[{b:2},",
            ]).prop_map(str::to_owned),
        ];
        vec(shred, 0..24).prop_map(|shreds| shreds.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            failure_persistence: None, // what was found once is a row of the golden file
            ..ProptestConfig::default()
        })]

        #[test]
        fn tb_21_strict_json_means_what_a_plain_reader_says(document in document()) {
            let expected = reference(&document);
            for text in [document.to_string(), serde_json::to_string_pretty(&document).unwrap()] {
                prop_assert_eq!(&scanned(text.as_bytes()), &expected, "{}", text);
                let counted = check(text.as_bytes(), ScanOptions::default()).ok();
                let counted = counted.map(|checked| checked.samples as usize);
                prop_assert_eq!(counted, expected.as_ref().map(Vec::len), "{}", text);
            }
        }

        #[test]
        fn tb_20_lenient_writing_changes_nothing(members in btree_map("[a-z]{1,6}", -9_i64..99, 0..20)) {
            let strict = json!(members).to_string();
            let expected = scanned(strict.as_bytes());
            prop_assert!(expected.is_some());
            let bare: String = strict.replace('"', "");
            for lenient in [
                strict.replace('"', "'"),
                bare.clone(),
                bare.replace(',', ";"),
                bare.replace(':', "="),
                bare.replace(':', " => "),
                bare.replace(',', " , /* , */ "),
                bare.replace(',', "//}\n, # {\r"),
            ] {
                prop_assert_eq!(&scanned(lenient.as_bytes()), &expected, "{}", lenient);
            }
        }

        #[test]
        fn sec_01_no_bytes_make_the_scanner_fail(payload in vec(any::<u8>(), 0..256)) {
            meaning(&payload, ScanOptions::default());
        }

        #[test]
        fn sec_01_gate_and_store_agree_on_any_text(payload in shreds(), limit in 0_u32..6, cast: bool) {
            // `meaning` asserts that check and scan agree on verdict, error and number of samples.
            let found = meaning(payload.as_bytes(), ScanOptions::default());
            let limited = ScanOptions { cast_strings: cast, string_bytes_max: Some(limit) };
            meaning(payload.as_bytes(), limited);
            // A limit that nothing reaches changes nothing, though it takes the slower way.
            let wide = ScanOptions { string_bytes_max: Some(u32::MAX), ..ScanOptions::default() };
            prop_assert_eq!(meaning(payload.as_bytes(), wide), found);
        }

        #[test]
        fn a_cut_or_changed_document_is_judged_alike_by_gate_and_store(
            document in document(), at: prop::sample::Index, byte: u8,
        ) {
            let mut payload = document.to_string().into_bytes();
            let at = at.index(payload.len());
            meaning(&payload[..at], ScanOptions::default());
            payload[at] = byte;
            let quick = meaning(&payload, ScanOptions::default());
            let wide = ScanOptions { string_bytes_max: Some(u32::MAX), ..ScanOptions::default() };
            prop_assert_eq!(meaning(&payload, wide), quick);
        }

        #[test]
        fn tb_22_nested_values_come_out_as_strict_json_of_the_same_meaning(
            document in value(),
        ) {
            let payload = format!("{{a:{document}}}");
            let found = scanned(payload.as_bytes()).unwrap();
            if let [(_, _, OwnedValue::Json(text))] = &found[..] {
                prop_assert!(serde_json::from_str::<Json>(text).is_ok());
                prop_assert_eq!(text, &document.to_string());
            }
        }
    }

    #[test]
    fn the_reference_itself_knows_the_tables() {
        let samples =
            reference(&json!([{"a": "1", "b": null}, {"ts": 5, "values": {"c": {"d": []}}}]));
        let expected = BTreeMap::from([
            ("a".to_owned(), (NOW_MS as i64, OwnedValue::Long(1))),
            (
                "c".to_owned(),
                (5, OwnedValue::Json("{\"d\":[]}".to_owned())),
            ),
        ]);
        let samples = samples
            .unwrap()
            .into_iter()
            .map(|(key, ts, value)| (key, (ts, value)));
        assert_eq!(samples.collect::<BTreeMap<_, _>>(), expected);
        assert_eq!(reference(&json!(5)), None);
    }
}
