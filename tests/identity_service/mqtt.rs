//! Tokens in the broker: how they are shown, what they allow, and how they end.

use crate::common::{
    client::Client,
    packets::{Connect, VERSIONS, Version},
};
use crate::site::{ISSUE, REVOKE, Site, operation, with_token};

/// What a refused token gets: 3.1 and 3.1.1 know no other word.
fn refused(version: Version) -> u8 {
    match version {
        Version::V5 => 0x86,
        Version::V31 | Version::V311 => 0x04,
    }
}

#[test]
fn id_42_sec_22_a_token_opens_the_door_as_the_password() {
    let site = Site::start();
    let (user, other) = (site.create(), site.create());
    let token = site.issue(&user, &["chat"]);
    for version in VERSIONS {
        let connack = |user: Option<&str>, token: &str| site.connack(version, user, token);
        assert_eq!(connack(Some(&user), &token), 0, "{version:?}");
        assert_eq!(connack(Some(&other), &token), refused(version));
        assert_eq!(connack(Some("8:acs:"), &token), refused(version));
        assert_eq!(connack(Some(&user), ""), refused(version));
        assert_eq!(connack(Some(&user), "tgd_"), refused(version));
    }
    // MQTT 5 takes a password without a user name; everybody may leave the password out instead.
    assert_eq!(site.connack(Version::V5, None, &token), 0);
    assert_eq!(site.connack(Version::V5, Some(""), &token), 0);
    for version in VERSIONS {
        let client = Client::connect(&site.broker, &Connect::with_token(version, "c", &token));
        client.disconnect();
    }
    // A device's token is no user's, in either place.
    let device = site.broker.create_device("boiler");
    assert_eq!(site.connack(Version::V5, Some(&user), &device), 0x86);
}

#[test]
fn id_41_tampered_and_unsigned_tokens_are_refused() {
    let site = Site::start();
    let user = site.create();
    let token = site.issue(&user, &["chat"]);
    let parts: Vec<&str> = token.split('.').collect();
    let wider = site.issue(&user, &["chat", "voip"]);
    let wider: Vec<&str> = wider.split('.').collect();
    // {"alg":"none","typ":"JWT"}
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    for bad in [
        format!("{}.{}.{}", parts[0], wider[1], parts[2]),
        format!("{none}.{}.", parts[1]),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{token}="),
        format!("{token}\n"),
        token[..token.len() - 1].to_owned(),
        "eyJ..".to_owned(),
        "x".repeat(9_000),
    ] {
        assert_eq!(site.connack(Version::V5, Some(&user), &bad), 0x86, "{bad}");
        assert_eq!(
            site.connack(Version::V311, Some(&user), &bad),
            0x04,
            "{bad}"
        );
    }
    assert_eq!(site.connack(Version::V5, Some(&user), &token), 0);
}

#[test]
fn id_43_scopes_are_enforced_on_publish_subscribe_and_delivery() {
    let site = Site::start();
    let (host, guest) = (site.create(), site.create());
    let host_token = site.issue(&host, &["chat"]);
    let guest_token = site.issue(&guest, &["chat.join.limited"]);
    for version in [Version::V311, Version::V5] {
        let v5 = version == Version::V5;
        let mut speaker = site.connect(version, &host, &host_token);
        let mut listener = site.connect(version, &guest, &guest_token);
        let denied = if v5 { 0x87 } else { 0x80 };
        assert_eq!(listener.subscribe("chat/7/#", 1), 1);
        assert_eq!(listener.subscribe(&format!("user/{guest}/#"), 1), 1);
        for filter in [
            "#",
            "call/+/#",
            "chat/#",
            "+/7/#",
            &format!("user/{host}/#"),
        ] {
            assert_eq!(listener.subscribe(filter, 1), denied, "{filter}");
        }
        assert_eq!(speaker.publish(1, "chat/7/admin", b"made"), 0);
        assert_eq!(listener.take().text(), "made");
        // A 3.1.1 client is told nothing: its message is acknowledged and dropped.
        let refused = if v5 { 0x87 } else { 0 };
        for topic in ["chat/7/admin", "chat/7/members", "call/7/signal", "x"] {
            assert_eq!(listener.publish(1, topic, b"no"), refused, "{topic}");
        }
        assert_eq!(listener.publish(1, "chat/7/messages", b"yes"), 0);
        assert_eq!(
            listener.take().text(),
            "yes",
            "and nothing that was refused"
        );
        speaker.disconnect();
        listener.disconnect();
    }
}

#[test]
fn id_43_sec_38_rights_are_asked_again_when_a_session_resumes_with_another_token() {
    let site = Site::start();
    let (user, speaker) = (site.create(), site.create());
    let both = site.issue(&user, &["chat", "voip"]);
    let chat = site.issue(&user, &["chat"]);
    let mut speaker = site.connect(Version::V5, &speaker, &site.issue(&speaker, &["voip"]));
    let kept = |token| with_token(Version::V5, "kept", Some(&user), token).kept();
    let mut client = Client::connect(&site.broker, &kept(&both));
    assert_eq!(client.subscribe("call/1/#", 1), 1);
    client.disconnect();
    assert_eq!(speaker.publish(1, "call/1/signal", b"ring"), 0);
    // The token that comes next does not cover the subscription: the session does not go on.
    let narrow = Client::connect(&site.broker, &kept(&chat));
    assert!(!narrow.is_present());
    assert_eq!(speaker.publish(1, "call/1/signal", b"again"), 0);
}

