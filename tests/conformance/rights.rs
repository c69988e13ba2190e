//! The step lists of the security requirements (S-…) on ordinary topics: who may what, when
//! rights end, and that strangers touch nothing.
//!
//! A is an application with rights of its own, C the one of the place that may do anything.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    common::{
        client::{Client, Message},
        packets::{Connect, VERSIONS, Version, packet, reason},
        wire::{ANSWER_LIMIT, show},
    },
    site::{Site, create_app, in_time, revoke_app, set_scope},
};

/// A limit for what hangs.
const LIMIT: Duration = ANSWER_LIMIT;

/// An application that may publish and receive below its own levels of the place.
pub(crate) struct App<'s> {
    site: &'s Site,
    name: String,
    token: String,
}

impl<'s> App<'s> {
    pub(crate) fn new(site: &'s Site, name: &str, levels: &[&str]) -> App<'s> {
        let name = site.topic(name).replace('/', "-");
        let filters: Vec<String> = levels.iter().map(|level| site.topic(level)).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let token = create_app(&site.broker, &name, &filters, &filters);
        App { site, name, token }
    }

    pub(crate) fn connect<'a>(&'a self, version: Version, id: &'a str) -> Connect<'a> {
        Connect::with_token(version, id, &self.token)
    }

    pub(crate) fn client(&self, version: Version, id: &str) -> Client {
        self.site.log_in(&self.connect(version, id))
    }

    pub(crate) fn kept(&self, version: Version, id: &str) -> Client {
        self.site.log_in(&self.connect(version, id).kept())
    }

    /// From now on it may only what these levels say.
    pub(crate) fn narrow(&self, levels: &[&str]) {
        let filters: Vec<String> = levels.iter().map(|level| self.site.topic(level)).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        set_scope(&self.site.broker, &self.name, &filters, &filters);
    }

    pub(crate) fn revoke(&self) {
        revoke_app(&self.site.broker, &self.name);
    }
}

/// Either it is cut off, or the marker is all that comes.
fn expect_nothing(client: &mut Client, publisher: &mut Client, marker: &str) {
    assert_eq!(publisher.publish(1, marker, b"marker"), 0);
    if let Some(message) = client.next_within_or_close(LIMIT) {
        assert_eq!(message.topic, marker, "{message:?}");
    }
}

impl Client {
    /// The next message; None if the connection ends first, with or without DISCONNECT.
    fn next_within_or_close(&mut self, limit: Duration) -> Option<Message> {
        let packet = self.wire.packet_or_close(limit)?;
        if packet[0] == 0xe0 {
            return None;
        }
        Some(Message::read(self.version, &packet))
    }
}

#[test]
fn s_02_a_right_that_ended_ends_the_subscription() {
    let site = Site::new();
    let (topic, marker) = (site.topic("t"), site.topic("marker"));
    let app = App::new(&site, "a", &["t", "marker"]);
    let mut c = site.client(Version::V5, "c");
    let mut a = app.kept(Version::V5, "a");
    assert_eq!(a.subscribe(&topic, 1), 1);
    assert_eq!(a.subscribe(&marker, 1), 1);
    app.narrow(&["marker"]);
    assert_eq!(c.publish(1, &topic, b"secret"), 0);
    expect_nothing(&mut a, &mut c, &marker);
    let mut a = app.kept(Version::V5, "a");
    assert_eq!(a.subscribe(&topic, 1), 0x87);
    assert_eq!(a.subscribe(&marker, 1), 1);
    assert_eq!(c.publish(1, &topic, b"secret"), 0);
    expect_nothing(&mut a, &mut c, &marker);
    // The right comes back; what was published meanwhile does not.
    app.narrow(&["t", "marker"]);
    let mut a = app.kept(Version::V5, "a");
    assert_eq!(a.subscribe(&marker, 1), 1);
    expect_nothing(&mut a, &mut c, &marker);
}

#[test]
fn s_03_what_is_queued_or_on_its_way_is_not_delivered_without_the_right() {
    let site = Site::new();
    let (topic, marker) = (site.topic("t"), site.topic("marker"));
    let app = App::new(&site, "a", &["t", "marker"]);
    let mut c = site.client(Version::V5, "c");
    let mut a = app.kept(Version::V5, "a");
    assert_eq!(a.subscribe(&topic, 1), 1);
    assert_eq!(c.publish(1, &topic, b"in flight"), 0);
    assert_eq!(a.next().text(), "in flight");
    a.wire.reset();
    // Its connection is over when another one of it was let in and said goodbye.
    app.kept(Version::V5, "a").disconnect();
    assert_eq!(c.publish(1, &topic, b"queued"), 0);
    app.narrow(&["marker"]);
    let mut a = app.kept(Version::V5, "a");
    assert_eq!(a.subscribe(&marker, 1), 1);
    expect_nothing(&mut a, &mut c, &marker);
}

#[test]
fn s_04_what_a_revoked_identity_retained_is_gone() {
    let site = Site::new();
    let topic = site.topic("t");
    let app = App::new(&site, "a", &["t"]);
    let mut a = app.client(Version::V5, "a");
    assert_eq!(a.retain(1, &topic, b"held"), 0);
    assert_eq!(site.retained(&topic).len(), 1);
    app.revoke();
    a.wire.skip_until_close();
    assert_eq!(site.retained(&topic), [].into());
}

#[test]
fn s_05_a_revoked_application_leaves_no_will() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let app = App::new(&site, "a", &["t"]);
        let mut c = site.client(Version::V5, "c");
        assert_eq!(c.subscribe(&topic, 1), 1);
        let mut connect = app.connect(version, "a").kept();
        connect.will = Some((1, true, &topic, b"will"));
        let mut connected = site.log_in(&connect);
        if version == Version::V5 {
            // One that waits already.
            connect.client_id = "away";
            let away = site.log_in(&connect.clone().will_delay(3600));
            away.wire.reset();
        }
        app.revoke();
        connected.wire.skip_until_close();
        c.expect_only_own_marker(1, &topic);
    }
}

