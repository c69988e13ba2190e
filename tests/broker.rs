//! Raw bytes against a real broker.

#[cfg(test)]
mod common;
