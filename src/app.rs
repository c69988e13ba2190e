//! Builds the parts, runs them, stops them.

pub mod banner;
pub mod certificates;
mod door;
mod error;
mod listeners;
mod supervisor;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use error::AppError;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::audit::{Audit, AuditLimits, Event, What};
use crate::backup::Folders;
use crate::broker::feed::{FeedLimits, FeedThread, Feeds};
use crate::broker::retained::RetainedLimits;
use crate::broker::router::RouterLimits;
use crate::broker::tree::TreeLimits;
use crate::broker::{Checkpointer, Restored};
use crate::config::{Config, ConnackStyle, DeviceSessions};
use crate::device_api::Profile;
use crate::http::{HttpParts, HttpServer};
use crate::identity::{DeviceName, Registry, Secrets, UserScope, UserTopics};
use crate::journal::{
    Disk, Journal, JournalError, JournalOptions, JournalStatus, Offset, OnCommit, RealDisk,
    Recovery, SlowDisk,
};
use crate::metrics::Metrics;
use crate::mqtt::session::{QueueLimits, SessionLimits};
use crate::net::{Net, NetParts};
use crate::store::Store;
use crate::telemetry::{History, HistoryOptions, ScanOptions};
use banner::FirstStart;
use certificates::Reloader;
use listeners::Bound;

/// Name of the device that a first start makes.
const FIRST_DEVICE: &str = "first-device";

/// A clean stop takes no longer than this in all (REL-09).
const STOP_GRACE: Duration = Duration::from_secs(7);

/// What of it the HTTP server may use for requests that are under way.
const HTTP_GRACE: Duration = Duration::from_secs(1);

/// Runs the broker until it is told to stop. Everything is checked and bound before the first
/// client is served.
///
/// # Errors
/// What kept it from starting, with what to do; or that it could not stop cleanly.
pub fn run(config: &Config) -> Result<(), AppError> {
    // First of all: a stop that is asked for during the start is a clean stop too (REL-09).
    let signals = Signals::catch()?;
    no_core_dumps();
    let store = Store::open(&config.data_dir)?;
    let secrets = Arc::new(Secrets::open(&config.secrets_dir, store.is_empty()?)?);
    let metrics = Metrics::new();
    let journal = open_journal(config, &metrics)?;
    let ballast = journal.clone();
    store.on_disk_full(Arc::new(move || ballast.release_ballast()));
    let registry = Registry::open_for(store.clone(), &secrets, user_topics(config)?)?;
    let audit = start_audit(config, &store, &registry, &metrics)?;
    let bound = Bound::bind(config)?;
    let certificates = listeners::certificates(config, &metrics, &audit)?;
    let tls = certificates.as_ref().map(|held| (held.mqtts(), held.tls()));
    let addresses = bound.addresses();

    let limits = retained_limits(config);
    let (restored, checkpointer) = Checkpointer::start(&store, &journal, limits, Instant::now())?;
    // Before the history, which releases the journal: the feeds of the last run hold it then.
    let feed = start_feed(config, &journal, &registry, &metrics, &restored)?;
    let history = start_history(config, &journal, &registry)?;
    let (mqtt_listeners, http_listeners) = bound.into_listeners(config, tls.as_ref());
    let mqtts = mqtt_listeners.iter().find_map(|held| held.tls.clone());
    let net = Net::start(NetParts {
        listeners: mqtt_listeners,
        workers: config.workers.count,
        registry: registry.clone(),
        journal: journal.clone(),
        feeds: feed.feeds(),
        metrics: metrics.clone(),
        audit: audit.clone(),
        limits: session_limits(config),
        profile: profile(config),
        one_session: config.device.sessions == DeviceSessions::One,
        cut_at_expiry: config.identity.cut_at_expiry,
        empty_user_name_code_4: config.device.connack_style == ConnackStyle::Magenta,
        router: router_limits(config),
        statistics_every: config.mqtt.statistics_interval,
        restored,
        door: door::limits(config),
    })?;
    audit.note(started(config));
    let http = HttpServer::start(HttpParts {
        requests_per_second_max: config.limits.http_requests_per_second_max,
        listeners: http_listeners,
        mqtts,
        names: config.certs.names.clone(),
        registry: registry.clone(),
        secrets,
        history: history.clone(),
        control: net.control(),
        audit: audit.clone(),
        journal: journal.clone(),
        metrics,
        folders: folders(config),
    })?;
    welcome(config, &registry, &addresses)?;

    supervisor::ready();
    let signal = signals.wait(&journal, certificates, config.certs.check_interval);
    supervisor::stopping();
    tracing::info!(signal, "stopping");
    let stopped = stop(http, net, feed, checkpointer, &history, &journal);
    end_audit(&audit, signal, stopped.is_ok());
    stopped
}

