//! Device payloads and their history, through the public API (TB-16, TB-20 to TB-24).

#[cfg(test)]
mod telemetry {
    mod history;
    mod payloads;
    mod properties;
    mod store;
}
