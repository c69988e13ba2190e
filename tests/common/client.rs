//! A client of any topic: it completes handshakes, takes packets apart and hides nothing.
//!
//! What arrives while it waits for an answer is kept in order, and `next` gives it first.

use std::{collections::VecDeque, time::Duration};

use super::{
    broker::Broker,
    packets::{Connect, Version, binary, log_in, packet, property_block, reason, text},
    wire::{ANSWER_LIMIT, Wire, show},
};

/// Properties as they came: identifier and the bytes of the value.
pub(crate) type Properties = Vec<(u8, Vec<u8>)>;

/// A PUBLISH that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) dup: bool,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// 0 with QoS 0.
    pub(crate) id: u16,
    pub(crate) topic: String,
    pub(crate) properties: Properties,
    pub(crate) payload: Vec<u8>,
}

impl Message {
    /// Takes a PUBLISH apart.
    pub(crate) fn read(version: Version, bytes: &[u8]) -> Message {
        assert_eq!(bytes[0] >> 4, 3, "a PUBLISH is expected: {}", show(bytes));
        let mut at = 1;
        let _ = take_length(bytes, &mut at);
        let topic = String::from_utf8(take_binary(bytes, &mut at)).expect("UTF-8");
        let qos = bytes[0] >> 1 & 3;
        let mut id = 0;
        if qos > 0 {
            id = take_two(bytes, &mut at);
        }
        let mut properties = Properties::new();
        if version == Version::V5 {
            let length = take_length(bytes, &mut at);
            properties = read_properties(&bytes[at..at + length]);
            at += length;
        }
        Message {
            dup: bytes[0] & 8 != 0,
            qos,
            retain: bytes[0] & 1 != 0,
            id,
            topic,
            properties,
            payload: bytes[at..].to_vec(),
        }
    }

    /// The payload as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The only value of a property.
    pub(crate) fn property(&self, id: u8) -> Option<&[u8]> {
        let mut found = self.properties.iter().filter(|(held, _)| *held == id);
        let value = found.next().map(|(_, value)| value.as_slice());
        assert!(found.next().is_none(), "property {id:#04x} is there twice");
        value
    }

    /// A property of four bytes.
    pub(crate) fn number(&self, id: u8) -> Option<u32> {
        let value = self.property(id)?;
        Some(
            value
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
        )
    }

    /// The subscription identifiers, in ascending order.
    pub(crate) fn subscription_ids(&self) -> Vec<usize> {
        let held = self.properties.iter().filter(|(id, _)| *id == 0x0b);
        let mut ids: Vec<usize> = held.map(|(_, value)| take_length(value, &mut 0)).collect();
        ids.sort_unstable();
        ids
    }
}

/// A connected client.
pub(crate) struct Client {
    pub(crate) wire: Wire,
    pub(crate) version: Version,
    pub(crate) connack: Vec<u8>,
    early: VecDeque<Message>,
    /// PUBRELs that came while something else was waited for.
    releases: VecDeque<Vec<u8>>,
    last_id: u16,
}

impl Client {
    /// Connects without TLS and expects to be let in.
    pub(crate) fn connect(broker: &Broker, connect: &Connect<'_>) -> Client {
        Client::over(broker.wire(), connect)
    }

    /// The same on a wire that is there, with or without TLS.
    pub(crate) fn over(mut wire: Wire, connect: &Connect<'_>) -> Client {
        let connack = log_in(&mut wire, connect);
        Client {
            wire,
            version: connect.version,
            connack,
            early: VecDeque::new(),
            releases: VecDeque::new(),
            last_id: 0,
        }
    }

    /// Whether CONNACK said that the session was there.
    pub(crate) fn is_present(&self) -> bool {
        self.connack[2] == 1
    }

    /// The properties of CONNACK.
    pub(crate) fn announced(&self) -> Properties {
        let mut at = 4;
        let length = take_length(&self.connack, &mut at);
        read_properties(&self.connack[at..at + length])
    }

