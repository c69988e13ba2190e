//! The settings: what each place may say, which place wins, and what each refusal tells.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at what it does not expect"
)]

use std::{ffi::OsString, fs, path::PathBuf};

use tempfile::TempDir;
use tollgate::config::{
    CertificatePair, Config, ConfigError, ConnackStyle, DeviceSessions, KEYS, Key, LogFormat,
    Place, Shape, Sources,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml");

/// A configuration file in a directory of its own.
struct Written {
    _dir: TempDir,
    path: PathBuf,
}

fn written(text: &str) -> Written {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    fs::write(&path, text).unwrap();
    Written { _dir: dir, path }
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    let file = written(text);
    Config::load(&Sources {
        file: Some(file.path),
        ..Sources::default()
    })
}

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn from_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    // Another file than ./config.toml, which is the source's own.
    let file = written("[log]\nlevel = \"info\"\n");
    let environment = environment(variables);
    let file = Some(file.path);
    Config::load(&Sources {
        file,
        environment,
        ..Sources::default()
    })
}

/// The message, with the place of the file cut to its name.
fn refusal(result: Result<Config, ConfigError>) -> String {
    let message = result.expect_err("this must be refused").to_string();
    match message.find("config.toml") {
        Some(at) => message[at..].to_owned(),
        None => message,
    }
}

#[test]
fn the_file_in_the_source_holds_every_key_with_its_default_and_nothing_else() {
    let text = fs::read_to_string(FILE).unwrap();
    let file: toml::Table = text.parse().unwrap();
    let mut count = 0;
    for key in KEYS {
        let table = match key.section {
            "" => Some(&file),
            section => file.get(section).and_then(|section| section.as_table()),
        };
        let found = table.and_then(|table| table.get(key.name));
        let default: toml::Table = format!("value = {}", key.default).parse().unwrap();
        assert_eq!(found, default.get("value"), "{}", key.path());
        count += 1;
    }
    let in_file = |value: &toml::Value| value.as_table().map_or(1, toml::Table::len);
    assert_eq!(file.values().map(in_file).sum::<usize>(), count);
}

#[test]
fn the_file_in_the_source_says_of_every_key_what_it_may_hold() {
    let text = fs::read_to_string(FILE).unwrap();
    for key in KEYS {
        let comment = comment_above(&text, key);
        let variable = key.variable();
        let named = comment.lines().any(|line| {
            line.trim_start_matches("# ")
                .split(", ")
                .any(|word| word == variable)
        });
        assert!(named, "{} does not name {variable}:\n{comment}", key.path());
        let whole = comment.replace("\n# ", " ");
        match &key.shape {
            Shape::Number { least, most, .. } => {
                let range = format!("{least} to {most} ");
                assert!(whole.contains(&range), "{}: {range}\n{comment}", key.path());
            }
            Shape::Choice(words) => {
                for word in *words {
                    assert!(
                        whole.contains(&format!("\"{word}\"")),
                        "{}: {word}",
                        key.path()
                    );
                }
            }
            _ => {}
        }
    }
}

/// The comment lines right above a key, in its section.
fn comment_above(text: &str, key: &Key) -> String {
    let mut section = "";
    let mut comment = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if line.starts_with('#') {
            comment.push_str(line);
            comment.push('\n');
        } else if section == key.section && line.starts_with(&format!("{} = ", key.name)) {
            return comment;
        } else {
            comment.clear();
        }
    }
    panic!("{} is not in config.toml", key.path());
}

