//! Certificates of clients (TB-03, SEC-72): whose they are, which are refused, and their ends.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustix::process::Signal;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::Value;

use crate::common::{
    broker::{Broker, Setup},
    client::Client,
    packets::{Connect, TELEMETRY, VERSIONS, Version},
    wire::{Wire, socket},
};

/// A day.
const DAY: Duration = Duration::from_secs(86_400);

/// MQTT 5: not authorized.
const NOT_AUTHORIZED: u8 = 0x87;

/// MQTT 5: administrative action.
const ENDED: u8 = 0x98;

/// An authority for certificates of clients.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// A list with the certificates of these numbers.
    pub(crate) fn list(&self, serials: &[u64]) -> String {
        let now = SystemTime::now();
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params
            .signed_by(&self.0)
            .expect("a list")
            .pem()
            .expect("PEM")
    }
}

/// A client's certificate and its key.
pub(crate) struct Shown {
    pem: String,
    key: Vec<u8>,
}

impl Shown {
    /// With a common name, a number, and from when until when it is good; of an authority or of
    /// its own.
    fn new(
        name: &str,
        serial: u64,
        (from, until): (SystemTime, SystemTime),
        authority: Option<&Authority>,
    ) -> Shown {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = from.into();
        params.not_after = until.into();
        let made = match authority {
            Some(authority) => params.signed_by(&key, &authority.0),
            None => params.self_signed(&key),
        };
        Shown {
            pem: made.expect("a certificate").pem(),
            key: key.serialize_der(),
        }
    }

    /// Good for a year.
    pub(crate) fn good(name: &str, authority: Option<&Authority>) -> Shown {
        let now = SystemTime::now();
        Shown::new(name, 7, (now - DAY, now + 365 * DAY), authority)
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        let der = CertificateDer::from_pem_slice(self.pem.as_bytes());
        der.expect("PEM").to_vec()
    }

    fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, &self.pem).expect("a file");
        path
    }

    pub(crate) fn config(&self, ca_file: &Path) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(ca_file).expect("a CA");
        roots.add(ca).expect("a usable CA");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("a key");
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own], key);
        Arc::new(config.expect("the key is that of the certificate"))
    }

    pub(crate) fn wire(&self, broker: &Broker) -> Wire {
        over(broker, self.config(&broker.ca_file()))
    }

    /// The same to the listener of WebSockets, of which nothing is asked yet.
    fn wire_wss(&self, broker: &Broker) -> Wire {
        let config = self.config(&broker.ca_file());
        Wire::over_tls(config, "localhost", socket(broker.address("wss")))
    }
}

pub(crate) fn over(broker: &Broker, config: Arc<ClientConfig>) -> Wire {
    Wire::over_tls(config, "localhost", socket(broker.address("mqtts")))
}

pub(crate) fn asking(demand: &str) -> Broker {
    Broker::start_with(&[
        ("TOLLGATE_MQTTS_CLIENT_CERTIFICATE", demand),
        ("TOLLGATE_LIMITS_TRUSTED_NETWORKS", "127.0.0.0/8"),
    ])
}

/// With an authority and a list, that are written before the start.
pub(crate) fn asking_for(demand: &str, authority: &Authority, list: &str) -> Broker {
    let setup = Setup::new();
    fs::write(setup.dir().join("clients.pem"), authority.0.pem()).expect("a file");
    fs::write(setup.dir().join("list.pem"), list).expect("a file");
    setup
        .set("TOLLGATE_MQTTS_CLIENT_CERTIFICATE", demand)
        .set("TOLLGATE_MQTTS_CLIENT_AUTHORITY", "clients.pem")
        .set("TOLLGATE_MQTTS_CLIENT_REVOCATIONS", "list.pem")
        .set("TOLLGATE_WSS_LISTEN", "127.0.0.1:0")
        .set("TOLLGATE_LIMITS_TRUSTED_NETWORKS", "127.0.0.0/8")
        .start()
}

