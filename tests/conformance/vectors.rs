//! The public cases P-01 to P-50 of the security requirements, a test each: over TCP and over TLS.
//!
//! Behind every one of them comes what would work: a good CONNECT, or a PUBLISH that somebody
//! waits for. It must not be looked at any more (SEC-14), and others are served (the watcher).

use crate::{
    common::{
        client::{Client, publish_bytes},
        packets::{Connect, Version, packet, reason},
        wire::{ANSWER_LIMIT, hex, show},
    },
    site::{Site, create_app},
};

/// What must come back.
#[derive(Clone, Copy, Debug)]
enum Must {
    /// The close; MQTT 5 may say why before it.
    Close,
    /// A CONNACK with one of these codes, and the close.
    Tell(&'static [u8]),
    /// The close, and only these codes in a CONNACK before it.
    Refuse(&'static [u8]),
    /// DISCONNECT with one of these codes, and the close.
    Disconnect(&'static [u8]),
}

use Must::{Close, Disconnect, Refuse, Tell};

#[test]
fn p_01_a_puback_closes() {
    instead_of_connect("40020001", Close);
}

#[test]
fn p_02_a_publish_closes_before_its_body() {
    instead_of_connect("30ffffff7f", Close);
}

#[test]
fn p_03_a_connect_over_its_limit_closes_at_once() {
    instead_of_connect("10ffffff7f", Close);
}

#[test]
fn p_04_a_length_of_five_bytes_closes() {
    instead_of_connect("108080808001", Close);
}

#[test]
fn p_05_a_disconnect_closes() {
    instead_of_connect("e000", Close);
}

#[test]
fn p_06_an_unknown_protocol_level_is_told() {
    instead_of_connect("100e00044d5154546302003c00027031", Tell(&[0x01, 0x84]));
}

#[test]
fn p_07_the_reserved_connect_flag_closes() {
    instead_of_connect("100e00044d5154540403003c00027031", Close);
}

#[test]
fn p_08_a_will_qos_without_will_closes() {
    instead_of_connect("100e00044d515454040a003c00027031", Close);
}

#[test]
fn p_09_a_will_of_qos_3_closes() {
    instead_of_connect("101400044d515454041e003c00027031000177000178", Close);
}

#[test]
fn p_10_a_password_without_user_name_closes() {
    instead_of_connect("101100044d5154540442003c00027031000178", Close);
}

#[test]
fn p_11_no_client_id_in_a_kept_session_is_told() {
    instead_of_connect("100c00044d5154540400003c0000", Tell(&[0x02]));
}

#[test]
fn p_12_a_property_length_of_five_bytes_closes() {
    instead_of_connect(
        "101300044d5154540502003c808080800100027031",
        Refuse(&[0x81]),
    );
}

#[test]
fn p_13_an_unknown_property_closes() {
    instead_of_connect("101100044d5154540502003c027f0100027031", Refuse(&[0x81]));
}

#[test]
fn p_14_a_boolean_of_2_closes() {
    instead_of_connect("101100044d5154540502003c02170200027031", Refuse(&[0x82]));
}

#[test]
fn p_15_a_connack_closes() {
    in_mqtt_5("29020001", Close);
}

#[test]
fn p_16_the_same_connect_again_closes() {
    let site = Site::new();
    let connect = site.connect(Version::V311, "hostile").encode();
    in_place(&site, Version::V311, &connect, Close);
}

#[test]
fn p_17_type_0_closes() {
    in_mqtt_3_1_1("0000");
}

#[test]
fn p_18_type_15_closes() {
    in_mqtt_3_1_1("f000");
}

#[test]
fn p_19_a_pingresp_closes() {
    in_mqtt_3_1_1("d000");
}

#[test]
fn p_20_an_unsuback_closes() {
    in_mqtt_3_1_1("b0020001");
}

#[test]
fn p_21_a_suback_closes() {
    in_mqtt_3_1_1("9003000100");
}

#[test]
fn p_22_an_empty_topic_closes() {
    in_mqtt_3_1_1("30020000");
}

#[test]
fn p_23_qos_1_without_packet_id_closes() {
    in_mqtt_3_1_1("3203000161");
}

#[test]
fn p_24_qos_3_closes() {
    in_mqtt_3_1_1("36050001610001");
}

#[test]
fn p_25_packet_id_0_closes() {
    in_mqtt_3_1_1("32050001610000");
}

#[test]
fn p_26_ill_formed_utf_8_closes() {
    in_mqtt_3_1_1("30040002c328");
}

#[test]
fn p_27_u_0000_in_a_topic_closes() {
    in_mqtt_3_1_1("30050003610062");
}

#[test]
fn p_28_a_wildcard_in_a_topic_closes() {
    in_mqtt_3_1_1("30050003612f23");
}

#[test]
fn p_29_a_string_over_its_packet_closes() {
    in_mqtt_3_1_1("3005ffff616263");
}

#[test]
fn p_30_wrong_subscribe_flags_close() {
    in_mqtt_3_1_1("8006000100016100");
}

#[test]
fn p_31_a_subscribe_without_filter_closes() {
    in_mqtt_3_1_1("82020001");
}

#[test]
fn p_32_a_subscribe_without_options_closes() {
    in_mqtt_3_1_1("82050001000161");
}

#[test]
fn p_33_a_subscription_of_qos_3_closes() {
    in_mqtt_3_1_1("8206000100016103");
}

#[test]
fn p_34_a_subscribe_with_packet_id_0_closes() {
    in_mqtt_3_1_1("8206000000016100");
}

#[test]
fn p_35_a_hash_that_is_not_last_is_refused() {
    refused(Version::V311, &hex("820700010002612300"), 0x80);
}

#[test]
fn p_36_an_empty_filter_closes() {
    in_mqtt_3_1_1("82050001000000");
}

#[test]
fn p_37_an_unsubscribe_without_filter_closes() {
    in_mqtt_3_1_1("a2020001");
}

#[test]
fn p_38_a_filter_of_65535_slashes_is_refused_without_deep_recursion() {
    let mut bytes = hex("82848004 0001 ffff");
    bytes.extend([b'/'; 65_535]);
    bytes.push(0);
    refused(Version::V311, &bytes, 0x80);
}

#[test]
fn p_39_pingreq_flags_close() {
    in_mqtt_3_1_1("c100");
}

#[test]
fn p_40_a_pingreq_with_a_body_closes() {
    in_mqtt_3_1_1("c00100");
}

#[test]
fn p_41_a_puback_of_nothing_is_ignored() {
    let site = Site::new();
    for mut client in carriers(&site, Version::V311) {
        client.wire.send_hex("40021234");
        client.wire.expect_alive();
    }
}

#[test]
fn p_42_a_pubrec_of_nothing_gets_its_pubrel() {
    let site = Site::new();
    for mut client in carriers(&site, Version::V311) {
        client.wire.send_hex("50021234");
        client.wire.expect("62021234");
        client.wire.expect_alive();
    }
}

#[test]
fn p_43_no_topic_and_no_alias_is_a_protocol_error() {
    in_mqtt_5("3003000000", Disconnect(&[0x82]));
}

#[test]
fn p_44_alias_0_is_told() {
    in_mqtt_5("300700016103230000", Disconnect(&[0x94]));
}

#[test]
fn p_45_reserved_option_bits_are_told() {
    in_mqtt_5("8207000100000161c0", Disconnect(&[0x81, 0x82]));
}

#[test]
fn p_46_no_local_on_a_share_is_told() {
    in_mqtt_5("8210000100000a2473686172652f672f6104", Disconnect(&[0x82]));
}

#[test]
fn p_47_a_share_without_filter_is_refused_and_a_later_publish_is_safe() {
    let bytes = hex("820f00010000092473686172652f616200");
    refused(Version::V5, &bytes, 0x8f);
}

#[test]
fn p_48_a_property_twice_is_told() {
    in_mqtt_5("30080001610401000100", Disconnect(&[0x82]));
}

#[test]
fn p_49_an_expiry_raised_from_0_is_told() {
    in_mqtt_5("e0070005110000000a", Disconnect(&[0x82]));
}

#[test]
fn p_50_nobody_publishes_to_dollar_topics() {
    let site = Site::new();
    let marker = site.topic("marker");
    let scope = ["#", "$SYS/#"];
    let token = create_app(
        &site.broker,
        &site.topic("w").replace('/', "-"),
        &["#"],
        &scope,
    );
    let mut watcher = site.log_in(&Connect::with_token(Version::V5, "watcher", &token));
    for filter in ["$SYS/#", "#"] {
        assert_eq!(watcher.subscribe(filter, 1), 1, "{filter}");
    }
    for mut client in carriers(&site, Version::V5) {
        for topic in ["$SYS/x", "$foo/x", "$share/g/x"] {
            for flags in [2, 3, 4] {
                assert_eq!(client.publish_with(flags, topic, &[], b"forged"), 0x87);
            }
        }
    }
    assert_eq!(watcher.publish(1, &marker, b"marker"), 0);
    loop {
        // Figures of the broker may come meanwhile.
        let message = watcher.take();
        assert_ne!(message.text(), "forged", "{message:?}");
        if message.topic == marker {
            return;
        }
    }
}

/// A place in the broker with somebody who waits for what must not come.
fn watched(site: &Site) -> (String, Client) {
    let topic = site.topic("late");
    let mut watcher = site.client(Version::V5, "watcher");
    assert_eq!(watcher.subscribe(&topic, 1), 1);
    (topic, watcher)
}

/// Two clients: one over TCP, one over TLS.
fn carriers(site: &Site, version: Version) -> [Client; 2] {
    let connect = site.connect(version, "hostile");
    let plain = Client::over(site.broker.wire(), &connect);
    let secured = Client::over(site.broker.wire_tls(), &site.connect(version, "secured"));
    [plain, secured]
}

fn instead_of_connect(bytes: &str, must: Must) {
    let site = Site::new();
    let (topic, mut watcher) = watched(&site);
    let good = [
        site.connect(Version::V311, "hostile").encode(),
        publish_bytes(Version::V311, 2, 1, &topic, &[], b"late"),
    ]
    .concat();
    let bytes = hex(bytes);
    let mut hostile = vec![bytes.clone()];
    let is_whole = bytes.len() == 2 + usize::from(bytes[1]);
    if bytes[0] == 0x10 && is_whole {
        hostile.push(with_token(&bytes, &site.token));
    }
    for (at, bytes) in hostile.iter().enumerate() {
        for mut wire in [site.broker.wire(), site.broker.wire_tls()] {
            wire.send(&[bytes.as_slice(), &good].concat());
            let answers = wire.packets_until_close();
            let (codes, least): (&[u8], _) = match must {
                Tell(codes) => (codes, 1),
                Refuse(codes) => (codes, 0),
                Close | Disconnect(_) => (&[], 0),
            };
            // With the token in it the CONNECT may be refused for another reason.
            let is_refusal = |answer: &Vec<u8>| match at {
                0 => answer[0] == 0x20 && codes.contains(&reason(answer)),
                _ => answer[0] == 0x20 && reason(answer) != 0,
            };
            let least = if at == 0 { least } else { 0 };
            let is_right = (least..=1).contains(&answers.len()) && answers.iter().all(is_refusal);
            assert!(is_right, "{}: {answers:02x?}, {must:?}", show(bytes));
        }
    }
    watcher.expect_only_own_marker(1, &topic);
}

fn in_mqtt_3_1_1(bytes: &str) {
    in_place(&Site::new(), Version::V311, &hex(bytes), Close);
}

fn in_mqtt_5(bytes: &str, must: Must) {
    in_place(&Site::new(), Version::V5, &hex(bytes), must);
}

fn in_place(site: &Site, version: Version, bytes: &[u8], must: Must) {
    let (topic, mut watcher) = watched(site);
    for mut client in carriers(site, version) {
        let late = publish_bytes(version, 2, 99, &topic, &[], b"late");
        client.wire.send(&[bytes, &late].concat());
        let answers = client.wire.packets_until_close();
        let says =
            |codes: &[u8], packet: &[u8]| packet[0] == 0xe0 && codes.contains(&reason(packet));
        let is_told = |codes: &[u8]| matches!(&answers[..], [one] if says(codes, one));
        let is_right = match must {
            Disconnect(codes) => is_told(codes),
            _ if version == Version::V5 => answers.is_empty() || is_told(&[0x81, 0x82]),
            _ => answers.is_empty(),
        };
        assert!(is_right, "{}: {answers:02x?}, {must:?}", show(bytes));
    }
    watcher.expect_only_own_marker(1, &topic);
}

/// The close, or a SUBACK with this one code; a message afterwards harms nobody.
fn refused(version: Version, bytes: &[u8], code: u8) {
    let site = Site::new();
    let (topic, mut watcher) = watched(&site);
    for mut client in carriers(&site, version) {
        client.wire.send(bytes);
        if let Some(answer) = client.wire.packet_or_close(ANSWER_LIMIT) {
            let is_suback = answer[0] == 0x90 && answer.last() == Some(&code);
            assert!(is_suback || answer[0] == 0xe0, "{}", show(&answer));
            if is_suback {
                client.wire.expect_alive();
            }
        }
    }
    for topic in ["a", "ab", "/"] {
        assert_eq!(watcher.publish(1, topic, b"p"), 0);
    }
    watcher.expect_only_own_marker(1, &topic);
}

/// A CONNECT with the user name flag set and the token at its end, its length put right.
fn with_token(connect: &[u8], token: &str) -> Vec<u8> {
    let mut body = connect[2..].to_vec();
    let name_length = usize::from(body[1]);
    body[name_length + 3] |= 0x80;
    crate::common::packets::text(&mut body, token);
    packet(0x10, &body)
}
