//! The HTTP server: admin API, history, health.
