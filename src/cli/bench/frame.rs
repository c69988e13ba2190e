//! Cutting a stream into packets, and no more: the peer is trusted to speak MQTT.

/// A packet: its first byte, what follows the length, and the bytes behind it.
pub(super) struct Frame<'a> {
    pub(super) first: u8,
    pub(super) body: &'a [u8],
    pub(super) rest: &'a [u8],
}

/// The first packet of `bytes`; `None` when it is not complete. A length of more than four bytes
/// is never complete: the connection then stalls and shows in the report.
pub(super) fn split(bytes: &[u8]) -> Option<Frame<'_>> {
    let (&first, mut rest) = bytes.split_first()?;
    let (mut length, mut shift) = (0_usize, 0_u32);
    loop {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
        if shift > 21 {
            return None;
        }
    }
    let (body, rest) = rest.split_at_checked(length)?;
    Some(Frame { first, body, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_cut_where_they_end() {
        let frame = split(&[0x40, 2, 0, 7, 0xd0, 0]).unwrap();
        assert_eq!(
            (frame.first, frame.body, frame.rest),
            (0x40, &[0, 7][..], &[0xd0, 0][..])
        );
        let mut long = vec![0x30, 0x80, 0x01];
        long.extend([b'x'; 128]);
        assert_eq!(split(&long).unwrap().body.len(), 128);
    }

    #[test]
    fn a_part_of_a_packet_is_no_packet() {
        for part in [&[][..], &[0x40], &[0x40, 2, 0], &[0x30, 0x80]] {
            assert!(split(part).is_none(), "{part:?}");
        }
        assert!(split(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01, 0]).is_none());
    }
}