#[test]
fn the_defaults_are_those_that_are_documented() {
    let config = from_file(&fs::read_to_string(FILE).unwrap()).unwrap();
    // With and without the file, everything but its name is the same.
    let bare = from_environment(&[]).unwrap();
    assert_eq!(
        Config {
            file: config.file.clone(),
            ..bare
        },
        config
    );
    assert_eq!(config.data_dir, PathBuf::from("data"));
    assert_eq!(config.mqtt.listen, ["[::]:1883".parse().unwrap()]);
    assert_eq!(config.mqtts.listen, ["[::]:8883".parse().unwrap()]);
    assert_eq!(config.http.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(config.https.listen, []);
    assert_eq!((config.ws.listen, config.wss.listen), (vec![], vec![]));
    assert_eq!(
        (config.ws.origins, config.ws.token_in_query),
        (vec![], false)
    );
    assert_eq!(config.mqtt.keep_alive_max_s, 7_200);
    assert_eq!(config.mqtt.packet_size_max_bytes, 262_144);
    assert_eq!(config.device.payload_size_max_bytes, 65_536);
    assert_eq!(config.device.sessions, DeviceSessions::One);
    assert_eq!(config.device.string_value_size_max_bytes, None);
    assert_eq!(config.journal.commit_interval.as_micros(), 1000);
    assert!(config.journal.sync_delay.is_zero());
    assert_eq!(config.history.head_size_max_bytes, 64 << 20);
    assert!(config.workers.count.get() >= 1);
    assert_eq!(config.mqtts.own_pair, None);
}

#[test]
fn every_key_can_be_set_in_the_file() {
    let config = from_file(
        r#"
        data_dir = "/var/lib/tollgate"
        secrets_dir = "/etc/tollgate/secrets"
        certs_dir = "/etc/tollgate/certs"
        [mqtt]
        listen = ["127.0.0.1:0", "[::1]:1884"]
        keep_alive_max_s = 65_535
        packet_size_max_bytes = 0x400
        receive_maximum = 1
        [mqtts]
        listen = []
        certificate = "a.pem"
        key = "b.pem"
        [certs]
        names = ["broker.example", "203.0.113.7", "2001:db8::7"]
        [http]
        listen = "off"
        [https]
        listen = "0.0.0.0:8443"
        [device]
        sessions = "per_client_id"
        payload_size_max_bytes = 1024
        send_ack_on_validation_exception = true
        cast_strings = false
        string_value_size_max_bytes = 7
        connack_style = "magenta"
        [journal]
        size_max_bytes = 201326592
        commit_interval_us = 0
        sync_delay_us = 2000
        [history]
        head_size_max_bytes = 1048576
        [workers]
        count = 3
        [log]
        format = "json"
        level = "warn,tollgate::net=debug"
"#,
    )
    .unwrap();
    assert_eq!(config.mqtt.listen.len(), 2);
    assert_eq!(config.mqtt.packet_size_max_bytes, 1_024);
    assert_eq!(
        (config.mqtts.listen.len(), config.http.listen.len()),
        (0, 0)
    );
    let pair = CertificatePair {
        certificate: "a.pem".into(),
        key: "b.pem".into(),
    };
    assert_eq!(config.mqtts.own_pair, Some(pair));
    assert_eq!(config.certs.names.len(), 3);
    assert_eq!(config.device.sessions, DeviceSessions::PerClientId);
    assert!(config.device.send_ack_on_validation_exception && !config.device.cast_strings);
    assert_eq!(config.device.string_value_size_max_bytes, Some(7));
    assert_eq!(config.device.connack_style, ConnackStyle::Magenta);
    assert_eq!(config.journal.sync_delay.as_micros(), 2_000);
    assert_eq!(config.workers.count.get(), 3);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, "warn,tollgate::net=debug");
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    for key in KEYS {
        let variable = key.variable();
        let value = match &key.shape {
            Shape::Path | Shape::OptionalPath => "/somewhere",
            Shape::Listen => "127.0.0.1:4,127.0.0.2:5",
            Shape::Names => "a.example, 10.0.0.1",
            Shape::Origins => "https://a.example, null",
            Shape::Networks => "10.0.0.0/8, ::1",
            Shape::Pairs => "/somewhere:/else",
            Shape::Rights => "publish somewhere/else",
            Shape::Switch => "true",
            Shape::Number { most, .. } => &most.to_string(),
            Shape::Choice(words) => words[1],
            Shape::LogFilter => "debug",
        };
        let mut variables = vec![(variable.as_str(), value)];
        // A few are right only beside another.
        match key.path().as_str() {
            "mqtts.certificate" => variables.push(("TOLLGATE_MQTTS_KEY", "/key")),
            "mqtts.key" => variables.push(("TOLLGATE_MQTTS_CERTIFICATE", "/certificate")),
            "mqtts.client_authority" => {
                variables.push(("TOLLGATE_MQTTS_CLIENT_CERTIFICATE", "optional"));
            }
            "mqtts.client_revocations" => {
                variables.push(("TOLLGATE_MQTTS_CLIENT_CERTIFICATE", "optional"));
                variables.push(("TOLLGATE_MQTTS_CLIENT_AUTHORITY", "/authority"));
            }
            "device.payload_size_max_bytes" => {
                variables.push(("TOLLGATE_MQTT_PACKET_SIZE_MAX_BYTES", "507904"));
            }
            _ => {}
        }
        let set = from_environment(&variables);
        let set = set.unwrap_or_else(|error| panic!("{variable}={value}: {error}"));
        let mut unset = from_environment(&[]).unwrap();
        unset.file.clone_from(&set.file);
        let is_default = format!("{value:?}") == key.default || value == key.default;
        assert!(is_default || set != unset, "{variable} sets nothing");
    }
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let file = written("[mqtt]\nlisten = \"127.0.0.1:1\"\nkeep_alive_max_s = 11\n");
    let mut sources = Sources {
        file: Some(file.path),
        ..Sources::default()
    };
    let port = |sources: &Sources| Config::load(sources).unwrap().mqtt.listen[0].port();
    assert_eq!(port(&sources), 1);
    sources.environment = environment(&[("TOLLGATE_MQTT_LISTEN", "127.0.0.1:2")]);
    assert_eq!(port(&sources), 2);
    sources.flags = vec![("mqtt.listen", "--mqtt-listen", "127.0.0.1:3".to_owned())];
    assert_eq!(port(&sources), 3);
    let config = Config::load(&sources).unwrap();
    assert_eq!(
        (config.mqtt.keep_alive_max_s, config.mqtt.receive_maximum),
        (11, 100)
    );
}

