//! Random operations of several clients on a real broker, against a simple reference model.
//!
//! A difference is told with its seed and the fewest steps that still show it.
//!
//!   TOLLGATE_MODEL_SECONDS    how long the test plays (default 10)
//!   TOLLGATE_MODEL_SEQUENCES  so many sequences instead, however long they take
//!   TOLLGATE_MODEL_SEED       the first seed (default: from the clock); with
//!                             TOLLGATE_MODEL_SEQUENCES=1 this one sequence is played
//!   TOLLGATE_MODEL_THREADS    sequences played at once (default 16)

#[cfg(test)]
mod common;
#[cfg(test)]
#[path = "model/driver.rs"]
mod driver;
#[cfg(test)]
#[path = "model/play.rs"]
mod play;
#[cfg(test)]
#[path = "model/reference.rs"]
mod reference;
#[cfg(test)]
#[path = "model/shares.rs"]
mod shares;
#[cfg(test)]
#[path = "model/steps.rs"]
mod steps;
