//! Every figure Tollgate keeps of itself.
//!
//! [`FIGURES`] is the whole list: name, unit, help, and the closed list of values of the one label
//! a figure may have. No label ever comes from a peer (SEC-77). `docs/metrics.md` shows the same
//! list to operators; a test keeps them equal. Handles are built once, from the list.
//!
//! A worker counts in plain integers ([`WorkerCounters`]) and flushes once per turn, so that a
//! message costs an addition and no shared cache line. Distributions have fixed buckets
//! (`distribution.rs`): recording allocates nothing, on whichever thread it happens.
//!
//! Each [`Metrics`] has a recorder of its own instead of the process-wide one, so that two brokers
//! in one process (the tests) do not count into each other.

mod audit;
mod distribution;
mod door;
mod feed;
mod history;
mod list;
mod process;
mod routing;
mod users;
mod worker;

use std::sync::Arc;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, gauge,
    with_local_recorder,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

pub use audit::{Alarm, AuditBook, AuditFigures, AuditLoss};
pub use door::{
    AcceptPause, ConnectRefusal, DoorFigures, SlowReader, TlsFailure, WebSocketFailure,
};
pub use feed::{FeedDrop, FeedFigures};
pub use history::FileFigures;
pub use list::{FIGURES, Figure, JournalState, Kind, Refusal, SECONDS_BUCKETS};
pub use routing::{DeliveryDrop, RoutingFigures, WillEnd};
pub use users::UsersFigures;
pub use worker::WorkerCounters;

use distribution::Distribution;
use feed::FeedHandles;
use history::HistoryHandles;
use process::Process;
use routing::RoutingHandles;
use users::UsersHandles;
use worker::WorkerHandles;

/// The figures of one broker. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    shared: Arc<Shared>,
}

/// What the journal says of itself when the figures are read.
#[derive(Clone, Copy, Debug)]
pub struct JournalFigures {
    /// Last offset known to be on disk.
    pub durable: u64,
    /// Room taken on disk, in bytes.
    pub bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Commits since the start.
    pub commits: u64,
    /// Bytes written by these commits.
    pub commit_bytes: u64,
    /// What it is doing.
    pub state: JournalState,
}

/// What the history says of itself when the figures are read.
#[derive(Clone, Copy, Debug)]
pub struct HistoryFigures {
    /// Durable records not read yet.
    pub lag_records: u64,
    /// Memory of the head, in bytes.
    pub head_bytes: u64,
    /// Damaged stretches met.
    pub damage: u64,
    /// Records met that this version cannot read.
    pub unreadable: u64,
}

struct Shared {
    prometheus: PrometheusHandle,
    distributions: [Arc<Distribution>; 2],
    worker: WorkerHandles,
    door: DoorFigures,
    audit: AuditFigures,
    commit: Histogram,
    journal_durable: Gauge,
    journal_bytes: Gauge,
    journal_segments: Gauge,
    journal_state: Vec<Gauge>,
    journal_commits: Counter,
    journal_commit_bytes: Counter,
    history_lag: Gauge,
    history_head: Gauge,
    history_damage: Gauge,
    history_unreadable: Gauge,
    feeds: FeedHandles,
    routing: RoutingHandles,
    history_files: HistoryHandles,
    http_requests: Vec<Counter>,
    http_connections: Gauge,
    devices: Gauge,
    scopes: Gauge,
    admin_tokens: Gauge,
    tokens: Gauge,
    tokens_with_terms: Gauge,
    basic_credentials: Gauge,
    users: UsersHandles,
    process: Process,
}

