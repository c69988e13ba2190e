//! Waiting for many sockets at once.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

/// Events taken in one wait: as many as there are connections in the usual test.
const EVENTS_MAX: usize = 1024;

/// An epoll instance. Edge-triggered: a socket is named once when it can be read or written, so
/// that a full socket costs no call to be told when it has room again.
pub(super) struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub(super) fn new() -> io::Result<Poll> {
        Ok(Poll {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
        })
    }

    /// Watches a socket; `key` names it in what `wait` returns.
    pub(super) fn add(&self, socket: impl AsFd, key: usize) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let data = epoll::EventData::new_u64(key as u64);
        Ok(epoll::add(&self.epoll, socket, data, flags)?)
    }

    /// Watches a socket no longer.
    pub(super) fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// The keys of the sockets that can be read or written; waits at most `timeout`, in whole
    /// milliseconds.
    pub(super) fn wait(&mut self, timeout: Duration, keys: &mut Vec<usize>) -> io::Result<()> {
        keys.clear();
        self.events.clear();
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let named = self.events.iter().map(|event| event.data.u64());
        keys.extend(named.filter_map(|key| usize::try_from(key).ok()));
        Ok(())
    }
}
