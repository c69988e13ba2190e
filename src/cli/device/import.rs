//! `tollgate device import`: a fleet from a CSV file.
//!
//! The file is read and checked as a whole before anything is sent. Tokens that are made here are
//! on disk, synced, before the broker is asked: a connection that breaks after the commit must not
//! take them along.

pub(super) mod terms;
mod tokens;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use csv::{ByteRecord, ReaderBuilder};
use serde::Serialize;

use crate::{
    cli::{
        CliError,
        client::{Client, Uploaded},
        moment, print, print_json,
        progress::Progress,
        table::shown,
    },
    http::api::{BULK_PATH, IMPORT_ROWS_MAX, Imported, RowError, Terms},
};

use tokens::Tokens;

/// Largest file, bytes: a million rows with every field at its limit would be larger, a million
/// real ones have a tenth of it. It is held in memory.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Bad rows that are printed when nothing is imported; all of them with `--skip-bad`.
const SHOWN_MAX: usize = 20;

/// The columns that are known, in the order of an export.
const COLUMNS: [&str; NOT_BEFORE + terms::COLUMNS.len()] = {
    let [
        not_before,
        expires,
        rights,
        networks,
        connections,
        messages,
        certificate,
    ] = terms::COLUMNS;
    [
        "name",
        "token",
        "id",
        "profile",
        "label",
        "publish",
        "subscribe",
        not_before,
        expires,
        rights,
        networks,
        connections,
        messages,
        certificate,
    ]
};

/// Where the terms begin among the columns.
const NOT_BEFORE: usize = 7;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// CSV file with the columns name, token, id, profile, label, publish, subscribe, and for the
    /// token not_before, expires, rights, networks, connections_max, messages_max, certificate, in
    /// any order, named in its first line; only name is needed; `;` stands between filters, rights
    /// and networks. `-` is standard input
    file: PathBuf,
    /// Where tokens are written that the file does not give; must not exist yet
    #[arg(long, value_name = "FILE")]
    tokens_out: Option<PathBuf>,
    /// Import the good rows when there are bad ones, and list those that were left out
    #[arg(long)]
    skip_bad: bool,
}

/// A row as the admin API wants it, borrowed from the file.
#[derive(Serialize)]
struct Line<'a> {
    name: Cow<'a, str>,
    token: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    publish: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscribe: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<Terms>,
}

/// The file, taken apart.
#[derive(Default)]
struct Rows {
    records: Vec<ByteRecord>,
    /// The line in which each record begins.
    lines: Vec<u64>,
    /// Bad ones, found before anything was sent.
    bad: Vec<Bad>,
    columns: Columns,
    /// What times from now on count from.
    now_ms: i64,
}

/// Where each known column is.
#[derive(Clone, Copy, Default)]
struct Columns([Option<usize>; COLUMNS.len()]);

/// A row that cannot be imported.
struct Bad {
    line: u64,
    column: String,
    what: String,
}

pub(super) fn run(client: &Client, arguments: &Arguments, json: bool) -> Result<(), CliError> {
    let (text, origin) = read(&arguments.file)?;
    let rows = Rows::read(&text, &origin)?;
    drop(text);
    if !rows.bad.is_empty() && !arguments.skip_bad {
        return Err(refused(&origin, &rows.bad, rows.bad.len() as u64));
    }
    let tokens = Tokens::make(&rows, arguments.tokens_out.as_deref(), &origin)?;
    let progress = Progress::new(rows.records.len() as u64, "devices");
    let mut body = Body {
        rows: &rows,
        tokens: &tokens,
        next: 0,
        buffer: Vec::new(),
        taken: 0,
        progress: &progress,
    };
    let path = format!("{BULK_PATH}?skip_bad={}", arguments.skip_bad);
    let answer = client.upload::<Imported>(&path, "application/x-ndjson", &mut body);
    drop(progress);
    let place = |row: &RowError| rows.place(row);
    match answer {
        Ok(Uploaded::Done(reply)) => {
            let skipped: Vec<u32> = reply.rows.iter().map(|row| row.row).collect();
            let kept = tokens.keep(&rows, &skipped)?;
            let bad: Vec<Bad> = reply.rows.iter().map(place).collect();
            finish(&reply, rows.bad, bad, (kept, &origin), json)
        }
        Ok(Uploaded::Refused(error)) => {
            tokens.remove();
            if error.rows.is_empty() {
                return Err(CliError::Refused {
                    message: error.message,
                });
            }
            let bad: Vec<Bad> = error.rows.iter().map(place).collect();
            let total = bad.len() as u64;
            Err(refused(&origin, &bad, total))
        }
        Err(error) => {
            tokens.left(&error);
            Err(error)
        }
    }
}

