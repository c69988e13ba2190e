//! A data directory with devices, a journal to write to, and starts from what is there.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tollgate::broker::record::message::Fixed;
use tollgate::broker::record::{Flags, Target, Targets, encode, message, queue, will};
use tollgate::broker::retained::{Cursor, Progress, RetainedLimits};
use tollgate::broker::{Checkpointer, Restored, Stored};
use tollgate::identity::{DeviceName, Registry, Secrets};
use tollgate::journal::{
    Journal, JournalOptions, Offset, RealDisk, RecordHeader, RecordKind, Submitter,
};
use tollgate::mqtt::message::{Content, Message, Publisher, Will};
use tollgate::mqtt::session::{Subscribed, SubscriptionSet};
use tollgate::mqtt::topic::{Filter, Topic};
use tollgate::mqtt::wire::{QoS, SubscriptionOptions};
use tollgate::store::Store;
use uuid::Uuid;

/// How long something that happens every second may take, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Small, so that there are many.
const SEGMENT_BYTES: u64 = 64 * 1024;

pub(crate) const LIMITS: RetainedLimits = RetainedLimits {
    messages_max: 10_000_000,
    bytes_max: 1 << 40,
    publisher_messages_max: 10_000_000,
    publisher_bytes_max: 1 << 40,
};