#[test]
fn s_06_a_will_on_a_forbidden_topic_is_refused_at_connect() {
    for version in VERSIONS {
        let site = Site::new();
        let (topic, other) = (site.topic("t"), site.topic("other"));
        let app = App::new(&site, "a", &["t"]);
        let mut c = site.client(Version::V5, "c");
        assert_eq!(c.subscribe(&other, 1), 1);
        for will_topic in [other.as_str(), "$SYS/x"] {
            let mut connect = app.connect(version, "a");
            connect.will = Some((1, false, will_topic, b"will"));
            let mut wire = site.broker.wire();
            wire.send(&connect.encode());
            let connack = wire.packet();
            let expected = if version == Version::V5 { 0x87 } else { 5 };
            assert_eq!(reason(&connack), expected, "{version:?}");
            wire.expect_close();
        }
        let mut connect = app.connect(version, "a");
        connect.will = Some((1, false, &topic, b"will"));
        site.log_in(&connect).disconnect();
        c.expect_only_own_marker(1, &other);
    }
}

#[test]
fn s_07_a_will_whose_right_ended_is_not_published() {
    in_time(|delay_s| {
        let site = Site::new();
        let (topic, marker) = (site.topic("t"), site.topic("marker"));
        let app = App::new(&site, "a", &["t", "marker"]);
        let mut c = site.client(Version::V5, "c");
        assert_eq!(c.subscribe(&topic, 1), 1);
        assert_eq!(c.subscribe(&marker, 1), 1);
        let mut connect = app.connect(Version::V5, "a");
        connect.will = Some((1, true, &topic, b"will"));
        let a = site.log_in(&connect);
        connect.client_id = "late";
        let late = site.log_in(&connect.kept().will_delay(delay_s));
        let begin = Instant::now();
        late.wire.reset();
        app.narrow(&["marker"]);
        if begin.elapsed().as_secs() >= u64::from(delay_s) {
            return false;
        }
        a.wire.reset();
        // One more will, later and allowed, shows that the delay is over.
        let control = app.connect(Version::V5, "control").kept();
        let mut control = control.will_delay(delay_s + 1);
        control.will = Some((1, false, &marker, b"control"));
        site.log_in(&control).wire.reset();
        assert_eq!(c.take().text(), "control");
        c.expect_only_own_marker(1, &topic);
        assert_eq!(site.retained(&topic), [].into());
        true
    });
}

