//! Starts that have to be refused: the exit code, and a message that names what, where and what
//! to do.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::mount::Mount;
use crate::common::{
    broker::{Broker, Refusal, Setup},
    packets::{Connect, Version, log_in},
};

/// Wrong arguments or settings.
const CODE_SETTINGS: i32 = 2;

/// The start was refused.
const CODE_REFUSED: i32 = 4;

#[test]
fn a_wrong_key_in_the_configuration_is_refused_before_anything_is_written() {
    let setup = Setup::new();
    let file = "[mqtt]\nkeep_alive_maximum_s = 600\n";
    fs::write(setup.dir().join("config.toml"), file).expect("the file can be written");
    let (setup, refusal) = refused(setup);
    let place = "config.toml, line 2";
    let key = "mqtt.keep_alive_maximum_s";
    expect(
        &refusal,
        CODE_SETTINGS,
        &[place, key, "mqtt.keep_alive_max_s", "Correct"],
    );
    for folder in ["data", "secrets", "certs"] {
        assert!(!setup.dir().join(folder).exists(), "{folder} was made");
    }
}

#[test]
fn a_value_out_of_its_range_is_refused_with_the_range() {
    let setup = Setup::new().set("TOLLGATE_MQTT_RECEIVE_MAXIMUM", "0");
    let (_, refusal) = refused(setup);
    let words = [
        "TOLLGATE_MQTT_RECEIVE_MAXIMUM",
        "mqtt.receive_maximum",
        "from 1 to 65535",
    ];
    expect(&refusal, CODE_SETTINGS, &words);
}

#[test]
fn a_wrong_variable_is_refused_with_the_nearest() {
    let (_, refusal) = refused(Setup::new().set("TOLLGATE_DATADIR", "data"));
    let words = [
        "TOLLGATE_DATADIR",
        "TOLLGATE_DATA_DIR",
        "Correct the name or remove it",
    ];
    expect(&refusal, CODE_SETTINGS, &words);
}

