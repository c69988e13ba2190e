//! Clients with wills. Each lives once: it is killed with the broker, drops its socket, or says
//! goodbye; and it is noted what must become of its will.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{
    cycles::SERVES_AGAIN,
    rig::{
        link::{Link, Over},
        random::Random,
        site::Site,
    },
    subscriber::qos_of,
};
use crate::common::packets::{Connect, Version};

/// The longest delay of a will, in seconds.
pub(crate) const DELAY_MAX_S: u32 = 2;

/// How long a session with a delayed will is kept, in seconds: longer than the delay.
const EXPIRY_S: u32 = 5;

/// What must become of a will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// CONNECT or DISCONNECT was not answered for: it may come, once.
    Unclear,
    /// CONNECT was acknowledged, and nobody said goodbye.
    Comes,
    /// Somebody said goodbye, and a later CONNECT of theirs was acknowledged.
    Never,
}

/// All wills there ever were, by number; topic and quality of service follow from that.
#[derive(Default)]
pub(crate) struct Wills {
    next: AtomicU64,
    /// What must become of each, and what happened to its client.
    fates: Mutex<BTreeMap<u64, (Fate, String)>>,
}

impl Wills {
    /// A number of its own.
    pub(crate) fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn fates(&self) -> BTreeMap<u64, (Fate, String)> {
        self.fates.lock().unwrap().clone()
    }

    fn note(&self, n: u64, fate: Fate, event: &str) {
        let mut fates = self.fates.lock().unwrap();
        let (last, story) = fates.entry(n).or_insert((fate, String::new()));
        *last = fate;
        story.push_str(event);
    }
}

/// Starts one thread of clients that live one after the other until the test finishes.
pub(crate) fn start(
    token: &str,
    wills: &Arc<Wills>,
    mut random: Random,
    site: &Arc<Site>,
) -> JoinHandle<()> {
    let (token, wills, site) = (token.to_owned(), Arc::clone(wills), Arc::clone(site));
    std::thread::spawn(move || {
        while !site.is_finishing() {
            let Some(address) = site.mqtt() else { return };
            // At people's pace: the point is to be there at the kill, not to be many.
            std::thread::sleep(Duration::from_millis(random.below(100)));
            let n = wills.fresh();
            if let Err(Over::Violated(what)) = live(n, address, &token, &wills, &mut random, &site)
            {
                return site.report(format!("will {n}: {what}"));
            }
        }
    })
}

fn live(
    n: u64,
    address: SocketAddr,
    token: &str,
    wills: &Wills,
    random: &mut Random,
    site: &Site,
) -> Result<(), Over> {
    let (id, topic, payload) = (format!("mortal-{n}"), format!("will/{n}"), n.to_string());
    let delay_s = u32::try_from(random.below(u64::from(DELAY_MAX_S) + 1)).expect("below 3");
    let version = if delay_s == 0 && random.one_in(2) {
        Version::V311
    } else {
        Version::V5
    };
    let plain = Connect::with_token(version, &id, token);
    let mut connect = plain.clone();
    connect.will = Some((qos_of(n), false, &topic, payload.as_bytes()));
    if version == Version::V5 {
        connect = connect.kept_for(EXPIRY_S).will_delay(delay_s);
    }
    let mut link = Link::open(address)?;
    let begin = format!("{version:?}, delay {delay_s} s, at {address}: CONNECT");
    wills.note(n, Fate::Unclear, &begin);
    link.connect(&connect, SERVES_AGAIN, site)?;
    wills.note(n, Fate::Comes, ", CONNACK");
    match random.below(4) {
        0 => {
            wills.note(n, Fate::Unclear, ", DISCONNECT");
            link.outgoing.extend([0xe0, 0]);
            link.write()?;
            until_end(&mut link, site, true);
            // The same broker: each start has a port of its own.
            let mut link = Link::open(address)?;
            link.connect(&plain.kept_for(1), SERVES_AGAIN, site)?;
            wills.note(n, Fate::Never, ", CONNECT without will, CONNACK");
        }
        1 => wills.note(n, Fate::Comes, ", cut"),
        _ => {
            until_end(&mut link, site, false);
            wills.note(n, Fate::Comes, ", lost");
        }
    }
    Ok(())
}

/// Waits until the broker closes or dies, or the test finishes.
fn until_end(link: &mut Link, site: &Site, stays_till_close: bool) {
    while !site.is_abandoned() && (stays_till_close || !site.is_finishing()) {
        if link.read().is_err() {
            return;
        }
    }
}