#[test]
fn s_08_a_refused_connect_of_a_stranger_leaves_no_will() {
    for version in VERSIONS {
        let site = Site::new();
        let topic = site.topic("t");
        let mut c = site.client(version, "c");
        assert_eq!(c.subscribe(&topic, 1), 1);
        let mut connect = Connect::with_token(version, "x", "wrong");
        connect.will = Some((1, true, &topic, b"will"));
        let mut wire = site.broker.wire();
        wire.send(&connect.encode());
        assert_ne!(reason(&wire.packet()), 0);
        wire.expect_close();
        c.expect_only_own_marker(1, &topic);
        assert_eq!(site.retained(&topic), [].into());
    }
}

#[test]
fn s_09_a_stranger_does_not_end_a_session() {
    for version in [Version::V311, Version::V5] {
        let site = Site::new();
        let topic = site.topic("t");
        let mut c = site.client(version, "c");
        let mut a = site.kept(version, "a");
        assert_eq!(a.subscribe(&topic, 1), 1);
        a.disconnect();
        assert_eq!(c.publish(1, &topic, b"queued"), 0);
        let mut wire = site.broker.wire();
        wire.send(&Connect::with_token(version, "a", "wrong").encode());
        assert_ne!(reason(&wire.packet()), 0);
        wire.expect_close();
        let mut a = site.kept(version, "a");
        assert!(a.is_present());
        assert_eq!(a.take().text(), "queued");
    }
}

#[test]
fn sec_23_s_10_s_11_equal_client_ids_of_two_identities_do_not_meet() {
    for version in [Version::V311, Version::V5] {
        let site = Site::new();
        let topic = site.topic("t");
        let app = App::new(&site, "b", &["t"]);
        let mut c = site.client(version, "c");
        let mut a = site.kept(version, "a");
        assert_eq!(a.subscribe(&topic, 1), 1);
        // Connected: B has its own session, and sees nothing of A's.
        let mut b = app.kept(version, "a");
        assert!(!b.is_present());
        a.wire.expect_alive();
        assert_eq!(c.publish(1, &topic, b"first"), 0);
        let unacknowledged = a.next();
        assert_eq!(unacknowledged.text(), "first");
        b.wire.expect_alive();
        assert!(!b.has_message());
        b.disconnect();
        a.disconnect();
        assert_eq!(c.publish(1, &topic, b"second"), 0);
        // Away: B starts clean, A has all of it.
        let mut b = app.client(version, "a");
        assert!(!b.has_message());
        let mut a = site.kept(version, "a");
        assert!(a.is_present());
        assert_eq!(a.take_texts(2), ["first", "second"]);
    }
}

#[test]
fn sec_24_s_12_a_storm_of_take_overs_loses_nothing() {
    const MESSAGES: usize = 2_000;
    let site = Site::new();
    let topic = site.topic("t");
    let mut a = site.kept(Version::V5, "a");
    assert_eq!(a.subscribe(&topic, 1), 1);
    let mut seen = BTreeSet::new();
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut c = site.client(Version::V5, "c");
            for number in 0..MESSAGES {
                assert_eq!(c.publish(1, &topic, number.to_string().as_bytes()), 0);
            }
        });
        let mut round = 0;
        while seen.len() < MESSAGES {
            round += 1;
            for _ in 0..round % 40 {
                let Some(message) = a.next_within(LIMIT) else {
                    panic!("only {} of {MESSAGES}", seen.len());
                };
                a.acknowledge(&message);
                seen.insert(message.text());
                if seen.len() == MESSAGES {
                    break;
                }
            }
            let new = site.kept(Version::V5, "a");
            assert!(new.is_present());
            // What the old one still got before it was told and closed.
            let mut old = std::mem::replace(&mut a, new);
            let mut last = Vec::new();
            while let Some(packet) = old.wire.packet_or_close(LIMIT) {
                last = packet;
            }
            assert_eq!((last[0], reason(&last)), (0xe0, 0x8e), "{}", show(&last));
        }
        publisher.join().expect("all was acknowledged");
    });
    assert_eq!(seen.len(), MESSAGES);
}

