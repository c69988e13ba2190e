//! What a revocation says it dropped is counted once.

use crate::common::{
    broker::Broker,
    packets::{Connect, TELEMETRY, Version, log_in, publish, pubrel},
};

/// Three QoS 2 messages, one of them released: two are unfinished. It does not matter whether
/// the session would have outlived its connection, and whether it is connected.
#[test]
fn sec_34_a_receipt_counts_unfinished_messages_once() {
    let broker = Broker::start();
    for (name, is_kept, is_live) in [
        ("kept and live", true, true),
        ("kept", true, false),
        ("live", false, true),
    ] {
        let token = broker.create_device(name);
        let connect = Connect {
            clean: !is_kept,
            ..Connect::with_token(Version::V311, "a", &token)
        };
        let mut wire = broker.wire();
        log_in(&mut wire, &connect);
        for id in [5, 6, 7] {
            wire.send(&publish(Version::V311, 2, id, TELEMETRY, br#"{"a":1}"#));
            assert_eq!(wire.packet()[0], 0x50);
        }
        wire.send(&pubrel(6));
        assert_eq!(wire.packet()[0], 0x70);
        if !is_live {
            wire.send(&[0xe0, 0]);
            wire.expect_close();
        }
        let receipt = broker.revoke(name)["receipt"].clone();
        assert_eq!(receipt["unfinished"], 2, "{name}: {receipt}");
        assert_eq!(receipt["queued"], 0, "{name}: {receipt}");
        assert_eq!(
            receipt["connections"],
            u64::from(is_live),
            "{name}: {receipt}"
        );
        assert_eq!(receipt["sessions"], 1, "{name}: {receipt}");
    }
}
