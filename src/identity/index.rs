//! The token index: from a digest to who it is, in memory.
//!
//! The key is the first 16 bytes of the digest: 128 bits that nobody can aim at without the
//! registry key, so the rest is not kept here (the database has all 32). A million tokens take
//! 95 MB at the worst point of the table's growth.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use dashmap::DashMap;
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
}

/// [`TokenEntry`] without padding.
#[derive(Clone, Copy)]
struct PackedEntry {
    identity: [u8; 16],
    credential: [u8; 8],
    generation: [u8; 4],
    kind: u8,
}

// The figure above: table slots are at most 2.1 per entry, each with one byte of its own.
const _: () = assert!(size_of::<(DigestKey, PackedEntry)>() <= 46);

/// Live credentials, and which identities have changed.
pub(super) struct TokenIndex {
    tokens: DashMap<DigestKey, PackedEntry, BuildHasherDefault<IdentityHasher>>,
    /// The generation of every identity whose generation has grown since the process began, `None`
    /// for deleted ones. An identity that is not here still has the generation it was loaded or
    /// made with. One entry (about 50 bytes) for each; emptied by a restart.
    moved: DashMap<Uuid, Option<u32>>,
}

impl TokenIndex {
    pub(super) fn with_capacity(tokens: usize) -> TokenIndex {
        TokenIndex {
            tokens: DashMap::with_capacity_and_hasher(tokens, BuildHasherDefault::default()),
            moved: DashMap::new(),
        }
    }

    pub(super) fn find(&self, digest: &Digest) -> Option<TokenEntry> {
        // Copied out: the guard is a lock and must not outlive this line.
        let packed = *self.tokens.get(&DigestKey::new(digest))?;
        Some(TokenEntry {
            identity: Uuid::from_bytes(packed.identity),
            credential: u64::from_le_bytes(packed.credential),
            generation: u32::from_le_bytes(packed.generation),
            kind: packed.kind,
        })
    }

    pub(super) fn insert(&self, digest: &Digest, entry: TokenEntry) {
        let packed = PackedEntry {
            identity: entry.identity.into_bytes(),
            credential: entry.credential.to_le_bytes(),
            generation: entry.generation.to_le_bytes(),
            kind: entry.kind,
        };
        self.tokens.insert(DigestKey::new(digest), packed);
    }

    /// Ends credentials. The generation moves first: whoever found a credential just before it
    /// went away is told by [`TokenIndex::is_current`].
    pub(super) fn end(&self, identity: Uuid, generation: Option<u32>, digests: &[Digest]) {
        self.moved.insert(identity, generation);
        for digest in digests {
            self.tokens.remove(&DigestKey::new(digest));
        }
    }

    /// Forgets a credential that expired: its time has refused it before.
    pub(super) fn remove(&self, digest: &Digest) {
        self.tokens.remove(&DigestKey::new(digest));
    }

    /// Gives an identity whose rights shrank a new generation: its live credentials go on with it,
    /// and whoever found one of them before is no longer current. `then` runs between the two.
    pub(super) fn renew(
        &self,
        identity: Uuid,
        generation: u32,
        then: impl FnOnce(),
        live: &[(Digest, TokenEntry)],
    ) {
        self.moved.insert(identity, Some(generation));
        then();
        for (digest, entry) in live {
            self.insert(digest, *entry);
        }
    }

    /// Whether an identity found in this process still has this generation.
    pub(super) fn is_current(&self, identity: Uuid, generation: u32) -> bool {
        self.moved
            .get(&identity)
            .is_none_or(|now| *now == Some(generation))
    }

    /// Whether an identity was deleted since the process began.
    pub(super) fn is_deleted(&self, identity: Uuid) -> bool {
        self.moved.get(&identity).is_some_and(|now| now.is_none())
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }
}

/// The first half of a digest.
#[derive(Clone, Copy, Eq)]
struct DigestKey([u8; 16]);

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
