//! Tokens that are bound to a client's certificate (SEC-54, SEC-72): at CONNECT, in the live
//! session, after a restart, and over sessions that TLS resumes.

use std::sync::Arc;

use rustls::HandshakeKind;
use serde_json::Value;

use crate::certificates::{Authority, Shown, add, asking, asking_for, code, nobody, over};
use crate::common::{
    broker::Broker,
    client::Client,
    packets::{Connect, TELEMETRY, VERSIONS, Version},
    wire::Wire,
};

/// As a wrong token: nothing is told of it (SEC-20).
const WRONG: [u8; 2] = [5, 0x86];

/// MQTT 5: not authorized.
const NOT_AUTHORIZED: u8 = 0x87;

const OTHER: &str = "token_certificate";
const NOT_ASKED: &str = "token_certificate_not_asked";

/// The fingerprint of a certificate, by whoever reads it.
fn fingerprint(shown: &Shown) -> String {
    tollgate::identity::Fingerprint::of(&shown.der()).to_string()
}

/// As OpenSSL prints it.
fn with_colons(fingerprint: &str) -> String {
    let digits: Vec<char> = fingerprint.to_uppercase().chars().collect();
    let bytes: Vec<String> = digits.chunks(2).map(|two| two.iter().collect()).collect();
    format!("sha256 Fingerprint={}", bytes.join(":"))
}

/// A device with a token that is bound to this certificate.
fn bound(broker: &Broker, name: &str, shown: &Shown) -> String {
    let bound_to = with_colons(&fingerprint(shown));
    let create = ["device", "create", name, "--json", "--bound-to", &bound_to];
    let reply = broker.cli_json(&create);
    reply["token"].as_str().expect("a token").to_owned()
}

fn by(version: Version, token: &str) -> Connect<'_> {
    Connect::with_token(version, "c", token)
}

/// Clients that were refused for a reason, and that many in all.
fn refused(broker: &Broker, reason: &str) -> f64 {
    broker.metric(&format!(
        "tollgate_connects_refused_total{{reason=\"{reason}\"}}"
    ))
}

fn check(broker: &Broker, token: &str) -> Value {
    broker.cli_json(&["token", "check", token, "--json"])
}

#[test]
fn sec_54_sec_72_a_token_opens_no_door_without_its_certificate() {
    let authority = Authority::new();
    let mut broker = asking_for("optional", &authority, &authority.list(&[]));
    let [own, other] = ["d", "e"].map(|name| Shown::good(name, Some(&authority)));
    let token = bound(&broker, "d", &own);
    let free = broker.create_device("free");
    for round in 0..2 {
        for version in VERSIONS {
            let connect = by(version, &token);
            let mut client = Client::over(own.wire(&broker), &connect);
            let payload = format!(r#"{{"{version:?}-{round}":1}}"#);
            assert_eq!(client.publish(1, TELEMETRY, payload.as_bytes()), 0);
            let (before_other, before_not_asked) =
                (refused(&broker, OTHER), refused(&broker, NOT_ASKED));
            for wire in [other.wire(&broker), broker.wire_tls(), broker.wire()] {
                let code = code(wire, &connect);
                assert!(WRONG.contains(&code), "{version:?}: {code:#04x}");
            }
            assert_eq!(refused(&broker, OTHER) - before_other, 2.0);
            assert_eq!(refused(&broker, NOT_ASKED) - before_not_asked, 1.0);
            for wire in [other.wire(&broker), broker.wire_tls(), broker.wire()] {
                assert_eq!(
                    code(wire, &by(version, &free)),
                    0,
                    "one that is bound to none"
                );
            }
        }
        let report = check(&broker, &token);
        assert_eq!(report["certificate"], fingerprint(&own), "{report}");
        assert!(report["refused"].is_null(), "{report}");
        broker.kill9();
        broker.restart();
    }
    assert_eq!(broker.points("d").len(), 2 * VERSIONS.len());
    // The row says whose token it was, and why.
    assert!(WRONG.contains(&code(other.wire(&broker), &by(Version::V5, &token))));
    let rows = broker.cli_ok(&["refused"]);
    assert!(
        rows.lines()
            .any(|row| row.contains(OTHER) && row.contains(" d")),
        "{rows}"
    );
}

/// A certificate has to be good before its fingerprint counts.
#[test]
fn sec_72_a_bound_token_is_refused_with_its_certificate_when_that_is_not_good() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let broker = asking_for("optional", &authority, &authority.list(&[7]));
    for (name, shown) in [
        ("revoked", Shown::good("revoked", Some(&authority))),
        ("foreign", Shown::good("foreign", Some(&foreign))),
        ("own", Shown::good("own", None)),
    ] {
        let token = bound(&broker, name, &shown);
        let code = code(shown.wire(&broker), &by(Version::V5, &token));
        assert_eq!(code, NOT_AUTHORIZED, "{name}");
    }
    assert_eq!(refused(&broker, "bad_certificate"), 3.0);
}