/// What the scopes of users' tokens stand for.
///
/// # Errors
/// A filter that cannot be used, with its key.
pub fn user_topics(config: &Config) -> Result<UserTopics, AppError> {
    let lists = config.identity.topics.each_ref().map(Vec::as_slice);
    UserTopics::new(lists).map_err(|(place, what)| {
        let scope = UserScope::ALL.get(place).map_or("", |scope| scope.as_str());
        let key = scope.replace('.', "_");
        AppError::UserTopics { key, what }
    })
}

/// A core dump would hold keys and tokens (SEC-78).
fn no_core_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be turned off; turn them off for the service");
    }
}

/// Says that the broker is ready: the listening addresses, and after a first start the lines to
/// paste.
fn welcome(
    config: &Config,
    registry: &Registry,
    addresses: &listeners::Addresses,
) -> Result<(), AppError> {
    if registry.is_empty() {
        let name = DeviceName::new(FIRST_DEVICE).expect("a constant without control characters");
        let (device, token) = registry.create_device(&name, None)?;
        let made = FirstStart {
            device: &device.name,
            token: token.expose(),
            mqtt: addresses.mqtt.first().copied(),
            mqtts: addresses.mqtts.first().copied(),
            ca: &config.ca_certificate(),
        };
        banner::announce(&banner::first_start(&made), &config.secrets_dir)
            .map_err(AppError::Banner)?;
    }
    let mut out = std::io::stdout().lock();
    for (what, address) in addresses.all() {
        writeln!(out, "listening {what} {address}").map_err(AppError::Output)?;
    }
    writeln!(out, "ready")
        .and_then(|()| out.flush())
        .map_err(AppError::Output)
}

fn folders(config: &Config) -> Folders {
    Folders {
        data: config.data_dir.clone(),
        secrets: config.secrets_dir.clone(),
        certs: config.certs_dir.clone(),
    }
}

fn open_journal(config: &Config, metrics: &Metrics) -> Result<Journal, AppError> {
    let seconds = metrics.journal_commit();
    let options = JournalOptions {
        on_commit: Some(OnCommit(Arc::new(move |took| seconds.record(took)))),
        size_max_bytes: config.journal.size_max_bytes,
        commit_interval: config.journal.commit_interval,
        ..JournalOptions::new(config.data_dir.join("journal"))
    };
    let disk = disk(config.journal.sync_delay);
    let (journal, recovery) = Journal::open(disk, options, Box::new(end_after_failure))?;
    report(&recovery);
    Ok(journal)
}

/// The disk as it is, or slower for measurements.
fn disk(sync_delay: Duration) -> Arc<dyn Disk> {
    if sync_delay.is_zero() {
        return Arc::new(RealDisk);
    }
    tracing::warn!(
        delay_us = sync_delay.as_micros(),
        "journal.sync_delay_us makes each sync and each acknowledgement slower: it is there for \
         measurements only"
    );
    Arc::new(SlowDisk::new(sync_delay))
}

/// REL-04: what is not on disk is not acknowledged, and what failed once is not trusted again.
fn end_after_failure(error: &JournalError) {
    tracing::error!(
        %error,
        "the journal failed: nothing more is acknowledged. The broker ends now with exit code 3; \
         look at the disk, then start it again: everything acknowledged is kept"
    );
    std::process::exit(i32::from(error::EXIT_JOURNAL));
}

