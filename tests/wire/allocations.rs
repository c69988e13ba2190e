//! Reading a packet and writing an acknowledgement allocate nothing.

#![expect(
    unsafe_code,
    reason = "an allocator that counts cannot be written without"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tollgate::mqtt::wire::{
    AckKind, Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode, Sender,
    SubscriptionIds, UserProperties, Version, decode, frame, write_ack,
};

/// Counts what the current thread allocates; other tests run beside this one.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator as it came; counting touches a
// thread-local without a destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps `GlobalAlloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn reading_a_publish_allocates_nothing() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let publish = publish(version);
        let mut bytes = Vec::new();
        publish.encode(version, &mut bytes).expect("writable");
        let (allocations, read) = counted(|| {
            let frame = frame(&bytes, 262_144).ok()??;
            decode(version, Sender::Server, frame.packet(&bytes)?).ok()
        });
        assert_eq!(read, Some(Packet::Publish(publish)));
        assert_eq!(allocations, 0, "{version:?}");
    }
}

#[test]
fn refusing_a_publish_allocates_nothing() {
    let bytes = super::hex::bytes("300b00017406080003612f2378");
    let (allocations, read) = counted(|| decode(Version::V5, Sender::Client, &bytes));
    assert!(read.is_err());
    assert_eq!(allocations, 0);
}

#[test]
fn writing_into_a_buffer_with_room_allocates_nothing() {
    let mut out = Vec::with_capacity(1_024);
    let id = PacketId::new(7).expect("not 0");
    let publish = publish(Version::V5);
    let (allocations, written) = counted(|| {
        write_ack(
            &mut out,
            AckKind::PubAck,
            Version::V5,
            id,
            ReasonCode::Success,
        );
        write_ack(
            &mut out,
            AckKind::PubRec,
            Version::V5,
            id,
            ReasonCode::QuotaExceeded,
        );
        publish.encode(Version::V5, &mut out)
    });
    assert_eq!(written, Ok(()));
    assert_eq!(allocations, 0);
}

#[test]
fn the_counter_counts() {
    let (allocations, list) = counted(|| vec![1_u8; 100]);
    assert_eq!((allocations, list.len()), (1, 100));
}

fn publish(version: Version) -> Publish<'static> {
    let properties = PublishProperties {
        payload_format_is_utf8: Some(true),
        message_expiry_s: Some(60),
        topic_alias: Some(1),
        response_topic: Some("answers/é"),
        correlation_data: Some(b"17"),
        subscription_ids: SubscriptionIds::new(&[1, 2, 268_435_455]),
        content_type: Some("application/json"),
        user_properties: UserProperties::new(&[("unit", "celsius"), ("unit", "kelvin")]),
    };
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "v1/devices/me/telemetry",
        packet_id: PacketId::new(7),
        properties: if version == Version::V5 {
            properties
        } else {
            Default::default()
        },
        payload: br#"{"temperature":21.5}"#,
    }
}

fn counted<T>(run: impl FnOnce() -> T) -> (u64, T) {
    let before = ALLOCATIONS.with(Cell::get);
    let result = run();
    (ALLOCATIONS.with(Cell::get) - before, result)
}
