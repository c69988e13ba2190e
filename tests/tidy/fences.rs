//! Outside packages stay in the files that are theirs, and `mqtt` stays pure.

use crate::imports::{NamedPath, paths};
use crate::source::{self, Source};

/// Everywhere but in `mqtt`, or everywhere at all.
const OUTSIDE_MQTT: &[&str] = &["src/"];

/// Every dependency of Cargo.toml, and where it may be named. Adding a package means adding a row:
/// who uses it, in which file, and what it would cost to drop.
const FENCES: &[(&str, &[&str])] = &[
    ("arc_swap", &["src/app", "src/net/"]),
    ("arrow_array", &["src/telemetry/store/"]),
    ("arrow_schema", &["src/telemetry/store/"]),
    (
        "aws_lc_rs",
        &[
            "src/audit/record.rs",
            "src/backup/seal.rs",
            "src/identity/",
            // What RFC 6455 hashes with SHA-1.
            "src/net/websocket/upgrade.rs",
        ],
    ),
    ("axum", &["src/http/"]),
    ("bytes", OUTSIDE_MQTT),
    ("clap", &["src/cli/"]),
    ("crc32c", &["src/journal/", "src/telemetry/store/"]),
    ("crc32fast", &["src/backup/seal.rs", "src/identity/"]),
    ("csv", &["src/cli/device/"]),
    ("dashmap", &["src/identity/", "src/broker/"]),
    ("futures_util", &["src/broker/", "src/http/", "src/net/"]),
    ("httparse", &["src/net/websocket/upgrade.rs"]),
    ("hyper", &["src/http/"]),
    ("hyper_util", &["src/http/"]),
    ("indicatif", &["src/cli/progress.rs"]),
    ("metrics", &["src/metrics"]),
    ("metrics_exporter_prometheus", &["src/metrics"]),
    ("mqttbytes", &["src/cli/bench/packets.rs"]),
    ("parquet", &["src/telemetry/store/"]),
    ("ppp", &["src/net/proxy.rs"]),
    ("rcgen", &["src/app/certificates"]),
    ("rusqlite", &["src/store/"]),
    (
        "rustix",
        &[
            "src/journal/",
            "src/net/acceptor.rs",
            "src/net/greeter.rs",
            "src/store/file.rs",
            "src/app",
            "src/cli/check.rs",
            "src/cli/bench/",
            "src/telemetry/store/compact.rs",
            "src/telemetry/store/encode/summed.rs",
        ],
    ),
    (
        "rustls",
        &[
            "src/net/tls",
            "src/app/certificates",
            "src/cli/bench/tls.rs",
            "src/cli/users/link.rs",
        ],
    ),
    ("sd_notify", &["src/app"]),
    ("serde", OUTSIDE_MQTT),
    ("serde_json", &["src/cli/", "src/http/", "src/telemetry/"]),
    ("serde_path_to_error", &["src/http/"]),
    ("slab", &["src/broker/", "src/net/"]),
    (
        "socket2",
        &["src/net/", "src/app/listeners.rs", "src/cli/bench/link.rs"],
    ),
    ("strsim", &["src/config"]),
    ("thiserror", &["src/"]),
    (
        "time",
        &[
            "src/audit/record.rs",
            "src/cli/",
            "src/http/",
            "src/net/tls/validity.rs",
            "src/broker/feed/",
        ],
    ),
    (
        "tokio",
        &[
            "src/app.rs",
            "src/broker/",
            "src/http/",
            "src/net/",
            "src/main.rs",
            "src/cli/bench/interrupt.rs",
        ],
    ),
    ("tokio_rustls", &["src/net/tls.rs"]),
    ("toml", &["src/config"]),
    ("tower_service", &["src/http/"]),
    ("tracing", OUTSIDE_MQTT),
    ("tracing_subscriber", &["src/app.rs", "src/cli/logging.rs"]),
    ("tungstenite", &["src/net/websocket"]),
    ("ureq", &["src/cli/"]),
    ("uuid", OUTSIDE_MQTT),
    (
        "zstd",
        &["src/telemetry/store/encode", "src/telemetry/store/pages"],
    ),
];

/// What `mqtt` may name from outside the crate: protocol code has no clock, no I/O, no logging.
const PURE: &[&str] = &[
    "std",
    "core",
    "alloc",
    "thiserror",
    "crate",
    "super",
    "self",
    "Self",
];
/// Parts of std that are a clock, a socket, a file, a thread or a terminal.
const IMPURE_STD: &[&str] = &[
    "fs",
    "net",
    "io",
    "thread",
    "process",
    "env",
    "time::SystemTime",
    "sync::mpsc",
];
/// Calls that ask for the time or print; a reader of the code would not expect them in `mqtt`.
const IMPURE_CALLS: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "println!",
    "eprintln!",
    "print!",
    "thread_local!",
];

fn crossed_fences(source: &Source) -> Vec<String> {
    let code = source.code_without_tests();
    let named = paths(&code);
    let rows = FENCES
        .iter()
        .filter(|(_, homes)| !homes.iter().any(|h| source.path.starts_with(h)));
    rows.flat_map(|(package, homes)| {
        let lines = named
            .iter()
            .filter(|path| names_package(path, package))
            .map(|path| path.line);
        let mut lines: Vec<usize> = lines.collect();
        lines.dedup();
        lines.into_iter().map(move |line| {
            format!(
                "{}: `{package}` belongs to {}: use what that module offers",
                source.place(line),
                homes.join(", ")
            )
        })
    })
    .collect()
}

