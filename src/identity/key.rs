//! The registry key: what turns tokens into digests.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

/// Bytes of the key.
pub(super) const KEY_BYTES: usize = 32;

/// HMAC-SHA-256 of a token under the registry key.
pub(super) type Digest = [u8; 32];

/// Digested to recognise the key itself. Ends with a control character, which no token holds.
const CHECK_TEXT: &[u8] = b"tollgate registry key check 1\n";

/// Put before the admin token, for the same reason.
const ADMIN_LABEL: &[u8] = b"tollgate admin token\n";

/// Put before a user's token: it is never a device's, whatever its text.
const USER_LABEL: &[u8] = b"tollgate user token\n";

/// Put before a client id that opens the door by itself.
const CLIENT_ID_LABEL: &[u8] = b"tollgate mqtt client id\n";

/// Put before a client id and a user name that do so together.
const BOTH_LABEL: &[u8] = b"tollgate mqtt client id and user name\n";

/// Put before a password.
const PASSWORD_LABEL: &[u8] = b"tollgate mqtt password\n";

/// Put before the digest of names that ended, when they are given out again.
const RELEASED_LABEL: &[u8] = b"tollgate released names\n";

/// Digested for the key that seals access keys.
const SEALING_LABEL: &[u8] = b"tollgate sealing of access keys 1\n";

/// Holds the key's inner and outer hash states, computed once: a digest is one short HMAC.
#[derive(Clone)]
pub(super) struct RegistryKey(hmac::Key);

impl RegistryKey {
    pub(super) fn new(bytes: &[u8; KEY_BYTES]) -> RegistryKey {
        RegistryKey(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    pub(super) fn token_digest(&self, token: &str) -> Digest {
        self.digest(&[token.as_bytes()])
    }

    pub(super) fn admin_digest(&self, token: &str) -> Digest {
        self.digest(&[ADMIN_LABEL, token.as_bytes()])
    }

    pub(super) fn user_digest(&self, token: &str) -> Digest {
        self.digest(&[USER_LABEL, token.as_bytes()])
    }

    /// Of a client id that opens the door by itself.
    pub(super) fn client_id_digest(&self, client_id: &str) -> Digest {
        self.digest(&[CLIENT_ID_LABEL, client_id.as_bytes()])
    }

    /// Of a client id and a user name that open the door together. Neither holds a line feed.
    pub(super) fn both_digest(&self, client_id: &str, user_name: &str) -> Digest {
        let parts = [
            BOTH_LABEL,
            client_id.as_bytes(),
            b"\n",
            user_name.as_bytes(),
        ];
        self.digest(&parts)
    }

    /// What a credential that ended is remembered by, when its names are another's now.
    pub(super) fn released_digest(&self, names: &Digest, credential: u64) -> Digest {
        self.digest(&[RELEASED_LABEL, names, &credential.to_le_bytes()])
    }

    /// Of a password, for the credential that is found by this.
    pub(super) fn password_digest(&self, found_by: &Digest, password: &[u8]) -> Digest {
        self.digest(&[PASSWORD_LABEL, found_by, password])
    }

    /// The key that access keys are sealed with.
    pub(super) fn sealing_key(&self) -> [u8; 32] {
        self.digest(&[SEALING_LABEL])
    }

    /// A value that tells this key from any other and gives nothing of it away.
    pub(super) fn check_value(&self) -> Digest {
        self.digest(&[CHECK_TEXT])
    }

    fn digest(&self, parts: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut digest = Digest::default();
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }
}

impl fmt::Debug for RegistryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryKey(redacted)")
    }
}

/// Equality in constant time (SEC-52).
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}