pub(crate) fn add(broker: &Broker, device: &str, shown: &Shown) -> Value {
    let file = shown.write(broker.dir(), &format!("{device}.pem"));
    let file = file.to_str().expect("temporary paths are UTF-8");
    let arguments = [
        "device",
        "credential",
        "add",
        device,
        "--json",
        "--certificate",
        file,
    ];
    broker.cli_json(&arguments)["credential"].clone()
}

pub(crate) fn nobody(version: Version) -> Connect<'static> {
    Connect::anonymous(version, "c")
}

pub(crate) fn code(mut wire: Wire, connect: &Connect<'_>) -> u8 {
    wire.send(&connect.encode());
    wire.packet()[3]
}

/// The server ended the handshake: the client is told by an alert, or by a close.
fn expect_broken(mut wire: Wire) {
    let stream = wire.tls();
    let _ = stream.write_all(&nobody(Version::V5).encode());
    let mut answer = [0; 4];
    match stream.read(&mut answer) {
        Ok(0) => {}
        Ok(_) => panic!("answered: {answer:02x?}"),
        Err(error) => {
            let waited = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
            assert!(!waited.contains(&error.kind()), "{error}");
        }
    }
}

#[test]
fn tb_03_a_certificate_says_which_device_it_is() {
    let broker = asking("optional");
    let token = broker.create_device("press");
    let other = broker.create_device("other");
    let shown = Shown::good("press", None);
    let added = add(&broker, "press", &shown);
    assert_eq!(added["kind"], "x509");
    assert_eq!(added["fingerprint"].as_str().map(str::len), Some(64));
    assert_eq!(add(&broker, "press", &shown)["id"], added["id"], "once");
    for version in VERSIONS {
        let mut client = Client::over(shown.wire(&broker), &nobody(version));
        let key = format!(r#"{{"{version:?}":1}}"#);
        assert_eq!(client.publish(1, TELEMETRY, key.as_bytes()), 0);
    }
    assert_eq!(broker.points("press").len(), VERSIONS.len());
    let with = |token| Connect::with_token(Version::V5, "c", token);
    let good = [with(&token), with("no token of anybody")];
    for connect in good {
        assert_eq!(
            code(shown.wire(&broker), &connect),
            0,
            "{:?}",
            connect.user_name
        );
    }
    // SEC-22: two credentials of two identities let nobody in.
    assert_eq!(code(shown.wire(&broker), &with(&other)), NOT_AUTHORIZED);
    // The same name in another certificate is nobody's, and a token does not help.
    let stranger = Shown::good("press", None);
    for (version, expected) in [(Version::V5, NOT_AUTHORIZED), (Version::V311, 5)] {
        assert_eq!(code(stranger.wire(&broker), &nobody(version)), expected);
    }
    assert_eq!(code(stranger.wire(&broker), &with(&token)), NOT_AUTHORIZED);
    // Nobody has to have one.
    assert_eq!(code(broker.wire_tls(), &with(&token)), 0);
    let refused = "tollgate_connects_refused_total{reason=\"bad_certificate\"}";
    assert_eq!(broker.metric(refused), 4.0);
    // Somebody else's it is not.
    let file = broker.dir().join("press.pem");
    let arguments = ["device", "credential", "add", "other", "--certificate"];
    let output = broker.cli(&[&arguments[..], &[file.to_str().expect("UTF-8")]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("in use already by device \"press\""),
        "{said}"
    );
}

/// A user and a token of it.
fn user(broker: &Broker) -> (String, String) {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let key = broker.cli_json(&["identity", "key", "renew", "primary", "--json"]);
    let key = text(&key["access_key"]);
    let account = format!("endpoint={}/;accesskey={key}", broker.admin_url());
    let issue = ["identity", "token", "issue", "--scope", "chat", "--json"];
    let made = broker.cli_json(&[&issue[..], &["--connection-string", &account]].concat());
    (
        text(&made["identity"]["id"]),
        text(&made["accessToken"]["token"]),
    )
}

fn showing<'a>(version: Version, user_name: &'a str, password: Option<&'a str>) -> Connect<'a> {
    Connect {
        user_name: Some(user_name),
        password: password.map(str::as_bytes),
        ..nobody(version)
    }
}

/// A user's token beside the certificate of a device names two identities, wherever it stands.
#[test]
fn sec_22_a_users_token_beside_a_devices_certificate_lets_nobody_in() {
    let authority = Authority::new();
    let broker = asking_for("optional", &authority, &authority.list(&[]));
    broker.create_device("press");
    let [own, nobodys] = ["press", "other"].map(|name| Shown::good(name, Some(&authority)));
    add(&broker, "press", &own);
    let (id, token) = user(&broker);
    let wrong = format!("{token}x");
    for version in VERSIONS {
        let refused = if version == Version::V5 {
            NOT_AUTHORIZED
        } else {
            5
        };
        for connect in [
            showing(version, &id, Some(&token)),
            showing(version, "", Some(&token)),
            showing(version, &token, None),
        ] {
            let name = connect.user_name;
            assert_eq!(code(own.wire(&broker), &connect), refused, "{name:?}");
            // By itself, or beside a certificate that is nobody's, it opens the door.
            assert_eq!(code(broker.wire_tls(), &connect), 0, "{name:?}");
            assert_eq!(code(nobodys.wire(&broker), &connect), 0, "{name:?}");
        }
        // As the bearer of a WebSocket.
        for (shown, expected) in [(&own, refused), (&nobodys, 0)] {
            let bearer = format!("Authorization: Bearer {token}");
            let wire = shown.wire_wss(&broker).upgrade("/mqtt", &[bearer]);
            let wire = wire.unwrap_or_else(|answer| panic!("no WebSocket: {answer}"));
            assert_eq!(code(wire, &nobody(version)), expected, "{version:?}");
        }
        // What is nobody's token is passed over, as any user name is.
        let connect = showing(version, &id, Some(&wrong));
        assert_eq!(code(own.wire(&broker), &connect), 0);
        assert_eq!(code(own.wire(&broker), &nobody(version)), 0);
    }
}

/// Added all the same, and whoever adds it is told.
#[test]
fn sec_72_a_certificate_that_nobody_can_come_in_with_is_added_with_a_warning() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let off = Broker::start();
    let optional = asking_for("optional", &authority, &authority.list(&[66]));
    let now = SystemTime::now();
    let late = (now + DAY, now + 2 * DAY);
    for (broker, shown, warned) in [
        (
            &off,
            Shown::good("own", None),
            Some("client_certificate is \"off\""),
        ),
        (&optional, Shown::good("good", Some(&authority)), None),
        (
            &optional,
            Shown::good("foreign", Some(&foreign)),
            Some("mqtts.client_authority does not vouch for it now"),
        ),
        (
            &optional,
            Shown::new("late", 3, late, Some(&authority)),
            Some("does not vouch for it now"),
        ),
        (
            &asking("optional"),
            Shown::new("early", 3, late, None),
            Some("it would be refused now: its time has not begun"),
        ),
    ] {
        let token = broker.create_device("press");
        assert!(!token.is_empty());
        let file = shown.write(broker.dir(), "press.pem");
        let file = file.to_str().expect("temporary paths are UTF-8");
        let add = [
            "device",
            "credential",
            "add",
            "press",
            "--certificate",
            file,
        ];
        let output = broker.cli(&add);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("x509"));
        match warned {
            Some(why) => assert!(said.contains(why), "{said}"),
            None => assert_eq!(said, ""),
        }
        broker.cli_ok(&["device", "delete", "press"]);
    }
}

