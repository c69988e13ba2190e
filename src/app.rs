//! Builds the parts, runs them, stops them.

/// Why the broker did not start or did not go on.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AppError(String);

/// Runs the broker until it is told to stop.
///
/// # Errors
/// What kept it from starting or going on.
pub fn run(_config: crate::config::Config) -> Result<(), AppError> {
    Err(AppError("the broker is not part of this build".to_owned()))
}
