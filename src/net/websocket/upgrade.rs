//! The HTTP request that asks for a WebSocket: taken or answered (RFC 6455, 4.2). Pure: bytes in,
//! bytes out.
//!
//! One request is read, and nothing but a GET without body for a path that is served here ends in
//! anything else than an error. Which paths those are says [`is_served`]. Path, query and headers
//! are never logged: they may hold a token (SEC-55).

use std::fmt;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use httparse::{EMPTY_HEADER, Error, Header, Request, Status};

use crate::identity::base64;
use crate::metrics::WebSocketFailure as Failure;

/// Longest request, with the empty line at its end, in bytes (SEC-74).
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Most headers in it: browsers send some twenty.
const HEADERS_MAX: usize = 64;

/// Where devices, applications and users are served.
const DEVICE_PATH: &str = "/mqtt";

/// The one subprotocol there is [MQTT-6.0.0-3] [MQTT-6.0.0-4].
const SUBPROTOCOL: &str = "mqtt";

/// What RFC 6455 puts behind a client's key before it is hashed.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Methods a request may begin with. Anything else is no HTTP, which is known at its first bytes.
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"TRACE ",
    b"CONNECT ",
];

/// What a WebSocket listener asks for beyond the standard.
#[derive(Clone, Debug, Default)]
pub struct WebSocketRules {
    /// Pages that browsers may come from, as `https://host:port`; empty: any. Who is no browser
    /// names none.
    pub origins: Vec<String>,
    /// A token may stand in the query, as `access_token`.
    pub token_in_query: bool,
}

/// A request that becomes a WebSocket.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// `Sec-WebSocket-Accept`.
    accept: String,
    /// The bearer, which nobody has looked at.
    pub(super) token: Option<BearerText>,
}

/// A bearer in clear. It has no `Display`, and its `Debug` is redacted (SEC-55).
pub(super) struct BearerText(String);

impl BearerText {
    /// The token itself: to be looked up, never for a log.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BearerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerText(redacted)")
    }
}

/// Why it becomes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    status: &'static str,
    /// More headers, each with its line end.
    headers: &'static str,
    why: &'static str,
    pub(super) failure: Failure,
}

impl Answer {
    const fn new(status: &'static str, failure: Failure, why: &'static str) -> Answer {
        Answer {
            status,
            headers: "",
            why,
            failure,
        }
    }

    const fn with(self, headers: &'static str) -> Answer {
        Answer { headers, ..self }
    }

    /// The whole answer.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let Answer {
            status,
            headers,
            why,
            ..
        } = self;
        let length = why.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{why}\n"
        )
        .into_bytes()
    }
}