#[test]
fn s_13_s_14_a_subscription_needs_the_right_to_all_of_it() {
    for version in VERSIONS {
        let site = Site::new();
        let app = App::new(&site, "a", &["own/#"]);
        let mut c = site.client(version, "c");
        assert_eq!(c.retain(1, &site.topic("t"), b"held"), 0);
        let mut a = app.client(version, "a");
        let refused = if version == Version::V5 { 0x87 } else { 0x80 };
        let filters = [
            format!("$share/g/{}", site.topic("t")),
            "$share/g/#".to_owned(),
            site.topic("t"),
            site.topic("#"),
            site.topic("+/x"),
            site.topic("own/+").replace("own", "+"),
            "#".to_owned(),
            "+".to_owned(),
            "/#".to_owned(),
            "$SYS/#".to_owned(),
        ];
        for filter in &filters {
            assert_eq!(a.subscribe(filter, 1), refused, "{version:?} {filter}");
        }
        assert_eq!(a.subscribe(&site.topic("own/+"), 1), 1);
        assert_eq!(
            a.subscribe(&format!("$share/g/{}", site.topic("own/s/#")), 1),
            1
        );
        assert_eq!(c.publish(1, &site.topic("t"), b"secret"), 0);
        a.expect_only_marker(&mut c, 1, &site.topic("own/marker"));
    }
}

/// A scope has no exceptions: what is left out of it is not there, whatever is around it.
#[test]
fn s_15_what_the_scope_leaves_out_is_never_given() {
    for version in VERSIONS {
        let site = Site::new();
        let (secret, open) = (site.topic("a/secret"), site.topic("a/open/x"));
        let app = App::new(&site, "c", &["a/open/#", "a/other", "marker"]);
        let mut publisher = site.client(version, "p");
        assert_eq!(publisher.retain(1, &secret, b"retained"), 0);
        let mut c = app.kept(version, "c");
        let refused = if version == Version::V5 { 0x87 } else { 0x80 };
        for filter in ["a/#", "a/+", "+/secret", "a/secret", "a/secret/#"] {
            let filter = site.topic(filter);
            assert_eq!(c.subscribe(&filter, 1), refused, "{filter}");
            let shared = format!("$share/g/{filter}");
            assert_eq!(c.subscribe(&shared, 1), refused, "{filter}");
        }
        for filter in ["a/open/#", "a/other", "marker"] {
            assert_eq!(c.subscribe(&site.topic(filter), 1), 1);
        }
        assert_eq!(publisher.publish(1, &secret, b"live"), 0);
        assert_eq!(publisher.publish(1, &open, b"open"), 0);
        assert_eq!(c.take().text(), "open");
        c.disconnect();
        assert_eq!(publisher.publish(1, &secret, b"queued"), 0);
        let mut c = app.kept(version, "c");
        c.expect_only_marker(&mut publisher, 1, &site.topic("marker"));
    }
}

/// Delivery happens with PUBREC; what comes after the right ended has no effect.
#[test]
fn s_16_a_release_after_the_right_ended_brings_nothing() {
    let site = Site::new();
    let topic = site.topic("t");
    let app = App::new(&site, "a", &["t", "marker"]);
    let mut c = site.client(Version::V5, "c");
    assert_eq!(c.subscribe(&topic, 1), 1);
    let mut a = app.kept(Version::V5, "a");
    a.send_publish(4, 1, &topic, &[], b"allowed");
    assert_eq!(a.expect_ack(0x50, 1), 0);
    assert_eq!(c.take().text(), "allowed");
    app.narrow(&["marker"]);
    a.wire.send_hex("62020001");
    a.send_publish(0, 0, &topic, &[], b"forbidden");
    let mut again = app.kept(Version::V5, "a");
    again.wire.send_hex("62020001");
    let _ = again.answer(0x70);
    again.send_publish(4, 1, &topic, &[], b"forbidden");
    assert_eq!(again.expect_ack(0x50, 1), 0x87);
    c.expect_only_own_marker(1, &topic);
}

#[test]
fn s_17_a_forbidden_qos_2_message_is_refused_each_time() {
    let site = Site::new();
    let topic = site.topic("t");
    let app = App::new(&site, "a", &["own"]);
    let mut c = site.client(Version::V5, "c");
    assert_eq!(c.subscribe(&topic, 2), 2);
    let mut a = app.client(Version::V5, "a");
    for flags in [4, 12] {
        a.send_publish(flags, 7, &topic, &[], b"p");
        assert_eq!(a.expect_ack(0x50, 7), 0x87);
    }
    c.expect_only_own_marker(1, &topic);
}

