//! Checked settings, made in two steps: what the operator wrote (`layer`), then [`Config`].
//!
//! A setting is looked for in four places; the later one wins: the default, the file, the
//! environment, a flag. Every key is described once, in `key`; `config.toml` shows them all.
//! Nothing is guessed: an unknown key, a value out of its range, an empty or cut file stops the
//! start with a message that names the place, because a setting that is silently dropped may be
//! the one that kept a port closed (SEC-42).

mod clients;
mod error;
mod key;
mod layer;
mod limits;
mod value;
mod web_socket;

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Component, Path, PathBuf},
    time::Duration,
};

pub use clients::{ClientCertificates, Demand};
pub use error::{ConfigError, Expected, Place};
pub use key::{KEYS, Key, Shape};
pub use layer::Sources;
pub use limits::Limits;
pub use web_socket::{Ws, Wss};

use crate::limits::Networks;
use layer::Layers;

/// Everything that can be set, checked. Fields stand in the order of `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that was read; `None` when there was none and the defaults stand.
    pub file: Option<PathBuf>,
    /// Journal and state database. Relative paths start at the working directory.
    pub data_dir: PathBuf,
    /// Keys and the admin token; never inside `data_dir`, so that a copy of the data opens
    /// nothing (SEC-51).
    pub secrets_dir: PathBuf,
    /// Certificates, which anybody may read.
    pub certs_dir: PathBuf,
    /// MQTT without TLS, and the limits of every MQTT connection.
    pub mqtt: Mqtt,
    /// MQTT with TLS.
    pub mqtts: Mqtts,
    /// MQTT over WebSocket, without TLS.
    pub ws: Ws,
    /// The same with TLS; uses the certificates of `mqtts`.
    pub wss: Wss,
    /// The certificates that the broker makes itself.
    pub certs: Certs,
    /// The HTTP server: admin API, health, metrics.
    pub http: Http,
    /// The same with TLS; uses the certificate of `mqtts`.
    pub https: Http,
    /// What devices may do and how they are answered.
    pub device: Device,
    /// What tokens of users allow, and how they end.
    pub identity: Identity,
    /// What an address, an identity and all together may take.
    pub limits: Limits,
    /// The durable log.
    pub journal: Journal,
    /// The queryable history.
    pub history: History,
    /// The application feed.
    pub feed: Feed,
    /// The audit.
    pub audit: Audit,
    /// Threads that serve connections.
    pub workers: Workers,
    /// The broker's own messages, on stderr.
    pub log: Log,
}

/// `[mqtt]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mqtt {
    /// Addresses to listen on; empty = off; port 0 = any free port.
    pub listen: Vec<SocketAddr>,
    /// Longest keep alive granted, seconds, 5 to 65,535; keep alive 0 is treated as this (SEC-80).
    pub keep_alive_max_s: u16,
    /// Largest whole packet accepted, bytes, announced in CONNACK (SEC-03).
    pub packet_size_max_bytes: u32,
    /// QoS 1 and 2 messages a client may have unacknowledged, 1 to 65,535, announced in CONNACK.
    pub receive_maximum: u16,
    /// Topic aliases a client may give, announced in CONNACK; and the most it is given.
    pub topic_alias_maximum: u16,
    /// How often figures are published under `$SYS/broker/`; zero is never.
    pub statistics_interval: Duration,
    /// Proxies in front: their connections begin with a PROXY header, and nobody else's may.
    pub proxy_protocol_from: Networks,
}

/// `[mqtts]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mqtts {
    /// Addresses to listen on; empty = off; port 0 = any free port.
    pub listen: Vec<SocketAddr>,
    /// The operator's own certificate and key; `None` = the pair that the broker makes.
    pub own_pair: Option<CertificatePair>,
    /// More pairs of the operator's, chosen by the name that a client asks for (SNI).
    pub more_pairs: Vec<CertificatePair>,
    /// What is asked of clients in the handshake.
    pub clients: ClientCertificates,
    /// As `mqtt.proxy_protocol_from`, for this listener.
    pub proxy_protocol_from: Networks,
}

/// A certificate chain and its key that the operator brought. The broker never writes to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificatePair {
    /// PEM file, the server's certificate first, then the chain.
    pub certificate: PathBuf,
    /// PEM file: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// `[certs]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certs {
    /// More host names and IP addresses for the certificate that the broker makes.
    pub names: Vec<String>,
    /// How often files of certificates and keys are looked at; zero is never.
    pub check_interval: Duration,
}