fn report(recovery: &Recovery) {
    tracing::info!(
        first = recovery.first.number(),
        last = recovery.last.number(),
        elapsed_ms = recovery.elapsed.as_millis(),
        "journal open"
    );
    if let Some(cut) = &recovery.cut {
        tracing::warn!(
            file = %cut.file.display(),
            position = cut.position,
            bytes = cut.bytes,
            "the journal's last commit was not finished and is cut off; it was never acknowledged"
        );
    }
    for damage in &recovery.damage {
        tracing::error!(
            file = %damage.file.display(),
            position = damage.position,
            first = damage.first.number(),
            next = damage.next.number(),
            what = damage.what,
            "the journal is damaged: these records are lost, the rest is served"
        );
    }
}

/// Before anybody is served: what was changed is told from the first change on.
fn start_audit(
    config: &Config,
    store: &Store,
    registry: &Registry,
    metrics: &Metrics,
) -> Result<Audit, AppError> {
    let limits = AuditLimits {
        admin_bytes_max: config.audit.admin_size_max_bytes,
        access_bytes_max: config.audit.access_size_max_bytes,
    };
    let audit = Audit::start(&config.data_dir, store, limits, metrics)?;
    registry.audited_by(audit.clone())?;
    let known = registry.clone();
    audit.look_up_with(Box::new(move |digest| known.known_by(digest)));
    Ok(audit)
}

/// Told when everything has started, before the first call is answered.
fn started(config: &Config) -> Event {
    let file = config.file.as_ref().map(|file| file.display().to_string());
    let event = Event::new(What::Started).text("version", env!("CARGO_PKG_VERSION"));
    event.maybe("config", file.as_deref())
}

fn end_audit(audit: &Audit, signal: &str, is_clean: bool) {
    let event = Event::new(What::Stopped).text("signal", signal);
    audit.note(event.text("clean", if is_clean { "yes" } else { "no" }));
    audit.stop();
}

fn start_history(
    config: &Config,
    journal: &Journal,
    registry: &Registry,
) -> Result<History, AppError> {
    let options = HistoryOptions {
        head_bytes_max: config.history.head_size_max_bytes,
        latest_bytes_max: config.history.latest_size_max_bytes,
        retention: config.history.retention,
        ..HistoryOptions::new(history_dir(config))
    };
    let tombstones = registry
        .tombstones()
        .into_iter()
        .map(|(id, at)| (id, Offset::new(at)));
    History::start(journal.clone(), options, tombstones).map_err(AppError::Thread)
}

fn start_feed(
    config: &Config,
    journal: &Journal,
    registry: &Registry,
    metrics: &Metrics,
    restored: &Restored,
) -> Result<FeedThread, AppError> {
    let limits = FeedLimits {
        keep_bytes: config.feed.keep_size_bytes,
        pin_bytes_max: config.feed.pin_size_max_bytes,
    };
    let workers = config.workers.count.get();
    let feeds = restored.feeds.clone();
    Feeds::start(journal, registry, metrics, limits, workers, feeds).map_err(AppError::Thread)
}

/// Where the files of the history are.
#[must_use]
pub fn history_dir(config: &Config) -> PathBuf {
    config.data_dir.join("history")
}

fn session_limits(config: &Config) -> SessionLimits {
    SessionLimits {
        packet_size_max: config.mqtt.packet_size_max_bytes,
        receive_maximum: config.mqtt.receive_maximum,
        keep_alive_max_s: config.mqtt.keep_alive_max_s,
        session_expiry_max_s: config.limits.session_expiry_max_s,
        subscriptions_max: config.limits.subscriptions_per_session_max,
        filters_per_packet_max: config.limits.filters_per_packet_max,
        unreleased_max: config.limits.unfinished_qos2_max,
        topic_aliases_max: config.mqtt.topic_alias_maximum,
        queue: QueueLimits {
            messages_max: config.limits.queue_messages_max,
            bytes_max: config.limits.queue_max_bytes,
        },
    }
}

