//! ID-42: a user's token as the bearer of the request, in place of the MQTT password.

use crate::common::{
    client::Client,
    packets::{Connect, VERSIONS, Version},
    web::SERVED,
    wire::Wire,
};
use crate::site::{Site, with_token};

/// CONNACK to a bad token: MQTT 5, and what came before it.
fn refused(version: Version) -> u8 {
    match version {
        Version::V5 => 0x86,
        Version::V31 | Version::V311 => 0x04,
    }
}

fn site(more: &[(&str, &str)]) -> Site {
    Site::start_with(&[&SERVED[..], more].concat())
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn asked(site: &Site, listener: &str, target: &str, headers: &[String]) -> Result<Wire, String> {
    let wire = match listener {
        "wss" => Wire::connect_tls(site.broker.address("wss"), &site.broker.ca_file()),
        _ => Wire::connect(site.broker.address("ws")),
    };
    wire.upgrade(target, headers)
}

/// The code of CONNACK behind an upgrade with this bearer.
fn connack(site: &Site, token: &str, connect: &Connect<'_>) -> u8 {
    let wire = asked(site, "ws", "/mqtt", &[bearer(token)]);
    let mut wire = wire.unwrap_or_else(|answer| panic!("no WebSocket: {answer}"));
    wire.send(&connect.encode());
    wire.packet()[3]
}

/// A CONNECT that shows this.
fn shows<'a>(version: Version, user: Option<&'a str>, password: Option<&'a [u8]>) -> Connect<'a> {
    Connect {
        user_name: user,
        password,
        ..Connect::anonymous(version, "c")
    }
}

#[test]
fn id_42_a_good_bearer_stands_for_the_password() {
    let site = site(&[]);
    let user = site.create();
    let token = site.issue(&user, &["chat"]);
    for version in VERSIONS {
        for name in [None, Some(""), Some(user.as_str())] {
            for password in [None, Some(&b""[..]), Some(token.as_bytes())] {
                if name.is_none() && password.is_some() && version != Version::V5 {
                    continue; // 3.1.1 has no password without a user name
                }
                let connect = shows(version, name, password);
                assert_eq!(connack(&site, &token, &connect), 0, "{version:?} {name:?}");
            }
        }
        // Its rights are the token's.
        let wire = asked(&site, "wss", "/mqtt", &[bearer(&token)]).expect("a good bearer");
        let mut client = Client::over(wire, &Connect::anonymous(version, "c"));
        assert_eq!(client.subscribe("chat/1/#", 1), 1);
        assert_ne!(client.subscribe("call/1/#", 1), 1);
        client.disconnect();
    }
}

/// Some clients show the token as the user name whatever they do: the same one twice is no second
/// identity. Any other one is.
#[test]
fn id_42_sec_22_the_bearer_may_be_the_user_name_too_and_no_other_token() {
    let site = site(&[]);
    let (user, other) = (site.create(), site.create());
    let (token, second) = (site.issue(&user, &["chat"]), site.issue(&user, &["voip"]));
    let others = site.issue(&other, &["chat"]);
    for version in VERSIONS {
        for password in [None, Some(&b""[..])] {
            let show = |name| shows(version, Some(name), password);
            assert_eq!(connack(&site, &token, &show(&token)), 0, "{version:?}");
            let longer = format!("{token}x");
            for name in [&second, &others, &longer] {
                let code = connack(&site, &token, &show(name));
                assert_ne!(code, 0, "{version:?} {name:?}");
            }
        }
        // With a password it is a user name like any other.
        for password in [&token, &others] {
            let connect = shows(version, Some(&token), Some(password.as_bytes()));
            assert_ne!(connack(&site, &token, &connect), 0, "{version:?}");
        }
        // Its rights are the token's.
        let wire = asked(&site, "wss", "/mqtt", &[bearer(&token)]).expect("a good bearer");
        let mut client = Client::over(wire, &shows(version, Some(&token), None));
        assert_eq!(client.subscribe("chat/1/#", 1), 1);
        assert_ne!(client.subscribe("call/1/#", 1), 1);
        client.disconnect();
    }
    // A token that ends between the request and CONNECT opens nothing.
    let wire = asked(&site, "ws", "/mqtt", &[bearer(&token)]);
    let mut wire = wire.expect("a good bearer");
    site.revoke(&user);
    wire.send(&shows(Version::V5, Some(&token), None).encode());
    assert_eq!(wire.packet()[3], refused(Version::V5));
}

#[test]
fn id_42_a_bad_bearer_is_refused_before_the_upgrade() {
    let site = site(&[]);
    let user = site.create();
    let (good, revoked) = (site.issue(&user, &["chat"]), site.issue(&user, &["voip"]));
    site.revoke(&user);
    let after = site.issue(&user, &["chat"]);
    let device = site.broker.create_device("boiler");
    let tampered = format!("{}x", &after[..after.len() - 1]);
    for bad in [
        &good,
        &revoked,
        &device,
        &tampered,
        "x",
        "eyJ.a.b",
        &"x".repeat(7_000),
    ] {
        for listener in ["ws", "wss"] {
            let Err(answer) = asked(&site, listener, "/mqtt", &[bearer(bad)]) else {
                panic!("taken: {bad}");
            };
            assert!(
                answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"),
                "{answer}"
            );
            assert!(
                answer.contains("\r\nWWW-Authenticate: Bearer\r\n"),
                "{answer}"
            );
            assert!(bad.len() < 10 || !answer.contains(bad), "{answer}");
        }
    }
    for odd in [
        "Authorization: Basic YTpi",
        "Authorization: Bearer",
        "Authorization:",
    ] {
        let answer = asked(&site, "ws", "/mqtt", &[odd.to_owned()]).err();
        let answer = answer.unwrap_or_else(|| panic!("taken: {odd}"));
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    let reason = r#"tollgate_connects_refused_total{reason="bad_credential"}"#;
    assert_eq!(site.broker.metric(reason), 14.0);
    assert_eq!(site.broker.metric("tollgate_connections"), 0.0);
    assert!(asked(&site, "ws", "/mqtt", &[bearer(&after)]).is_ok());
}

#[test]
fn id_42_sec_22_two_identities_in_one_connection_are_refused() {
    let site = site(&[]);
    let (user, other) = (site.create(), site.create());
    let (token, second) = (site.issue(&user, &["chat"]), site.issue(&user, &["voip"]));
    let others = site.issue(&other, &["chat"]);
    let device = site.broker.create_device("boiler");
    for version in VERSIONS {
        for (name, password) in [
            (Some(other.as_str()), None),
            (Some(other.as_str()), Some(others.as_bytes())),
            (Some(""), Some(others.as_bytes())),
            (Some(user.as_str()), Some(others.as_bytes())),
            (Some(device.as_str()), None),
            (Some(device.as_str()), Some(token.as_bytes())),
            (Some(user.as_str()), Some(&b"wrong"[..])),
        ] {
            let connect = shows(version, name, password);
            assert_eq!(
                connack(&site, &token, &connect),
                refused(version),
                "{name:?}"
            );
        }
        // Another token of the same user is its own password, with its own rights.
        let wire = asked(&site, "ws", "/mqtt", &[bearer(&token)]).expect("a good bearer");
        let connect = shows(version, Some(&user), Some(second.as_bytes()));
        let mut client = Client::over(wire, &connect);
        assert_eq!(client.subscribe("call/1/#", 1), 1);
        assert_ne!(client.subscribe("chat/1/#", 1), 1);
        client.disconnect();
    }
}

#[test]
fn id_42_sec_22_a_token_in_the_query_is_taken_only_where_that_is_on() {
    let off = site(&[]);
    let user = off.create();
    let token = off.issue(&user, &["chat"]);
    let target = format!("/mqtt?access_token={token}");
    let Err(answer) = asked(&off, "ws", &target, &[]) else {
        panic!("a token in the query was taken");
    };
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(
        answer.contains("ws.token_in_query") && !answer.contains(&token),
        "{answer}"
    );
    drop(off);

    let on = site(&[("TOLLGATE_WS_TOKEN_IN_QUERY", "true")]);
    let user = on.create();
    let token = on.issue(&user, &["chat"]);
    let target = format!("/mqtt?a=b&access_token={token}");
    for listener in ["ws", "wss"] {
        for version in VERSIONS {
            let wire = asked(&on, listener, &target, &[]).expect("a good token");
            Client::over(wire, &Connect::anonymous(version, "c")).disconnect();
        }
        let wrong = "/mqtt?access_token=eyJ.a.b";
        let answer = asked(&on, listener, wrong, &[]).err().expect("a bad token");
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    // As before, a bearer that stays unused does nothing by itself.
    assert!(asked(&on, "ws", "/mqtt", &[]).is_ok());
}

#[test]
fn id_30_id_42_a_revoked_token_ends_its_websocket_and_one_on_its_way() {
    let site = site(&[]);
    let user = site.create();
    for version in [Version::V311, Version::V5] {
        let token = site.issue(&user, &["chat"]);
        let ask = || asked(&site, "ws", "/mqtt", &[bearer(&token)]).expect("a good bearer");
        let mut on_its_way = ask();
        let mut by_bearer = ask();
        by_bearer.send(&Connect::anonymous(version, "one").encode());
        assert_eq!(by_bearer.packet()[3], 0);
        let mut by_password = site.broker.wire_wss();
        by_password.send(&with_token(version, "two", Some(&user), &token).encode());
        assert_eq!(by_password.packet()[3], 0);
        site.revoke(&user);
        for wire in [&mut by_bearer, &mut by_password] {
            if version == Version::V5 {
                let disconnect = wire.packet();
                assert_eq!(disconnect[0], 0xe0, "{disconnect:02x?}");
            }
            wire.expect_close();
            assert_eq!(wire.web().close, Some(1000));
        }
        on_its_way.send(&Connect::anonymous(version, "three").encode());
        assert_eq!(on_its_way.packet()[3], refused(version));
        on_its_way.expect_close();
    }
}

/// SEC-27: guesses at the upgrade count with those at CONNECT.
#[test]
fn sec_27_bad_bearers_are_throttled_with_all_other_failures() {
    let site = site(&[
        ("TOLLGATE_LIMITS_TRUSTED_NETWORKS", ""),
        ("TOLLGATE_LIMITS_FAILURES_PER_MINUTE_MAX", "4"),
    ]);
    let user = site.create();
    let token = site.issue(&user, &["chat"]);
    let guess = |n: usize| {
        let wire = Wire::connect_from("127.0.0.2", site.broker.address("ws"));
        let answer = wire
            .upgrade("/mqtt", &[bearer(&format!("eyJ.guess.{n}"))])
            .err();
        answer.expect("a guess")
    };
    for n in 0..4 {
        assert!(guess(n).starts_with("HTTP/1.1 401 "));
    }
    for n in 4..8 {
        assert!(guess(n).starts_with("HTTP/1.1 429 "));
    }
    // At CONNECT too, and on the other listeners.
    let mut wire = Wire::connect_from("127.0.0.2", site.broker.address("mqtt"));
    wire.send(&Connect::with_token(Version::V5, "x", "a wrong token").encode());
    assert_eq!(wire.packet()[3], 0x9f);
    // Who has a good one is let in.
    let wire = Wire::connect_from("127.0.0.2", site.broker.address("ws"));
    let wire = wire
        .upgrade("/mqtt", &[bearer(&token)])
        .expect("a good bearer");
    Client::over(wire, &Connect::anonymous(Version::V5, "c")).disconnect();
}
