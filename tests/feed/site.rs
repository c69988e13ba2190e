//! A broker with a device that counts, and applications that listen.

use std::{collections::VecDeque, time::Duration};

use serde_json::Value;

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, Version, log_in, packet, property_block, publish, text},
    wire::{Wire, show},
};

/// The filter of every device's telemetry.
pub(crate) const ALL: &str = "v1/devices/+/telemetry";

/// Makes an application that may receive what `filters` say; answers its token.
pub(crate) fn create_app(broker: &Broker, name: &str, filters: &[&str]) -> String {
    let mut arguments = vec!["app", "create", name, "--json", "--subscribe"];
    arguments.extend(filters);
    let created = broker.cli_json(&arguments);
    created["token"].as_str().expect("a token").to_owned()
}

/// The id of a device.
pub(crate) fn id_of(broker: &Broker, device: &str) -> String {
    let shown = broker.cli_json(&["device", "show", device, "--json"]);
    shown["id"].as_str().expect("an id").to_owned()
}

/// A device that publishes numbers.
pub(crate) struct Counter {
    pub(crate) wire: Wire,
    next: u32,
}

impl Counter {
    pub(crate) fn connect(broker: &Broker, token: &str) -> Counter {
        Counter::over(broker.wire(), token)
    }

    pub(crate) fn over(mut wire: Wire, token: &str) -> Counter {
        log_in(&mut wire, &Connect::with_token(Version::V311, "d", token));
        Counter { wire, next: 1 }
    }

    /// Publishes the next `count` numbers at QoS 1 and waits until they are acknowledged.
    pub(crate) fn send(&mut self, count: u32) {
        let mut bytes = Vec::new();
        for _ in 0..count {
            let payload = format!("{{\"n\":{}}}", self.next);
            let id = u16::try_from(self.next % 60_000 + 1).expect("below 65,536");
            self.next += 1;
            bytes.extend(publish(Version::V311, 1, id, TELEMETRY, payload.as_bytes()));
        }
        self.wire.send(&bytes);
        for _ in 0..count {
            assert_eq!(self.wire.packet()[0], 0x40);
        }
    }
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) id: u16,
    pub(crate) topic: String,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) payload: String,
}

impl Message {
    pub(crate) fn read(version: Version, bytes: &[u8]) -> Message {
        assert_eq!(bytes[0] >> 4, 3, "a PUBLISH is expected: {}", show(bytes));
        let (qos, dup) = (bytes[0] >> 1 & 3, bytes[0] & 8 != 0);
        let mut at = 1;
        while bytes[at] & 0x80 != 0 {
            at += 1;
        }
        at += 1;
        let topic = take_text(bytes, &mut at);
        let mut id = 0;
        if qos > 0 {
            id = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            at += 2;
        }
        let mut properties = Vec::new();
        if version == Version::V5 {
            let length = usize::from(bytes[at]);
            assert!(length < 128, "short properties");
            at += 1;
            let end = at + length;
            while at < end {
                assert_eq!(bytes[at], 0x26, "only user properties");
                at += 1;
                let name = take_text(bytes, &mut at);
                properties.push((name, take_text(bytes, &mut at)));
            }
        }
        Message {
            dup,
            qos,
            id,
            topic,
            properties,
            payload: String::from_utf8(bytes[at..].to_vec()).expect("text"),
        }
    }

    /// The number that the device sent.
    pub(crate) fn number(&self) -> u32 {
        let value: Value = serde_json::from_str(&self.payload).expect("JSON");
        u32::try_from(value["n"].as_u64().expect("a number")).expect("small")
    }

    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        let mut found = self.properties.iter().filter(|(held, _)| held == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

fn take_text(bytes: &[u8], at: &mut usize) -> String {
    let length = usize::from(u16::from_be_bytes([bytes[*at], bytes[*at + 1]]));
    let text = bytes[*at + 2..*at + 2 + length].to_vec();
    *at += 2 + length;
    String::from_utf8(text).expect("text")
}

/// An application's client.
pub(crate) struct Client {
    pub(crate) wire: Wire,
    pub(crate) version: Version,
    /// Whether CONNACK said that the session was there.
    pub(crate) is_present: bool,
    /// Messages that came before SUBACK, as they may.
    early: VecDeque<Message>,
}

/// How a client connects.
#[derive(Clone)]
pub(crate) struct Options<'a> {
    pub(crate) version: Version,
    pub(crate) client_id: &'a str,
    pub(crate) is_kept: bool,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) packet_size_max: Option<u32>,
}

