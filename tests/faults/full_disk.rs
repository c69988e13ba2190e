//! A data directory without room: acks wait, connections stay, revocation works (REL-28).

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    mount::Mount,
    rig::{
        device::Habits,
        load::{self, Load},
        proof,
        random::{self, Random},
        site::Site,
    },
};
use crate::common::{
    broker::{Broker, Setup},
    client::Client,
    packets::{Connect, TELEMETRY, Version, log_in, publish},
    wire::Wire,
};

/// Room for what a start takes (two segments, the ballast), one segment more, some air, and what
/// the filler has from the beginning.
const MIB: u32 = 400;

/// What the filler has from the beginning: its end makes room for a segment, however much of the
/// rest the journal had taken before the file system was full.
const FILLER_MIB: usize = 100;

/// Bytes of the ballast, the broker's default.
const BALLAST_BYTES: u64 = 64 << 20;

/// No ack for so long: there are no more on their way...
const NO_MORE: Duration = Duration::from_secs(3);

/// ...if it was looked for so often meanwhile: time passes too while the machine stands still.
const LOOKS_MIN: u32 = 300;

/// How long the file system stays full.
const FULL_FOR: Duration = Duration::from_secs(10);

/// How long the stop may take: 10 s (REL-09) on a machine that has nothing else to do.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How soon acks must come again after there is room: 5 s (REL-28) on a machine that has nothing
/// else to do.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// How long something that must happen may take on a busy machine, such as publishing until no
/// room is left.
const FILL_LIMIT: Duration = Duration::from_secs(120);

/// Those of the quiet devices.
const QUIET_TOKENS: [&str; 2] = ["quiet-token-1", "quiet-token-2"];

/// A broker on a small file system with devices that publish much.
struct Scene {
    load: Load,
    site: Arc<Site>,
    broker: Broker,
    /// Devices of their own with one message under way and a PINGREQ now and then.
    quiet: Vec<Wire>,
    mount: Mount,
}

