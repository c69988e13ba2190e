//! Signed requests to the identity service: a connection string, TLS where it says so, and the
//! service's own errors.

use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs as _},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cli::CliError,
    config::Config,
    http::api::ApiError,
    http::identity_service::{AccessKeyText, signed_headers},
};

/// Nothing may keep a command waiting longer than this, step by step.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Largest reply read.
const REPLY_BYTES_MAX: u64 = 1 << 20;

/// Longest connection string that is read from standard input, bytes.
const INPUT_BYTES_MAX: u64 = 4_096;

const VERSION: &str = "api-version=2023-10-01";

/// An identity service to speak to.
pub(super) struct Link {
    /// Without a slash at its end.
    endpoint: String,
    /// As it stands in the header.
    host: String,
    key: AccessKeyText,
    /// `None` without TLS.
    tls: Option<Arc<ClientConfig>>,
}

impl Link {
    /// Takes a connection string apart; connects to nothing yet.
    pub(super) fn new(text: String, config: &Config) -> Result<Link, CliError> {
        let text = if text == "-" { read_input()? } else { text };
        let (endpoint, key) = parts(&text)?;
        let is_secured = endpoint.starts_with("https:");
        let tls = is_secured.then(|| tls(config)).transpose()?;
        let (_, host) = endpoint.split_once("://").unwrap_or_default();
        Ok(Link {
            host: host.to_owned(),
            endpoint,
            key,
            tls,
        })
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let body = serde_json::to_vec(body).map_err(CliError::Reply)?;
        let reply = self.call("POST", path, body)?;
        serde_json::from_slice(&reply).map_err(|error| self.not_tollgate(error.to_string()))
    }

    pub(super) fn post_empty(&self, path: &str) -> Result<(), CliError> {
        self.call("POST", path, Vec::new()).map(|_| ())
    }

    pub(super) fn delete(&self, path: &str) -> Result<(), CliError> {
        self.call("DELETE", path, Vec::new()).map(|_| ())
    }

    fn call(&self, method: &str, path: &str, body: Vec<u8>) -> Result<Vec<u8>, CliError> {
        let target = format!("{path}?{VERSION}");
        let now = SystemTime::now();
        let signed = signed_headers(&self.key, method, &self.host, &target, &body, now);
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.host
        );
        for (name, value) in signed {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let request = [request.into_bytes(), body].concat();
        let reply = self
            .exchange(&request)
            .map_err(|error| CliError::NoService {
                url: self.endpoint.clone(),
                what: error.to_string(),
            })?;
        let (status, body) = taken_apart(&reply)
            .ok_or_else(|| self.not_tollgate("a reply that is no HTTP".to_owned()))?;
        if (200..300).contains(&status) {
            return Ok(body.to_vec());
        }
        Err(match serde_json::from_slice::<ApiError>(body) {
            Ok(_) if status == 401 => CliError::Refused {
                message: "the access key is not in use, or the clocks differ by more than a \
                          quarter of an hour"
                    .to_owned(),
            },
            Ok(ApiError { error }) => CliError::Refused {
                message: error.message,
            },
            Err(_) => self.not_tollgate(format!("HTTP status {status}")),
        })
    }

