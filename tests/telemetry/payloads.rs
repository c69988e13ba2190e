//! Payloads that mean what the tables say: golden rows, limits, errors.

use tollgate::telemetry::{PayloadError, ScanOptions, Value, check, scan};

/// The server's time in these tests.
pub(super) const NOW_MS: u64 = 42;

/// What a payload means, in the notation of the golden file.
pub(super) fn meaning(payload: &[u8], options: ScanOptions) -> String {
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
    let golden = include_str!("../data/telemetry/payloads.tsv");
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