fn finish(
    reply: &Imported,
    mut bad: Vec<Bad>,
    found: Vec<Bad>,
    (tokens, origin): (Option<&Path>, &str),
    json: bool,
) -> Result<(), CliError> {
    let skipped = bad.len() as u64 + reply.bad;
    bad.extend(found);
    bad.sort_by_key(|bad| bad.line);
    for bad in &bad {
        eprintln!("skipped: {}", bad.say(origin));
    }
    let unsaid = skipped.saturating_sub(bad.len() as u64);
    if unsaid > 0 {
        eprintln!("skipped: {unsaid} more");
    }
    if json {
        print_json(reply)?;
    } else {
        let tokens = tokens.map_or_else(String::new, |path| {
            format!(", made tokens in {}", path.display())
        });
        print(&format!(
            "imported {} devices, skipped {skipped} rows{tokens}\n",
            reply.created
        ))?;
    }
    match (skipped, reply.created) {
        (0, _) => Ok(()),
        (skipped, 0) => Err(CliError::AllSkipped { skipped }),
        (skipped, _) => Err(CliError::Skipped { skipped }),
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, String), CliError> {
    let mut text = Vec::new();
    let (origin, read) = if path.as_os_str() == "-" {
        let mut input = io::stdin().lock().take(FILE_BYTES_MAX + 1);
        ("standard input".to_owned(), input.read_to_end(&mut text))
    } else {
        let read =
            File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text));
        (path.display().to_string(), read)
    };
    read.map_err(|error| CliError::Usage(format!("{origin} cannot be read: {error}")))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(CliError::Usage(format!(
            "{origin} is longer than {FILE_BYTES_MAX} bytes; import it in parts"
        )));
    }
    Ok((text, origin))
}

impl Rows {
    fn read(text: &[u8], origin: &str) -> Result<Rows, CliError> {
        // A mark that some programs put before UTF-8.
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(text);
        let header = reader
            .byte_headers()
            .map_err(|error| unreadable(origin, &error))?;
        let columns = Columns::find(header, origin)?;
        let width = header.len();
        let mut rows = Rows {
            columns,
            now_ms: moment::now_ms(),
            ..Rows::default()
        };
        for record in reader.byte_records() {
            let record = record.map_err(|error| unreadable(origin, &error))?;
            let line = record.position().map_or(0, csv::Position::line);
            if rows.records.len() >= IMPORT_ROWS_MAX {
                return Err(CliError::Usage(format!(
                    "{origin}, line {line}: one import takes {IMPORT_ROWS_MAX} rows; import the \
                     rest as another file"
                )));
            }
            match check(&record, width, &columns, rows.now_ms) {
                None => {
                    rows.records.push(record);
                    rows.lines.push(line);
                }
                Some((column, what)) => rows.bad.push(Bad { line, column, what }),
            }
        }
        if rows.records.is_empty() && rows.bad.is_empty() {
            return Err(CliError::Usage(format!("{origin} holds no rows")));
        }
        Ok(rows)
    }

    fn line_of(&self, row: usize) -> u64 {
        self.lines.get(row).copied().unwrap_or(0)
    }

    /// What the broker says of a row, in the file's own terms.
    fn place(&self, error: &RowError) -> Bad {
        let at = usize::try_from(error.row).unwrap_or(0).saturating_sub(1);
        // "is that of row 7 already" counts as the broker does.
        let what = match error.message.strip_prefix("is that of row ") {
            Some(rest) => {
                let first = rest
                    .split(' ')
                    .next()
                    .and_then(|row| row.parse::<usize>().ok());
                let line = first.map_or(0, |row| self.line_of(row.saturating_sub(1)));
                format!("is that of line {line} already")
            }
            None => error.message.clone(),
        };
        Bad {
            line: self.line_of(at),
            column: terms::column_of(&error.field).to_owned(),
            what,
        }
    }
}

/// What can be seen without the broker.
fn check(
    record: &ByteRecord,
    width: usize,
    columns: &Columns,
    now_ms: i64,
) -> Option<(String, String)> {
    if record.len() != width {
        let what = format!(
            "has {} fields, the first line names {width}; put fields with commas in \"…\"",
            record.len()
        );
        return Some(("row".to_owned(), what));
    }
    for (name, place) in COLUMNS.iter().zip(columns.0) {
        let field = place.and_then(|place| record.get(place));
        if field.is_some_and(|field| std::str::from_utf8(field).is_err()) {
            let what = "is not UTF-8; save the file as UTF-8".to_owned();
            return Some(((*name).to_owned(), what));
        }
    }
    if columns.get(record, 0).is_none() {
        return Some((
            "name".to_owned(),
            "is empty; every device has a name".to_owned(),
        ));
    }
    let bad = terms::read(record, columns, now_ms).err();
    bad.map(|(column, what)| (column.to_owned(), what))
}