#[test]
fn the_file_is_named_by_flag_or_variable_and_the_flag_wins() {
    let (one, two) = (
        written("[mqtt]\nreceive_maximum = 1\n"),
        written("data_dir = \"two\"\n"),
    );
    let named = environment(&[("TOLLGATE_CONFIG", two.path.to_str().unwrap())]);
    let mut sources = Sources {
        environment: named,
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.data_dir, PathBuf::from("two"));
    assert_eq!(config.file, Some(two.path));
    sources.file = Some(one.path);
    assert_eq!(Config::load(&sources).unwrap().mqtt.receive_maximum, 1);
}

/// What must not be written, and a part of what is then said.
const OUT_OF_PLACE: &[(&str, &str)] = &[
    (
        "[mqtt]\nkeep_alive_max_s = 4",
        "config.toml, line 2: mqtt.keep_alive_max_s = 4: allowed \
            is a whole number from 5 to 65535 (seconds). Change it, or remove it for the default, \
            7200",
    ),
    (
        "[mqtt]\nkeep_alive_max_s = 65536",
        "= 65536: allowed is a whole number from 5 to 65535",
    ),
    (
        "[mqtt]\nkeep_alive_max_s = -1",
        "= -1: allowed is a whole number",
    ),
    (
        "[mqtt]\nkeep_alive_max_s = 9.5",
        "= 9.5: allowed is a whole number",
    ),
    (
        "[mqtt]\nkeep_alive_max_s = \"60\"",
        "= \"60\": allowed is a whole number",
    ),
    (
        "[mqtt]\nkeep_alive_max_s = 99999999999999999999",
        "allowed is a whole number",
    ),
    (
        "[mqtt]\nkeep_alive_max_s = 2026-01-01",
        "= 2026-01-01: allowed is a whole number",
    ),
    (
        "[mqtt]\nlisten = \"1883\"",
        "mqtt.listen = \"1883\": allowed is \"ADDRESS:PORT\"",
    ),
    ("[mqtt]\nlisten = \"localhost:1883\"", "with an IP address"),
    ("[mqtt]\nlisten = 1883", "mqtt.listen = 1883: allowed"),
    (
        "[mqtt]\nlisten = [\"127.0.0.1:1\", 2]",
        "= [\"127.0.0.1:1\", 2]: allowed",
    ),
    ("[mqtt]\nlisten = { port = 1 }", "= a table: allowed"),
    ("data_dir = \"\"", "data_dir = \"\": allowed is a path"),
    (
        "[mqtts]\ncertificate = 1",
        "mqtts.certificate = 1: allowed is a path",
    ),
    ("[certs]\nnames = [\"*.example\"]", "without wildcards"),
    ("[certs]\nnames = [\"-a\"]", "host names"),
    ("[certs]\nnames = [\"a b\"]", "host names"),
    (
        "[device]\nsessions = \"two\"",
        "device.sessions = \"two\": allowed is one of \"one\", \
            \"per_client_id\"",
    ),
    (
        "[device]\ncast_strings = \"true\"",
        "allowed is true or false, without quotes",
    ),
    (
        "[log]\nlevel = \"loud\"",
        "log.level = \"loud\": allowed is \"error\"",
    ),
    ("[log]\nlevel = \"=info\"", "log.level"),
    (
        "[journal]\nsize_max_bytes = 1",
        "from 201326592 to 1125899906842624 (bytes)",
    ),
];

