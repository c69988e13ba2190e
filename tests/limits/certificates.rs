//! SEC-71: certificates and keys change while the broker runs; connections stay.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;

use crate::common::{
    broker::{Broker, Setup},
    packets::{Connect, Version, log_in},
    wire::{Wire, client_config, socket},
};

const RELOADS: &str = "tollgate_certificate_reloads_total";
const FAILURES: &str = "tollgate_certificate_reload_failures_total";
const END: &str = "tollgate_certificate_end_timestamp_seconds";

#[test]
fn sec_71_new_certificates_serve_without_dropping_connections() {
    let (broker, authority) = site(&[("TOLLGATE_CERTS_CHECK_INTERVAL_S", "0")]);
    let token = broker.create_device("a");
    let mut held = wire(&broker, "localhost");
    log_in(&mut held, &Connect::with_token(Version::V5, "held", &token));
    let first = shown(&mut held);
    let end = broker.metric(END);
    assert!(end > 1.7e9, "{end}");

    authority.write(broker.dir(), "server", "localhost", 2050);
    broker.signal(Signal::HUP);
    broker.wait_metric(RELOADS, 1.0);
    let second = shown(&mut wire(&broker, "localhost"));
    assert_ne!(first, second);
    assert!(broker.metric(END) > end);
    held.expect_alive();

    // A certificate without its key changes nothing.
    let key = fs::read(broker.dir().join("server.key")).unwrap();
    fs::write(broker.dir().join("server.key"), "-----BEGIN").unwrap();
    broker.signal(Signal::HUP);
    broker.wait_metric(FAILURES, 1.0);
    assert_eq!(shown(&mut wire(&broker, "localhost")), second);
    let log = broker.stderr();
    assert!(log.contains("the old ones go on serving"), "{log}");
    authority.write(broker.dir(), "server", "localhost", 2051);
    let newest = fs::read(broker.dir().join("server.pem")).unwrap();
    fs::write(broker.dir().join("server.key"), key).unwrap();
    broker.signal(Signal::HUP);
    broker.wait_metric(FAILURES, 2.0);
    assert_eq!(
        shown(&mut wire(&broker, "localhost")),
        second,
        "a pair of two pairs"
    );
    assert!(!newest.is_empty());
    held.expect_alive();
    assert_eq!(broker.metric(RELOADS), 1.0);
}

#[test]
fn sec_71_changed_files_are_noticed() {
    let (broker, authority) = site(&[("TOLLGATE_CERTS_CHECK_INTERVAL_S", "1")]);
    let first = shown(&mut wire(&broker, "localhost"));
    authority.write(broker.dir(), "server", "localhost", 2050);
    broker.wait_metric(RELOADS, 1.0);
    assert_ne!(shown(&mut wire(&broker, "localhost")), first);
}

#[test]
fn sec_71_the_name_that_a_client_asks_for_chooses_the_certificate() {
    let (broker, _) = site(&[(
        "TOLLGATE_MQTTS_MORE_CERTIFICATES",
        "one.pem:one.key,two.pem:two.key",
    )]);
    let own = shown(&mut wire(&broker, "localhost"));
    let one = shown(&mut wire(&broker, "one.example"));
    let two = shown(&mut wire(&broker, "any.two.example"));
    assert!(own != one && own != two && one != two);
}

#[test]
fn sec_71_a_further_pair_that_cannot_be_used_refuses_the_start() {
    let setup = Setup::new().set("TOLLGATE_MQTTS_MORE_CERTIFICATES", "gone.pem:gone.key");
    let Err((_, refusal)) = setup.try_start() else {
        panic!("it started");
    };
    assert_eq!(refusal.code, Some(4));
    assert!(refusal.stderr.contains("gone.key"), "{}", refusal.stderr);
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// `FILE.pem` and `FILE.key`, the key first so that no poll sees a new certificate alone.
    fn write(&self, dir: &Path, file: &str, name: &str, until: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key_file = dir.join(format!("{file}.key"));
        fs::write(&key_file, key.serialize_pem()).unwrap();
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(dir.join(format!("{file}.pem")), certificate.pem()).unwrap();
    }
}

/// A broker with a pair of the operator's, and two more for names.
fn site(settings: &[(&str, &str)]) -> (Broker, Authority) {
    let authority = Authority::new();
    let setup = settings
        .iter()
        .fold(Setup::new(), |setup, (key, value)| setup.set(key, value));
    authority.write(setup.dir(), "server", "localhost", 2040);
    authority.write(setup.dir(), "one", "one.example", 2041);
    authority.write(setup.dir(), "two", "*.two.example", 2042);
    fs::write(setup.dir().join("ca.pem"), authority.0.pem()).unwrap();
    let setup = setup
        .set("TOLLGATE_MQTTS_CERTIFICATE", "server.pem")
        .set("TOLLGATE_MQTTS_KEY", "server.key");
    (setup.start(), authority)
}

/// A TLS connection with its own memory of sessions, the handshake done.
fn wire(broker: &Broker, name: &str) -> Wire {
    let config = client_config(&broker.dir().join("ca.pem"));
    let mut wire = Wire::over_tls(Arc::clone(&config), name, socket(broker.address("mqtts")));
    wire.finish_handshake();
    wire
}

/// The certificate that the broker showed.
fn shown(wire: &mut Wire) -> Vec<u8> {
    let chain = wire
        .tls()
        .conn
        .peer_certificates()
        .expect("the handshake is done");
    chain.first().expect("one at least").to_vec()
}
