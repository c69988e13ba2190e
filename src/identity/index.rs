//! The token index: from a digest to who it is, in memory.
//!
//! The key is the first 16 bytes of the digest: 128 bits that nobody can aim at without the
//! registry key, so the rest is not kept here (the database has all 32). A million tokens take
//! 99 MB at the worst point of the table's growth, their ends included; what few tokens have
//! stands beside it ([`super::terms::TermsTable`]).
//!
//! # Invariant
//! A credential is current as long as the entry that it was found by names it: what ends is taken
//! out here, whoever holds a [`super::Principal`] of it.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use dashmap::{DashMap, DashSet};
use uuid::Uuid;

use super::key::{self, Digest};

/// What authentication needs about a live credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenEntry {
    pub(super) identity: Uuid,
    pub(super) credential: u64,
    pub(super) generation: u32,
    /// The kind's number in the database.
    pub(super) kind: u8,
    /// When it ends by itself, whole seconds since the epoch; 0 is never. Users' tokens have it
    /// elsewhere.
    pub(super) expires_s: u32,
    /// More holds for it, which stands in the table of terms.
    pub(super) has_terms: bool,
    /// It is of MQTT Basic, and may ask for a password ([`super::basic::Basics`]).
    pub(super) is_basic: bool,
    /// Something is to be done when it is used: it ends others, or another took its place.
    pub(super) is_watched: bool,
}

/// [`TokenEntry`] without padding.
#[derive(Clone, Copy)]
struct PackedEntry {
    identity: [u8; 16],
    credential: [u8; CREDENTIAL_BYTES],
    generation: [u8; 4],
    expires_s: [u8; 4],
    kind: u8,
}

/// Bytes of a credential's number: a million millions of them, 300 years at a hundred a second.
const CREDENTIAL_BYTES: usize = 5;

/// Beside the kind.
const HAS_TERMS: u8 = 0x80;

/// Beside the kind.
const IS_WATCHED: u8 = 0x40;

/// Beside the kind.
const IS_BASIC: u8 = 0x20;

/// What stands beside the kind.
const FLAGS: u8 = HAS_TERMS | IS_WATCHED | IS_BASIC;

// The figure above: table slots are at most 2.1 per entry, each with one byte of its own.
const _: () = assert!(size_of::<(DigestKey, PackedEntry)>() <= 46);

/// Live credentials, and which identities are gone.
pub(super) struct TokenIndex {
    tokens: DashMap<DigestKey, PackedEntry, BuildHasherDefault<IdentityHasher>>,
    /// Identities that were deleted since the process began, about 20 bytes each; emptied by a
    /// restart.
    deleted: DashSet<Uuid>,
}

impl TokenIndex {
    pub(super) fn with_capacity(tokens: usize) -> TokenIndex {
        TokenIndex {
            tokens: DashMap::with_capacity_and_hasher(tokens, BuildHasherDefault::default()),
            deleted: DashSet::new(),
        }
    }

    pub(super) fn find(&self, key: TokenKey) -> Option<TokenEntry> {
        // Copied out: the guard is a lock and must not outlive this line.
        let packed = *self.tokens.get(&key.0)?;
        Some(packed.unpacked())
    }

    /// Makes a credential known, or what holds for it now.
    pub(super) fn insert(&self, digest: &Digest, entry: TokenEntry) {
        let Some(packed) = PackedEntry::new(entry) else {
            let credential = entry.credential;
            return tracing::error!(credential, "the numbers of credentials are used up");
        };
        self.tokens.insert(DigestKey::new(digest), packed);
    }

    /// Forgets credentials that ended.
    pub(super) fn end<'d>(&self, digests: impl IntoIterator<Item = &'d Digest>) {
        for digest in digests {
            self.tokens.remove(&DigestKey::new(digest));
        }
    }

    /// Forgets an identity that was deleted; its credentials have ended.
    pub(super) fn delete(&self, identity: Uuid) {
        self.deleted.insert(identity);
    }

    /// Whether an identity was deleted since the process began.
    pub(super) fn is_deleted(&self, identity: Uuid) -> bool {
        self.deleted.contains(&identity)
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}

impl PackedEntry {
    /// `None` for a number that has no place.
    fn new(entry: TokenEntry) -> Option<PackedEntry> {
        let number = entry.credential.to_le_bytes();
        let (credential, beyond) = number.split_first_chunk()?;
        if beyond.iter().any(|byte| *byte != 0) {
            return None;
        }
        Some(PackedEntry {
            identity: entry.identity.into_bytes(),
            credential: *credential,
            generation: entry.generation.to_le_bytes(),
            expires_s: entry.expires_s.to_le_bytes(),
            kind: entry.kind
                | if entry.has_terms { HAS_TERMS } else { 0 }
                | if entry.is_watched { IS_WATCHED } else { 0 }
                | if entry.is_basic { IS_BASIC } else { 0 },
        })
    }

    fn unpacked(self) -> TokenEntry {
        let [a, b, c, d, e] = self.credential;
        TokenEntry {
            identity: Uuid::from_bytes(self.identity),
            credential: u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]),
            generation: u32::from_le_bytes(self.generation),
            kind: self.kind & !FLAGS,
            expires_s: u32::from_le_bytes(self.expires_s),
            has_terms: self.kind & HAS_TERMS != 0,
            is_basic: self.kind & IS_BASIC != 0,
            is_watched: self.kind & IS_WATCHED != 0,
        }
    }
}

/// Where a credential stands in the index. Holds nothing that a token could be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TokenKey(DigestKey);

impl TokenKey {
    pub(super) fn new(digest: &Digest) -> TokenKey {
        TokenKey(DigestKey::new(digest))
    }
}

/// The first half of a digest.
#[derive(Clone, Copy, Eq)]
struct DigestKey([u8; 16]);

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DigestKey(redacted)")
    }
}

impl DigestKey {
    fn new(digest: &Digest) -> DigestKey {
        let (first, _) = digest.split_first_chunk().expect("32 bytes hold 16");
        DigestKey(*first)
    }
}

impl PartialEq for DigestKey {
    fn eq(&self, other: &DigestKey) -> bool {
        key::equal(&self.0, &other.0)
    }
}

impl Hash for DigestKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (first, _) = self.0.split_first_chunk().expect("16 bytes hold 8");
        state.write_u64(u64::from_le_bytes(*first));
    }
}

/// Digests are as even as a hash can be: they are their own hash.
#[derive(Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used by `DigestKey`; correct for any other key all the same.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
