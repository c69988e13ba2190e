//! Attacks on paths that are not the straight one: what is asked at a publish or a limit that holds
//! there must hold for retained messages, wills, queues, groups, aliases, resumed sessions too.

use crate::{
    common::{
        client::{Client, property_text, publish_bytes},
        packets::{Connect, VERSIONS, Version, packet, reason, subscribe, text, unsubscribe},
        wire::{ANSWER_LIMIT, hex, show},
    },
    rights::App,
    site::{Site, create_app},
};

/// Longest topic name and filter, in bytes and in levels.
const TOPIC_BYTES_MAX: usize = 4_096;
const TOPIC_LEVELS_MAX: usize = 128;

/// What a member of a group did not acknowledge goes to others when its rights end, and nothing
/// of it comes to the one whose rights ended.
#[test]
fn sec_31_a_group_goes_on_without_a_member_whose_right_ended() {
    for is_revoked in [false, true] {
        let site = Site::new();
        let (topic, marker) = (site.topic("t"), site.topic("marker"));
        let shared = format!("$share/g/{topic}");
        let narrowed = App::new(&site, "narrowed", &["t", "marker"]);
        let mut publisher = site.client(Version::V5, "c");
        let mut gone = narrowed.kept(Version::V5, "a");
        assert_eq!(gone.subscribe(&shared, 1), 1);
        assert_eq!(publisher.publish(1, &topic, b"first"), 0);
        assert_eq!(gone.next().text(), "first");
        let mut other = site.client(Version::V5, "b");
        assert_eq!(other.subscribe(&shared, 1), 1);
        if is_revoked {
            narrowed.revoke();
        } else {
            narrowed.narrow(&["marker"]);
        }
        assert_eq!(publisher.publish(1, &topic, b"second"), 0);
        let mut got = other.take_texts(2);
        got.sort();
        assert_eq!(got, ["first", "second"]);
        if is_revoked {
            gone.wire.skip_until_close();
            continue;
        }
        assert_eq!(gone.subscribe(&shared, 1), 0x87);
        assert_eq!(gone.subscribe(&marker, 1), 1);
        gone.expect_only_marker(&mut publisher, 1, &marker);
        let mut back = narrowed.kept(Version::V5, "a");
        assert!(back.is_present());
        back.expect_only_marker(&mut publisher, 1, &marker);
    }
}

/// SEC-21: whatever a CONNECT is refused for, the session under its name does not notice.
#[test]
fn sec_21_a_refused_connect_disturbs_nobody_under_its_name() {
    let site = Site::new();
    let (topic, will) = (site.topic("t"), site.topic("will"));
    let app = App::new(&site, "a", &["t", "will"]);
    let mut watcher = site.client(Version::V5, "watcher");
    assert_eq!(watcher.subscribe(&will, 1), 1);
    let mut connect = app.connect(Version::V5, "a").kept();
    connect.will = Some((1, false, &will, b"will"));
    let mut a = site.log_in(&connect);
    assert_eq!(a.subscribe(&topic, 1), 1);

    let forbidden = site.topic("forbidden");
    let fresh = || app.connect(Version::V5, "a");
    let mut with_will = fresh();
    with_will.will = Some((1, true, &forbidden, b"will"));
    let mut with_method = fresh();
    with_method.properties = property_text(0x15, b"SCRAM");
    let mut with_data = fresh();
    with_data.properties = property_text(0x16, b"data");
    let table = [
        (with_will, 0x87),
        (with_method, 0x8c),
        (with_data, 0x82),
        (fresh().packet_size_max(6), 0x95),
        (Connect::with_token(Version::V5, "a", "wrong"), 0x86),
    ];
    for (refused, code) in table {
        let mut wire = site.broker.wire();
        wire.send(&refused.encode());
        let answers = wire.packets_until_close();
        let codes: Vec<u8> = answers.iter().map(|answer| reason(answer)).collect();
        assert_eq!(codes, [code], "{answers:02x?}");
        a.wire.expect_alive();
    }
    a.expect_only_own_marker(1, &topic);
    assert!(!watcher.has_message());
    a.wire.reset();
    assert_eq!(watcher.take().text(), "will");
}

