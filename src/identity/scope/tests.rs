//! Substitution and its attacks, what a scope refuses, and what comes of it.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::identity::scopes::Scopes;
use crate::identity::{Action, Permit};

const DEVICE_ID: &str = "0f4cbe07-41c1-4a4d-9d4b-9b6e8fbb2c11";

fn texts(filters: &[&str]) -> Vec<String> {
    filters.iter().map(|text| (*text).to_owned()).collect()
}

/// What a device of this name may do whose scope, both ways, is these patterns.
fn device(name: &str, patterns: &[&str]) -> Permit {
    let filters = Filters::new(&texts(patterns), &texts(patterns));
    let id = Uuid::parse_str(DEVICE_ID).unwrap();
    compile(IdentityKind::Device, &filters, Some(Owner { id, name }))
}

fn scope_of_application(filters: &[&str]) -> Permit {
    let filters = Filters::new(&texts(filters), &texts(filters));
    compile(IdentityKind::Application, &filters, None)
}

fn allows(permit: &Permit, text: &str) -> bool {
    let topic = Topic::new(text).unwrap();
    let both = [Action::Publish, Action::Receive].map(|action| permit.allows(action, topic));
    assert_eq!(both[0], both[1], "{text}");
    both[0]
}

#[test]
fn sec_25_a_placeholder_is_one_level_of_the_devices_own() {
    let permit = device("pump 7", &["site/%d/#", "by-name/%n/in", "%n/x"]);
    for (topic, expected) in [
        (&*format!("site/{DEVICE_ID}/a/b"), true),
        (&format!("site/{DEVICE_ID}"), true),
        ("site/pump 7/a", false),
        ("site/%d/a", false),
        ("site/00000000-0000-0000-0000-000000000001/a", false),
        ("by-name/pump 7/in", true),
        ("by-name/pump 8/in", false),
        ("by-name/%n/in", false),
        ("pump 7/x", true),
        (&format!("{DEVICE_ID}/x"), false),
        ("v1/devices/me/telemetry", true),
    ] {
        assert_eq!(allows(&permit, topic), expected, "{topic}");
    }
}

#[test]
fn sec_25_s_24_a_name_that_is_no_level_widens_nothing() {
    let patterns = ["site/%n/cmd", "%n/#", "%n", "a/%n/#"];
    for name in [
        "+", "#", "a/b", "a/#", "+/+", "/", "$SYS/#", "a+", "#b", "", "\u{1}", "\u{fffe}",
    ] {
        let permit = device(name, &patterns);
        assert_eq!(permit, Permit::device(), "{name:?}");
    }
    // Names that look like something and are nothing but names.
    for name in [".*", "%d", "%n", "%c", "{id}", "me", "a b", "$", "zażółć"] {
        let permit = device(name, &["site/%n/cmd", "site/%n/x/%d"]);
        assert!(allows(&permit, &format!("site/{name}/cmd")), "{name}");
        assert!(
            allows(&permit, &format!("site/{name}/x/{DEVICE_ID}")),
            "{name}"
        );
        for other in ["site/x/cmd", "site//cmd", "site/a/b/cmd"] {
            assert!(!allows(&permit, other), "{name} {other}");
        }
        let id_topic = format!("site/{DEVICE_ID}/cmd");
        assert!(!allows(&permit, &id_topic), "{name} was put in twice");
    }
}

#[test]
fn sec_33_a_name_at_the_first_level_opens_no_dollar_tree() {
    for name in ["$SYS", "$share", "$x"] {
        let permit = device(name, &["%n/#", "%n/g/a", "in/%n"]);
        for topic in ["$SYS/broker/uptime", "$x/y", "a", "$share/g/a"] {
            assert!(!allows(&permit, topic), "{name} {topic}");
        }
        assert!(allows(&permit, &format!("in/{name}")), "a level as any");
    }
}

#[test]
fn tb_10_no_scope_covers_the_device_topics() {
    let filters = Filters::new(&texts(&["#", "v2/#"]), &texts(&["#", "v2/#", "v1/+/me/#"]));
    let permit = compile(IdentityKind::Application, &filters, None);
    for topic in [
        "v1/devices/me/telemetry",
        "v1/gateway/telemetry",
        "v2/t",
        "/provision/request",
    ] {
        let topic = Topic::new(topic).unwrap();
        assert!(!permit.allows(Action::Publish, topic), "{topic}");
        assert!(!permit.allows(Action::Receive, topic), "{topic}");
        assert!(!permit.allows_filter(&Filter::new(topic.as_str()).unwrap()));
    }
    assert!(allows(&permit, "v1/devices/you/telemetry") && allows(&permit, "v2"));
    // Named through a placeholder, too.
    let named = scope_of_application(&["v2/#"]);
    let named_so = device("v2", &["%n/#"]);
    assert!(
        !allows(&named, "v2/x") && allows(&named_so, "v2/x"),
        "its own, as any device's"
    );
}