const NO_HTTP: Answer = Answer::new(
    "400 Bad Request",
    Failure::NotHttp,
    "this is no HTTP/1.1 request: MQTT without WebSocket has a port of its own",
);
const TOO_LONG: Answer = Answer::new(
    "431 Request Header Fields Too Large",
    Failure::HeadTooLong,
    "the request has more than 8 KiB or 64 headers",
);
const NO_SUCH_PATH: Answer = Answer::new(
    "404 Not Found",
    Failure::Path,
    "nothing is served at this path: MQTT is at /mqtt",
);
const NO_GET: Answer = Answer::new(
    "405 Method Not Allowed",
    Failure::Method,
    "only a GET without a body becomes a WebSocket",
)
.with("Allow: GET\r\n");
const NO_UPGRADE: Answer = Answer::new(
    "426 Upgrade Required",
    Failure::NoUpgrade,
    "only WebSockets are served here: the request has no Upgrade: websocket",
)
.with("Upgrade: websocket\r\n");
const OTHER_VERSION: Answer = Answer::new(
    "426 Upgrade Required",
    Failure::NoUpgrade,
    "Sec-WebSocket-Version is not 13",
)
.with("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
const BAD_KEY: Answer = Answer::new(
    "400 Bad Request",
    Failure::NoUpgrade,
    "Sec-WebSocket-Key is not 16 bytes in base 64, once",
);
const EARLY: Answer = Answer::new(
    "400 Bad Request",
    Failure::NoUpgrade,
    "there are bytes behind the request: a client waits for the answer",
);
const OTHER_SUBPROTOCOL: Answer = Answer::new(
    "400 Bad Request",
    Failure::Subprotocol,
    "Sec-WebSocket-Protocol does not offer mqtt",
);
const OTHER_ORIGIN: Answer = Answer::new(
    "403 Forbidden",
    Failure::Origin,
    "pages of this origin may not connect: see ws.origins",
);
const TWO_TOKENS: Answer = Answer::new(
    "400 Bad Request",
    Failure::Token,
    "the request shows more than one token",
);
const NO_BEARER: Answer = Answer::new(
    "401 Unauthorized",
    Failure::Token,
    "Authorization is not Bearer and a token",
)
.with(CHALLENGE);
const TOKEN_IN_QUERY: Answer = Answer::new(
    "401 Unauthorized",
    Failure::Token,
    "tokens in the query are not taken here (ws.token_in_query): show it as Authorization: Bearer, \
     or as the MQTT password",
)
.with(CHALLENGE);
/// To a bearer that is nobody's.
pub(super) const BAD_TOKEN: Answer =
    Answer::new("401 Unauthorized", Failure::Token, "this token is not good").with(CHALLENGE);
/// To one of too many such.
pub(super) const TOO_MANY: Answer = Answer::new(
    "429 Too Many Requests",
    Failure::Token,
    "too many tokens were not good: wait a minute",
)
.with("Retry-After: 60\r\n");

const CHALLENGE: &str = "WWW-Authenticate: Bearer\r\n";

/// How long the request at the front of `bytes` is; `None` while its end has not come. `searched`
/// bytes were looked at before.
pub(super) fn head_len(bytes: &[u8], searched: &mut usize) -> Result<Option<usize>, Answer> {
    let begins = |method: &&[u8]| bytes.iter().zip(*method).all(|(is, should)| is == should);
    if !METHODS.iter().any(begins) {
        return Err(NO_HTTP);
    }
    let from = searched.saturating_sub(3);
    let unseen = bytes.get(from..).unwrap_or_default();
    let end = unseen.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.map(|at| from + at + 4);
    *searched = bytes.len();
    if end.unwrap_or(bytes.len()) > HEAD_BYTES_MAX {
        return Err(TOO_LONG);
    }
    Ok(end)
}

impl Upgrade {
    /// What `request` asks for, whose end was found at `head_len`.
    pub(super) fn of(
        request: &[u8],
        head_len: usize,
        rules: &WebSocketRules,
    ) -> Result<Upgrade, Answer> {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = Request::new(&mut headers);
        match parsed.parse(request) {
            Ok(Status::Complete(len)) if len == head_len => {}
            Err(Error::TooManyHeaders) => return Err(TOO_LONG),
            Ok(_) | Err(_) => return Err(NO_HTTP),
        }
        let target = parsed.path.unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if !is_served(path) {
            return Err(NO_SUCH_PATH);
        }
        if parsed.method != Some("GET") {
            return Err(NO_GET);
        }
        if parsed.version != Some(1) {
            return Err(NO_HTTP);
        }
        let headers = Headers(parsed.headers);
        let accept = headers.accept()?;
        if request.len() > head_len {
            return Err(EARLY);
        }
        if let Some(origin) = headers.one("Origin").map_err(|()| OTHER_ORIGIN)?
            && !rules.allows(origin)
        {
            return Err(OTHER_ORIGIN);
        }
        if !headers.lists("Sec-WebSocket-Protocol", |offer| offer == SUBPROTOCOL) {
            return Err(OTHER_SUBPROTOCOL);
        }
        let token = headers.token(query, rules)?;
        let token = token.map(|text| BearerText(text.to_owned()));
        Ok(Upgrade { accept, token })
    }

    /// The answer that begins the WebSocket. Paho's client wants one blank behind each colon, and
    /// the word "connection" in no line but its own.
    pub(super) fn response(&self) -> Vec<u8> {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n",
            self.accept
        )
        .into_bytes()
    }
}

/// Whether something serves `path`: MQTT as on the other listeners.
fn is_served(path: &str) -> bool {
    path == DEVICE_PATH
}

impl WebSocketRules {
    fn allows(&self, origin: &str) -> bool {
        let is_it = |allowed: &String| allowed.eq_ignore_ascii_case(origin);
        self.origins.is_empty() || self.origins.iter().any(is_it)
    }
}