impl Columns {
    fn find(header: &ByteRecord, origin: &str) -> Result<Columns, CliError> {
        let mut columns = Columns::default();
        for (at, field) in header.iter().enumerate() {
            let name = String::from_utf8_lossy(field).trim().to_lowercase();
            let place = COLUMNS.iter().position(|known| **known == name);
            let Some(slot) = place.and_then(|place| columns.0.get_mut(place)) else {
                return Err(CliError::Usage(format!(
                    "{origin}, line 1, column {}: {:?} is no column of a device; known are {}. The \
                     first line names the columns",
                    at + 1,
                    shown(&name),
                    COLUMNS.join(", ")
                )));
            };
            if slot.replace(at).is_some() {
                return Err(CliError::Usage(format!(
                    "{origin}, line 1, column {}: {name} stands there twice",
                    at + 1
                )));
            }
        }
        if columns.0.first().copied().flatten().is_none() {
            return Err(CliError::Usage(format!(
                "{origin}, line 1: there is no column name; the first line names the columns: {}",
                COLUMNS.join(", ")
            )));
        }
        Ok(columns)
    }

    /// Whether there is a column of tokens.
    fn has_tokens(&self) -> bool {
        self.0.get(1).copied().flatten().is_some()
    }

    /// A field that is there and not empty.
    fn get<'r>(&self, record: &'r ByteRecord, column: usize) -> Option<Cow<'r, str>> {
        let place = self.0.get(column).copied().flatten()?;
        let field = record.get(place).filter(|field| !field.is_empty())?;
        Some(String::from_utf8_lossy(field))
    }

    /// The filters in a field; no filter of a device holds the separator.
    fn filters(&self, record: &ByteRecord, column: usize) -> Vec<String> {
        let field = self.get(record, column).unwrap_or_default();
        let filters = field.split(';').filter(|filter| !filter.is_empty());
        filters.map(str::to_owned).collect()
    }
}

/// The request's body, made while it is sent.
struct Body<'a> {
    rows: &'a Rows,
    tokens: &'a Tokens,
    next: usize,
    buffer: Vec<u8>,
    taken: usize,
    progress: &'a Progress,
}

/// Bytes of rows made at a time.
const PIECE_BYTES: usize = 64 * 1024;

impl Body<'_> {
    fn refill(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.taken = 0;
        let before = self.next;
        while self.buffer.len() < PIECE_BYTES
            && let Some(record) = self.rows.records.get(self.next)
        {
            let columns = &self.rows.columns;
            let made = self.tokens.of(self.next).map(|token| token.expose().into());
            let line = Line {
                name: columns.get(record, 0).unwrap_or_default(),
                token: made.or_else(|| columns.get(record, 1)).unwrap_or_default(),
                id: columns.get(record, 2),
                profile: columns.get(record, 3),
                label: columns.get(record, 4),
                publish: columns.filters(record, 5),
                subscribe: columns.filters(record, 6),
                // What is wrong was found when the file was read.
                terms: terms::read(record, columns, self.rows.now_ms).unwrap_or_default(),
            };
            serde_json::to_writer(&mut self.buffer, &line)?;
            self.buffer.push(b'\n');
            self.next += 1;
        }
        self.progress.add((self.next - before) as u64);
        if self.next == self.rows.records.len() {
            self.progress.say(|| "committing".to_owned());
        }
        Ok(())
    }
}

impl Read for Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.buffer.len() {
            self.refill()?;
        }
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.taken += count;
        Ok(count)
    }
}

impl Bad {
    fn say(&self, origin: &str) -> String {
        let Bad { line, column, what } = self;
        match column.as_str() {
            "row" => format!("{origin}, line {line}: {}", shown(what)),
            column => format!("{origin}, line {line}, column {column}: {}", shown(what)),
        }
    }
}

fn refused(origin: &str, bad: &[Bad], total: u64) -> CliError {
    let mut lines: Vec<String> = bad
        .iter()
        .take(SHOWN_MAX)
        .map(|bad| bad.say(origin))
        .collect();
    let unsaid = total.saturating_sub(lines.len() as u64);
    if unsaid > 0 {
        lines.push(format!("and {unsaid} more"));
    }
    CliError::BadRows {
        lines: lines.join("\n  "),
    }
}

fn unreadable(origin: &str, error: &csv::Error) -> CliError {
    let line = error.position().map_or(1, csv::Position::line);
    CliError::Usage(format!(
        "{origin}, line {line}: cannot be read as CSV: {error}"
    ))
}