impl Metrics {
    /// Builds every handle; all figures start at zero and are visible at once.
    #[must_use]
    pub fn new() -> Metrics {
        let recorder = PrometheusBuilder::new().build_recorder();
        let prometheus = recorder.handle();
        let ack_wait = Arc::new(Distribution::new(list::ACK_WAIT));
        let commit = Arc::new(Distribution::new(list::JOURNAL_COMMIT));
        let shared = with_local_recorder(&recorder, || {
            describe();
            Shared {
                prometheus,
                worker: WorkerHandles::new(Histogram::from_arc(Arc::clone(&ack_wait))),
                door: DoorFigures::new(),
                audit: AuditFigures::new(),
                commit: Histogram::from_arc(Arc::clone(&commit)),
                distributions: [ack_wait, commit],
                journal_durable: one_gauge(&list::JOURNAL_DURABLE),
                journal_bytes: one_gauge(&list::JOURNAL_BYTES),
                journal_segments: one_gauge(&list::JOURNAL_SEGMENTS),
                journal_state: gauges(&list::JOURNAL_STATE),
                journal_commits: one_counter(&list::JOURNAL_COMMITS),
                journal_commit_bytes: one_counter(&list::JOURNAL_COMMIT_BYTES),
                history_lag: one_gauge(&history::HISTORY_LAG),
                history_head: one_gauge(&history::HISTORY_HEAD),
                history_damage: one_gauge(&history::HISTORY_DAMAGE),
                history_unreadable: one_gauge(&history::HISTORY_UNREADABLE),
                feeds: FeedHandles::new(),
                routing: RoutingHandles::new(),
                history_files: HistoryHandles::new(),
                http_requests: counters(&list::HTTP_REQUESTS),
                http_connections: one_gauge(&list::HTTP_CONNECTIONS),
                devices: one_gauge(&list::DEVICES),
                scopes: one_gauge(&list::SCOPES),
                admin_tokens: one_gauge(&list::ADMIN_TOKENS),
                tokens: one_gauge(&list::TOKENS),
                tokens_with_terms: one_gauge(&list::TOKENS_WITH_TERMS),
                basic_credentials: one_gauge(&list::BASIC_CREDENTIALS),
                users: UsersHandles::new(),
                process: Process::new(),
            }
        });
        Metrics {
            shared: Arc::new(shared),
        }
    }

    /// Counters for one worker.
    #[must_use]
    pub fn worker(&self) -> WorkerCounters {
        WorkerCounters::new(self.shared.worker.clone())
    }

    /// What happens at the door: limits, TLS, certificates.
    #[must_use]
    pub fn door(&self) -> &DoorFigures {
        &self.shared.door
    }

    /// The audit and alarms.
    #[must_use]
    pub fn audit(&self) -> &AuditFigures {
        &self.shared.audit
    }

    /// Where the journal's committer records the seconds of each commit.
    pub fn journal_commit(&self) -> Histogram {
        self.shared.commit.clone()
    }

