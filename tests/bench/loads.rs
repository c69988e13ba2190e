//! Runs that come to their end: every figure is there and adds up.

use std::{fs, process::Command};

use crate::{
    common::{broker::Setup, tools},
    rig::{Fleet, Mosquitto, Raw, TOLLGATE, bench, figures, number, refused},
};

#[test]
fn every_message_is_acknowledged_in_each_qos_and_version() {
    let raw = Raw::start();
    for flags in [
        "--qos 0 --mqtt 3.1.1 --connections 3",
        "--qos 1 --mqtt 5 --connections 10 --window 32 --token t",
        "--qos 1 --mqtt 3.1 --connections 10 --window 2 --token t",
        "--qos 2 --mqtt 3.1.1 --connections 2 --window 7 --payload-bytes 7 --token t",
        "--qos 2 --mqtt 5 --connections 2 --window 5000 --payload-bytes 100",
    ] {
        let figures = figures(&format!("ingest --seconds 1 --port {} {flags}", raw.port));
        assert!(number(&figures, "messages") > 0.0, "{figures}");
        for name in ["unacknowledged", "refused", "lost_connections"] {
            assert_eq!(figures[name], 0, "{flags}: {figures}");
        }
        let has_acks = !flags.contains("--qos 0");
        assert_eq!(figures["ack_us"]["p50"].is_u64(), has_acks, "{figures}");
    }
}

#[test]
fn a_rate_is_kept_and_the_brokers_cpu_is_counted() {
    let raw = Raw::start();
    let pid = raw.process.pid();
    let figures = figures(&format!(
        "ingest --seconds 2 --rate 500 --connections 20 --source 127.0.0.2,127.0.0.3 \
         --port {} --broker-pid {pid} --perf",
        raw.port
    ));
    // A busy machine may be late with the last ones, never early.
    let messages = number(&figures, "messages");
    assert!((100.0..=1_000.0).contains(&messages), "{figures}");
    assert!(number(&figures, "cpu_us_per_message") > 0.0, "{figures}");
    assert!(number(&figures, "rss_kib") > 0.0, "{figures}");
    // Where there are no counters it is said, and the rest is measured all the same.
    let is_counted = figures["instructions_per_message"].is_object();
    assert_ne!(is_counted, figures["instructions_missing"].is_string());
}

#[test]
fn the_ledger_of_a_tollgate_balances_with_what_was_sent() {
    let fleet = Fleet::start(2);
    let (port, pid) = (fleet.broker.mqtt_port(), fleet.broker.pid());
    let (tokens, ledger) = (&fleet.file, fleet.ledger_url());
    for (flags, mqtt) in [
        ("--qos 0", "3.1.1"),
        ("--qos 1 --window 32", "3.1"),
        ("--qos 2 --window 8", "5"),
        (
            "--rate 2000 --payload {\"c\":{connection},\"r\":{random}}",
            "5",
        ),
    ] {
        let figures = figures(&format!(
            "ingest --seconds 1 --connections 10 --port {port} --tokens {tokens} --mqtt {mqtt} \
             --ledger-url {ledger} --broker-pid {pid} {flags}"
        ));
        assert_eq!(figures["ledger"]["received"], figures["messages"]);
        assert_eq!(
            figures["ledger"]["stored"], figures["messages"],
            "{figures}"
        );
        let groups = &figures["cpu_us_per_message_by_thread"];
        assert!(number(groups, "net") > 0.0, "{figures}");
        assert!(number(groups, "journal") > 0.0, "{figures}");
    }
    // The template's values arrived, different ones for different connections and messages.
    let values = fleet.broker.values("device-1", "c");
    assert!(values.iter().all(|value| value.as_u64().unwrap() % 2 == 1));
    let mut random = fleet.broker.values("device-1", "r");
    random.dedup();
    assert!(random.len() > 10, "{random:?}");
}

