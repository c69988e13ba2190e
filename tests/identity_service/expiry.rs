//! Tokens that end by themselves: at CONNECT, in the live session, for what waits in their name.
//! The registry is asked for tokens of seconds, which the wire does not give.

use std::time::{Duration, Instant};

use tollgate::broker::feed::FeedLimits;
use tollgate::identity::{AccessKeyName, UserScopes, WantedToken};

use crate::common::{
    packets::{Connect, Version, log_in, publish, reason, subscribe},
    wire::{ANSWER_LIMIT, Wire},
};
use crate::parts::Parts;
use crate::site::with_token;

/// How long a short token lives, in seconds: whoever shows it is let in on a busy machine too.
const LIFE_S: u32 = 6;

/// Seconds are cut off when a token is issued, so that it may live one less.
const LEAST: Duration = Duration::from_secs(LIFE_S as u64 - 2);

/// A user with a token of so many seconds: id and token.
fn user(parts: &Parts, life_s: u32) -> (String, String) {
    let keys = parts.registry.access_keys();
    let version = keys.first().map_or_else(
        || {
            let made = parts.registry.renew_access_key(AccessKeyName::Primary);
            made.expect("a key").info.version
        },
        |key| key.version,
    );
    let scopes = UserScopes::named(["chat"]).expect("a scope");
    let wanted = WantedToken { scopes, life_s };
    let made = parts.registry.create_user(Some(wanted), version);
    let (user, token) = made.expect("a user");
    let token = token.expect("it was wanted").expose().to_owned();
    (parts.registry.user_id(user), token)
}

fn connected(parts: &Parts, connect: &Connect<'_>) -> Wire {
    let mut wire = Wire::connect(parts.address);
    log_in(&mut wire, connect);
    wire
}

/// The same over a WebSocket, with the token as its bearer.
fn by_bearer(parts: &Parts, version: Version, token: &str) -> Wire {
    let headers = [format!("Authorization: Bearer {token}")];
    let upgraded = Wire::connect(parts.web).upgrade("/mqtt", &headers);
    let mut wire = upgraded.unwrap_or_else(|answer| panic!("no WebSocket: {answer}"));
    log_in(&mut wire, &Connect::anonymous(version, "c"));
    wire
}

fn connack(parts: &Parts, connect: &Connect<'_>) -> u8 {
    let mut wire = Wire::connect(parts.address);
    wire.send(&connect.encode());
    wire.packet()[3]
}

/// Somebody who sees all that is said in chats.
fn watcher(parts: &Parts) -> Wire {
    let (id, token) = user(parts, 3600);
    let mut wire = connected(parts, &with_token(Version::V5, "w", Some(&id), &token));
    wire.send(&subscribe(Version::V5, 1, &[("chat/+/#", 0)]));
    assert_eq!(wire.packet()[0], 0x90);
    wire
}

/// Shows that nothing came before what this one says itself.
fn expect_only_own_words(wire: &mut Wire) {
    wire.send(&publish(Version::V5, 0, 0, "chat/9/messages", b"marker"));
    let message = wire.packet();
    assert!(message.ends_with(b"marker"), "{message:02x?}");
}

#[test]
fn id_44_sec_40_s_18_a_live_session_ends_with_its_token_and_its_will_is_not_published() {
    let parts = Parts::start(0, 2);
    let mut watcher = watcher(&parts);
    for version in [Version::V311, Version::V5] {
        let start = Instant::now();
        let (id, token) = user(&parts, LIFE_S);
        let connect = Connect {
            will: Some((0, false, "chat/1/messages", b"will")),
            ..with_token(version, "c", Some(&id), &token)
        };
        let mut wire = connected(&parts, &connect);
        if version == Version::V5 {
            let goodbye = wire.packet_within(ANSWER_LIMIT).expect("a DISCONNECT");
            assert_eq!((goodbye[0], reason(&goodbye)), (0xe0, 0x87));
        }
        wire.expect_close();
        assert!(start.elapsed() > LEAST, "too early");
        let refused = if version == Version::V5 { 0x86 } else { 4 };
        assert_eq!(connack(&parts, &connect), refused, "ID-41: expired");
        expect_only_own_words(&mut watcher);
    }
    parts.stop();
}