#[test]
fn sec_33_publishing_to_dollar_topics_is_denied_whatever_is_stored() {
    let filters = Filters::new(&texts(&["$SYS/#", "#", "+/x"]), &texts(&["#", "+/x"]));
    let permit = compile(IdentityKind::Application, &filters, None);
    for text in ["$SYS/x", "$x/x", "$share/x"] {
        let topic = Topic::new(text).unwrap();
        assert!(!permit.allows(Action::Publish, topic), "{text}");
        assert!(!permit.allows(Action::Receive, topic), "{text}");
    }
    let kind = IdentityKind::Application;
    let Scope(filters) = Scope::new(kind, &[], &texts(&["$SYS/broker/#"])).unwrap();
    let reads = compile(kind, &filters, None);
    let uptime = Topic::new("$SYS/broker/uptime").unwrap();
    assert!(reads.allows(Action::Receive, uptime) && !reads.allows(Action::Publish, uptime));
    assert!(reads.allows_filter(&Filter::new("$SYS/broker/+").unwrap()));
    for wider in ["$SYS/#", "#", "+/broker/uptime"] {
        assert!(
            !reads.allows_filter(&Filter::new(wider).unwrap()),
            "{wider}"
        );
    }
}

/// Whose scope, whether for publishing, the filter, and the reason.
const REFUSED: &[(IdentityKind, bool, &str, &str)] = &[
    (
        IdentityKind::Device,
        true,
        "a/#/b",
        "contains a # that is not the last level",
    ),
    (
        IdentityKind::Device,
        true,
        "a+",
        "contains a + that is not a level of its own",
    ),
    (IdentityKind::Device, true, "", "empty"),
    (IdentityKind::Device, false, "a\nb", "contains U+000A"),
    (
        IdentityKind::Device,
        false,
        "$share/g/a",
        "names a share group",
    ),
    (
        IdentityKind::Device,
        false,
        "v1/devices/me/#",
        "lies in the device topics",
    ),
    (
        IdentityKind::Device,
        true,
        "v2/t",
        "lies in the device topics",
    ),
    (
        IdentityKind::Application,
        false,
        "v1/gateway/x",
        "lies in the device topics",
    ),
    (
        IdentityKind::Application,
        true,
        "/provision/#",
        "lies in the device topics",
    ),
    (IdentityKind::Device, false, "$SYS/#", "closed to devices"),
    (
        IdentityKind::Application,
        true,
        "$SYS/x",
        "closed: no client publishes there",
    ),
    (
        IdentityKind::Application,
        false,
        "$other/#",
        "applications may read $SYS, no other",
    ),
    (
        IdentityKind::Application,
        false,
        "$SYSTEM/#",
        "applications may read $SYS, no other",
    ),
    (
        IdentityKind::Device,
        false,
        "a/%c/b",
        "unknown placeholder %c; known are %d",
    ),
    (
        IdentityKind::Device,
        false,
        "a/x%d/b",
        "inside the level \"x%d\"",
    ),
    (
        IdentityKind::Device,
        false,
        "%name",
        "inside the level \"%name\"",
    ),
    (
        IdentityKind::Application,
        false,
        "a/%d",
        "stands for a device; this is none",
    ),
    (IdentityKind::Device, true, "a;b", "has a ;"),
];

#[test]
fn a_refused_filter_is_named_with_the_reason() {
    for &(kind, publishes, filter, words) in REFUSED {
        let filters = texts(&["good/+", filter]);
        let (publish, subscribe) = if publishes {
            (&*filters, &[][..])
        } else {
            (&[][..], &*filters)
        };
        let error = Scope::new(kind, publish, subscribe).unwrap_err();
        let RegistryError::Invalid { field, what } = error else {
            panic!("{error}");
        };
        assert_eq!(field, if publishes { "publish" } else { "subscribe" });
        assert!(what.starts_with(&format!("filter {filter:?} ")), "{what}");
        assert!(what.contains(words), "{what}");
    }
}

#[test]
fn a_scope_has_limits_and_ordinary_filters_are_taken() {
    use IdentityKind::Device;
    for good in ["100%/x", "a%20b", "%", "v1/devices/+/telemetry", "#"] {
        assert!(
            Scope::new(Device, &texts(&[good]), &texts(&[good])).is_ok(),
            "{good}"
        );
    }
    let many = vec!["a".to_owned(); FILTERS_MAX + 1];
    let error = Scope::new(Device, &many, &[]).unwrap_err().to_string();
    assert!(error.contains("has 65 filters, the limit is 64"), "{error}");
    let long = vec!["a".repeat(SCOPE_BYTES_MAX / 2); 2];
    let error = Scope::new(Device, &long, &[]).unwrap_err().to_string();
    assert!(error.contains("8193 bytes together"), "{error}");
    let scope = Scope::new(Device, &[], &texts(&["a/%n"])).unwrap();
    let error = scope.check_name("a/b").unwrap_err().to_string();
    assert!(
        error.contains("\"a/%n\"") && error.contains("use %d"),
        "{error}"
    );
    scope.check_name("a b").unwrap();
}

