//! Messages whose right ended leave the queue, and what a client has of them harms nothing.

use super::delivery::message;
use super::*;
use crate::mqtt::session::{Delivered, Withdrawn};
use crate::mqtt::topic::Topic;

fn may(topic: Topic<'_>) -> bool {
    topic.as_str() != "lost"
}

fn offer(client: &mut Client, topic: &str, qos: QoS, offset: u64) {
    let how = Delivered {
        qos,
        offset,
        ..Delivered::default()
    };
    let message = message(topic, "x", qos);
    client.session.offer(message, how).unwrap();
}

/// A client that takes three at a time and has three: two of the lost topic.
fn client() -> Client {
    let mut wish = connect(Version::V5);
    wish.properties.receive_maximum = Some(3);
    let mut client = Client::opened(&wish, None);
    for (topic, qos, offset) in [
        ("lost", QoS::AtLeastOnce, 1),
        ("lost", QoS::ExactlyOnce, 0),
        ("kept", QoS::AtLeastOnce, 3),
        ("lost", QoS::AtLeastOnce, 4),
        ("kept", QoS::AtLeastOnce, 5),
    ] {
        offer(&mut client, topic, qos, offset);
    }
    assert_eq!(client.outgoing().len(), 3);
    client
}

#[test]
fn sec_36_what_is_with_the_client_holds_its_place_until_it_is_acknowledged() {
    let mut client = client();
    assert_eq!(client.session.state().outside(may), (1, 2));
    let withdrawn = client.session.withdraw(may);
    let expected = Withdrawn {
        queued: 1,
        in_flight: 2,
        offsets: vec![1, 0, 4],
        shared: Vec::new(),
    };
    assert_eq!(withdrawn, expected);
    assert_eq!(client.session.state().outside(may), (0, 0));
    assert!(client.outgoing().is_empty(), "three are open");
    assert_eq!(client.send("4002 0001").unwrap(), "settled 1");
    assert_eq!(client.outgoing(), ["publish 4 qos 1 kept x"]);
    // QoS 2 goes its way to the end.
    client.send("5002 0002").unwrap();
    client.send("7002 0002").unwrap();
    offer(&mut client, "kept", QoS::AtLeastOnce, 6);
    assert_eq!(client.outgoing(), ["publish 5 qos 1 kept x"]);
}

#[test]
fn sec_36_nothing_of_it_is_left_behind_the_connection() {
    for is_received in [false, true] {
        let mut client = client();
        client.session.withdraw(may);
        if is_received {
            client.send("5002 0002").unwrap();
        }
        let wish = Connect {
            clean_start: false,
            ..connect(Version::V5)
        };
        let mut client = Client::opened(&wish, Some(client.session.take_state()));
        let mut expected = vec!["publish 3 qos 1 dup kept x", "publish 4 qos 1 kept x"];
        if is_received {
            expected.insert(0, "pubrel 2");
        }
        assert_eq!(client.outgoing(), expected);
        let open = 2 + usize::from(is_received);
        assert_eq!(client.session.state().in_flight.len(), open);
    }
}

/// Without a connection nobody acknowledges: the ids are free at once.
#[test]
fn sec_36_a_session_that_is_away_lets_go_of_ids_too() {
    let client = client();
    let mut session = client.session;
    let mut state = session.take_state();
    assert_eq!(state.withdraw(may).in_flight, 2);
    assert_eq!(state.in_flight.len(), 1);
    assert_eq!((state.queue.len(), state.queue.waiting()), (2, 1));
}