#[test]
fn a_ledger_of_somebody_else_does_not_balance() {
    let (raw, fleet) = (Raw::start(), Fleet::start(0));
    let ledger = fleet.ledger_url();
    let flags = format!(
        "ingest --seconds 1 --port {} --ledger-url {ledger}",
        raw.port
    );
    let (figures, said) = refused(&flags, 1);
    assert!(number(&figures, "messages") > 0.0);
    assert!(said.contains("the broker received 0, stored 0"), "{said}");
    let wrong = flags.replace("/metrics", "/healthz");
    let (_, said) = refused(&wrong, 1);
    assert!(
        said.contains("there is no tollgate_messages_received_total"),
        "{said}"
    );
}

#[test]
fn ingest_over_tls_is_acknowledged() {
    let fleet = Fleet::start(1);
    let figures = figures(&format!(
        "ingest --seconds 1 --connections 10 --window 4 --tokens {} --ledger-url {} {}",
        fleet.file,
        fleet.ledger_url(),
        fleet.tls()
    ));
    assert_eq!(figures["ledger"]["stored"], figures["messages"]);
    assert_eq!(
        (&figures["tls"], &figures["mqtt"]),
        (&true.into(), &"3.1.1".into())
    );
    assert!(number(&figures, "messages") > 0.0);
}

#[test]
fn connections_come_and_go_at_any_broker() {
    let (raw, mosquitto, fleet) = (Raw::start(), Mosquitto::start(), Fleet::start(3));
    for (port, flags) in [
        (raw.port, String::new()),
        (mosquitto.port, String::new()),
        (fleet.broker.mqtt_port(), format!("--tokens {}", fleet.file)),
    ] {
        let figures = figures(&format!(
            "connect --seconds 2 --rate 500 --in-progress 4 --mqtt 5 --port {port} {flags}"
        ));
        // More than there are at a time: some came when others had gone.
        assert!(number(&figures, "accepted") > 4.0, "{figures}");
        assert!(number(&figures["connack_us"], "p99") > 0.0, "{figures}");
        assert_eq!(figures["failed"], serde_json::json!({}), "{figures}");
    }
}

#[test]
fn connections_come_at_a_rate_when_one_is_asked_for() {
    let raw = Raw::start();
    let flags = format!("connect --seconds 2 --rate 40 --port {}", raw.port);
    let accepted = number(&figures(&flags), "accepted");
    // The first comes at once, the last just before the end. A generator that gets no core is late,
    // but never early.
    assert!((2.0..=81.0).contains(&accepted), "{accepted}");
}

#[test]
fn tls_sessions_are_resumed_only_when_asked_for() {
    let fleet = Fleet::start(2);
    let flags = format!(
        "connect --seconds 3 --rate 300 --in-progress 4 --tokens {} {}",
        fleet.file,
        fleet.tls()
    );
    let full = figures(&flags);
    assert_eq!(full["resumed_tls"], 0, "{full}");
    let resumed = figures(&format!("{flags} --resume"));
    let (all, shortened) = (
        number(&resumed, "accepted"),
        number(&resumed, "resumed_tls"),
    );
    assert!(shortened > 0.0 && shortened >= all - 4.0, "{resumed}");
}

#[test]
fn refused_connections_are_counted_by_code() {
    let fleet = Fleet::start(1);
    let file = fleet.broker.dir().join("mixed");
    fs::write(
        &file,
        format!("{}\nnobody-has-this-token\n", fleet.tokens[0]),
    )
    .unwrap();
    let flags = format!(
        "connect --seconds 1 --rate 500 --in-progress 2 --port {}",
        fleet.broker.mqtt_port()
    );
    let mixed = figures(&format!("{flags} --tokens {}", file.display()));
    assert!(number(&mixed, "accepted") > 0.0, "{mixed}");
    assert!(number(&mixed["refused"], "0x05") > 0.0, "{mixed}");
    let (none, said) = refused(&format!("{flags} --mqtt 5 --token nobody-has-this"), 6);
    assert_eq!(none["accepted"], 0, "{none}");
    assert!(said.contains("CONNACK code 0x8"), "{said}");
    // A load needs all of its connections.
    let flags = format!("--port {} --token nobody", fleet.broker.mqtt_port());
    for command in ["ingest", "idle", "fanout"] {
        let (_, said) = refused(&format!("{command} {flags}"), 6);
        assert!(said.contains("are the tokens known?"), "{command}: {said}");
    }
}

