//! The two access keys that requests to the identity service are signed with (section 5 of its
//! specification).
//!
//! They are needed in plain for every signature, so they are not hashed: the state database holds
//! them sealed with AES-256-GCM, under a key that is derived from the registry key. The text is
//! shown once, when a key is made; making a new one ends the old one at once.

use std::fmt;
use std::hint::black_box;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hmac, rand};

use crate::identity::base64;
use crate::identity::key::RegistryKey;
use crate::store::users::AccessKeyRow;

/// Bytes of a key.
const KEY_BYTES: usize = 64;

/// Longest key that a connection string may bring, bytes.
const KEY_BYTES_MAX: usize = 1_024;

/// Which of the two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKeyName {
    /// The first one.
    Primary,
    /// The other one, in use while the first is replaced.
    Secondary,
}

impl AccessKeyName {
    /// Both.
    pub const ALL: [AccessKeyName; 2] = [AccessKeyName::Primary, AccessKeyName::Secondary];

    /// Its name in addresses and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AccessKeyName::Primary => "primary",
            AccessKeyName::Secondary => "secondary",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<AccessKeyName> {
        AccessKeyName::ALL
            .into_iter()
            .find(|name| name.as_str() == text)
    }

    pub(super) const fn number(self) -> u8 {
        self as u8
    }
}

/// What is shown of a key; holds no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessKeyInfo {
    /// Which.
    pub name: AccessKeyName,
    /// Counts the keys there ever were.
    pub version: u32,
    /// Wall clock, ms.
    pub created_ms: u64,
}

/// A key in plain, on its way to its owner or from a connection string. The text is overwritten
/// when it is dropped, as well as safe code can.
pub struct AccessKeyText(String);

impl AccessKeyText {
    /// The key of a connection string; `None` if it is not base 64, or empty or absurdly long.
    #[must_use]
    pub fn parse(text: &str) -> Option<AccessKeyText> {
        let bytes = base64::decode(text)?;
        (!bytes.is_empty() && bytes.len() <= KEY_BYTES_MAX).then(|| AccessKeyText(text.to_owned()))
    }

    /// The text. Whoever calls this shows it to its owner, once.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The signature of a text, in base 64.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let mut bytes = base64::decode(&self.0).unwrap_or_default();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        bytes.fill(0);
        base64::encode(hmac::sign(&key, text.as_bytes()).as_ref())
    }

    /// # Panics
    /// If the system gives no random numbers: then no key may be made.
    pub(super) fn generate() -> AccessKeyText {
        let mut bytes = [0; KEY_BYTES];
        rand::fill(&mut bytes).expect("without random numbers no key may be made");
        let text = AccessKeyText(base64::encode(&bytes));
        bytes.fill(0);
        text
    }
}

impl Drop for AccessKeyText {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        black_box(&bytes);
    }
}

impl fmt::Debug for AccessKeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessKeyText(redacted)")
    }
}

/// SHA-256 of a body, in base 64, as requests name it.
#[must_use]
pub fn content_hash(body: &[u8]) -> String {
    base64::encode(digest::digest(&digest::SHA256, body).as_ref())
}

/// A key in use.
#[derive(Clone)]
pub(super) struct AccessKey {
    info: AccessKeyInfo,
    key: hmac::Key,
}

/// Keys in use, at most one of each name.
#[derive(Default)]
pub(super) struct AccessKeys([Option<AccessKey>; 2]);

impl AccessKeys {
    /// Opens what the database holds. A key that was sealed with another registry key, one that
    /// was lost, is of no use to anybody: it is left out, and its signatures are refused.
    pub(super) fn open(rows: Vec<AccessKeyRow>, registry_key: &RegistryKey) -> AccessKeys {
        let mut keys = AccessKeys::default();
        for row in rows {
            let mut names = AccessKeyName::ALL.into_iter();
            let Some(name) = names.find(|name| name.number() == row.name) else {
                continue;
            };
            let info = AccessKeyInfo {
                name,
                version: row.version,
                created_ms: row.created_ms,
            };
            let Some(mut bytes) = opened(row.sealed, info, registry_key) else {
                tracing::warn!(
                    key = name.as_str(),
                    "this access key was sealed with another registry key, or is damaged: it is \
                     refused; make a new one with `tollgate identity key renew`"
                );
                continue;
            };
            keys.set(AccessKey::new(info, &bytes));
            bytes.fill(0);
        }
        keys
    }

    pub(super) fn set(&mut self, key: AccessKey) {
        if let Some(place) = self.0.get_mut(usize::from(key.info.name.number())) {
            *place = Some(key);
        }
    }

