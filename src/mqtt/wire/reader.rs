//! A cursor over the bytes of one packet. Every read names its field, so that errors can.
//!
//! Nothing is allocated, whatever length a field announces (SEC-01), and nothing is read past the
//! end (SEC-05).

use crate::mqtt::topic::{self, Filter, Topic};

use super::error::WireError;
use super::{PacketId, PacketType};

/// The largest variable byte integer: 28 bits (MQTT 5 section 1.5.5).
pub(super) const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// Reads a variable byte integer: its value and its length in bytes (1 to 4). `None` when `bytes`
/// end before it does.
#[inline]
pub(super) fn variable_byte_integer(
    bytes: &[u8],
    field: &'static str,
) -> Result<Option<(u32, u32)>, WireError> {
    let mut value = 0_u32;
    let mut len = 0_u32;
    for &byte in bytes.iter().take(4) {
        value |= u32::from(byte & 0x7F) << (7 * len);
        len += 1;
        if byte & 0x80 == 0 {
            // A last byte of 0 adds nothing: the shortest form is one byte less [MQTT-1.5.5-1].
            if byte == 0 && len > 1 {
                return Err(WireError::VariableByteInteger { field });
            }
            return Ok(Some((value, len)));
        }
    }
    if len == 4 {
        Err(WireError::VariableByteInteger { field })
    } else {
        Ok(None)
    }
}

/// What is left of a packet, or of a property block.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything that is left: a payload, the codes of a SUBACK, a list of filters.
    #[inline]
    pub(super) const fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// That nothing is left behind the last field (SEC-05).
    #[inline]
    pub(super) const fn finish(&self, packet: PacketType) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(WireError::TrailingBytes { packet, count }),
        }
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(WireError::Truncated {
                field,
                needed: len,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(WireError::Truncated {
                field,
                needed: N,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn byte(&mut self, field: &'static str) -> Result<u8, WireError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn two(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.array(field).map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn four(&mut self, field: &'static str) -> Result<u32, WireError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// A variable byte integer that must end inside the packet (SEC-04).
    #[inline]
    pub(super) fn variable(&mut self, field: &'static str) -> Result<u32, WireError> {
        let left = self.rest.len();
        let (value, len) =
            variable_byte_integer(self.rest, field)?.ok_or(WireError::Truncated {
                field,
                needed: left + 1,
                left,
            })?;
        self.take(len as usize, field)?;
        Ok(value)
    }

    /// Bytes behind a two-byte length (section 1.5.6).
    #[inline]
    pub(super) fn binary(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let len = self.two(field)?;
        self.take(usize::from(len), field)
    }

    /// A string as the standard demands it: well-formed UTF-8 without U+0000 (SEC-08)
    /// [MQTT-1.5.4-1] [MQTT-1.5.4-2].
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, WireError> {
        let text = self.utf8(field)?;
        if text.as_bytes().contains(&0) {
            return Err(WireError::Character {
                field,
                character: 0,
            });
        }
        Ok(text)
    }

    /// A string without control and non-characters: client identifier and user name (SEC-08).
    pub(super) fn strict_text(&mut self, field: &'static str) -> Result<&'a str, WireError> {
        let text = self.utf8(field)?;
        match topic::forbidden_character(text) {
            None => Ok(text),
            Some(character) => Err(WireError::Character { field, character }),
        }
    }

    /// A topic name (SEC-09).
    #[inline]
    pub(super) fn topic(&mut self, field: &'static str) -> Result<Topic<'a>, WireError> {
        let text = self.utf8(field)?;
        Topic::new(text).map_err(|error| WireError::Topic { field, error })
    }

    /// A topic name, or nothing where MQTT 5 lets an alias stand for it.
    #[inline]
    pub(super) fn topic_or_empty(
        &mut self,
        field: &'static str,
        expected: &'a str,
    ) -> Result<&'a str, WireError> {
        let bytes = self.binary(field)?;
        if bytes == expected.as_bytes() {
            return Ok(expected);
        }
        let text = utf8(bytes, field)?;
        if text.is_empty() {
            return Ok(text);
        }
        match Topic::new(text) {
            Ok(topic) => Ok(topic.as_str()),
            Err(error) => Err(WireError::Topic { field, error }),
        }
    }

    /// A topic filter (SEC-09, SEC-10).
    pub(super) fn filter(&mut self) -> Result<Filter<'a>, WireError> {
        let text = self.utf8("topic filter")?;
        Filter::new(text).map_err(WireError::Filter)
    }

    /// A packet identifier, which is never 0 (SEC-06) [MQTT-2.2.1-3].
    #[inline]
    pub(super) fn packet_id(&mut self, packet: PacketType) -> Result<PacketId, WireError> {
        let number = self.two("packet identifier")?;
        PacketId::new(number).ok_or(WireError::PacketIdZero { packet })
    }

    #[inline]
    fn utf8(&mut self, field: &'static str) -> Result<&'a str, WireError> {
        let bytes = self.binary(field)?;
        utf8(bytes, field)
    }
}

/// Refuses surrogates and overlong forms too.
#[inline]
fn utf8<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Utf8 { field })
}
