//! The parts of a broker that serve devices, in this process: no HTTP, no history.
#![allow(
    dead_code,
    reason = "each test binary compiles its own copy and uses its own part of it"
)]

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tollgate::audit::{Audit, AuditLimits};
use tollgate::broker::feed::{FeedLimits, FeedThread, Feeds};
use tollgate::broker::router::RouterLimits;
use tollgate::broker::{IdentityLimits, Restored};
use tollgate::device_api::Profile;
use tollgate::identity::{DeviceName, Registry, Secrets};
use tollgate::journal::{Journal, JournalOptions, RealDisk};
use tollgate::limits::Networks;
use tollgate::metrics::Metrics;
use tollgate::mqtt::session::{QueueLimits, SessionLimits};
use tollgate::net::{
    DoorLimits, Listener, Net, NetParts, PlaceLimits, UnsentLimits, WebSocketRules,
};
use tollgate::store::Store;
use tollgate::telemetry::ScanOptions;

const AUDIT: AuditLimits = AuditLimits {
    admin_bytes_max: 1 << 20,
    access_bytes_max: 1 << 20,
};

/// How long a clean stop may take, on a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// The broker without its HTTP side and its history.
pub(crate) struct Parts {
    pub(crate) net: Net,
    feed: FeedThread,
    pub(crate) registry: Registry,
    pub(crate) journal: Journal,
    /// What it counts.
    pub(crate) metrics: Metrics,
    /// Where MQTT without TLS is spoken.
    pub(crate) address: SocketAddr,
    /// Where MQTT over WebSocket is.
    pub(crate) web: SocketAddr,
    /// A token of each device: `device-0`, `device-1`…
    pub(crate) tokens: Vec<String>,
    _dir: TempDir,
}

impl Parts {
    /// Starts it with so many devices and workers.
    pub(crate) fn start(devices: usize, workers: usize) -> Parts {
        let limits = FeedLimits {
            keep_bytes: 1 << 30,
            pin_bytes_max: 1 << 30,
        };
        Parts::start_with(devices, workers, 64 * 1024 * 1024, limits)
    }

    /// One worker, no devices, and connections that outlive their tokens.
    pub(crate) fn start_uncut(limits: FeedLimits) -> Parts {
        Parts::build(0, 1, 64 * 1024 * 1024, limits, false)
    }

    /// As [`Parts::start`], with segments of this size.
    pub(crate) fn start_with(
        devices: usize,
        workers: usize,
        segment_bytes: u64,
        limits: FeedLimits,
    ) -> Parts {
        Parts::build(devices, workers, segment_bytes, limits, true)
    }

    fn build(
        devices: usize,
        workers: usize,
        segment_bytes: u64,
        limits: FeedLimits,
        cut_at_expiry: bool,
    ) -> Parts {
        let dir = TempDir::with_prefix("tollgate-allocations-").expect("a temporary directory");
        let store = Store::open(&dir.path().join("data")).expect("a new database");
        let secrets = Secrets::open(&dir.path().join("secrets"), true).expect("new secrets");
        let registry = Registry::open(store.clone(), &secrets).expect("an empty registry");
        let tokens = (0..devices)
            .map(|at| {
                let name = DeviceName::new(&format!("device-{at}")).expect("a name");
                let (_, token) = registry.create_device(&name, None).expect("a device");
                token.expose().to_owned()
            })
            .collect();
        let options = JournalOptions {
            ballast_bytes: 0,
            segment_bytes,
            ..JournalOptions::new(dir.path().join("data/journal"))
        };
        let failed = |error: &_| panic!("the journal failed: {error}");
        let (journal, _) =
            Journal::open(Arc::new(RealDisk), options, Box::new(failed)).expect("a new journal");
        let (socket, address) = bound();
        let (web_socket, web) = bound();
        let metrics = Metrics::new();
        let audit = Audit::start(&dir.path().join("data"), &store, AUDIT, &metrics);
        let feed = Feeds::start(&journal, &registry, &metrics, limits, workers, Vec::new());
        let feed = feed.expect("a thread");
        let net = Net::start(NetParts {
            door: door(),
            listeners: vec![
                listener(socket, None),
                listener(web_socket, Some(Arc::default())),
            ],
            workers: NonZeroUsize::new(workers).expect("not 0"),
            registry: registry.clone(),
            journal: journal.clone(),
            feeds: feed.feeds(),
            audit: audit.expect("new files"),
            metrics: metrics.clone(),
            limits: SESSION_LIMITS,
            profile: Profile {
                payload_size_max: 65_536,
                acks_bad_payload: false,
                scan: ScanOptions::default(),
            },
            one_session: true,
            empty_user_name_code_4: false,
            cut_at_expiry,
            router: RouterLimits::default(),
            statistics_every: Duration::ZERO,
            restored: Restored::default(),
        })
        .expect("the network starts");
        Parts {
            net,
            feed,
            registry,
            journal,
            metrics,
            address,
            web,
            tokens,
            _dir: dir,
        }
    }

    /// Stops it cleanly.
    pub(crate) fn stop(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        assert!(runtime.block_on(self.net.stop(STOP_LIMIT)), "in time");
        let _held = self.feed.stop();
        self.journal.close().expect("a clean end");
    }
}

const SESSION_LIMITS: SessionLimits = SessionLimits {
    packet_size_max: 262_144,
    receive_maximum: 100,
    keep_alive_max_s: 7_200,
    session_expiry_max_s: 3_600,
    subscriptions_max: 100,
    filters_per_packet_max: 100,
    unreleased_max: 1_000,
    topic_aliases_max: 32,
    queue: QueueLimits {
        messages_max: 10_000,
        bytes_max: 8 * 1024 * 1024,
    },
};

/// A door that is open to everybody.
fn bound() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

/// Without TLS; with rules, for WebSockets.
fn listener(socket: TcpListener, web: Option<Arc<WebSocketRules>>) -> Listener {
    Listener {
        socket,
        tls: None,
        web,
        proxies: Networks::default(),
    }
}

fn door() -> DoorLimits {
    DoorLimits {
        places: PlaceLimits {
            connections_max: 100_000,
            per_address_max: 100_000,
            handshakes_per_address_max: 100_000,
            handshake_memory_max_bytes: 64 * 1024 * 1024,
            trusted: Networks::default(),
        },
        descriptors_max: usize::MAX,
        accepts_per_second_max: 1_000_000,
        failures_per_minute_max: 1_000_000,
        per_identity: IdentityLimits {
            connections_max: 1_000,
            sessions_max: 1_000,
        },
        unsent: UnsentLimits {
            bytes_max: 1024 * 1024,
            timeout: Duration::from_secs(30),
        },
    }
}
