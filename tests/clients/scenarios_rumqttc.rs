//! The scenarios of `scenarios.rs` with rumqttc, MQTT 5, in this process.
//!
//! It is built without TLS here: its bytes go through a tunnel of ours that speaks TLS.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rumqttc::v5::{
    Client, Event, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{LastWill, Packet, Publish, SubscribeProperties},
    },
};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{common::wire::client_config, scenarios::Way};

/// How long an event may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How often a connection looks whether it is to be dropped.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Plays one and says what was seen.
pub(crate) fn play(way: &Way, scenario: &str) -> Value {
    let play = Play {
        way,
        port: if way.ca_file.is_some() {
            tunnel(way)
        } else {
            way.port
        },
        topic: format!("{}/{scenario}", way.prefix),
    };
    match scenario {
        "retained" => play.retained(),
        "filters" => play.filters(),
        "will" => play.will(),
        "shared" => play.shared(),
        "session" => play.session(),
        "resend" => play.resend(),
        "qos2" => play.qos2(),
        "flow_out" => play.flow_out(),
        "flow_in" => play.flow_in(),
        "alias_from" => play.alias_from(),
        "identifiers" => play.identifiers(),
        other => panic!("no scenario {other}"),
    }
}

struct Play<'a> {
    way: &'a Way,
    port: u16,
    topic: String,
}

/// One connection, whose events a thread takes.
struct Peer {
    client: Client,
    messages: Receiver<Publish>,
    acks: Receiver<()>,
    session_present: bool,
    is_dropped: Arc<AtomicBool>,
    events: Option<JoinHandle<()>>,
}

