//! The data directory and the log hold no token and no key in clear (SEC-51, SEC-55).

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::rig::admin::Admin;
use crate::common::{
    broker::{Broker, Setup},
    packets::{Connect, TELEMETRY, VERSIONS, Version, log_in, publish},
    wire::hex,
};

/// What must not be found, under the name by which a finding is told.
struct Secret {
    name: String,
    bytes: Vec<u8>,
}

/// A lively run with the log at its most verbose, then every byte of the data directory, of the
/// certificates' folder and of the log is searched for every token and key that was used, plain,
/// in hexadecimal and in Base64.
#[test]
fn sec_51_neither_data_nor_log_holds_a_token_or_a_key() {
    let setup = Setup::new().set("TOLLGATE_LOG_LEVEL", "trace");
    let mut broker = setup.start();
    let generated = broker.create_device("generated");
    broker.create_device_with_token("chosen", CHOSEN);
    let rotated = broker.create_device("rotated");
    let renewed = broker.cli_json(&["device", "rotate", "rotated", "--grace", "0s", "--json"]);
    let renewed = renewed["token"].as_str().expect("a token").to_owned();
    let revoked = broker.create_device("revoked");
    broker.revoke("revoked");
    let deleted = broker.create_device("deleted");
    broker.cli_ok(&["device", "delete", "deleted"]);
    broker.cli(&["token", "check", &generated]);
    broker.cli(&["token", "check", &revoked]);

    let live = [generated.as_str(), CHOSEN, &renewed];
    let dead = [rotated.as_str(), &revoked, &deleted, UNKNOWN];
    for version in VERSIONS {
        for token in live {
            publish_and_misbehave(&broker, version, token);
        }
        for token in dead {
            let mut wire = broker.wire();
            wire.send(&Connect::with_token(version, "client", token).encode());
            assert_ne!(wire.packet()[3], 0);
        }
    }
    let mut tls = broker.wire_tls();
    log_in(
        &mut tls,
        &Connect::with_token(Version::V311, "client", live[0]),
    );
    misuse_the_admin_api(&broker.admin_url());
    let admin = Admin::new(broker.dir());
    let view = admin.get(broker.address("http"), "/devices");
    assert!(view.expect("an answer")["devices"].is_array());
    // Also what only a crash leaves behind, and what a clean stop does.
    broker.kill9();
    broker.restart();
    assert_eq!(broker.stop(), 0, "{}", broker.stderr());

    let mut secrets: Vec<Secret> = live
        .iter()
        .chain(&dead)
        .chain(&[PASSWORD, WRONG_ADMIN, BAD_PAYLOAD])
        .enumerate()
        .flat_map(|(at, text)| forms(&format!("token or text {at}"), text.as_bytes()))
        .collect();
    secrets.extend(files_of(&broker.dir().join("secrets")));
    let payload = forms("payload", PAYLOAD.as_bytes());
    let mut found = Vec::new();
    for folder in ["data", "certs"] {
        for file in files_below(&broker.dir().join(folder)) {
            found.extend(find(&file, &secrets));
        }
    }
    let log = broker.dir().join("stderr.log");
    found.extend(find(&log, &secrets));
    found.extend(find(&log, &payload));
    assert!(found.is_empty(), "{}", found.join("\n"));

    // The search itself: what is surely there is found, in the same files.
    let data = files_below(&broker.dir().join("data"));
    assert!(data.iter().any(|file| !find(file, &payload).is_empty()));
    let name = forms("name", b"generated");
    assert!(data.iter().any(|file| !find(file, &name).is_empty()));
    let verbose = fs::read_to_string(&log).expect("the log is there");
    assert!(verbose.contains("DEBUG"), "the log was not verbose");
}

