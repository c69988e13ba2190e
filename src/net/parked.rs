//! Packets that wait because the journal is behind (back-pressure, architecture section 3).

/// PUBLISH bytes one connection may park before it is read no further. One packet is always
/// taken, whatever its size.
pub(super) const PARKED_BYTES_MAX: usize = 64 * 1024;

/// Whole packets, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Parked {
    bytes: Vec<u8>,
    lengths: Vec<u32>,
}

impl Parked {
    /// True if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Takes a packet, unless `packets_max` or [`PARKED_BYTES_MAX`] is reached.
    pub(super) fn push(&mut self, packet: &[u8], packets_max: u16) -> bool {
        let is_full = self.lengths.len() >= usize::from(packets_max)
            || self.bytes.len() + packet.len() > PARKED_BYTES_MAX;
        if is_full && !self.is_empty() {
            return false;
        }
        let Ok(len) = u32::try_from(packet.len()) else {
            return false;
        };
        self.bytes.extend_from_slice(packet);
        self.lengths.push(len);
        true
    }

    /// The packets, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        self.lengths.iter().map(move |len| {
            let (packet, behind) = rest.split_at_checked(*len as usize).unwrap_or((rest, &[]));
            rest = behind;
            packet
        })
    }

    /// Drops the `count` oldest packets; memory goes with the last one.
    pub(super) fn drop_front(&mut self, count: usize) {
        if count >= self.lengths.len() {
            *self = Self::default();
            return;
        }
        let bytes: usize = self.lengths.drain(..count).map(|len| len as usize).sum();
        self.bytes.drain(..bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_back_in_order() {
        let mut parked = Parked::default();
        assert!(parked.push(b"one", 3) && parked.push(b"three", 3) && parked.push(b"2", 3));
        assert!(!parked.push(b"x", 3), "three packets are the limit");
        assert_eq!(
            parked.iter().collect::<Vec<_>>(),
            [&b"one"[..], b"three", b"2"]
        );
        parked.drop_front(2);
        assert_eq!(parked.iter().collect::<Vec<_>>(), [b"2"]);
        parked.drop_front(1);
        assert!(parked.is_empty());
    }

    #[test]
    fn one_packet_fits_whatever_its_size() {
        let mut parked = Parked::default();
        assert!(parked.push(&vec![0; PARKED_BYTES_MAX + 1], 100));
        assert!(!parked.push(b"x", 100));
    }
}
