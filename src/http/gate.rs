//! Who gets in: Host, bearer token, rate. Asked before a request reaches any endpoint.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::http::{HeaderMap, Request, header, uri::Authority};

use super::access::{Caller, Needs};
use super::platform;
use super::refused::{Code, Refused};
use super::routes;
use crate::identity::{Admin, AdminScope};

/// Signed requests to the identity service a second in the long run, of all back ends together.
/// Beyond it 429.
pub(super) const SIGNED_PER_SECOND_MAX: u32 = 1_000;

/// Decides for each request whether it goes on, and says whose it is.
pub(super) struct Gate {
    names: Vec<String>,
    /// Paths that need no token. All others do, also those that do not exist: deny by default.
    open_paths: Vec<&'static str>,
    strangers: Bucket,
    /// For each of [`AdminScope::ALL`]: a program that looks never keeps one that acts waiting.
    admins: [Bucket; AdminScope::ALL.len()],
    back_ends: Bucket,
}

impl Gate {
    /// `names`: host names and IP addresses, besides those of this machine's loopback and the
    /// address that the connection came in on, that clients may use for this server.
    /// `per_second_max`: requests in the long run, for strangers and for the admin tokens of each
    /// scope together (SEC-75). Beyond it 429; a stranger who uses up his share never locks an
    /// operator out.
    pub(super) fn new(names: Vec<String>, per_second_max: u32) -> Gate {
        let open = routes::routes().into_iter();
        let open = open.filter(|route| route.needs == Needs::Nothing);
        Gate {
            names,
            open_paths: open.map(|route| route.path).collect(),
            strangers: Bucket::new(per_second_max),
            admins: AdminScope::ALL.map(|_| Bucket::new(per_second_max)),
            back_ends: Bucket::new(SIGNED_PER_SECOND_MAX),
        }
    }

    /// `local`: the address the connection came in on. `admin` says whose a bearer token is, and
    /// compares in constant time.
    pub(super) fn admit<B>(
        &self,
        request: &Request<B>,
        local: IpAddr,
        admin: impl FnOnce(&str) -> Option<Admin>,
    ) -> Result<Caller, Refused> {
        let now = Instant::now();
        if let Err(refused) = self.check_host(request, local) {
            self.strangers.take(now)?;
            return Err(refused);
        }
        if self.open_paths.contains(&request.uri().path()) {
            self.strangers.take(now)?;
            return Ok(Caller::Stranger);
        }
        let is_platform = request.uri().path().starts_with(platform::PREFIX);
        if let Some(admin) = bearer(request.headers(), is_platform).and_then(admin) {
            self.bucket_of(admin.scope).take(now)?;
            return Ok(Caller::Admin(admin));
        }
        self.strangers.take(now)?;
        let message = "send an admin token: Authorization: Bearer tga_…";
        Err(Refused::new(Code::Unauthorized, message).target("Authorization"))
    }

    fn bucket_of(&self, scope: AdminScope) -> &Bucket {
        let [read, operate, admin] = &self.admins;
        match scope {
            AdminScope::Read => read,
            AdminScope::Operate => operate,
            AdminScope::Admin => admin,
        }
    }

    /// Counts a request to the identity service: a stranger's, unless it is signed.
    pub(super) fn count_signed(&self, is_signed: bool) -> Result<(), Refused> {
        let bucket = if is_signed {
            &self.back_ends
        } else {
            &self.strangers
        };
        bucket.take(Instant::now())
    }

    /// A web page that had its own name point at this address (DNS rebinding) is found out here:
    /// its requests still carry its name.
    fn check_host<B>(&self, request: &Request<B>, local: IpAddr) -> Result<(), Refused> {
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            let message = "a request carries exactly one Host header";
            return Err(Refused::new(Code::BadRequest, message).target("Host"));
        };
        let host = host
            .to_str()
            .ok()
            .and_then(|text| text.parse::<Authority>().ok());
        let is_ours = |named: &Authority| self.is_ours(named, local);
        if host.as_ref().is_some_and(is_ours) && request.uri().authority().is_none_or(is_ours) {
            return Ok(());
        }
        let message = "this server does not go by that name; names that it should answer to are \
                       set in its configuration";
        Err(Refused::new(Code::HostRefused, message).target("Host"))
    }

    fn is_ours(&self, named: &Authority, local: IpAddr) -> bool {
        let host = named.host();
        // What is not the host must be a port: no user, nothing unread. Which port does not
        // matter, it may be mapped.
        if named.as_str() != host && (named.port_u16().is_none() || named.as_str().contains('@')) {
            return false;
        }
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            // An IPv4 client of a [::] listener is seen as ::ffff:a.b.c.d on this side.
            if address.is_loopback() || address.to_canonical() == local.to_canonical() {
                return true;
            }
        }
        host.eq_ignore_ascii_case("localhost")
            || self
                .names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// The header that the platform's clients send instead.
const X_AUTHORIZATION: &str = "x-authorization";