#[test]
fn sec_34_a_narrowing_is_told_from_a_widening() {
    let permit = |filters: &[&str]| device("d", filters);
    for (wide, narrow) in [
        (&["a/#"][..], &["a/b", "a/+/c", "a"][..]),
        (&["#"], &["+/a"]),
        (&["a/%d"], &[]),
        (&["%n/+"], &["d/x"]),
        (&["a", "a/+", "a/+/#"], &["a/#"]),
    ] {
        assert!(permit(wide).covers(&permit(narrow)), "{wide:?} {narrow:?}");
    }
    for (before, after) in [
        (&["a/#"][..], &["a/+"][..]),
        (&["a"], &["b"]),
        (&["a/%d"], &["a/%n"]),
        (&["+/a"], &["a/a"]),
    ] {
        assert!(
            !permit(after).covers(&permit(before)),
            "{before:?} {after:?}"
        );
    }
    assert!(!Permit::filters(Vec::new(), Vec::new()).covers(&Permit::device()));
}

#[test]
fn alike_scopes_are_kept_once_and_let_go() {
    let scopes = Scopes::new(3_000);
    let filters = |text: &str| Filters::new(&texts(&[text]), &[]);
    let ids: Vec<Uuid> = (0..100).map(|_| Uuid::new_v4()).collect();
    for id in &ids {
        let common = scopes.common(IdentityKind::Device, &filters("a/%d"));
        scopes.hold(*id, "name", common);
    }
    assert_eq!((scopes.len(), scopes.different()), (100, 1));
    let of = |id: Uuid, other: Uuid| {
        let topic = format!("a/{other}");
        let permit = scopes.permit(id).unwrap();
        permit.allows(Action::Publish, Topic::new(&topic).unwrap())
    };
    assert!(of(ids[0], ids[0]) && !of(ids[0], ids[1]));
    // The same text of an application has no placeholder.
    let application = scopes.common(IdentityKind::Application, &filters("a/%d"));
    scopes.hold(Uuid::nil(), "app", application);
    assert!(!of(Uuid::nil(), Uuid::nil()));
    assert_eq!(scopes.different(), 2);
    // 512 bytes and twice the text for each: five fit into 3,000.
    for (number, id) in ids.iter().enumerate().take(3) {
        let filters = filters(&format!("b/{number}"));
        scopes.check_room(IdentityKind::Device, [&filters]).unwrap();
        let common = scopes.common(IdentityKind::Device, &filters);
        scopes.hold(*id, "name", common);
    }
    let one_more = filters("c");
    let error = scopes
        .check_room(IdentityKind::Device, [&one_more])
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::ScopesFull { limit: 3_000 }),
        "{error}"
    );
    let known = filters("b/0");
    scopes.check_room(IdentityKind::Device, [&known]).unwrap();
    scopes.remove(ids[0]);
    scopes
        .check_room(IdentityKind::Device, [&one_more])
        .unwrap();
    for id in &ids {
        scopes.remove(*id);
    }
    assert_eq!((scopes.len(), scopes.different()), (1, 1));
}

fn level() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(&["a", "b", "", "x"][..]).prop_map(str::to_owned),
        1 => Just("+".to_owned()),
        2 => Just("%n".to_owned()),
        1 => Just("%d".to_owned()),
    ]
}

fn pattern() -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(level(), 1..4);
    (levels, any::<bool>()).prop_filter_map("a filter", |(mut levels, is_open)| {
        if is_open {
            levels.push("#".to_owned());
        }
        let text = levels.join("/");
        Filter::new(&text).is_ok().then_some(text)
    })
}

/// What a pattern stands for, in the plainest words there are: level by level.
fn means(pattern: &str, name: &str, topic: &str) -> bool {
    let (mut levels, mut names) = (pattern.split('/'), topic.split('/'));
    loop {
        match (levels.next(), names.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some("%n"), Some(found)) if found == name => {}
            (Some("%d"), Some(found)) if found == DEVICE_ID => {}
            (Some(level), Some(found)) if level == found && !level.starts_with('%') => {}
            _ => return false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn sec_25_whatever_the_name_a_pattern_means_its_levels(
        patterns in prop::collection::vec(pattern(), 0..4),
        name in "[a+#/%nd]{1,3}",
        topic in "([ab x]?/){0,3}[abx]|(a/)?([a+#/%nd]{1,3})(/b)?",
        with_name in any::<bool>(),
    ) {
        let topic = if with_name { topic.replace('x', &name) } else { topic };
        if Topic::new(&topic).is_err() {
            return Ok(());
        }
        let permit = device(&name, &patterns.iter().map(String::as_str).collect::<Vec<_>>());
        let is_level = !name.contains(['/', '+', '#']);
        let expected = patterns.iter().any(|pattern| {
            let has_name = pattern.split('/').any(|level| level == "%n");
            (is_level || !has_name) && means(pattern, &name, &topic)
        });
        prop_assert_eq!(allows(&permit, &topic), expected, "{:?} {} {}", patterns, name, topic);
    }
}
