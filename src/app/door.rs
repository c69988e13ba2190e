//! From settings to what the network is told about who may come in.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::broker::IdentityLimits;
use crate::config::Config;
use crate::net::{DoorLimits, PlaceLimits, UnsentLimits};

/// Descriptors kept for what is no MQTT client: segments, the state database, HTTP, the runtime.
/// Where few are allowed, a quarter of them.
const DESCRIPTORS_KEPT: u64 = 512;

/// The limits of the door, with as many file descriptors as the system lets this process have.
pub(super) fn limits(config: &Config) -> DoorLimits {
    let limits = &config.limits;
    DoorLimits {
        places: PlaceLimits {
            connections_max: limits.connections_max,
            per_address_max: limits.connections_per_address_max,
            handshakes_per_address_max: limits.handshakes_per_address_max,
            handshake_memory_max_bytes: limits.handshake_memory_max_bytes,
            trusted: limits.trusted_networks.clone(),
        },
        descriptors_max: descriptors_max(),
        accepts_per_second_max: limits.accepts_per_second_max,
        failures_per_minute_max: limits.failures_per_minute_max,
        per_identity: IdentityLimits {
            connections_max: limits.connections_per_identity_max,
            sessions_max: limits.sessions_per_identity_max,
        },
        unsent: UnsentLimits {
            bytes_max: limits.unsent_max_bytes,
            timeout: limits.unsent_timeout,
        },
    }
}

/// Raises the soft limit of open files to the hard one; says how many of them clients may have.
fn descriptors_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let Some(files) = getrlimit(Resource::Nofile).current else {
        return usize::MAX; // no limit
    };
    let kept = DESCRIPTORS_KEPT.min(files / 4);
    usize::try_from(files - kept).unwrap_or(usize::MAX)
}