    /// A packet id that was not used before, as long as there are not 65,535 of them.
    pub(crate) fn fresh_id(&mut self) -> u16 {
        self.last_id = self.last_id % u16::MAX + 1;
        self.last_id
    }

    /// Subscribes to one filter; the code of SUBACK.
    pub(crate) fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_all(&[(filter, options)], &[])[0]
    }

    /// Subscribes with a subscription identifier below 128.
    pub(crate) fn subscribe_as(&mut self, id: u8, filter: &str, options: u8) -> u8 {
        self.subscribe_all(&[(filter, options)], &[0x0b, id])[0]
    }

    /// Subscribes to all of them in one packet; the codes of SUBACK.
    pub(crate) fn subscribe_all(&mut self, filters: &[(&str, u8)], properties: &[u8]) -> Vec<u8> {
        let id = self.fresh_id();
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            property_block(&mut body, properties);
        }
        for (filter, options) in filters {
            text(&mut body, filter);
            body.push(*options);
        }
        self.wire.send(&packet(0x82, &body));
        let suback = self.answer(0x90);
        self.codes(&suback, id)
    }

    /// Unsubscribes; the codes of UNSUBACK (none before MQTT 5).
    pub(crate) fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.fresh_id();
        let mut body = id.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.push(0);
        }
        for filter in filters {
            text(&mut body, filter);
        }
        self.wire.send(&packet(0xa2, &body));
        let unsuback = self.answer(0xb0);
        self.codes(&unsuback, id)
    }

    fn codes(&self, packet: &[u8], id: u16) -> Vec<u8> {
        let mut at = 1;
        let _ = take_length(packet, &mut at);
        assert_eq!(take_two(packet, &mut at), id, "{}", show(packet));
        if self.version == Version::V5 {
            let length = take_length(packet, &mut at);
            at += length;
        }
        packet[at..].to_vec()
    }

    /// Publishes and completes the handshake; the reason of the refusal or 0.
    pub(crate) fn publish(&mut self, qos: u8, topic: &str, payload: &[u8]) -> u8 {
        self.publish_with(qos << 1, topic, &[], payload)
    }

    /// Publishes with the retain flag.
    pub(crate) fn retain(&mut self, qos: u8, topic: &str, payload: &[u8]) -> u8 {
        self.publish_with(qos << 1 | 1, topic, &[], payload)
    }

    /// Publishes with these flags (retain 1, QoS 2 and 4, DUP 8) and properties.
    pub(crate) fn publish_with(
        &mut self,
        flags: u8,
        topic: &str,
        properties: &[u8],
        payload: &[u8],
    ) -> u8 {
        let id = self.fresh_id();
        self.send_publish(flags, id, topic, properties, payload);
        self.complete(flags >> 1 & 3, id)
    }

    /// Only the PUBLISH.
    pub(crate) fn send_publish(
        &mut self,
        flags: u8,
        id: u16,
        topic: &str,
        properties: &[u8],
        payload: &[u8],
    ) {
        let bytes = publish_bytes(self.version, flags, id, topic, properties, payload);
        self.wire.send(&bytes);
    }

    /// The rest of the handshake of a PUBLISH that was sent.
    pub(crate) fn complete(&mut self, qos: u8, id: u16) -> u8 {
        let code = match qos {
            0 => return 0,
            1 => self.expect_ack(0x40, id),
            _ => self.expect_ack(0x50, id),
        };
        if qos == 2 && code < 0x80 {
            self.wire.send(&packet(0x62, &id.to_be_bytes()));
            return self.expect_ack(0x70, id);
        }
        code
    }

    /// The next acknowledgement: its kind and id as expected; its reason.
    pub(crate) fn expect_ack(&mut self, first_byte: u8, id: u16) -> u8 {
        let ack = self.answer(first_byte);
        assert_eq!(ack[2..4], id.to_be_bytes(), "{}", show(&ack));
        reason(&ack)
    }

    /// The next packet that is no PUBLISH (nor PUBREL, unless it is asked for) and of this kind.
    pub(crate) fn answer(&mut self, first_byte: u8) -> Vec<u8> {
        if first_byte == 0x62
            && let Some(early) = self.releases.pop_front()
        {
            return early;
        }
        loop {
            let packet = self.wire.packet();
            if packet[0] >> 4 == 3 {
                self.early.push_back(Message::read(self.version, &packet));
                continue;
            }
            if packet[0] == 0x62 && first_byte != 0x62 {
                self.releases.push_back(packet);
                continue;
            }
            assert_eq!(packet[0], first_byte, "{}", show(&packet));
            return packet;
        }
    }

    /// The next message, not acknowledged.
    pub(crate) fn next(&mut self) -> Message {
        match self.next_within(ANSWER_LIMIT) {
            Some(message) => message,
            None => panic!("no message in time, or closed"),
        }
    }

    /// The next message if it comes within the limit and the broker does not close.
    pub(crate) fn next_within(&mut self, limit: Duration) -> Option<Message> {
        if let Some(early) = self.early.pop_front() {
            return Some(early);
        }
        loop {
            let packet = self.wire.packet_within(limit)?;
            if packet[0] != 0x62 {
                return Some(Message::read(self.version, &packet));
            }
            self.releases.push_back(packet);
        }
    }

    /// The next message, acknowledged.
    pub(crate) fn take(&mut self) -> Message {
        let message = self.next();
        self.acknowledge(&message);
        message
    }

    /// The payloads of the next messages, acknowledged.
    pub(crate) fn take_texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.take().text()).collect()
    }

    /// All acknowledgements that a message asks for.
    pub(crate) fn acknowledge(&mut self, message: &Message) {
        let id = message.id.to_be_bytes();
        match message.qos {
            0 => {}
            1 => self.wire.send(&packet(0x40, &id)),
            _ => {
                self.wire.send(&packet(0x50, &id));
                // After a kill a handshake may come again whose PUBCOMP was not on disk yet.
                loop {
                    let release = self.answer(0x62);
                    self.wire.send(&packet(0x70, &release[2..4]));
                    if release[2..4] == id {
                        break;
                    }
                }
            }
        }
    }

    /// Whether what has arrived so far holds a message: PINGRESP is behind it.
    pub(crate) fn has_message(&mut self) -> bool {
        self.wire.send(&[0xc0, 0]);
        let _ = self.answer(0xd0);
        !self.early.is_empty()
    }

    /// Shows that nothing of this QoS was on its way here: what `publisher` sends on `marker`
    /// arrives next. This client must be subscribed to the topic at that QoS.
    pub(crate) fn expect_only_marker(&mut self, publisher: &mut Client, qos: u8, marker: &str) {
        assert_eq!(publisher.publish(qos, marker, b"marker"), 0, "{marker}");
        let message = self.take();
        assert_eq!(
            (message.topic.as_str(), message.text().as_str()),
            (marker, "marker"),
            "before the marker came {message:?}"
        );
    }

    /// The same with messages of its own.
    pub(crate) fn expect_only_own_marker(&mut self, qos: u8, marker: &str) {
        assert_eq!(self.publish(qos, marker, b"marker"), 0, "{marker}");
        let message = self.take();
        assert_eq!(
            (message.topic.as_str(), message.text().as_str()),
            (marker, "marker"),
            "before the marker came {message:?}"
        );
    }

    /// Says goodbye and waits for the close; a kept session stays.
    pub(crate) fn disconnect(mut self) {
        self.wire.send(&[0xe0, 0]);
        self.wire.skip_until_close();
    }

    /// The DISCONNECT of the broker (none before MQTT 5) and the close.
    pub(crate) fn expect_end(&mut self, codes: &[u8]) {
        if self.version == Version::V5 {
            let packet = self.answer(0xe0);
            let code = reason(&packet);
            assert!(
                codes.contains(&code),
                "{} instead of {codes:02x?}",
                show(&packet)
            );
        }
        self.wire.skip_until_close();
    }
}