#[test]
fn a_storm_is_let_in_while_a_probe_publishes() {
    let fleet = Fleet::start(8);
    let figures = figures(&format!(
        "connect --at-once 40 --resume --tokens {} {} --probe-token {} --quiet-s 1",
        fleet.file,
        fleet.tls(),
        fleet.tokens[7],
    ));
    assert_eq!(
        (&figures["accepted"], &figures["at_once"]),
        (&40.into(), &true.into())
    );
    assert_eq!(figures["resumed_tls"], 40, "{figures}");
    let probe = &figures["probe"];
    assert!(number(&probe["quiet"], "acks") > 0.0, "{figures}");
    assert!(number(&probe["quiet"]["ack_us"], "p99") > 0.0, "{figures}");
    assert!(probe["storm"]["acks"].is_u64(), "{figures}");
}

#[test]
fn idle_connections_stay_and_their_memory_is_measured() {
    let fleet = Fleet::start(10);
    let pid = fleet.broker.pid();
    let plain = format!("--port {}", fleet.broker.mqtt_port());
    for (flags, connections) in [(plain, 80), (fleet.tls(), 60)] {
        let figures = figures(&format!(
            "idle --connections {connections} --ping 7 --seconds 1 --broker-pid {pid} \
             --source 127.0.0.9 --tokens {} {flags}",
            fleet.file
        ));
        assert_eq!(figures["connections"], connections, "{figures}");
        assert_eq!(
            (&figures["pinged"], &figures["silent"]),
            (&7.into(), &0.into())
        );
        let held = number(&figures, "rss_held_kib");
        assert!(held >= number(&figures, "rss_before_kib"), "{figures}");
        assert!(figures["rss_kib_per_connection"].is_f64(), "{figures}");
    }
}

#[test]
fn every_delivery_of_a_fan_out_is_counted() {
    let mosquitto = Mosquitto::start();
    let port = mosquitto.port;
    for (flags, each) in [
        (
            "--publishers 2 --subscribers 10 --qos 1 --mqtt 5 --window 4",
            10,
        ),
        ("--publishers 3 --subscribers 2 --qos 0 --rate 300", 2),
        // Each subscriber has the messages of one publisher.
        (
            "--publishers 4 --subscribers 4 --subscribe-filter bench/{connection}",
            1,
        ),
        // Many to one.
        (
            "--publishers 20 --subscribers 1 --publish-topic v1/x/telemetry \
          --subscribe-filter v1/+/telemetry --subscribe-token app",
            1,
        ),
    ] {
        let figures = figures(&format!("fanout --seconds 1 --port {port} {flags}"));
        let messages = figures["messages"].as_u64().unwrap();
        assert!(messages > 0, "{figures}");
        assert_eq!(figures["expected"], messages * each, "{flags}: {figures}");
        assert_eq!(figures["delivered"], messages * each, "{flags}: {figures}");
        assert!(number(&figures["delivery_us"], "p50") > 0.0, "{figures}");
    }
}

