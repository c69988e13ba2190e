//! Clients that publish and subscribe, as applications with scopes.

use std::collections::VecDeque;

use crate::common::{
    broker::Broker,
    packets::{Connect, Version, log_in, packet, property_block, publish_flags, text},
    wire::{Wire, show},
};

/// A broker of two workers with an application that may do everything ordinary; its token.
pub(crate) fn site() -> (Broker, String) {
    site_with(&[])
}

/// The same with settings.
pub(crate) fn site_with(settings: &[(&str, &str)]) -> (Broker, String) {
    let mut all = vec![("TOLLGATE_WORKERS_COUNT", "2")];
    all.extend(settings);
    let broker = Broker::start_with(&all);
    let token = create_app(&broker, "all", &["#"], &["#"]);
    (broker, token)
}

/// Makes an application with these scopes; its token.
pub(crate) fn create_app(
    broker: &Broker,
    name: &str,
    publish: &[&str],
    subscribe: &[&str],
) -> String {
    let mut arguments = vec!["app", "create", name, "--json"];
    for filter in publish {
        arguments.extend(["--publish", filter]);
    }
    for filter in subscribe {
        arguments.extend(["--subscribe", filter]);
    }
    let created = broker.cli_json(&arguments);
    created["token"].as_str().expect("a token").to_owned()
}

/// A client.
pub(crate) struct Client {
    pub(crate) wire: Wire,
    pub(crate) version: Version,
    next_id: u16,
    /// Messages that came while something else was waited for.
    early: VecDeque<Vec<u8>>,
}

/// A PUBLISH that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: String,
    pub(crate) id: u16,
    /// The block as it came, without its length.
    pub(crate) properties: Vec<u8>,
    pub(crate) payload: String,
}

impl Client {
    /// Connects with a clean session.
    pub(crate) fn connect(broker: &Broker, version: Version, name: &str, token: &str) -> Client {
        Client::with(broker, &Connect::with_token(version, name, token)).0
    }

    /// Connects as told; answers the CONNACK too.
    pub(crate) fn with(broker: &Broker, connect: &Connect<'_>) -> (Client, Vec<u8>) {
        let mut wire = broker.wire();
        let connack = log_in(&mut wire, connect);
        (Client::over(wire, connect.version), connack)
    }

    /// One that is let in.
    pub(crate) fn over(wire: Wire, version: Version) -> Client {
        Client {
            wire,
            version,
            next_id: 1,
            early: VecDeque::new(),
        }
    }

