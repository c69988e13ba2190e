//! The HTTP server: admin API, history, health.

pub mod api;