#[test]
fn a_value_out_of_place_is_refused_with_line_key_value_and_range() {
    for (line, expected) in OUT_OF_PLACE {
        let message = refusal(from_file(&format!("{line}\n")));
        assert!(message.contains(expected), "{line}\n  {message}");
    }
    let many = vec!["\"127.0.0.1:0\""; 17].join(",");
    assert!(refusal(from_file(&format!("[mqtt]\nlisten = [{many}]\n"))).contains("mqtt.listen"));
    let many = vec!["\"a\""; 65].join(",");
    assert!(refusal(from_file(&format!("[certs]\nnames = [{many}]\n"))).contains("certs.names"));
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    for (text, expected) in [
        (
            "[mqtt]\nlisten = \"off\"\nlissen = \"off\"",
            "config.toml, line 3: there is no key \
            mqtt.lissen; the nearest is mqtt.listen. Correct the name or remove it",
        ),
        (
            "[mqtt]\nkeep_alive_max = 1",
            "the nearest is mqtt.keep_alive_max_s",
        ),
        (
            "[mqqt]\nlisten = \"off\"",
            "line 2: there is no key mqqt.listen; the nearest is \
            mqtt.listen",
        ),
        (
            "listen = \"off\"",
            "line 1: there is no key listen; the nearest is ",
        ),
        (
            "[mqtt]\ndata_dir = \"x\"",
            "there is no key mqtt.data_dir; the nearest is data_dir",
        ),
        ("[device.limits]\nx = 1", "there is no key device.limits"),
        ("mqtt = 3", "there is no key mqtt"),
        ("[qqqqqqqq]", "line 1: there is no key qqqqqqqq; remove it"),
        (
            "[device]\nsendAckOnValidationException = true",
            "line 2: \
            device.sendAckOnValidationException is called device.send_ack_on_validation_exception \
            here; rename it",
        ),
    ] {
        let message = refusal(from_file(&format!("{text}\n")));
        assert!(message.contains(expected), "{text}\n  {message}");
    }
}