    fn id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    /// Subscribes, each filter with its options byte; answers the codes.
    pub(crate) fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        self.subscribe_with(&[], filters)
    }

    /// The same with properties.
    pub(crate) fn subscribe_with(&mut self, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.id();
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            property_block(&mut body, properties);
        }
        for (filter, options) in filters {
            text(&mut body, filter);
            body.push(*options);
        }
        self.wire.send(&packet(0x82, &body));
        let suback = self.next_answer();
        assert_eq!(suback[0], 0x90, "SUBACK expected: {}", show(&suback));
        let start = if self.version == Version::V5 { 5 } else { 4 };
        suback[start..].to_vec()
    }

    pub(crate) fn unsubscribe(&mut self, filter: &str) -> Vec<u8> {
        let id = self.id();
        let bytes = crate::common::packets::unsubscribe(self.version, id, &[filter]);
        self.wire.send(&bytes);
        let unsuback = self.next_answer();
        assert_eq!(unsuback[0], 0xb0, "UNSUBACK expected: {}", show(&unsuback));
        unsuback[4..].to_vec()
    }

    /// Publishes with the flags of the fixed header (retain 1, QoS 2 and 4) and sees it through.
    pub(crate) fn publish(&mut self, flags: u8, topic: &str, payload: &str) {
        let reason = self.try_publish(flags, &[], topic, payload);
        assert!(reason < 0x80, "{topic}: refused with {reason:#04x}");
    }

    /// The same with properties; answers the reason of PUBACK or PUBREC.
    pub(crate) fn try_publish(
        &mut self,
        flags: u8,
        properties: &[u8],
        topic: &str,
        payload: &str,
    ) -> u8 {
        let id = self.id();
        let bytes = if properties.is_empty() {
            publish_flags(self.version, flags, id, topic, payload.as_bytes())
        } else {
            let mut body = Vec::new();
            text(&mut body, topic);
            if flags & 6 != 0 {
                body.extend(id.to_be_bytes());
            }
            property_block(&mut body, properties);
            body.extend(payload.as_bytes());
            packet(0x30 | flags, &body)
        };
        self.wire.send(&bytes);
        let id = id.to_be_bytes();
        let answer = match flags & 6 {
            0 => return 0,
            2 => self.next_answer(),
            _ => {
                let pubrec = self.next_answer();
                assert_eq!(pubrec[0], 0x50, "PUBREC expected: {}", show(&pubrec));
                if pubrec.get(4).is_some_and(|reason| *reason >= 0x80) {
                    return pubrec[4];
                }
                self.wire.send(&packet(0x62, &id));
                self.next_answer()
            }
        };
        let expected = if flags & 6 == 2 { 0x40 } else { 0x70 };
        assert_eq!(answer[0], expected, "an ack expected: {}", show(&answer));
        assert_eq!(answer[2..4], id);
        answer.get(4).copied().unwrap_or(0)
    }

    /// The next PUBLISH, acknowledged to its end.
    pub(crate) fn next(&mut self) -> Got {
        let got = self.next_unacknowledged();
        self.acknowledge(&got);
        got
    }

    /// The next PUBLISH.
    pub(crate) fn next_unacknowledged(&mut self) -> Got {
        let early = self.early.pop_front();
        let bytes = early.unwrap_or_else(|| self.wire.packet());
        Got::read(self.version, &bytes)
    }

    /// The next packet that is no PUBLISH.
    fn next_answer(&mut self) -> Vec<u8> {
        loop {
            let bytes = self.wire.packet();
            if bytes[0] >> 4 != 3 {
                return bytes;
            }
            self.early.push_back(bytes);
        }
    }

    /// Answers a message to its end.
    pub(crate) fn acknowledge(&mut self, got: &Got) {
        let id = got.id.to_be_bytes();
        match got.qos {
            0 => {}
            1 => self.wire.send(&packet(0x40, &id)),
            _ => {
                self.wire.send(&packet(0x50, &id));
                let pubrel = self.next_answer();
                assert_eq!(pubrel[0], 0x62, "PUBREL expected: {}", show(&pubrel));
                assert_eq!(pubrel[2..4], id);
                self.wire.send(&packet(0x70, &id));
            }
        }
    }

    /// What comes next is this, and acknowledged.
    pub(crate) fn expect(&mut self, qos: u8, topic: &str, payload: &str) -> Got {
        let got = self.next();
        let seen = (got.qos, got.topic.as_str(), got.payload.as_str());
        assert_eq!(seen, (qos, topic, payload), "{got:?}");
        got
    }

    /// Nothing is on its way: what is sent by `marker` to this client is what comes next.
    pub(crate) fn expect_nothing_before(&mut self, marker: &mut Client, topic: &str) {
        marker.publish(0, topic, "marker");
        let got = self.next();
        assert_eq!(
            (got.topic.as_str(), got.payload.as_str()),
            (topic, "marker")
        );
    }

    /// Says goodbye.
    pub(crate) fn disconnect(mut self) {
        self.wire.send(&[0xe0, 0]);
        self.wire.skip_until_close();
    }
}

impl Got {
    pub(crate) fn read(version: Version, bytes: &[u8]) -> Got {
        assert_eq!(bytes[0] >> 4, 3, "a PUBLISH is expected: {}", show(bytes));
        let flags = bytes[0] & 15;
        let mut at = 1;
        while bytes[at] & 0x80 != 0 {
            at += 1;
        }
        at += 1;
        let topic_len = usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let topic = String::from_utf8_lossy(&bytes[at + 2..at + 2 + topic_len]).into_owned();
        at += 2 + topic_len;
        let qos = flags >> 1 & 3;
        let mut id = 0;
        if qos > 0 {
            id = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            at += 2;
        }
        let mut properties = Vec::new();
        if version == Version::V5 {
            let mut len = 0;
            let mut shift = 0;
            loop {
                len |= usize::from(bytes[at] & 0x7f) << shift;
                shift += 7;
                at += 1;
                if bytes[at - 1] & 0x80 == 0 {
                    break;
                }
            }
            properties = bytes[at..at + len].to_vec();
            at += len;
        }
        Got {
            dup: flags & 8 != 0,
            qos,
            retain: flags & 1 != 0,
            topic,
            id,
            properties,
            payload: String::from_utf8_lossy(&bytes[at..]).into_owned(),
        }
    }
}