#[test]
fn s_24_a_client_id_is_no_pattern() {
    let site = Site::new();
    let app = App::new(&site, "a", &["own/+"]);
    for id in ["#", "+", "a/b", ".*", "%c", "%d", "$SYS", "../x", "own/#"] {
        let mut client = app.client(Version::V5, id);
        for filter in [
            site.topic("#"),
            site.topic("t"),
            id.replace(['%', '.'], "t"),
        ] {
            assert!(client.subscribe(&filter, 0) >= 0x80, "{id} {filter}");
        }
        assert_eq!(client.publish(1, &site.topic("t"), b"p"), 0x87);
        assert_eq!(client.subscribe(&site.topic("own/t"), 1), 1);
        client.expect_only_own_marker(1, &site.topic("own/t"));
    }
}

#[test]
fn s_26_an_alias_gives_no_right_that_ended() {
    let site = Site::new();
    let topic = site.topic("t");
    let app = App::new(&site, "a", &["t", "own"]);
    let mut c = site.client(Version::V5, "c");
    assert_eq!(c.subscribe(&topic, 1), 1);
    let mut a = app.client(Version::V5, "a");
    assert_eq!(a.publish_with(2, &topic, &[0x23, 0, 1], b"allowed"), 0);
    assert_eq!(c.take().text(), "allowed");
    app.narrow(&["own"]);
    a.send_publish(2, 9, "", &[0x23, 0, 1], b"forbidden");
    if let Some(answer) = a.wire.packet_or_close(LIMIT) {
        assert!(reason(&answer) >= 0x80, "{}", show(&answer));
    }
    c.expect_only_own_marker(1, &topic);
}

#[test]
fn s_27_a_keep_alive_without_end_is_capped_and_enforced() {
    const CLIENTS: usize = 1_000;
    let site = Site::alone(&[("TOLLGATE_MQTT_KEEP_ALIVE_MAX_S", "5")]);
    let mut silent = Vec::new();
    for at in 0..CLIENTS {
        let version = VERSIONS[at % 3];
        let id = format!("c{at}");
        let mut connect = site.connect(version, &id);
        connect.keep_alive_s = [0, u16::MAX][at % 2];
        let client = site.log_in(&connect);
        if version == Version::V5 {
            let told = client.announced().into_iter().find(|(id, _)| *id == 0x13);
            assert_eq!(told.expect("Server Keep Alive").1, [0, 5]);
        }
        silent.push(client);
    }
    for client in &mut silent {
        if let Some(packet) = client.wire.packet_or_close(LIMIT) {
            assert_eq!((packet[0], reason(&packet)), (0xe0, 0x8d));
        }
    }
}

#[test]
fn s_29_many_client_ids_of_one_token_stay_within_the_cap() {
    let site = Site::alone(&[("TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX", "10")]);
    let (mut accepted, mut refused) = (0, 0);
    for at in 0..10_000 {
        let id = format!("c{at}");
        let connect = site.connect(Version::V5, &id).kept_for(u32::MAX);
        let mut wire = site.broker.wire();
        wire.send(&connect.encode());
        let connack = wire.packet();
        match reason(&connack) {
            0 => accepted += 1,
            0x97 => refused += 1,
            _ => panic!("{}", show(&connack)),
        }
        wire.send_hex("e000");
        wire.skip_until_close();
    }
    assert_eq!((accepted, refused), (10, 9_990));
    let other = create_app(&site.broker, "other", &["#"], &["#"]);
    let mut other = site.log_in(&Connect::with_token(Version::V5, "c", &other));
    assert_eq!(other.subscribe("t", 1), 1);
    other.expect_only_own_marker(1, "t");
}

/// WebSocket is not there yet.
#[test]
fn sec_20_s_28_half_of_the_credentials_is_none() {
    let site = Site::new();
    let token = site.token.as_bytes();
    let table: [(Option<&str>, Option<&[u8]>); 8] = [
        (Some("nobody"), None),
        (Some(""), None),
        (None, None),
        (None, Some(token)),
        (None, Some(b"")),
        (Some(""), Some(b"")),
        (Some(""), Some(token)),
        (Some("nobody"), Some(token)),
    ];
    for version in VERSIONS {
        for (user_name, password) in table {
            if version != Version::V5 && user_name.is_none() && password.is_some() {
                continue; // Malformed there: P-10.
            }
            for id in ["c", ""] {
                let mut connect = Connect::anonymous(version, id);
                (connect.user_name, connect.password) = (user_name, password);
                for mut wire in [site.broker.wire(), site.broker.wire_tls()] {
                    wire.send(&connect.encode());
                    for connack in wire.packets_until_close() {
                        let is_refusal = connack[0] == 0x20 && reason(&connack) != 0;
                        assert!(is_refusal, "{user_name:?} {password:?}: {}", show(&connack));
                    }
                }
            }
        }
        site.client(version, "good").wire.expect_alive();
    }
}