    /// One request and its reply, on a connection of its own.
    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let name = self
            .host
            .rsplit_once(':')
            .map_or(&*self.host, |(name, _)| name);
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = self
            .host
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        let name = name.trim_matches(['[', ']']);
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in (name, port.unwrap_or(default)).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, ANSWER_WITHIN) {
                Ok(socket) => {
                    socket.set_read_timeout(Some(ANSWER_WITHIN))?;
                    socket.set_write_timeout(Some(ANSWER_WITHIN))?;
                    return match &self.tls {
                        None => talk(socket, request),
                        Some(tls) => {
                            let name = ServerName::try_from(name.to_owned());
                            let name = name.map_err(io::Error::other)?;
                            let session = ClientConnection::new(Arc::clone(tls), name);
                            let session = session.map_err(io::Error::other)?;
                            talk(StreamOwned::new(session, socket), request)
                        }
                    };
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn not_tollgate(&self, what: String) -> CliError {
        CliError::NotTollgate {
            url: self.endpoint.clone(),
            what,
        }
    }
}

/// Endpoint and key; names in any case, anything else in it is passed over.
fn parts(text: &str) -> Result<(String, AccessKeyText), CliError> {
    let value = |wanted: &str| {
        let mut pairs = text
            .trim()
            .split(';')
            .filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim().to_owned())
    };
    // Never with the text: it holds the key (SEC-55).
    let wrong = |what: &str| {
        let form = "endpoint=https://HOST:PORT/;accesskey=KEY";
        CliError::Usage(format!("the connection string {what}; it must be {form}"))
    };
    let endpoint = value("endpoint").ok_or_else(|| wrong("has no endpoint"))?;
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    let host = endpoint
        .strip_prefix("https://")
        .or_else(|| endpoint.strip_prefix("http://"));
    if host.is_none_or(|host| host.is_empty() || host.contains(['/', '?', '#', '@'])) {
        return Err(wrong("has an endpoint that is no address"));
    }
    let key = value("accesskey").ok_or_else(|| wrong("has no accesskey"))?;
    let key = AccessKeyText::parse(&key).ok_or_else(|| wrong("has an accesskey that is none"))?;
    Ok((endpoint, key))
}

fn talk(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut reply = Vec::new();
    stream.take(REPLY_BYTES_MAX).read_to_end(&mut reply)?;
    Ok(reply)
}

/// Status and body of a reply that ends with its connection.
fn taken_apart(reply: &[u8]) -> Option<(u16, &[u8])> {
    const END: &[u8] = b"\r\n\r\n";
    let at = reply.windows(END.len()).position(|bytes| bytes == END)?;
    let (head, body) = reply.split_at(at);
    let head = std::str::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.get(END.len()..)?))
}

/// The broker's own authority is trusted, and no other.
fn tls(config: &Config) -> Result<Arc<ClientConfig>, CliError> {
    let path = config.ca_certificate();
    let wrong = |what: String| {
        CliError::Usage(format!(
            "{}: {what}. It is needed to trust the endpoint; say where it is with --certs-dir",
            path.display()
        ))
    };
    let pem = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| wrong(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| wrong(error.to_string()))?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

fn read_input() -> Result<String, CliError> {
    let mut text = String::new();
    let mut input = io::stdin().lock().take(INPUT_BYTES_MAX);
    input.read_to_string(&mut text).map_err(CliError::Input)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    #[test]
    fn id_53_a_connection_string_has_names_in_any_case() {
        for text in [
            format!("endpoint=https://gate:8443/;accesskey={KEY}"),
            format!("Endpoint=https://gate:8443;AccessKey={KEY}\n"),
            format!("ACCESSKEY={KEY};other=1;ENDPOINT=https://gate:8443/"),
        ] {
            let (endpoint, key) = parts(&text).unwrap();
            assert_eq!(
                (endpoint.as_str(), key.expose()),
                ("https://gate:8443", KEY)
            );
        }
    }

    #[test]
    fn sec_55_a_bad_connection_string_is_not_repeated() {
        for text in [
            String::new(),
            format!("accesskey={KEY}"),
            format!("endpoint=ftp://gate;accesskey={KEY}"),
            format!("endpoint=https://;accesskey={KEY}"),
            format!("endpoint=https://a/b;accesskey={KEY}"),
            "endpoint=https://gate/;accesskey=c2VjcmV0?".to_owned(),
            "endpoint=https://gate/".to_owned(),
        ] {
            let Err(CliError::Usage(message)) = parts(&text) else {
                panic!("{text} was taken");
            };
            assert!(!message.contains(KEY) && !message.contains("c2VjcmV0"));
        }
    }
}
