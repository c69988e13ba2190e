//! The feed with clients that are not ours.

use std::process::Command;

use crate::{
    common::{
        broker::Broker,
        tools::{Running, clients_dir, printed, tool},
    },
    site::{ALL, Counter, create_app},
};

#[test]
fn mosquitto_sub_resumes_where_it_stopped() {
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let mut counter = Counter::connect(&broker, &device);
    for (version, expiry) in [("311", false), ("5", true)] {
        let client_id = format!("m{version}");
        let start = |count: &str| {
            let mut command = Command::new(tool("mosquitto_sub"));
            command.args(["-h", "127.0.0.1", "-p", &broker.mqtt_port().to_string()]);
            command.args([
                "-V", version, "-u", &token, "-i", &client_id, "-c", "-q", "1",
            ]);
            if expiry {
                command.args(["-x", "3600"]);
            }
            command.args(["-t", ALL, "-C", count, "-F", "%p"]);
            command
        };
        // The first one only makes the session.
        let output = Command::new(tool("mosquitto_sub"))
            .args(start("1").get_args())
            .arg("-E")
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{output:?}");
        counter.send(4);
        let base = if expiry { 4 } else { 0 };
        assert_eq!(numbers(&mut start("2")), [base + 1, base + 2]);
        // With -C it may leave without acknowledging the last ones, which then come again.
        let rest = numbers(&mut start("2"));
        let is_next = (base + 1..=base + 3).contains(&rest[0]) && rest[1] == rest[0] + 1;
        assert!(is_next, "{version}: {rest:?}");
    }
}

fn numbers(command: &mut Command) -> Vec<u32> {
    let (stdout, _) = printed(&Running::start(command).finish());
    let digits = |line: &str| line.replace(|byte: char| !byte.is_ascii_digit(), "");
    let lines = stdout.lines().map(digits);
    lines.map(|line| line.parse().expect("a number")).collect()
}

/// Two clients of another implementation in one group; one is killed and comes back.
#[test]
fn paho_in_a_group_misses_nothing_when_one_is_killed() {
    const MESSAGES: u32 = 3_000;
    let broker = Broker::start();
    let device = broker.create_device("d");
    let token = create_app(&broker, "a", &[ALL]);
    let filter = format!("$share/g/{ALL}");
    let start = |name: &str| {
        let mut command = Command::new(tool("python"));
        command.arg(clients_dir().join("paho_feed.py"));
        command.args([
            "127.0.0.1",
            &broker.mqtt_port().to_string(),
            &token,
            name,
            &filter,
        ]);
        command.arg(broker.dir().join(format!("{name}.seen")));
        let mut running = Running::start(&mut command);
        running.wait_for_line("subscribed");
        running
    };
    let (first, _second) = (start("first"), start("second"));
    let mut counter = Counter::connect(&broker, &device);
    let mut killed = Some(first);
    let mut again = None;
    for round in 0..30 {
        counter.send(MESSAGES / 30);
        if round == 10 {
            drop(killed.take()); // kill -9
        }
        if round == 20 {
            again = Some(start("first"));
        }
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let seen = || {
        let mut numbers = std::collections::BTreeSet::new();
        for name in ["first", "second"] {
            let path = broker.dir().join(format!("{name}.seen"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            // A line that the kill cut in two is a message that was not acknowledged.
            let whole = text
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            numbers.extend(whole.filter_map(|line| line.trim().parse::<u32>().ok()));
        }
        numbers
    };
    let all: std::collections::BTreeSet<u32> = (1..=MESSAGES).collect();
    while seen() != all {
        assert!(
            std::time::Instant::now() < deadline,
            "{} came",
            seen().len()
        );
        std::thread::yield_now();
    }
    drop(again);
}