/// SEC-26: data without a method, with and without everything else right.
#[test]
fn sec_26_authentication_data_without_a_method_is_a_protocol_error() {
    let site = Site::new();
    for token in [site.token.as_str(), "wrong"] {
        let mut connect = Connect::with_token(Version::V5, "c", token);
        connect.properties = property_text(0x16, b"");
        for mut wire in [site.broker.wire(), site.broker.wire_tls()] {
            wire.send(&connect.encode());
            wire.expect("2003 00 82 00");
            wire.expect_close();
        }
    }
}

/// SEC-33: names of the broker and of the platform, by an identity that may publish to anything.
#[test]
fn sec_33_nobody_speaks_in_the_name_of_the_broker_or_the_platform() {
    let site = Site::alone(&[]);
    let names = [
        "$SYS/broker/version",
        "$share/g/t",
        "$x",
        "v1/devices/me/telemetry",
        "v1/devices/0c7a4a36-96a4-4d2c-9b0b-3b3f1a1f2a11/telemetry",
        "v1/gateway/telemetry",
        "v2/t",
        "/provision/request",
    ];
    let scope = ["#", "$SYS/#", "v1/devices/+/telemetry"];
    let token = create_app(&site.broker, "watcher", &["#"], &scope);
    for version in VERSIONS {
        let mut watcher = site.log_in(&Connect::with_token(version, "watcher", &token));
        for filter in ["#", "v1/devices/+/telemetry"] {
            assert!(watcher.subscribe(filter, 1) < 0x80, "{filter}");
        }
        let mut client = site.client(version, "forger");
        for name in names {
            for flags in [0, 1, 2, 3, 4, 5] {
                let code = client.publish_with(flags, name, &[], b"{\"forged\":1}");
                let is_told = version == Version::V5 && flags > 1;
                assert!(!is_told || code >= 0x80, "{name} {flags}: {code:02x}");
            }
            let mut connect = site.connect(version, "with a will");
            connect.will = Some((1, true, name, b"{\"forged\":1}"));
            let mut wire = site.broker.wire();
            wire.send(&connect.encode());
            // Refused, or without effect.
            if wire
                .packet_or_close(ANSWER_LIMIT)
                .is_some_and(|it| it[3] == 0)
            {
                wire.reset();
            }
        }
        watcher.expect_only_marker(&mut client, 1, "marker");
    }
    assert_eq!(site.retained("#"), [].into());
}

/// A will that would be one retained message too many goes to nobody, as a publish would.
#[test]
fn sec_41_a_will_beyond_the_retained_limit_is_not_published() {
    let site = Site::alone(&[("TOLLGATE_LIMITS_RETAINED_PER_IDENTITY_MAX", "1")]);
    let (topic, will) = (site.topic("t"), site.topic("will"));
    let app = App::new(&site, "a", &["t", "will"]);
    let mut watcher = site.client(Version::V5, "watcher");
    assert_eq!(watcher.subscribe(&will, 1), 1);
    let mut a = app.client(Version::V5, "a");
    assert_eq!(a.retain(1, &topic, b"held"), 0);
    assert_eq!(a.retain(1, &will, b"too many"), 0x97);
    let mut connect = app.connect(Version::V5, "b");
    connect.will = Some((1, true, &will, b"will"));
    site.log_in(&connect).wire.reset();
    let counted = "tollgate_wills_total{end=\"retained_full\"}";
    site.broker.wait_metric_until(counted, |wills| wills == 1.0);
    watcher.expect_only_own_marker(1, &will);
    assert_eq!(site.retained(&site.topic("#")).len(), 1);
}