/// A certificate that is shown to a listener which asks for none says nothing.
#[test]
fn sec_72_a_listener_that_asks_for_none_takes_none() {
    let broker = Broker::start();
    broker.create_device("press");
    let shown = Shown::good("press", None);
    add(&broker, "press", &shown);
    assert_eq!(code(shown.wire(&broker), &nobody(Version::V5)), 0x85);
}

#[test]
fn sec_34_whatever_ends_a_token_ends_a_certificate() {
    let mut broker = asking("optional");
    let verbs: [(&str, &[&str]); 3] = [
        ("revoked", &["device", "revoke"]),
        ("rotated", &["device", "rotate", "--grace", "0s"]),
        ("deleted", &["device", "delete"]),
    ];
    let mut all = Vec::new();
    for (device, verb) in verbs {
        broker.create_device(device);
        let shown = Shown::good(device, None);
        add(&broker, device, &shown);
        let mut client = Client::over(shown.wire(&broker), &nobody(Version::V5));
        broker.cli_ok(&[verb, &[device]].concat());
        client.expect_end(&[ENDED]);
        all.push(shown);
    }
    let token = broker.create_device("removed");
    let shown = Shown::good("removed", None);
    let id = add(&broker, "removed", &shown)["id"].to_string();
    let mut client = Client::over(shown.wire(&broker), &nobody(Version::V5));
    broker.cli_ok(&["device", "credential", "remove", "removed", &id]);
    client.expect_end(&[ENDED]);
    all.push(shown);
    let expect_out = |broker: &Broker| {
        for shown in &all {
            assert_eq!(
                code(shown.wire(broker), &nobody(Version::V5)),
                NOT_AUTHORIZED
            );
        }
        let by_token = Connect::with_token(Version::V5, "c", &token);
        assert_eq!(code(broker.wire_tls(), &by_token), 0);
    };
    expect_out(&broker);
    broker.kill9();
    broker.restart();
    expect_out(&broker);
}

