//! What is open, what is sent again, and which ids it has.

use super::*;

fn item(number: u64) -> Item {
    Item {
        source: 1,
        number,
        order: number,
    }
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn now(number: u16, is_again: bool) -> Sending {
    Sending::Now {
        packet_id: id(number),
        is_again,
    }
}

fn connected(window: u16) -> InFlight {
    let mut in_flight = InFlight::default();
    in_flight.connect(window);
    in_flight
}

#[test]
fn no_more_is_sent_than_the_client_takes() {
    let mut flight = connected(2);
    assert_eq!(flight.send(item(10)), now(1, false));
    assert_eq!(flight.send(item(11)), now(2, false));
    assert_eq!(flight.send(item(12)), Sending::Later);
    assert_eq!(flight.acknowledge(id(2)).map(|item| item.number), Some(11));
    assert_eq!(flight.done(1).collect::<Vec<_>>(), [11]);
    assert_eq!(flight.first_open(1), Some(10));
    assert_eq!(flight.send(item(12)), now(3, false), "only one is open");
    assert_eq!(flight.send(item(13)), Sending::Later);
    assert!(flight.acknowledge(id(1)).is_some());
    assert_eq!(flight.acknowledge(id(1)), None, "only once");
    assert_eq!(flight.send(item(13)), now(4, false));
}

#[test]
fn what_is_open_is_sent_again_in_order_with_its_id() {
    let mut flight = connected(10);
    for number in 1..=4 {
        flight.send(item(number));
    }
    flight.acknowledge(id(2));
    flight.connect(2);
    assert_eq!(flight.acknowledge(id(1)), None, "not sent on this one yet");
    assert_eq!(flight.send(item(1)), now(1, true));
    assert_eq!(flight.send(item(3)), now(3, true));
    assert_eq!(flight.send(item(4)), Sending::Later);
    flight.acknowledge(id(1));
    assert_eq!(flight.send(item(4)), now(4, true));
    flight.acknowledge(id(3));
    flight.acknowledge(id(4));
    assert!(flight.is_empty());
    assert_eq!(flight.send(item(5)), now(5, false));
}

#[test]
fn what_does_not_come_again_gives_its_place_back() {
    let mut flight = connected(2);
    flight.send(item(1));
    flight.send(item(2));
    flight.connect(2);
    assert_eq!(flight.send(item(3)), now(3, false));
    assert_eq!(flight.len(), 1);
    flight.forget(1);
    assert!(flight.is_empty());
}

#[test]
fn ids_go_round_without_zero() {
    let mut flight = connected(3);
    let mut expected = 0_u32;
    for number in 0..200_000 {
        expected = expected % 65_535 + 1;
        let given = flight.send(item(number));
        let wanted = id(u16::try_from(expected).unwrap());
        let is_again = false;
        assert_eq!(
            given,
            Sending::Now {
                packet_id: wanted,
                is_again
            }
        );
        assert_eq!(
            flight.acknowledge(wanted).map(|item| item.number),
            Some(number)
        );
        if number % 1_000 == 0 {
            // Again with an open one before it.
            flight.connect(3);
        }
    }
}

#[test]
fn ids_that_were_stored_come_back_in_the_order_in_which_they_were_given() {
    for (ids, next) in [
        (&[1_u16][..], 2),
        (&[65_535], 1),
        (&[65_534], 65_535),
        (&[65_534, 65_535, 1, 3], 4),
        (&[7, 9, 8], 10),
        (&[40_000, 65_535, 2], 3),
    ] {
        let open: Vec<Open> = ids
            .iter()
            .map(|&number| Open {
                packet_id: id(number),
                item: item(u64::from(number)),
                is_exact: true,
                is_received: false,
            })
            .collect();
        let mut flight = InFlight::default();
        flight.restore(&open);
        flight.connect(u16::MAX);
        assert_eq!(flight.len(), ids.len(), "{ids:?}");
        for &number in ids {
            assert!(flight.begin(id(number)), "{number} of {ids:?}");
        }
        assert_eq!(flight.send(item(100_000)), now(next, false), "{ids:?}");
        for &number in ids {
            let Received::New(held) = flight.receive(id(number)) else {
                panic!("{number} of {ids:?}");
            };
            assert_eq!(held.number, u64::from(number));
        }
    }
}

#[test]
fn an_id_that_is_let_go_gives_its_place_back() {
    let mut flight = connected(1);
    let first = flight.assign(item(1), true).unwrap();
    assert_eq!(flight.assign(item(2), true), None);
    assert_eq!(flight.let_go(first).map(|item| item.number), Some(1));
    assert_eq!(flight.let_go(first), None);
    assert_eq!(flight.assign(item(2), false), Some(id(2)));
    assert!(flight.begin(id(2)));
    assert!(!flight.begin(id(2)), "only once");
    assert_eq!(flight.refuse(id(2)), None, "it is of QoS 1");
    assert_eq!(flight.complete(id(2)), None);
    assert!(flight.acknowledge(id(2)).is_some());
}
