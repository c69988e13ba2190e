//! The journal against faults: power loss, torn and short writes, bit rot, full and failing disks
//! (REL-04, REL-05, REL-09, REL-10, REL-25 to REL-29).
//!
//! `TOLLGATE_SEED` replays one seed of the random tests, `TOLLGATE_MODEL_SECONDS` is how long each
//! of them runs (10 by default).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that panics has found something; sizes in tests are small"
)]

mod journal {
    mod fault_disk;
    mod faults;
    mod format;
    mod model;
    mod power;
    mod prefix;
    mod real;
    mod rot;
    mod support;
    mod torn;
}
