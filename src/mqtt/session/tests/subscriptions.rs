//! SUBSCRIBE and UNSUBSCRIBE, packet by packet.

use super::*;
use crate::mqtt::wire::SubscriptionOptions;

/// What SUBSCRIBE did: a line for each filter that was granted.
fn subscribe(client: &mut Client, hex: &str, max: QoS) -> Vec<String> {
    let bytes = bytes(hex);
    let version = client.session.version();
    let Packet::Subscribe(subscribe) = decode(version, Sender::Client, &bytes).unwrap() else {
        panic!("no SUBSCRIBE");
    };
    let taken = client.session.subscribe(
        &subscribe,
        |wanted| match wanted.filter.as_str() {
            "no" => Err(ReasonCode::NotAuthorized),
            "feed" => Ok(Granted { qos: max, start: 9 }),
            _ => Ok(Granted { qos: max, start: 0 }),
        },
        &mut client.replies,
    );
    let taken = taken.unwrap();
    let line = |taken: &Taken<'_>| {
        let mut line = format!("{} qos {}", taken.filter, taken.options.qos.as_u8());
        for (is, word) in [
            (taken.is_new, " new"),
            (taken.is_changed, " changed"),
            (taken.sends_retained, " retained"),
        ] {
            if is {
                line.push_str(word);
            }
        }
        line
    };
    taken.iter().map(line).collect()
}

fn unsubscribe(client: &mut Client, hex: &str) -> Result<Vec<String>, Close> {
    let bytes = bytes(hex);
    let Packet::Unsubscribe(unsubscribe) = decode(Version::V5, Sender::Client, &bytes).unwrap()
    else {
        panic!("no UNSUBSCRIBE");
    };
    let ended = client
        .session
        .unsubscribe(&unsubscribe, &mut client.replies)?;
    Ok(ended.iter().map(ToString::to_string).collect())
}

#[test]
fn mqtt_3_8_4_6_a_subscribe_is_answered_filter_by_filter() {
    for (version, hex, suback) in [
        (
            Version::V311,
            "820b 0001 0001 61 02 0002 6e6f 01",
            "900400010180",
        ),
        (
            Version::V5,
            "820c 0001 00 0001 61 02 0002 6e6f 01",
            "90050001000187",
        ),
    ] {
        let mut client = Client::connected(version);
        let granted = subscribe(&mut client, hex, QoS::AtLeastOnce);
        assert_eq!(granted, ["a qos 1 new changed retained"]);
        assert_eq!(client.ordered(), suback);
        let again = subscribe(&mut client, hex, QoS::AtLeastOnce);
        assert_eq!(again, ["a qos 1 retained"], "nothing to record");
        assert_eq!(client.session.state().subscriptions.len(), 1);
    }
}

#[test]
fn mqtt_3_8_4_8_what_is_granted_is_the_lower_of_both() {
    let mut client = Client::connected(Version::V5);
    let granted = subscribe(&mut client, "8207 0001 00 0001 61 00", QoS::ExactlyOnce);
    assert_eq!(granted, ["a qos 0 new changed retained"]);
    let granted = subscribe(&mut client, "8207 0001 00 0001 61 02", QoS::ExactlyOnce);
    assert_eq!(granted, ["a qos 2 changed retained"]);
    assert_eq!(
        client.ordered(),
        "900400010000 900400010002".replace(' ', "")
    );
}

#[test]
fn mqtt_3_8_4_3_an_equal_filter_replaces_options_and_identifier() {
    let mut client = Client::connected(Version::V5);
    // Identifier 5, No Local, Retain As Published, QoS 1.
    subscribe(
        &mut client,
        "8209 0001 02 0b05 0001 61 0d",
        QoS::ExactlyOnce,
    );
    let held = client.session.state().subscriptions.get("a").unwrap();
    assert_eq!(held.id, Some(5));
    assert!(held.options.no_local && held.options.retain_as_published);
    // Without identifier: it is gone.
    let replaced = subscribe(&mut client, "8207 0001 00 0001 61 01", QoS::ExactlyOnce);
    assert_eq!(replaced, ["a qos 1 changed retained"]);
    let held = client.session.state().subscriptions.get("a").unwrap();
    assert_eq!((held.id, held.options.no_local), (None, false));
}

#[test]
fn mqtt_3_3_1_9_to_11_retain_handling() {
    let mut client = Client::connected(Version::V5);
    // 0: always.
    let send = "8207 0001 00 0001 61 00";
    for expected in ["a qos 0 new changed retained", "a qos 0 retained"] {
        assert_eq!(subscribe(&mut client, send, QoS::AtMostOnce), [expected]);
    }
    // 1: only where the subscription is new.
    let if_new = "8207 0001 00 0001 62 10";
    for expected in ["b qos 0 new changed retained", "b qos 0"] {
        assert_eq!(subscribe(&mut client, if_new, QoS::AtMostOnce), [expected]);
    }
    // 2: never.
    let never = "8207 0001 00 0001 63 20";
    assert_eq!(
        subscribe(&mut client, never, QoS::AtMostOnce),
        ["c qos 0 new changed"]
    );
}

