//! `tollgate restore`: a backup put in place, where nothing is yet.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use clap::Args;

use crate::{
    backup::{self, BackupError, Passphrase},
    cli::{
        CliError,
        backup::{PassphraseSource, folders},
        moment, print,
        progress::Progress,
    },
    config::{Config, Sources},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Backup to put in place, into the folders that the settings name; they must be missing or
    /// empty
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseSource,
    /// Only check that it could be restored; write nothing
    #[arg(long)]
    check: bool,
}

pub(super) fn run(arguments: &Arguments, sources: &Sources) -> Result<(), CliError> {
    let config = Config::load(sources)?;
    let path = &arguments.file;
    let opened = File::open(path).map_err(|source| BackupError::File {
        action: "open",
        path: path.clone(),
        source,
    })?;
    let passphrase = Passphrase::new(arguments.passphrase.read()?.expose())
        .map_err(|_| BackupError::Passphrase)?; // no backup has such a short one
    let progress = Progress::bytes("restoring");
    let input = Counted {
        from: io::BufReader::new(opened),
        progress: &progress,
    };
    let folders = folders(&config);
    let contents = if arguments.check {
        backup::verify(&passphrase, input)?
    } else {
        backup::restore(&folders, &passphrase, input)?
    };
    drop(progress);
    let what = if arguments.check {
        "can be restored".to_owned()
    } else {
        format!(
            "restored to {}, {} and {}",
            folders.data.display(),
            folders.secrets.display(),
            folders.certs.display()
        )
    };
    print(&format!(
        "{what}: {} files, {} bytes, as of {}\n",
        contents.files,
        contents.bytes,
        moment::show_unsigned(contents.made_ms)
    ))
}

/// Shows how much was read through it.
struct Counted<'a, R> {
    from: R,
    progress: &'a Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(out)?;
        self.progress.add(count as u64);
        Ok(count)
    }
}
