//! CONNECT (MQTT 5 section 3.1): the one packet that says its version itself.

use super::error::{EncodeError, WireError};
use super::property::{self, Place, Property, Value};
use super::publish::response_topic;
use super::reader::Reader;
use super::user_property::{Budget, UserProperties};
use super::writer::{self, Body, Properties, Sink};
use super::{Frame, PacketType, QoS, Version, whole_frame};

/// A client's first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// What everything after it is spoken in.
    pub version: Version,
    /// Forget an older session; "clean session" before MQTT 5.
    pub clean_start: bool,
    /// Seconds; 0 = none.
    pub keep_alive_s: u16,
    /// Empty when the server shall choose one: MQTT 5, and 3.1.1 with a clean session. MQTT 3.1
    /// asked for 1 to 23 characters; longer ones are taken, as other brokers do.
    pub client_id: &'a str,
    /// What is published when the connection ends badly.
    pub will: Option<Will<'a>>,
    /// Empty and absent are different things.
    pub user_name: Option<&'a str>,
    /// Binary.
    pub password: Option<&'a [u8]>,
    /// What MQTT 5 adds.
    pub properties: ConnectProperties<'a>,
}

/// The properties of CONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Seconds the session outlives the connection; absent is 0; 4,294,967,295 is for ever.
    pub session_expiry_s: Option<u32>,
    /// QoS 1 and 2 messages the client takes at once, not 0; absent is 65,535.
    pub receive_maximum: Option<u16>,
    /// Bytes of the largest packet the client takes, not 0; absent is no limit.
    pub packet_size_max: Option<u32>,
    /// Topic aliases the client takes; absent is 0.
    pub topic_alias_maximum: Option<u16>,
    /// Whether the client wants response information; absent is no.
    pub request_response_information: Option<bool>,
    /// Whether the client wants reason strings; absent is yes.
    pub request_problem_information: Option<bool>,
    /// Name of an enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// Its data, never without a method.
    pub authentication_data: Option<&'a [u8]>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
}

/// The message that is published when the connection ends badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// The QoS it is published with.
    pub qos: QoS,
    /// Whether it is kept for later subscribers.
    pub retain: bool,
    /// A valid topic name.
    pub topic: &'a str,
    /// The message, at most 65,535 bytes.
    pub payload: &'a [u8],
    /// What MQTT 5 adds.
    pub properties: WillProperties<'a>,
}

/// The properties of a will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WillProperties<'a> {
    /// Seconds between the end of the connection and the will; absent is 0.
    pub delay_s: Option<u32>,
    /// The payload is said to be UTF-8; nobody has checked it.
    pub payload_format_is_utf8: Option<bool>,
    /// Seconds until the message is worthless.
    pub message_expiry_s: Option<u32>,
    /// Free text, by convention a MIME type.
    pub content_type: Option<&'a str>,
    /// A valid topic name.
    pub response_topic: Option<&'a str>,
    /// The requester's mark.
    pub correlation_data: Option<&'a [u8]>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
}

/// Reads a whole CONNECT, fixed header included, of whichever version it is.
///
/// # Errors
/// [`WireError::UnsupportedVersion`] for a level we do not speak, decided before anything behind
/// it is looked at [MQTT-3.1.2-2]; [`WireError::NotConnect`] for another packet; else what SEC-05
/// to SEC-11 refuse.
pub fn decode_connect(packet: &[u8]) -> Result<Connect<'_>, WireError> {
    let (frame, reader) = whole_frame(packet)?;
    let Frame { first_byte, .. } = frame;
    if PacketType::from_first_byte(first_byte)? != PacketType::Connect {
        return Err(WireError::NotConnect { first_byte });
    }
    Connect::decode(reader, |_| true)
}