fn names_package(path: &NamedPath, package: &str) -> bool {
    path.segments.first().is_some_and(|first| first == package)
}

fn impure(source: &Source) -> Vec<String> {
    let code = source.code_without_tests();
    let say = |line: usize, what: &str| {
        format!(
            "{}: `{what}` in mqtt: pass in what it would give, e.g. `now`",
            source.place(line)
        )
    };
    let named = paths(&code).into_iter().filter_map(|path| {
        let first = path.segments.first()?;
        let is_std = ["std", "core", "alloc"].contains(&first.as_str());
        let inside = path
            .segments
            .iter()
            .skip(1)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("::");
        let is_impure = is_std && IMPURE_STD.iter().any(|part| inside.starts_with(part));
        let is_package = FENCES.iter().any(|(package, _)| package == first);
        (is_impure || (is_package && !PURE.contains(&first.as_str())))
            .then(|| say(path.line, &path.segments.join("::")))
    });
    let lines = code.lines().enumerate();
    let calls = lines.flat_map(|(at, line)| {
        IMPURE_CALLS
            .iter()
            .filter(|call| line.contains(**call))
            .map(move |call| (at, *call))
    });
    named
        .chain(calls.map(|(line, call)| say(line, call)))
        .collect()
}

/// The names that `[dependencies]` of the manifest gives, as code writes them.
fn dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("Cargo.toml is TOML: cargo read it");
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    table
        .expect("there are dependencies")
        .keys()
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn unlisted(manifest: &str) -> Vec<String> {
    let listed = |name: &String| FENCES.iter().any(|(package, _)| package == name);
    dependencies(manifest)
        .into_iter()
        .filter(|name| !listed(name))
        .map(|name| {
            format!("Cargo.toml: `{name}` has no row in tests/tidy/fences.rs: add its home")
        })
        .collect()
}

fn library() -> Vec<Source> {
    source::sources()
        .into_iter()
        .filter(|source| source.path.starts_with("src/"))
        .collect()
}

#[test]
fn packages_stay_in_their_files() {
    let findings: Vec<String> = library().iter().flat_map(crossed_fences).collect();
    source::expect_none("Outside packages stay behind their fence.", &findings);
}

#[test]
fn every_dependency_has_a_home() {
    source::expect_none(
        "A new dependency is a decision.",
        &unlisted(&source::read("Cargo.toml")),
    );
}

#[test]
fn every_dependency_is_used() {
    let named: Vec<NamedPath> = library()
        .iter()
        .flat_map(|source| paths(&source.code))
        .collect();
    let unused = dependencies(&source::read("Cargo.toml"))
        .into_iter()
        .filter(|package| !named.iter().any(|path| names_package(path, package)))
        .map(|package| format!("Cargo.toml: nothing in src/ names `{package}`: drop it"));
    source::expect_none(
        "What is unused is deleted the same day.",
        &unused.collect::<Vec<_>>(),
    );
}

#[test]
fn mqtt_is_pure() {
    let library = library();
    let ours = library
        .iter()
        .filter(|source| source.path.starts_with("src/mqtt/"));
    let findings: Vec<String> = ours.flat_map(impure).collect();
    source::expect_none(
        "mqtt takes bytes, packets and `now`, and returns outputs.",
        &findings,
    );
}

#[test]
fn a_crossed_fence_is_found() {
    let found = |path: &str, text: &str| crossed_fences(&Source::new(path, text)).len();
    assert_eq!(found("src/store/mod.rs", "use rusqlite::Connection;"), 0);
    assert_eq!(
        found(
            "src/net/mod.rs",
            "use crate::metrics; fn f() { metrics::count(); }"
        ),
        0
    );
    assert_eq!(
        found(
            "src/net/mod.rs",
            "use tokio::time; fn f() { time::sleep(); }"
        ),
        0
    );
    assert_eq!(
        found(
            "src/net/mod.rs",
            "#[cfg(test)]\nmod tests { use rusqlite::Row; }"
        ),
        0
    );

    assert_eq!(
        found(
            "src/identity/mod.rs",
            "use rusqlite::{Connection, Row as R};"
        ),
        1
    );
    assert_eq!(
        found("src/identity/mod.rs", "fn f(row: &rusqlite::Row<'_>) {}"),
        1
    );
    assert_eq!(
        found("src/net/mod.rs", "fn f() { metrics::counter!(\"a\"); }"),
        1
    );
    assert_eq!(
        found("src/net/worker.rs", "use ::rustls::pki_types::pem;"),
        1
    );
    assert_eq!(
        unlisted("[dependencies]\nleft-pad = \"1\"\nserde = \"1\"\n").len(),
        1
    );
}

#[test]
fn impure_protocol_code_is_found() {
    let found = |text: &str| impure(&Source::new("src/mqtt/wire/mod.rs", text)).len();
    assert_eq!(
        found("use std::time::{Duration, Instant}; use super::topic;"),
        0
    );
    assert_eq!(
        found("// Instant::now\nfn f(now: Instant) -> Instant { now }"),
        0
    );
    assert_eq!(found("#[cfg(test)]\nmod tests { use tokio::time; }"), 0);

    assert_eq!(found("use tokio::net::TcpStream;"), 1);
    assert_eq!(found("fn f() { tracing::debug!(\"x\"); }"), 1);
    assert_eq!(found("use std::{fmt, net::IpAddr};"), 1);
    assert_eq!(found("fn f() -> Instant { Instant::now() }"), 1);
    assert_eq!(found("use std::fs::File;"), 1);
}
