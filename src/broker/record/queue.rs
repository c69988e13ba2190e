//! What became of messages in the queues of sessions: the bodies of `Assigned`, `Received` and
//! `Settled`. One record holds what one worker saw in one turn, of any number of sessions; its
//! header names no session.
//!
//! | kind | bytes of each entry | what |
//! |---|---|---|
//! | `Received`, `Settled` | 4 | session |
//! | | 8 | offset of the message |
//! | `Assigned` | 4 + 8 | the same |
//! | | 2 | packet id, not 0 |
//!
//! `Assigned` is written of QoS 2 messages alone, and is durable before the PUBLISH leaves: only
//! there a client would take the same message under another id for another message [MQTT-4.3.3-2].
//! `Received` is a PUBREC and durable before PUBREL leaves. `Settled` is the end: PUBACK, PUBCOMP,
//! expired, dropped. It waits for nothing: a message whose end is lost in a crash comes again,
//! with QoS 2 as a PUBREL.

use uuid::Uuid;

use super::bytes::{take_u16, take_u32, take_u64};
use crate::journal::{RECORD_BODY_BYTES_MAX, RecordHeader, RecordKind};
use crate::mqtt::wire::PacketId;

/// Bytes of an entry of `Received` and `Settled`.
pub const ENTRY_BYTES: usize = 12;

/// Bytes of an entry of `Assigned`.
pub const ASSIGNED_BYTES: usize = ENTRY_BYTES + 2;

/// Entries one record may have: beyond it a worker writes a further record.
pub const ENTRIES_MAX: usize = 16 * 1024;

const _: () = assert!(ENTRIES_MAX * ASSIGNED_BYTES <= RECORD_BODY_BYTES_MAX);

/// The header of such a record.
#[must_use]
pub fn header(kind: RecordKind, received_ms: u64) -> RecordHeader {
    RecordHeader {
        kind,
        qos: 0,
        profile_flags: 0,
        parser_version: 0,
        received_ms,
        device: Uuid::nil(),
        credential: 0,
        generation: 0,
        session: 0,
        packet_id: 0,
    }
}

/// Adds an entry of `Settled` or `Received`: the message at `offset` in the queue of `session`.
pub fn put(out: &mut Vec<u8>, session: u32, offset: u64) {
    out.extend_from_slice(&session.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
}

/// Adds an entry of `Assigned`.
pub fn put_assigned(out: &mut Vec<u8>, session: u32, offset: u64, packet_id: PacketId) {
    put(out, session, offset);
    out.extend_from_slice(&packet_id.get().to_le_bytes());
}

/// Reads the body of `Settled` or `Received`: session and offset of each entry.
#[must_use]
pub fn entries(body: &[u8]) -> Option<impl Iterator<Item = (u32, u64)> + '_> {
    let (entries, rest) = body.as_chunks::<ENTRY_BYTES>();
    rest.is_empty().then(|| {
        entries
            .iter()
            .filter_map(|entry| pair(&mut entry.as_slice()))
    })
}

/// Reads the body of `Assigned`: session, offset and packet id of each entry.
#[must_use]
pub fn assigned(body: &[u8]) -> Option<impl Iterator<Item = (u32, u64, PacketId)> + '_> {
    let (entries, rest) = body.as_chunks::<ASSIGNED_BYTES>();
    let read = |mut entry: &[u8]| {
        let (session, offset) = pair(&mut entry)?;
        Some((session, offset, PacketId::new(take_u16(&mut entry)?)?))
    };
    let is_whole = rest.is_empty() && entries.iter().all(|entry| read(entry).is_some());
    is_whole.then(|| entries.iter().filter_map(move |entry| read(entry)))
}

fn pair(entry: &mut &[u8]) -> Option<(u32, u64)> {
    Some((take_u32(entry)?, take_u64(entry)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).expect("not 0")
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (mut settled, mut given) = (Vec::new(), Vec::new());
        for n in 1..=3_u16 {
            put(&mut settled, u32::from(n), u64::MAX - u64::from(n));
            put_assigned(&mut given, u32::MAX, u64::from(n), id(n));
        }
        let read: Vec<_> = entries(&settled).expect("whole").collect();
        assert_eq!(
            read,
            [(1, u64::MAX - 1), (2, u64::MAX - 2), (3, u64::MAX - 3)]
        );
        let read: Vec<_> = assigned(&given).expect("whole").collect();
        assert_eq!(read, [1, 2, 3].map(|n| (u32::MAX, u64::from(n), id(n))));
    }

    #[test]
    fn a_cut_or_padded_body_is_none() {
        let (mut settled, mut given) = (Vec::new(), Vec::new());
        put(&mut settled, 1, 2);
        put_assigned(&mut given, 1, 2, id(3));
        for cut in 1..settled.len() {
            assert!(entries(&settled[..cut]).is_none(), "cut at {cut}");
        }
        for cut in 1..given.len() {
            assert!(assigned(&given[..cut]).is_none(), "cut at {cut}");
        }
        settled.push(0);
        assert!(entries(&settled).is_none());
        given[ENTRY_BYTES..].fill(0);
        assert!(assigned(&given).is_none(), "no packet has the id 0");
    }
}
