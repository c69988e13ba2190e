//! Enhanced authentication (MQTT 5, section 4.12): which AUTH may come when, and what answers it.
//!
//! No method is supported: [`Supported`] has no value. So a CONNECT that names a method is refused
//! with 0x8C, and every AUTH ends the connection [MQTT-4.12.0-7]. The order of the packets is kept
//! here all the same, for any [`Method`]; the tests bring one of their own.

use super::Close;
use crate::mqtt::wire::{Auth, AuthProperties, ReasonCode, Version};

/// A way to prove who one is, in several steps; the state of one exchange.
pub trait Method {
    /// Its name, as in CONNECT and AUTH.
    fn name(&self) -> &str;

    /// The client's next data.
    fn step(&mut self, data: &[u8]) -> Outcome;
}

/// What a step leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another step, with this for the client.
    Continue(Vec<u8>),
    /// The client is who it says.
    Proven,
    /// It is not.
    Failed,
}

/// The methods there are: none.
#[derive(Clone, Copy, Debug)]
pub enum Supported {}

/// The exchange of one connection.
#[derive(Debug)]
pub(super) struct Authentication<M = Supported> {
    /// The method of CONNECT, and how far it is; `None` without one.
    agreed: Option<(M, Phase)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// CONNACK has not left.
    Opening,
    /// The client has proven itself.
    Proven,
    /// It proves itself again; meanwhile everything goes on as before (section 4.12.1).
    Again,
}

impl Supported {
    /// The method with this name.
    #[must_use]
    pub const fn named(_name: &str) -> Option<Self> {
        None
    }
}

impl Method for Supported {
    fn name(&self) -> &str {
        match *self {}
    }

    fn step(&mut self, _data: &[u8]) -> Outcome {
        match *self {}
    }
}

impl<M: Method> Authentication<M> {
    /// A connection whose CONNECT named this method, or none.
    pub(super) fn new(method: Option<M>) -> Self {
        Self {
            agreed: method.map(|method| (method, Phase::Opening)),
        }
    }

    /// Takes an AUTH: appends the AUTH that answers it to `out`. Returns true once the client may
    /// be let in, with the CONNACK that is the answer then.
    ///
    /// # Errors
    /// The connection ends: no method was agreed on, another is named, the reason is not the one
    /// that may come now, or the client is not who it says.
    pub(super) fn handle(&mut self, auth: &Auth<'_>, out: &mut Vec<u8>) -> Result<bool, Close> {
        let protocol_error = Close::because(ReasonCode::ProtocolError);
        // [MQTT-4.12.0-7]
        let (method, phase) = self.agreed.as_mut().ok_or(protocol_error)?;
        // [MQTT-4.12.0-5], [MQTT-4.12.1-1]
        if auth.properties.authentication_method != Some(method.name()) {
            return Err(Close::because(ReasonCode::BadAuthenticationMethod));
        }
        match (*phase, auth.reason) {
            (Phase::Opening | Phase::Again, ReasonCode::ContinueAuthentication) => {}
            (Phase::Proven, ReasonCode::ReAuthenticate) => *phase = Phase::Again,
            _ => return Err(protocol_error),
        }
        let data = auth.properties.authentication_data.unwrap_or_default();
        let answer = match method.step(data) {
            // [MQTT-4.12.0-4]
            Outcome::Failed => return Err(Close::because(ReasonCode::NotAuthorized)),
            Outcome::Continue(data) => (ReasonCode::ContinueAuthentication, data),
            Outcome::Proven => {
                if std::mem::replace(phase, Phase::Proven) == Phase::Opening {
                    return Ok(true);
                }
                (ReasonCode::Success, Vec::new())
            }
        };
        let answer = Auth {
            reason: answer.0,
            properties: AuthProperties {
                authentication_method: Some(method.name()),
                authentication_data: Some(&answer.1)
                    .filter(|data| !data.is_empty())
                    .map(|it| &**it),
                ..AuthProperties::default()
            },
        };
        // Data of more than 65,535 bytes would be the method's mistake.
        answer
            .encode(Version::V5, out)
            .map_err(|_| protocol_error)?;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::wire::{Packet, Sender, decode};

    /// Asks for "1", then "2".
    #[derive(Debug, Default)]
    struct Counting(u8);

    impl Method for Counting {
        fn name(&self) -> &'static str {
            "COUNTING"
        }

        fn step(&mut self, data: &[u8]) -> Outcome {
            self.0 += 1;
            match (self.0, data) {
                (1, b"1") => Outcome::Continue(b"2?".to_vec()),
                (2, b"2") => {
                    self.0 = 0;
                    Outcome::Proven
                }
                _ => Outcome::Failed,
            }
        }
    }

    fn auth<'a>(reason: ReasonCode, method: &'a str, data: &'a [u8]) -> Auth<'a> {
        Auth {
            reason,
            properties: AuthProperties {
                authentication_method: Some(method),
                authentication_data: Some(data),
                ..AuthProperties::default()
            },
        }
    }

    const CONTINUE: ReasonCode = ReasonCode::ContinueAuthentication;
    const AGAIN: ReasonCode = ReasonCode::ReAuthenticate;

    #[test]
    fn mqtt_4_12_0_7_without_a_method_every_auth_ends_the_connection() {
        assert!(Supported::named("SCRAM-SHA-256").is_none());
        let mut none = Authentication::<Supported>::new(None);
        let close = Err(Close::because(ReasonCode::ProtocolError));
        for reason in [CONTINUE, AGAIN, ReasonCode::Success] {
            assert_eq!(none.handle(&auth(reason, "X", b""), &mut Vec::new()), close);
        }
    }

    #[test]
    fn a_client_is_let_in_after_the_last_step_and_may_prove_itself_again() {
        let mut exchange = Authentication::new(Some(Counting::default()));
        for is_again in [false, true] {
            let mut out = Vec::new();
            let first = if is_again { AGAIN } else { CONTINUE };
            let step = exchange.handle(&auth(first, "COUNTING", b"1"), &mut out);
            assert_eq!(step, Ok(false));
            let Packet::Auth(answer) = decode(Version::V5, Sender::Server, &out).unwrap() else {
                panic!("no AUTH");
            };
            assert_eq!(answer.reason, CONTINUE);
            assert_eq!(answer.properties.authentication_data, Some(&b"2?"[..]));
            out.clear();
            let step = exchange.handle(&auth(CONTINUE, "COUNTING", b"2"), &mut out);
            // The first time the answer is CONNACK, later AUTH with success.
            assert_eq!((step, out.is_empty()), (Ok(!is_again), !is_again));
        }
    }

    #[test]
    fn mqtt_4_12_what_comes_at_the_wrong_time_ends_the_connection() {
        let close = |reason| Err(Close::because(reason));
        let out = &mut Vec::new();
        let mut opening = Authentication::new(Some(Counting::default()));
        assert_eq!(
            opening.handle(&auth(AGAIN, "COUNTING", b"1"), out),
            close(ReasonCode::ProtocolError)
        );
        // [MQTT-4.12.1-1]
        assert_eq!(
            opening.handle(&auth(CONTINUE, "OTHER", b"1"), out),
            close(ReasonCode::BadAuthenticationMethod)
        );
        // [MQTT-4.12.0-4]
        assert_eq!(
            opening.handle(&auth(CONTINUE, "COUNTING", b"9"), out),
            close(ReasonCode::NotAuthorized)
        );
    }
}
