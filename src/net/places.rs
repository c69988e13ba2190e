//! Who may be connected: places in all, per address, and the memory of those who are not let in
//! yet (SEC-81).
//!
//! # Invariants
//! 1. A [`Place`] is counted from its making to its drop, whatever becomes of the connection.
//! 2. What all connections before CONNECT are charged never exceeds the configured memory: one
//!    half is for their sockets and tasks (a fixed charge each; one more is refused), the other
//!    for TLS handshakes and long CONNECTs, which wait for their turn under the one deadline.
//! 3. Trusted networks are counted in all, and not per address.
//!
//! The table of addresses has one entry for each address with a connection and is a leaf lock:
//! taken when a connection comes, is let in, and goes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{Networks, network::masked_v6};
use crate::metrics::{ConnectRefusal as Refusal, DoorFigures};

/// What a connection before CONNECT is charged for its task, its registration with the runtime
/// and the first bytes of its CONNECT, in bytes.
pub(super) const SOCKET_BYTES: usize = 2 * 1024;

/// What a TLS handshake is charged, in bytes: its state, and what a client may send in it
/// ([`super::stream::HANDSHAKE_BYTES_MAX`]).
pub(super) const TLS_BYTES: usize = 44 * 1024;

/// Bytes of IPv6 that one subscriber is usually given: limits count a /64 as one address.
const V6_PREFIX: u8 = 64;

/// The unit of charges.
const KIB: usize = 1024;

/// How many may be here.
#[derive(Clone, Debug)]
pub struct PlaceLimits {
    /// Connections in all.
    pub connections_max: usize,
    /// Connections from one address.
    pub per_address_max: u32,
    /// Connections from one address whose CONNECT is not accepted.
    pub handshakes_per_address_max: u32,
    /// Memory of all connections whose CONNECT is not accepted, bytes.
    pub handshake_memory_max_bytes: usize,
    /// Addresses that no limit per address holds for.
    pub trusted: Networks,
}

/// The count of who is here; one for all listeners and workers.
pub(super) struct Places {
    limits: PlaceLimits,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    memory: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, Held>>,
    figures: DoorFigures,
}

/// What one address holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    connections: u32,
    handshakes: u32,
}

/// One connection's place. Dropping it gives it up.
pub(super) struct Place {
    places: Arc<Places>,
    /// Under which address it counts; `None` before that is known, and for trusted ones.
    source: Option<IpAddr>,
    /// Its CONNECT has not been accepted yet: what it is charged, beside its socket.
    handshake: Option<Vec<OwnedSemaphorePermit>>,
}

impl Places {
    pub(super) fn new(limits: PlaceLimits, figures: DoorFigures) -> Arc<Self> {
        let kib = limits.handshake_memory_max_bytes / 2 / KIB;
        Arc::new(Self {
            limits,
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            memory: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
            by_address: Mutex::default(),
            figures,
        })
    }

    /// A place for a socket that was just accepted.
    ///
    /// # Errors
    /// There is none left in all.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Place, Refusal> {
        let sockets_max = self.limits.handshake_memory_max_bytes / 2 / SOCKET_BYTES;
        if !take(&self.connections, self.limits.connections_max) {
            return Err(Refusal::TooManyConnections);
        }
        if !take(&self.handshakes, sockets_max) {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::HandshakeMemory);
        }
        self.figures.handshake(true);
        self.figures.handshake_bytes(figure(SOCKET_BYTES));
        Ok(Place {
            places: Arc::clone(self),
            source: None,
            handshake: Some(Vec::new()),
        })
    }

    /// Connections there are, let in or not.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, Held>> {
        // A panic elsewhere while it was held left whole numbers behind.
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Says where the connection comes from.
    ///
    /// # Errors
    /// The address has as many connections as it may have.
    pub(super) fn belongs_to(&mut self, address: IpAddr) -> Result<(), Refusal> {
        let limits = &self.places.limits;
        if self.source.is_some() || limits.trusted.contains(address) {
            return Ok(());
        }
        let source = source(address);
        let mut addresses = self.places.addresses();
        let held = addresses.entry(source).or_default();
        if held.connections >= limits.per_address_max {
            return Err(Refusal::AddressConnections);
        }
        if held.handshakes >= limits.handshakes_per_address_max {
            return Err(Refusal::AddressHandshakes);
        }
        held.connections += 1;
        held.handshakes += 1;
        drop(addresses);
        self.source = Some(source);
        Ok(())
    }

    /// Charges `bytes` more, rounded up to KiB; waits until others have given back as many.
    pub(super) async fn charge(&mut self, bytes: usize) {
        let kib = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.places.memory);
        // The semaphore is never closed. A budget below one charge could never be met: the
        // configuration's least is far above it.
        let Ok(permit) = memory.acquire_many_owned(kib).await else {
            return;
        };
        self.places
            .figures
            .handshake_bytes(figure(permit.num_permits() * KIB));
        if let Some(charged) = &mut self.handshake {
            charged.push(permit);
        }
    }

    /// The CONNECT is accepted: what it was charged is given back, the place stays.
    pub(super) fn let_in(&mut self) {
        let Some(charged) = self.handshake.take() else {
            return;
        };
        let kib: usize = charged.iter().map(OwnedSemaphorePermit::num_permits).sum();
        let figures = &self.places.figures;
        figures.handshake(false);
        figures.handshake_bytes(-figure(kib * KIB + SOCKET_BYTES));
        self.places.handshakes.fetch_sub(1, Ordering::Relaxed);
        if let Some(source) = &self.source
            && let Some(held) = self.places.addresses().get_mut(source)
        {
            held.handshakes = held.handshakes.saturating_sub(1);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.let_in();
        self.places.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(source) = &self.source {
            let mut addresses = self.places.addresses();
            if let Some(held) = addresses.get_mut(source) {
                held.connections = held.connections.saturating_sub(1);
                if held.connections == 0 {
                    addresses.remove(source);
                }
            }
        }
    }
}

