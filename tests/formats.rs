//! REL-10: a data directory that an older Tollgate wrote opens, and what is in it is served.
//!
//! `tests/data/formats/NAME` holds the `data` and `secrets` folders that the broker of a format
//! generation left behind after a clean stop. A fixture is never changed: whoever changes a format
//! adds the next one (`docs/operations.md`, "Upgrade"). That a *newer* format is refused untouched
//! is tested where the format is: `tests/journal/format.rs`, `src/store/tests.rs`.

#[cfg(test)]
mod common;
#[cfg(test)]
#[path = "formats/fixture.rs"]
mod fixture;
#[cfg(test)]
#[path = "formats/v1.rs"]
mod v1;
#[cfg(test)]
#[path = "formats/v12.rs"]
mod v12;
#[cfg(test)]
#[path = "formats/v6.rs"]
mod v6;
#[cfg(test)]
#[path = "formats/v9.rs"]
mod v9;
