//! `tollgate device export`: the fleet as a CSV file, without tokens.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    cli::{
        CliError,
        client::{Client, path_step},
        progress::Progress,
    },
    http::api::{BULK_PATH, ExportPage},
};

use super::import::terms;

/// Most pages asked for: far beyond what a registry holds; more is a loop.
const PAGES_MAX: usize = 10_000;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// File to write; standard output without it. It can be imported elsewhere, with new tokens
    /// under the same terms
    file: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "file")]
    force: bool,
}

pub(super) fn run(client: &Client, arguments: &Arguments) -> Result<(), CliError> {
    let Some(path) = &arguments.file else {
        let out = io::BufWriter::new(io::stdout().lock());
        return pages(client, out)?.flush().map_err(CliError::Output);
    };
    if !arguments.force && path.try_exists().unwrap_or(false) {
        return Err(CliError::Usage(format!(
            "{} exists already; name another file, or replace it with --force",
            path.display()
        )));
    }
    // Beside, then renamed: a file of that name is a whole export or the one before.
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part);
    let written = write(client, &part, path);
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

fn write(client: &Client, part: &Path, path: &Path) -> Result<(), CliError> {
    let failed = |error: io::Error| {
        CliError::Usage(format!("{} cannot be written: {error}", path.display()))
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(part)
        .map_err(failed)?;
    let file = pages(client, io::BufWriter::new(file))?;
    let file: File = file
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    fs::rename(part, path).map_err(failed)
}

/// Writes all devices, a page at a time; hands the writer back, flushed.
fn pages<W: Write>(client: &Client, out: W) -> Result<W, CliError> {
    let mut out = csv::Writer::from_writer(out);
    let wrong = |error: csv::Error| CliError::Output(error.into());
    let columns = ["name", "id", "profile", "label", "publish", "subscribe"];
    out.write_record(columns.iter().chain(&terms::COLUMNS))
        .map_err(wrong)?;
    let mut progress = None;
    let mut after = String::new();
    for _ in 0..PAGES_MAX {
        let page: ExportPage = client.get_much(&format!("{BULK_PATH}{after}"))?;
        let bar = progress.get_or_insert_with(|| Progress::new(page.total, "devices"));
        for device in &page.devices {
            let id = device.id.to_string();
            // No filter of a device holds the separator.
            let publish = device.publish.join(terms::SEPARATOR);
            let subscribe = device.subscribe.join(terms::SEPARATOR);
            let texts = [&device.name, &id, &device.profile, &device.label];
            let filters = [&publish, &subscribe];
            let terms = terms::fields(device.terms.as_ref());
            out.write_record(texts.into_iter().chain(filters).chain(&terms))
                .map_err(wrong)?;
        }
        bar.add(page.devices.len() as u64);
        match page.next {
            Some(next) => after = format!("?after={}", path_step(&next)),
            None => break,
        }
    }
    out.into_inner()
        .map_err(|error| CliError::Output(io::Error::other(error.to_string())))
}
