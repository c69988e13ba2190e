//! kill -9 at random moments under load: what was promised is there (REL-24).
//!
//! `scripts/torture` runs it longer. `TOLLGATE_TORTURE_CYCLES` says how often the broker is killed,
//! `TOLLGATE_SEED` plays a run again.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "torture/cycles.rs"]
mod cycles;
#[cfg(test)]
#[path = "torture/messages.rs"]
mod messages;
#[cfg(test)]
#[path = "torture/mortals.rs"]
mod mortals;
#[cfg(test)]
#[path = "torture/operator.rs"]
mod operator;
#[cfg(test)]
#[path = "common/torture/mod.rs"]
mod rig;
#[cfg(test)]
#[path = "torture/start.rs"]
mod start;
#[cfg(test)]
#[path = "torture/subscriber.rs"]
mod subscriber;
