//! From an accepted socket to a WebSocket: the request is read, judged and answered, under the one
//! deadline of all handshakes (SEC-70), and charged like a long CONNECT.
//!
//! Nothing of the broker's state is touched here (SEC-73). A token that the request shows is looked
//! up in memory: a bad one is 401, and counts as a failed authentication (SEC-27).

use std::time::{Duration, Instant};

use super::WebSocket;
use super::upgrade::{Answer, BAD_TOKEN, BearerText, TOO_MANY, Upgrade, WebSocketRules, head_len};
use crate::identity::Principal;
use crate::metrics::ConnectRefusal as Refusal;
use crate::mqtt::wire::Connect;
use crate::net::admit::LastWords;
use crate::net::greeter::Greeter;
use crate::net::handshake::{Guest, Stopped, read_until};
use crate::net::stream::Stream;
use crate::net::throttle::{self, Verdict};
use crate::net::told::Shown;

/// A user's token that the request showed, and that was good then. It stands for the password of
/// the CONNECT that follows.
pub(in crate::net) struct Bearer {
    token: BearerText,
    user: uuid::Uuid,
}

/// How a request is refused: what is said, counted and told, and how long that waits.
struct Refused {
    answer: Answer,
    metric: Refusal,
    shown: Shown,
    delay: Duration,
}

impl From<Answer> for Box<Refused> {
    fn from(answer: Answer) -> Self {
        Box::new(Refused {
            answer,
            metric: Refusal::BadUpgrade,
            shown: Shown::default(),
            delay: Duration::ZERO,
        })
    }
}

/// Makes a WebSocket of `stream`, with the bearer that was shown.
///
/// # Errors
/// The socket's own, a limit, or that the request was refused, which was told and is to be said.
pub(in crate::net) async fn enter(
    greeter: &Greeter,
    mut stream: Stream,
    guest: &mut Guest,
    rules: &WebSocketRules,
) -> Result<(Stream, Option<Bearer>), Stopped> {
    let mut request = Vec::new();
    let mut searched = 0;
    let is_whole = |bytes: &[u8]| head_len(bytes, &mut searched);
    let read = read_until(greeter, &mut stream, guest, &mut request, is_whole).await?;
    let from = guest.from;
    let judged = greeter.guarded(from, || {
        let upgrade = Upgrade::of(&request, read?, rules)?;
        let response = upgrade.response();
        let bearer = match upgrade.token {
            Some(token) => Some(Bearer::of(greeter, guest, token)?),
            None => None,
        };
        Ok::<_, Box<Refused>>((response, bearer))
    });
    drop(request);
    let refused = match judged {
        Some(Ok((response, bearer))) => {
            write_all(&mut stream, &response).await?;
            let stream = Stream::WebSocket(Box::new(WebSocket::new(stream)));
            return Ok((stream, bearer));
        }
        Some(Err(refused)) => refused,
        None => return Err(Stopped::Io(std::io::ErrorKind::InvalidData.into())),
    };
    let why = refused.answer.failure;
    tracing::debug!(%from, ?why, "no session: no WebSocket");
    greeter.shared.metrics.door().websocket_failed(why);
    greeter.refused(from, refused.metric, refused.shown);
    let last_words = LastWords {
        bytes: refused.answer.bytes(),
        delay: refused.delay,
    };
    Err(Stopped::Refused(stream, last_words))
}

impl Bearer {
    fn of(greeter: &Greeter, guest: &Guest, token: BearerText) -> Result<Bearer, Box<Refused>> {
        let shared = &greeter.shared;
        let text = token.expose();
        let principal = shared.registry.authenticate_user("", text.as_bytes());
        if let Some(principal) = principal {
            let user = principal.identity;
            return Ok(Bearer { token, user });
        }
        let throttle = &shared.guards.throttle;
        let (answer, metric, delay) = match throttle.failed(guest.from, text, Instant::now()) {
            Verdict::Ordinary => (BAD_TOKEN, Refusal::BadCredential, Duration::ZERO),
            Verdict::Delayed => (TOO_MANY, Refusal::Throttled, throttle::DELAY),
            Verdict::Refused => (TOO_MANY, Refusal::Throttled, Duration::ZERO),
        };
        Err(Box::new(Refused {
            answer,
            metric,
            shown: Shown::bearer(shared, text),
            delay,
        }))
    }

    /// The CONNECT with the bearer as its password, if it has none of its own. One that shows the
    /// same token as its user name has said all: it stays as it is.
    pub(in crate::net) fn beside<'c>(&'c self, connect: Connect<'c>) -> Connect<'c> {
        let token = self.token.expose();
        let own = connect.password.filter(|password| !password.is_empty());
        if own.is_none() && connect.user_name == Some(token) {
            return connect;
        }
        Connect {
            password: Some(own.unwrap_or(token.as_bytes())),
            ..connect
        }
    }

    /// Whether it is of who comes in. Else the connection shows two identities (SEC-22).
    pub(in crate::net) fn is_of(&self, principal: &Principal) -> bool {
        self.user == principal.identity
    }
}

async fn write_all(stream: &mut Stream, mut bytes: &[u8]) -> Result<(), Stopped> {
    while !bytes.is_empty() {
        let written = std::future::poll_fn(|cx| stream.poll_write(cx, bytes)).await?;
        if written == 0 {
            return Err(Stopped::Io(std::io::ErrorKind::WriteZero.into()));
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    std::future::poll_fn(|cx| stream.poll_flush(cx)).await?;
    Ok(())
}