/// Every client is one application; kept sessions end with the run, so that none of them gets what
/// a later one sends.
#[test]
fn fan_out_and_fan_in_lose_nothing_by_an_application_with_a_scope() {
    let broker = Setup::new()
        .set("TOLLGATE_LIMITS_CONNECTIONS_PER_IDENTITY_MAX", "100")
        .set("TOLLGATE_LIMITS_SESSIONS_PER_IDENTITY_MAX", "100")
        .start();
    let scope = ["--publish", "bench/#", "--subscribe", "bench/#", "--json"];
    let created = broker.cli_json(&[&["app", "create", "fan"], &scope[..]].concat());
    let token = created["token"].as_str().unwrap();
    let (port, pid) = (broker.mqtt_port(), broker.pid());
    for (flags, publishers, each) in [
        ("--publishers 1 --subscribers 20 --qos 0 --window 10", 1, 20),
        ("--publishers 1 --subscribers 20 --qos 1 --window 32", 1, 20),
        (
            "--publishers 1 --subscribers 20 --qos 1 --window 4 --mqtt 5",
            1,
            20,
        ),
        ("--publishers 20 --subscribers 1 --qos 1 --window 1", 20, 1),
        (
            "--publishers 20 --subscribers 1 --qos 1 --window 8 --mqtt 3.1",
            20,
            1,
        ),
        (
            "--publishers 1 --subscribers 20 --qos 1 --window 4 --kept",
            1,
            20,
        ),
        (
            "--publishers 1 --subscribers 9 --qos 1 --kept --mqtt 5",
            1,
            9,
        ),
    ] {
        let figures = figures(&format!(
            "fanout --seconds 1 --port {port} --broker-pid {pid} --token {token} {flags}"
        ));
        let messages = figures["messages"].as_u64().unwrap();
        assert!(messages > 0, "{figures}");
        assert_eq!(figures["publishers"], publishers, "{figures}");
        assert_eq!(figures["expected"], messages * each, "{flags}: {figures}");
        assert_eq!(figures["delivered"], messages * each, "{flags}: {figures}");
        assert_eq!(figures["kept"], flags.contains("--kept"), "{figures}");
        assert!(number(&figures, "cpu_us_per_message") > 0.0, "{figures}");
        broker.wait_metric_until("tollgate_subscriptions", |held| held == 0.0);
    }
}

#[test]
fn a_refused_subscription_is_said_with_its_code() {
    let fleet = Fleet::start(1);
    let port = fleet.broker.mqtt_port();
    let flags = format!(
        "fanout --port {port} --subscribers 2 --tokens {}",
        fleet.file
    );
    let (_, said) = refused(&flags, 6);
    assert!(
        said.contains("the broker refused the subscription to bench/#"),
        "{said}"
    );
    assert!(said.contains("SUBACK code 0x80"), "{said}");
}

/// The floor of a fan-out: whoever subscribed gets every message.
#[test]
fn the_sink_delivers_to_all_who_subscribed_and_speaks_tls() {
    let fleet = Fleet::start(1);
    let (plain, tls) = (Raw::start(), Raw::over_tls(fleet.broker.dir()));
    let trusted = format!("--tls --cafile {}", fleet.broker.ca_file().display());
    for (raw, more) in [(&plain, ""), (&tls, &trusted)] {
        for flags in [
            "--publishers 1 --subscribers 20 --qos 0 --window 10",
            "--publishers 3 --subscribers 5 --qos 1 --window 4 --mqtt 5",
            "--publishers 20 --subscribers 1 --qos 1 --window 1",
        ] {
            let flags = format!("{flags} --port {} {more}", raw.port);
            let figures = figures(&format!("fanout --seconds 1 {flags}"));
            let messages = figures["messages"].as_u64().unwrap();
            assert!(messages > 0, "{figures}");
            assert_eq!(
                figures["delivered"], figures["expected"],
                "{flags}: {figures}"
            );
        }
        let flags = format!("--port {} {more}", raw.port);
        let figures = figures(&format!(
            "ingest --seconds 1 --connections 5 --window 32 {flags}"
        ));
        assert!(number(&figures, "messages") > 0.0, "{figures}");
    }
}

#[test]
fn a_paced_run_may_send_several_messages_at_a_time() {
    let raw = Raw::start();
    let figures = figures(&format!(
        "ingest --seconds 1 --rate 1000 --together 4 --connections 10 --port {}",
        raw.port
    ));
    let messages = number(&figures, "messages");
    assert!(messages % 4.0 == 0.0, "{figures}");
    assert!((40.0..=1_004.0).contains(&messages), "{figures}");
}

#[test]
fn the_tables_for_people_name_the_units() {
    let raw = Raw::start();
    for command in [
        "ingest --seconds 1",
        "connect --seconds 1 --rate 500",
        "idle --seconds 0",
    ] {
        let flags = format!(
            "{command} --port {} --broker-pid {}",
            raw.port,
            raw.process.pid()
        );
        let (out, said) = tools::printed(&bench(&flags));
        assert!(out.starts_with("FIGURE "), "{command}: {out}{said}");
        assert!(out.contains("KiB"), "{command}: {out}");
    }
}