impl Play<'_> {
    fn peer(&self, name: &str, change: impl Fn(&mut MqttOptions)) -> Peer {
        let id = format!("{}-{name}", self.way.prefix);
        let mut options = MqttOptions::new(id, "127.0.0.1", self.port);
        options.set_credentials(&self.way.token, "");
        options.set_clean_start(true);
        change(&mut options);
        let (client, mut connection) = Client::new(options, 512);
        let (to_messages, messages) = channel();
        let (to_acks, acks) = channel();
        let (to_connack, connack) = channel();
        let is_dropped = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&is_dropped);
        let events = thread::spawn(move || {
            // To look away while it connects would begin the connection again.
            let mut wait = LIMIT;
            while !is_over.load(Ordering::Relaxed) {
                let packet = match connection.recv_timeout(wait) {
                    Ok(Ok(Event::Incoming(packet))) => packet,
                    Ok(Err(_)) => return, // closed
                    Ok(Ok(Event::Outgoing(_))) | Err(_) => continue,
                };
                wait = LOOK_INTERVAL;
                // Nobody may listen any more.
                let _ = match packet {
                    Packet::Publish(publish) => to_messages.send(publish).is_ok(),
                    Packet::ConnAck(ack) => to_connack.send(ack.session_present).is_ok(),
                    Packet::SubAck(_)
                    | Packet::UnsubAck(_)
                    | Packet::PubAck(_)
                    | Packet::PubComp(_) => to_acks.send(()).is_ok(),
                    _ => true,
                };
            }
        });
        Peer {
            client,
            messages,
            acks,
            session_present: connack.recv_timeout(LIMIT).expect("CONNACK"),
            is_dropped,
            events: Some(events),
        }
    }

    fn plain(&self, name: &str) -> Peer {
        self.peer(name, |_| {})
    }

    fn retained(&self) -> Value {
        let publisher = self.plain("p");
        publisher.publish(&self.topic, 1, true, "kept");
        let first = self.plain("first");
        first.subscribe(&self.topic, 1);
        let mut seen = first.take(1);
        publisher.publish(&self.topic, 1, true, "live");
        publisher.publish(&self.topic, 1, true, "");
        seen.extend(first.take(2));
        let second = self.plain("second");
        second.subscribe(&self.topic, 1);
        publisher.publish(&self.topic, 1, false, "marker");
        let flags = |all: Vec<Publish>| -> Vec<Value> {
            all.iter()
                .map(|one| json!([text(one), one.retain]))
                .collect()
        };
        json!({"first": flags(seen), "second": flags(second.take(1))})
    }

    fn filters(&self) -> Value {
        let peer = self.plain("p");
        let hash = format!("{}/b/#", self.topic);
        peer.subscribe(&format!("{}/+/x", self.topic), 1);
        peer.subscribe(&hash, 1);
        let send = |name: &str| peer.publish(&format!("{}/{name}", self.topic), 1, false, name);
        ["a/y", "a/x", "b", "b/c/d"].into_iter().for_each(send);
        peer.client.unsubscribe(&hash).expect("room for it");
        peer.acked();
        ["b/c", "c/x"].into_iter().for_each(send);
        json!({"got": texts(&peer.take(4))})
    }

    fn will(&self) -> Value {
        let watcher = self.plain("watcher");
        watcher.subscribe(&self.topic, 1);
        let with_will = |name: &str, payload: &str| {
            let will = LastWill::new(&*self.topic, payload, QoS::AtLeastOnce, false, None);
            self.peer(name, |options| {
                options.set_last_will(will.clone());
            })
        };
        drop(with_will("lost", "gone"));
        let mut seen = watcher.take(1);
        with_will("left", "not this").close();
        watcher.publish(&self.topic, 1, false, "marker");
        seen.extend(watcher.take(1));
        json!({"got": texts(&seen)})
    }

    fn shared(&self) -> Value {
        let group = format!("$share/group/{}", self.topic);
        let all = self.plain("all");
        all.subscribe(&self.topic, 1);
        let (one, two) = (self.plain("one"), self.plain("two"));
        one.subscribe(&group, 1);
        two.subscribe(&group, 1);
        let numbers: Vec<String> = (10..50).map(|number| number.to_string()).collect();
        for number in &numbers[..20] {
            all.publish(&self.topic, 1, false, number);
        }
        let plain = texts(&all.take(20));
        // Members take turns.
        let (ones, twos) = (texts(&one.take(10)), texts(&two.take(10)));
        let mut both = [ones, twos].concat();
        both.sort_unstable();
        drop(one);
        for number in &numbers[20..] {
            all.publish(&self.topic, 1, false, number);
        }
        let mut rest = texts(&two.take(20));
        rest.sort_unstable();
        json!({
            "plain": plain == numbers[..20],
            "shared": both == numbers[..20],
            "fair": true,
            "rest": rest == numbers[20..],
        })
    }

    fn session(&self) -> Value {
        let kept = |clean| {
            self.peer("away", move |options| {
                options.set_session_expiry_interval(Some(3600));
                options.set_clean_start(clean);
            })
        };
        let away = kept(true);
        let mut present = vec![away.session_present];
        away.subscribe(&self.topic, 2);
        away.close();
        let publisher = self.plain("p");
        for (qos, payload) in [(1, "one"), (1, "two"), (2, "three")] {
            publisher.publish(&self.topic, qos, false, payload);
        }
        let away = kept(false);
        present.push(away.session_present);
        let got = away.take(3);
        let got: Vec<Value> = got
            .iter()
            .map(|one| json!([text(one), one.qos as u8]))
            .collect();
        away.close();
        let away = self.plain("away");
        present.push(away.session_present);
        publisher.publish(&self.topic, 1, false, "for nobody");
        away.subscribe(&self.topic, 1);
        publisher.publish(&self.topic, 1, false, "marker");
        json!({"present": present, "got": got, "anew": texts(&away.take(1))})
    }

    fn resend(&self) -> Value {
        let receiver = |clean| {
            self.peer("receiver", move |options| {
                options.set_session_expiry_interval(Some(3600));
                options.set_clean_start(clean).set_manual_acks(true);
            })
        };
        let first = receiver(true);
        first.subscribe(&self.topic, 1);
        let publisher = self.plain("p");
        publisher.publish(&self.topic, 1, false, "again");
        let mut seen = first.take(1);
        drop(first);
        let second = receiver(false);
        seen.extend(second.take(1));
        second.client.ack(&seen[1]).expect("room for it");
        publisher.publish(&self.topic, 1, false, "next");
        seen.extend(second.take(1));
        let got: Vec<Value> = seen.iter().map(|one| json!([text(one), one.dup])).collect();
        json!({"got": got})
    }

    fn qos2(&self) -> Value {
        let (subscriber, publisher) = (self.plain("s"), self.plain("p"));
        subscriber.subscribe(&self.topic, 2);
        let numbers: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        for number in &numbers {
            publisher.send(&self.topic, 2, false, number);
        }
        numbers.iter().for_each(|_| publisher.acked());
        let got = subscriber.take(50);
        let mut qos: Vec<u8> = got.iter().map(|one| one.qos as u8).collect();
        qos.dedup();
        json!({"in order, once": texts(&got) == numbers, "qos": qos})
    }

    fn flow_out(&self) -> Value {
        let (subscriber, publisher) = (self.plain("s"), self.plain("p"));
        subscriber.subscribe(&self.topic, 2);
        for number in 0..300_u32 {
            let qos = if number % 2 == 0 { 1 } else { 2 };
            publisher.send(&self.topic, qos, false, &number.to_string());
        }
        let mut got: Vec<u32> = subscriber
            .take(300)
            .iter()
            .map(|one| text(one).parse().expect("a number"))
            .collect();
        got.sort_unstable();
        json!({"all": got == (0..300).collect::<Vec<_>>()})
    }

    fn flow_in(&self) -> Value {
        let subscriber = self.peer("s", |options| {
            options.set_receive_maximum(Some(3)).set_manual_acks(true);
        });
        let all = self.plain("all");
        subscriber.subscribe(&self.topic, 1);
        all.subscribe(&self.topic, 1);
        for number in 0..10 {
            all.publish(&self.topic, 1, false, &number.to_string());
        }
        all.take(10);
        let mut held = subscriber.take(3);
        subscriber.subscribe(&format!("{}/marker", self.topic), 1);
        let beyond = subscriber.messages.try_iter().count();
        for message in &held {
            subscriber.client.ack(message).expect("room for it");
        }
        for _ in 0..7 {
            held.extend(subscriber.take(1));
            subscriber
                .client
                .ack(&held[held.len() - 1])
                .expect("room for it");
        }
        let got = held.iter().map(|one| text(one).parse().expect("a number"));
        json!({"beyond 3": beyond, "got": got.collect::<Vec<u32>>()})
    }

    fn alias_from(&self) -> Value {
        let subscriber = self.peer("s", |options| {
            options.set_topic_alias_max(Some(2));
        });
        subscriber.subscribe(&format!("{}/#", self.topic), 1);
        let publisher = self.plain("p");
        for turn in ["1", "2"] {
            for name in ["a", "b", "c"] {
                publisher.publish(&format!("{}/{name}", self.topic), 1, false, turn);
            }
        }
        let (mut topics, mut used) = (BTreeMap::new(), false);
        let got = subscriber.take(6).into_iter().map(|one| {
            let alias = one.properties.as_ref().and_then(|all| all.topic_alias);
            let mut topic = String::from_utf8_lossy(&one.topic).into_owned();
            if let Some(alias) = alias {
                if topic.is_empty() {
                    used = true;
                    topic = topics.get(&alias).cloned().unwrap_or_default();
                }
                topics.insert(alias, topic.clone());
            }
            json!([topic.rsplit('/').next(), text(&one)])
        });
        let got: Vec<Value> = got.collect();
        let aliases: Vec<u16> = topics.into_keys().collect();
        json!({"got": got, "aliases": aliases, "used": used})
    }

    fn identifiers(&self) -> Value {
        let subscriber = self.plain("s");
        for (filter, id) in [("#", 1), ("+", 268_435_455)] {
            let properties = SubscribeProperties {
                id: Some(id),
                user_properties: Vec::new(),
            };
            let filter = format!("{}/{filter}", self.topic);
            let client = &subscriber.client;
            let asked = client.subscribe_with_properties(filter, QoS::AtLeastOnce, properties);
            asked.expect("room for it");
            subscriber.acked();
        }
        subscriber.publish(&format!("{}/a", self.topic), 1, false, "both");
        subscriber.publish(&format!("{}/a/b", self.topic), 1, false, "one");
        let got = subscriber.take(2);
        let got = got.iter().map(|one| {
            let properties = one.properties.clone().unwrap_or_default();
            let mut ids = properties.subscription_identifiers;
            ids.sort_unstable();
            json!([text(one), ids])
        });
        json!({"got": got.collect::<Vec<_>>()})
    }
}

