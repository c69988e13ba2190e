//! The token index: from a digest to who it is, in memory.
//!
//! The key is the first 16 bytes of the digest: 128 bits that nobody can aim at without the
//! registry key, so the rest is not kept here (the database has all 32). A million tokens take
//! 50 to 70 MB, their ends included ([`table`]); what few tokens have stands beside it
//! ([`super::terms::TermsTable`]).
//!
//! The index has [`PARTS`] parts, each with a lock of its own: a change of one, and its growth,
//! holds up only those who look there.
//!
//! # Invariant
//! A credential is current as long as the entry that it was found by names it: what ends is taken
//! out here, whoever holds a [`super::Principal`] of it.

mod table;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dashmap::DashSet;
use uuid::Uuid;

use super::key::Digest;
use table::{DigestKey, Table};

/// Parts of the index: a thousand tokens in each of a million, so that one grows in 0.1 ms.
const PARTS: usize = 1 << PART_BITS;

/// Bits at the front of a digest that choose its part.
const PART_BITS: u32 = 10;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedEntry {
    identity: [u8; 16],
    credential: [u8; CREDENTIAL_BYTES],
    generation: [u8; 4],
    expires_s: [u8; 4],
    /// The kind and the flags; 0 where nothing stands.
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

/// Beside the kind, of every entry.
const IS_TAKEN: u8 = 0x10;

/// What the flags leave for the kind.
const KIND_MAX: u8 = IS_TAKEN - 1;

/// Live credentials, and which identities are gone.
pub(super) struct TokenIndex {
    parts: Box<[Part]>,
    /// Identities that were deleted since the process began, about 20 bytes each; emptied by a
    /// restart.
    deleted: DashSet<Uuid>,
}

/// In a cache line of its own, so that who reads one part does not slow down another.
#[repr(align(64))]
struct Part {
    // A leaf lock, held for one search or change.
    table: RwLock<Table>,
}

impl TokenIndex {
    pub(super) fn with_capacity(tokens: usize) -> TokenIndex {
        let part = |_| Part {
            table: RwLock::new(Table::with_capacity(tokens / PARTS, PART_BITS)),
        };
        TokenIndex {
            parts: (0..PARTS).map(part).collect(),
            deleted: DashSet::new(),
        }
    }

    pub(super) fn find(&self, key: TokenKey) -> Option<TokenEntry> {
        // Copied out: the guard is a lock and must not outlive this line.
        let packed = *self.part(&key.0).read().get(&key.0)?;
        Some(packed.unpacked())
    }

    /// Makes a credential known, or what holds for it now.
    pub(super) fn insert(&self, digest: &Digest, entry: TokenEntry) {
        let Some(packed) = PackedEntry::new(entry) else {
            let credential = entry.credential;
            return tracing::error!(credential, "the numbers of credentials are used up");
        };
        let key = DigestKey::new(digest);
        self.part(&key).write().insert(key, packed);
    }

    /// Forgets credentials that ended.
    pub(super) fn end<'d>(&self, digests: impl IntoIterator<Item = &'d Digest>) {
        for digest in digests {
            let key = DigestKey::new(digest);
            self.part(&key).write().remove(&key);
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
        self.parts.iter().map(|part| part.read().len()).sum()
    }

    fn part(&self, key: &DigestKey) -> &Part {
        let number = key.first() >> (u64::BITS - PART_BITS);
        let part = usize::try_from(number).ok();
        let part = part.and_then(|number| self.parts.get(number));
        part.expect("there is a part for all that so many bits can say")
    }
}

impl Part {
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PackedEntry {
    /// No token.
    const FREE: PackedEntry = PackedEntry {
        identity: [0; 16],
        credential: [0; CREDENTIAL_BYTES],
        generation: [0; 4],
        expires_s: [0; 4],
        kind: 0,
    };

    /// `None` for a number or a kind that has no place.
    fn new(entry: TokenEntry) -> Option<PackedEntry> {
        let number = entry.credential.to_le_bytes();
        let (credential, beyond) = number.split_first_chunk()?;
        if beyond.iter().any(|byte| *byte != 0) || entry.kind > KIND_MAX {
            return None;
        }
        Some(PackedEntry {
            identity: entry.identity.into_bytes(),
            credential: *credential,
            generation: entry.generation.to_le_bytes(),
            expires_s: entry.expires_s.to_le_bytes(),
            kind: entry.kind
                | IS_TAKEN
                | if entry.has_terms { HAS_TERMS } else { 0 }
                | if entry.is_watched { IS_WATCHED } else { 0 }
                | if entry.is_basic { IS_BASIC } else { 0 },
        })
    }

    fn is_taken(&self) -> bool {
        self.kind & IS_TAKEN != 0
    }

    fn unpacked(self) -> TokenEntry {
        let [a, b, c, d, e] = self.credential;
        TokenEntry {
            identity: Uuid::from_bytes(self.identity),
            credential: u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]),
            generation: u32::from_le_bytes(self.generation),
            kind: self.kind & KIND_MAX,
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
