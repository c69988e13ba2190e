//! Many devices at once, each on a thread of its own.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use super::{
    admin::Admin,
    device::{Device, Habits, Notes},
    random::Random,
    site::Site,
};
use crate::common::{broker::Broker, packets::Version};

/// Devices that publish until they are told to finish.
pub(crate) struct Load {
    site: Arc<Site>,
    notes: Vec<Arc<Notes>>,
    threads: Vec<JoinHandle<Device>>,
}

impl Load {
    /// Starts the devices; they connect as soon as the site says where.
    pub(crate) fn start(devices: Vec<Device>, site: &Arc<Site>) -> Load {
        let notes = devices.iter().map(|held| Arc::clone(&held.notes)).collect();
        let start = |device: Device| {
            let site = Arc::clone(site);
            let thread = std::thread::Builder::new().name(device.name.clone());
            let run = move || device.run(&site);
            thread.spawn(run).expect("a thread can be started")
        };
        Load {
            site: Arc::clone(site),
            notes,
            threads: devices.into_iter().map(start).collect(),
        }
    }

    /// Messages promised to all devices together.
    pub(crate) fn promised(&self) -> u64 {
        self.sum(|notes| notes.promised.load(Ordering::SeqCst))
    }

    /// Connections that ended without the devices' doing.
    pub(crate) fn losses(&self) -> u64 {
        self.sum(|notes| notes.losses.load(Ordering::SeqCst))
    }

    /// What each device has noted.
    pub(crate) fn notes(&self) -> &[Arc<Notes>] {
        &self.notes
    }

    /// Waits until so many messages are promised.
    pub(crate) fn until_promised(&self, messages: u64, limit: Duration) {
        let what = format!("{messages} messages promised");
        self.site
            .until(&what, limit, || self.promised() >= messages);
    }

    /// Lets every device finish what it has under way.
    ///
    /// # Panics
    /// If a promise was broken.
    pub(crate) fn finish(self) -> Vec<Device> {
        self.site.finish();
        self.join()
    }

    /// Stops every device where it is.
    pub(crate) fn abandon(self) -> Vec<Device> {
        self.site.abandon();
        self.join()
    }

    fn join(self) -> Vec<Device> {
        let joined = self.threads.into_iter().map(JoinHandle::join);
        let devices = joined.collect::<Result<_, _>>();
        self.site.check();
        devices.expect("no device panics")
    }

    fn sum(&self, of: impl Fn(&Notes) -> u64) -> u64 {
        self.notes.iter().map(|notes| of(notes)).sum()
    }
}

/// Makes devices at the broker: every second QoS 1, every second QoS 2, versions in turn.
pub(crate) fn devices(
    broker: &Broker,
    count: usize,
    base: &Habits,
    random: &mut Random,
) -> Vec<Device> {
    let versions = [Version::V311, Version::V5, Version::V31];
    devices_of(&versions, broker, count, base, random)
}

/// The same of these versions only.
pub(crate) fn devices_of(
    versions: &[Version],
    broker: &Broker,
    count: usize,
    base: &Habits,
    random: &mut Random,
) -> Vec<Device> {
    let admin = Admin::new(broker.dir());
    let http = broker.address("http");
    let make = |at: usize| {
        let name = format!("load-{at}");
        let (id, token) = admin.create(http, &name).expect("the broker answers");
        let qos = if at.is_multiple_of(2) { 1 } else { 2 };
        let habits = Habits {
            version: versions[(at / 2) % versions.len()],
            qos,
            // Exactly once is a promise within a session. QoS 1 goes without and with one.
            keeps_session: qos == 2 || at.is_multiple_of(4),
            ..base.clone()
        };
        Device::new(&name, id, &token, habits, random.fork())
    };
    (0..count).map(make).collect()
}
