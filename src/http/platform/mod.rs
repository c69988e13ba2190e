//! The device platform's REST calls, as its clients know them (spec: thingsboard.md, section 11):
//! other names, other shapes and other errors than the admin API, the same data behind it. The
//! admin token is the bearer token, in `Authorization` or `X-Authorization`.

mod refused;
mod telemetry;

pub(super) use refused::in_platform_form;
pub(super) use telemetry::{keys, values};

/// Below this every refusal has the platform's form.
pub(super) const PREFIX: &str = "/api/";
