//! Tokens as text: `docs/token-format.md` is the format's own page, with a test vector.

use std::fmt;
use std::hint::black_box;

use aws_lc_rs::rand;
use serde::Serialize;

/// Bytes a token may have. Longer user names are refused before any work is done on them.
pub const TOKEN_BYTES_MAX: usize = 256;

const DEVICE_PREFIX: &str = "tgd_";
const ADMIN_PREFIX: &str = "tga_";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Random characters: 30 of 62 are 178 bits (SEC-50).
const BODY_CHARS: usize = 30;

/// 62^6 is more than 2^32.
const CHECKSUM_CHARS: usize = 6;

const PREFIX_CHARS: usize = 4;

const _: () = assert!(DEVICE_PREFIX.len() == PREFIX_CHARS && ADMIN_PREFIX.len() == PREFIX_CHARS);

/// A device's token in plain: lives from its making or its CONNECT to the end of one function.
/// The text is overwritten when it is dropped, as well as safe code can.
pub struct DeviceToken {
    text: SecretText,
    chosen: bool,
}

impl DeviceToken {
    /// A fresh one: `tgd_`, 30 random characters, 6 of checksum.
    ///
    /// # Panics
    /// If the system gives no random numbers: then no token may be made.
    #[must_use]
    pub fn generate() -> DeviceToken {
        DeviceToken {
            text: generate(DEVICE_PREFIX),
            chosen: false,
        }
    }

    /// One that a person or another system chose (imported fleets); may be weak (SEC-50).
    ///
    /// # Errors
    /// What no device could connect with, or would be a mistake: see [`TokenError`].
    pub fn chosen(text: &str) -> Result<DeviceToken, TokenError> {
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong { bytes: text.len() });
        }
        if text.chars().any(is_refused_in_user_names) {
            return Err(TokenError::Character);
        }
        match hint(text) {
            Some(TokenHint::Admin) => return Err(TokenError::Admin),
            Some(TokenHint::BadChecksum) => return Err(TokenError::BadChecksum),
            None => {}
        }
        // These user names take another way at CONNECT and would never be looked up.
        if text == "provision" || text.starts_with("8:acs:") {
            return Err(TokenError::Reserved);
        }
        Ok(DeviceToken {
            text: SecretText(text.to_owned()),
            chosen: true,
        })
    }

    /// One that comes with an imported device. One of our own form is as good as a generated one:
    /// only others count as chosen.
    ///
    /// # Errors
    /// As [`DeviceToken::chosen`].
    pub(super) fn imported(text: &str) -> Result<DeviceToken, TokenError> {
        let token = DeviceToken::chosen(text)?;
        let chosen = checksum_holds(text, DEVICE_PREFIX) != Some(true);
        Ok(DeviceToken { chosen, ..token })
    }

    /// The text. Whoever calls this shows it to its owner, once, or digests it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text.0
    }

    pub(super) fn is_chosen(&self) -> bool {
        self.chosen
    }
}

/// An administrator's token in plain.
pub struct AdminToken(SecretText);

impl AdminToken {
    /// A fresh one: `tga_`, 30 random characters, 6 of checksum.
    ///
    /// # Panics
    /// If the system gives no random numbers: then no token may be made.
    #[must_use]
    pub fn generate() -> AdminToken {
        AdminToken(generate(ADMIN_PREFIX))
    }

    /// Reads one; `None` if it is cut, mistyped or something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<AdminToken> {
        (checksum_holds(text, ADMIN_PREFIX) == Some(true))
            .then(|| AdminToken(SecretText(text.to_owned())))
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0.0
    }
}

impl fmt::Debug for DeviceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceToken(redacted)")
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(redacted)")
    }
}

/// Why a text cannot be a device's token. Written as the rest of a sentence that begins with
/// "token"; never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Nothing.
    #[error("is empty")]
    Empty,
    /// Over [`TOKEN_BYTES_MAX`].
    #[error("has {bytes} bytes, the limit is {TOKEN_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not allowed in MQTT user names here (SEC-08).
    #[error("has a control character or a code point that is no character")]
    Character,
    /// A CONNECT with this user name never reaches the token check.
    #[error("is a user name with a meaning of its own; choose another")]
    Reserved,
    /// A device must never carry an administrator's token.
    #[error("is an administrator's token (tga_), not a device's")]
    Admin,
    /// It has the form of ours, but was cut or mistyped.
    #[error("begins like a Tollgate token, but its checksum is wrong: mistyped or cut?")]
    BadChecksum,
}

/// What can be told about a token without knowing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenHint {
    /// It begins with `tgd_` and its length or checksum is wrong: mistyped or cut.
    BadChecksum,
    /// It begins with `tga_`: for the admin API, not for devices.
    Admin,
}

pub(super) fn hint(text: &str) -> Option<TokenHint> {
    if text.starts_with(ADMIN_PREFIX) {
        return Some(TokenHint::Admin);
    }
    match checksum_holds(text, DEVICE_PREFIX) {
        Some(false) => Some(TokenHint::BadChecksum),
        Some(true) | None => None,
    }
}

/// Overwritten when dropped. Best effort: copies that the allocator or the stack made are not.
struct SecretText(String);

impl Drop for SecretText {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        black_box(&bytes);
    }
}

fn is_refused_in_user_names(character: char) -> bool {
    let code = u32::from(character);
    character.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

fn generate(prefix: &str) -> SecretText {
    let mut text = String::with_capacity(PREFIX_CHARS + BODY_CHARS + CHECKSUM_CHARS);
    text.push_str(prefix);
    let mut bytes = [0; BODY_CHARS];
    while text.len() < PREFIX_CHARS + BODY_CHARS {
        rand::fill(&mut bytes).expect("without random numbers no token may be made");
        let missing = PREFIX_CHARS + BODY_CHARS - text.len();
        text.extend(
            bytes
                .iter()
                .filter_map(|byte| random_char(*byte))
                .take(missing),
        );
    }
    bytes.fill(0);
    let sum = checksum(&text);
    text.extend(sum);
    SecretText(text)
}

/// A character for a random byte, each as likely as any other: 248 = 4 x 62, the rest is thrown
/// away.
fn random_char(byte: u8) -> Option<char> {
    match byte {
        0..248 => ALPHABET
            .get(usize::from(byte) % ALPHABET.len())
            .map(|char| char::from(*char)),
        248.. => None,
    }
}

/// Whether the checksum is right; `None` if the text does not begin with `prefix`.
fn checksum_holds(text: &str, prefix: &str) -> Option<bool> {
    let rest = text.strip_prefix(prefix)?;
    let formed = rest.len() == BODY_CHARS + CHECKSUM_CHARS
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !formed {
        return Some(false);
    }
    let (covered, sum) = text.split_at(PREFIX_CHARS + BODY_CHARS);
    Some(sum.chars().eq(checksum(covered)))
}

/// CRC-32 (ISO-HDLC) in base 62, most significant digit first, zeros in front.
fn checksum(text: &str) -> [char; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = ['0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        let place = usize::try_from(rest % 62).expect("below 62");
        *digit = ALPHABET.get(place).copied().map_or('0', char::from);
        rest /= 62;
    }
    digits
}
