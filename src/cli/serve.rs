//! `tollgate serve`: the broker itself.

use crate::{
    app,
    cli::{CliError, logging},
    config::{Config, Sources},
};

/// Runs until the broker is told to stop. Settings are checked before anything is bound or
/// written.
pub(super) fn run(sources: &Sources) -> Result<(), CliError> {
    let config = Config::load(sources)?;
    logging::start(&config.log);
    app::run(&config)?;
    Ok(())
}