/// `[http]` and `[https]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Addresses to listen on; empty = off; port 0 = any free port.
    pub listen: Vec<SocketAddr>,
}

/// `[device]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// How many live sessions a device may have (TB-06).
    pub sessions: DeviceSessions,
    /// Largest payload on a device topic, bytes (TB-17); at most `packet_size_max_bytes`.
    pub payload_size_max_bytes: u32,
    /// A payload that cannot be read is acknowledged and the connection stays (TB-16).
    pub send_ack_on_validation_exception: bool,
    /// Strings that look like numbers or booleans are stored as such.
    pub cast_strings: bool,
    /// Longest string value stored, bytes; `None` = only the payload limits it.
    pub string_value_size_max_bytes: Option<u32>,
    /// Which code an absent user name gets on MQTT 3.1 and 3.1.1 (TB-04).
    pub connack_style: ConnackStyle,
}

/// How many live sessions a device may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceSessions {
    /// One: a second connection takes over, whatever its client id.
    One,
    /// One for every client id.
    PerClientId,
}

/// Whose CONNACK codes MQTT 3.1 and 3.1.1 clients get when refused (TB-04).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnackStyle {
    /// ThingsBoard's: always 0x05.
    Thingsboard,
    /// Magenta's: 0x04 for an absent or empty user name.
    Magenta,
}

/// `[identity]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// A connection ends when the token that opened it expires (SEC-40).
    pub cut_at_expiry: bool,
    /// What `chat`, `chat.join`, `chat.join.limited`, `voip` and `voip.join` stand for, each a list
    /// of `subscribe FILTER` and `publish FILTER`.
    pub topics: [Vec<String>; 5],
}

/// `[journal]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Most bytes of journal on disk; at the cap new telemetry is refused, nothing is dropped.
    pub size_max_bytes: u64,
    /// Least time between the starts of two commits while busy; an idle journal commits at once.
    pub commit_interval: Duration,
    /// Added to each sync of the journal, for measurements; zero on a broker that serves anybody.
    pub sync_delay: Duration,
}

/// `[history]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Most bytes of samples held in memory.
    pub head_size_max_bytes: usize,
    /// Most bytes of latest values held in memory.
    pub latest_size_max_bytes: usize,
    /// Age at which files are removed; `None` = never.
    pub retention: Option<Duration>,
}

/// `[feed]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Bytes of journal kept for feeds that start in the past, in whole segments.
    pub keep_size_bytes: u64,
    /// Most bytes of journal that feeds may pin.
    pub pin_size_max_bytes: u64,
}

/// `[audit]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    /// Bytes of what people did that are kept.
    pub admin_size_max_bytes: u64,
    /// Bytes of what clients did that are kept.
    pub access_size_max_bytes: u64,
}

/// `[workers]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workers {
    /// Threads that serve connections: as set, or one per core.
    pub count: NonZeroUsize,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How a message is written.
    pub format: LogFormat,
    /// A level, or a list like `info,tollgate::net=debug`.
    pub level: String,
}

/// How a log message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads and checks all settings.
    ///
    /// # Errors
    /// The first thing wrong, with its place and what to do; nothing was written or bound yet.
    pub fn load(sources: &Sources) -> Result<Config, ConfigError> {
        let layers = Layers::read(sources)?;
        let config = checked(&layers)?;
        secrets_apart(&layers, &config)?;
        listeners_apart(&layers, &config)?;
        Ok(config)
    }

    /// Whether any listener needs a certificate.
    pub fn has_tls(&self) -> bool {
        let lists = [&self.mqtts.listen, &self.wss.listen, &self.https.listen];
        lists.iter().any(|listen| !listen.is_empty())
    }

    /// Whether any listener is for clients.
    pub fn has_clients(&self) -> bool {
        let plain = [&self.mqtt.listen, &self.ws.listen];
        let secured = [&self.mqtts.listen, &self.wss.listen];
        plain
            .iter()
            .chain(&secured)
            .any(|listen| !listen.is_empty())
    }

    /// Where the CA certificate is that clients are given.
    pub fn ca_certificate(&self) -> PathBuf {
        self.certs_dir.join("ca-root.pem")
    }
}