#[test]
fn sec_40_a_live_session_ends_with_its_certificate() {
    let authority = Authority::new();
    let broker = asking_for("optional", &authority, &authority.list(&[]));
    let token = broker.create_device("short");
    let other = broker.create_device("beside");
    let now = SystemTime::now();
    // Both are connected before it is over, on a busy machine too.
    let (from, until) = (now - DAY, now + Duration::from_secs(20));
    let shown = Shown::new("short", 1, (from, until), Some(&authority));
    let added = add(&broker, "short", &shown);
    broker.cli_ok(&["device", "limit", "short", "--expires", "never"]);
    let list = broker.cli_json(&["device", "credential", "list", "short", "--json"]);
    let kept = list.as_array().and_then(|list| list.last()).expect("one");
    assert_eq!(kept["expires_ms"], added["expires_ms"], "{list}");
    let mut client = Client::over(shown.wire(&broker), &nobody(Version::V5));
    // One that is no device's stands beside a token, and its end is the end of that connection.
    let beside = Shown::new("beside", 2, (from, until), Some(&authority));
    let by_token = Connect::with_token(Version::V5, "c", &other);
    let mut second = Client::over(beside.wire(&broker), &by_token);
    broker.cli_ok(&["device", "limit", "beside", "--rate", "1000"]);
    client.expect_end(&[NOT_AUTHORIZED]);
    second.expect_end(&[NOT_AUTHORIZED]);
    // A certificate's times are whole seconds.
    assert!(
        SystemTime::now() > until - Duration::from_secs(1),
        "too early"
    );
    assert_eq!(
        code(shown.wire(&broker), &nobody(Version::V5)),
        NOT_AUTHORIZED
    );
    assert_eq!(code(beside.wire(&broker), &by_token), NOT_AUTHORIZED);
    for token in [&token, &other] {
        let by_token = Connect::with_token(Version::V5, "c", token);
        assert_eq!(code(broker.wire_tls(), &by_token), 0);
    }
}