/// The most filters that fit into a packet: each has its code, a hundred are looked at.
#[test]
fn sec_28_tens_of_thousands_of_filters_in_one_packet_are_answered() {
    const FILTERS: usize = 52_000;
    let site = Site::new();
    for version in VERSIONS {
        let mut client = site.client(version, "c");
        let refused = if version == Version::V5 { 0x97 } else { 0x80 };
        let codes = client.subscribe_all(&[("a", 1); FILTERS], &[]);
        assert_eq!(codes.len(), FILTERS);
        assert!(codes[..100].iter().all(|code| *code == 1));
        assert!(codes[100..].iter().all(|code| *code == refused));
        client.wire.send(&unsubscribe(version, 9, &["a"; FILTERS]));
        client.expect_end(&[0x97]);
    }
}

/// A session is one record of the journal. With raised limits its filters could be longer than one:
/// they are refused before that, and the session survives a kill.
#[test]
fn sec_28_the_filters_of_a_session_have_a_length_together() {
    const FILTERS: usize = 200;
    const TAKEN: usize = 512 * 1024 / TOPIC_BYTES_MAX;
    let site = Site::alone(&[
        ("TOLLGATE_LIMITS_SUBSCRIPTIONS_PER_SESSION_MAX", "10000"),
        ("TOLLGATE_WORKERS_COUNT", "1"),
    ]);
    let name = |at: usize| {
        let short = site.topic(&format!("{at:03}/"));
        format!("{short}{}", "f".repeat(TOPIC_BYTES_MAX - short.len()))
    };
    let mut a = site.kept(Version::V5, "a");
    let codes: Vec<u8> = (0..FILTERS)
        .map(|at| a.subscribe_as(1, &name(at), 1))
        .collect();
    assert!(codes[..TAKEN].iter().all(|code| *code == 1), "{codes:02x?}");
    assert!(codes[TAKEN..].iter().all(|code| *code == 0x97));
    // What is there can be replaced, and what goes makes room.
    assert_eq!(a.subscribe(&name(0), 0), 0);
    assert_eq!(a.unsubscribe(&[&name(0)]), [0]);
    assert_eq!(a.subscribe(&name(FILTERS), 1), 1);
    // Nobody else waits.
    let mut other = site.client(Version::V5, "b");
    let topic = site.topic("t");
    assert_eq!(other.subscribe(&topic, 1), 1);
    other.expect_only_own_marker(1, &topic);
    let last = name(FILTERS);
    let mut broker = std::sync::Arc::into_inner(site.broker).expect("nobody else has it");
    broker.kill9();
    broker.restart();
    let kept = Connect::with_token(Version::V5, "a", &site.token).kept();
    let mut a = Client::connect(&broker, &kept);
    assert!(a.is_present());
    a.expect_only_own_marker(1, &last);
}

/// SEC-09: one level and one byte more than allowed, and as long as a string can be.
#[test]
fn sec_09_the_longest_and_deepest_names_work_and_longer_ones_are_refused() {
    let site = Site::alone(&[]);
    let deep = |levels: usize| vec!["d"; levels].join("/");
    let good = [deep(TOPIC_LEVELS_MAX), "l".repeat(TOPIC_BYTES_MAX)];
    let bad = [
        deep(TOPIC_LEVELS_MAX + 1),
        "l".repeat(TOPIC_BYTES_MAX + 1),
        "l".repeat(65_535),
        "/".repeat(65_535),
    ];
    for version in VERSIONS {
        let mut watcher = site.client(version, "watcher");
        for name in &good {
            assert_eq!(watcher.subscribe(name, 1), 1);
            watcher.expect_only_own_marker(1, name);
            assert_eq!(watcher.retain(1, name, b"r"), 0);
            assert_eq!(watcher.take().text(), "r");
            assert_eq!(watcher.retain(1, name, b""), 0);
            assert_eq!(watcher.take().text(), "");
        }
        for name in &bad {
            let mut client = site.client(version, "c");
            client.send_publish(2, 1, name, &[], b"p");
            client.expect_end(&[0x81, 0x82, 0x90]);
            for packet in [
                subscribe(version, 1, &[(name, 1)]),
                unsubscribe(version, 1, &[name]),
            ] {
                let mut client = site.client(version, "c");
                client.wire.send(&packet);
                if let Some(answer) = client.wire.packet_or_close(ANSWER_LIMIT) {
                    let code = *answer.last().expect("a code");
                    let is_suback = answer[0] == 0x90 && code >= 0x80;
                    assert!(is_suback || answer[0] == 0xe0, "{}", show(&answer));
                }
            }
            let mut connect = site.connect(version, "c");
            connect.will = Some((1, true, name, b"p"));
            let mut wire = site.broker.wire();
            wire.send(&connect.encode());
            for answer in wire.packets_until_close() {
                assert!(answer[0] == 0x20 && answer[3] != 0, "{}", show(&answer));
            }
        }
        watcher.expect_only_own_marker(1, &good[0]);
    }
}