impl<'a> Connect<'a> {
    /// Appends the packet to `out`, in its own version. Before MQTT 5 properties are left out.
    ///
    /// # Errors
    /// A client identifier, will or password the version does not allow, a property out of range,
    /// a string that is too long; nothing is written.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::write(self, self.version, out)
    }

    /// `expected` says which versions are taken at this point.
    pub(super) fn decode(
        mut reader: Reader<'a>,
        expected: impl Fn(Version) -> bool,
    ) -> Result<Connect<'a>, WireError> {
        let version = version(&mut reader)?;
        if !expected(version) {
            return Err(WireError::UnsupportedVersion {
                level: version as u8,
            });
        }
        let flags = Flags {
            bits: reader.byte("CONNECT flags")?,
            version,
        };
        flags.check()?;
        let keep_alive_s = reader.two("keep alive")?;
        // One budget for the properties of CONNECT and of its will (SEC-11).
        let mut budget = Budget::default();
        let properties = match version {
            Version::V5 => ConnectProperties::decode(&mut reader, &mut budget)?,
            _ => ConnectProperties::default(),
        };
        let client_id = reader.strict_text("client identifier")?;
        if client_id.is_empty() && !flags.allow_empty_client_id() {
            return Err(WireError::ClientIdEmpty);
        }
        let will = match flags.has(Flags::WILL) {
            true => Some(Will::decode(flags, &mut reader, &mut budget)?),
            false => None,
        };
        // MQTT 3.1 section 3.1: the length wins over the flags of user name and password.
        let user_name = match flags.has(Flags::USER_NAME) && !flags.ends_early(&reader) {
            true => Some(reader.strict_text("user name")?),
            false => None,
        };
        let password = match flags.has(Flags::PASSWORD) && !flags.ends_early(&reader) {
            true => Some(reader.binary("password")?),
            false => None,
        };
        reader.finish(PacketType::Connect)?;
        Ok(Connect {
            version,
            clean_start: flags.has(Flags::CLEAN_START),
            keep_alive_s,
            client_id,
            will,
            user_name,
            password,
            properties,
        })
    }

    fn flags(&self) -> Flags {
        let mut bits = 0;
        if self.clean_start {
            bits |= Flags::CLEAN_START;
        }
        if let Some(will) = &self.will {
            bits |= Flags::WILL | will.qos.as_u8() << 3;
            if will.retain {
                bits |= Flags::WILL_RETAIN;
            }
        }
        if self.password.is_some() {
            bits |= Flags::PASSWORD;
        }
        if self.user_name.is_some() {
            bits |= Flags::USER_NAME;
        }
        Flags {
            bits,
            version: self.version,
        }
    }
}

impl<'a> ConnectProperties<'a> {
    fn decode(
        reader: &mut Reader<'a>,
        budget: &mut Budget,
    ) -> Result<ConnectProperties<'a>, WireError> {
        let block = property::block(reader)?;
        let mut properties = ConnectProperties::default();
        let user_properties = property::walk(block, Place::CONNECT, budget, |property, value| {
            properties.set(property, value);
            Ok(())
        })?;
        properties.user_properties = user_properties;
        // [MQTT-3.1.2.11.10]: data needs a method.
        if properties.lacks_method() {
            return Err(WireError::PropertyMissing {
                property: Property::AuthenticationMethod,
            });
        }
        Ok(properties)
    }

    fn set(&mut self, property: Property, value: Value<'a>) {
        match (property, value) {
            (Property::SessionExpiryInterval, Value::Four(seconds)) => {
                self.session_expiry_s = Some(seconds);
            }
            (Property::ReceiveMaximum, Value::Two(maximum)) => self.receive_maximum = Some(maximum),
            (Property::MaximumPacketSize, Value::Four(bytes)) => self.packet_size_max = Some(bytes),
            (Property::TopicAliasMaximum, Value::Two(maximum)) => {
                self.topic_alias_maximum = Some(maximum);
            }
            (Property::RequestResponseInformation, Value::Byte(byte)) => {
                self.request_response_information = Some(byte == 1);
            }
            (Property::RequestProblemInformation, Value::Byte(byte)) => {
                self.request_problem_information = Some(byte == 1);
            }
            (Property::AuthenticationMethod, Value::Text(method)) => {
                self.authentication_method = Some(method);
            }
            (Property::AuthenticationData, Value::Binary(data)) => {
                self.authentication_data = Some(data);
            }
            _ => {}
        }
    }

    const fn lacks_method(&self) -> bool {
        self.authentication_data.is_some() && self.authentication_method.is_none()
    }
}