#[test]
fn sec_42_s_25_a_missing_empty_cut_or_unreadable_file_stops_the_start() {
    let text = fs::read_to_string(FILE).unwrap();
    let settings = text
        .split_inclusive('\n')
        .filter(|line| !line.starts_with('#'));
    let whole: String = settings.collect();
    for text in ["", "\n\n", "# all keys are gone\n", "[mqtt]\n"] {
        assert!(
            matches!(from_file(text), Err(ConfigError::Empty { .. })),
            "{text:?}"
        );
    }
    // Cut at any byte: refused, unless the cut left whole lines, which nothing can tell apart.
    let file = written("");
    let sources = Sources {
        file: Some(file.path.clone()),
        ..Sources::default()
    };
    for end in 0..whole.len() {
        let cut = &whole[..end];
        fs::write(&file.path, cut).unwrap();
        let result = Config::load(&sources);
        assert!(result.is_err() || cut.ends_with('\n'), "{cut:?}");
    }
    let message = refusal(from_file("[mqtt]\nreceive_maximum = 1"));
    assert!(
        message.starts_with("config.toml, line 2: the configuration does not end"),
        "{message}"
    );
    let message = refusal(from_file("[mqtt]\nlisten = \n"));
    assert!(message.starts_with("config.toml, line 2: "), "{message}");
    let message = refusal(from_file("[mqtt]\nlisten = \"off\"\nlisten = \"off\"\n"));
    assert!(message.contains("duplicate"), "{message}");
    let missing = Some(file.path.with_file_name("none.toml"));
    let message = refusal(Config::load(&Sources {
        file: missing,
        ..Sources::default()
    }));
    assert!(
        message.contains("none.toml: the configuration cannot be read: "),
        "{message}"
    );
    assert!(message.contains("--config"), "{message}");
    fs::write(&file.path, b"data_dir = \"\xff\"\n").unwrap();
    let binary = Sources {
        file: Some(file.path),
        ..Sources::default()
    };
    assert!(matches!(
        Config::load(&binary),
        Err(ConfigError::Unreadable { .. })
    ));
    // Named by the environment, a missing file is refused just the same.
    let environment = environment(&[("TOLLGATE_CONFIG", "/nowhere/config.toml")]);
    let named = Sources {
        environment,
        ..Sources::default()
    };
    assert!(matches!(
        Config::load(&named),
        Err(ConfigError::Unreadable { .. })
    ));
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_known_one() {
    let message = refusal(from_environment(&[("TOLLGATE_MQTT_LISTN", "off")]));
    assert_eq!(
        message,
        "environment: there is no setting TOLLGATE_MQTT_LISTN; the nearest is \
         TOLLGATE_MQTT_LISTEN. Correct the name or remove it"
    );
    let message = refusal(from_environment(&[("TOLLGATE_ADMIN_TOKN", "tga_secret")]));
    assert!(
        message.contains("TOLLGATE_ADMIN_TOKEN") && !message.contains("secret"),
        "{message}"
    );
    for (name, value) in [
        ("TOLLGATE_MQTT_LISTEN", ""),
        ("TOLLGATE_MQTT_LISTEN", "127.0.0.1"),
        ("TOLLGATE_MQTT_RECEIVE_MAXIMUM", "many"),
        ("TOLLGATE_DEVICE_CAST_STRINGS", "yes"),
        ("TOLLGATE_DATA_DIR", ""),
    ] {
        // An empty list is a list, and means off.
        let result = from_environment(&[(name, value)]);
        if name == "TOLLGATE_MQTT_LISTEN" && value.is_empty() {
            assert!(result.unwrap().mqtt.listen.is_empty());
            continue;
        }
        let message = refusal(result);
        assert!(
            message.starts_with(&format!("environment, {name}: ")),
            "{message}"
        );
        assert!(
            message.contains(&format!("= {value:?}: allowed is ")),
            "{message}"
        );
    }
}

#[test]
fn variables_of_others_with_our_prefix_are_let_through() {
    let names = [
        "TOLLGATE_ADMIN_URL",
        "TOLLGATE_ADMIN_TOKEN",
        "TOLLGATE_TEST_ANYTHING",
        "TOLLGATE_FUZZ_SECONDS",
        "TOLLGATE_SEED",
        "TOLLGATE_MODEL_SECONDS",
        "TOLLGATE_TORTURE_CYCLES",
        // What Kubernetes sets beside a service named `tollgate`.
        "TOLLGATE_PORT",
        "TOLLGATE_PORT_1883_TCP_ADDR",
        "TOLLGATE_SERVICE_HOST",
        "TOLLGATE_SERVICE_PORT_MQTT",
        "SOMETHING_ELSE",
    ];
    let variables: Vec<_> = names.iter().map(|name| (*name, "x")).collect();
    assert!(from_environment(&variables).is_ok());
}

#[test]
fn the_short_name_of_the_log_level_is_its_variable() {
    assert_eq!(
        from_environment(&[("TOLLGATE_LOG", "debug")])
            .unwrap()
            .log
            .level,
        "debug"
    );
    let both = [("TOLLGATE_LOG", "debug"), ("TOLLGATE_LOG_LEVEL", "warn")];
    let message = refusal(from_environment(&both));
    assert!(
        message.contains("TOLLGATE_LOG and TOLLGATE_LOG_LEVEL set the same"),
        "{message}"
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused_together() {
    for (text, expected) in [
        (
            "secrets_dir = \"data/secrets\"",
            "line 1: secrets_dir = \"data/secrets\" and data_dir \
            = \"data\" lie one inside the other",
        ),
        ("secrets_dir = \"./x/../data\"", "lie one inside the other"),
        ("data_dir = \"secrets/data\"", "lie one inside the other"),
        (
            "[mqtts]\nlisten = \"127.0.0.1:1883\"",
            "line 2: mqtts.listen = \"127.0.0.1:1883\" asks \
            for 127.0.0.1:1883, which mqtt.listen = [::]:1883 has already; give one of them \
            another port",
        ),
        (
            "[mqtt]\nlisten = [\"10.0.0.1:1\", \"10.0.0.1:1\"]",
            "has already",
        ),
        (
            "[https]\nlisten = \"127.0.0.1:8080\"",
            "http.listen = 127.0.0.1:8080 has already",
        ),
        (
            "[mqtts]\ncertificate = \"a\"",
            "has no key beside it; set mqtts.key too",
        ),
        (
            "[mqtts]\nkey = \"a\"",
            "has no certificate beside it; set mqtts.certificate too",
        ),
        (
            "[mqtt]\npacket_size_max_bytes = 2000",
            "default: device.payload_size_max_bytes = 65536 \
            is larger than a packet may be (mqtt.packet_size_max_bytes = 2000)",
        ),
    ] {
        let message = from_file(&format!("{text}\n")).expect_err(text).to_string();
        assert!(message.contains(expected), "{text}\n  {message}");
    }
    let free = "[mqtt]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n";
    assert!(
        from_file(free).is_ok(),
        "any free port is never the same one"
    );
    let apart = "[mqtt]\nlisten = [\"10.0.0.1:1\", \"10.0.0.2:1\"]\n";
    assert!(from_file(apart).is_ok(), "two addresses, one port");
}

#[test]
fn a_flag_is_named_when_its_value_is_wrong() {
    let flags = vec![("mqtt.listen", "--mqtt-listen", "here".to_owned())];
    let file = written("data_dir = \"d\"\n");
    let sources = Sources {
        file: Some(file.path),
        flags,
        ..Sources::default()
    };
    let error = Config::load(&sources).unwrap_err();
    let ConfigError::Value { place, key, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (place, key.path().as_str()),
        (&Place::Flag("--mqtt-listen"), "mqtt.listen")
    );
    assert!(
        error
            .to_string()
            .starts_with("--mqtt-listen: mqtt.listen = \"here\": allowed is")
    );
}

#[test]
fn id_43_the_scopes_of_users_stand_for_what_the_specification_says() {
    let config = from_file("[log]\nlevel = \"info\"\n").unwrap();
    assert!(config.identity.cut_at_expiry);
    assert_eq!(
        config.identity.topics.each_ref().map(Vec::as_slice),
        tollgate::identity::UserTopics::DEFAULT.map(|list| list.to_vec())
    );
    let topics = |text: &str| {
        let config = from_file(&format!("[identity]\nvoip_join = [{text}]\n"));
        config.map(|config| tollgate::app::user_topics(&config).map_err(|error| error.to_string()))
    };
    assert!(topics("").unwrap().is_ok());
    assert!(topics(r#""publish call/{id}/+""#).unwrap().is_ok());
    for bad in [
        r#""call/+""#,
        r#""publish ""#,
        "7",
        &"\"publish a\",".repeat(33),
    ] {
        assert!(topics(bad).is_err(), "{bad}");
    }
    let refused = topics(r#""subscribe $SYS/#""#).unwrap().unwrap_err();
    assert!(
        refused.starts_with("identity.voip_join has the filter"),
        "{refused}"
    );
}