/// A packet id that is in use for one thing says nothing about another.
#[test]
fn sec_15_one_packet_id_for_everything_mixes_nothing_up() {
    let site = Site::new();
    let topic = site.topic("t");
    for version in VERSIONS {
        let mut watcher = site.client(version, "watcher");
        assert_eq!(watcher.subscribe(&topic, 2), 2);
        let mut client = site.client(version, "c");
        client.send_publish(4, 7, &topic, &[], b"first");
        assert_eq!(client.expect_ack(0x50, 7), 0);
        // The id is held: whatever comes under it at QoS 2 is the same message.
        client.send_publish(4, 7, &topic, &[], b"hidden");
        assert_eq!(client.expect_ack(0x50, 7), 0);
        client.send_publish(2, 7, &topic, &[], b"second");
        assert_eq!(client.expect_ack(0x40, 7), 0);
        client.wire.send(&subscribe(version, 7, &[("x", 0)]));
        assert_eq!(client.answer(0x90)[2..4], [0, 7]);
        client.wire.send(&unsubscribe(version, 7, &["x"]));
        assert_eq!(client.answer(0xb0)[2..4], [0, 7]);
        client.wire.send_hex("62020007");
        assert_eq!(client.expect_ack(0x70, 7), 0);
        client.wire.send_hex("62020007");
        let again = client.expect_ack(0x70, 7);
        assert!([0, 0x92].contains(&again), "{again:02x}");
        client.send_publish(4, 7, &topic, &[], b"third");
        assert_eq!(client.expect_ack(0x50, 7), 0);
        assert_eq!(watcher.take_texts(3), ["first", "second", "third"]);
        watcher.expect_only_own_marker(2, &topic);
    }
}

/// Acknowledgements that do not fit what was sent end the connection; the message is not lost.
#[test]
fn sec_14_a_delivery_is_not_ended_by_the_wrong_acknowledgement() {
    let site = Site::new();
    let topic = site.topic("t");
    for (qos, wrong) in [(2, 0x40), (2, 0x70), (1, 0x50), (1, 0x70)] {
        let mut a = site.kept(Version::V5, "a");
        assert_eq!(a.subscribe(&topic, 2), 2);
        let mut publisher = site.client(Version::V5, "c");
        assert_eq!(publisher.publish(qos, &topic, b"p"), 0);
        let message = a.next();
        a.wire.send(&packet(wrong, &message.id.to_be_bytes()));
        a.expect_end(&[0x82]);
        let mut a = site.kept(Version::V5, "a");
        let again = a.take();
        assert!(again.dup && again.id == message.id, "{again:?}");
        a.expect_only_own_marker(2, &topic);
        assert_eq!(a.unsubscribe(&[&topic]), [0]);
    }
}