/// 10 s without room: 0 false acks, connections stay, revocation works; with room again, acks come
/// by themselves, and all that was promised is there.
#[test]
fn rel_28_a_full_disk_makes_acks_wait_and_nothing_else() {
    let mut scene = Scene::new();
    let filler = scene.fill([Version::V31, Version::V311]);
    let promised = scene.load.promised();
    let losses = scene.load.losses();
    let began = Instant::now();
    let mut is_revoked = false;
    while began.elapsed() < FULL_FOR {
        scene.site.check();
        for wire in &mut scene.quiet {
            // The one answer is the PINGRESP, although there is no room: the message before it
            // stays unacknowledged.
            wire.expect_alive();
        }
        if !is_revoked && began.elapsed() > FULL_FOR / 2 {
            is_revoked = true;
            scene.revoke_and_try();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(scene.load.promised(), promised, "acknowledged without room");
    assert_eq!(scene.load.losses(), losses, "{}", scene.broker.stderr());
    fs::remove_file(filler).expect("the filler can be removed");
    let freed = Instant::now();
    scene.load.until_promised(promised + 1, BACK_WITHIN);
    println!("acks came again {:?} after there was room", freed.elapsed());
    for wire in &mut scene.quiet {
        assert_eq!(wire.packet()[0], 0x40, "what waited is acknowledged");
    }
    assert_eq!(scene.load.losses(), losses, "{}", scene.broker.stderr());
    scene.end_and_prove();
}

/// Killed while there is no room, and started again without room: what was acknowledged is there.
#[test]
fn rel_28_what_was_acknowledged_before_a_full_disk_survives_kill_9() {
    let mut scene = Scene::new();
    let filler = scene.fill([]);
    scene.revoke_and_try();
    scene.broker.kill9();
    scene.site.is_down();
    scene.broker.restart();
    // It is up: a device is let in and kept, its messages wait, a revoked one is not let in.
    let address = scene.broker.address("mqtt");
    let mut wire = Wire::connect(address);
    let connect = Connect::with_token(Version::V311, "late", "late-comers-token");
    log_in(&mut wire, &connect);
    wire.expect_alive();
    assert!(!is_let_in(&scene.broker, "guest-token"));
    fs::remove_file(filler).expect("the filler can be removed");
    wire.send(&publish(Version::V311, 1, 1, TELEMETRY, br#"{"late":1}"#));
    assert_eq!(wire.packet()[0], 0x40);
    scene.end_and_prove();
}

/// What finds no room when a session is left stands in the journal before what the session does
/// next: an old will's end never takes away the new will.
#[test]
fn rel_06_a_will_that_ended_without_room_does_not_end_the_next_one() {
    let mut scene = Scene::new();
    let broker = &scene.broker;
    let scope = ["--publish", "#", "--subscribe", "#"];
    let app = broker.cli_json(&[&["app", "create", "a", "--json"][..], &scope].concat());
    let token = app["token"].as_str().expect("a token").to_owned();
    let connect = |text: &'static [u8]| {
        let connect = Connect {
            will: Some((1, true, "w", text)),
            ..Connect::with_token(Version::V5, "k", &token)
        };
        connect.kept().will_delay(1)
    };
    let client = Client::connect(broker, &connect(b"old"));
    let filler = scene.fill([]);
    client.disconnect();
    // The session waits for room to be made kept; its CONNACK comes when there is some.
    let mut wire = scene.broker.wire();
    wire.send(&connect(b"new").encode());
    assert_eq!(wire.packet_within(NO_MORE), None, "let in without room");
    fs::remove_file(filler).expect("the filler can be removed");
    assert_eq!(wire.packet()[0], 0x20, "let in, there is room");
    scene.load.abandon();
    scene.broker.kill9();
    scene.broker.restart();
    let mut witness = Client::connect(
        &scene.broker,
        &Connect::with_token(Version::V5, "witness", &token),
    );
    assert_eq!(witness.subscribe("w", 1), 1);
    assert_eq!(witness.take().text(), "new");
}

/// A stop that would have to wait for room does not wait for ever, and says why it was not clean.
#[test]
fn rel_09_a_stop_on_a_full_disk_ends_in_time_and_says_so() {
    let mut scene = Scene::new();
    scene.fill([]);
    let began = Instant::now();
    let code = scene.broker.stop();
    let took = began.elapsed();
    println!("the stop took {took:?}");
    assert_eq!(code, 1, "{}", scene.broker.stderr());
    assert!(took < STOP_LIMIT, "the stop took {took:?}");
    let log = scene.broker.stderr();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("Nothing acknowledged is lost"), "{last}");
    scene.end_and_prove();
}

/// Architecture section 3: a storage that stays full for 30 s is said to MQTT 5 clients that wait
/// (0x97); MQTT 3.1.1 gets no answer and is not closed.
#[test]
fn rel_02_a_disk_that_stays_full_is_told_to_those_who_can_be_told() {
    let mut scene = Scene::new();
    let filler = scene.fill([Version::V311, Version::V5]);
    let mut told = scene.quiet.pop().expect("there are two");
    let mut untold = scene.quiet.pop().expect("there are two");
    let deadline = Instant::now() + FILL_LIMIT;
    let goodbye = loop {
        scene.site.check();
        assert!(Instant::now() < deadline, "MQTT 5 was told nothing");
        untold.expect_alive();
        told.send(&[0xc0, 0]);
        match told.packet() {
            pong if pong[0] == 0xd0 => std::thread::sleep(Duration::from_millis(200)),
            other => break other,
        }
    };
    assert_eq!(goodbye[0], 0xe0, "{goodbye:02x?}");
    assert_eq!(goodbye[2], 0x97, "{goodbye:02x?}");
    told.expect_close();
    untold.expect_alive();
    fs::remove_file(filler).expect("the filler can be removed");
    assert_eq!(untold.packet()[0], 0x40, "what waited is acknowledged");
    scene.load.abandon();
}

impl Scene {
    fn new() -> Scene {
        let mount = Mount::tmpfs(MIB);
        let begin = vec![0x55; FILLER_MIB << 20];
        fs::write(filler(&mount), begin).expect("the file system takes a file");
        let data = mount.path().join("data");
        let text = data.to_str().expect("temporary paths are UTF-8");
        let broker = Setup::new().set("TOLLGATE_DATA_DIR", text).start();
        let mut random = Random::new(random::seed());
        for (name, token) in [
            ("guest", "guest-token"),
            ("late", "late-comers-token"),
            ("quiet-1", QUIET_TOKENS[0]),
            ("quiet-2", QUIET_TOKENS[1]),
        ] {
            broker.create_device_with_token(name, token);
        }
        // None of MQTT 5: those are told and closed after 30 s without room, and a busy machine
        // may take that long.
        let versions = [Version::V311, Version::V31];
        let devices = load::devices_of(&versions, &broker, 8, &habits(), &mut random);
        let site = Arc::new(Site::default());
        site.is_up(broker.address("mqtt"), broker.address("http"));
        let load = Load::start(devices, &site);
        load.until_promised(20, FILL_LIMIT);
        // A disk that is full before the ballast is made has none to give back.
        let ballast = data.join("journal/ballast");
        site.until("the ballast is made", FILL_LIMIT, || {
            fs::metadata(&ballast).is_ok_and(|file| file.len() >= BALLAST_BYTES)
        });
        Scene {
            load,
            site,
            broker,
            quiet: Vec::new(),
            mount,
        }
    }

    /// Takes all room and waits until the journal has none left; then quiet devices of these
    /// versions publish.
    fn fill<const COUNT: usize>(&mut self, quiet: [Version; COUNT]) -> PathBuf {
        let path = filler(&self.mount);
        let file = File::options().append(true).open(&path);
        let mut file = file.expect("the filler is there");
        let chunk = vec![0x55; 64 * 1024];
        // Until the journal says so: it goes on with the segments that it has prepared.
        let mut last_look = Instant::now();
        let began = Instant::now();
        loop {
            match file.write(&chunk) {
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::StorageFull => {}
                Err(error) => panic!("filling the file system: {error}"),
            }
            self.site.check();
            let elapsed = began.elapsed();
            assert!(
                elapsed < FILL_LIMIT,
                "the journal is not full after {elapsed:?}"
            );
            if last_look.elapsed() > Duration::from_millis(100) {
                last_look = Instant::now();
                if journal_is_full(&self.broker) {
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.until_quiet();
        for (version, token) in quiet.into_iter().zip(QUIET_TOKENS) {
            let mut wire = self.broker.wire();
            log_in(&mut wire, &Connect::with_token(version, token, token));
            wire.send(&publish(version, 1, 1, TELEMETRY, br#"{"waits":1}"#));
            self.quiet.push(wire);
        }
        path
    }

    /// Acks that were true before there was no room may still be on their way to the devices.
    fn until_quiet(&self) {
        let (mut last, mut since, mut looks) = (self.load.promised(), Instant::now(), 0);
        self.site.until("no acks", FILL_LIMIT, || {
            let promised = self.load.promised();
            looks += 1;
            if promised != last {
                (last, since, looks) = (promised, Instant::now(), 0);
            }
            since.elapsed() > NO_MORE && looks > LOOKS_MIN
        });
    }

    /// Revokes a device that is connected, without room on the disk.
    fn revoke_and_try(&self) {
        let mut wire = self.broker.wire();
        let connect = Connect::with_token(Version::V5, "guest", "guest-token");
        log_in(&mut wire, &connect);
        let receipt = self.broker.revoke("guest");
        assert_eq!(receipt["receipt"]["connections"], 1, "{receipt}");
        let goodbye = wire.packet();
        assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x98), "{goodbye:02x?}");
        assert!(!is_let_in(&self.broker, "guest-token"));
    }

    /// Ends everything at once and holds the journal to what was promised. What the devices still
    /// have under way may need more room than the small file system has, and so does reading a
    /// journal: it is copied out.
    fn end_and_prove(self) {
        let Scene {
            load,
            mut broker,
            mount,
            ..
        } = self;
        let devices = load.abandon();
        broker.kill9();
        let to = broker.dir().join("copy/journal");
        fs::create_dir_all(&to).expect("a folder can be made");
        let from = mount.folder("data/journal");
        for entry in fs::read_dir(from).expect("the folder can be listed") {
            let entry = entry.expect("the folder can be listed");
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
        }
        proof::prove_journal(&broker.dir().join("copy"), &devices);
    }
}

fn filler(mount: &Mount) -> PathBuf {
    mount.path().join("filler")
}

fn habits() -> Habits {
    Habits {
        version: Version::V311,
        qos: 1,
        keeps_session: true,
        window: 8,
        text_bytes: (40_000, 60_000),
        take_over_one_in: 0,
        // They fill what may be parked, so that they are not read; the quiet ones ping.
        ping_interval: Duration::ZERO,
        patience: Duration::from_secs(180),
    }
}

fn journal_is_full(broker: &Broker) -> bool {
    let mut response = ureq::get(format!("{}/metrics", broker.admin_url()))
        .call()
        .expect("the broker answers");
    let text = response.body_mut().read_to_string().expect("text");
    text.lines()
        .any(|line| line.starts_with("tollgate_journal_state") && line.ends_with("\"full\"} 1"))
}

fn is_let_in(broker: &Broker, token: &str) -> bool {
    let mut wire = broker.wire();
    wire.send(&Connect::with_token(Version::V311, "guest", token).encode());
    wire.packet()[3] == 0
}