#[test]
fn no_retained_messages_for_a_shared_subscription_or_a_feed() {
    let mut client = Client::connected(Version::V5);
    // $share/g/a
    let shared = "8210 0001 00 000a 2473686172652f672f61 00";
    assert_eq!(
        subscribe(&mut client, shared, QoS::AtLeastOnce),
        ["$share/g/a qos 0 new changed"]
    );
    assert_eq!(
        subscribe(
            &mut client,
            "820a 0001 00 0004 66656564 01",
            QoS::AtLeastOnce
        ),
        ["feed qos 1 new changed"]
    );
}

#[test]
fn mqtt_3_8_3_4_no_local_on_a_shared_filter_and_bad_share_names_are_refused() {
    for hex in [
        // No Local on $share/g/a.
        "8210 0001 00 000a 2473686172652f672f61 04",
        // $share//a [MQTT-4.8.2-1]
        "820f 0001 00 0009 2473686172652f2f61 00",
        // $share/+/a [MQTT-4.8.2-2]
        "8210 0001 00 000a 2473686172652f2b2f61 00",
        // $share/g, without a filter.
        "820e 0001 00 0008 2473686172652f67 00",
    ] {
        assert!(
            decode(Version::V5, Sender::Client, &bytes(hex)).is_err(),
            "{hex}"
        );
    }
    // Before MQTT 5 there is no identifier and there are no options [MQTT-3-8.3-4] (3.1.1).
    let options = bytes("8206 0001 0001 61 04");
    assert!(decode(Version::V311, Sender::Client, &options).is_err());
}

#[test]
fn mqtt_3_8_4_5_filters_of_one_packet_are_taken_one_after_the_other() {
    let mut client = Client::connected(Version::V5);
    let twice = "820b 0001 00 0001 61 10 0001 61 11";
    assert_eq!(
        subscribe(&mut client, twice, QoS::ExactlyOnce),
        ["a qos 0 new changed retained", "a qos 1 changed"]
    );
    assert_eq!(client.session.state().subscriptions.len(), 1);
}

#[test]
fn sec_28_a_filter_beyond_the_limit_is_refused_and_not_decided() {
    let mut client = Client::connected(Version::V5);
    client.session.limits.subscriptions_max = 1;
    subscribe(&mut client, "8207 0001 00 0001 61 00", QoS::AtMostOnce);
    client.replies.clear();
    // b does not fit; a is there already and does.
    let bytes = bytes("820b 0001 00 0001 62 00 0001 61 01");
    let Packet::Subscribe(packet) = decode(Version::V5, Sender::Client, &bytes).unwrap() else {
        panic!("no SUBSCRIBE");
    };
    let mut asked = Vec::new();
    let decide = |wanted: &Wanted<'_>| {
        asked.push((wanted.filter.to_string(), wanted.is_new));
        let qos = QoS::AtLeastOnce;
        Ok(Granted { qos, start: 0 })
    };
    let session = &mut client.session;
    session
        .subscribe(&packet, decide, &mut client.replies)
        .unwrap();
    assert_eq!(asked, [("a".to_owned(), false)]);
    assert_eq!(client.ordered(), "9005 0001 00 97 01".replace(' ', ""));
}

#[test]
fn mqtt_3_10_4_an_unsubscribe_says_what_it_found() {
    let mut client = Client::connected(Version::V5);
    let held = Subscribed {
        filter: "a".into(),
        options: SubscriptionOptions::default(),
        id: None,
        start: 0,
    };
    client.session.state.subscriptions.insert(held);
    // a, b, c, and a again.
    let hex = "a20f 0001 00 0001 61 0001 62 0001 63 0001 61";
    assert_eq!(unsubscribe(&mut client, hex).unwrap(), ["a"]);
    assert_eq!(
        client.ordered(),
        "b007 0001 00 00 11 11 11".replace(' ', "")
    );
    assert!(client.session.state().subscriptions.is_empty());
}

#[test]
fn mqtt_3_1_2_24_an_answer_the_client_does_not_take_changes_nothing() {
    let mut wish = connect(Version::V5);
    wish.properties.packet_size_max = Some(9);
    let mut client = Client::opened(&wish, None);
    subscribe(&mut client, "8207 0001 00 0001 61 00", QoS::AtMostOnce);
    let too_large = Close::because(ReasonCode::PacketTooLarge);
    let two = "a209 0001 00 0001 61 0001 62";
    assert_eq!(unsubscribe(&mut client, two), Err(too_large));
    assert_eq!(client.session.state().subscriptions.len(), 1);
}

#[test]
fn mqtt_3_9_2_1_a_suback_says_its_first_refusal_in_words_where_asked() {
    let mut wish = connect(Version::V5);
    wish.properties.request_problem_information = Some(true);
    let mut client = Client::opened(&wish, None);
    subscribe(
        &mut client,
        "820c 0001 00 0001 61 02 0002 6e6f 01",
        QoS::AtLeastOnce,
    );
    let Packet::SubAck(suback) =
        decode(Version::V5, Sender::Server, &client.replies.ordered).unwrap()
    else {
        panic!("no SUBACK");
    };
    assert_eq!(suback.codes, [0x01, 0x87]);
    let words = "the scope of the credential does not cover it";
    assert_eq!(suback.properties.reason_string, Some(words));
}
