//! A broker with a few devices, and the errands on which the tests send clients to it.

use std::{
    collections::BTreeMap,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::common::{broker::Broker, tools::Running, web::SERVED};

/// A token that no device has.
pub(crate) const UNKNOWN_TOKEN: &str = "tgd_thisTokenBelongsToNoDeviceAtAll0000";

/// The device whose token works.
const DEVICE: &str = "sensor";

/// A broker, a device with a live token, and a token that was revoked.
pub(crate) struct Site {
    pub(crate) broker: Broker,
    pub(crate) token: String,
    pub(crate) revoked_token: String,
    /// Every key that must be stored exactly once, with its value.
    expected: BTreeMap<String, u32>,
}

/// What is wrong with an errand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    WrongToken,
    RevokedToken,
    /// Neither user name nor password, but a client id.
    NoUserName,
    /// Neither user name nor password nor client id.
    Nothing,
    /// A good token, but a payload that is no JSON, at this QoS.
    BadJson(u8),
}

/// One connection of a client and what it publishes.
pub(crate) struct Errand {
    /// `3.1`, `3.1.1` or `5`.
    pub(crate) version: &'static str,
    pub(crate) tls: bool,
    /// Over WebSocket.
    pub(crate) web: bool,
    pub(crate) token: Option<String>,
    /// None leaves it to the client, as most users do.
    pub(crate) client_id: Option<&'static str>,
    /// QoS and payload, one after the other.
    pub(crate) messages: Vec<(u8, String)>,
    /// Wait for the broker to close instead of closing.
    pub(crate) wait_for_close: bool,
    /// The device whose token is revoked as soon as the client is connected.
    pub(crate) revoke: Option<String>,
}

impl Site {
    /// Starts the broker and makes the devices.
    pub(crate) fn start() -> Site {
        let broker = Broker::start_with(&SERVED);
        let token = broker.create_device(DEVICE);
        let revoked_token = broker.create_device("revoked");
        broker.revoke("revoked");
        Site {
            broker,
            token,
            revoked_token,
            expected: BTreeMap::new(),
        }
    }

    /// An errand with a good token that publishes once at every given QoS.
    pub(crate) fn good_errand(&mut self, version: &'static str, tls: bool, qos: &[u8]) -> Errand {
        self.errand_over(version, if tls { "tls" } else { "tcp" }, qos)
    }

    /// The same over `tcp`, `tls`, `ws` or `wss`.
    pub(crate) fn errand_over(
        &mut self,
        version: &'static str,
        transport: &str,
        qos: &[u8],
    ) -> Errand {
        let mut messages = Vec::new();
        for &qos in qos {
            let key = format!("{version} {transport} qos {qos}");
            let value = 1000 + u32::try_from(self.expected.len()).expect("a few");
            messages.push((qos, format!(r#"{{"{key}":{value}}}"#)));
            self.expected.insert(key, value);
        }
        Errand {
            messages,
            token: Some(self.token.clone()),
            web: transport.starts_with("ws"),
            ..Errand::new(version, ["tls", "wss"].contains(&transport))
        }
    }

    /// An errand that must fail.
    pub(crate) fn bad_errand(&self, version: &'static str, fault: Fault) -> Errand {
        let good_json = vec![(1, r#"{"refused":1}"#.to_owned())];
        let errand = |token: Option<&str>, client_id, messages| Errand {
            token: token.map(str::to_owned),
            client_id,
            messages,
            ..Errand::new(version, false)
        };
        match fault {
            Fault::WrongToken => errand(Some(UNKNOWN_TOKEN), None, good_json),
            Fault::RevokedToken => errand(Some(&self.revoked_token), None, good_json),
            Fault::NoUserName => errand(None, Some("meter-17"), good_json),
            Fault::Nothing => errand(None, Some(""), good_json),
            Fault::BadJson(qos) => {
                let bad_json = vec![(qos, r#"{"refused":"#.to_owned())];
                // At QoS 0 nothing but the close tells the client.
                Errand {
                    wait_for_close: qos == 0,
                    ..errand(Some(&self.token), None, bad_json)
                }
            }
        }
    }

    /// An errand of a device of its own, whose token is revoked while it is connected (TB-07).
    pub(crate) fn revoked_errand(&self, version: &'static str) -> Errand {
        let device = format!("cut off {version}");
        let token = Some(self.broker.create_device(&device));
        Errand {
            token,
            wait_for_close: true,
            revoke: Some(device),
            ..Errand::new(version, false)
        }
    }

    /// Runs a client program on an errand; `connected` is what it prints once it is.
    pub(crate) fn run(&self, command: &mut Command, errand: &Errand, connected: &str) -> Output {
        let mut running = Running::start(command);
        if errand.revoke.is_some() {
            running.wait_for_line(connected);
            self.connected(errand);
        }
        running.finish()
    }

    /// To be called by a client of this process when it is connected.
    pub(crate) fn connected(&self, errand: &Errand) {
        if let Some(device) = &errand.revoke {
            self.broker.revoke(device);
        }
    }

    /// Checks that exactly the messages of the good errands are stored, each once.
    pub(crate) fn check_stored(&self) {
        let mut stored: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (key, value) in self.broker.points(DEVICE) {
            stored.entry(key).or_default().push(value);
        }
        let expected: BTreeMap<_, _> = self
            .expected
            .iter()
            .map(|(key, value)| (key.clone(), vec![json!(value)]))
            .collect();
        assert_eq!(stored, expected);
    }
}

impl Errand {
    fn new(version: &'static str, tls: bool) -> Errand {
        Errand {
            version,
            tls,
            web: false,
            token: None,
            client_id: None,
            messages: Vec::new(),
            wait_for_close: false,
            revoke: None,
        }
    }

    /// The port for it.
    pub(crate) fn port(&self, broker: &Broker) -> u16 {
        let listener = match (self.web, self.tls) {
            (false, false) => "mqtt",
            (false, true) => "mqtts",
            (true, false) => "ws",
            (true, true) => "wss",
        };
        broker.address(listener).port()
    }

    /// As the client programs take it; what is not given is left out.
    pub(crate) fn json(&self, broker: &Broker) -> String {
        let mut errand = json!({
            "port": self.port(broker),
            "version": self.version,
            "messages": self.messages,
            "wait_for_close": self.wait_for_close,
            "web": self.web,
        });
        let fields = errand.as_object_mut().expect("made as one");
        let optional = [
            ("token", self.token.clone()),
            ("client_id", self.client_id.map(str::to_owned)),
            (
                "ca_file",
                self.tls.then(|| broker.ca_file().display().to_string()),
            ),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                fields.insert(name.to_owned(), json!(value));
            }
        }
        errand.to_string()
    }
}
