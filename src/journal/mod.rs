//! The durable log: the one way telemetry becomes durable.
