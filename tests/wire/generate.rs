//! Valid packets made from a string of bytes: every choice takes one, so that a shorter or smaller
//! string is a simpler packet.

use tollgate::mqtt::topic::Filter;
use tollgate::mqtt::wire::{
    Ack, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, Packet, PacketId, PacketType, Publish, PublishProperties, QoS,
    ReasonCode, ReasonProperties, RetainHandling, Sender, SubAck, Subscribe, Subscription,
    SubscriptionIds, SubscriptionOptions, UnsubAck, Unsubscribe, UserProperties, Version, Will,
    WillProperties,
};

/// Every packet a version has, with a side that sends it.
pub(crate) fn kinds(version: Version) -> Vec<(PacketType, Sender)> {
    use PacketType as P;
    let (client, server) = (Sender::Client, Sender::Server);
    let mut kinds = vec![
        (P::Connect, client),
        (P::ConnAck, server),
        (P::Publish, client),
        (P::Publish, server),
        (P::PubAck, client),
        (P::PubAck, server),
        (P::PubRec, client),
        (P::PubRel, client),
        (P::PubComp, client),
        (P::Subscribe, client),
        (P::SubAck, server),
        (P::Unsubscribe, client),
        (P::UnsubAck, server),
        (P::PingReq, client),
        (P::PingResp, server),
        (P::Disconnect, client),
    ];
    if version == Version::V5 {
        kinds.extend([
            (P::Disconnect, server),
            (P::Auth, client),
            (P::Auth, server),
        ]);
    }
    kinds
}

/// The strings and byte strings packets of one case borrow.
pub(crate) struct Pool {
    texts: Vec<String>,
    plain: Vec<String>,
    topics: Vec<String>,
    filters: Vec<String>,
    blobs: Vec<Vec<u8>>,
    ids: Vec<u32>,
}

impl Pool {
    pub(crate) fn new(choices: &mut Choices<'_>) -> Pool {
        let mut pool = Pool {
            texts: vec![String::new()],
            plain: vec!["client".to_owned()],
            topics: vec!["v1/devices/me/telemetry".to_owned()],
            filters: vec!["a/+/#".to_owned()],
            blobs: vec![Vec::new()],
            ids: vec![1],
        };
        for _ in 0..choices.below(4) {
            pool.texts
                .push(choices.text(&["a", "B", "7", " ", "\u{1}", "é", "€", "𐍈", "\u{FFFE}"]));
            pool.plain
                .push(choices.text(&["a", "B", "7", " ", "é", "€", "𐍈"]) + "x");
            pool.topics
                .push("t".to_owned() + &choices.text(&["a", "é", "/", "$", " ", "𐍈"]));
            pool.filters.push(choices.filter());
            let length = usize::from(choices.below(20));
            pool.blobs
                .push((0..length).map(|_| choices.next()).collect());
            pool.ids.push(1 + choices.number() % 268_435_455);
        }
        pool
    }

    /// The lists packets of one case borrow.
    pub(crate) fn lists<'p>(&'p self, choices: &mut Choices<'_>) -> Lists<'p> {
        let pairs = (0..choices.below(4)).map(|_| {
            (
                choices.of(&self.texts).as_str(),
                choices.of(&self.texts).as_str(),
            )
        });
        let pairs = pairs.collect();
        let filters: Vec<Filter<'p>> = (0..=choices.below(4))
            .map(|_| Filter::new(choices.of::<String>(&self.filters)).expect("made to be valid"))
            .collect();
        let subscriptions = filters.iter().map(|filter| Subscription {
            filter: *filter,
            options: SubscriptionOptions {
                qos: choices.qos(),
                no_local: filter.share_name().is_none() && choices.yes(),
                retain_as_published: choices.yes(),
                retain_handling: *choices.of(&[
                    RetainHandling::Send,
                    RetainHandling::SendIfNew,
                    RetainHandling::DoNotSend,
                ]),
            },
        });
        Lists {
            subscriptions: subscriptions.collect(),
            filters,
            pairs,
        }
    }
}

pub(crate) struct Lists<'p> {
    pairs: Vec<(&'p str, &'p str)>,
    filters: Vec<Filter<'p>>,
    subscriptions: Vec<Subscription<'p>>,
}

impl Lists<'_> {
    /// Before MQTT 5 subscriptions have a QoS and nothing else.
    pub(crate) fn strip(&mut self, version: Version) {
        if version < Version::V5 {
            for subscription in &mut self.subscriptions {
                let qos = subscription.options.qos;
                subscription.options = SubscriptionOptions {
                    qos,
                    ..Default::default()
                };
            }
        }
    }
}

