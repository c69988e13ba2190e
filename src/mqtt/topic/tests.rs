use proptest::prelude::*;

use super::*;

#[test]
fn sec_09_a_name_is_not_empty_and_has_no_wildcard() {
    assert_eq!(Topic::new(""), Err(TopicError::Empty));
    for text in [
        "+",
        "#",
        "a/+",
        "a/#",
        "a+",
        "a#b",
        "+/a",
        "abcdefgh+",
        "é/+",
    ] {
        assert_eq!(Topic::new(text), Err(TopicError::Wildcard), "{text}");
    }
    for text in [
        "a",
        "/",
        "//",
        "a b",
        "$SYS/x",
        "é",
        "v1/devices/me/telemetry",
        "~ !\"*,-.",
    ] {
        assert_eq!(Topic::new(text).map(Topic::as_str), Ok(text));
    }
}

#[test]
fn sec_08_control_and_non_characters_are_refused() {
    for character in [
        "\0", "\u{1}", "\u{1F}", "\u{7F}", "\u{80}", "\u{9F}", "\u{FDD0}",
    ] {
        check_refused(character);
    }
    for character in [
        "\u{FDEF}",
        "\u{FFFE}",
        "\u{FFFF}",
        "\u{1FFFE}",
        "\u{10FFFF}",
    ] {
        check_refused(character);
    }
    for character in [
        " ", "~", "\u{A0}", "\u{FDCF}", "\u{FDF0}", "\u{FFFD}", "\u{FEFF}",
    ] {
        let text = format!("a{character}b");
        assert!(
            Topic::new(&text).is_ok() && Filter::new(&text).is_ok(),
            "{text:?}"
        );
    }
}

/// Refused at every place of a word of eight bytes, in short and long texts.
fn check_refused(character: &str) {
    let expected = TopicError::Character(u32::from(character.chars().next().expect("one")));
    for before in 0..20 {
        for behind in [0, 1, 7, 8, 9, 200] {
            let text = format!("{}{character}{}", "a".repeat(before), "b".repeat(behind));
            assert_eq!(Topic::new(&text), Err(expected), "{text:?}");
            assert_eq!(
                Filter::new(&text),
                Err(FilterError::Text(expected)),
                "{text:?}"
            );
        }
    }
}

#[test]
fn sec_09_names_and_filters_end_at_their_limits() {
    let longest = "a".repeat(TOPIC_BYTES_MAX);
    assert!(Topic::new(&longest).is_ok() && Filter::new(&longest).is_ok());
    let longer = "a".repeat(TOPIC_BYTES_MAX + 1);
    assert_eq!(Topic::new(&longer), Err(TopicError::TooLong(4_097)));
    assert_eq!(
        Filter::new(&longer),
        Err(FilterError::Text(TopicError::TooLong(4_097)))
    );

    let deepest = "/".repeat(TOPIC_LEVELS_MAX - 1);
    assert!(Topic::new(&deepest).is_ok() && Filter::new(&deepest).is_ok());
    let deeper = "/".repeat(TOPIC_LEVELS_MAX);
    assert_eq!(Topic::new(&deeper), Err(TopicError::TooDeep(129)));
    assert_eq!(
        Filter::new(&deeper),
        Err(FilterError::Text(TopicError::TooDeep(129)))
    );
}

#[test]
fn sec_09_wildcards_stand_alone_and_hash_stands_last() {
    for text in [
        "#", "+", "a/#", "+/#", "+/a/+", "/+", "/#", "a/+/#", "$SYS/#", "+/+/+",
    ] {
        assert!(Filter::new(text).is_ok(), "{text}");
    }
    for text in ["a#", "#/a", "a/#/b", "#a", "##", "a/b#", "#/"] {
        assert_eq!(Filter::new(text), Err(FilterError::Hash), "{text}");
    }
    for text in ["a+", "+a", "a/b+/c", "++", "+b/#"] {
        assert_eq!(Filter::new(text), Err(FilterError::Plus), "{text}");
    }
    assert_eq!(Filter::new(""), Err(FilterError::Text(TopicError::Empty)));
}