/// A PUBLISH of any kind.
pub(crate) fn publish_bytes(
    version: Version,
    flags: u8,
    id: u16,
    topic: &str,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if flags & 6 != 0 {
        body.extend(id.to_be_bytes());
    }
    if version == Version::V5 {
        property_block(&mut body, properties);
    }
    body.extend(payload);
    packet(0x30 | flags, &body)
}

/// What clients ask for in CONNECT. In 3.1 and 3.1.1 the numbers of MQTT 5 are left out.
impl Connect<'_> {
    /// A session that is kept for an hour after the end of the connection.
    pub(crate) fn kept(self) -> Self {
        self.kept_for(3600)
    }

    /// A session that is kept so long; in 3.1 and 3.1.1 clean session 0.
    pub(crate) fn kept_for(mut self, expiry_s: u32) -> Self {
        self.clean = false;
        self.number(0x11, &expiry_s.to_be_bytes())
    }

    /// The most unacknowledged messages it wants.
    pub(crate) fn receive_maximum(self, messages: u16) -> Self {
        self.number(0x21, &messages.to_be_bytes())
    }

    /// The longest packet it wants.
    pub(crate) fn packet_size_max(self, bytes: u32) -> Self {
        self.number(0x27, &bytes.to_be_bytes())
    }

    /// The most topic aliases it wants.
    pub(crate) fn alias_maximum(self, aliases: u16) -> Self {
        self.number(0x22, &aliases.to_be_bytes())
    }

    /// How long the will waits.
    pub(crate) fn will_delay(mut self, seconds: u32) -> Self {
        self.will_properties.push(0x18);
        self.will_properties.extend(seconds.to_be_bytes());
        self
    }

    fn number(mut self, id: u8, value: &[u8]) -> Self {
        if self.version == Version::V5 {
            self.properties.push(id);
            self.properties.extend(value);
        }
        self
    }
}

