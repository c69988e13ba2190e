//! The way to a running broker: its admin API over HTTP, as anybody else would use it.

use std::{
    fmt::Write as _,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use serde::{Serialize, de::DeserializeOwned};
use ureq::http::{Method, Request, Response, StatusCode, request::Builder};

use crate::{
    cli::{CliError, words},
    config::{Config, Sources},
    http::api::{ADMIN_PREFIX, ApiError, ErrorBody},
};

/// Where the broker is; the token is never a flag, because everybody may list processes.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Address of the broker's admin API [default: http://, then what http.listen says]
    #[arg(long, global = true, value_name = "URL", env = "TOLLGATE_ADMIN_URL")]
    #[arg(hide_env_values = true)]
    admin_url: Option<String>,
}

impl Target {
    /// Whether another address than the configured one was named.
    pub(super) fn is_named(&self) -> bool {
        self.admin_url.is_some()
    }
}

/// The options that commands for operators have in common.
#[derive(Debug, Args)]
pub(super) struct Operator {
    #[command(flatten)]
    target: Target,
    /// Print the broker's reply as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl Operator {
    /// As [`Client::new`].
    pub(super) fn client(&self, sources: &Sources) -> Result<Client, CliError> {
        Client::new(&self.target, sources)
    }
}

/// A broker to speak to.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) config: Config,
    url: String,
    token: Result<AdminToken, (PathBuf, io::ErrorKind)>,
    agent: ureq::Agent,
}

impl Client {
    /// Finds out where the broker is and which token opens it; connects to nothing yet.
    pub(super) fn new(target: &Target, sources: &Sources) -> Result<Client, CliError> {
        let config = Config::load(sources)?;
        let url = match &target.admin_url {
            Some(url) => checked_url(url)?,
            None => configured_url(&config)?,
        };
        let token = AdminToken::find(&config);
        Ok(Client {
            config,
            url,
            token,
            agent: agent(Some(ANSWER_WITHIN)),
        })
    }

    /// The address that is used.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The host in that address, for the lines a device is given.
    pub(super) fn host(&self) -> &str {
        host(&self.url)
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.call(Method::GET, path, Vec::new())
    }

