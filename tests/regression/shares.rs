//! A message of a share group that was on its way to a member that left went to nobody; found with
//! gmqtt over TLS, which lost the first message after a member's connection broke.

use std::collections::BTreeSet;

use crate::common::{
    broker::Broker,
    packets::{Connect, Version, log_in, publish_flags, subscribe},
    wire::Wire,
};

const ROUNDS: usize = 20;
const MESSAGES: u16 = 50;

#[test]
fn mqtt_4_8_2_5_what_is_on_its_way_to_a_member_that_left_goes_to_another() {
    let broker = Broker::start_with(&[("TOLLGATE_WORKERS_COUNT", "2")]);
    let all = ["--publish", "s/#", "--subscribe", "s/#"];
    let created = broker.cli_json(&[&["app", "create", "a", "--json"][..], &all].concat());
    let token = created["token"].as_str().expect("a token");
    let connect = |name: &str| {
        let mut wire = broker.wire();
        log_in(&mut wire, &Connect::with_token(Version::V311, name, token));
        wire
    };
    let mut publisher = connect("p");
    let mut stays = connect("stays");
    for round in 0..ROUNDS {
        let filter = format!("$share/g/s/{round}");
        join(&mut stays, &filter);
        // Another name each time, so that it lives on another worker than the publisher at times.
        let mut leaves = connect(&format!("leaves {round}"));
        join(&mut leaves, &filter);
        let burst: Vec<u8> = (1..=MESSAGES)
            .flat_map(|id| {
                let payload = id.to_string();
                let topic = format!("s/{round}");
                publish_flags(Version::V311, 2, id, &topic, payload.as_bytes())
            })
            .collect();
        publisher.send(&burst);
        drop(leaves);
        let mut seen = BTreeSet::new();
        while seen.len() < usize::from(MESSAGES) {
            let packet = stays.packet();
            assert_eq!(packet[0] >> 4, 3, "a message: {packet:?}");
            let at = 4 + usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            stays.send(&[0x40, 2, packet[at], packet[at + 1]]);
            seen.insert(packet[at + 2..].to_vec());
        }
        for _ in 0..MESSAGES {
            assert_eq!(publisher.packet()[0], 0x40);
        }
    }
}

fn join(wire: &mut Wire, filter: &str) {
    wire.send(&subscribe(Version::V311, 1, &[(filter, 1)]));
    wire.expect("90 03 00 01 01");
}
