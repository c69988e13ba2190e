//! `tollgate audit`: what was changed, who came and who was refused; and whether the files that say
//! so are as they were written.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use crate::{
    audit::{self, Book, Expected, Head, Reader, Verified, record},
    cli::{
        CliError,
        client::{Client, Target},
        moment, print, print_json,
        table::{aligned, shown},
    },
    config::{Config, Sources},
};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Go on with what happens from now on; with --since begin there
    #[arg(long)]
    follow: bool,
    /// From this time on: RFC 3339, milliseconds since the epoch, or how long ago (10m, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only these events, separated by commas: created,revoked,refused,…
    #[arg(long, value_name = "NAMES")]
    events: Option<String>,
    /// Print the records as they stand in the files, one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read every file and say what was changed, is missing or is damaged; changes nothing
    Verify {
        /// A record seen before, as `tollgate audit verify` printed it: BOOK:NUMBER:DIGEST
        #[arg(long, value_name = "RECORD")]
        expect: Vec<String>,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(arguments: &Arguments, sources: &Sources) -> Result<(), CliError> {
    if let Some(Command::Verify { expect, json }) = &arguments.command {
        return verify(expect, *json, &Config::load(sources)?);
    }
    let since = arguments.since.as_deref().map(|text| {
        let parsed = moment::parse(text, moment::now_ms());
        parsed.map_err(|what| CliError::Usage(format!("--since {text:?}: {what}")))
    });
    let since = since.transpose()?.map(|ms| u64::try_from(ms).unwrap_or(0));
    let client = Client::new(&arguments.target, sources);
    match client.and_then(|client| follow(arguments, &client, since)) {
        // Nobody runs: the files are here. Who named another broker meant that one.
        Err(CliError::NoBroker { .. } | CliError::NoAddress(_))
            if !arguments.follow && !arguments.target.is_named() =>
        {
            from_files(arguments, &Config::load(sources)?, since)
        }
        done => done,
    }
}

fn follow(arguments: &Arguments, client: &Client, since: Option<u64>) -> Result<(), CliError> {
    let mut parameters = vec![format!("follow={}", arguments.follow)];
    parameters.extend(since.map(|since| format!("since={since}")));
    let events = arguments.events.as_deref();
    parameters.extend(events.map(|events| format!("events={}", listed(events))));
    let reader = client.stream(&format!("/audit?{}", parameters.join("&")))?;
    for line in reader.lines() {
        let line = line.map_err(|error| client.cut_off(&error))?;
        show(&line, arguments.json)?;
    }
    Ok(())
}

/// A list for a parameter: the commas stay.
fn listed(names: &str) -> String {
    let names = names.split(',').map(super::client::path_step);
    names.collect::<Vec<_>>().join(",")
}

fn from_files(arguments: &Arguments, config: &Config, since: Option<u64>) -> Result<(), CliError> {
    let dir = directory(config);
    let failed = |source| unreadable(&dir, source);
    let since = since.map(record::shown_time);
    let mut reader = Reader::new(&dir, since.as_deref()).map_err(failed)?;
    let wanted: Option<Vec<&str>> = arguments
        .events
        .as_deref()
        .map(|all| all.split(',').collect());
    while let Some(line) = reader.next(None).map_err(failed)? {
        let name = audit::event_of(&line.text);
        let is_wanted = wanted
            .as_ref()
            .is_none_or(|all| all.iter().any(|one| Some(*one) == name));
        if is_wanted {
            show(&String::from_utf8_lossy(&line.text), arguments.json)?;
        }
    }
    Ok(())
}

fn show(line: &str, json: bool) -> Result<(), CliError> {
    if json {
        return print(&format!("{line}\n"));
    }
    print(&row(line))
}

/// A record for people: time, event, then what is said of it.
fn row(line: &str) -> String {
    let Ok(Value::Object(mut members)) = serde_json::from_str::<Value>(line) else {
        return format!("{}\n", shown(line));
    };
    for hidden in ["n", "prev", "digest", "change"] {
        members.remove(hidden);
    }
    let mut text = |name: &str| match members.remove(name) {
        Some(Value::String(text)) => shown(&text),
        _ => String::new(),
    };
    let (time, event) = (text("time"), text("event"));
    let facts: BTreeMap<_, _> = members.into_iter().collect();
    let facts: Vec<_> = facts
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) if is_plain(text) => format!("{name}={text}"),
            Value::String(text) => format!("{name}={:?}", shown(text)),
            other => format!("{name}={other}"),
        })
        .collect();
    format!("{time}  {event:<14}  {}\n", facts.join(" "))
}

fn is_plain(text: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || "-_.:/+".contains(c);
    !text.is_empty() && text.chars().all(is_plain)
}

fn directory(config: &Config) -> PathBuf {
    config.data_dir.join(audit::DIRECTORY)
}

fn unreadable(dir: &Path, source: io::Error) -> CliError {
    CliError::Audit {
        path: dir.to_owned(),
        source,
    }
}

/// The report for programs.
#[derive(Debug, Serialize)]
struct Report {
    directory: PathBuf,
    books: Vec<BookReport>,
    /// Why the state database could not say where the books ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_unknown: Option<String>,
}

#[derive(Debug, Serialize)]
struct BookReport {
    book: &'static str,
    files: u64,
    records: u64,
    bytes: u64,
    first: u64,
    /// To be noted elsewhere, and given to `--expect` later.
    last: String,
    faults: Vec<FaultReport>,
}

