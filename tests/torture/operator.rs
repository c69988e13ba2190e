//! An operator at work while the broker dies: what was confirmed to them stays true.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use super::rig::{admin::Admin, random::Random, site::Site};
use crate::common::{
    packets::{Connect, Version},
    wire::Wire,
};

/// Devices that the operator makes in all: each is tried at the end.
const DEVICES_MAX: u64 = 400;

/// What the operator knows of one device.
#[derive(Clone)]
struct Made {
    token: String,
    standing: Standing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// Its creation was confirmed.
    Live,
    /// Revocation was asked for and no answer came: either is right.
    Unclear,
    /// Revocation was confirmed.
    Revoked,
}

/// The operator, on a thread of their own.
pub(crate) struct Operator {
    made: Arc<Mutex<Vec<Made>>>,
    thread: JoinHandle<()>,
}

impl Operator {
    pub(crate) fn start(admin: &Admin, site: &Arc<Site>, random: Random) -> Operator {
        let made = Arc::default();
        let (admin, site, list) = (admin.clone(), Arc::clone(site), Arc::clone(&made));
        let thread = std::thread::spawn(move || work(&admin, &site, random, &list));
        Operator { made, thread }
    }

    /// Tries the tokens at the broker: a revoked one is never let in again, a live one is.
    /// Answers how many were revoked.
    pub(crate) fn prove(&self, mqtt: SocketAddr, last: usize) -> usize {
        let made = self.made.lock().unwrap().clone();
        for one in made.iter().rev().take(last) {
            match one.standing {
                Standing::Live => assert!(is_let_in(mqtt, &one.token), "a live token is refused"),
                Standing::Revoked => {
                    assert!(!is_let_in(mqtt, &one.token), "a revoked token is let in");
                }
                Standing::Unclear => {}
            }
        }
        let is_revoked = |one: &&Made| one.standing == Standing::Revoked;
        made.iter().filter(is_revoked).count()
    }

    /// Ends with the test, then tries every token.
    pub(crate) fn finish(self, mqtt: SocketAddr) -> usize {
        let revoked = self.prove(mqtt, usize::MAX);
        self.thread.join().expect("the operator does not panic");
        revoked
    }
}

fn work(admin: &Admin, site: &Site, mut random: Random, made: &Mutex<Vec<Made>>) {
    for at in 0..DEVICES_MAX {
        // At people's pace: the point is to be killed in the middle, not to fill the registry.
        std::thread::sleep(Duration::from_millis(5 + random.below(40)));
        if site.is_finishing() {
            return;
        }
        let name = format!("guest-{at}");
        let created = site.http().and_then(|http| admin.create(http, &name));
        let Some((_, token)) = created else { continue };
        let note = |standing| {
            let token = token.clone();
            made.lock().unwrap().push(Made { token, standing });
        };
        if random.one_in(2) {
            note(Standing::Live);
            continue;
        }
        let Some(http) = site.http() else { return };
        let is_done = admin.revoke(http, &name);
        note(if is_done {
            Standing::Revoked
        } else {
            Standing::Unclear
        });
    }
}

fn is_let_in(mqtt: SocketAddr, token: &str) -> bool {
    let mut wire = Wire::connect(mqtt);
    wire.send(&Connect::with_token(Version::V311, "guest", token).encode());
    let connack = wire.packet();
    assert_eq!(connack[0], 0x20);
    match connack[3] {
        0 => true,
        5 => false,
        other => panic!("CONNACK with {other:#04x}"),
    }
}