/// The receiver's Maximum Packet Size on every way that a message can take.
#[test]
fn sec_13_what_is_too_long_for_a_client_reaches_it_on_no_path() {
    let site = Site::new();
    let (topic, will) = (site.topic("t"), site.topic("will"));
    let shared = format!("$share/g/{}", site.topic("s"));
    let long = [b'x'; 200];
    let mut publisher = site.client(Version::V5, "c");
    let small = || {
        site.connect(Version::V5, "small")
            .kept()
            .packet_size_max(120)
    };
    let mut a = site.log_in(&small());
    for filter in [&topic, &will, &shared] {
        assert_eq!(a.subscribe(filter, 2), 2);
    }
    let publish_all = |publisher: &mut Client| {
        for qos in 0..3 {
            assert_eq!(publisher.publish(qos, &topic, &long), 0);
            assert_eq!(publisher.publish(qos, &site.topic("s"), &long), 0);
        }
    };
    publish_all(&mut publisher);
    let mut connect = site.connect(Version::V5, "with a will");
    connect.will = Some((1, false, &will, &long));
    site.log_in(&connect).wire.reset();
    assert_eq!(publisher.retain(1, &site.topic("r"), &long), 0);
    assert_eq!(a.subscribe(&site.topic("r"), 1), 1);
    a.expect_only_marker(&mut publisher, 1, &topic);
    // Queued while it was away.
    a.disconnect();
    publish_all(&mut publisher);
    let mut a = site.log_in(&small());
    assert!(a.is_present());
    a.expect_only_marker(&mut publisher, 1, &topic);
    // Nothing of it was kept for a client that takes more.
    a.disconnect();
    let mut a = site.kept(Version::V5, "small");
    a.expect_only_marker(&mut publisher, 1, &topic);
    assert_eq!(publisher.retain(0, &site.topic("r"), b""), 0);
}

/// An alias is known from then on, whatever became of the message that brought it.
#[test]
fn sec_12_an_alias_from_a_refused_publish_is_no_way_in() {
    let site = Site::new();
    let (own, other) = (site.topic("own"), site.topic("other"));
    let app = App::new(&site, "a", &["own"]);
    let mut watcher = site.client(Version::V5, "watcher");
    assert_eq!(watcher.subscribe(&other, 2), 2);
    let mut a = app.client(Version::V5, "a");
    let alias = [0x23, 0, 1];
    for flags in [2, 4] {
        assert_eq!(a.publish_with(flags, &other, &alias, b"p"), 0x87);
        assert_eq!(a.publish_with(flags, "", &alias, b"p"), 0x87);
        assert_eq!(a.publish_with(flags | 1, "", &alias, b"p"), 0x87);
    }
    assert_eq!(a.publish_with(2, &own, &alias, b"p"), 0);
    assert_eq!(a.publish_with(2, "", &alias, b"p"), 0);
    a.send_publish(2, 99, "", &[0x23, 0xff, 0xff], b"p");
    a.expect_end(&[0x94]);
    watcher.expect_only_own_marker(2, &other);
    assert_eq!(site.retained(&other), [].into());
}

/// Subscription identifiers: 0, twice, too large, and where they have no place.
#[test]
fn sec_11_a_subscription_identifier_stands_once_and_in_subscribe() {
    let site = Site::new();
    for properties in ["0b00", "0b01 0b02", "0bffffffff01"] {
        let mut client = site.client(Version::V5, "c");
        let mut body = vec![0, 1];
        crate::common::packets::property_block(&mut body, &hex(properties));
        text(&mut body, "a");
        body.push(0);
        client.wire.send(&packet(0x82, &body));
        client.expect_end(&[0x81, 0x82]);
        let mut client = site.client(Version::V5, "c");
        let mut body = vec![0, 1];
        crate::common::packets::property_block(&mut body, &hex("0b01"));
        text(&mut body, "a");
        client.wire.send(&packet(0xa2, &body));
        client.expect_end(&[0x81, 0x82]);
    }
}

/// What CONNACK says of shared subscriptions, by what the scope lets the client join.
#[test]
fn sec_32_connack_tells_whether_any_group_can_be_joined() {
    let site = Site::new();
    let name = |name: &str| site.topic(name).replace('/', "-");
    let app = |at: &str, scope: &[&str]| create_app(&site.broker, &name(at), &["#"], scope);
    let device = |at: &str, scope: &[&str]| {
        let mut arguments = vec!["device", "create", at, "--json"];
        for filter in scope {
            arguments.extend(["--subscribe", filter]);
        }
        let created = site.broker.cli_json(&arguments);
        created["token"].as_str().expect("a token").to_owned()
    };
    let table = [
        (app("all", &["#"]), "a", true),
        (
            app("feed", &["v1/devices/+/telemetry"]),
            "v1/devices/+/telemetry",
            true,
        ),
        (app("none", &[]), "a", false),
        (device(&name("plain"), &[]), "a", false),
        (device(&name("scoped"), &["in/%d"]), "in/x", true),
    ];
    for (token, filter, is_there) in table {
        let mut client = site.log_in(&Connect::with_token(Version::V5, "c", &token));
        let told = client.announced().into_iter().find(|(id, _)| *id == 0x2a);
        let expected = (!is_there).then(|| (0x2a, vec![0]));
        assert_eq!(told, expected, "{filter}");
        if !is_there {
            assert!(client.subscribe(&format!("$share/g/{filter}"), 0) >= 0x80);
        }
    }
}