#[test]
fn sec_10_shared_filters_have_a_name_and_a_filter() {
    for (text, name, matched) in [
        ("$share/g/a", Some("g"), "a"),
        ("$share/g//", Some("g"), "/"),
        ("$share/g/#", Some("g"), "#"),
        ("$share/g/$SYS/x", Some("g"), "$SYS/x"),
        ("$share/g/$share/h/a", Some("g"), "$share/h/a"),
        ("$share", None, "$share"),
        ("$shared/g/a", None, "$shared/g/a"),
        ("a/$share/g", None, "a/$share/g"),
    ] {
        let filter = Filter::new(text).expect(text);
        assert_eq!(
            (filter.share_name(), filter.matched()),
            (name, matched),
            "{text}"
        );
        assert_eq!(FilterBuf::from(filter).as_filter(), filter);
    }
    for text in [
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
        "$share/g#/a",
    ] {
        assert_eq!(Filter::new(text), Err(FilterError::Share), "{text}");
    }
    assert_eq!(Filter::new("$share/g/a/#/b"), Err(FilterError::Hash));
}

#[test]
fn a_filter_matches_as_section_4_7_says() {
    for (filter, topic, expected) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
            true,
        ),
        ("sport/#", "sport", true),
        ("#", "a/b", true),
        ("#", "/", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("+", "é", true),
        ("#", "$SYS/x", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("+/#", "$SYS", false),
        ("$SYS/#", "$SYS/x", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("a/+", "a/$x", true),
        ("a", "A", false),
        ("a", "a/b", false),
        ("a/b", "a", false),
        ("$share/g/a/#", "a/b", true),
        ("$share/g/#", "$SYS/x", false),
        ("$share/g/a", "$share/g/a", false),
    ] {
        let matches = Filter::new(filter)
            .expect(filter)
            .matches(Topic::new(topic).expect(topic));
        assert_eq!(matches, expected, "{filter} on {topic}");
    }
}

/// `covers` against its meaning, with every filter of up to three levels and every topic of up to
/// four, over an alphabet that holds more names than the filters use.
#[test]
fn covers_means_that_no_topic_is_matched_by_the_other_alone() {
    let filters = paths(&["a", "b", "$s", "+", "", "#"], 3);
    let filters: Vec<Filter<'_>> = filters.iter().filter_map(|f| Filter::new(f).ok()).collect();
    let topics = paths(&["a", "b", "$s", "other", "", "$t"], 4);
    let topics: Vec<Topic<'_>> = topics.iter().filter_map(|t| Topic::new(t).ok()).collect();
    assert!(filters.len() > 100 && topics.len() > 200);
    for filter in &filters {
        for other in &filters {
            // The topics of one level more tell `a/#` from `a/+/+`.
            let truth = topics
                .iter()
                .all(|t| !other.matches(*t) || filter.matches(*t));
            assert_eq!(filter.covers(other), truth, "{filter} covers {other}");
        }
    }
}

#[test]
fn covers_looks_through_shares() {
    let filter = |text| Filter::new(text).expect(text);
    assert!(filter("a/#").covers(&filter("$share/g/a/+")));
    assert!(!filter("a/#").covers(&filter("$share/g/#")), "S-13");
    assert!(filter("$share/g/a/#").covers(&filter("a/b")));
}

/// Every path of up to `levels` levels.
fn paths(names: &[&str], levels: usize) -> Vec<String> {
    let mut all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut deepest = all.clone();
    for _ in 1..levels {
        deepest = deepest
            .iter()
            .flat_map(|path| names.iter().map(move |name| format!("{path}/{name}")))
            .collect();
        all.extend(deepest.iter().cloned());
    }
    all
}

proptest! {
    #[test]
    fn the_fast_check_agrees_with_the_slow_one(text in "[ -~éa-f/+#\u{7f}\u{1}]{0,40}") {
        let slow = check_characters(&text).and_then(|()| check_size(&text)).and_then(|()| {
            if text.contains(['+', '#']) { Err(TopicError::Wildcard) } else { Ok(Topic(&text)) }
        });
        prop_assert_eq!(Topic::new(&text), slow);
    }

    #[test]
    fn owned_forms_give_back_what_they_were_made_of(text in "[a-c$+#/]{0,12}") {
        if let Ok(topic) = Topic::new(&text) {
            let owned = TopicBuf::from(topic);
            prop_assert_eq!(owned.as_topic(), topic);
        }
        if let Ok(filter) = Filter::new(&text) {
            let owned = FilterBuf::from(filter);
            prop_assert_eq!(owned.as_filter(), filter);
        }
    }
}