impl Options<'_> {
    pub(crate) const V5: Options<'static> = Options {
        version: Version::V5,
        client_id: "c",
        is_kept: false,
        receive_maximum: None,
        packet_size_max: None,
    };
    pub(crate) const KEPT: Options<'static> = Options {
        is_kept: true,
        ..Options::V5
    };
}

impl Client {
    pub(crate) fn connect(broker: &Broker, token: &str, options: &Options<'_>) -> Client {
        Client::over(broker.wire(), token, options)
    }

    pub(crate) fn over(mut wire: Wire, token: &str, options: &Options<'_>) -> Client {
        let mut connect = Connect {
            clean: !options.is_kept,
            ..Connect::with_token(options.version, options.client_id, token)
        };
        if options.version == Version::V5 {
            if options.is_kept {
                connect.properties.extend([0x11, 0, 0, 0x0e, 0x10]);
            }
            if let Some(maximum) = options.receive_maximum {
                connect.properties.push(0x21);
                connect.properties.extend(maximum.to_be_bytes());
            }
            if let Some(maximum) = options.packet_size_max {
                connect.properties.push(0x27);
                connect.properties.extend(maximum.to_be_bytes());
            }
        }
        let connack = log_in(&mut wire, &connect);
        Client {
            wire,
            version: options.version,
            is_present: connack[2] == 1,
            early: VecDeque::new(),
        }
    }

    /// Subscribes at QoS 1; the code of SUBACK.
    pub(crate) fn subscribe(&mut self, filter: &str) -> u8 {
        self.subscribe_with(filter, 1, &[])
    }

    pub(crate) fn subscribe_with(
        &mut self,
        filter: &str,
        qos: u8,
        properties: &[(&str, &str)],
    ) -> u8 {
        let mut body = vec![0, 9];
        if self.version == Version::V5 {
            let mut block = Vec::new();
            for (name, value) in properties {
                block.push(0x26);
                text(&mut block, name);
                text(&mut block, value);
            }
            property_block(&mut body, &block);
        }
        text(&mut body, filter);
        body.push(qos);
        self.wire.send(&packet(0x82, &body));
        let mut suback = self.wire.packet();
        while suback[0] >> 4 == 3 {
            self.early.push_back(Message::read(self.version, &suback));
            suback = self.wire.packet();
        }
        assert_eq!(suback[0], 0x90, "{}", show(&suback));
        *suback.last().expect("a code")
    }

    pub(crate) fn next(&mut self) -> Message {
        if let Some(early) = self.early.pop_front() {
            return early;
        }
        let packet = self.wire.packet();
        Message::read(self.version, &packet)
    }

    /// The next message, acknowledged.
    pub(crate) fn take(&mut self) -> Message {
        let message = self.next();
        self.ack(&message);
        message
    }

    pub(crate) fn ack(&mut self, message: &Message) {
        if message.qos > 0 {
            self.wire.send(&packet(0x40, &message.id.to_be_bytes()));
        }
    }

    /// Takes this many messages; their numbers.
    pub(crate) fn take_numbers(&mut self, count: u32) -> Vec<u32> {
        (0..count).map(|_| self.take().number()).collect()
    }

    /// What comes within a while, acknowledged; for what may or may not come.
    pub(crate) fn take_within(&mut self, limit: Duration) -> Option<Message> {
        let packet = self.wire.packet_within(limit)?;
        let message = Message::read(self.version, &packet);
        self.ack(&message);
        Some(message)
    }

    /// Says goodbye; the session stays if it is kept.
    pub(crate) fn disconnect(mut self) {
        // What was acknowledged before is handled before.
        self.wire.send(&[0xe0, 0]);
        self.wire.skip_until_close();
    }
}
