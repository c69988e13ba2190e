//! `tollgate store …`: the files of the history, with a broker running or without.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    app::history_dir,
    cli::{CliError, print, print_json, table::aligned},
    config::{Config, Sources},
    telemetry::{FileVerdict, verify_files},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the directory of the history's files, for DuckDB, pandas and the like
    Path,
    /// Read every file and say what is wrong; changes nothing
    Verify {
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
}

/// The report for programs.
#[derive(Debug, Serialize)]
struct Report {
    directory: PathBuf,
    sealed: u64,
    manifest: Option<String>,
    files: Vec<File>,
}

#[derive(Debug, Serialize)]
struct File {
    file: PathBuf,
    samples: u64,
    bytes: u64,
    wrong: Option<String>,
}

pub(super) fn run(arguments: &Arguments, sources: &Sources) -> Result<(), CliError> {
    let dir = history_dir(&Config::load(sources)?);
    match arguments.command {
        Command::Path => {
            let whole = std::path::absolute(&dir).unwrap_or(dir);
            print(&format!("{}\n", whole.display()))
        }
        Command::Verify { json } => verify(dir, json),
    }
}

fn verify(directory: PathBuf, json: bool) -> Result<(), CliError> {
    let found = verify_files(&directory).map_err(|source| CliError::Store {
        path: directory.clone(),
        source,
    })?;
    let wrong = found.wrong();
    let report = Report {
        directory,
        sealed: found.sealed.number(),
        manifest: found.manifest,
        files: found.files.into_iter().map(file).collect(),
    };
    if json {
        print_json(&report)?;
    } else {
        print(&table(&report))?;
    }
    if wrong > 0 {
        return Err(CliError::Damaged(wrong));
    }
    Ok(())
}

fn file(verdict: FileVerdict) -> File {
    File {
        file: verdict.file,
        samples: verdict.rows,
        bytes: verdict.bytes,
        wrong: verdict.wrong,
    }
}

fn table(report: &Report) -> String {
    let mut rows = Vec::new();
    if let Some(what) = &report.manifest {
        let manifest = report.directory.join("_manifest.json");
        rows.push([
            "DAMAGED".to_owned(),
            manifest.display().to_string(),
            what.clone(),
        ]);
    }
    for file in &report.files {
        let (result, finding) = match &file.wrong {
            None => (
                "ok",
                format!("{} samples, {} bytes", file.samples, file.bytes),
            ),
            Some(what) => ("DAMAGED", what.clone()),
        };
        rows.push([result.to_owned(), file.file.display().to_string(), finding]);
    }
    if rows.is_empty() {
        return "no files yet: what is new is in the journal\n".to_owned();
    }
    aligned(["RESULT", "FILE", "FINDING"], &rows)
}