fn checked(layers: &Layers) -> Result<Config, ConfigError> {
    let packet_size_max_bytes = layers.number(&key::MQTT_PACKET_SIZE_MAX_BYTES)?;
    let receive_maximum = layers.number(&key::MQTT_RECEIVE_MAXIMUM)?;
    Ok(Config {
        file: layers.file().map(Path::to_path_buf),
        data_dir: layers.path(&key::DATA_DIR)?,
        secrets_dir: layers.path(&key::SECRETS_DIR)?,
        certs_dir: layers.path(&key::CERTS_DIR)?,
        mqtt: Mqtt {
            listen: layers.addresses(&key::MQTT_LISTEN)?,
            keep_alive_max_s: layers.number(&key::MQTT_KEEP_ALIVE_MAX_S)?,
            packet_size_max_bytes,
            receive_maximum,
            topic_alias_maximum: layers.number(&key::MQTT_TOPIC_ALIAS_MAXIMUM)?,
            statistics_interval: Duration::from_secs(layers.number(&key::MQTT_SYS_INTERVAL_S)?),
            proxy_protocol_from: layers.networks(&key::MQTT_PROXY_PROTOCOL_FROM)?,
        },
        mqtts: mqtts(layers)?,
        ws: web_socket::ws(layers)?,
        wss: web_socket::wss(layers)?,
        certs: Certs {
            names: layers.names(&key::CERTS_NAMES)?,
            check_interval: Duration::from_secs(layers.number(&key::CERTS_CHECK_INTERVAL_S)?),
        },
        http: Http {
            listen: layers.addresses(&key::HTTP_LISTEN)?,
        },
        https: Http {
            listen: layers.addresses(&key::HTTPS_LISTEN)?,
        },
        device: device(layers, packet_size_max_bytes)?,
        identity: identity(layers)?,
        limits: limits::checked(layers, receive_maximum)?,
        journal: Journal {
            size_max_bytes: layers.number(&key::JOURNAL_SIZE_MAX_BYTES)?,
            commit_interval: Duration::from_micros(
                layers.number(&key::JOURNAL_COMMIT_INTERVAL_US)?,
            ),
            sync_delay: Duration::from_micros(layers.number(&key::JOURNAL_SYNC_DELAY_US)?),
        },
        history: History {
            head_size_max_bytes: layers.number(&key::HISTORY_HEAD_SIZE_MAX_BYTES)?,
            latest_size_max_bytes: layers.number(&key::HISTORY_LATEST_SIZE_MAX_BYTES)?,
            retention: match layers.number(&key::HISTORY_RETENTION_DAYS)? {
                0 => None,
                days => Some(Duration::from_secs(days * 86_400)),
            },
        },
        feed: Feed {
            keep_size_bytes: layers.number(&key::FEED_KEEP_SIZE_BYTES)?,
            pin_size_max_bytes: layers.number(&key::FEED_PIN_SIZE_MAX_BYTES)?,
        },
        audit: Audit {
            admin_size_max_bytes: layers.number(&key::AUDIT_ADMIN_SIZE_MAX_BYTES)?,
            access_size_max_bytes: layers.number(&key::AUDIT_ACCESS_SIZE_MAX_BYTES)?,
        },
        workers: Workers {
            count: worker_count(layers.number(&key::WORKERS_COUNT)?),
        },
        log: Log {
            format: match layers.choice(&key::LOG_FORMAT)? {
                "json" => LogFormat::Json,
                _ => LogFormat::Text,
            },
            level: layers.filter(&key::LOG_LEVEL)?,
        },
    })
}

fn device(layers: &Layers, packet_size_max_bytes: u32) -> Result<Device, ConfigError> {
    let payload_size_max_bytes = layers.number(&key::DEVICE_PAYLOAD_SIZE_MAX_BYTES)?;
    if payload_size_max_bytes > packet_size_max_bytes {
        return Err(layers.conflict(
            &key::DEVICE_PAYLOAD_SIZE_MAX_BYTES,
            format!(
                "is larger than a packet may be ({} = {packet_size_max_bytes}); lower this one \
                 or raise that one",
                key::MQTT_PACKET_SIZE_MAX_BYTES.path()
            ),
        ));
    }
    Ok(Device {
        sessions: match layers.choice(&key::DEVICE_SESSIONS)? {
            "per_client_id" => DeviceSessions::PerClientId,
            _ => DeviceSessions::One,
        },
        payload_size_max_bytes,
        send_ack_on_validation_exception: layers.switch(&key::DEVICE_SEND_ACK)?,
        cast_strings: layers.switch(&key::DEVICE_CAST_STRINGS)?,
        string_value_size_max_bytes: match layers.number(&key::DEVICE_STRING_SIZE_MAX_BYTES)? {
            0 => None,
            bytes => Some(bytes),
        },
        connack_style: match layers.choice(&key::DEVICE_CONNACK_STYLE)? {
            "magenta" => ConnackStyle::Magenta,
            _ => ConnackStyle::Thingsboard,
        },
    })
}