impl<'a> Will<'a> {
    fn decode(
        flags: Flags,
        reader: &mut Reader<'a>,
        budget: &mut Budget,
    ) -> Result<Will<'a>, WireError> {
        let properties = match flags.version {
            Version::V5 => WillProperties::decode(reader, budget)?,
            _ => WillProperties::default(),
        };
        Ok(Will {
            qos: flags.will_qos()?,
            retain: flags.has(Flags::WILL_RETAIN),
            topic: reader.topic("will topic")?.as_str(),
            payload: reader.binary("will payload")?,
            properties,
        })
    }
}

impl<'a> WillProperties<'a> {
    fn decode(
        reader: &mut Reader<'a>,
        budget: &mut Budget,
    ) -> Result<WillProperties<'a>, WireError> {
        let block = property::block(reader)?;
        let mut properties = WillProperties::default();
        let user_properties = property::walk(block, Place::WILL, budget, |property, value| {
            match (property, value) {
                (Property::WillDelayInterval, Value::Four(seconds)) => {
                    properties.delay_s = Some(seconds);
                }
                (Property::PayloadFormatIndicator, Value::Byte(byte)) => {
                    properties.payload_format_is_utf8 = Some(byte == 1);
                }
                (Property::MessageExpiryInterval, Value::Four(seconds)) => {
                    properties.message_expiry_s = Some(seconds);
                }
                (Property::ContentType, Value::Text(text)) => properties.content_type = Some(text),
                (Property::ResponseTopic, Value::Text(text)) => {
                    properties.response_topic = Some(response_topic(text)?);
                }
                (Property::CorrelationData, Value::Binary(data)) => {
                    properties.correlation_data = Some(data);
                }
                _ => {}
            }
            Ok(())
        })?;
        properties.user_properties = user_properties;
        Ok(properties)
    }
}

impl Body for Connect<'_> {
    fn first_byte(&self) -> u8 {
        writer::first_byte(PacketType::Connect)
    }

    fn put<S: Sink>(&self, version: Version, sink: &mut S) {
        let flags = self.flags();
        if flags.check().is_err() {
            sink.refuse(EncodeError::Value { field: "password" });
        }
        if self.client_id.is_empty() && !flags.allow_empty_client_id() {
            sink.refuse(EncodeError::Value {
                field: "client identifier",
            });
        }
        let name = if version == Version::V31 {
            "MQIsdp"
        } else {
            "MQTT"
        };
        sink.prefixed("protocol name", name.as_bytes());
        sink.byte(version as u8);
        sink.byte(flags.bits);
        sink.two(self.keep_alive_s);
        if version == Version::V5 {
            sink.properties(&self.properties);
        }
        sink.prefixed("client identifier", self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if version == Version::V5 {
                sink.properties(&will.properties);
            }
            if will.topic.is_empty() {
                sink.refuse(EncodeError::Value {
                    field: "will topic",
                });
            }
            sink.prefixed("will topic", will.topic.as_bytes());
            sink.prefixed("will payload", will.payload);
        }
        if let Some(user_name) = self.user_name {
            sink.prefixed("user name", user_name.as_bytes());
        }
        if let Some(password) = self.password {
            sink.prefixed("password", password);
        }
    }
}

impl Properties for ConnectProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        if self.lacks_method() {
            sink.refuse(EncodeError::Value {
                field: Property::AuthenticationData.name(),
            });
        }
        sink.property_four(Property::SessionExpiryInterval, self.session_expiry_s);
        sink.property_two(Property::ReceiveMaximum, self.receive_maximum);
        sink.property_four(Property::MaximumPacketSize, self.packet_size_max);
        sink.property_two(Property::TopicAliasMaximum, self.topic_alias_maximum);
        let response = self.request_response_information;
        sink.property_bool(Property::RequestResponseInformation, response);
        sink.property_bool(
            Property::RequestProblemInformation,
            self.request_problem_information,
        );
        sink.property_text(Property::AuthenticationMethod, self.authentication_method);
        sink.property_binary(Property::AuthenticationData, self.authentication_data);
        self.user_properties.put(sink);
    }
}

