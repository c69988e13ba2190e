//! Samples and their values, borrowed from a payload or owned.

use std::borrow::Cow;

use serde::Serialize;

/// What of a device's profile changes how its payloads are read. The default is what a device
/// without any setting gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Strings that read as a decimal number (`"25"`, `"2.5"`, `"-.5"`) become numbers (TB-22).
    pub cast_strings: bool,
    /// Longest string value in bytes of UTF-8 after escapes; a longer one makes the payload bad.
    /// `None`: only the payload's size bounds it. JSON values are not measured.
    pub string_bytes_max: Option<u32>,
}

impl ScanOptions {
    /// Bit of the profile flags in journal records: strings stay strings. Flags of 0 are the
    /// default options.
    pub const FLAG_KEEP_STRINGS: u8 = 0b0000_0001;

    /// The options under which a journal record with these flags was accepted, as far as they
    /// change its samples. The string limit is not among them: it is the gate's affair, and a
    /// record that was acknowledged must stay readable when a limit shrinks. Other bits belong to
    /// others and are ignored.
    pub fn from_profile_flags(flags: u8) -> Self {
        Self {
            cast_strings: flags & Self::FLAG_KEEP_STRINGS == 0,
            string_bytes_max: None,
        }
    }

    /// The bits of the profile flags that are ours.
    pub fn profile_flags(self) -> u8 {
        if self.cast_strings {
            0
        } else {
            Self::FLAG_KEEP_STRINGS
        }
    }
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            cast_strings: true,
            string_bytes_max: None,
        }
    }
}

/// One value of one key at one time, borrowed from the payload where it stands there as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// Name of the series within the device. May be empty; no length limit but the payload's.
    pub key: Cow<'a, str>,
    /// Milliseconds since the Unix epoch; may be negative. The server's time if the device gave
    /// none (TB-23).
    pub ts_ms: i64,
    /// The value.
    pub value: Value<'a>,
}

/// A value by the rules of TB-22.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// A whole number that fits 64 bits and was not written with a decimal point alone (`25.0`).
    Long(i64),
    /// Any other number; always finite.
    Double(f64),
    /// `true` or `false`.
    Bool(bool),
    /// A string; also a number that fits neither of the above, as it was written.
    Text(Cow<'a, str>),
    /// An object or array as compact strict JSON.
    Json(Cow<'a, str>),
}

impl Value<'_> {
    /// The same value without the borrow.
    pub fn into_owned(self) -> OwnedValue {
        match self {
            Self::Long(value) => OwnedValue::Long(value),
            Self::Double(value) => OwnedValue::Double(value),
            Self::Bool(value) => OwnedValue::Bool(value),
            Self::Text(value) => OwnedValue::Text(value.into_owned()),
            Self::Json(value) => OwnedValue::Json(value.into_owned()),
        }
    }
}

/// A [`Value`] that owns its text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
pub enum OwnedValue {
    /// See [`Value::Long`].
    Long(i64),
    /// See [`Value::Double`].
    Double(f64),
    /// See [`Value::Bool`].
    Bool(bool),
    /// See [`Value::Text`].
    Text(String),
    /// See [`Value::Json`].
    Json(String),
}

impl OwnedValue {
    /// The same value, borrowed.
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::Long(value) => Value::Long(*value),
            Self::Double(value) => Value::Double(*value),
            Self::Bool(value) => Value::Bool(*value),
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            Self::Json(text) => Value::Json(Cow::Borrowed(text)),
        }
    }

    /// Bytes of text the value holds beside its own size.
    pub fn text_len(&self) -> usize {
        match self {
            Self::Long(_) | Self::Double(_) | Self::Bool(_) => 0,
            Self::Text(text) | Self::Json(text) => text.len(),
        }
    }
}