    /// As [`Client::get`], of much at once: it may take long where the disk is busy.
    pub(super) fn get_much<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.call_by(&agent(None), Method::GET, path, Vec::new())
    }

    pub(super) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.call(Method::DELETE, path, Vec::new())
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let body = serde_json::to_vec(body).map_err(CliError::Reply)?;
        self.call(Method::POST, path, body)
    }

    pub(super) fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let body = serde_json::to_vec(body).map_err(CliError::Reply)?;
        self.call(Method::PATCH, path, body)
    }

    /// A request that is all said by its path.
    pub(super) fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.call(Method::POST, path, Vec::new())
    }

    /// Asks whether the broker is well: its answer's status. Needs no token.
    pub(super) fn health(&self) -> Result<StatusCode, CliError> {
        let request = Request::get(format!("{}/healthz", self.url)).body(());
        Ok(self.ask(&self.agent, request)?.status())
    }

    /// A reply without an end, line by line.
    pub(super) fn stream(&self, path: &str) -> Result<impl io::BufRead + use<>, CliError> {
        let request = self.request(Method::GET, path, JSON)?.body(Vec::new());
        let response = self.ask(&agent(None), request)?;
        self.reader(response).map(io::BufReader::new)
    }

    /// A reply ended in the middle.
    pub(super) fn cut_off(&self, error: &io::Error) -> CliError {
        CliError::NoBroker {
            url: self.url.clone(),
            what: format!("the reply was cut off ({error})"),
        }
    }

    /// Sends a body that is made while it is sent; it may take long.
    pub(super) fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        kind: &str,
        body: &mut dyn io::Read,
    ) -> Result<Uploaded<T>, CliError> {
        let request = self.request(Method::POST, path, kind)?;
        let request = request.body(ureq::SendBody::from_reader(body));
        let response = self.ask(&agent(None), request)?;
        let status = response.status();
        let body = self.body(response)?;
        if status.is_success() {
            return self.parsed(&body).map(Uploaded::Done);
        }
        match serde_json::from_slice::<ApiError>(&body) {
            Ok(ApiError { error }) if status != StatusCode::UNAUTHORIZED => {
                Ok(Uploaded::Refused(error))
            }
            _ => Err(self.refusal(status, &body)),
        }
    }

    /// Asks for something long, which is read while it comes.
    pub(super) fn download(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<ureq::BodyReader<'static>, CliError> {
        let body = serde_json::to_vec(body).map_err(CliError::Reply)?;
        let request = self.request(Method::POST, path, JSON)?.body(body);
        let response = self.ask(&agent(None), request)?;
        self.reader(response)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, CliError> {
        self.call_by(&self.agent, method, path, body)
    }

    fn call_by<T: DeserializeOwned>(
        &self,
        agent: &ureq::Agent,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, CliError> {
        let request = self.request(method, path, JSON)?.body(body);
        let response = self.ask(agent, request)?;
        let status = response.status();
        let body = self.body(response)?;
        if status.is_success() {
            return self.parsed(&body);
        }
        Err(self.refusal(status, &body))
    }

    fn token(&self) -> Result<&AdminToken, CliError> {
        match &self.token {
            Ok(token) => Ok(token),
            Err((path, kind)) => {
                // Without a broker there may well be no token yet: say the first thing first.
                self.health()?;
                let source = io::Error::from(*kind);
                Err(CliError::AdminToken {
                    path: path.clone(),
                    source,
                })
            }
        }
    }

    /// A request with the admin token, and a body of this kind.
    fn request(&self, method: Method, path: &str, kind: &str) -> Result<Builder, CliError> {
        let token = self.token()?;
        Ok(Request::builder()
            .method(method)
            .uri(format!("{}{ADMIN_PREFIX}{path}", self.url))
            .header("authorization", format!("Bearer {}", token.text))
            .header("content-type", kind))
    }

    /// The way of every request. What may take long has an agent without a limit on the whole.
    fn ask(
        &self,
        agent: &ureq::Agent,
        request: Result<Request<impl ureq::AsSendBody>, ureq::http::Error>,
    ) -> Result<Response<ureq::Body>, CliError> {
        let request = request.map_err(|error| {
            CliError::Usage(format!(
                "{} or the admin token cannot be sent: {error}",
                self.url
            ))
        })?;
        agent.run(request).map_err(|error| self.failed(error))
    }

    /// The whole body of a reply.
    fn body(&self, mut response: Response<ureq::Body>) -> Result<Vec<u8>, CliError> {
        let body = response.body_mut().with_config().limit(REPLY_BYTES_MAX);
        body.read_to_vec().map_err(|error| self.failed(error))
    }

    /// The body of a success, to be read while it comes.
    fn reader(
        &self,
        response: Response<ureq::Body>,
    ) -> Result<ureq::BodyReader<'static>, CliError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body().into_reader());
        }
        let body = self.body(response)?;
        Err(self.refusal(status, &body))
    }

    fn parsed<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, CliError> {
        serde_json::from_slice(body).map_err(|error| self.not_tollgate(error.to_string()))
    }

    /// Why a request was not done, by the body of its reply.
    fn refusal(&self, status: StatusCode, body: &[u8]) -> CliError {
        match (serde_json::from_slice::<ApiError>(body), &self.token) {
            (Ok(ApiError { error }), Ok(token)) if status == StatusCode::UNAUTHORIZED => {
                CliError::Refused {
                    message: format!("{} ({})", error.message, token.origin),
                }
            }
            (Ok(ApiError { error }), _) => CliError::Refused {
                message: words::refusal(error),
            },
            (Err(_), _) => self.not_tollgate(format!("HTTP status {status}")),
        }
    }

    fn failed(&self, error: ureq::Error) -> CliError {
        let url = self.url.clone();
        match error {
            ureq::Error::Protocol(error) => self.not_tollgate(error.to_string()),
            ureq::Error::Timeout(_) => {
                let what = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
                CliError::NoBroker { url, what }
            }
            ureq::Error::Io(error) => CliError::NoBroker {
                url,
                what: error.to_string(),
            },
            error => CliError::NoBroker {
                url,
                what: error.to_string(),
            },
        }
    }

    fn not_tollgate(&self, what: String) -> CliError {
        CliError::NotTollgate {
            url: self.url.clone(),
            what,
        }
    }
}

/// What became of an upload.
pub(super) enum Uploaded<T> {
    Done(T),
    Refused(ErrorBody),
}