#[test]
fn a_missing_certificate_is_refused_with_its_path() {
    let setup = Setup::new();
    let (certificate, key) = (setup.dir().join("mine.pem"), setup.dir().join("mine.key"));
    let setup = setup
        .set("TOLLGATE_MQTTS_CERTIFICATE", text(&certificate))
        .set("TOLLGATE_MQTTS_KEY", text(&key));
    let mut setup = setup;
    // Whichever of the two is missing is the one that is named.
    for (there, missing) in [(&key, &certificate), (&certificate, &key)] {
        fs::write(there, "").expect("a file can be written");
        fs::set_permissions(there, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        let (same, refusal) = refused(setup);
        let advice = "Restore it, or correct mqtts.certificate and mqtts.key";
        expect(&refusal, CODE_REFUSED, &[text(missing), "missing", advice]);
        fs::remove_file(there).expect("the file is ours");
        setup = same;
    }
    fs::write(&certificate, "no certificate\n").expect("a file can be written");
    fs::write(&key, "no key\n").expect("a file can be written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    let (_, refusal) = refused(setup);
    expect(
        &refusal,
        CODE_REFUSED,
        &[text(&certificate), "PEM", "Replace it"],
    );
}

#[test]
fn a_certificate_without_its_key_is_a_wrong_setting() {
    let (_, refusal) = refused(Setup::new().set("TOLLGATE_MQTTS_CERTIFICATE", "mine.pem"));
    expect(&refusal, CODE_SETTINGS, &["mqtts.certificate", "mqtts.key"]);
}

#[test]
fn a_port_in_use_is_refused_with_the_address_and_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    for (variable, key) in [
        ("TOLLGATE_MQTT_LISTEN", "mqtt.listen"),
        ("TOLLGATE_MQTTS_LISTEN", "mqtts.listen"),
        ("TOLLGATE_HTTP_LISTEN", "http.listen"),
    ] {
        let (_, refusal) = refused(Setup::new().set(variable, &address));
        let advice = "stop it, or choose another port";
        expect(&refusal, CODE_REFUSED, &[&address, key, "in use", advice]);
    }
}

/// REL-09: the second broker changes nothing; the first goes on.
#[test]
fn rel_09_a_data_directory_in_use_is_refused() {
    let broker = Broker::start();
    let token = broker.create_device("pump");
    let mut wire = broker.wire();
    log_in(
        &mut wire,
        &Connect::with_token(Version::V311, "pump", &token),
    );
    let output = broker.start_second();
    let refusal = Refusal {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    let data = broker.dir().join("data");
    expect(&refusal, CODE_REFUSED, &["in use", text(&data), "stop"]);
    wire.expect_alive();
    broker.create_device("valve");
}

#[test]
fn a_read_only_data_directory_is_refused_with_its_path() {
    let mount = Mount::tmpfs(300);
    let (data, empty) = (mount.folder("data"), mount.folder("empty"));
    let broker = Setup::new().set("TOLLGATE_DATA_DIR", text(&data)).start();
    broker.create_device("pump");
    let setup = broker.into_setup();
    mount.read_only();
    for data in [data, empty] {
        let (_, refusal) = refused(setup_like(&setup).set("TOLLGATE_DATA_DIR", text(&data)));
        let what = last_words(&refusal).to_lowercase();
        assert!(
            what.contains("read-only") || what.contains("readonly"),
            "{refusal:#?}"
        );
        expect(&refusal, CODE_REFUSED, &[text(&data), "data_dir"]);
    }
}

/// A data directory that cannot even be made.
#[test]
fn a_data_directory_below_a_file_is_refused_with_its_path() {
    let setup = Setup::new();
    let file = setup.dir().join("file");
    fs::write(&file, "").expect("a file can be written");
    let data = file.join("data");
    let (_, refusal) = refused(setup.set("TOLLGATE_DATA_DIR", text(&data)));
    expect(&refusal, CODE_REFUSED, &[text(&data)]);
}

#[test]
fn a_lost_registry_key_is_refused_with_the_way_back() {
    let (setup, key) = setup_with_device();
    let kept = fs::read(&key).expect("the key is there");
    fs::remove_file(&key).expect("the key can be removed");
    let (setup, refusal) = refused(setup);
    expect(
        &refusal,
        CODE_REFUSED,
        &[text(&key), "missing", "backup", "0600"],
    );
    // It was not made anew in silence: with the old one back, all is well.
    assert!(!key.exists());
    fs::write(&key, kept).expect("the key can be written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the key is ours");
    let broker = setup.start();
    assert!(broker.cli_ok(&["device", "list"]).contains("pump"));
}

#[test]
fn the_registry_key_of_another_installation_is_refused() {
    let (setup, key) = setup_with_device();
    let other = "0123456789abcdef".repeat(4) + "\n";
    fs::write(&key, other).expect("the key can be written");
    let (_, refusal) = refused(setup);
    expect(
        &refusal,
        CODE_REFUSED,
        &[text(&key), "not the one", "Put back"],
    );
}

#[test]
fn secrets_that_others_can_read_are_refused_with_the_command_that_closes_them() {
    let (setup, key) = setup_with_device();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("the key is ours");
    let (_, refusal) = refused(setup);
    expect(&refusal, CODE_REFUSED, &[text(&key), "0644", "chmod"]);
}

#[test]
fn a_damaged_state_database_is_refused_with_the_way_back() {
    let (setup, _) = setup_with_device();
    let file = setup.dir().join("data/state.db");
    let whole = fs::read(&file).expect("the database is there");
    // Its first page stays: what is damaged is what is in it.
    let mut damaged = whole.clone();
    damaged[4096..].fill(0x5a);
    for bytes in [&damaged[..], &whole[..50], b"not a database, not by far"] {
        fs::write(&file, bytes).expect("the database can be written");
        for beside in ["state.db-wal", "state.db-shm"] {
            let _ = fs::remove_file(setup.dir().join("data").join(beside));
        }
        let (_, refusal) = refused(setup_like(&setup));
        expect(&refusal, CODE_REFUSED, &[text(&file)]);
        let words = last_words(&refusal);
        assert!(
            words.contains("restore") || words.contains("move"),
            "{words}"
        );
        assert_eq!(
            fs::read(&file).expect("it is there"),
            bytes,
            "it was changed"
        );
    }
}

/// A broker that made its directories and one device, stopped; the path of its registry key.
fn setup_with_device() -> (Setup, PathBuf) {
    let broker = Broker::start();
    broker.create_device("pump");
    let setup = broker.into_setup();
    let key = setup.dir().join("secrets/registry.key");
    (setup, key)
}

/// A setup that uses the directories of another one, which stays.
fn setup_like(setup: &Setup) -> Setup {
    let mut like = Setup::new();
    for (key, name) in [
        ("TOLLGATE_DATA_DIR", "data"),
        ("TOLLGATE_SECRETS_DIR", "secrets"),
        ("TOLLGATE_CERTS_DIR", "certs"),
    ] {
        like = like.set(key, text(&setup.dir().join(name)));
    }
    like
}

/// Starts what must be refused.
fn refused(setup: Setup) -> (Setup, Refusal) {
    match setup.try_start() {
        Err(refused) => refused,
        Ok(broker) => panic!("it started: {}", broker.stderr()),
    }
}

/// The exit code, nothing served, and these words in the last message.
fn expect(refusal: &Refusal, code: i32, words: &[&str]) {
    assert_eq!(refusal.code, Some(code), "{refusal:#?}");
    assert!(!refusal.stdout.contains("listening"), "{refusal:#?}");
    let last = last_words(refusal);
    for word in words {
        assert!(last.contains(word), "{word:?} is not in: {last}");
    }
}

/// What the program said at its end; a message may have several lines.
fn last_words(refusal: &Refusal) -> &str {
    let at = refusal.stderr.rfind("tollgate: ");
    let at = at.unwrap_or_else(|| panic!("it ended without a word: {refusal:#?}"));
    &refusal.stderr[at..]
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}
