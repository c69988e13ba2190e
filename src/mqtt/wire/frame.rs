//! The fixed header: where a packet ends, decided before its body is there.

use super::PacketType;
use super::error::WireError;
use super::reader;

/// One packet's place in a buffer, known from its fixed header alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Packet type and flags.
    pub first_byte: u8,
    /// Bytes of the fixed header, 2 to 5.
    pub header_len: usize,
    /// Bytes behind the fixed header, 0 to 268,435,455.
    pub remaining_len: usize,
}

impl Frame {
    /// Bytes of the whole packet.
    #[must_use]
    pub const fn total_len(&self) -> usize {
        // At most 5 + 268,435,455.
        self.header_len + self.remaining_len
    }

    /// The whole packet out of the buffer it was found in; `None` until all of it is there.
    #[must_use]
    pub fn packet<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(..self.total_len())
    }
}

/// Finds the packet at the start of `bytes` by its fixed header.
///
/// `None` means that the fixed header is not complete yet. `Some` comes as soon as it is, whether
/// or not the body is there: see [`Frame::packet`]. `packet_size_max` is in bytes and counts the
/// whole packet [MQTT-3.1.2-24].
///
/// # Errors
/// A type that is reserved, flags the type does not allow (SEC-06), a length of more than four
/// bytes or not in its shortest form (SEC-04), a packet over the limit (SEC-03).
///
/// The flags of PUBREL, SUBSCRIBE and UNSUBSCRIBE may hold DUP here, which MQTT 3.1 allows
/// (section 2.1 there); [`super::decode`] knows the version and refuses it elsewhere.
#[inline]
pub fn frame(bytes: &[u8], packet_size_max: u32) -> Result<Option<Frame>, WireError> {
    let Some((&first_byte, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    check_flags(first_byte)?;
    let Some((value, len)) = reader::variable_byte_integer(rest, "Remaining Length")? else {
        return Ok(None);
    };
    // A value has 28 bits, so neither conversion nor sum can fail or wrap.
    let size = value.saturating_add(1).saturating_add(len);
    if size > packet_size_max {
        return Err(WireError::PacketTooLarge {
            size,
            maximum: packet_size_max,
        });
    }
    Ok(Some(Frame {
        first_byte,
        header_len: 1 + len as usize,
        remaining_len: value as usize,
    }))
}

/// [`frame`] for the first packet of a connection: it must be a CONNECT with flags 0, which the
/// first byte decides (SEC-02) [MQTT-3.1.0-1].
///
/// # Errors
/// As [`frame`], and [`WireError::NotConnect`].
pub fn first_frame(bytes: &[u8], packet_size_max: u32) -> Result<Option<Frame>, WireError> {
    match bytes.first() {
        None => Ok(None),
        Some(0x10) => frame(bytes, packet_size_max),
        Some(&first_byte) => Err(WireError::NotConnect { first_byte }),
    }
}

/// Type and flags of the first byte (SEC-06, SEC-07).
#[inline]
fn check_flags(first_byte: u8) -> Result<(), WireError> {
    let packet = PacketType::from_first_byte(first_byte)?;
    let flags = first_byte & 0x0F;
    let allowed = match packet {
        // QoS 3 does not exist [MQTT-3.3.1-4]; DUP says nothing at QoS 0 [MQTT-3.3.1-2].
        PacketType::Publish => flags & 0b0110 != 0b0110 && flags & 0b1110 != 0b1000,
        // The upper bit is DUP, see above.
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => {
            flags & 0b0111 == 0b0010
        }
        _ => flags == 0,
    };
    if allowed {
        Ok(())
    } else {
        Err(WireError::HeaderFlags {
            packet,
            found: flags,
        })
    }
}