/// What counts as one address: IPv4 alone, IPv6 by /64.
pub(super) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(address) => IpAddr::V6(masked_v6(address, V6_PREFIX)),
    }
}

/// Counts one more, unless there are `most`.
fn take(count: &AtomicUsize, most: usize) -> bool {
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (now < most).then_some(now + 1)
        })
        .is_ok()
}

fn figure(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn places(connections_max: usize, per_address_max: u32, handshakes: u32) -> Arc<Places> {
        let limits = PlaceLimits {
            connections_max,
            per_address_max,
            handshakes_per_address_max: handshakes,
            handshake_memory_max_bytes: 64 * 1024,
            trusted: ["127.0.0.0/8".parse().unwrap()].into_iter().collect(),
        };
        Places::new(limits, Metrics::new().door().clone())
    }

    fn from(places: &Arc<Places>, address: &str) -> Result<Place, Refusal> {
        let mut place = places.enter()?;
        place.belongs_to(address.parse().unwrap()).map(|()| place)
    }

    #[test]
    fn sec_81_places_are_limited_in_all_and_given_back() {
        let places = places(2, 10, 10);
        let one = from(&places, "192.0.2.1").ok().unwrap();
        let _two = from(&places, "127.0.0.1").ok().unwrap();
        assert_eq!(
            from(&places, "192.0.2.2").err(),
            Some(Refusal::TooManyConnections)
        );
        drop(one);
        assert!(from(&places, "192.0.2.2").is_ok());
        assert_eq!(places.connections(), 1);
        assert!(places.addresses().is_empty(), "nothing is left behind");
    }

    #[test]
    fn sec_81_an_address_has_its_own_limits_and_a_64_is_one_address() {
        let places = places(100, 3, 2);
        let mut held = vec![
            from(&places, "2001:db8::1").ok().unwrap(),
            from(&places, "2001:db8::2").ok().unwrap(),
        ];
        let refused = |address| from(&places, address).err();
        assert_eq!(refused("2001:db8::3"), Some(Refusal::AddressHandshakes));
        assert_eq!(refused("2001:db8:0:1::3"), None, "another /64");
        held[0].let_in();
        held[1].let_in();
        held.push(from(&places, "2001:db8::3").ok().unwrap());
        assert_eq!(refused("2001:db8::4"), Some(Refusal::AddressConnections));
        let trusted: Vec<_> = (0..5).map(|_| from(&places, "::ffff:127.0.0.9")).collect();
        assert!(
            trusted.iter().all(Result::is_ok),
            "trusted networks have none"
        );
    }

    #[test]
    fn sec_81_sockets_before_connect_have_half_of_the_memory() {
        let places = places(1_000, 1_000, 1_000);
        let mut held: Vec<_> = (0..16)
            .map(|_| from(&places, "192.0.2.1").ok().unwrap())
            .collect();
        assert_eq!(
            from(&places, "192.0.2.1").err(),
            Some(Refusal::HandshakeMemory)
        );
        held[0].let_in();
        assert!(from(&places, "192.0.2.1").is_ok());
    }

    #[test]
    fn sec_81_what_handshakes_charge_waits_for_its_turn() {
        let places = places(1_000, 1_000, 1_000);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut one = places.enter().ok().unwrap();
            let mut two = places.enter().ok().unwrap();
            one.charge(20 * KIB).await;
            let mut waiting = std::pin::pin!(two.charge(20 * KIB));
            let now = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(waiting.as_mut().poll(cx).is_ready())
            });
            assert!(!now.await, "32 KiB do not hold two handshakes");
            one.let_in();
            waiting.await;
        });
    }
}