/// A script of the repository with these flags; what it printed.
fn script(name: &str, flags: &str) -> String {
    let mut command = Command::new(tools::tool("python3"));
    command
        .arg(tools::repository().join("scripts").join(name))
        // No files of compiled modules beside the scripts.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(flags.split_whitespace());
    let done = tools::run(&mut command);
    let (out, said) = tools::printed(&done);
    assert!(done.status.success(), "{name}: {out}{said}");
    out
}

/// A short share of the soak: losses, the ledger, that history reads all in the end, and the
/// trouble beside it. Rate, lag, memory and descriptors are for the whole of it, on a quiet
/// machine.
#[test]
fn a_soak_passes_and_says_what_it_saw() {
    let dir = tempfile::TempDir::new().unwrap();
    let out = script(
        "soak",
        &format!(
            "--tollgate {TOLLGATE} --seconds 12 --every 1 --rate-share-least 0.2 \
             --rss-growth-max 5 --lag-max-s 60 --rate 1000 --devices 50 --churn 10 --bad 10 \
             --reload-every 3 --token-every 3 --dir {}",
            dir.path().display()
        ),
    );
    assert!(out.contains("| second | received |"), "{out}");
    assert!(out.contains("messages of 50 devices"), "{out}");
    let (_, read_all) = out.split_once("history had read all ").expect("it says so");
    let seconds = read_all
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok());
    // It waits for two minutes at most.
    assert!(seconds.is_some_and(|seconds: f64| seconds < 119.0), "{out}");
    for beside in [
        "bad payloads",
        "certificates",
        "malformed",
        "tokens",
        "wills",
    ] {
        assert!(out.contains(beside), "{beside}: {out}");
    }
    assert!(out.trim_end().ends_with("passed"), "{out}");
}

/// Some series at their smallest, and their pictures. What comes out means nothing here.
#[test]
fn growing_work_is_measured_and_drawn() {
    let dir = tempfile::TempDir::new().unwrap();
    let (dir, figures) = (dir.path().display(), dir.path().join("scale.json"));
    for series in ["subscriptions", "payloads"] {
        script(
            "bench-scale",
            &format!(
                "--tollgate {TOLLGATE} --series {series} --seconds 1 --rounds 1 \
                 --subscriptions 1,200 --payloads 64 --dir {dir} --out {}",
                figures.display()
            ),
        );
    }
    let known = fs::read_to_string(&figures).unwrap();
    let known: serde_json::Value = serde_json::from_str(&known).unwrap();
    // The second run left the first one's figures as they were.
    for (series, points, key) in [
        ("subscriptions", 2, "filter_mib"),
        ("payloads", 1, "cpu_us_per_kib"),
    ] {
        let found = known[series]["points"].as_array().unwrap();
        assert_eq!(found.len(), points, "{series}: {known}");
        assert!(found.iter().all(|point| number(point, key) > 0.0));
    }
    let flags = format!("--figures {} --out {dir}", figures.display());
    script("chart", &flags);
    script("chart", &format!("{flags} --check"));
    // Another figure makes another picture.
    fs::write(&figures, known.to_string().replace("2026", "2025")).unwrap();
    let mut chart = Command::new(tools::tool("python3"));
    chart.arg(tools::repository().join("scripts/chart"));
    chart.args(flags.split_whitespace()).arg("--check");
    assert!(!tools::run(&mut chart).status.success());
}

#[test]
fn acks_are_measured_beside_all_that_clients_do() {
    let dir = tempfile::TempDir::new().unwrap();
    let out = script(
        "bench-mixed",
        &format!(
            "--tollgate {TOLLGATE} --rate 100 --connections 10 --seconds 3 --rounds 1 \
             --fan-rate 5 --lanes 2 --connects 10 --json --dir {}",
            dir.path().display()
        ),
    );
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(number(&found, "ratio_p99") > 0.0, "{found}");
    let beside = &found["rounds"][0]["beside"];
    assert!(number(&beside["fanout"], "delivered") > 0.0, "{found}");
    assert!(number(&beside["queries"], "queries") > 0.0, "{found}");
    assert!(number(&beside["connects"], "accepted") > 0.0, "{found}");
}

#[test]
fn the_charts_are_those_of_their_figures() {
    script("chart", "--check");
}