impl Properties for WillProperties<'_> {
    fn put<S: Sink>(&self, sink: &mut S) {
        sink.property_four(Property::WillDelayInterval, self.delay_s);
        sink.property_bool(
            Property::PayloadFormatIndicator,
            self.payload_format_is_utf8,
        );
        sink.property_four(Property::MessageExpiryInterval, self.message_expiry_s);
        sink.property_text(Property::ContentType, self.content_type);
        sink.property_text(Property::ResponseTopic, self.response_topic);
        sink.property_binary(Property::CorrelationData, self.correlation_data);
        self.user_properties.put(sink);
    }
}

/// The flags byte of CONNECT (section 3.1.2.3), with the version that gives it its meaning.
#[derive(Clone, Copy, Debug)]
struct Flags {
    bits: u8,
    version: Version,
}

impl Flags {
    const RESERVED: u8 = 0b0000_0001;
    const CLEAN_START: u8 = 0b0000_0010;
    const WILL: u8 = 0b0000_0100;
    const WILL_QOS: u8 = 0b0001_1000;
    const WILL_RETAIN: u8 = 0b0010_0000;
    const PASSWORD: u8 = 0b0100_0000;
    const USER_NAME: u8 = 0b1000_0000;

    const fn has(self, flag: u8) -> bool {
        self.bits & flag != 0
    }

    fn check(self) -> Result<(), WireError> {
        let refuse = |rule| {
            Err(WireError::ConnectFlags {
                found: self.bits,
                rule,
            })
        };
        if self.has(Flags::RESERVED) {
            return refuse("the reserved flag is set"); // [MQTT-3.1.2-3]
        }
        // MQTT 3.1 section 3.1 disregards QoS and Retain of a will that is not there.
        let will_bits = Flags::WILL_QOS | Flags::WILL_RETAIN;
        if !self.has(Flags::WILL) && self.has(will_bits) && self.version != Version::V31 {
            return refuse("QoS or Retain of a will that is not there"); // [MQTT-3.1.2-11]
        }
        if self.has(Flags::WILL) {
            self.will_qos()?;
        }
        // [MQTT-3.1.2-22] of 3.1.1; MQTT 5 allows it.
        let password_alone = self.has(Flags::PASSWORD) && !self.has(Flags::USER_NAME);
        if password_alone && self.version != Version::V5 {
            return refuse("a password without a user name");
        }
        Ok(())
    }

    /// [MQTT-3.1.2-12]
    fn will_qos(self) -> Result<QoS, WireError> {
        QoS::from_u8((self.bits & Flags::WILL_QOS) >> 3).ok_or(WireError::ConnectFlags {
            found: self.bits,
            rule: "a will of QoS 3",
        })
    }

    /// [MQTT-3.1.3-8] of 3.1.1: only with a clean session. MQTT 3.1 asks for 1 to 23 characters.
    const fn allow_empty_client_id(self) -> bool {
        match self.version {
            Version::V31 => false,
            Version::V311 => self.has(Flags::CLEAN_START),
            Version::V5 => true,
        }
    }

    /// Whether a MQTT 3.1 CONNECT ends before user name or password in spite of its flags.
    const fn ends_early(self, reader: &Reader<'_>) -> bool {
        matches!(self.version, Version::V31) && reader.is_empty()
    }
}

/// Protocol name and level (section 3.1.2.1, 3.1.2.2).
fn version(reader: &mut Reader<'_>) -> Result<Version, WireError> {
    let name = reader.binary("protocol name")?;
    // The name alone says whether there is a level to look at [MQTT-3.1.2-1].
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(WireError::ProtocolName);
    }
    match (name, reader.byte("protocol level")?) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (_, level) => Err(WireError::UnsupportedVersion { level }),
    }
}
