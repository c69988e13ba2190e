//! Tollgate: an MQTT broker for IoT fleets in which every device carries a token.
#![forbid(unsafe_code)]

pub mod app;
pub mod audit;
pub mod backup;
pub mod broker;
pub mod cli;
pub mod config;
pub mod device_api;
pub mod http;
pub mod identity;
pub mod journal;
pub mod limits;
pub mod metrics;
pub mod mqtt;
pub mod net;
pub mod store;
pub mod telemetry;
