//! The `tollgate` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use tollgate::cli::{self, Arguments};

fn main() -> ExitCode {
    let arguments = Arguments::read(); // wrong ones end the process here, with code 2
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