    /// The version of the key that made this signature of `text`. Both keys are asked, each in
    /// constant time.
    pub(super) fn version_of(&self, text: &str, signature: &[u8]) -> Option<u32> {
        let mut version = None;
        for key in self.0.iter().flatten() {
            if hmac::verify(&key.key, text.as_bytes(), signature).is_ok() {
                version = Some(key.info.version);
            }
        }
        version
    }

    pub(super) fn infos(&self) -> Vec<AccessKeyInfo> {
        self.0.iter().flatten().map(|key| key.info).collect()
    }
}

impl AccessKey {
    pub(super) fn new(info: AccessKeyInfo, bytes: &[u8]) -> AccessKey {
        AccessKey {
            info,
            key: hmac::Key::new(hmac::HMAC_SHA256, bytes),
        }
    }

    /// A new key from its text, with the row that keeps it.
    pub(super) fn sealed(
        text: &AccessKeyText,
        info: AccessKeyInfo,
        registry_key: &RegistryKey,
    ) -> (AccessKey, AccessKeyRow) {
        let mut bytes = base64::decode(text.expose()).unwrap_or_default();
        let key = AccessKey::new(info, &bytes);
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).expect("without random numbers no key may be made");
        let mut sealed = bytes.clone();
        bytes.fill(0);
        let aad = Aad::from(about(info));
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        sealing(registry_key)
            .seal_in_place_append_tag(nonce_used, aad, &mut sealed)
            .expect("64 bytes are no too long a text for the cipher");
        let row = AccessKeyRow {
            name: info.name.number(),
            version: info.version,
            created_ms: info.created_ms,
            sealed: [&nonce[..], &sealed].concat(),
        };
        (key, row)
    }
}

fn opened(mut sealed: Vec<u8>, info: AccessKeyInfo, registry_key: &RegistryKey) -> Option<Vec<u8>> {
    let (nonce, _) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let aad = Aad::from(about(info));
    let body = sealed.get_mut(NONCE_LEN..)?;
    let plain = sealing(registry_key).open_in_place(nonce, aad, body).ok()?;
    Some(plain.to_vec())
}

/// What a sealed key belongs to: it cannot be put in another's place.
fn about(info: AccessKeyInfo) -> [u8; 5] {
    let [a, b, c, d] = info.version.to_le_bytes();
    [info.name.number(), a, b, c, d]
}

fn sealing(registry_key: &RegistryKey) -> LessSafeKey {
    let mut bytes = registry_key.sealing_key();
    let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("32 bytes are a key for AES-256");
    bytes.fill(0);
    LessSafeKey::new(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AccessKeyText {
        AccessKeyText::parse("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap()
    }

    const INFO: AccessKeyInfo = AccessKeyInfo {
        name: AccessKeyName::Secondary,
        version: 7,
        created_ms: 1,
    };

    #[test]
    fn sec_51_a_key_is_sealed_and_opens_with_the_registry_key_alone() {
        let (ours, other) = (RegistryKey::new(&[1; 32]), RegistryKey::new(&[2; 32]));
        let (_, row) = AccessKey::sealed(&key(), INFO, &ours);
        let plain = b"0123456789abcdef0123456789abcdef";
        assert!(
            !row.sealed
                .windows(8)
                .any(|part| plain.windows(8).any(|p| p == part))
        );
        let keys = AccessKeys::open(vec![row.clone()], &ours);
        assert_eq!(keys.infos(), [INFO]);
        let signature = base64::decode(&key().sign("text")).unwrap();
        assert_eq!(keys.version_of("text", &signature), Some(7));
        assert_eq!(keys.version_of("texts", &signature), None);
        assert_eq!(AccessKeys::open(vec![row.clone()], &other).infos(), []);
        let moved = AccessKeyRow { name: 0, ..row };
        assert_eq!(AccessKeys::open(vec![moved], &ours).infos(), []);
    }

    #[test]
    fn a_generated_key_is_long_and_never_shown() {
        let text = AccessKeyText::generate();
        assert_eq!(base64::decode(text.expose()).unwrap().len(), KEY_BYTES);
        assert!(!format!("{text:?}").contains(text.expose()));
        for bad in ["", "x", "????"] {
            assert!(AccessKeyText::parse(bad).is_none(), "{bad}");
        }
    }

    /// Golden vector 1 of section 5.3, from the text to sign on.
    #[test]
    fn id_20_a_signature_is_that_of_the_reference() {
        let text = "POST\n/identities?api-version=2023-10-01\nSat, 21 Nov 2026 20:34:35 GMT;\
                    127.0.0.1:18081;47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(
            key().sign(text),
            "4MQsB33EsV7RJjHCjJMqchtju8xHjjLZGUqor5UoI18="
        );
    }
}