/// The headers of a request.
struct Headers<'h, 'b>(&'h [Header<'b>]);

impl<'b> Headers<'_, 'b> {
    /// The values under a name, without blanks around; what is no text counts as empty.
    fn all(&self, name: &str) -> impl Iterator<Item = &'b str> {
        let named = self
            .0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| std::str::from_utf8(header.value).unwrap_or_default().trim())
    }

    /// The value of a header that may be there once.
    fn one(&self, name: &str) -> Result<Option<&'b str>, ()> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(());
        }
        Ok(first)
    }

    /// Whether a list under a name has such a member.
    fn lists(&self, name: &str, is_it: impl Fn(&str) -> bool) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|member| is_it(member.trim()))
    }

    /// Checks what makes it an upgrade; answers `Sec-WebSocket-Accept`.
    fn accept(&self) -> Result<String, Answer> {
        let has = |name, word: &str| self.lists(name, |member| member.eq_ignore_ascii_case(word));
        if !has("Upgrade", "websocket") || !has("Connection", "upgrade") {
            return Err(NO_UPGRADE);
        }
        if self.one("Sec-WebSocket-Version") != Ok(Some("13")) {
            return Err(OTHER_VERSION);
        }
        let length = self.one("Content-Length").map_err(|()| NO_GET)?;
        if length.is_some_and(|length| length != "0") || has("Transfer-Encoding", "chunked") {
            return Err(NO_GET);
        }
        let key = self
            .one("Sec-WebSocket-Key")
            .ok()
            .flatten()
            .ok_or(BAD_KEY)?;
        if base64::decode(key).is_none_or(|key| key.len() != 16) {
            return Err(BAD_KEY);
        }
        let with_suffix = [key.as_bytes(), KEY_SUFFIX].concat();
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &with_suffix);
        Ok(base64::encode(hash.as_ref()))
    }

    /// The token that the request shows, if any: it is looked at, not passed over.
    fn token(&self, query: &'b str, rules: &WebSocketRules) -> Result<Option<&'b str>, Answer> {
        let header = match self.one("Authorization").map_err(|()| TWO_TOKENS)? {
            Some(value) => Some(bearer(value).ok_or(NO_BEARER)?),
            None => None,
        };
        let mut in_query = query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("access_token="));
        let (first, second) = (in_query.next(), in_query.next());
        if second.is_some() || (header.is_some() && first.is_some_and(|it| Some(it) != header)) {
            return Err(TWO_TOKENS);
        }
        if first.is_some() && !rules.token_in_query {
            return Err(TOKEN_IN_QUERY);
        }
        Ok(header.or(first))
    }
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455, 1.3, for MQTT.
    const LINES: [&str; 6] = [
        "Host: localhost:8083",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: mqtt",
        "Sec-WebSocket-Version: 13",
    ];

    fn request(first: &str, lines: &[&str]) -> Vec<u8> {
        format!("{first}\r\n{}\r\n\r\n", lines.join("\r\n")).into_bytes()
    }

    /// The good request with lines of these names replaced, added or, with no value, left out.
    fn changed(with: &[&str]) -> Vec<u8> {
        let name = |line: &str| line.split(':').next().unwrap_or("").to_lowercase();
        let is_changed = |line: &str| with.iter().any(|other| name(other) == name(line));
        let mut lines: Vec<&str> = LINES.into_iter().filter(|line| !is_changed(line)).collect();
        lines.extend(with.iter().filter(|line| line.contains(": ")));
        request("GET /mqtt HTTP/1.1", &lines)
    }

    fn asked(bytes: &[u8], rules: &WebSocketRules) -> Result<Upgrade, Answer> {
        let mut searched = 0;
        let len = head_len(bytes, &mut searched)?.expect("it has an end");
        Upgrade::of(bytes, len, rules)
    }

    /// The token that a good request shows.
    fn shown(bytes: &[u8], rules: &WebSocketRules) -> Option<String> {
        let token = asked(bytes, rules).unwrap().token;
        token.map(|text| text.expose().to_owned())
    }

    #[test]
    fn sec_55_a_bearer_is_redacted_in_debug_output() {
        let header = changed(&["Authorization: Bearer eyJ.secret.b"]);
        let upgrade = asked(&header, &WebSocketRules::default()).unwrap();
        let text = format!("{upgrade:?}");
        assert!(
            !text.contains("secret") && text.contains("redacted"),
            "{text}"
        );
    }

    fn refused(bytes: &[u8], rules: &WebSocketRules) -> Answer {
        match asked(bytes, rules) {
            Ok(_) => panic!("taken: {}", String::from_utf8_lossy(bytes)),
            Err(answer) => answer,
        }
    }

    #[test]
    fn mqtt_6_0_0_4_the_request_of_the_standard_gets_its_answer() {
        let plain = WebSocketRules::default();
        let upgrade = asked(&changed(&[]), &plain).unwrap();
        assert!(upgrade.token.is_none());
        let response = String::from_utf8(upgrade.response()).unwrap();
        assert_eq!(
            response,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        for fine in [
            &["upgrade: WebSocket", "CONNECTION: keep-alive, upgrade"][..],
            &["Sec-WebSocket-Protocol: mqttv3.1, mqtt"],
            &[
                "Sec-WebSocket-Protocol: chat",
                "Sec-WebSocket-Protocol:  mqtt",
            ],
            &["Sec-WebSocket-Extensions: permessage-deflate"],
            &["Origin: https://anywhere.example"],
            &["Content-Length: 0"],
        ] {
            let upgrade = asked(&changed(fine), &plain);
            assert!(upgrade.is_ok(), "{fine:?}: {upgrade:?}");
        }
        let with_query = request("GET /mqtt?a=b HTTP/1.1", &LINES);
        assert!(asked(&with_query, &plain).is_ok());
    }

    #[test]
    fn s_31_whatever_is_not_served_is_answered() {
        let plain = WebSocketRules::default();
        for (with, answer) in [
            (&["Upgrade"][..], NO_UPGRADE),
            (&["Upgrade: h2c"], NO_UPGRADE),
            (&["Connection: close"], NO_UPGRADE),
            (&["Sec-WebSocket-Version: 8"], OTHER_VERSION),
            (&["Sec-WebSocket-Version"], OTHER_VERSION),
            (&["Sec-WebSocket-Key"], BAD_KEY),
            (&["Sec-WebSocket-Key: c2hvcnQ="], BAD_KEY),
            (&["Sec-WebSocket-Key: not base 64"], BAD_KEY),
            (&[LINES[3], LINES[3]], BAD_KEY),
            (&["Sec-WebSocket-Protocol"], OTHER_SUBPROTOCOL),
            (&["Sec-WebSocket-Protocol: MQTT"], OTHER_SUBPROTOCOL),
            (&["Sec-WebSocket-Protocol: mqttv3.1"], OTHER_SUBPROTOCOL),
            (&["Content-Length: 1"], NO_GET),
            (&["Transfer-Encoding: chunked"], NO_GET),
            (&["Authorization: Basic YTpi"], NO_BEARER),
            (&["Authorization: Bearer "], NO_BEARER),
            (
                &["Authorization: Bearer a", "Authorization: Bearer a"],
                TWO_TOKENS,
            ),
        ] {
            assert_eq!(refused(&changed(with), &plain), answer, "{with:?}");
        }
        for (first, answer) in [
            ("POST /mqtt HTTP/1.1", NO_GET),
            ("GET / HTTP/1.1", NO_SUCH_PATH),
            ("GET /mqtt/ HTTP/1.1", NO_SUCH_PATH),
            ("GET /MQTT HTTP/1.1", NO_SUCH_PATH),
            ("GET /%6dqtt HTTP/1.1", NO_SUCH_PATH),
            ("GET http://localhost/mqtt HTTP/1.1", NO_SUCH_PATH),
            ("GET /clients/mqtt/hubs/h HTTP/1.1", NO_SUCH_PATH),
            ("GET /mqtt HTTP/1.0", NO_HTTP),
            ("GET /mqtt HTTP/2.0", NO_HTTP),
            ("GET /mqtt", NO_HTTP),
            ("GET  HTTP/1.1", NO_HTTP),
        ] {
            assert_eq!(refused(&request(first, &LINES), &plain), answer, "{first}");
        }
        let early = [changed(&[]), vec![0x82]].concat();
        assert_eq!(refused(&early, &plain), EARLY);
    }

    #[test]
    fn sec_74_what_is_no_request_is_known_at_its_first_bytes() {
        for bytes in [
            &b"\x10"[..],
            b"\x16\x03\x01",
            b"PROXY ",
            b"PRI * ",
            b"get /",
            b"GETT",
            b"\r\n",
        ] {
            assert_eq!(head_len(bytes, &mut 0), Err(NO_HTTP), "{bytes:?}");
        }
        let whole = changed(&[]);
        let mut searched = 0;
        for cut in 1..whole.len() {
            assert_eq!(head_len(&whole[..cut], &mut searched), Ok(None), "{cut}");
        }
        assert_eq!(head_len(&whole, &mut searched), Ok(Some(whole.len())));
    }

    #[test]
    fn sec_74_a_request_has_a_longest_length_and_most_headers() {
        let plain = WebSocketRules::default();
        let base = changed(&["X: "]).len();
        let padded = |len: usize| changed(&[&format!("X: {}", "x".repeat(len - base))]);
        assert!(asked(&padded(HEAD_BYTES_MAX), &plain).is_ok());
        let longer = padded(HEAD_BYTES_MAX + 1);
        assert_eq!(head_len(&longer, &mut 0), Err(TOO_LONG));
        let cut = &longer[..HEAD_BYTES_MAX];
        assert_eq!(head_len(cut, &mut 0), Ok(None));
        let many: Vec<String> = (0..HEADERS_MAX - 5).map(|n| format!("X-{n}: x")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(refused(&changed(&many), &plain), TOO_LONG);
        assert!(asked(&changed(&many[1..]), &plain).is_ok());
    }

    #[test]
    fn sec_74_origins_are_listed() {
        let rules = WebSocketRules {
            origins: vec!["https://fleet.example".to_owned(), "null".to_owned()],
            ..WebSocketRules::default()
        };
        for fine in [
            "Origin: https://Fleet.example",
            "Origin: null",
            "X: no browser",
        ] {
            assert!(asked(&changed(&[fine]), &rules).is_ok(), "{fine}");
        }
        for bad in [
            "Origin: http://fleet.example",
            "Origin: https://fleet.example:444",
            "Origin: https://fleet.example.evil",
            "Origin: ",
        ] {
            assert_eq!(refused(&changed(&[bad]), &rules), OTHER_ORIGIN, "{bad}");
        }
        let two = ["Origin: null", "Origin: null"];
        assert_eq!(refused(&changed(&two), &rules), OTHER_ORIGIN);
    }

    #[test]
    fn id_42_the_bearer_is_in_the_header_or_where_that_is_on_in_the_query() {
        let (off, on) = (
            WebSocketRules::default(),
            WebSocketRules {
                token_in_query: true,
                ..WebSocketRules::default()
            },
        );
        let in_query = |query: &str, more: &[&str]| {
            let lines = [&LINES[..], more].concat();
            request(&format!("GET /mqtt?{query} HTTP/1.1"), &lines)
        };
        let header = changed(&["Authorization: bearer  eyJ.a.b"]);
        for rules in [&off, &on] {
            assert_eq!(shown(&header, rules).as_deref(), Some("eyJ.a.b"));
        }
        let query = in_query("x=1&access_token=eyJ.a.b", &[]);
        assert_eq!(refused(&query, &off), TOKEN_IN_QUERY);
        assert_eq!(shown(&query, &on).as_deref(), Some("eyJ.a.b"));
        let same = in_query("access_token=t", &["Authorization: Bearer t"]);
        assert_eq!(shown(&same, &on).as_deref(), Some("t"));
        let other = in_query("access_token=t", &["Authorization: Bearer u"]);
        assert_eq!(refused(&other, &on), TWO_TOKENS);
        let twice = in_query("access_token=t&access_token=t", &[]);
        assert_eq!(refused(&twice, &on), TWO_TOKENS);
    }

    #[test]
    fn an_answer_is_whole_http() {
        let text = String::from_utf8(OTHER_VERSION.bytes()).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 32\r\n\
             Connection: close\r\n\r\nSec-WebSocket-Version is not 13\n"
        );
    }
}