/// Without an authority a certificate stands for itself: the token that is bound to it vouches for
/// it, and no other does.
#[test]
fn sec_72_a_token_vouches_for_the_certificate_it_is_bound_to() {
    let broker = asking("optional");
    let [own, other] = ["d", "e"].map(|name| Shown::good(name, None));
    let token = bound(&broker, "d", &own);
    let free = broker.create_device("free");
    let mut client = Client::over(own.wire(&broker), &by(Version::V5, &token));
    assert_eq!(client.publish(1, TELEMETRY, br#"{"a":1}"#), 0);
    for (shown, token) in [(&other, &token), (&own, &free), (&other, &free)] {
        let code = code(shown.wire(&broker), &by(Version::V5, token));
        assert_eq!(code, NOT_AUTHORIZED);
    }
    assert_eq!(
        code(own.wire(&broker), &nobody(Version::V5)),
        NOT_AUTHORIZED
    );
    // No longer bound, it is any token: a certificate of nobody beside it is not passed over.
    broker.cli_ok(&["device", "limit", "d", "--bound-to", "none"]);
    client.expect_end(&[NOT_AUTHORIZED]);
    assert_eq!(
        code(own.wire(&broker), &by(Version::V5, &token)),
        NOT_AUTHORIZED
    );
    assert_eq!(code(broker.wire(), &by(Version::V5, &token)), 0);
    // SEC-22: of two identities, whichever way round.
    let mine = bound(&broker, "mine", &own);
    add(&broker, "free", &own);
    assert_eq!(
        code(own.wire(&broker), &by(Version::V5, &mine)),
        NOT_AUTHORIZED
    );
}

#[test]
fn sec_54_a_token_is_bound_while_its_device_is_connected() {
    let authority = Authority::new();
    let broker = asking_for("optional", &authority, &authority.list(&[]));
    let [own, other] = ["d", "e"].map(|name| Shown::good(name, Some(&authority)));
    let limit = |name: &str, bound_to: &str| {
        broker.cli_ok(&["device", "limit", name, "--bound-to", bound_to]);
    };
    for (name, first, ends) in [
        ("plain", broker.wire(), true),
        ("tls", broker.wire_tls(), true),
        ("other", other.wire(&broker), true),
        ("own", own.wire(&broker), false),
    ] {
        let token = broker.create_device(name);
        let mut client = Client::over(first, &by(Version::V5, &token));
        limit(name, &fingerprint(&own));
        if ends {
            client.expect_end(&[NOT_AUTHORIZED]);
        } else {
            client.wire.expect_alive();
            limit(name, &fingerprint(&other));
            client.expect_end(&[NOT_AUTHORIZED]);
            limit(name, &fingerprint(&own));
        }
        let mut client = Client::over(own.wire(&broker), &by(Version::V5, &token));
        limit(name, "none");
        client.wire.expect_alive();
        assert_eq!(code(broker.wire(), &by(Version::V5, &token)), 0, "{name}");
    }
}

/// The new token is bound as the old one, or to a new certificate; Basic credentials are bound too,
/// and certificates that are credentials are not.
#[test]
fn sec_54_rotation_and_other_credentials_keep_to_the_certificate() {
    let authority = Authority::new();
    let broker = asking_for("optional", &authority, &authority.list(&[]));
    let [own, other] = ["d", "e"].map(|name| Shown::good(name, Some(&authority)));
    let old = bound(&broker, "d", &own);
    let rotate = ["device", "rotate", "d", "--json", "--grace", "1h"];
    let token = |reply: Value| reply["token"].as_str().expect("a token").to_owned();
    let same = token(broker.cli_json(&rotate));
    let new = fingerprint(&other);
    let moved = token(broker.cli_json(&[&rotate[..], &["--bound-to", &new]].concat()));
    let answer = |shown: &Shown, token: &str| code(shown.wire(&broker), &by(Version::V5, token));
    for (shown, token, good) in [
        (&own, &old, true),
        (&own, &same, true),
        (&own, &moved, false),
        (&other, &old, false),
        (&other, &same, false),
        (&other, &moved, true),
    ] {
        assert_eq!(answer(shown, token) == 0, good);
    }
    let bound_to = fingerprint(&own);
    broker.create_device("named");
    let add_name = ["device", "credential", "add", "named"];
    let names = ["--user-name", "line-3", "--password", "words"];
    broker.cli_ok(&[&add_name[..], &names, &["--bound-to", &bound_to]].concat());
    let connect = Connect {
        password: Some(b"words"),
        ..by(Version::V5, "line-3")
    };
    assert_eq!(code(own.wire(&broker), &connect), 0);
    assert_eq!(code(other.wire(&broker), &connect), WRONG[1]);
    assert_eq!(code(broker.wire(), &connect), WRONG[1]);
    // A certificate of the device's own stands for itself, whatever its tokens are bound to.
    add(&broker, "named", &other);
    broker.cli_ok(&["device", "limit", "named", "--bound-to", &bound_to]);
    assert_eq!(code(other.wire(&broker), &nobody(Version::V5)), 0);
    let list = broker.cli_json(&["device", "credential", "list", "named", "--json"]);
    let own_one = list.as_array().and_then(|list| list.last()).expect("one");
    assert_eq!(own_one["kind"], "x509");
    assert!(own_one["certificate"].is_null(), "{list}");
    let number = own_one["id"].to_string();
    let limit = ["device", "limit", "named", "--bound-to", &bound_to];
    let output = broker.cli(&[&limit[..], &["--credential", &number]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("a certificate stands for itself"), "{said}");
}

/// A session that TLS resumes has the certificate of its first handshake, and no other listener's
/// tickets give it one.
#[test]
fn sec_72_a_bound_token_opens_the_door_in_a_resumed_tls_session() {
    let authority = Authority::new();
    let broker = asking_for("optional", &authority, &authority.list(&[]));
    let [own, other] = ["d", "e"].map(|name| Shown::good(name, Some(&authority)));
    let token = bound(&broker, "d", &own);
    let kind = |wire: &mut Wire| {
        wire.finish_handshake();
        wire.tls().conn.handshake_kind()
    };
    let full = Some(HandshakeKind::Full);
    for (shown, good) in [(&own, true), (&other, false)] {
        let config = shown.config(&broker.ca_file());
        let mut first = over(&broker, Arc::clone(&config));
        assert_eq!(kind(&mut first), full);
        // Its answer comes behind the tickets.
        assert_eq!(code(first, &by(Version::V5, &token)) == 0, good);
        let mut second = over(&broker, config);
        assert_eq!(kind(&mut second), Some(HandshakeKind::Resumed));
        assert_eq!(code(second, &by(Version::V5, &token)) == 0, good);
    }
    assert_eq!(refused(&broker, OTHER), 2.0);
}

#[test]
fn sec_54_what_is_no_fingerprint_is_refused_and_a_listener_that_asks_nobody_is_told() {
    let broker = Broker::start();
    let before = broker.cli_ok(&["device", "list"]);
    let output = broker.cli(&["device", "create", "d", "--bound-to", "AB:CD"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("--bound-to \"AB:CD\" is no SHA-256"),
        "{said}"
    );
    assert_eq!(broker.cli_ok(&["device", "list"]), before);
    let shown = Shown::good("d", None);
    let token = bound(&broker, "d", &shown);
    let report = check(&broker, &token);
    let why = report["refused"].as_str().unwrap_or_default();
    assert!(
        why.contains("mqtts.client_certificate is \"off\""),
        "{report}"
    );
    let listed = broker.cli_ok(&["device", "show", "d"]);
    let words = format!("only beside the certificate {}", fingerprint(&shown));
    assert!(listed.contains(&words), "{listed}");
    // With the right one too: the listener does not see it.
    for wire in [shown.wire(&broker), broker.wire_tls(), broker.wire()] {
        assert_eq!(code(wire, &by(Version::V5, &token)), WRONG[1]);
    }
    assert_eq!(refused(&broker, NOT_ASKED), 3.0);
}

/// Whoever binds a token where no listener sees certificates is told, with the setting that does
/// it; and by no other change.
#[test]
fn sec_54_binding_a_token_warns_where_no_listener_asks_for_certificates() {
    let off = Broker::start();
    let no_tls = Broker::start_with(&[("TOLLGATE_MQTTS_LISTEN", "off")]);
    let asks = asking("optional");
    let bound_to = fingerprint(&Shown::good("d", None));
    for (broker, expected) in [
        (&off, Some("mqtts.client_certificate is \"off\"")),
        (&no_tls, Some("mqtts.listen is off")),
        (&asks, None),
    ] {
        let says = |arguments: &[&str]| {
            let output = broker.cli(&[arguments, &["--json"]].concat());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{arguments:?}: {said}");
            let reply: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let warnings = reply["warnings"].as_array().map_or(0, Vec::len);
            assert_eq!(warnings > 0, said.contains("opens no door"), "{reply}");
            said
        };
        let check = |said: &str, expected: Option<&str>| match expected {
            Some(why) => assert!(said.contains(why), "{why:?} is not in {said:?}"),
            None => assert_eq!(said, ""),
        };
        let binding = ["--bound-to", bound_to.as_str()];
        for kind in ["device", "app"] {
            let name = format!("a {kind}");
            let name = name.as_str();
            let bind = |verb: &str| says(&[&[kind, verb, name], &binding[..]].concat());
            check(&bind("create"), expected);
            check(&bind("limit"), expected);
            check(&bind("rotate"), expected);
            // The new token is bound as the old one.
            check(&says(&[kind, "rotate", name]), expected);
            check(&says(&[kind, "rollback", name]), None);
            // The old one still is, and is not what this is about.
            check(&says(&[kind, "rotate", name, "--bound-to", "none"]), None);
            check(&says(&[kind, "limit", name, "--bound-to", "none"]), None);
            check(&says(&[kind, "limit", name, "--rate", "5"]), None);
            check(&says(&[kind, "rotate", name]), None);
            let add = [kind, "credential", "add", name, "--user-name", name];
            check(&says(&[&add[..], &binding[..]].concat()), expected);
            check(&says(&[kind, "delete", name]), None);
        }
    }
}

/// The line to paste is one that such a token can come in with.
#[test]
fn sec_54_the_line_to_paste_for_a_bound_token_goes_by_tls_with_a_certificate() {
    let broker = asking("optional");
    let bound_to = fingerprint(&Shown::good("d", None));
    let by_tls = [
        "mosquitto_pub -d -q 1 --cafile ",
        " --cert CERTIFICATE.pem --key KEY.pem -h localhost -p ",
    ];
    let create = ["device", "create", "d", "--bound-to", &bound_to];
    let unbound = ["device", "rotate", "d", "--bound-to", "none"];
    for (arguments, is_bound) in [
        (&create[..], true),
        (&["device", "rotate", "d"], true),
        (&unbound, false),
    ] {
        let said = broker.cli_ok(arguments);
        for words in by_tls {
            assert_eq!(said.contains(words), is_bound, "{said}");
        }
        assert!(
            said.contains(" -t v1/devices/me/telemetry -u tgd_"),
            "{said}"
        );
    }
}

/// Beside the certificate of a device, what is somebody else's lets nobody in, whether or not it
/// would open the door here.
#[test]
fn sec_22_a_devices_certificate_does_not_pass_over_what_is_somebody_elses() {
    let authority = Authority::new();
    let broker = asking_for("optional", &authority, &authority.list(&[]));
    let [own, other] = ["d", "e"].map(|name| Shown::good(name, Some(&authority)));
    let mine = broker.create_device("d");
    add(&broker, "d", &own);
    let elsewhere = ["device", "create", "f", "--json", "--from", "192.0.2.0/24"];
    let reply = broker.cli_json(&elsewhere);
    let elsewhere = reply["token"].as_str().expect("a token").to_owned();
    for theirs in [bound(&broker, "e", &other), elsewhere] {
        let code = code(own.wire(&broker), &by(Version::V5, &theirs));
        assert_eq!(code, NOT_AUTHORIZED);
    }
    assert_eq!(code(own.wire(&broker), &by(Version::V5, &mine)), 0);
    assert_eq!(code(own.wire(&broker), &nobody(Version::V5)), 0);
}