#[derive(Debug, Serialize)]
struct FaultReport {
    file: PathBuf,
    offset: u64,
    what: String,
}

fn verify(expect: &[String], json: bool, config: &Config) -> Result<(), CliError> {
    let noted = expect
        .iter()
        .map(|text| noted(text))
        .collect::<Result<Vec<_>, _>>()?;
    let directory = directory(config);
    // Before the files are read: they grow.
    let written = audit::written(&config.data_dir);
    let of = |book| -> Vec<Head> {
        let of_book = noted.iter().filter(|(of, _)| *of == book);
        of_book.map(|(_, head)| *head).collect()
    };
    let heads = Book::ALL.map(of);
    let ends = written
        .as_ref()
        .ok()
        .copied()
        .flatten()
        .map_or([None; 2], |ends| ends.map(Some));
    let mut expected = [Expected::default(); 2];
    for (expected, (noted, written)) in expected.iter_mut().zip(heads.iter().zip(ends)) {
        *expected = Expected {
            noted,
            written,
            is_live: true,
        };
    }
    let found = audit::verify_all(&config.data_dir, expected);
    let found = found.map_err(|source| unreadable(&directory, source))?;
    let books = Book::ALL.into_iter().zip(found);
    let books: Vec<_> = books.map(|(book, found)| report(book, found)).collect();
    let wrong = books.iter().map(|book| book.faults.len()).sum();
    let report = Report {
        directory,
        books,
        end_unknown: written.err().map(|error| error.to_string()),
    };
    if json {
        print_json(&report)?;
    } else {
        print(&table(&report))?;
    }
    if wrong > 0 {
        return Err(CliError::AuditDamaged(wrong));
    }
    Ok(())
}

fn report(book: Book, found: Verified) -> BookReport {
    let fault = |fault: audit::Fault| FaultReport {
        file: fault.file,
        offset: fault.offset,
        what: fault.what.to_string(),
    };
    BookReport {
        book: book.as_str(),
        files: found.files,
        records: found.records,
        bytes: found.bytes,
        first: found.first,
        last: told(book, &found.head),
        faults: found.faults.into_iter().map(fault).collect(),
    }
}

fn told(book: Book, head: &Head) -> String {
    format!(
        "{}:{}:{}",
        book.as_str(),
        head.number,
        record::hex(&head.digest)
    )
}

/// Reads what [`told`] writes.
fn noted(text: &str) -> Result<(Book, Head), CliError> {
    let parsed = || {
        let (book, rest) = text.split_once(':')?;
        let (number, digest) = rest.split_once(':')?;
        let book = Book::ALL.into_iter().find(|known| known.as_str() == book)?;
        let head = Head {
            number: number.parse().ok()?,
            digest: record::parse_hex(digest.as_bytes())?,
        };
        Some((book, head))
    };
    let form = "give BOOK:NUMBER:DIGEST, as `tollgate audit verify` prints it";
    parsed().ok_or_else(|| CliError::Usage(format!("--expect {text:?}: {form}")))
}

fn table(report: &Report) -> String {
    let mut rows = Vec::new();
    for book in &report.books {
        let result = if book.faults.is_empty() {
            "ok"
        } else {
            "DAMAGED"
        };
        let finding = format!(
            "{} records from {} on in {} files, {} bytes; last {}",
            book.records, book.first, book.files, book.bytes, book.last
        );
        rows.push([result.to_owned(), book.book.to_owned(), finding]);
        for fault in &book.faults {
            let place = format!(
                "{} at byte {}",
                shown(&fault.file.display().to_string()),
                fault.offset
            );
            rows.push(["DAMAGED".to_owned(), place, fault.what.clone()]);
        }
    }
    if let Some(why) = &report.end_unknown {
        let finding = format!("whether records are missing at the ends is not known: {why}");
        rows.push(["unknown".to_owned(), "state database".to_owned(), finding]);
    }
    aligned(["RESULT", "WHERE", "FINDING"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_23_a_record_is_one_harmless_row() {
        let line = concat!(
            r#"{"n":3,"time":"2026-01-31T12:00:00.000Z","event":"refused","from":"::1","#,
            r#""client_id":"a\r\nb \u001b[1m\u202e","reason":"bad_credential","#,
            r#""prev":"00","digest":"11"}"#
        );
        let row = row(line);
        assert_eq!(row.lines().count(), 1, "{row:?}");
        let rest = row
            .strip_prefix("2026-01-31T12:00:00.000Z  refused         client_id=")
            .unwrap();
        assert!(
            rest.ends_with(" from=::1 reason=bad_credential\n"),
            "{row:?}"
        );
        assert!(
            !row.trim_end()
                .contains(|c: char| c.is_control() || c == '\u{202e}'),
            "{row:?}"
        );
    }

    #[test]
    fn what_is_no_record_is_shown_harmlessly() {
        assert_eq!(row("{\u{1b}"), "{\\u{1b}\n");
    }

    #[test]
    fn a_head_reads_back() {
        let head = Head {
            number: 7,
            digest: [0xab; 32],
        };
        assert_eq!(
            noted(&told(Book::Access, &head)).unwrap(),
            (Book::Access, head)
        );
        for text in ["", "admin", "admin:1", "admin:x:00", "other:1:00"] {
            assert!(matches!(noted(text), Err(CliError::Usage(_))), "{text}");
        }
    }
}
