//! What a generation consists of.

/// The samples of one record that have one time.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    pub(super) ts_ms: i64,
    /// From the generation's base on.
    pub(super) offset: u32,
    /// Place of its sender.
    pub(super) sender: u32,
    /// Its first sample; they end where those of the next entry begin.
    pub(super) begin: u32,
    /// The device's entry before this one; its own place if there is none.
    pub(super) previous: u32,
}

/// Who sent records.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub(super) credential: u64,
    pub(super) generation: u32,
    /// Number of the device.
    pub(super) device: u32,
}

/// What is known of a device.
#[derive(Clone, Copy)]
pub(super) struct Device {
    /// Place of its newest entry.
    pub(super) newest: u32,
    /// The sender of that.
    pub(super) sender: u32,
    /// How many entries it has.
    pub(super) entries: u32,
    /// How many samples.
    pub(super) samples: u32,
}

/// One sample, in 32-bit words so that nothing is left over between two.
#[derive(Clone, Copy, Default)]
pub(super) struct Slot {
    /// The number, or place and length of the text: the lower half and the upper one.
    bits: [u32; 2],
    /// Number of the key, and the kind in the lowest bits.
    key: u32,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Long,
    Double,
    Bool,
    Text,
    Json,
}

/// Bits of a kind beside the number of a key.
const KIND_BITS: u32 = 3;

/// Keys that can be told apart.
pub(super) const KEYS_MAX: usize = 1 << (u32::BITS - KIND_BITS);

impl Slot {
    #[inline]
    pub(super) fn new((kind, bits): (Kind, u64), key: u32) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "both halves are kept")]
        let bits = [bits as u32, (bits >> 32) as u32];
        Self {
            bits,
            key: key << KIND_BITS | kind as u32,
        }
    }

    #[inline]
    pub(super) fn bits(self) -> u64 {
        let [low, high] = self.bits;
        u64::from(high) << 32 | u64::from(low)
    }

    /// Number of the key.
    #[inline]
    pub(super) fn key(self) -> u32 {
        self.key >> KIND_BITS
    }

    #[inline]
    pub(super) fn kind(self) -> Kind {
        match self.key & ((1 << KIND_BITS) - 1) {
            0 => Kind::Long,
            1 => Kind::Double,
            2 => Kind::Bool,
            3 => Kind::Text,
            _ => Kind::Json,
        }
    }
}

#[inline]
pub(super) fn place(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
