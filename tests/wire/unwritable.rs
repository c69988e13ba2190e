//! What cannot be written is an error, and leaves nothing behind (SEC-13).

use tollgate::mqtt::topic::Filter;
use tollgate::mqtt::wire::{
    Ack, Auth, AuthProperties, ConnAck, Connect, ConnectProperties, Disconnect, EncodeError,
    Packet, PacketId, PacketType, Publish, PublishProperties, QoS, ReasonCode, ReasonProperties,
    SubAck, Subscribe, Subscription, SubscriptionIds, SubscriptionOptions, UnsubAck, Unsubscribe,
    UserProperties, Version,
};

const ID: PacketId = PacketId::MIN;

#[test]
fn sec_13_a_publish_that_contradicts_itself() {
    let long = "x".repeat(65_536);
    refused(&[
        Packet::Publish(Publish {
            topic: &long,
            ..publish()
        }),
        Packet::Publish(Publish {
            topic: "",
            ..publish()
        }),
        Packet::Publish(Publish {
            dup: true,
            ..publish()
        }),
        Packet::Publish(Publish {
            packet_id: Some(ID),
            ..publish()
        }),
        Packet::Publish(Publish {
            qos: QoS::AtLeastOnce,
            ..publish()
        }),
    ]);
}

#[test]
fn sec_13_properties_out_of_range() {
    let long = "x".repeat(65_536);
    let pairs = [("name", long.as_str())];
    let none = PublishProperties::default();
    let with = |properties| {
        Packet::Publish(Publish {
            properties,
            ..publish()
        })
    };
    refused(&[
        with(PublishProperties {
            topic_alias: Some(0),
            ..none
        }),
        with(PublishProperties {
            content_type: Some(&long),
            ..none
        }),
        with(PublishProperties {
            correlation_data: Some(long.as_bytes()),
            ..none
        }),
        with(PublishProperties {
            subscription_ids: SubscriptionIds::new(&[1, 0]),
            ..none
        }),
        with(PublishProperties {
            subscription_ids: SubscriptionIds::new(&[268_435_456]),
            ..none
        }),
        with(PublishProperties {
            user_properties: UserProperties::new(&pairs),
            ..none
        }),
    ]);
    let none = ConnectProperties::default();
    let with = |properties| {
        Packet::Connect(Connect {
            properties,
            ..connect(Version::V5)
        })
    };
    refused(&[
        with(ConnectProperties {
            receive_maximum: Some(0),
            ..none
        }),
        with(ConnectProperties {
            packet_size_max: Some(0),
            ..none
        }),
        with(ConnectProperties {
            authentication_data: Some(b"d"),
            ..none
        }),
    ]);
}

#[test]
fn sec_13_a_connect_its_version_does_not_allow() {
    refused(&[
        Packet::Connect(Connect {
            password: Some(b"p"),
            ..connect(Version::V311)
        }),
        Packet::Connect(Connect {
            client_id: "",
            ..connect(Version::V31)
        }),
    ]);
}

#[test]
fn sec_13_codes_of_other_packets() {
    let properties = ReasonProperties::default();
    let method = AuthProperties {
        authentication_method: Some("m"),
        ..AuthProperties::default()
    };
    let no_method = AuthProperties::default();
    refused(&[
        Packet::ConnAck(ConnAck::new(6)),
        Packet::ConnAck(ConnAck {
            session_present: true,
            ..ConnAck::new(0x87)
        }),
        Packet::PubAck(Ack {
            packet_id: ID,
            reason: ReasonCode::Banned,
            properties,
        }),
        Packet::SubAck(SubAck {
            packet_id: ID,
            codes: &[],
            properties,
        }),
        Packet::SubAck(SubAck {
            packet_id: ID,
            codes: &[3],
            properties,
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: ID,
            codes: &[],
            properties,
        }),
        Packet::UnsubAck(UnsubAck {
            packet_id: ID,
            codes: &[1],
            properties,
        }),
        Packet::Disconnect(Disconnect::new(ReasonCode::GrantedQos1)),
        Packet::Auth(Auth {
            reason: ReasonCode::ReAuthenticate,
            properties: no_method,
        }),
        Packet::Auth(Auth {
            reason: ReasonCode::Banned,
            properties: method,
        }),
    ]);
}

#[test]
fn sec_13_filters_that_are_none_or_contradict_their_options() {
    let filter = Filter::new("$share/g/a").expect("valid");
    let options = SubscriptionOptions {
        no_local: true,
        ..SubscriptionOptions::default()
    };
    refused(&[
        Packet::Subscribe(Subscribe::new(ID, &[])),
        Packet::Subscribe(Subscribe::new(ID, &[Subscription { filter, options }])),
        Packet::Unsubscribe(Unsubscribe::new(ID, &[])),
    ]);
}

#[test]
fn auth_does_not_exist_before_mqtt_5() {
    let auth = Auth {
        reason: ReasonCode::Success,
        properties: AuthProperties::default(),
    };
    let error = auth.encode(Version::V311, &mut Vec::new());
    assert_eq!(
        error,
        Err(EncodeError::NotInVersion {
            packet: PacketType::Auth
        })
    );
}

/// None of them can be written in MQTT 5, and what stood in the buffer stays as it was.
fn refused(packets: &[Packet<'_>]) {
    for packet in packets {
        let mut out = b"before".to_vec();
        let error = packet.encode(Version::V5, &mut out);
        assert!(error.is_err(), "{packet:?}");
        assert_eq!(out, b"before", "{packet:?}");
    }
}

fn publish() -> Publish<'static> {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties: PublishProperties::default(),
        payload: b"",
    }
}

fn connect(version: Version) -> Connect<'static> {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 0,
        client_id: "c",
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}
