//! Writing a packet: its body is described once, measured, then written behind its header.
//!
//! Measuring finds everything that could go wrong, so that nothing is half-written (SEC-13).

use super::error::EncodeError;
use super::property::Property;
use super::reader::VARIABLE_BYTE_INTEGER_MAX;
use super::{PacketType, Version};

/// A packet that can be written.
pub(super) trait Body {
    /// Packet type and flags.
    fn first_byte(&self) -> u8;

    /// Everything behind the fixed header, in order. Called once to measure, once to write.
    fn put<S: Sink>(&self, version: Version, sink: &mut S);
}

/// The properties of one packet, without their length.
pub(super) trait Properties {
    /// Every property that is set.
    fn put<S: Sink>(&self, sink: &mut S);
}

/// Appends one packet to `out`; on an error `out` is as it was.
pub(super) fn write<B: Body>(
    body: &B,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let mut measure = Measure::default();
    body.put(version, &mut measure);
    if let Some(error) = measure.error {
        return Err(error);
    }
    let length = measure.length;
    let remaining = u32::try_from(length)
        .ok()
        .filter(|&remaining| remaining <= VARIABLE_BYTE_INTEGER_MAX)
        .ok_or(EncodeError::PacketTooLarge { length })?;
    out.reserve(5 + length);
    let mut writer = Writer(out);
    writer.byte(body.first_byte());
    writer.variable(remaining);
    body.put(version, &mut writer);
    Ok(())
}

/// Where a body goes: to be measured or into a buffer.
pub(super) trait Sink: Sized {
    /// Bytes as they are.
    fn raw(&mut self, bytes: &[u8]);

    /// Notes what makes the packet impossible to write; only the first is kept.
    fn refuse(&mut self, error: EncodeError);

    /// A property block with its length.
    fn properties<P: Properties>(&mut self, properties: &P);

    fn byte(&mut self, byte: u8) {
        self.raw(&[byte]);
    }

    fn two(&mut self, two: u16) {
        self.raw(&two.to_be_bytes());
    }

    fn four(&mut self, four: u32) {
        self.raw(&four.to_be_bytes());
    }

    /// A variable byte integer of at most 28 bits in its shortest form [MQTT-1.5.5-1].
    fn variable(&mut self, mut value: u32) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                return self.byte(low);
            }
            self.byte(low | 0x80);
        }
    }

    /// Bytes behind a two-byte length.
    fn prefixed(&mut self, field: &'static str, bytes: &[u8]) {
        match u16::try_from(bytes.len()) {
            Ok(length) => self.two(length),
            Err(_) => self.refuse(EncodeError::FieldTooLong {
                field,
                length: bytes.len(),
            }),
        }
        self.raw(bytes);
    }

    fn property_byte(&mut self, property: Property, value: Option<u8>) {
        if let Some(value) = value {
            self.identifier(property, u32::from(value));
            self.byte(value);
        }
    }

    fn property_bool(&mut self, property: Property, value: Option<bool>) {
        self.property_byte(property, value.map(u8::from));
    }

    fn property_two(&mut self, property: Property, value: Option<u16>) {
        if let Some(value) = value {
            self.identifier(property, u32::from(value));
            self.two(value);
        }
    }

    fn property_four(&mut self, property: Property, value: Option<u32>) {
        if let Some(value) = value {
            self.identifier(property, value);
            self.four(value);
        }
    }

    fn property_variable(&mut self, property: Property, value: Option<u32>) {
        if let Some(value) = value {
            if value > VARIABLE_BYTE_INTEGER_MAX {
                self.refuse(EncodeError::Value {
                    field: property.name(),
                });
            }
            self.identifier(property, value);
            self.variable(value);
        }
    }

    fn property_text(&mut self, property: Property, value: Option<&str>) {
        self.property_binary(property, value.map(str::as_bytes));
    }

    fn property_binary(&mut self, property: Property, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.byte(property as u8);
            self.prefixed(property.name(), value);
        }
    }

    /// A property's identifier, if the standard allows its value.
    fn identifier(&mut self, property: Property, value: u32) {
        if !property.admits(value) {
            self.refuse(EncodeError::Value {
                field: property.name(),
            });
        }
        self.byte(property as u8);
    }
}

/// Counts the bytes and keeps the first error.
#[derive(Default)]
struct Measure {
    length: usize,
    error: Option<EncodeError>,
}

impl Sink for Measure {
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len());
    }

    fn refuse(&mut self, error: EncodeError) {
        self.error.get_or_insert(error);
    }

    fn properties<P: Properties>(&mut self, properties: &P) {
        let before = self.length;
        properties.put(self);
        let length = self.length.saturating_sub(before);
        self.variable(u32::try_from(length).unwrap_or(u32::MAX));
    }
}

/// Appends to a buffer. [`Measure`] has seen every error before.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Sink for Writer<'_> {
    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn refuse(&mut self, _error: EncodeError) {}

    fn properties<P: Properties>(&mut self, properties: &P) {
        let mut measure = Measure::default();
        properties.put(&mut measure);
        // The whole packet was measured to fit into 28 bits.
        self.variable(u32::try_from(measure.length).unwrap_or(u32::MAX));
        properties.put(self);
    }
}

/// The first byte of a packet with the flags its type demands [MQTT-2.1.3-1].
pub(super) const fn first_byte(packet: PacketType) -> u8 {
    let flags = match packet {
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
        _ => 0,
    };
    (packet as u8) << 4 | flags
}
