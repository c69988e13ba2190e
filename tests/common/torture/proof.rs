//! What was promised against what is there: in the journal, record by record, and in history.

use std::{collections::HashMap, net::SocketAddr, ops::Range, path::Path, sync::Arc};

use tollgate::journal::{Entry, Journal, JournalOptions, Offset, RealDisk, RecordKind};
use tollgate::telemetry::{History, HistoryOptions, OwnedValue, Query, QueryError};
use uuid::Uuid;

use super::{admin::Admin, device::Device};

/// What the journal holds of one device.
#[derive(Default)]
struct Held {
    /// How often each message is in it.
    times: Vec<u32>,
    /// The order in which they first came.
    order: Vec<u64>,
}

/// The figures of a proof, to be printed.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) devices: usize,
    pub(crate) promised: u64,
    pub(crate) records: u64,
    pub(crate) missing: u64,
    /// Of QoS 1, where a message that was sent again may be there twice.
    pub(crate) repeated: u64,
    /// Of QoS 2, where it may not.
    pub(crate) doubled: u64,
}

/// Holds the journal in `data` (no broker runs on it) to what the devices were promised:
/// every promised message is there (REL-01), of QoS 2 once (REL-03), in the order in which it was
/// sent (REL-03), and no stretch is damaged.
pub(crate) fn prove_journal(data: &Path, devices: &[Device]) -> Figures {
    let mut held = devices
        .iter()
        .map(|held| (held.id, Held::default()))
        .collect();
    read(&data.join("journal"), &mut held);
    let mut figures = Figures {
        devices: devices.len(),
        ..Figures::default()
    };
    let mut wrong = Vec::new();
    for device in devices {
        let held = held.remove(&device.id).unwrap_or_default();
        figures.promised += device.promised();
        figures.records += held
            .times
            .iter()
            .map(|times| u64::from(*times))
            .sum::<u64>();
        let times = |n: u64| {
            let at = usize::try_from(n).expect("numbers are small");
            held.times.get(at).copied().unwrap_or(0)
        };
        let missing: Vec<u64> = (0..device.promised()).filter(|n| times(*n) == 0).collect();
        let more: Vec<u64> = (0..device.sent()).filter(|n| times(*n) > 1).collect();
        let many = u64::try_from(more.len()).expect("numbers are small");
        figures.missing += u64::try_from(missing.len()).expect("numbers are small");
        if device.habits.qos == 2 {
            figures.doubled += many;
        } else {
            figures.repeated += many;
        }
        let what = format!("{} (QoS {})", device.name, device.habits.qos);
        if !missing.is_empty() {
            let numbers = some_of(&missing);
            wrong.push(format!("{what}: promised and not there: {numbers}"));
        }
        if device.habits.qos == 2 && !more.is_empty() {
            let numbers = some_of(&more);
            wrong.push(format!("{what}: there more than once: {numbers}"));
        }
        if let Some(pair) = held.order.windows(2).find(|pair| pair[0] >= pair[1]) {
            wrong.push(format!("{what}: first seen in another order: {pair:?}"));
        }
        if times(device.sent()) > 0 || held.times.len() as u64 > device.sent() {
            wrong.push(format!("{what}: there is what was never sent"));
        }
    }
    println!("journal: {figures:?}");
    assert!(wrong.is_empty(), "{figures:?}\n{}", wrong.join("\n"));
    figures
}

/// Holds history to the same: every promised message can be read, and none that was never sent.
pub(crate) fn prove_history(admin: &Admin, http: SocketAddr, devices: &[Device]) {
    for device in devices {
        prove_history_of(admin, http, &device.name, 0..device.promised());
        // Times far behind the last message: what was never sent.
        let (from, to) = (device.sent(), device.sent() + 10_000);
        let more = admin.numbers(http, &device.name, from..to);
        assert!(more.is_empty(), "{}: was never sent: {more:?}", device.name);
    }
}