/// A property that holds a string or binary data.
pub(crate) fn property_text(id: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![id];
    binary(&mut out, value);
    out
}

/// A user property.
pub(crate) fn user_property(name: &str, value: &str) -> Vec<u8> {
    let mut out = property_text(0x26, name.as_bytes());
    text(&mut out, value);
    out
}

/// Properties from a block without its length.
pub(crate) fn read_properties(mut block: &[u8]) -> Properties {
    let mut properties = Properties::new();
    while let [id, rest @ ..] = block {
        let mut at = 0;
        match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => at = 1,
            0x13 | 0x21 | 0x22 | 0x23 => at = 2,
            0x02 | 0x11 | 0x18 | 0x27 => at = 4,
            0x0b => {
                let _ = take_length(rest, &mut at);
            }
            0x26 => {
                let _ = take_binary(rest, &mut at);
                let _ = take_binary(rest, &mut at);
            }
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
                let _ = take_binary(rest, &mut at);
            }
            other => panic!("no property has the identifier {other:#04x}"),
        }
        properties.push((*id, rest[..at].to_vec()));
        block = &rest[at..];
    }
    properties
}

/// A variable byte integer.
fn take_length(bytes: &[u8], at: &mut usize) -> usize {
    let mut value = 0;
    for place in 0..4 {
        let byte = bytes[*at];
        *at += 1;
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a variable byte integer of five bytes: {}", show(bytes));
}

fn take_two(bytes: &[u8], at: &mut usize) -> u16 {
    *at += 2;
    u16::from_be_bytes([bytes[*at - 2], bytes[*at - 1]])
}

fn take_binary(bytes: &[u8], at: &mut usize) -> Vec<u8> {
    let length = usize::from(take_two(bytes, at));
    *at += length;
    bytes[*at - length..*at].to_vec()
}