/// Makes one valid packet.
pub(crate) struct Maker<'p, 'c> {
    pub(crate) version: Version,
    pub(crate) sender: Sender,
    pub(crate) pool: &'p Pool,
    pub(crate) lists: &'p Lists<'p>,
    pub(crate) choices: Choices<'c>,
}

impl<'p> Maker<'p, '_> {
    pub(crate) fn packet(&mut self, kind: PacketType) -> Packet<'p> {
        match kind {
            PacketType::Connect => Packet::Connect(self.connect()),
            PacketType::ConnAck => Packet::ConnAck(self.connack()),
            PacketType::Publish => Packet::Publish(self.publish()),
            PacketType::PubAck => Packet::PubAck(self.ack(PUBLISH_REASONS)),
            PacketType::PubRec => Packet::PubRec(self.ack(PUBLISH_REASONS)),
            PacketType::PubRel => Packet::PubRel(self.ack(RELEASE_REASONS)),
            PacketType::PubComp => Packet::PubComp(self.ack(RELEASE_REASONS)),
            PacketType::Subscribe => Packet::Subscribe(self.subscribe()),
            PacketType::SubAck => Packet::SubAck(SubAck {
                packet_id: self.packet_id(),
                codes: self
                    .choices
                    .of::<&[u8]>(&[&[0, 1, 2, 0x80], &[0x80, 2], &[0], &[1]]),
                properties: self.reasons(),
            }),
            PacketType::Unsubscribe => Packet::Unsubscribe(self.unsubscribe()),
            PacketType::UnsubAck => Packet::UnsubAck(UnsubAck {
                packet_id: self.packet_id(),
                codes: if self.is_v5() {
                    self.choices
                        .of::<&[u8]>(&[&[0, 0x11, 0x87, 0x8F], &[0], &[0x80, 0x83]])
                } else {
                    &[]
                },
                properties: self.reasons(),
            }),
            PacketType::PingReq => Packet::PingReq,
            PacketType::PingResp => Packet::PingResp,
            PacketType::Disconnect => Packet::Disconnect(self.disconnect()),
            PacketType::Auth => Packet::Auth(self.auth()),
        }
    }

    fn connect(&mut self) -> Connect<'p> {
        let user_name = self.plain();
        let clean_start = self.choices.yes();
        let empty = self.is_v5() || (self.version == Version::V311 && clean_start);
        let client_id = if empty && self.choices.yes() {
            ""
        } else {
            self.choices.of(&self.pool.plain).as_str()
        };
        Connect {
            version: self.version,
            clean_start,
            keep_alive_s: self.two(),
            client_id,
            will: if self.choices.yes() {
                Some(self.will())
            } else {
                None
            },
            user_name,
            password: if user_name.is_some() || self.is_v5() {
                self.blob()
            } else {
                None
            },
            properties: if self.is_v5() {
                self.connect_properties()
            } else {
                Default::default()
            },
        }
    }

    fn connect_properties(&mut self) -> ConnectProperties<'p> {
        let authentication_method = self.text();
        ConnectProperties {
            session_expiry_s: self.some_four(),
            receive_maximum: self.some_two().map(|two| two.max(1)),
            packet_size_max: self.some_four().map(|four| four.max(1)),
            topic_alias_maximum: self.some_two(),
            request_response_information: self.some_bool(),
            request_problem_information: self.some_bool(),
            authentication_method,
            authentication_data: if authentication_method.is_some() {
                self.blob()
            } else {
                None
            },
            user_properties: self.user_properties(),
        }
    }

    fn will(&mut self) -> Will<'p> {
        Will {
            qos: self.choices.qos(),
            retain: self.choices.yes(),
            topic: self.choices.of(&self.pool.topics).as_str(),
            payload: self.choices.of(&self.pool.blobs).as_slice(),
            properties: if self.is_v5() {
                WillProperties {
                    delay_s: self.some_four(),
                    payload_format_is_utf8: self.some_bool(),
                    message_expiry_s: self.some_four(),
                    content_type: self.text(),
                    response_topic: self.topic(),
                    correlation_data: self.blob(),
                    user_properties: self.user_properties(),
                }
            } else {
                WillProperties::default()
            },
        }
    }

    fn connack(&mut self) -> ConnAck<'p> {
        let code = if self.is_v5() {
            *self.choices.of(&[
                0, 0x80, 0x81, 0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x90, 0x97, 0x9F,
            ])
        } else {
            *self.choices.of(&[0, 1, 2, 3, 4, 5])
        };
        let session_present = code == 0 && self.version != Version::V31 && self.choices.yes();
        let properties = if self.is_v5() {
            self.connack_properties()
        } else {
            Default::default()
        };
        ConnAck {
            session_present,
            code,
            properties,
        }
    }

    fn connack_properties(&mut self) -> ConnAckProperties<'p> {
        ConnAckProperties {
            session_expiry_s: self.some_four(),
            receive_maximum: self.some_two().map(|two| two.max(1)),
            maximum_qos: *self
                .choices
                .of(&[None, Some(QoS::AtMostOnce), Some(QoS::AtLeastOnce)]),
            retain_available: self.some_bool(),
            packet_size_max: self.some_four().map(|four| four.max(1)),
            assigned_client_id: self.text(),
            topic_alias_maximum: self.some_two(),
            reason_string: self.text(),
            user_properties: self.user_properties(),
            wildcard_subscription_available: self.some_bool(),
            subscription_ids_available: self.some_bool(),
            shared_subscription_available: self.some_bool(),
            server_keep_alive_s: self.some_two(),
            response_information: self.text(),
            server_reference: self.text(),
            authentication_method: self.text(),
            authentication_data: self.blob(),
        }
    }

    fn publish(&mut self) -> Publish<'p> {
        let qos = self.choices.qos();
        let properties = if self.is_v5() {
            self.publish_properties()
        } else {
            Default::default()
        };
        let by_alias = properties.topic_alias.is_some() && self.choices.yes();
        Publish {
            dup: qos != QoS::AtMostOnce && self.choices.yes(),
            qos,
            retain: self.choices.yes(),
            topic: if by_alias {
                ""
            } else {
                self.choices.of(&self.pool.topics).as_str()
            },
            packet_id: if qos == QoS::AtMostOnce {
                None
            } else {
                Some(self.packet_id())
            },
            properties,
            payload: self.choices.of(&self.pool.blobs).as_slice(),
        }
    }

    fn publish_properties(&mut self) -> PublishProperties<'p> {
        let ids: &'p [u32] = if self.sender == Sender::Server {
            &self.pool.ids
        } else {
            &[]
        };
        PublishProperties {
            payload_format_is_utf8: self.some_bool(),
            message_expiry_s: self.some_four(),
            topic_alias: self.some_two().map(|two| two.max(1)),
            response_topic: self.topic(),
            correlation_data: self.blob(),
            subscription_ids: SubscriptionIds::new(ids),
            content_type: self.text(),
            user_properties: self.user_properties(),
        }
    }

    fn ack(&mut self, reasons: &[ReasonCode]) -> Ack<'p> {
        let reason = if self.is_v5() {
            *self.choices.of(reasons)
        } else {
            ReasonCode::Success
        };
        Ack {
            packet_id: self.packet_id(),
            reason,
            properties: self.reasons(),
        }
    }

    fn subscribe(&mut self) -> Subscribe<'p> {
        let mut subscribe = Subscribe::new(self.packet_id(), &self.lists.subscriptions);
        if self.is_v5() {
            subscribe.subscription_id = if self.choices.yes() {
                Some(*self.choices.of(&self.pool.ids))
            } else {
                None
            };
            subscribe.user_properties = self.user_properties();
        }
        subscribe
    }

    fn unsubscribe(&mut self) -> Unsubscribe<'p> {
        let mut unsubscribe = Unsubscribe::new(self.packet_id(), &self.lists.filters);
        unsubscribe.user_properties = self.user_properties();
        unsubscribe
    }

    fn disconnect(&mut self) -> Disconnect<'p> {
        if !self.is_v5() {
            return Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        }
        let reasons = match self.sender {
            Sender::Client => CLIENT_DISCONNECT_REASONS,
            Sender::Server => SERVER_DISCONNECT_REASONS,
        };
        let of_client = self.sender == Sender::Client;
        Disconnect {
            reason: *self.choices.of(reasons),
            properties: DisconnectProperties {
                session_expiry_s: if of_client { self.some_four() } else { None },
                reason_string: self.text(),
                server_reference: if of_client { None } else { self.text() },
                user_properties: self.user_properties(),
            },
        }
    }

    fn auth(&mut self) -> Auth<'p> {
        let Some(method) = self.text() else {
            return Auth {
                reason: ReasonCode::Success,
                properties: AuthProperties::default(),
            };
        };
        let reasons = &[
            ReasonCode::ContinueAuthentication,
            ReasonCode::ReAuthenticate,
        ];
        Auth {
            reason: *self.choices.of(reasons),
            properties: AuthProperties {
                authentication_method: Some(method),
                authentication_data: self.blob(),
                reason_string: self.text(),
                user_properties: self.user_properties(),
            },
        }
    }

    fn reasons(&mut self) -> ReasonProperties<'p> {
        if !self.is_v5() {
            return ReasonProperties::default();
        }
        ReasonProperties {
            reason_string: self.text(),
            user_properties: self.user_properties(),
        }
    }

    fn user_properties(&mut self) -> UserProperties<'p> {
        if self.is_v5() && self.choices.yes() {
            UserProperties::new(&self.lists.pairs)
        } else {
            UserProperties::default()
        }
    }

    fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    fn packet_id(&mut self) -> PacketId {
        PacketId::new(self.two().max(1)).expect("at least 1")
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes([self.choices.next(), self.choices.next()])
    }

    fn some_two(&mut self) -> Option<u16> {
        if self.choices.yes() {
            Some(self.two())
        } else {
            None
        }
    }

    fn some_four(&mut self) -> Option<u32> {
        if self.choices.yes() {
            Some(self.choices.number())
        } else {
            None
        }
    }

    fn some_bool(&mut self) -> Option<bool> {
        *self.choices.of(&[None, Some(false), Some(true)])
    }

    fn text(&mut self) -> Option<&'p str> {
        if self.choices.yes() {
            Some(self.choices.of(&self.pool.texts).as_str())
        } else {
            None
        }
    }

    fn plain(&mut self) -> Option<&'p str> {
        if self.choices.yes() {
            Some(self.choices.of(&self.pool.plain).as_str())
        } else {
            None
        }
    }

    fn topic(&mut self) -> Option<&'p str> {
        if self.choices.yes() {
            Some(self.choices.of(&self.pool.topics).as_str())
        } else {
            None
        }
    }

    fn blob(&mut self) -> Option<&'p [u8]> {
        if self.choices.yes() {
            Some(self.choices.of(&self.pool.blobs).as_slice())
        } else {
            None
        }
    }
}

