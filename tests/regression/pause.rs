//! A broker whose process stood still (a stopped container, a suspended machine) reads what its
//! clients sent meanwhile before it calls them silent.

use std::{thread, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::{
    broker::Broker,
    packets::{Connect, Version, log_in},
    wire::Wire,
};

/// Long enough that this test, on a busy machine, does not make its clients silent itself.
const KEEP_ALIVE_S: u16 = 6;

/// How long the process stands still: more than one and a half keep alives and the half second in
/// which a worker looks at its clients.
const PAUSE: Duration = Duration::from_secs(11);

/// How long what must come may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Enough that not all are read in one turn of a worker's loop.
const CLIENTS: usize = 50;

#[test]
fn sec_80_a_pause_of_the_process_cuts_nobody_off() {
    let broker = Broker::start();
    // Making devices takes longer than a client may be silent.
    let tokens: Vec<String> = (0..CLIENTS)
        .map(|at| broker.create_device(&format!("device-{at}")))
        .collect();
    let mut clients: Vec<Wire> = tokens.iter().map(|token| connect(&broker, token)).collect();
    let pid = Pid::from_raw(broker.pid().try_into().expect("a process id")).expect("not 0");
    for wire in &mut clients {
        wire.expect_alive();
    }
    kill_process(pid, Signal::STOP).expect("the process is ours");
    for wire in &mut clients {
        wire.send(&[0xc0, 0]);
    }
    thread::sleep(PAUSE); // what the test is about: the broker's clock goes on without it
    kill_process(pid, Signal::CONT).expect("the process is ours");
    for (at, wire) in clients.iter_mut().enumerate() {
        let answer = wire.packet_or_close(LIMIT);
        assert_eq!(answer, Some(vec![0xd0, 0]), "client {at}");
    }
    // Who really says nothing is cut off as ever.
    for wire in &mut clients {
        let answer = wire.packet_or_close(LIMIT);
        assert_eq!(answer, None);
    }
}

fn connect(broker: &Broker, token: &str) -> Wire {
    let mut wire = broker.wire();
    let connect = Connect {
        keep_alive_s: KEEP_ALIVE_S,
        ..Connect::with_token(Version::V311, "a", token)
    };
    log_in(&mut wire, &connect);
    wire
}