/// One step of a path: a device's name may hold spaces and slashes.
pub(super) fn path_step(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // writing to a String cannot fail
        }
    }
    // `.` and `..` alone would be taken for steps up.
    if out == "." || out == ".." {
        out.replace('.', "%2E")
    } else {
        out
    }
}

/// The admin token and where it came from. Has no `Debug` of its own text (SEC-55).
struct AdminToken {
    text: String,
    origin: String,
}

impl AdminToken {
    fn find(config: &Config) -> Result<AdminToken, (PathBuf, io::ErrorKind)> {
        if let Ok(text) = std::env::var("TOLLGATE_ADMIN_TOKEN") {
            let origin = "the token is that of TOLLGATE_ADMIN_TOKEN".to_owned();
            return Ok(AdminToken {
                text: text.trim().to_owned(),
                origin,
            });
        }
        let path = config.secrets_dir.join("admin.token");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let origin = format!("the token is that of {}", path.display());
                Ok(AdminToken {
                    text: text.trim().to_owned(),
                    origin,
                })
            }
            // Whoever is elsewhere sees where it was looked for.
            Err(error) => Err((std::path::absolute(&path).unwrap_or(path), error.kind())),
        }
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminToken")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

const JSON: &str = "application/json";

/// A whole answer must be there by then. A revocation may take 5 s, a query waits 5 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Largest reply read: 10,000 points of 64 KiB each fit; more is an error.
const REPLY_BYTES_MAX: u64 = 1 << 30;

/// `within`: the time for a whole answer; without one, only for the connection.
fn agent(within: Option<Duration>) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(within)
        .timeout_connect(Some(ANSWER_WITHIN))
        .http_status_as_error(false)
        // The token goes to the address that was named and nowhere else.
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

fn checked_url(url: &str) -> Result<String, CliError> {
    let url = url.trim_end_matches('/');
    let is_plain = url.starts_with("http://") && !host(url).is_empty() && !url.contains(['?', '#']);
    if !is_plain {
        return Err(CliError::Usage(format!(
            "--admin-url {url:?}: allowed is http://HOST:PORT; this program speaks plain HTTP, \
             so reach a distant broker through a tunnel"
        )));
    }
    let host = host(url);
    let local = host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback());
    if !local {
        eprintln!("tollgate: the admin token travels to {host} unencrypted");
    }
    Ok(url.to_owned())
}

fn configured_url(config: &Config) -> Result<String, CliError> {
    let Some(address) = config.http.listen.first() else {
        return Err(CliError::NoAddress(
            "http.listen is off, so there is no admin API here; say where the broker is with \
             --admin-url or TOLLGATE_ADMIN_URL"
                .to_owned(),
        ));
    };
    if address.port() == 0 {
        return Err(CliError::NoAddress(
            "http.listen has port 0, so only the broker knows its port; say where it is with \
             --admin-url or TOLLGATE_ADMIN_URL"
                .to_owned(),
        ));
    }
    let ip = if address.ip().is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        address.ip()
    };
    Ok(format!("http://{}", SocketAddr::new(ip, address.port())))
}

fn host(url: &str) -> &str {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let authority = rest.split('/').next().unwrap_or(rest);
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_step_of_a_path() {
        assert_eq!(path_step("boiler-7"), "boiler-7");
        assert_eq!(path_step("Halle 1/ä"), "Halle%201%2F%C3%A4");
        assert_eq!(path_step(".."), "%2E%2E");
    }

    #[test]
    fn only_plain_http_addresses_are_taken() {
        assert_eq!(
            checked_url("http://127.0.0.1:8080/").unwrap(),
            "http://127.0.0.1:8080"
        );
        for url in [
            "https://broker:8443",
            "broker:8080",
            "http://",
            "ftp://x",
            "http://a/?b",
        ] {
            assert!(matches!(checked_url(url), Err(CliError::Usage(_))), "{url}");
        }
    }

    #[test]
    fn the_host_is_found_in_every_form_of_address() {
        assert_eq!(host("http://[::1]:8080/base"), "::1");
        assert_eq!(host("http://broker.local"), "broker.local");
        assert_eq!(host("http://10.0.0.1:80"), "10.0.0.1");
    }

    #[test]
    fn sec_55_the_admin_token_is_not_in_debug_output() {
        let token = AdminToken {
            text: "tga_secret".to_owned(),
            origin: "a file".to_owned(),
        };
        assert!(!format!("{token:?}").contains("secret"));
    }
}
