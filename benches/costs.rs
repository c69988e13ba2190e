//! What the steps of a message cost, each beside something to compare it with, and all of them
//! together through a real listener.
//!
//! `cargo bench` measures; `cargo test` runs each once, so that none of them rots. The figures of
//! one step say nothing about a broker under load: that is what `scripts/bench-peers` is for.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark ends at what it does not expect"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    hint::black_box,
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, mpsc},
    thread,
};

use bytes::BytesMut;
use divan::{Bencher, counter::ItemsCount};
use mqttbytes::v4;
use serde::de::IgnoredAny;
use tempfile::TempDir;
use tollgate::{
    identity::{Action, DeviceName, DeviceToken, IdentityKind, Permit, Registry, Scope, Secrets},
    journal::{Journal, JournalOptions, RealDisk, RecordHeader, RecordKind},
    mqtt::{
        topic::{Filter, FilterBuf, Topic},
        wire::{AckKind, PacketId, ReasonCode, Sender, Version, decode, frame, write_ack},
    },
    store::Store,
    telemetry::{ScanOptions, check},
};
use uuid::Uuid;

use common::broker::Broker;

/// 60 bytes, as in the tables of docs/performance.md.
const PAYLOAD: &str = r#"{"temperature":21.5,"humidity":40,"text":"abcdefghijklmnopq"}"#;
const TOPIC: &str = "v1/devices/me/telemetry";
/// Records of a commit: what a busy worker hands over in a turn.
const BATCH: usize = 100;
/// Messages in flight on the one connection of the whole way.
const WINDOW: usize = 32;
/// Largest packet of the default limits.
const PACKET_SIZE_MAX: u32 = 262_144;

fn main() {
    divan::main();
}

fn publish() -> BytesMut {
    let mut packet = v4::Publish::new(TOPIC, mqttbytes::QoS::AtLeastOnce, PAYLOAD);
    packet.pkid = 7;
    let mut out = BytesMut::new();
    packet.write(&mut out).unwrap();
    out
}

#[divan::bench]
fn wire_decode_publish(bencher: Bencher<'_, '_>) {
    let bytes = publish();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let found = frame(black_box(&bytes), PACKET_SIZE_MAX).unwrap().unwrap();
        let packet = found.packet(&bytes).unwrap();
        black_box(decode(Version::V311, Sender::Client, packet).is_ok())
    });
}

#[divan::bench]
fn wire_decode_publish_by_mqttbytes(bencher: Bencher<'_, '_>) {
    let bytes = publish();
    let mut stream = BytesMut::with_capacity(4096);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        stream.extend_from_slice(black_box(&bytes));
        let size_max = usize::try_from(PACKET_SIZE_MAX).unwrap();
        black_box(v4::read(&mut stream, size_max).is_ok())
    });
}

#[divan::bench]
fn wire_encode_puback(bencher: Bencher<'_, '_>) {
    let mut out = Vec::with_capacity(64);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        out.clear();
        encode_puback(&mut out);
        black_box(out.len())
    });
}

#[divan::bench]
fn wire_encode_puback_by_mqttbytes(bencher: Bencher<'_, '_>) {
    let mut out = BytesMut::with_capacity(64);
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        out.clear();
        v4::PubAck::new(black_box(7)).write(&mut out).unwrap();
        black_box(out.len())
    });
}

#[divan::bench]
fn topic_matches_filter(bencher: Bencher<'_, '_>) {
    let topic = Topic::new("v1/devices/0190c2a1/telemetry").unwrap();
    let filter = Filter::new("v1/devices/+/telemetry").unwrap();
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench_local(|| black_box(filter).matches(black_box(topic)));
}

#[divan::bench]
fn topic_matches_filter_by_mqttbytes(bencher: Bencher<'_, '_>) {
    let (topic, filter) = ("v1/devices/0190c2a1/telemetry", "v1/devices/+/telemetry");
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench_local(|| mqttbytes::matches(black_box(topic), black_box(filter)));
}

/// The gate at every publish and delivery, by the number of filters; the last one is the one.
#[divan::bench(args = [0, 1, 8, 64])]
fn permit_allows(bencher: Bencher<'_, '_>, filters: usize) {
    let (permit, topic) = permit(filters);
    let topic = Topic::new(&topic).unwrap();
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench_local(|| black_box(&permit).allows(Action::Publish, black_box(topic)));
}

/// The gate at SUBSCRIBE.
#[divan::bench(args = [1, 8, 64])]
fn permit_allows_filter(bencher: Bencher<'_, '_>, filters: usize) {
    let (permit, topic) = permit(filters);
    let wanted = Filter::new(&topic).unwrap();
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench_local(|| black_box(&permit).allows_filter(black_box(&wanted)));
}

/// What a CONNECT pays for a scope with this many placeholders: its permit is compiled.
#[divan::bench(args = [0, 1, 8])]
fn token_lookup_with_scope(bencher: Bencher<'_, '_>, filters: usize) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let secrets = Secrets::open(&dir.path().join("secrets"), true).unwrap();
    let registry = Registry::open(store, &secrets).unwrap();
    let patterns: Vec<String> = (0..filters)
        .map(|number| format!("site/{number}/%d/#"))
        .collect();
    let scope = Scope::new(IdentityKind::Device, &patterns, &[]).unwrap();
    let name = DeviceName::new("d").unwrap();
    let (_, token) = registry.create_scoped_device(&name, &scope, None).unwrap();
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench_local(|| registry.authenticate(black_box(token.expose())).is_some());
}