    /// Takes over what the journal says of itself.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure on a chart, exact up to 2^53"
    )]
    pub fn set_journal(&self, figures: JournalFigures) {
        self.shared.journal_durable.set(figures.durable as f64);
        self.shared.journal_bytes.set(figures.bytes as f64);
        self.shared.journal_segments.set(figures.segments as f64);
        self.shared.journal_commits.absolute(figures.commits);
        self.shared
            .journal_commit_bytes
            .absolute(figures.commit_bytes);
        for (gauge, state) in self.shared.journal_state.iter().zip(JournalState::ALL) {
            gauge.set(if *state == figures.state { 1.0 } else { 0.0 });
        }
    }

    /// Takes over what the history says of itself.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure on a chart, exact up to 2^53"
    )]
    pub fn set_history(&self, figures: HistoryFigures) {
        self.shared.history_lag.set(figures.lag_records as f64);
        self.shared.history_head.set(figures.head_bytes as f64);
        self.shared.history_damage.set(figures.damage as f64);
        self.shared
            .history_unreadable
            .set(figures.unreadable as f64);
    }

    /// Takes over what routing says of itself.
    pub fn set_routing(&self, figures: RoutingFigures) {
        self.shared.routing.set(figures);
    }

    /// Takes over what the application feed says of itself.
    pub fn set_feeds(&self, figures: FeedFigures) {
        self.shared.feeds.set(figures);
    }

    /// A feed lost its claim on the journal.
    pub fn feed_cut(&self) {
        self.shared.feeds.cut();
    }

    /// Takes over how many devices, tokens, tokens with terms, and scopes the registry holds.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure on a chart, exact up to 2^53"
    )]
    pub fn set_registry(&self, devices: u64, (tokens, with_terms): (u64, u64), scopes: u64) {
        self.shared.devices.set(devices as f64);
        self.shared.scopes.set(scopes as f64);
        self.shared.tokens.set(tokens as f64);
        self.shared.tokens_with_terms.set(with_terms as f64);
    }

    /// Takes over how many of the tokens are MQTT Basic credentials.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure on a chart, exact up to 2^53"
    )]
    pub fn set_basic_credentials(&self, credentials: u64) {
        self.shared.basic_credentials.set(credentials as f64);
    }

    /// Takes over how many admin tokens there are.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a figure on a chart, exact up to 2^53"
    )]
    pub fn set_admin_tokens(&self, tokens: u64) {
        self.shared.admin_tokens.set(tokens as f64);
    }

    /// Takes over what the identity service says of itself.
    pub fn set_users(&self, figures: UsersFigures) {
        self.shared.users.set(figures);
    }

    /// A connection ended because its token expired.
    pub fn connection_expired(&self) {
        self.shared.users.expired();
    }

    /// Takes over what the history says of its files and latest values.
    pub fn set_history_files(&self, figures: &FileFigures) {
        self.shared.history_files.set(figures);
    }

    /// Counts one answered HTTP request by its status (200 to 599; anything else is not counted).
    pub fn http_request(&self, status: u16) {
        let class = usize::from(status / 100).checked_sub(2);
        if let Some(counter) = class.and_then(|class| self.shared.http_requests.get(class)) {
            counter.increment(1);
        }
    }

    /// A HTTP connection was opened (true) or closed (false).
    pub fn http_connection(&self, opened: bool) {
        self.shared
            .http_connections
            .increment(if opened { 1.0 } else { -1.0 });
    }

    /// Every figure in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.shared.process.read();
        let mut text = self.shared.prometheus.render();
        for distribution in &self.shared.distributions {
            distribution.render(&mut text);
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

/// The list as the Markdown table of `docs/metrics.md`.
#[must_use]
pub fn catalogue() -> String {
    let mut text =
        "| name | kind | unit | label | what it says |\n|---|---|---|---|---|\n".to_owned();
    for figure in FIGURES {
        let label = match figure.label {
            Some((name, values)) => format!("`{name}`: {}", values.join(", ")),
            None => String::new(),
        };
        let kind = match figure.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let row = [figure.name, kind, figure.unit.as_str(), &label, figure.help].join(" | ");
        text.push_str(&format!("| {row} |\n").replace("  ", " "));
    }
    text
}

fn describe() {
    for figure in FIGURES {
        match figure.kind {
            Kind::Counter => describe_counter!(figure.name, figure.unit, figure.help),
            Kind::Gauge => describe_gauge!(figure.name, figure.unit, figure.help),
            Kind::Histogram => {} // Distribution::render writes its own help line
        }
    }
}

fn one_counter(figure: &Figure) -> Counter {
    counter!(figure.name)
}

fn one_gauge(figure: &Figure) -> Gauge {
    gauge!(figure.name)
}

/// One counter for each value of the figure's label, in the order of the values.
fn counters(figure: &Figure) -> Vec<Counter> {
    let values = figure.label.into_iter().flat_map(|(label, values)| {
        values
            .iter()
            .map(move |value| counter!(figure.name, label => *value))
    });
    values.collect()
}

/// One gauge for each value of the figure's label, in the order of the values.
fn gauges(figure: &Figure) -> Vec<Gauge> {
    let values = figure.label.into_iter().flat_map(|(label, values)| {
        values
            .iter()
            .map(move |value| gauge!(figure.name, label => *value))
    });
    values.collect()
}

#[cfg(test)]
mod tests;
