//! `tollgate check`: would the broker start, and if not, what to do.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::Path,
    time::SystemTime,
};

use clap::Args;
use serde::Serialize;

use crate::{
    app::{
        self,
        certificates::{self, State},
    },
    cli::{
        CliError,
        client::{Client, Target},
        print, print_json,
        table::aligned,
    },
    config::{Config, Sources},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// What was looked at, in order.
#[derive(Debug, Default, Serialize)]
struct Report {
    checks: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    result: Outcome,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    /// The broker starts, but somebody should look.
    Warning,
    /// The broker would not start, or could not be spoken to.
    Failed,
}

use Outcome::{Failed, Ok as Fine, Warning};

/// Looks at everything and writes nothing. A wrong configuration is an error of its own, because
/// nothing else can be looked at then.
pub(super) fn run(arguments: &Arguments, sources: &Sources) -> Result<(), CliError> {
    let config = Config::load(sources)?;
    let mut report = Report::default();
    configuration(&config, &mut report);
    data_directory(&config, &mut report);
    secrets_directory(&config, &mut report);
    certificate(&config, &mut report);
    if !broker(&arguments.target, sources, &mut report) {
        ports(&config, &mut report);
    }
    report.print(arguments.json)?;
    match report
        .checks
        .iter()
        .filter(|finding| finding.result == Failed)
        .count()
    {
        0 => Ok(()),
        failed => Err(CliError::Check(failed)),
    }
}

impl Report {
    fn add(&mut self, what: &str, result: Outcome, message: impl Into<String>) {
        self.checks.push(Finding {
            what: what.to_owned(),
            result,
            message: message.into(),
        });
    }

    fn print(&self, json: bool) -> Result<(), CliError> {
        if json {
            return print_json(self);
        }
        let row = |finding: &Finding| {
            let result = match finding.result {
                Fine => "ok",
                Warning => "warning",
                Failed => "FAILED",
            };
            [
                result.to_owned(),
                finding.what.clone(),
                finding.message.clone(),
            ]
        };
        let rows: Vec<_> = self.checks.iter().map(row).collect();
        print(&aligned(["RESULT", "WHAT", "FINDING"], &rows))
    }
}

fn configuration(config: &Config, report: &mut Report) {
    let from = match &config.file {
        Some(file) => format!("{} is whole and right", file.display()),
        None => "no file; the defaults stand".to_owned(),
    };
    report.add("configuration", Fine, from);
    if let Err(error) = app::user_topics(config) {
        report.add("configuration", Failed, error.to_string());
    }
    if !config.has_clients() {
        report.add(
            "configuration",
            Warning,
            "mqtt, mqtts, ws and wss are all off: no device can connect",
        );
    }
}

/// Less free space than this is worth a look: the journal would soon refuse telemetry.
const FREE_BYTES_LOW: u64 = 1 << 30;

fn data_directory(config: &Config, report: &mut Report) {
    let dir = &config.data_dir;
    if !directory("data_dir", dir, report) {
        return;
    }
    if let Ok(metadata) = fs::metadata(dir)
        && metadata.mode() & 0o077 != 0
    {
        let advice = format!(
            "{0}: others may look into it; run: chmod 700 {0}",
            dir.display()
        );
        report.add("data_dir", Warning, advice);
    }
    if let Ok(space) = rustix::fs::statvfs(dir) {
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let result = if free < FREE_BYTES_LOW { Warning } else { Fine };
        let message = format!("{}: {} MiB free", dir.display(), free >> 20);
        report.add("data_dir", result, message);
    }
}

fn secrets_directory(config: &Config, report: &mut Report) {
    let dir = &config.secrets_dir;
    if !directory("secrets_dir", dir, report) {
        return;
    }
    let inside = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut is_closed = true;
    for path in [dir.clone()].into_iter().chain(inside) {
        let Ok(mode) = fs::metadata(&path).map(|metadata| metadata.mode() & 0o777) else {
            continue; // gone since it was listed
        };
        if mode & 0o077 != 0 {
            is_closed = false;
            let right = if path.is_dir() { 700 } else { 600 };
            report.add(
                "secrets_dir",
                Failed,
                format!(
                    "{0}: others may read it (mode {mode:o}); run: chmod {right} {0}",
                    path.display()
                ),
            );
        }
    }
    if is_closed {
        report.add(
            "secrets_dir",
            Fine,
            format!("{}: for this user only", dir.display()),
        );
    }
    let has_data = fs::read_dir(&config.data_dir).is_ok_and(|mut entries| entries.next().is_some());
    let key = dir.join("registry.key");
    if has_data && !key.exists() {
        let advice = "is missing and there is data: no token could be checked; restore it from a \
                      backup of the secrets";
        report.add(
            "secrets_dir",
            Warning,
            format!("{} {advice}", key.display()),
        );
    }
}

/// True when the directory exists and can be used.
fn directory(what: &str, dir: &Path, report: &mut Report) -> bool {
    let existing = dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() {
        Path::new(".")
    } else {
        existing
    };
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    if !existing.is_dir() {
        let advice = "is no directory; move it away or set another";
        report.add(
            what,
            Failed,
            format!("{} {advice} {what}", existing.display()),
        );
    } else if let Err(error) = rustix::fs::access(existing, access) {
        let error = io::Error::from(error);
        let advice = "give it to the broker's user or set another";
        report.add(
            what,
            Failed,
            format!(
                "{}: cannot be written: {error}; {advice} {what}",
                existing.display()
            ),
        );
    } else if !dir.exists() {
        report.add(
            what,
            Fine,
            format!("{}: made at the first start", dir.display()),
        );
    } else {
        return true;
    }
    false
}

fn certificate(config: &Config, report: &mut Report) {
    if !config.has_tls() {
        report.add(
            "certificate",
            Fine,
            "not needed: mqtts, wss and https are off",
        );
        return;
    }
    match certificates::examine(config, SystemTime::now()) {
        Ok(State::Own) => report.add("certificate", Fine, "your own pair; it can be used"),
        Ok(State::Good) => report.add(
            "certificate",
            Fine,
            format!(
                "ours; clients trust it by {}",
                config.ca_certificate().display()
            ),
        ),
        Ok(State::Due(why)) => {
            report.add(
                "certificate",
                Fine,
                format!("made at the next start: {why}"),
            );
        }
        Ok(State::Stuck(why)) => {
            report.add(
                "certificate",
                Warning,
                format!("good today, but not renewed: {why}"),
            );
        }
        Err(error) => report.add("certificate", Failed, error.to_string()),
    }
}

/// True when a broker answers.
fn broker(target: &Target, sources: &Sources, report: &mut Report) -> bool {
    let client = match Client::new(target, sources) {
        Ok(client) => client,
        Err(error) => {
            report.add("broker", Warning, error.to_string());
            return false;
        }
    };
    match client.health() {
        Ok(status) if status.is_success() => {
            report.add(
                "broker",
                Fine,
                format!("answers at {} and is well", client.url()),
            );
            true
        }
        Ok(status) if status.as_u16() == 503 => {
            let advice = "answers but is not well; its log and /healthz say why";
            report.add("broker", Warning, format!("{} {advice}", client.url()));
            true
        }
        Ok(status) => {
            let message = format!("what answers at {} is no broker ({status})", client.url());
            report.add("broker", Failed, message);
            false
        }
        Err(CliError::NoBroker { url, what }) => {
            report.add("broker", Fine, format!("none answers at {url} ({what})"));
            false
        }
        Err(error) => {
            report.add("broker", Failed, error.to_string());
            false
        }
    }
}

/// Without a broker, whether its ports are free.
fn ports(config: &Config, report: &mut Report) {
    let lists = [
        ("mqtt.listen", &config.mqtt.listen),
        ("mqtts.listen", &config.mqtts.listen),
        ("ws.listen", &config.ws.listen),
        ("wss.listen", &config.wss.listen),
        ("http.listen", &config.http.listen),
        ("https.listen", &config.https.listen),
    ];
    for (what, addresses) in lists {
        for address in addresses {
            match bind(*address) {
                Ok(()) => report.add(what, Fine, format!("{address} is free")),
                Err(error) => report.add(
                    what,
                    Failed,
                    format!("{address}: {error}; end what uses it or set another {what}"),
                ),
            }
        }
    }
}

/// Binds and lets go at once: a client that connects in this moment is cut off, as it would be
/// without a broker.
fn bind(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}
