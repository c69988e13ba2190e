//! Certificates as a TLS client sees them.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, ProtocolVersion, RootCertStore,
    ServerConnection, SideData,
    pki_types::{ServerName, UnixTime},
    time_provider::TimeProvider,
};
use tempfile::TempDir;

use super::*;
use crate::config::Sources;
use crate::metrics::Metrics;
use crate::net::tls::Tls;

const DAY: Duration = Duration::from_secs(86_400);

struct Installation {
    dir: TempDir,
    config: Config,
}

fn installation() -> Installation {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(
        &file,
        "[certs]\nnames = [\"broker.example\", \"203.0.113.7\"]\n",
    )
    .unwrap();
    let flags = vec![
        ("data_dir", "--data-dir", path("data")),
        ("secrets_dir", "--secrets-dir", path("secrets")),
        ("certs_dir", "--certs-dir", path("certs")),
    ];
    let sources = Sources {
        file: Some(file),
        flags,
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap();
    Installation { dir, config }
}

impl Installation {
    fn secret(&self, name: &str) -> PathBuf {
        self.dir.path().join("secrets").join(name)
    }

    fn cert(&self, name: &str) -> PathBuf {
        self.dir.path().join("certs").join(name)
    }

    /// Every file under `certs` and `secrets` with its content, to see that nothing changed.
    fn files(&self) -> Vec<(PathBuf, String)> {
        let mut files = Vec::new();
        for dir in ["certs", "secrets"] {
            for entry in fs::read_dir(self.dir.path().join(dir)).unwrap() {
                let path = entry.unwrap().path();
                files.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
        files.sort();
        files
    }

    /// A handshake with what is on disk; the client trusts `ca-root.pem` alone.
    fn handshake(
        &self,
        name: &str,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Result<(ProtocolVersion, String), rustls::Error> {
        let pair = CertificatePair {
            certificate: self.cert("server.pem"),
            key: self.secret("server.key"),
        };
        handshake(&pair, &self.cert("ca-root.pem"), name, versions)
    }
}

fn handshake(
    pair: &CertificatePair,
    ca: &Path,
    name: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<(ProtocolVersion, String), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(load_server_config(pair).unwrap())?;
    while client.is_handshaking() || server.is_handshaking() {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
    }
    client.writer().write_all(b"hello").unwrap();
    pass(&mut client, &mut server)?;
    let mut said = [0; 5];
    server.reader().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello");
    let suite = format!("{:?}", client.negotiated_cipher_suite().unwrap().suite());
    Ok((client.protocol_version().unwrap(), suite))
}

fn pass<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut bytes = bytes.as_slice();
    while !bytes.is_empty() {
        to.read_tls(&mut bytes).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn a_client_with_the_ca_reaches_every_name() {
    let made = installation();
    prepare(&made.config, SystemTime::now()).unwrap();
    for name in [
        "localhost",
        "127.0.0.1",
        "::1",
        "broker.example",
        "203.0.113.7",
    ] {
        assert!(made.handshake(name, &[&TLS12, &TLS13]).is_ok(), "{name}");
    }
    let error = made
        .handshake("other.example", &[&TLS12, &TLS13])
        .unwrap_err();
    assert!(
        matches!(error, rustls::Error::InvalidCertificate(_)),
        "{error}"
    );
}

#[test]
fn a_client_with_another_ca_is_not_fooled() {
    let (made, other) = (installation(), installation());
    prepare(&made.config, SystemTime::now()).unwrap();
    let theirs = prepare(&other.config, SystemTime::now()).unwrap().pair;
    let ca = made.cert("ca-root.pem");
    assert!(handshake(&theirs, &ca, "localhost", &[&TLS13]).is_err());
}

#[test]
fn sec_70_tls_1_2_and_1_3_with_forward_secrecy_and_aead_only() {
    let made = installation();
    let pair = prepare(&made.config, SystemTime::now()).unwrap().pair;
    let (version, suite) = made.handshake("localhost", &[&TLS12]).unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_2);
    assert!(suite.starts_with("TLS_ECDHE_"), "{suite}");
    let (version, _) = made.handshake("localhost", &[&TLS13]).unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_3);
    let config = load_server_config(&pair).unwrap();
    assert_eq!(config.max_early_data_size, 0);
    for suite in &config.crypto_provider().cipher_suites {
        let name = format!("{:?}", suite.suite());
        let forward = name.starts_with("TLS_ECDHE_") || name.starts_with("TLS13_");
        let aead = name.contains("GCM") || name.contains("POLY1305");
        assert!(forward && aead, "{name}");
    }
}

#[test]
fn sec_78_keys_are_for_this_user_and_certificates_for_everybody() {
    let made = installation();
    prepare(&made.config, SystemTime::now()).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(made.dir.path().join("secrets")), 0o700);
    assert_eq!(mode(made.secret("ca.key")), 0o600);
    assert_eq!(mode(made.secret("server.key")), 0o600);
    assert_eq!(mode(made.cert("ca-root.pem")), 0o644);
    assert_eq!(mode(made.cert("server.pem")), 0o644);
    for path in [made.secret("server.key"), made.secret("ca.key")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let later = SystemTime::now() + 380 * DAY; // so that the CA's key is needed too
        let error = prepare(&made.config, later).unwrap_err();
        assert!(
            matches!(error, CertificateError::Exposed { mode: 0o640, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_second_start_changes_nothing() {
    let made = installation();
    let now = SystemTime::now();
    assert_eq!(
        examine(&made.config, now).unwrap(),
        State::Due("there was none".to_owned())
    );
    assert_eq!(prepare(&made.config, now).unwrap().notes.len(), 2);
    let before = made.files();
    assert_eq!(before.len(), 4);
    assert_eq!(examine(&made.config, now).unwrap(), State::Good);
    let again = prepare(&made.config, now + 300 * DAY).unwrap();
    assert_eq!((again.notes, made.files()), (Vec::new(), before));
}

#[test]
fn the_server_is_renewed_30_days_before_its_end_and_the_ca_stays() {
    let made = installation();
    let now = SystemTime::now();
    prepare(&made.config, now).unwrap();
    let chain = read_chain(&made.cert("server.pem"), "certificate").unwrap();
    let left = not_after(&chain[0]).unwrap().duration_since(now).unwrap();
    assert_eq!((left + Duration::from_secs(1)).as_secs() / 86_400, 397);
    let ca = fs::read(made.cert("ca-root.pem")).unwrap();
    let notes = prepare(&made.config, now + 368 * DAY).unwrap().notes;
    assert!(notes[0].contains("less than 30 days left"), "{notes:?}");
    assert_eq!(fs::read(made.cert("ca-root.pem")).unwrap(), ca);
    assert_eq!(examine(&made.config, now + 368 * DAY).unwrap(), State::Good);
}

/// SEC-71: a broker that runs for a year renews its own pair, and serves it from the next handshake
/// on; until then a look changes nothing.
#[test]
fn sec_71_the_servers_own_pair_is_renewed_while_it_runs() {
    let made = installation();
    let (now, metrics) = (SystemTime::now(), Metrics::new());
    let mut reloader = Reloader::start(&made.config, metrics.door().clone(), now).unwrap();
    let ca = made.cert("ca-root.pem");
    let (trusted, first) = (fs::read(&ca).unwrap(), shown(&reloader.tls(), &ca, now));
    for later in [Duration::from_secs(60), 13 * DAY / 24, 366 * DAY] {
        reloader.poll(now + later);
        let same = shown(&reloader.tls(), &ca, now + later);
        assert_eq!(same, first, "{later:?}");
    }
    // 29 days and a half before its end.
    let late = now + 367 * DAY + DAY / 2;
    reloader.poll(late);
    let second = shown(&reloader.tls(), &ca, late);
    assert_ne!(second, first);
    let end = not_after(&second.into()).unwrap();
    assert!(end > now + 700 * DAY, "{end:?}");
    assert_eq!(fs::read(&ca).unwrap(), trusted, "clients go on trusting");
    let figures = metrics.render();
    let row = "tollgate_certificate_reloads_total 1";
    assert!(figures.lines().any(|line| line == row), "{figures}");
    // A clock that was set back does not keep it from being seen again.
    reloader.poll(now);
    reloader.poll(now + 800 * DAY);
    shown(&reloader.tls(), &ca, now + 800 * DAY);
}

/// A clock that stands still.
#[derive(Debug)]
struct At(SystemTime);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

/// The certificate that a listener shows to a client that trusts `ca`, and that is good then.
fn shown(tls: &Tls, ca: &Path, now: SystemTime) -> Vec<u8> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let client = ClientConfig::builder_with_details(provider(), Arc::new(At(now)))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let tls = tls.clone();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let socket = tokio::net::TcpStream::from_std(accepted).unwrap();
            tls.accept(socket).await.map(drop)
        })
    });
    while client.is_handshaking() {
        client.complete_io(&mut socket).unwrap();
    }
    server.join().unwrap().unwrap();
    client.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_changed_list_of_names_makes_a_new_certificate() {
    let mut made = installation();
    prepare(&made.config, SystemTime::now()).unwrap();
    made.config.certs.names = vec!["new.example".to_owned()];
    let notes = prepare(&made.config, SystemTime::now()).unwrap().notes;
    assert!(notes[0].contains("lacks new.example"), "{notes:?}");
    assert!(made.handshake("new.example", &[&TLS13]).is_ok());
    made.config.certs.names.clear(); // a name that is gone must go from the certificate
    let notes = prepare(&made.config, SystemTime::now()).unwrap().notes;
    assert!(notes[0].contains("certs.names has changed"), "{notes:?}");
    assert!(made.handshake("new.example", &[&TLS13]).is_err());
}

#[test]
fn the_ca_is_renewed_in_time_and_old_clients_go_on_trusting() {
    let made = installation();
    let now = SystemTime::now();
    // A CA of nine years ago, and its certificate as clients have it.
    prepare(&made.config, now - 3_400 * DAY).unwrap();
    let old_ca = made.dir.path().join("old-ca.pem");
    fs::copy(made.cert("ca-root.pem"), &old_ca).unwrap();
    let key = fs::read(made.secret("ca.key")).unwrap();
    let prepared = prepare(&made.config, now).unwrap();
    assert!(
        prepared.notes[0].contains("made the CA"),
        "{:?}",
        prepared.notes
    );
    assert_ne!(
        fs::read(made.cert("ca-root.pem")).unwrap(),
        fs::read(&old_ca).unwrap()
    );
    assert_eq!(fs::read(made.secret("ca.key")).unwrap(), key);
    for ca in [&old_ca, &made.cert("ca-root.pem")] {
        assert!(handshake(&prepared.pair, ca, "localhost", &[&TLS13]).is_ok());
    }
}

#[test]
fn without_the_cas_key_a_good_pair_stays_and_a_bad_one_is_refused_with_advice() {
    let made = installation();
    let now = SystemTime::now();
    prepare(&made.config, now).unwrap();
    fs::remove_file(made.secret("ca.key")).unwrap();
    assert_eq!(examine(&made.config, now).unwrap(), State::Good);
    let before = made.files();
    let notes = prepare(&made.config, now + 380 * DAY).unwrap().notes;
    assert!(
        notes[0].contains("not renewed") && notes[0].contains("ca.key"),
        "{notes:?}"
    );
    let error = prepare(&made.config, now + 400 * DAY).unwrap_err();
    assert!(
        matches!(error, CertificateError::CaKeyGone { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("backup"), "{error}");
    assert_eq!(made.files(), before);
}

#[test]
fn a_crash_between_key_and_certificate_is_mended() {
    let made = installation();
    let now = SystemTime::now();
    prepare(&made.config, now).unwrap();
    let key = issue::new_key().unwrap();
    files::write_secret(&made.secret("server.key"), &key.serialize_pem()).unwrap();
    let notes = prepare(&made.config, now).unwrap().notes;
    assert!(notes[0].contains("does not belong"), "{notes:?}");
    assert!(made.handshake("localhost", &[&TLS13]).is_ok());
    fs::remove_file(made.cert("ca-root.pem")).unwrap(); // made again from its key
    let ca_gone = prepare(&made.config, now).unwrap().notes;
    assert_eq!(ca_gone.len(), 2);
    assert!(made.handshake("localhost", &[&TLS13]).is_ok());
}

#[test]
fn a_key_of_another_ca_is_refused_and_nothing_is_served_with_it() {
    let (made, other) = (installation(), installation());
    let now = SystemTime::now();
    prepare(&made.config, now).unwrap();
    prepare(&other.config, now).unwrap();
    let before = fs::read(made.cert("server.pem")).unwrap();
    fs::copy(other.secret("ca.key"), made.secret("ca.key")).unwrap();
    let error = prepare(&made.config, now + 380 * DAY).unwrap_err();
    assert!(
        matches!(error, CertificateError::CaMismatch { .. }),
        "{error}"
    );
    assert_eq!(fs::read(made.cert("server.pem")).unwrap(), before);
}

#[test]
fn a_pair_of_the_operator_is_never_touched() {
    let (mut made, other) = (installation(), installation());
    let now = SystemTime::now();
    prepare(&other.config, now).unwrap();
    // Ours by origin, but without the note above it: as if brought by the operator.
    let pem = fs::read_to_string(other.cert("server.pem")).unwrap();
    let bare = pem.split_once("\n\n").unwrap().1;
    fs::create_dir_all(made.dir.path().join("certs")).unwrap();
    fs::create_dir_all(made.dir.path().join("secrets")).unwrap();
    fs::write(made.cert("server.pem"), bare).unwrap();
    fs::copy(other.secret("server.key"), made.secret("server.key")).unwrap();
    let before = made.files();
    assert_eq!(examine(&made.config, now + 390 * DAY).unwrap(), State::Own);
    assert_eq!(
        prepare(&made.config, now + 390 * DAY).unwrap().notes,
        Vec::<String>::new()
    );
    assert_eq!(made.files(), before);
    // And the same by the keys of the configuration.
    let pair = CertificatePair {
        certificate: other.cert("server.pem"),
        key: other.secret("server.key"),
    };
    made.config.mqtts.own_pair = Some(pair.clone());
    let prepared = prepare(&made.config, now + 390 * DAY).unwrap();
    assert_eq!((prepared.pair, made.files()), (pair, before));
}

#[test]
fn a_missing_broken_or_mismatched_file_is_named_with_what_to_do() {
    let (made, other) = (installation(), installation());
    let good = prepare(&made.config, SystemTime::now()).unwrap().pair;
    let theirs = prepare(&other.config, SystemTime::now()).unwrap().pair;
    let path = |name: &str| made.dir.path().join(name);
    let text = fs::read_to_string(&good.certificate).unwrap();
    fs::write(path("cut.pem"), &text[..text.len() / 2]).unwrap();
    fs::write(path("empty.pem"), "").unwrap();
    let der = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    fs::write(path("not-der.pem"), der).unwrap();
    fs::write(path("empty.key"), "").unwrap();
    fs::set_permissions(path("empty.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let cases = [
        (
            path("none.pem"),
            good.key.clone(),
            "none.pem: the certificate is missing",
        ),
        (
            good.certificate.clone(),
            path("none.key"),
            "none.key: the private key is missing",
        ),
        (
            path("cut.pem"),
            good.key.clone(),
            "cut.pem: this is no PEM certificate",
        ),
        (
            path("empty.pem"),
            good.key.clone(),
            "empty.pem: this is no PEM certificate",
        ),
        (
            path("not-der.pem"),
            good.key.clone(),
            "not-der.pem: this is no PEM certificate",
        ),
        (
            good.certificate.clone(),
            path("empty.key"),
            "empty.key: this is no PEM private key",
        ),
        (
            good.certificate.clone(),
            theirs.key,
            "the key does not belong to the certificate",
        ),
        (
            made.dir.path().to_path_buf(),
            good.key.clone(),
            "the certificate cannot be read",
        ),
    ];
    for (certificate, key, expected) in cases {
        let error = load_server_config(&CertificatePair { certificate, key }).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    fs::set_permissions(&good.key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = load_server_config(&good).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("others may read this key (mode 644)"),
        "{error}"
    );
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let made = installation();
    fs::write(
        made.dir.path().join("secrets"),
        "a file where the directory should be",
    )
    .unwrap();
    let error = prepare(&made.config, SystemTime::now()).unwrap_err();
    assert!(error.to_string().contains("cannot be written"), "{error}");
}

#[test]
fn each_ca_has_its_own_name_and_a_name_no_certificate_can_hold_is_refused() {
    let (one, other) = (issue::new_key().unwrap(), issue::new_key().unwrap());
    let now = SystemTime::now();
    let name = |key| {
        let pem = issue::ca_pem(key, now).unwrap();
        assert!(pem.len() < 1_000, "small enough for a small device");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let text = String::from_utf8_lossy(&der).into_owned();
        let at = text.find("Tollgate CA ").unwrap();
        text[at..at + 20].to_owned()
    };
    assert_eq!(name(&one), name(&one), "it follows from the key");
    assert_ne!(name(&one), name(&other));
    let note = Note {
        names: vec!["ü".to_owned()],
        configured: Vec::new(),
    };
    let Err(error) = issue::server(&one, &other, &note, now, now + DAY) else {
        panic!("a name that is not ASCII was taken");
    };
    assert!(matches!(error, CertificateError::Making { .. }), "{error}");
}