fn router_limits(config: &Config) -> RouterLimits {
    RouterLimits {
        tree: TreeLimits {
            subscriptions_max: config.limits.subscriptions_max,
            ..TreeLimits::default()
        },
        inbox_bytes_max: config.limits.inbox_max_bytes,
    }
}

fn retained_limits(config: &Config) -> RetainedLimits {
    RetainedLimits {
        messages_max: config.limits.retained_messages_max,
        bytes_max: config.limits.retained_max_bytes,
        publisher_messages_max: config.limits.retained_per_identity_max,
        publisher_bytes_max: config.limits.retained_per_identity_max_bytes,
    }
}

fn profile(config: &Config) -> Profile {
    Profile {
        payload_size_max: usize::try_from(config.device.payload_size_max_bytes)
            .unwrap_or(usize::MAX),
        acks_bad_payload: config.device.send_ack_on_validation_exception,
        scan: ScanOptions {
            cast_strings: config.device.cast_strings,
            string_bytes_max: config.device.string_value_size_max_bytes,
        },
    }
}

/// SIGTERM, SIGINT and SIGHUP, caught from the moment this is made.
struct Signals {
    runtime: tokio::runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn catch() -> Result<Self, AppError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(AppError::Thread)?;
        let guard = runtime.enter();
        let terminate = signal(SignalKind::terminate()).map_err(AppError::Thread)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(AppError::Thread)?;
        let hang_up = signal(SignalKind::hangup()).map_err(AppError::Thread)?;
        drop(guard);
        Ok(Self {
            runtime,
            terminate,
            interrupt,
            hang_up,
        })
    }

    /// Waits for a signal to stop; answers its name. Meanwhile it sees to the certificates, at
    /// every `interval` (zero: never) and on SIGHUP, and tells the service manager that the broker
    /// is alive, as long as the journal has not failed.
    fn wait(
        self,
        journal: &Journal,
        mut certificates: Option<Reloader>,
        interval: Duration,
    ) -> &'static str {
        let Self {
            runtime,
            mut terminate,
            mut interrupt,
            mut hang_up,
        } = self;
        runtime.block_on(async {
            let mut check = Every::new((!interval.is_zero()).then_some(interval));
            let mut alive = Every::new(supervisor::alive_interval());
            loop {
                // Cancel-safe: a signal that came is not lost by another branch.
                tokio::select! {
                    _ = terminate.recv() => return "SIGTERM",
                    _ = interrupt.recv() => return "SIGINT",
                    _ = hang_up.recv() => match &mut certificates {
                        Some(certificates) => {
                            certificates.reload(SystemTime::now());
                        }
                        None => tracing::info!("SIGHUP: no listener has certificates to reload"),
                    },
                    () = alive.tick() => if journal.status() != JournalStatus::Failed {
                        supervisor::alive();
                    },
                    () = check.tick() => if let Some(certificates) = &mut certificates {
                        certificates.poll(SystemTime::now());
                    },
                }
            }
        })
    }
}

/// Ticks once in a period; without one never.
struct Every(Option<Interval>);

impl Every {
    fn new(period: Option<Duration>) -> Self {
        Self(period.map(|period| {
            let mut interval = interval_at(tokio::time::Instant::now() + period, period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        }))
    }

    /// Cancel-safe.
    async fn tick(&mut self) {
        match &mut self.0 {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// In order: no more admin calls, no more clients, then what is on disk is made final.
fn stop(
    http: HttpServer,
    net: Net,
    feed: FeedThread,
    checkpointer: Checkpointer,
    history: &History,
    journal: &Journal,
) -> Result<(), AppError> {
    history.stop();
    http.stop(HTTP_GRACE);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(AppError::Thread)?;
    if !runtime.block_on(net.stop(STOP_GRACE)) {
        return Err(AppError::StopTooSlow);
    }
    let held = feed.stop();
    // Before the holds of the feeds and the checkpointer go: it releases the journal.
    history.close();
    drop(held);
    checkpointer.stop();
    journal.close()?;
    tracing::info!("stopped");
    Ok(())
}
