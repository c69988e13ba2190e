//! `kill -9` while people change things and clients come and go.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::records::{changes, records, verify};
use crate::common::{
    broker::Broker,
    packets::{Connect, Version},
    wire::Wire,
};

/// Kills. Each stops the broker at another moment of its work.
const KILLS: u64 = 12;

/// What one operator was told, in order: the event and the device.
type Told = Arc<Mutex<Vec<(String, String)>>>;

/// Changes one thing after the other until the broker is gone.
fn operator(number: u64, url: &str, token: &str, told: &Told, goes_on: &AtomicBool) {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .new_agent();
    for step in 0.. {
        if !goes_on.load(Ordering::SeqCst) {
            return;
        }
        let name = format!("{number}-{step}");
        let calls = [
            (
                "created",
                "/devices".to_owned(),
                format!(r#"{{"name":"{name}"}}"#),
            ),
            ("rotated", format!("/devices/{name}/rotate"), String::new()),
            ("revoked", format!("/devices/{name}/revoke"), String::new()),
        ];
        for (event, path, body) in calls {
            let request = agent.post(format!("{url}/admin/v1{path}"));
            let request = request.header("authorization", format!("Bearer {token}"));
            let request = request.header("content-type", "application/json");
            match request.send(body) {
                Ok(answer) if answer.status().is_success() => {
                    told.lock().unwrap().push((event.to_owned(), name.clone()));
                }
                Ok(answer) if answer.status() == 429 => {}
                _ => return,
            }
        }
    }
}

/// After each kill: all that was answered is told, in its order, once; nothing is told that is not
/// so; the chain is whole.
#[test]
fn rel_06_what_was_answered_is_told_after_kill_9() {
    let mut broker = Broker::start();
    let token = std::fs::read_to_string(broker.dir().join("secrets/admin.token")).unwrap();
    let told: Told = Told::default();
    for round in 0..KILLS {
        let goes_on = Arc::new(AtomicBool::new(true));
        let before = told.lock().unwrap().len();
        let mut threads = Vec::new();
        for at in 0..2 {
            let (url, token) = (broker.admin_url(), token.trim().to_owned());
            let (told, goes_on) = (Arc::clone(&told), Arc::clone(&goes_on));
            let number = 2 * round + at;
            threads.push(thread::spawn(move || {
                operator(number, &url, &token, &told, &goes_on);
            }));
        }
        let (address, comes) = (broker.address("mqtt"), Arc::clone(&goes_on));
        threads.push(thread::spawn(move || {
            while comes.load(Ordering::SeqCst) {
                let Ok(socket) = std::net::TcpStream::connect(address) else {
                    return;
                };
                drop(socket);
            }
        }));
        // So many answers, another number each time, then the kill at whatever comes next.
        let wanted = before + 3 + usize::try_from(round).unwrap() * 2;
        let deadline = std::time::Instant::now() + super::records::LIMIT;
        while told.lock().unwrap().len() < wanted {
            assert!(
                std::time::Instant::now() < deadline,
                "no answers: {}",
                broker.stderr()
            );
            thread::yield_now();
        }
        broker.kill9();
        goes_on.store(false, Ordering::SeqCst);
        for thread in threads {
            thread.join().unwrap();
        }
        broker.restart();
        check(&broker, &told.lock().unwrap());
        let mut wire = Wire::connect(broker.address("mqtt"));
        wire.send(&Connect::with_token(Version::V311, "c", "unknown").encode());
        wire.packet();
    }
    println!(
        "{} changes answered over {KILLS} kills",
        told.lock().unwrap().len()
    );
    broker.stop();
    check(&broker, &told.lock().unwrap());
}

fn check(broker: &Broker, answered: &[(String, String)]) {
    verify(broker);
    let records = records(broker);
    let told = changes(&records);
    let mut places = BTreeMap::new();
    for (place, change) in told.iter().enumerate() {
        let twice = places.insert(change.clone(), place);
        assert!(twice.is_none(), "{change:?} is told twice");
    }
    // One operator waits for each answer, so that what it did is told in that order.
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for change in answered {
        let place = *places
            .get(change)
            .unwrap_or_else(|| panic!("{change:?} is not told"));
        let operator = change.1.split('-').next().unwrap();
        let before = last.insert(operator, place);
        assert!(
            before.is_none_or(|before| before < place),
            "{change:?} is told too early"
        );
    }
    let numbers: Vec<_> = records
        .iter()
        .filter_map(|r| r["change"].as_u64())
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}