#[test]
fn sec_72_s_32_a_certificate_that_is_not_good_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let now = SystemTime::now();
    let all = [
        ("of another", Shown::good("d", Some(&other))),
        ("of its own", Shown::good("d", None)),
        (
            "too late",
            Shown::new("d", 1, (now - 2 * DAY, now - DAY), Some(&authority)),
        ),
        (
            "too early",
            Shown::new("d", 1, (now + DAY, now + 2 * DAY), Some(&authority)),
        ),
        (
            "revoked",
            Shown::new("d", 66, (now - DAY, now + DAY), Some(&authority)),
        ),
    ];
    let list = authority.list(&[66]);
    for demand in ["optional", "required"] {
        let broker = asking_for(demand, &authority, &list);
        let token = broker.create_device("d");
        let by_token = Connect::with_token(Version::V5, "c", &token);
        let good = Shown::good("d", Some(&authority));
        for (what, shown) in &all {
            if *what != "too late" {
                add(&broker, "d", shown);
                let list = broker.cli_json(&["device", "credential", "list", "d", "--json"]);
                let id = list.as_array().and_then(|list| list.last()).expect("one")["id"].clone();
                refused(&broker, demand, shown, &nobody(Version::V5), what);
                broker.cli_ok(&["device", "credential", "remove", "d", &id.to_string()]);
            }
            refused(&broker, demand, shown, &by_token, what);
        }
        assert_eq!(code(good.wire(&broker), &by_token), 0, "beside a token");
        let web = good.wire_wss(&broker).upgrade("/mqtt", &[]);
        assert_eq!(
            code(web.expect("a WebSocket"), &by_token),
            0,
            "beside a token"
        );
        assert_eq!(
            code(good.wire(&broker), &nobody(Version::V5)),
            NOT_AUTHORIZED
        );
        add(&broker, "d", &good);
        assert_eq!(code(good.wire(&broker), &nobody(Version::V5)), 0);
        match demand {
            "optional" => assert_eq!(code(broker.wire_tls(), &by_token), 0),
            _ => expect_broken(broker.wire_tls()),
        }
        assert_eq!(code(broker.wire(), &by_token), 0, "on the other listener");
    }
}

/// Before CONNECT where a certificate is required, in CONNACK else.
fn refused(broker: &Broker, demand: &str, shown: &Shown, connect: &Connect<'_>, what: &str) {
    let (wire, web) = (shown.wire(broker), shown.wire_wss(broker));
    if demand == "required" {
        expect_broken(wire);
        return expect_broken(web);
    }
    assert_eq!(code(wire, connect), NOT_AUTHORIZED, "{what}");
    let web = web.upgrade("/mqtt", &[]).expect("a WebSocket");
    assert_eq!(code(web, connect), NOT_AUTHORIZED, "{what}");
}

/// A session that TLS resumes is judged by the lists of now.
#[test]
fn sec_72_a_resumed_session_is_judged_by_new_lists() {
    let authority = Authority::new();
    let broker = asking_for("required", &authority, &authority.list(&[]));
    broker.create_device("d");
    let shown = Shown::good("d", Some(&authority));
    add(&broker, "d", &shown);
    let config = shown.config(&broker.ca_file());
    for _ in 0..2 {
        let mut client = Client::over(over(&broker, Arc::clone(&config)), &nobody(Version::V5));
        assert_eq!(client.publish(1, TELEMETRY, br#"{"a":1}"#), 0);
        client.disconnect();
    }
    fs::write(broker.dir().join("list.pem"), authority.list(&[7])).expect("a file");
    broker.signal(Signal::HUP);
    broker.wait_metric("tollgate_certificate_reloads_total", 1.0);
    let resumed = over(&broker, config);
    assert_eq!(code(resumed, &nobody(Version::V5)), NOT_AUTHORIZED);
}

/// SEC-42: what cannot be read, or would have no effect, stops the start.
#[test]
fn sec_42_a_wrong_setting_of_certificates_stops_the_start() {
    let key = |name: &str| format!("TOLLGATE_MQTTS_CLIENT_{name}");
    for (settings, said) in [
        (&[("AUTHORITY", "missing.pem")][..], "has no effect while"),
        (
            &[("CERTIFICATE", "optional"), ("REVOCATIONS", "missing.pem")],
            "has no effect without",
        ),
        (
            &[("CERTIFICATE", "required"), ("AUTHORITY", "missing.pem")],
            "missing.pem",
        ),
        (&[("CERTIFICATE", "sometimes")], "sometimes"),
    ] {
        let setup = settings.iter().fold(Setup::new(), |setup, (name, value)| {
            setup.set(&key(name), value)
        });
        let Err((_, refusal)) = setup.try_start() else {
            panic!("it started with {settings:?}");
        };
        assert!(refusal.stderr.contains(said), "{}", refusal.stderr);
    }
}