#[test]
fn id_42_id_44_sec_40_a_websocket_ends_with_its_bearer() {
    let parts = Parts::start(0, 2);
    for version in [Version::V311, Version::V5] {
        let start = Instant::now();
        let (_, token) = user(&parts, LIFE_S);
        let mut wire = by_bearer(&parts, version, &token);
        if version == Version::V5 {
            let goodbye = wire.packet_within(ANSWER_LIMIT).expect("a DISCONNECT");
            assert_eq!((goodbye[0], reason(&goodbye)), (0xe0, 0x87));
        }
        wire.expect_close();
        assert_eq!(wire.web().close, Some(1000));
        assert!(start.elapsed() > LEAST, "too early");
        let headers = [format!("Authorization: Bearer {token}")];
        let refused = Wire::connect(parts.web).upgrade("/mqtt", &headers).err();
        let refused = refused.expect("an expired token");
        assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    }
    parts.stop();
}

#[test]
fn id_44_the_cut_can_be_turned_off() {
    let limits = FeedLimits {
        keep_bytes: 1 << 30,
        pin_bytes_max: 1 << 30,
    };
    let parts = Parts::start_uncut(limits);
    let (id, token) = user(&parts, 1);
    let connect = with_token(Version::V5, "c", Some(&id), &token);
    // On a busy machine a second may be over before CONNECT is read.
    let mut wire = Wire::connect(parts.address);
    wire.send(&connect.encode());
    if wire.packet()[3] != 0 {
        return parts.stop();
    }
    while parts
        .registry
        .authenticate_user(&id, token.as_bytes())
        .is_some()
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    // A client that falls silent after that is cut off by the same sweep, which thereby has
    // looked at the other one too. There is one worker.
    let (id, token) = user(&parts, 3600);
    let silent = Connect {
        keep_alive_s: 1,
        ..with_token(Version::V5, "s", Some(&id), &token)
    };
    let mut silent = connected(&parts, &silent);
    let goodbye = silent.packet_within(ANSWER_LIMIT).expect("a DISCONNECT");
    assert_eq!(reason(&goodbye), 0x8d, "keep alive");
    wire.expect_alive();
    parts.stop();
}

#[test]
fn sec_37_a_delayed_will_of_an_expired_token_is_not_published() {
    let parts = Parts::start(0, 1);
    let mut watcher = watcher(&parts);
    let (short, long) = (user(&parts, LIFE_S), user(&parts, 3600));
    for (client_id, (id, token), will) in [
        ("a", &short, &b"of an expired token"[..]),
        ("b", &long, &b"marker"[..]),
    ] {
        let connect = Connect {
            will: Some((0, false, "chat/1/messages", will)),
            ..with_token(Version::V5, client_id, Some(id), token)
        };
        let connect = connect.kept().will_delay(LIFE_S + 2);
        drop(connected(&parts, &connect));
    }
    let message = watcher.packet_within(ANSWER_LIMIT).expect("a will");
    assert!(message.ends_with(b"marker"), "{message:02x?}");
    parts.stop();
}

#[test]
fn expired_tokens_are_cleared_away_by_later_ones() {
    let parts = Parts::start(0, 1);
    let expired: Vec<_> = (0..5).map(|_| user(&parts, 0)).collect();
    let totals = parts.registry.user_totals();
    // Each issue clears what was there before it.
    assert_eq!((totals.users, totals.tokens), (5, 1));
    for (id, token) in &expired {
        let connect = with_token(Version::V5, "c", Some(id), token);
        assert_eq!(connack(&parts, &connect), 0x86);
    }
    let (id, token) = user(&parts, 3600);
    assert_eq!(parts.registry.user_totals().tokens, 1);
    let connect = with_token(Version::V5, "c", Some(&id), &token);
    assert_eq!(connack(&parts, &connect), 0);
    parts.stop();
}