impl Peer {
    fn subscribe(&self, filter: &str, level: usize) {
        self.client
            .subscribe(filter, qos(level))
            .expect("room for it");
        self.acked();
    }

    fn send(&self, topic: &str, level: usize, retain: bool, payload: &str) {
        let sent = self
            .client
            .publish(topic, qos(level), retain, payload.to_owned());
        sent.expect("room for it");
    }

    /// Publishes at QoS 1 or 2 and sees it through.
    fn publish(&self, topic: &str, level: usize, retain: bool, payload: &str) {
        self.send(topic, level, retain, payload);
        self.acked();
    }

    fn acked(&self) {
        self.acks.recv_timeout(LIMIT).expect("an ack");
    }

    fn take(&self, count: usize) -> Vec<Publish> {
        let next = |_| self.messages.recv_timeout(LIMIT).expect("a message");
        (0..count).map(next).collect()
    }

    /// Leaves with DISCONNECT; the broker closes.
    fn close(mut self) {
        self.client.disconnect().expect("room for it");
        let events = self.events.take().expect("it is running");
        events.join().expect("it ends with the connection");
    }
}

impl Drop for Peer {
    /// Leaves without a word.
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::Relaxed);
        if let Some(events) = self.events.take() {
            let _ = events.join();
        }
    }
}

fn qos(level: usize) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][level]
}

fn text(message: &Publish) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

fn texts(messages: &[Publish]) -> Vec<String> {
    messages.iter().map(text).collect()
}

/// Carries what comes to a port over TLS to the broker; the port. Its thread ends with the test.
fn tunnel(way: &Way) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    listener.set_nonblocking(true).expect("it can be");
    let ca_file = way.ca_file.as_ref().expect("only for TLS");
    let (config, to) = (client_config(ca_file), way.port);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    thread::spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is bound");
            while let Ok((mut inner, _)) = listener.accept().await {
                let connector = TlsConnector::from(Arc::clone(&config));
                tokio::spawn(async move {
                    let outer = TcpStream::connect(("127.0.0.1", to)).await?;
                    let name = ServerName::try_from("localhost").expect("a valid name");
                    let mut outer = connector.connect(name, outer).await?;
                    tokio::io::copy_bidirectional(&mut inner, &mut outer).await
                });
            }
        });
    });
    port
}
