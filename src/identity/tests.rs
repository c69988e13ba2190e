//! The pure parts: token text, names, the permit, the index.

mod large;

use std::collections::HashMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::index::{TokenEntry, TokenIndex, TokenKey};
use super::key::{RegistryKey, equal};
use super::*;
use crate::mqtt::topic::{Filter, Topic};
use crate::store::Store;

/// The vector of docs/token-format.md, made with another implementation.
const VECTOR: &str = "tgd_0123456789ABCDEFGHIJKLMNOPQRST1oNlri";
const VECTOR_DIGEST: &str = "2b77387aecb45a9fecf8af4a2e3f051d6946dec1e7598520fabee85a4788e0f1";
const ADMIN_VECTOR: &str = "tga_0123456789ABCDEFGHIJKLMNOPQRST49MNBW";

fn vector_key() -> RegistryKey {
    let mut bytes = [0; 32];
    for (byte, value) in bytes.iter_mut().zip(0..) {
        *byte = value;
    }
    RegistryKey::new(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn sec_50_the_vector_of_the_format_page_holds() {
    assert!(DeviceToken::chosen(VECTOR).is_ok());
    assert!(AdminToken::parse(ADMIN_VECTOR).is_some());
    assert_eq!(hex(&vector_key().token_digest(VECTOR)), VECTOR_DIGEST);
    let page = include_str!("../../docs/token-format.md");
    for part in [VECTOR, VECTOR_DIGEST, ADMIN_VECTOR] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn sec_50_generated_tokens_have_the_format_and_every_character() {
    let mut counts: HashMap<char, u32> = HashMap::new();
    for _ in 0..2_000 {
        let token = DeviceToken::generate();
        let text = token.expose();
        assert_eq!(text.len(), 40);
        assert!(
            DeviceToken::chosen(text).is_ok(),
            "its own checksum is wrong"
        );
        let body = text.strip_prefix("tgd_").unwrap();
        for character in body[..30].chars() {
            *counts.entry(character).or_default() += 1;
        }
    }
    // 60,000 draws of 62: 968 expected for each, 31 standard deviation; taking bytes modulo 62
    // without throwing any away would give the first eight 1,172.
    assert_eq!(counts.len(), 62);
    for (character, count) in counts {
        assert!(
            (968 - 170..=968 + 170).contains(&count),
            "{character}: {count}"
        );
    }
    assert!(AdminToken::parse(AdminToken::generate().expose()).is_some());
}

#[test]
fn every_single_mistyped_character_is_noticed() {
    for place in 4..VECTOR.len() {
        for wrong in ['0', 'x', '-', 'é'] {
            let mut mistyped: Vec<char> = VECTOR.chars().collect();
            if std::mem::replace(&mut mistyped[place], wrong) == wrong {
                continue;
            }
            let mistyped: String = mistyped.into_iter().collect();
            let error = DeviceToken::chosen(&mistyped).unwrap_err();
            assert_eq!(error, TokenError::BadChecksum, "{mistyped}");
        }
    }
    assert_eq!(
        DeviceToken::chosen(&VECTOR[..39]).unwrap_err(),
        TokenError::BadChecksum
    );
    assert!(AdminToken::parse(&ADMIN_VECTOR[..39]).is_none());
    assert!(AdminToken::parse(VECTOR).is_none());
}

#[test]
fn chosen_tokens_are_what_a_connect_can_carry() {
    for good in [
        "x",
        "A1_TEST_TOKEN",
        "zażółć",
        "with space",
        &"t".repeat(TOKEN_BYTES_MAX),
    ] {
        assert_eq!(DeviceToken::chosen(good).unwrap().expose(), good);
    }
    let long = "t".repeat(TOKEN_BYTES_MAX + 1);
    for (bad, expected) in [
        ("", TokenError::Empty),
        (
            long.as_str(),
            TokenError::TooLong {
                bytes: TOKEN_BYTES_MAX + 1,
            },
        ),
        ("a\nb", TokenError::Character),
        ("a\u{0}b", TokenError::Character),
        ("a\u{85}b", TokenError::Character),
        ("a\u{fffe}b", TokenError::Character),
        ("a\u{fdd0}b", TokenError::Character),
        ("provision", TokenError::Reserved),
        ("8:acs:resource", TokenError::Reserved),
        (ADMIN_VECTOR, TokenError::Admin),
    ] {
        let error = DeviceToken::chosen(bad).unwrap_err();
        assert_eq!(error, expected, "{bad:?}");
        assert!(
            bad.is_empty() || !error.to_string().contains(bad),
            "{error} shows the text"
        );
    }
}

#[test]
fn sec_55_debug_output_is_redacted() {
    let token = DeviceToken::chosen(VECTOR).unwrap();
    let admin = AdminToken::parse(ADMIN_VECTOR).unwrap();
    let text = format!("{token:?} {admin:?} {:?}", vector_key());
    assert!(!text.contains("0123456789"), "{text}");
    assert!(!text.contains("000102"), "{text}");
}

#[test]
fn names_are_short_printable_and_no_ids() {
    let long = "n".repeat(255);
    for good in ["boiler", "Boiler 1/2", "zażółć", "...", long.as_str()] {
        assert_eq!(DeviceName::new(good).unwrap().as_str(), good);
    }
    let too_long = "n".repeat(256);
    for bad in [
        "",
        too_long.as_str(),
        "a\tb",
        "a\u{7f}b",
        ".",
        "..",
        "67e55044-10b1-426f-9247-bb680e5fe0c8",
        "67E5504410B1426F9247BB680E5FE0C8",
        "{67e55044-10b1-426f-9247-bb680e5fe0c8}",
        "urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8",
    ] {
        let error = DeviceName::new(bad).unwrap_err();
        assert!(
            matches!(error, RegistryError::Invalid { field: "name", .. }),
            "{bad:?}"
        );
    }
}

#[test]
fn sec_30_a_device_reaches_its_own_topics_only() {
    let permit = Permit::device();
    for (text, expected) in [
        ("v1/devices/me/telemetry", true),
        ("v1/devices/me/rpc/request/1", true),
        ("v1/gateway/telemetry", true),
        ("v2/t", true),
        ("/provision/request", true),
        ("v1/devices/me", false),
        ("v1/devices/meter/telemetry", false),
        ("v1/devices/other/telemetry", false),
        ("v1/Devices/me/telemetry", false),
        ("/v1/devices/me/telemetry", false),
        ("v2", false),
        ("v20/t", false),
        ("provision/request", false),
        ("$SYS/v2/t", false),
        ("$share/g/v2/t", false),
        ("anything", false),
    ] {
        let topic = Topic::new(text).unwrap();
        assert_eq!(permit.allows(Action::Publish, topic), expected, "{text}");
        assert_eq!(permit.allows(Action::Receive, topic), expected, "{text}");
    }
}

#[test]
fn sec_32_a_filter_lies_inside_as_a_whole_or_is_refused() {
    let permit = Permit::device();
    for (text, expected) in [
        ("v1/devices/me/rpc/request/+", true),
        ("v1/devices/me/#", true),
        ("v2/r/req/+", true),
        ("$share/g/v1/devices/me/attributes", true),
        ("#", false),
        ("+/#", false),
        ("/#", false),
        ("v1/#", false),
        ("v1/devices/#", false),
        ("v1/devices/+/attributes", false),
        ("v1/+/me/attributes", false),
        ("+/devices/me/attributes", false),
        ("$share/v2/#", false),
        ("$share/g/#", false),
        ("$share/g/$share/g/v2/t", false),
        ("$SYS/#", false),
    ] {
        let Ok(filter) = Filter::new(text) else {
            assert!(!expected, "{text} is no filter");
            continue;
        };
        assert_eq!(permit.allows_filter(&filter), expected, "{text}");
    }
}

proptest! {
    /// Whatever a granted filter matches may be received, but for the level above a `#`.
    #[test]
    fn sec_32_a_granted_filter_matches_nothing_that_is_denied(
        filter in "(v1/|v2/|devices/|me/|gateway/|\\+/|/){0,4}(#|\\+|t)",
        topic in "(v1/|v2/|devices/|me/|gateway/|x/|/){0,4}(t|x)",
    ) {
        let permit = Permit::device();
        let (filter, topic) = (Filter::new(&filter).unwrap(), Topic::new(&topic).unwrap());
        if permit.allows_filter(&filter) && filter.matches(topic) {
            prop_assert!(permit.allows(Action::Receive, topic));
        }
    }

    /// A rule allows what its filter matches, whichever way it is looked up.
    #[test]
    fn sec_31_a_rule_allows_what_its_filter_matches(
        filter in "(\\$?a/|b/|/|\\+/){0,3}(#|\\+|a|b|ab)",
        topic in "(\\$?a/|b/|/){0,3}(a|b|ab|x)?",
    ) {
        if topic.is_empty() {
            return Ok(());
        }
        let (filter, topic) = (Filter::new(&filter).unwrap(), Topic::new(&topic).unwrap());
        let permit = Permit::filters(Vec::new(), vec![filter.into()]);
        prop_assert_eq!(permit.allows(Action::Receive, topic), filter.matches(topic));
    }
}

#[test]
fn the_index_finds_what_is_live_and_knows_what_is_gone() {
    let index = TokenIndex::with_capacity(1);
    let key = vector_key();
    let identity = Uuid::new_v4();
    let (one, two) = (key.token_digest("one"), key.token_digest("two"));
    let first = TokenEntry {
        identity,
        credential: (1 << 40) - 1,
        generation: u32::MAX,
        kind: 2,
        expires_s: u32::MAX,
        has_terms: true,
        is_basic: true,
        is_watched: true,
    };
    index.insert(&one, first);
    assert_eq!(index.find(TokenKey::new(&one)), Some(first));
    assert_eq!(index.find(TokenKey::new(&two)), None);
    index.end([&one]);
    assert_eq!(index.find(TokenKey::new(&one)), None);
    let second = TokenEntry {
        credential: 7,
        generation: 2,
        kind: 0,
        expires_s: 0,
        has_terms: false,
        is_basic: false,
        is_watched: false,
        ..first
    };
    index.insert(&two, second);
    assert_eq!(index.find(TokenKey::new(&two)), Some(second));
    assert!(!index.is_deleted(identity));
    index.delete(identity);
    index.end([&two]);
    assert!(index.is_deleted(identity));
    // A number that has no place opens nothing.
    let beyond = TokenEntry {
        credential: 1 << 40,
        ..first
    };
    index.insert(&one, beyond);
    assert_eq!(index.len(), 0);
}

#[test]
fn sec_54_rights_open_their_topics_and_no_others() {
    // Topic, who may publish to it, who may receive it.
    let [t, r, w, c] = Right::ALL;
    for (topic, publish, receive) in [
        ("v1/devices/me/telemetry", &[t][..], &[][..]),
        ("v2/t", &[t], &[]),
        ("v2/t/j", &[t], &[]),
        ("v1/gateway/telemetry", &[t], &[]),
        ("v1/gateway/connect", &[t, w], &[]),
        ("v1/devices/me/attributes", &[w], &[r]),
        ("v2/a", &[w], &[r]),
        ("v1/devices/me/attributes/request/1", &[r], &[]),
        ("v1/devices/me/attributes/response/1", &[], &[r]),
        ("v2/fw/request/1/chunk/0", &[r], &[r]),
        ("v1/devices/me/rpc/request/1", &[c], &[c]),
        ("v1/devices/me/rpc/response/1", &[c], &[c]),
        ("v2/r/res/1", &[c], &[c]),
        ("v1/gateway/rpc", &[c], &[c]),
        ("v1/devices/me/claim", &[], &[]),
        ("/provision/request", &[], &[]),
        ("v1/devices/me/telemetry/", &[], &[]),
        ("anything", &[], &[]),
    ] {
        let topic = Topic::new(topic).unwrap();
        for right in Right::ALL {
            let rights = Rights::named([right.as_str()]).unwrap();
            let permit = Permit::device_with(rights);
            let may = |action| permit.allows(action, topic);
            let expected = (publish.contains(&right), receive.contains(&right));
            let found = (may(Action::Publish), may(Action::Receive));
            assert_eq!(found, expected, "{right} {topic:?}");
        }
        let none = Permit::device_with(Rights::NONE);
        assert!(!none.allows(Action::Publish, topic) && !none.allows(Action::Receive, topic));
    }
    assert_eq!(Permit::device_with(Rights::ALL), Permit::device());
}

#[test]
fn sec_54_a_filter_lies_inside_the_rights_as_a_whole() {
    let permit =
        |names: &[&str]| Permit::device_with(Rights::named(names.iter().copied()).unwrap());
    let may = |permit: &Permit, text: &str| permit.allows_filter(&Filter::new(text).unwrap());
    let (rpc, attributes) = (permit(&["rpc"]), permit(&["attributes_read"]));
    assert!(may(&rpc, "v1/devices/me/rpc/request/+") && !may(&rpc, "v1/devices/me/attributes"));
    assert!(may(&attributes, "v1/devices/me/attributes/response/+"));
    assert!(may(&attributes, "$share/g/v1/devices/me/attributes"));
    for permit in [&rpc, &attributes] {
        assert!(!may(permit, "v1/devices/me/#"), "more than any right");
        assert!(!may(permit, "#"));
    }
    let all = Permit::device();
    let both = permit(&["rpc", "attributes_read"]);
    assert!(all.covers(&both) && both.covers(&rpc) && rpc.covers(&Permit::filters(vec![], vec![])));
    assert!(!rpc.covers(&attributes) && !both.covers(&all));
}

#[test]
fn digests_and_labels_do_not_mix() {
    let key = vector_key();
    assert_ne!(key.token_digest("x"), key.admin_digest("x"));
    assert_ne!(
        key.token_digest("tollgate registry key check 1"),
        key.check_value()
    );
    // The texts that would collide cannot be tokens.
    assert!(DeviceToken::chosen("tollgate registry key check 1\n").is_err());
    assert!(DeviceToken::chosen("tollgate admin token\nx").is_err());
    assert!(equal(b"same", b"same"));
    assert!(!equal(b"same", b"some") && !equal(b"same", b"sam"));
}

#[test]
fn the_registry_refuses_devices_beyond_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let secrets = Secrets::open(&dir.path().join("secrets"), true).unwrap();
    let registry = Registry::open_with(store.clone(), &secrets, 2, UserTopics::default()).unwrap();
    let create = |registry: &Registry, name| {
        registry
            .create_device(&DeviceName::new(name).unwrap(), None)
            .map(|_| ())
    };
    create(&registry, "one").unwrap();
    create(&registry, "two").unwrap();
    let error = create(&registry, "three").unwrap_err();
    assert!(
        matches!(error, RegistryError::Full { limit: 2, .. }),
        "{error}"
    );
    registry.rotate("one", None).unwrap();
    let reopened = Registry::open_with(store, &secrets, 2, UserTopics::default()).unwrap();
    assert!(matches!(
        create(&reopened, "three"),
        Err(RegistryError::Full { .. })
    ));
    reopened.delete("one", 1).unwrap();
    create(&reopened, "three").unwrap();
}
