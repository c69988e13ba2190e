//! `tollgate backup`: everything an installation needs, in one sealed file.
//!
//! The broker streams it, or, when none answers, this program makes it itself under the broker's
//! lock. Either way it is opened again while it is written: a file that gets its name can be
//! restored.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, IsTerminal as _, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    backup::{self, BackupError, Contents, Folders, Passphrase},
    cli::{
        CliError,
        client::{Client, Target},
        moment, print,
        progress::Progress,
    },
    config::{Config, Sources},
    http::api::{BackupRequest, TokenText},
};

/// Bytes read of a file that holds a passphrase.
const PASSPHRASE_BYTES_MAX: u64 = 4_096;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// File to write (mode 0600); must not exist yet
    file: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseSource,
    #[command(flatten)]
    target: Target,
}

/// Where the passphrase comes from; never a flag, because everybody may list processes.
#[derive(Debug, Args)]
pub(super) struct PassphraseSource {
    /// File whose first line is the passphrase; otherwise TOLLGATE_BACKUP_PASSPHRASE, otherwise it
    /// is read from standard input
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, sources: &Sources) -> Result<(), CliError> {
    let client = Client::new(&arguments.target, sources)?;
    let text = arguments.passphrase.read()?;
    let passphrase = Passphrase::new(text.expose())?;
    let path = &arguments.file;
    if path.try_exists().unwrap_or(false) {
        return Err(CliError::Usage(format!(
            "{} exists already; a backup replaces nothing: name another file",
            path.display()
        )));
    }
    let part = path.with_extension("part");
    let _ = fs::remove_file(&part); // left by a backup that was cut off
    let written = write(&client, text, &passphrase, &part).and_then(|contents| {
        put_in_place(&part, path)?;
        Ok(contents)
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    let contents = written?;
    let last = match contents.last {
        0 => String::new(),
        last => format!(", journal up to offset {last}"),
    };
    print(&format!(
        "wrote {}: {} files, {} bytes{last}, made {}\n",
        path.display(),
        contents.files,
        contents.bytes,
        moment::show_unsigned(contents.made_ms)
    ))
}

fn write(
    client: &Client,
    text: TokenText,
    passphrase: &Passphrase,
    part: &Path,
) -> Result<Contents, CliError> {
    let mut file = OpenOptions::new()
        .write(true)
        .read(true)
        .create_new(true)
        .mode(0o600)
        .open(part)
        .map_err(written)?;
    let request = BackupRequest { passphrase: text };
    match client.download("/backup", &request) {
        Ok(body) => {
            let progress = Progress::bytes("backing up");
            let mut copied = Copied {
                from: body,
                to: &mut file,
                progress: &progress,
            };
            let contents =
                backup::verify(passphrase, &mut copied).map_err(|error| match error {
                    BackupError::Stream { .. } | BackupError::Damaged { .. } => {
                        CliError::BrokenOff {
                            what: error.to_string(),
                        }
                    }
                    other => other.into(),
                })?;
            file.sync_all().map_err(written)?;
            Ok(contents)
        }
        Err(CliError::NoBroker { .. }) => {
            let progress = Progress::bytes("backing up (no broker answers)");
            let out = io::BufWriter::new(file);
            let (contents, out) = backup::write_stopped(&folders(&client.config), passphrase, out)?;
            drop(progress);
            let file = out
                .into_inner()
                .map_err(|error| written(error.into_error()))?;
            file.sync_all().map_err(written)?;
            let progress = Progress::bytes("checking");
            let file = io::BufReader::new(File::open(part).map_err(written)?);
            backup::verify(passphrase, file)?;
            drop(progress);
            Ok(contents)
        }
        Err(error) => Err(error),
    }
}

fn put_in_place(part: &Path, path: &Path) -> Result<(), CliError> {
    // A link refuses an existing name, which a rename would replace.
    fs::hard_link(part, path)
        .and_then(|()| fs::remove_file(part))
        .map_err(written)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")));
    folder.and_then(|folder| folder.sync_all()).map_err(written)
}

/// The folders that the settings name.
pub(super) fn folders(config: &Config) -> Folders {
    Folders {
        data: config.data_dir.clone(),
        secrets: config.secrets_dir.clone(),
        certs: config.certs_dir.clone(),
    }
}

fn written(source: io::Error) -> CliError {
    let action = "written";
    BackupError::Stream { action, source }.into()
}

/// Writes down what is read through it.
struct Copied<'a, R> {
    from: R,
    to: &'a mut File,
    progress: &'a Progress,
}

impl<R: Read> Read for Copied<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(out)?;
        self.to.write_all(out.get(..count).unwrap_or_default())?;
        self.progress.add(count as u64);
        Ok(count)
    }
}

impl PassphraseSource {
    /// The passphrase, without its line end.
    pub(super) fn read(&self) -> Result<TokenText, CliError> {
        let line = |text: String| {
            let line = text.lines().next().unwrap_or_default();
            TokenText::new(line.to_owned())
        };
        if let Some(path) = &self.passphrase_file {
            let mut text = String::new();
            File::open(path)
                .and_then(|file| file.take(PASSPHRASE_BYTES_MAX).read_to_string(&mut text))
                .map_err(|error| {
                    CliError::Usage(format!(
                        "--passphrase-file {} cannot be read: {error}. Its first line is the \
                         passphrase, of 12 bytes or more",
                        path.display()
                    ))
                })?;
            return Ok(line(text));
        }
        if let Ok(text) = std::env::var("TOLLGATE_BACKUP_PASSPHRASE") {
            return Ok(line(text));
        }
        if io::stdin().is_terminal() {
            eprint!("passphrase (it is shown): ");
        }
        let mut text = String::new();
        let mut input = io::stdin().lock().take(PASSPHRASE_BYTES_MAX);
        input.read_line(&mut text).map_err(CliError::Input)?;
        if text.trim().is_empty() {
            return Err(CliError::Usage(
                "there is no passphrase: name a file with --passphrase-file, set \
                 TOLLGATE_BACKUP_PASSPHRASE, or write it to standard input"
                    .to_owned(),
            ));
        }
        Ok(line(text))
    }
}