/// MQTT 5, 3.10.4: a filter without a subscription is told so, also where none could be.
#[test]
fn mqtt_3_10_4_a_filter_that_was_never_subscribed_is_told_so() {
    let site = Site::new();
    let app = App::new(&site, "a", &["own/#"]);
    let forbidden = site.topic("other");
    let filters = [
        "a",
        "#",
        "$SYS/#",
        "$share/g/a",
        "v1/devices/me/attributes",
        "v1/devices/x/telemetry",
        forbidden.as_str(),
    ];
    let device = site
        .broker
        .create_device(&site.topic("d").replace('/', "-"));
    let device = Connect::with_token(Version::V5, "c", &device);
    for connect in [device, app.connect(Version::V5, "c")] {
        let mut client = site.log_in(&connect);
        assert_eq!(client.unsubscribe(&filters), [0x11; 7]);
    }
}

/// Everything at once in one segment: the verdicts do not depend on what stands around a packet.
#[test]
fn sec_14_a_right_is_asked_for_each_packet_of_a_segment() {
    let site = Site::new();
    let (own, other) = (site.topic("own"), site.topic("other"));
    let app = App::new(&site, "a", &["own"]);
    let mut watcher = site.client(Version::V5, "watcher");
    for filter in [&own, &other] {
        assert_eq!(watcher.subscribe(filter, 1), 1);
    }
    let mut a = app.client(Version::V5, "a");
    let mut bytes = Vec::new();
    for id in 1..=60 {
        let topic = if id % 2 == 0 { &own } else { &other };
        bytes.extend(publish_bytes(Version::V5, 2, id, topic, &[], b"p"));
    }
    a.wire.send(&bytes);
    for id in 1..=60 {
        let code = a.expect_ack(0x40, id);
        assert_eq!(code, if id % 2 == 0 { 0 } else { 0x87 });
    }
    for _ in 0..30 {
        assert_eq!(watcher.take().topic, own);
    }
    watcher.expect_only_own_marker(1, &other);
}

/// A record names a session once. A subscriber in a hundred groups must not make a hundred records
/// of every message, for which there is no room: its publishers would be refused for ever.
#[test]
fn sec_82_a_subscriber_in_many_groups_does_not_have_publishers_refused() {
    const GROUPS: u8 = 100;
    let site = Site::new();
    let topic = site.topic("t");
    let mut greedy = site.kept(Version::V5, "greedy");
    for group in 0..GROUPS {
        let filter = format!("$share/{group}/{topic}");
        assert_eq!(greedy.subscribe_as(group + 1, &filter, 1), 1);
    }
    let mut publisher = site.client(Version::V5, "c");
    let long = vec![b'p'; 60_000];
    assert_eq!(publisher.publish(1, &topic, &long), 0);
    let mut ids: Vec<usize> = Vec::new();
    for _ in 0..GROUPS {
        let message = greedy.take();
        assert_eq!(message.payload.len(), long.len());
        ids.extend(message.subscription_ids());
    }
    ids.sort_unstable();
    assert!(
        ids.into_iter().eq(1..=usize::from(GROUPS)),
        "each group once"
    );
    greedy.disconnect();
    assert_eq!(publisher.publish(2, &topic, b"queued"), 0);
    let mut greedy = site.kept(Version::V5, "greedy");
    assert_eq!(greedy.take_texts(usize::from(GROUPS)), ["queued"; 100]);
}
