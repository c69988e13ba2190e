//! Device payloads to samples, and their history.