/// A short one: eight clients instead of a hundred.
#[test]
fn s_30_churn_of_one_client_id_harms_nobody() {
    const ROUNDS: usize = 60;
    let site = Site::new();
    let topic = site.topic("control");
    let mut control = site.client(Version::V5, "control");
    assert_eq!(control.subscribe(&topic, 1), 1);
    std::thread::scope(|scope| {
        for at in 0..8 {
            let site = &site;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let version = VERSIONS[(at + round) % 3];
                    let connect = site.connect(version, "same");
                    let connect = if round % 2 == 0 {
                        connect.kept()
                    } else {
                        connect
                    };
                    let mut wire = site.broker.wire();
                    let mut bytes = connect.encode();
                    let topic = site.topic(&format!("churn/{}", round % 5));
                    bytes.extend(crate::common::packets::subscribe(
                        version,
                        1,
                        &[(&site.topic("churn/#"), 1)],
                    ));
                    for id in 1..10 {
                        bytes.extend(crate::common::packets::publish(
                            version, 1, id, &topic, b"p",
                        ));
                    }
                    bytes.extend(crate::common::packets::unsubscribe(
                        version,
                        2,
                        &[&site.topic("churn/#")],
                    ));
                    wire.send(&bytes);
                    let _ = wire.packet_or_close(LIMIT);
                    if round % 3 == 0 {
                        wire.reset();
                    }
                }
            });
        }
        for number in 0..200_u8 {
            assert_eq!(control.publish(1, &topic, &[number]), 0);
            assert_eq!(control.take().payload, [number]);
        }
    });
    control.expect_only_own_marker(1, &topic);
}

#[test]
fn s_37_ten_thousand_times_the_same_id_is_one_message() {
    let site = Site::new();
    let topic = site.topic("t");
    let mut c = site.client(Version::V5, "c");
    assert_eq!(c.subscribe(&topic, 2), 2);
    let mut a = site.client(Version::V5, "a");
    for _ in 0..100 {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            let publish =
                crate::common::client::publish_bytes(Version::V5, 12, 7, &topic, &[], b"p");
            bytes.extend(publish);
        }
        a.wire.send(&bytes);
        for _ in 0..100 {
            assert_eq!(a.expect_ack(0x50, 7), 0);
        }
    }
    a.wire.send(&packet(0x62, &[0, 7]));
    assert_eq!(a.expect_ack(0x70, 7), 0);
    assert_eq!(c.take().text(), "p");
    c.expect_only_own_marker(2, &topic);
}

#[test]
fn s_38_thousands_of_user_properties_cost_nothing() {
    const TIMES: u32 = 1_000;
    let site = Site::alone(&[]);
    let mut connect = site.connect(Version::V5, "c");
    for _ in 0..4_000 {
        connect.properties.extend([0x26, 0, 1, b'a', 0, 1, b'b']);
    }
    let bytes = connect.encode();
    let before = processor_ticks(&site);
    for _ in 0..TIMES {
        let mut wire = site.broker.wire();
        wire.send(&bytes);
        for connack in wire.packets_until_close() {
            assert!(reason(&connack) >= 0x80, "{}", show(&connack));
        }
    }
    // A tick is 10 ms.
    let used = processor_ticks(&site) - before;
    assert!(used < u64::from(TIMES), "{used} ticks for {TIMES} packets");
}

/// User and system time of the broker.
fn processor_ticks(site: &Site) -> u64 {
    let path = format!("/proc/{}/stat", site.broker.pid());
    let stat = std::fs::read_to_string(path).expect("the process runs");
    let (_, behind_name) = stat.rsplit_once(") ").expect("a name in brackets");
    let fields: Vec<&str> = behind_name.split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    ticks(11) + ticks(12)
}