#[test]
fn id_30_revoking_cuts_off_at_once_and_keeps_the_session() {
    let site = Site::start();
    let (user, watcher) = (site.create(), site.create());
    let old = site.issue(&user, &["chat"]);
    let watcher_token = site.issue(&watcher, &["chat"]);
    let mut watcher = site.connect(Version::V5, &watcher, &watcher_token);
    assert_eq!(watcher.subscribe("chat/+/#", 1), 1);
    let will = (1, false, "chat/1/messages", &b"will"[..]);
    for version in [Version::V311, Version::V5] {
        let token = site.issue(&user, &["chat"]);
        let connect = |token| {
            let connect = with_token(version, "kept", Some(&user), token).kept();
            Connect {
                will: Some(will),
                ..connect
            }
        };
        let mut client = Client::connect(&site.broker, &connect(&token));
        assert_eq!(client.subscribe("chat/2/#", 1), 1);
        site.revoke(&user);
        // The reply is the promise: nothing of the old token is good from here on.
        assert_eq!(site.connack(version, Some(&user), &token), refused(version));
        assert_eq!(site.connack(version, Some(&user), &old), refused(version));
        client.expect_end(&[0x87]);
        assert_eq!(watcher.publish(1, "chat/2/messages", b"waits"), 0);
        // Before it nothing came: the will was not published (SEC-35).
        assert_eq!(watcher.take().text(), "waits");
        // SEC-53: the state waits for a new token.
        let fresh = site.issue(&user, &["chat"]);
        let mut client = Client::connect(&site.broker, &connect(&fresh));
        assert!(client.is_present());
        assert_eq!(client.take().text(), "waits");
        client.disconnect();
    }
}

#[test]
fn id_31_id_32_a_token_issued_right_after_a_revocation_works() {
    let site = Site::start();
    let (user, other) = (site.create(), site.create());
    let others = site.issue(&other, &["chat"]);
    let mut bystander = site.connect(Version::V5, &other, &others);
    for _ in 0..5 {
        let old = site.issue(&user, &["chat"]);
        site.revoke(&user);
        let new = site.issue(&user, &["chat"]);
        assert_eq!(site.connack(Version::V5, Some(&user), &old), 0x86);
        assert_eq!(site.connack(Version::V5, Some(&user), &new), 0);
    }
    assert_eq!(site.connack(Version::V5, Some(&other), &others), 0);
    assert!(!bystander.has_message(), "it is still connected");
    // Repeating is harmless.
    site.revoke(&user);
    site.revoke(&user);
}

#[test]
fn id_33_id_34_deleting_removes_everything_for_good() {
    let mut site = Site::start();
    let (user, watcher) = (site.create(), site.create());
    let token = site.issue(&user, &["chat"]);
    let watcher_token = site.issue(&watcher, &["chat"]);
    let mut client = Client::connect(
        &site.broker,
        &Connect {
            will: Some((1, false, "chat/1/messages", b"will")),
            ..with_token(Version::V5, "kept", Some(&user), &token).kept()
        },
    );
    assert_eq!(client.subscribe("chat/2/#", 1), 1);
    assert_eq!(client.retain(1, "chat/3/messages", b"kept"), 0);
    site.delete(&user);
    client.expect_end(&[0x87]);
    let check = |site: &Site| {
        let mut watcher = site.connect(Version::V5, &watcher, &watcher_token);
        assert_eq!(watcher.subscribe("chat/+/#", 1), 1);
        // Neither the will nor the retained message comes before the marker.
        watcher.expect_only_own_marker(1, "chat/9/messages");
        watcher.disconnect();
        assert_eq!(site.connack(Version::V5, Some(&user), &token), 0x86);
        let issue = site.call("POST", &operation(&user, ISSUE), r#"{"scopes":["chat"]}"#);
        assert_eq!(issue.refusal(), "404 IdentityNotFound");
        let revoke = site.call("POST", &operation(&user, REVOKE), "");
        assert_eq!(revoke.refusal(), "404 IdentityNotFound");
        // A client that did not hear the first answer asks again.
        site.delete(&user);
    };
    check(&site);
    site.broker.restart();
    check(&site);
}

#[test]
fn id_35_what_was_answered_is_there_after_a_kill_right_behind_the_answer() {
    let mut site = Site::start();
    for round in 0..5 {
        let (user, gone) = (site.create(), site.create());
        let (old, of_gone) = (site.issue(&user, &["chat"]), site.issue(&gone, &["chat"]));
        site.revoke(&user);
        let new = site.issue(&user, &["chat"]);
        if round % 2 == 0 {
            site.delete(&gone);
        } else {
            site.revoke(&gone);
        }
        site.broker.kill9();
        site.broker.restart();
        assert_eq!(site.connack(Version::V5, Some(&user), &old), 0x86);
        assert_eq!(site.connack(Version::V5, Some(&gone), &of_gone), 0x86);
        assert_eq!(site.connack(Version::V5, Some(&user), &new), 0);
    }
}

#[test]
fn sec_28_client_ids_of_different_users_do_not_meet() {
    let site = Site::start();
    let (a, b) = (site.create(), site.create());
    let mut first = site.connect(Version::V5, &a, &site.issue(&a, &["chat"]));
    let second = site.connect(Version::V5, &b, &site.issue(&b, &["chat"]));
    assert!(!first.has_message(), "it was not taken over");
    second.disconnect();
}
