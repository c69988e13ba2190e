//! Where the broker is at the moment, told to every thread that talks to it.

use std::{
    net::SocketAddr,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// The one place where the threads of a test meet.
#[derive(Default)]
pub(crate) struct Site {
    place: Mutex<Place>,
    moved: Condvar,
    is_finishing: AtomicBool,
    is_abandoned: AtomicBool,
    violations: Mutex<Vec<String>>,
}

/// Where a broker listens.
#[derive(Clone, Copy, Default)]
struct Place {
    mqtt: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl Site {
    /// The broker is up at these addresses.
    pub(crate) fn is_up(&self, mqtt: SocketAddr, http: SocketAddr) {
        let (mqtt, http) = (Some(mqtt), Some(http));
        *self.place.lock().unwrap() = Place { mqtt, http };
        self.moved.notify_all();
    }

    /// The broker is gone; whoever wants it waits.
    pub(crate) fn is_down(&self) {
        *self.place.lock().unwrap() = Place::default();
    }

    /// Where MQTT is spoken; waits while the broker is down. None when the test is over.
    pub(crate) fn mqtt(&self) -> Option<SocketAddr> {
        self.wait(|place| place.mqtt)
    }

    /// Where the admin API is; waits while the broker is down. None when the test is over.
    pub(crate) fn http(&self) -> Option<SocketAddr> {
        self.wait(|place| place.http)
    }

    fn wait(&self, of: impl Fn(&Place) -> Option<SocketAddr>) -> Option<SocketAddr> {
        let mut place = self.place.lock().unwrap();
        loop {
            if self.is_abandoned() {
                return None;
            }
            if let Some(address) = of(&place) {
                return Some(address);
            }
            // The limit is for those who wait while the test is abandoned.
            let limit = Duration::from_millis(100);
            place = self.moved.wait_timeout(place, limit).unwrap().0;
        }
    }

    /// Nothing new is to be begun; what is under way is finished.
    pub(crate) fn finish(&self) {
        self.is_finishing.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_finishing(&self) -> bool {
        self.is_finishing.load(Ordering::SeqCst) || self.is_abandoned()
    }

    /// Everybody stops where they are.
    pub(crate) fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::SeqCst);
        self.moved.notify_all();
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::SeqCst)
    }

    /// A promise was broken; the test fails with these words.
    pub(crate) fn report(&self, violation: String) {
        self.violations.lock().unwrap().push(violation);
        self.abandon();
    }

    /// Fails if a promise was broken so far.
    pub(crate) fn check(&self) {
        let violations = self.violations.lock().unwrap().clone();
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    }

    /// Waits until `is_true`, checking that no promise is broken meanwhile.
    ///
    /// # Panics
    /// When it takes longer than `limit`.
    pub(crate) fn until(&self, what: &str, limit: Duration, mut is_true: impl FnMut() -> bool) {
        let deadline = Instant::now() + limit;
        while !is_true() {
            self.check();
            assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
