//! What can be wrong with a device's payload.

use thiserror::Error;

use super::json::DEPTH_MAX;

/// Why a payload is bad (TB-16). All of these are the device's mistake, and it is never our own
/// state that decides. Positions are bytes from the start of the payload; of the payload itself at
/// most one byte is told, as payloads are not to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// Nothing but blanks and comments.
    #[error("the payload is empty")]
    Empty,
    /// Not UTF-8 from this byte on.
    #[error("byte {position} is not UTF-8")]
    NotUtf8 {
        /// Byte from the start of the payload.
        position: usize,
    },
    /// Another byte than the grammar allows here.
    #[error("expected {expected} at byte {position}, found {}", Found(*found))]
    Unexpected {
        /// Byte from the start of the payload.
        position: usize,
        /// What would have been right.
        expected: &'static str,
        /// The byte that stands there; `None` is the end of the payload.
        found: Option<u8>,
    },
    /// A quoted string without its closing quote.
    #[error("the string that begins at byte {position} has no end")]
    UnterminatedString {
        /// Byte of the opening quote.
        position: usize,
    },
    /// A `/*` without its `*/`.
    #[error("the comment that begins at byte {position} has no end")]
    UnterminatedComment {
        /// Byte of the opening `/`.
        position: usize,
    },
    /// A backslash with something behind it that is no escape.
    #[error("the backslash at byte {position} begins no known escape")]
    BadEscape {
        /// Byte of the backslash.
        position: usize,
    },
    /// More arrays and objects in each other than allowed.
    #[error("more than {DEPTH_MAX} arrays and objects in each other at byte {position}")]
    TooDeep {
        /// Byte of the bracket that is one too many.
        position: usize,
    },
    /// Valid, but neither an object nor an array of objects.
    #[error("expected an object or an array of objects, found another value at byte {position}")]
    NotARecord {
        /// Byte at which the value begins.
        position: usize,
    },
    /// Something behind the end of the document.
    #[error("data behind the end of the document at byte {position}")]
    TrailingData {
        /// The first byte too many.
        position: usize,
    },
    /// A `ts` next to `values` that is not a number of milliseconds in 64 bits.
    #[error("`ts` at byte {position} is not a number of milliseconds")]
    BadTimestamp {
        /// Byte at which the value of `ts` begins.
        position: usize,
    },
    /// A `values` next to `ts` that is not an object.
    #[error("`values` at byte {position} is not an object")]
    ValuesNotAnObject {
        /// Byte at which the value of `values` begins.
        position: usize,
    },
    /// A string value longer than the profile allows.
    #[error("the string at byte {position} has {len} bytes, {limit} are allowed")]
    StringTooLong {
        /// Byte at which the string begins.
        position: usize,
        /// Its bytes after escapes are resolved.
        len: usize,
        /// The profile's limit in bytes.
        limit: u32,
    },
}

impl PayloadError {
    /// Byte from the start of the payload at which it went wrong; an empty payload fails at 0.
    pub fn position(&self) -> usize {
        match *self {
            Self::Empty => 0,
            Self::NotUtf8 { position }
            | Self::Unexpected { position, .. }
            | Self::UnterminatedString { position }
            | Self::UnterminatedComment { position }
            | Self::BadEscape { position }
            | Self::TooDeep { position }
            | Self::NotARecord { position }
            | Self::TrailingData { position }
            | Self::BadTimestamp { position }
            | Self::ValuesNotAnObject { position }
            | Self::StringTooLong { position, .. } => position,
        }
    }
}

/// One byte of a payload in words.
struct Found(Option<u8>);

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("the end"),
            Some(byte) if byte.is_ascii_graphic() => write!(f, "`{}`", char::from(byte)),
            Some(byte) => write!(f, "byte 0x{byte:02x}"),
        }
    }
}