/// A string of bytes from which choices are taken; at its end all choices are 0.
pub(crate) struct Choices<'c> {
    bytes: std::slice::Iter<'c, u8>,
}

impl<'c> Choices<'c> {
    pub(crate) fn new(bytes: &'c [u8]) -> Choices<'c> {
        Choices {
            bytes: bytes.iter(),
        }
    }

    fn next(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    fn below(&mut self, count: u8) -> u8 {
        self.next() % count
    }

    fn yes(&mut self) -> bool {
        self.below(2) == 1
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes([self.next(), self.next(), self.next(), self.next()])
    }

    fn of<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[usize::from(self.next()) % items.len()]
    }

    fn qos(&mut self) -> QoS {
        *self.of(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
    }

    fn text(&mut self, letters: &[&str]) -> String {
        (0..self.below(30)).map(|_| *self.of(letters)).collect()
    }

    fn filter(&mut self) -> String {
        let mut levels = Vec::new();
        for _ in 0..self.below(5) {
            levels.push(*self.of(&["a", "é", "", "+", "$b", "long name"]));
        }
        levels.push(*self.of(&["c", "#", "+", "d"]));
        let filter = levels.join("/");
        if self.below(4) == 1 {
            format!("$share/group/{filter}")
        } else {
            filter
        }
    }
}

const PUBLISH_REASONS: &[ReasonCode] = &[
    ReasonCode::Success,
    ReasonCode::NoMatchingSubscribers,
    ReasonCode::UnspecifiedError,
    ReasonCode::ImplementationSpecificError,
    ReasonCode::NotAuthorized,
    ReasonCode::TopicNameInvalid,
    ReasonCode::PacketIdentifierInUse,
    ReasonCode::QuotaExceeded,
    ReasonCode::PayloadFormatInvalid,
];

const RELEASE_REASONS: &[ReasonCode] = &[ReasonCode::Success, ReasonCode::PacketIdentifierNotFound];

const CLIENT_DISCONNECT_REASONS: &[ReasonCode] = &[
    ReasonCode::NORMAL_DISCONNECTION,
    ReasonCode::DisconnectWithWillMessage,
    ReasonCode::UnspecifiedError,
    ReasonCode::MalformedPacket,
    ReasonCode::ProtocolError,
    ReasonCode::TopicAliasInvalid,
    ReasonCode::PacketTooLarge,
    ReasonCode::PayloadFormatInvalid,
];

const SERVER_DISCONNECT_REASONS: &[ReasonCode] = &[
    ReasonCode::NORMAL_DISCONNECTION,
    ReasonCode::NotAuthorized,
    ReasonCode::ServerBusy,
    ReasonCode::ServerShuttingDown,
    ReasonCode::KeepAliveTimeout,
    ReasonCode::SessionTakenOver,
    ReasonCode::TopicFilterInvalid,
    ReasonCode::ReceiveMaximumExceeded,
    ReasonCode::QuotaExceeded,
    ReasonCode::AdministrativeAction,
    ReasonCode::UseAnotherServer,
    ReasonCode::ConnectionRateExceeded,
    ReasonCode::WildcardSubscriptionsNotSupported,
];