fn identity(layers: &Layers) -> Result<Identity, ConfigError> {
    Ok(Identity {
        cut_at_expiry: layers.switch(&key::IDENTITY_CUT_AT_EXPIRY)?,
        topics: [
            layers.rights(&key::IDENTITY_CHAT)?,
            layers.rights(&key::IDENTITY_CHAT_JOIN)?,
            layers.rights(&key::IDENTITY_CHAT_JOIN_LIMITED)?,
            layers.rights(&key::IDENTITY_VOIP)?,
            layers.rights(&key::IDENTITY_VOIP_JOIN)?,
        ],
    })
}

fn mqtts(layers: &Layers) -> Result<Mqtts, ConfigError> {
    Ok(Mqtts {
        listen: layers.addresses(&key::MQTTS_LISTEN)?,
        own_pair: own_pair(layers)?,
        more_pairs: layers.pairs(&key::MQTTS_MORE_CERTIFICATES)?,
        clients: clients::checked(layers)?,
        proxy_protocol_from: layers.networks(&key::MQTTS_PROXY_PROTOCOL_FROM)?,
    })
}

fn own_pair(layers: &Layers) -> Result<Option<CertificatePair>, ConfigError> {
    let certificate = layers.optional_path(&key::MQTTS_CERTIFICATE)?;
    let key = layers.optional_path(&key::MQTTS_KEY)?;
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(CertificatePair { certificate, key })),
        (Some(_), None) => Err(layers.conflict(
            &key::MQTTS_CERTIFICATE,
            "has no key beside it; set mqtts.key too, or neither of the two".to_owned(),
        )),
        (None, Some(_)) => Err(layers.conflict(
            &key::MQTTS_KEY,
            "has no certificate beside it; set mqtts.certificate too, or neither of the two"
                .to_owned(),
        )),
    }
}

fn worker_count(configured: usize) -> NonZeroUsize {
    NonZeroUsize::new(configured)
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN)
}

/// A copy of the data directory must give no usable token, so no secret may lie in it (SEC-51).
fn secrets_apart(layers: &Layers, config: &Config) -> Result<(), ConfigError> {
    let data = plain(&config.data_dir);
    let secrets = plain(&config.secrets_dir);
    if secrets.starts_with(&data) || data.starts_with(&secrets) {
        return Err(layers.conflict(
            &key::SECRETS_DIR,
            format!(
                "and data_dir = {:?} lie one inside the other; a copy of the data must not hold \
                 the keys, so give them two directories side by side",
                config.data_dir
            ),
        ));
    }
    Ok(())
}

/// Two listeners on one port: the second would fail to bind, or worse, steal connections.
fn listeners_apart(layers: &Layers, config: &Config) -> Result<(), ConfigError> {
    let lists = [
        (&key::MQTT_LISTEN, &config.mqtt.listen),
        (&key::MQTTS_LISTEN, &config.mqtts.listen),
        (&key::WS_LISTEN, &config.ws.listen),
        (&key::WSS_LISTEN, &config.wss.listen),
        (&key::HTTP_LISTEN, &config.http.listen),
        (&key::HTTPS_LISTEN, &config.https.listen),
    ];
    let mut seen: Vec<(&Key, SocketAddr)> = Vec::new();
    for (key, addresses) in lists {
        for address in addresses {
            if let Some((other, taken)) = seen.iter().find(|(_, taken)| overlap(*taken, *address)) {
                return Err(layers.conflict(
                    key,
                    format!(
                        "asks for {address}, which {} = {taken} has already; give one of them \
                         another port",
                        other.path()
                    ),
                ));
            }
            seen.push((key, *address));
        }
    }
    Ok(())
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // `[::]` takes 0.0.0.0 too. The pair `[::]` and `0.0.0.0` is therefore one too many.
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (any || one.ip() == other.ip())
}

/// An absolute path without `.` and `..`, for comparing; links are not followed, the directories
/// may not exist yet.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in std::path::absolute(path)
        .unwrap_or_else(|_| path.to_path_buf())
        .components()
    {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}