/// An installation whose broker runs: its parts, without net.
pub(crate) struct Place {
    pub(crate) dir: Arc<TempDir>,
    pub(crate) registry: Registry,
    pub(crate) journal: Journal,
    submitter: Submitter,
    pub(crate) restored: Restored,
    checkpointer: Checkpointer,
    /// Generation and credential of the records that are written.
    pub(crate) generation: u32,
    /// What messages are sent with.
    pub(crate) qos: QoS,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place::new_with(SEGMENT_BYTES)
    }

    /// With segments of this size.
    pub(crate) fn new_with(segment_bytes: u64) -> Place {
        let dir = TempDir::with_prefix("tollgate-durability-").expect("a temporary directory");
        Place::open_with(Arc::new(dir), segment_bytes)
    }

    /// Starts from what is in the directory.
    pub(crate) fn open(dir: Arc<TempDir>) -> Place {
        Place::open_with(dir, SEGMENT_BYTES)
    }

    fn open_with(dir: Arc<TempDir>, segment_bytes: u64) -> Place {
        let store = Store::open(&dir.path().join("data")).expect("a database");
        let secrets = Secrets::open(&dir.path().join("secrets"), true).expect("secrets");
        let registry = Registry::open(store.clone(), &secrets).expect("a registry");
        let options = JournalOptions {
            ballast_bytes: 0,
            segment_bytes,
            commit_interval: Duration::ZERO,
            ..JournalOptions::new(dir.path().join("data/journal"))
        };
        let failed = |error: &_| panic!("the journal failed: {error}");
        let (journal, _) =
            Journal::open(Arc::new(RealDisk), options, Box::new(failed)).expect("a journal");
        let (restored, checkpointer) =
            Checkpointer::start(&store, &journal, LIMITS, Instant::now()).expect("it starts");
        let submitter = journal.submitter(Arc::new(|| {}));
        Place {
            dir,
            registry,
            journal,
            submitter,
            restored,
            checkpointer,
            generation: 1,
            qos: QoS::ExactlyOnce,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn device(&self, name: &str) -> Uuid {
        let name = DeviceName::new(name).expect("a name");
        self.registry
            .create_device(&name, None)
            .expect("a device")
            .0
            .id
    }

    /// A clean stop and a start.
    pub(crate) fn restart(self) -> Place {
        let dir = self.stop();
        Place::open(dir)
    }

    pub(crate) fn stop(self) -> Arc<TempDir> {
        self.checkpointer.stop();
        self.journal.close().expect("a clean end");
        self.dir
    }

    /// A start from what a kill leaves now.
    pub(crate) fn killed(&self) -> Place {
        Place::open(self.copy())
    }

    /// What a kill leaves on disk now.
    pub(crate) fn copy(&self) -> Arc<TempDir> {
        let copy = TempDir::with_prefix("tollgate-durability-").expect("a temporary directory");
        let data = copy.path().join("data");
        // The database first: what it refers to stands in the journal by then.
        std::fs::create_dir(&data).expect("a folder");
        let database = data.join(tollgate::store::FILE_NAME);
        tollgate::store::snapshot(&self.path().join("data"), &database).expect("a copy");
        for folder in ["data/journal", "secrets"] {
            let to = copy.path().join(folder);
            let made = DirBuilder::new().mode(0o700).create(&to);
            made.expect("a folder");
            for path in files(&self.path().join(folder)) {
                let name = path.file_name().expect("a name");
                // The helper may give `next.prepared` its name at any moment.
                let _ = std::fs::copy(&path, to.join(name));
            }
        }
        Arc::new(copy)
    }

    /// Has these records on disk, in one commit; answers the offset of the first.
    pub(crate) fn write(&mut self, records: &[(RecordHeader, Vec<u8>)]) -> u64 {
        let mut batch = self.submitter.take_batch();
        for (header, body) in records {
            batch.push(header, body).expect("there is room");
        }
        let began = Instant::now();
        let last = loop {
            match self.submitter.submit(batch) {
                Ok(last) => break last,
                Err(refused) => batch = refused,
            }
            assert!(began.elapsed() < LIMIT, "{:?}", self.journal.status());
            thread::yield_now();
        };
        let durable = self
            .journal
            .wait_past(Offset::new(last.number() - 1), LIMIT);
        assert!(durable >= last);
        last.number() + 1 - u64::try_from(records.len()).expect("few")
    }

    pub(crate) fn header(&self, kind: RecordKind, device: Uuid, session: u32) -> RecordHeader {
        RecordHeader {
            device,
            session,
            generation: self.generation,
            credential: 1,
            ..queue::header(kind, 1)
        }
    }

    /// A session with one subscription and, with a text, a will.
    pub(crate) fn begin(&mut self, number: u32, device: Uuid, will_text: Option<&str>) -> u64 {
        let set = SubscriptionSet::from_iter([Subscribed {
            filter: "#".into(),
            options: SubscriptionOptions {
                qos: QoS::ExactlyOnce,
                no_local: true,
                ..SubscriptionOptions::default()
            },
            id: Some(4),
            start: 0,
        }]);
        let mut body = Vec::new();
        encode(u32::MAX, &format!("client {number}"), &set, &mut body);
        let mut records = vec![(self.header(RecordKind::SessionBegin, device, number), body)];
        if let Some(text) = will_text {
            let mut body = Vec::new();
            let content = content("will", text);
            let new = Will {
                content,
                delay_s: 7,
                expiry_s: None,
            };
            will::encode(&new, &mut body);
            records.push((self.header(RecordKind::Will, device, number), body));
        }
        self.write(&records)
    }

    pub(crate) fn message(
        &self,
        publisher: Uuid,
        topic: &str,
        text: &str,
        retain: bool,
        to: &[u32],
    ) -> (RecordHeader, Vec<u8>) {
        let publisher = Publisher {
            identity: publisher.as_u128(),
            credential: 1,
            generation: self.generation,
        };
        let message = Message::restored(content(topic, text), publisher, 1, None);
        let mut targets = Targets::default();
        for session in to {
            assert!(targets.push(&Target {
                session: *session,
                qos: self.qos,
                retain,
                ids: [4].as_slice().into(),
                group: None,
            }));
        }
        let flags = Flags {
            retain,
            will: false,
        };
        let body = message::parts(&message, flags, &targets, &mut Fixed::default()).concat();
        (message::header(&message, 0, None), body)
    }

    pub(crate) fn release(&self) -> Offset {
        let all = self.journal.durable().next();
        self.journal.release(all).expect("files go")
    }

    /// Has a checkpoint written that holds everything, and sees it by what the journal need not
    /// keep any more.
    pub(crate) fn until_released_past(&self, offset: u64) {
        let began = Instant::now();
        self.checkpointer.checkpoint();
        while self.release().number() <= offset {
            assert!(began.elapsed() < LIMIT, "offset {offset} is still held");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn stored(&self, number: u32) -> Option<&Stored> {
        let mut sessions = self.restored.sessions.iter();
        let found = sessions.find(|(_, stored)| stored.number == number);
        found.map(|(_, stored)| stored)
    }

    /// The texts in a session's queue, in order.
    pub(crate) fn queued(&self, number: u32) -> Vec<String> {
        let stored = self.stored(number);
        let unsettled = stored.into_iter().flat_map(|held| held.state.unsettled());
        let messages = unsettled.filter_map(|unsettled| unsettled.message);
        messages.map(|message| text(&message)).collect()
    }

    /// Topics and texts of what is retained.
    pub(crate) fn retained(&self) -> Vec<(String, String)> {
        let mut cursor = Cursor::new(Filter::new("#").expect("a filter"), u64::MAX);
        let mut found = Vec::new();
        while self.restored.retained.step(&mut cursor, 1, &mut found) == Progress::More {}
        let found = found.iter();
        found
            .map(|found| (found.topic.to_string(), text(&found.message)))
            .collect()
    }
}

pub(crate) fn content(topic: &str, text: &str) -> Content {
    let topic = Topic::new(topic).expect("a topic");
    Content::from_parts(topic, b"", text.as_bytes(), QoS::ExactlyOnce, true)
}

fn text(message: &Message) -> String {
    String::from_utf8(message.content().payload().to_vec()).expect("a text")
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
    files.sort();
    files
}