/// The token of `Authorization: Bearer …`, if there is exactly one such header; `is_platform`:
/// or of `X-Authorization`.
fn bearer(headers: &HeaderMap, is_platform: bool) -> Option<&str> {
    let others = is_platform.then(|| headers.get_all(X_AUTHORIZATION).iter());
    let mut values = headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .chain(others.into_iter().flatten());
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A token bucket: full at the start, holds one second's share.
struct Bucket {
    per_second: f64,
    /// What is left and when that was so. A std mutex: held for a few additions, never across a
    /// call.
    left: Mutex<(f64, Instant)>,
}

impl Bucket {
    fn new(per_second: u32) -> Bucket {
        let per_second = f64::from(per_second);
        Bucket {
            per_second,
            left: Mutex::new((per_second, Instant::now())),
        }
    }

    fn take(&self, now: Instant) -> Result<(), Refused> {
        // A panic while it was held cannot have left it half-written: it is two plain numbers.
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut tokens, since) = *left;
        let passed = now.saturating_duration_since(since);
        tokens = (tokens + passed.as_secs_f64() * self.per_second).min(self.per_second);
        let is_enough = tokens >= 1.0;
        *left = (
            if is_enough { tokens - 1.0 } else { tokens },
            since + passed,
        );
        if is_enough {
            return Ok(());
        }
        let message = format!("more than {} requests in a second", self.per_second);
        Err(Refused::new(Code::TooManyRequests, message))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let builder = Request::builder().uri(uri);
        let builder = headers.iter().fold(builder, |builder, (name, value)| {
            builder.header(*name, *value)
        });
        builder.body(()).unwrap()
    }

    fn verdict(gate: &Gate, uri: &str, headers: &[(&str, &str)]) -> Option<Code> {
        let local = "192.0.2.7".parse().unwrap();
        let admin = |token: &str| (token == "tga_right").then(Admin::built_in);
        let admitted = gate.admit(&request(uri, headers), local, admin);
        admitted.err().map(|refused| refused.code)
    }

    #[test]
    fn sec_75_only_names_of_this_server_are_answered() {
        let gate = Gate::new(
            vec!["Gate.example".to_owned(), "198.51.100.1".to_owned()],
            100,
        );
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]:8080",
            "192.0.2.7",
            "192.0.2.7:1",
            "gate.example",
            "gate.EXAMPLE:8443",
            "198.51.100.1:8080",
        ] {
            assert_eq!(
                verdict(&gate, "/healthz", &[("host", host)]),
                None,
                "{host}"
            );
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "192.0.2.8",
            "user@localhost",
            "localhost:port",
            "localhost, evil.example",
            "",
            " ",
            "[::2]",
        ] {
            let code = Some(Code::HostRefused);
            assert_eq!(
                verdict(&gate, "/healthz", &[("host", host)]),
                code,
                "{host:?}"
            );
        }
        assert_eq!(verdict(&gate, "/healthz", &[]), Some(Code::BadRequest));
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(verdict(&gate, "/healthz", &two), Some(Code::BadRequest));
        let uri = "http://evil.example/healthz";
        assert_eq!(
            verdict(&gate, uri, &[("host", "localhost")]),
            Some(Code::HostRefused)
        );
        let uri = "http://localhost/healthz";
        assert_eq!(verdict(&gate, uri, &[("host", "localhost")]), None);
    }

    #[test]
    fn sec_75_a_mapped_ipv4_address_is_the_address() {
        let gate = Gate::new(Vec::new(), 100);
        let local = "::ffff:192.0.2.7".parse().unwrap();
        let request = request("/healthz", &[("host", "192.0.2.7")]);
        assert!(gate.admit(&request, local, |_| None).is_ok());
    }

    #[test]
    fn every_path_but_four_needs_the_token() {
        let gate = Gate::new(Vec::new(), 100);
        for path in [
            "/admin/v1/devices",
            "/",
            "/nothing",
            "/healthz/",
            "/HEALTHZ",
            "//metrics",
        ] {
            let verdict =
                |value| verdict(&gate, path, &[("host", "::1"), ("authorization", value)]);
            // A bare IPv6 address is no Host.
            assert_eq!(
                verdict("Bearer tga_right"),
                Some(Code::HostRefused),
                "{path}"
            );
        }
        let with = |value| {
            let headers = [("host", "[::1]"), ("authorization", value)];
            verdict(&gate, "/admin/v1/devices", &headers)
        };
        assert_eq!(with("Bearer tga_right"), None);
        assert_eq!(with("bearer  tga_right "), None);
        for value in [
            "Bearer tga_wrong",
            "Bearer",
            "Basic tga_right",
            "tga_right",
            "Bearer ",
        ] {
            assert_eq!(with(value), Some(Code::Unauthorized), "{value}");
        }
        let two = [
            ("host", "localhost"),
            ("authorization", "Bearer tga_right"),
            ("authorization", "Bearer tga_right"),
        ];
        assert_eq!(verdict(&gate, "/", &two), Some(Code::Unauthorized));
        for path in ["/", "/nothing", "/healthz/", "/admin/v1/../../healthz"] {
            let headers = [("host", "localhost")];
            assert_eq!(
                verdict(&gate, path, &headers),
                Some(Code::Unauthorized),
                "{path}"
            );
        }
    }

    #[test]
    fn sec_75_a_hundred_requests_a_second_and_strangers_do_not_lock_the_operator_out() {
        let bucket = Bucket::new(100);
        let start = Instant::now();
        let taken = |at| (0..300).filter(|_| bucket.take(at).is_ok()).count();
        assert_eq!(taken(start), 100);
        assert_eq!(taken(start + Duration::from_millis(105)), 10);
        assert_eq!(taken(start + Duration::from_secs(60)), 100);
        assert_eq!(taken(start), 0, "time does not run backwards");

        let gate = Gate::new(Vec::new(), 100);
        let wrong = [("host", "localhost"), ("authorization", "Bearer tga_wrong")];
        let right = [("host", "localhost"), ("authorization", "Bearer tga_right")];
        let codes: Vec<_> = (0..300).map(|_| verdict(&gate, "/", &wrong)).collect();
        assert!(codes.contains(&Some(Code::TooManyRequests)));
        assert_eq!(verdict(&gate, "/", &right), None);
    }
}
