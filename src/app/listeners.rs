//! Binds every configured address before anything is served.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::SystemTime;

use socket2::{Domain, Protocol, Socket, Type};

use super::certificates::Reloader;
use super::error::AppError;
use crate::audit::Audit;
use crate::config::Config;
use crate::limits::Networks;
use crate::metrics::Metrics;
use crate::net::{Listener, WebSocketRules, tls::Tls};

/// Connections the kernel keeps until they are accepted. The system may allow less
/// (`net.core.somaxconn`).
const BACKLOG: i32 = 4_096;

/// Bound sockets, by what is spoken on them.
pub(super) struct Bound {
    mqtt: Vec<TcpListener>,
    mqtts: Vec<TcpListener>,
    ws: Vec<TcpListener>,
    wss: Vec<TcpListener>,
    http: Vec<TcpListener>,
    https: Vec<TcpListener>,
}

/// The addresses they were bound to, with real ports.
pub(super) struct Addresses {
    pub(super) mqtt: Vec<SocketAddr>,
    pub(super) mqtts: Vec<SocketAddr>,
    ws: Vec<SocketAddr>,
    wss: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
}

/// HTTP sockets, each plain or with TLS.
pub(super) type HttpListeners = Vec<(TcpListener, Option<Tls>)>;

impl Bound {
    /// Binds everything, or nothing.
    pub(super) fn bind(config: &Config) -> Result<Self, AppError> {
        Ok(Self {
            mqtt: bind_all(&config.mqtt.listen, "mqtt")?,
            mqtts: bind_all(&config.mqtts.listen, "mqtts")?,
            ws: bind_all(&config.ws.listen, "ws")?,
            wss: bind_all(&config.wss.listen, "wss")?,
            http: bind_all(&config.http.listen, "http")?,
            https: bind_all(&config.https.listen, "https")?,
        })
    }

    pub(super) fn addresses(&self) -> Addresses {
        let of = |sockets: &[TcpListener]| {
            sockets
                .iter()
                .filter_map(|socket| socket.local_addr().ok())
                .collect()
        };
        Addresses {
            mqtt: of(&self.mqtt),
            mqtts: of(&self.mqtts),
            ws: of(&self.ws),
            wss: of(&self.wss),
            http: of(&self.http),
            https: of(&self.https),
        }
    }

    /// The listeners for the network and for the HTTP server; `tls` is for MQTT and for HTTP.
    /// Without TLS there are no TLS listeners: [`certificates`] gives some whenever any is
    /// configured.
    pub(super) fn into_listeners(
        self,
        config: &Config,
        tls: Option<&(Tls, Tls)>,
    ) -> (Vec<Listener>, HttpListeners) {
        let web = Arc::new(WebSocketRules {
            origins: config.ws.origins.clone(),
            token_in_query: config.ws.token_in_query,
        });
        let plain = |sockets: Vec<TcpListener>, web: Option<&Arc<WebSocketRules>>, proxies| {
            listeners(sockets, None, web, proxies)
        };
        let secured = |sockets: Vec<TcpListener>, web: Option<&Arc<WebSocketRules>>, proxies| {
            let tls = tls.map(|tls| &tls.0);
            tls.map_or_else(Vec::new, |tls| listeners(sockets, Some(tls), web, proxies))
        };
        let clients = [
            plain(self.mqtt, None, &config.mqtt.proxy_protocol_from),
            secured(self.mqtts, None, &config.mqtts.proxy_protocol_from),
            plain(self.ws, Some(&web), &config.ws.proxy_protocol_from),
            secured(self.wss, Some(&web), &config.wss.proxy_protocol_from),
        ];
        let http = self.http.into_iter().map(|socket| (socket, None));
        let https = self
            .https
            .into_iter()
            .filter_map(|socket| Some((socket, Some(tls?.1.clone()))));
        let clients = clients.into_iter().flatten().collect();
        (clients, http.chain(https).collect())
    }
}

/// Listeners on which the same is spoken.
fn listeners(
    sockets: Vec<TcpListener>,
    tls: Option<&Tls>,
    web: Option<&Arc<WebSocketRules>>,
    proxies: &Networks,
) -> Vec<Listener> {
    let listener = |socket| Listener {
        socket,
        tls: tls.cloned(),
        web: web.cloned(),
        proxies: proxies.clone(),
    };
    sockets.into_iter().map(listener).collect()
}

impl Addresses {
    /// Every address with the name of its listener.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> + '_ {
        let named = |name, addresses: &'_ [SocketAddr]| {
            addresses
                .iter()
                .map(move |address| (name, *address))
                .collect::<Vec<_>>()
        };
        [
            named("mqtt", &self.mqtt),
            named("mqtts", &self.mqtts),
            named("ws", &self.ws),
            named("wss", &self.wss),
            named("http", &self.http),
            named("https", &self.https),
        ]
        .into_iter()
        .flatten()
    }
}

/// The certificates of TLS listeners, if there are any: the configured pairs, or one made by the
/// broker.
pub(super) fn certificates(
    config: &Config,
    metrics: &Metrics,
    audit: &Audit,
) -> Result<Option<Reloader>, AppError> {
    if !config.has_tls() {
        return Ok(None);
    }
    let figures = metrics.door().clone();
    let mut reloader = Reloader::start(config, figures, SystemTime::now())?;
    reloader.audited_by(audit.clone());
    Ok(Some(reloader))
}

fn bind_all(addresses: &[SocketAddr], key: &'static str) -> Result<Vec<TcpListener>, AppError> {
    let bind = |address: &SocketAddr| {
        bind(*address).map_err(|source| AppError::Listen {
            address: *address,
            key,
            source,
        })
    };
    addresses.iter().map(bind).collect()
}

/// `[::]` takes IPv4 too; on a machine without IPv6 it means 0.0.0.0.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    ) {
        Ok(socket) => socket,
        Err(_) if address.ip().is_unspecified() && address.is_ipv6() => {
            return bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())));
        }
        Err(error) => return Err(error),
    };
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for old connections' TIME_WAIT; a second live listener on the port
    // is still refused.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