/// As `prove_history`, for a stretch of one device's messages.
pub(crate) fn prove_history_of(admin: &Admin, http: SocketAddr, name: &str, promised: Range<u64>) {
    let numbers = admin.numbers(http, name, promised.clone());
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "{name}: history is not in order of time, or tells a message twice"
    );
    let missing = promised.filter(|n| numbers.binary_search(n).is_err());
    let missing: Vec<u64> = missing.collect();
    assert!(
        missing.is_empty(),
        "{name}: promised, and not in history: {}",
        some_of(&missing)
    );
}

/// How many there are, and the first ten.
fn some_of(numbers: &[u64]) -> String {
    let first = &numbers[..numbers.len().min(10)];
    format!("{} in all, first of them {first:?}", numbers.len())
}

/// Notes every message of the devices in `held`.
fn read(dir: &Path, held: &mut HashMap<Uuid, Held>) {
    let options = JournalOptions {
        ballast_bytes: 0,
        ..JournalOptions::new(dir)
    };
    let failed = Box::new(|error: &_| panic!("the journal fails while it is read: {error}"));
    let opened = Journal::open(Arc::new(RealDisk), options, failed);
    let (journal, recovery) = opened.expect("the journal opens");
    assert!(recovery.damage.is_empty(), "{recovery:?}");
    let first = journal.first();
    let mut numbers: Vec<(Uuid, u64)> = Vec::new();
    let mut reader = journal.reader(Offset::ZERO);
    while let Some(entry) = reader.next().expect("the journal can be read") {
        let batch = match entry {
            Entry::Batch(batch) => batch,
            Entry::Damage(damage) => panic!("{damage:?}"),
        };
        for record in batch {
            if record.header.kind != RecordKind::Telemetry {
                continue;
            }
            if held.contains_key(&record.header.device) {
                numbers.push((record.header.device, number(record.body)));
            }
        }
    }
    // What the journal has let go of must be in the history's files.
    let beside = dir
        .parent()
        .expect("the journal has a place")
        .join("history");
    let options = HistoryOptions {
        head_bytes_max: 1 << 30,
        ..HistoryOptions::new(beside)
    };
    let history = History::start(journal.clone(), options, []).expect("the history opens");
    for (device, held) in held.iter_mut() {
        for n in released(&history, *device, first) {
            held.note(n);
        }
    }
    drop(history);
    for (device, n) in numbers {
        held.entry(device).or_default().note(n);
    }
    journal.close().expect("the journal closes");
}

/// The numbers of a device's messages before `first`, in order of their records.
fn released(history: &History, device: Uuid, first: Offset) -> Vec<u64> {
    let all = Query {
        device,
        keys: Some(vec!["n".to_owned()]),
        from_ms: i64::MIN,
        to_ms: i64::MAX,
        limit: usize::MAX,
        newest_first: false,
        left_out: Vec::new(),
    };
    let mut points = loop {
        match history.query(&all) {
            Ok(points) => break points,
            Err(QueryError::Behind { .. }) => {}
            Err(error) => panic!("the history cannot be read: {error}"),
        }
    };
    points.retain(|point| point.offset < first);
    points.sort_by_key(|point| point.offset);
    let numbers = points.into_iter().map(|point| match point.value {
        OwnedValue::Long(n) => u64::try_from(n).expect("numbers are not negative"),
        value => panic!("no number: {value:?}"),
    });
    numbers.collect()
}

impl Held {
    fn note(&mut self, n: u64) {
        let at = usize::try_from(n).expect("numbers are small");
        if self.times.len() <= at {
            self.times.resize(at + 1, 0);
        }
        if self.times[at] == 0 {
            self.order.push(n);
        }
        self.times[at] += 1;
    }
}

/// The number in a payload. Cut out by hand: a run has millions of them.
pub(crate) fn number(payload: &[u8]) -> u64 {
    let text = std::str::from_utf8(payload).expect("payloads are UTF-8");
    let (_, rest) = text
        .split_once(r#""n":"#)
        .expect("every message has a number");
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a number follows")
}