/// A permit of half names and half patterns, and a topic that only its last filter allows.
fn permit(filters: usize) -> (Permit, String) {
    let filter = |number: usize| match number % 2 {
        0 => format!("plant/hall {number}/line/+/state"),
        _ => format!("plant/hall {number}/line/7/state"),
    };
    let compiled = |_| {
        let all = (0..filters).map(filter);
        all.map(|text| FilterBuf::from(Filter::new(&text).unwrap()))
            .collect::<Vec<_>>()
    };
    let last = filters.saturating_sub(1);
    let topic = format!("plant/hall {last}/line/7/state");
    (Permit::filters(compiled(()), compiled(())), topic)
}

#[divan::bench]
fn json_check(bencher: Bencher<'_, '_>) {
    let options = ScanOptions::default();
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench_local(|| check(black_box(PAYLOAD.as_bytes()), options).is_ok());
}

/// Skips over the value and keeps nothing: no parser that checks can do less.
#[divan::bench]
fn json_check_by_serde_json(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(1_u32))
        .bench_local(|| serde_json::from_str::<IgnoredAny>(black_box(PAYLOAD)).is_ok());
}

/// The digest of a token and its place in the index: all that a CONNECT needs of the registry.
#[divan::bench(args = [true, false])]
fn token_digest_and_lookup(bencher: Bencher<'_, '_>, is_known: bool) {
    const DEVICES: usize = 500;
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("data")).unwrap();
    let secrets = Secrets::open(&dir.path().join("secrets"), true).unwrap();
    let registry = Registry::open(store, &secrets).unwrap();
    let tokens: Vec<String> = (0..DEVICES)
        .map(|number| format!("token-of-device-{number:06}"))
        .collect();
    // Several at once share a sync of the database.
    thread::scope(|scope| {
        for part in tokens.chunks(DEVICES / 10) {
            let registry = &registry;
            scope.spawn(move || {
                for token in part {
                    let name = DeviceName::new(token).unwrap();
                    let token = DeviceToken::chosen(token).unwrap();
                    registry.create_device(&name, Some(token)).unwrap();
                }
            });
        }
    });
    let mut turn = 0;
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        turn = (turn + 1) % DEVICES;
        let token = match is_known {
            true => tokens[turn].as_str(),
            false => "token-of-no-device",
        };
        let found = registry.authenticate(black_box(token));
        assert_eq!(found.is_some(), is_known);
    });
}

/// Encoding a record into a worker's batch, without writing it.
#[divan::bench]
fn journal_append(bencher: Bencher<'_, '_>) {
    let rig = Rig::new();
    let mut submitter = rig.journal.submitter(Arc::new(|| {}));
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| submitter.take_batch())
        .bench_local_values(|mut batch| {
            for _ in 0..BATCH {
                batch.push(&header(), PAYLOAD.as_bytes()).unwrap();
            }
            batch
        });
}

/// A batch from hand-over to durable: one write, one sync, one wake.
#[divan::bench(args = [1, BATCH])]
fn journal_append_and_sync(bencher: Bencher<'_, '_>, records: usize) {
    let rig = Rig::new();
    let (sender, woken) = mpsc::channel();
    let mut submitter = rig.journal.submitter(Arc::new(move || {
        let _ = sender.send(()); // the end of the benchmark
    }));
    bencher.counter(ItemsCount::new(records)).bench_local(|| {
        let mut batch = submitter.take_batch();
        for _ in 0..records {
            batch.push(&header(), PAYLOAD.as_bytes()).unwrap();
        }
        let last = submitter.submit(batch).unwrap();
        while submitter.durable() < last {
            woken.recv().unwrap();
        }
    });
}

/// A window of QoS 1 messages over one connection to a broker in its own process, until all are
/// on disk and acknowledged.
#[divan::bench]
fn window_of_32_through_a_listener(bencher: Bencher<'_, '_>) {
    let broker = Broker::start();
    let token = broker.create_device("bench");
    let mut socket = TcpStream::connect(("127.0.0.1", broker.mqtt_port())).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut connect = v4::Connect::new("bench");
    connect.set_login(token.as_str(), "");
    let mut bytes = BytesMut::new();
    connect.write(&mut bytes).unwrap();
    socket.write_all(&bytes).unwrap();
    let mut connack = [0; 4];
    socket.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);

    let window = publish().repeat(WINDOW);
    let mut acks = [0; 4 * WINDOW];
    bencher.counter(ItemsCount::new(WINDOW)).bench_local(|| {
        socket.write_all(&window).unwrap();
        socket.read_exact(&mut acks).unwrap();
        assert_eq!(acks[..4], [0x40, 2, 0, 7]);
    });
}

/// A journal in a directory of its own.
struct Rig {
    journal: Journal,
    _dir: TempDir,
}

impl Rig {
    fn new() -> Rig {
        let dir = TempDir::new().unwrap();
        let mut options = JournalOptions::new(dir.path().join("journal"));
        options.commit_interval = std::time::Duration::ZERO; // the cost, not the pacing
        let fails = Box::new(|error: &_| panic!("{error}"));
        let (journal, _) = Journal::open(Arc::new(RealDisk), options, fails).unwrap();
        Rig { journal, _dir: dir }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.journal.close();
    }
}

fn encode_puback(out: &mut Vec<u8>) {
    let id = PacketId::new(black_box(7)).unwrap();
    write_ack(out, AckKind::PubAck, Version::V311, id, ReasonCode::Success);
}

fn header() -> RecordHeader {
    RecordHeader {
        kind: RecordKind::Telemetry,
        qos: 1,
        profile_flags: 0,
        parser_version: 1,
        received_ms: 1_750_000_000_000,
        device: Uuid::from_u128(7),
        credential: 7,
        generation: 1,
        session: 0,
        packet_id: 0,
    }
}