/// A good message, a bad payload and a broken protocol: what is in them stays unsaid in the log.
fn publish_and_misbehave(broker: &Broker, version: Version, token: &str) {
    let mut wire = broker.wire();
    let connect = Connect {
        password: Some(PASSWORD.as_bytes()),
        ..Connect::with_token(version, "client", token)
    };
    log_in(&mut wire, &connect);
    let good = format!(r#"{{"a":"{PAYLOAD}"}}"#);
    wire.send(&publish(version, 1, 1, TELEMETRY, good.as_bytes()));
    assert_eq!(wire.packet()[0], 0x40);
    let bad = format!(r#"{{"a":{BAD_PAYLOAD}"#);
    wire.send(&publish(version, 1, 2, TELEMETRY, bad.as_bytes()));
    wire.send(&connect.encode()); // a second CONNECT
    wire.packets_until_close();
}

#[test]
fn every_form_of_a_secret_is_found_wherever_it_stands() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let secrets = forms("it", b"Secret-\xff\xfe-token");
    for (at, secret) in secrets.iter().enumerate() {
        let file = dir.path().join(at.to_string());
        for before in [0, 1, CHUNK_BYTES - 3, CHUNK_BYTES + 5] {
            let mut bytes = vec![0; before];
            bytes.extend(&secret.bytes);
            fs::write(&file, bytes).expect("a file can be written");
            let found = find(&file, &secrets);
            assert!(!found.is_empty(), "{} behind {before} bytes", secret.name);
        }
    }
    assert_eq!(base64(b"Ma"), "TWE=");
    assert_eq!(base64(b"Man"), "TWFu");
}

const CHOSEN: &str = "chosen-by-hand-Zq83hdK2";
const UNKNOWN: &str = "tgd_unknownUNKNOWNunknownUNKNOWN00001111";
const PASSWORD: &str = "a-password-beside-the-token-7Gk2";
const WRONG_ADMIN: &str = "tga_wrongWRONGwrongWRONGwrongWRONG99998888";
const PAYLOAD: &str = "payload-marker-Xu71nb";
const BAD_PAYLOAD: &str = "bad-payload-marker-Pw93mc";

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Tokens where they do not belong: wrong, in the address, in a body that is refused.
fn misuse_the_admin_api(url: &str) {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .new_agent();
    let bearer = format!("Bearer {WRONG_ADMIN}");
    for path in ["/admin/v1/devices", "/metrics"] {
        let address = format!("{url}{path}?access_token={WRONG_ADMIN}&token={UNKNOWN}");
        let reply = agent.get(address).header("authorization", &bearer).call();
        reply.expect("an answer");
    }
    let body = format!(r#"{{"name":"x","token":"{UNKNOWN}","tokn":"{UNKNOWN}"}}"#);
    let request = agent.post(format!("{url}/admin/v1/devices"));
    let reply = request.header("authorization", &bearer).send(body);
    assert!(!reply.expect("an answer").status().is_success());
}

/// The content of every file in the secrets folder; keys in hexadecimal also as the bytes that
/// they stand for.
fn files_of(secrets: &Path) -> Vec<Secret> {
    let mut all = Vec::new();
    for file in files_below(secrets) {
        let name = file
            .file_name()
            .expect("files have names")
            .to_string_lossy();
        let text = fs::read_to_string(&file).expect("secrets are text");
        // PEM: the lines of the key itself. Others: one line.
        let is_secret = |line: &&str| line.len() >= 16 && !line.starts_with("-----");
        // The first start's lines to paste have a token among their words.
        let is_token = |word: &&str| word.starts_with("tgd_") || word.starts_with("tga_");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(is_token) {
            all.extend(forms(&format!("token in {name}"), word.as_bytes()));
        }
        for line in text.lines().map(str::trim).filter(is_secret) {
            all.extend(forms(&name, line.as_bytes()));
            if line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                all.extend(forms(&format!("bytes of {name}"), &hex(line)));
            }
        }
    }
    assert!(!all.is_empty(), "there are secrets");
    all
}

/// The forms in which a secret could have been written.
fn forms(name: &str, secret: &[u8]) -> Vec<Secret> {
    let mut forms = vec![(String::new(), secret.to_vec())];
    let lower: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    forms.push((
        " in hexadecimal".to_owned(),
        lower.to_uppercase().into_bytes(),
    ));
    forms.push((" in hexadecimal".to_owned(), lower.into_bytes()));
    for shift in 0..3 {
        // Inside of a longer text its place decides on the digits; those at both ends, which
        // depend on neighbours, are left out.
        let mut shifted = vec![0; shift];
        shifted.extend(secret);
        let digits = base64(&shifted);
        let first = (shift * 8).div_ceil(6);
        let whole = shifted.len() * 8 / 6;
        let inner = &digits[first..whole];
        let safe = inner.replace('+', "-").replace('/', "_");
        forms.push((
            format!(" in Base64, place {shift}"),
            inner.as_bytes().to_vec(),
        ));
        forms.push((format!(" in Base64, place {shift}"), safe.into_bytes()));
    }
    let named = |(form, bytes)| Secret {
        name: format!("{name}{form}"),
        bytes,
    };
    forms.into_iter().map(named).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = usize::try_from(bits >> (18 - 6 * place) & 63).expect("six bits");
            let is_there = place <= three.len();
            text.push(if is_there {
                char::from(DIGITS[digit])
            } else {
                '='
            });
        }
    }
    text
}

/// Where a secret stands in the file.
fn find(file: &Path, secrets: &[Secret]) -> Vec<String> {
    use std::io::Read;

    // Most of a segment is zeros; the first two bytes of every needle sort out the rest.
    let mut begins = vec![false; 1 << 16];
    let pair = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
    for secret in secrets {
        begins[pair(&secret.bytes)] = true;
    }
    let longest = secrets.iter().map(|secret| secret.bytes.len()).max();
    let overlap = longest.expect("there are secrets") - 1;
    let mut reader = fs::File::open(file).expect("the file opens");
    let mut window: Vec<u8> = Vec::new();
    let mut found = Vec::new();
    loop {
        let keep = window.len().min(overlap);
        window.drain(..window.len() - keep);
        let mut chunk = (&mut reader).take(CHUNK_BYTES as u64);
        if chunk
            .read_to_end(&mut window)
            .expect("the file can be read")
            == 0
        {
            return found;
        }
        for at in 0..window.len() - 1 {
            if !begins[pair(&window[at..])] {
                continue;
            }
            for secret in secrets {
                if window[at..].starts_with(&secret.bytes) {
                    found.push(format!("{} is in {}", secret.name, file.display()));
                }
            }
        }
    }
}

/// All files, however deep.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
