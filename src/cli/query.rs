//! `tollgate query`: a device's telemetry, read back.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use serde_json::value::RawValue;

use crate::{
    cli::{
        CliError,
        client::{Client, Target, path_step},
        moment, print, print_json,
        table::{aligned, shown},
    },
    config::Sources,
    http::api::{KEYS_MAX, POINTS_DEFAULT, POINTS_MAX, TelemetryPoint, TelemetryView},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name or id of the device
    device: String,
    /// Only these keys, with commas between them
    #[arg(long, value_name = "KEYS", value_delimiter = ',')]
    keys: Vec<String>,
    /// From this time on: RFC 3339, milliseconds since the epoch, now, or how long ago (10m)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Up to this time, without it
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
    /// Only the last 30s, 10m, 1h, 7d …
    #[arg(long, value_name = "LENGTH", conflicts_with_all = ["from", "to"])]
    last: Option<String>,
    /// Most points shown, the newest ones
    #[arg(long, value_name = "N", default_value_t = POINTS_DEFAULT, value_parser = limit)]
    limit: usize,
    /// One value instead of all points of each --interval
    #[arg(long, value_enum, requires = "interval")]
    agg: Option<Agg>,
    /// With --agg: 1s, 1m, 1h, 1d …, in whole multiples since the epoch (UTC)
    #[arg(long, value_name = "LENGTH", requires = "agg", value_parser = interval)]
    interval: Option<i64>,
    /// Leave out what is marked as perhaps somebody else's: see device revoke --since
    #[arg(long)]
    without_suspect: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns, oldest first
    Table,
    /// The broker's reply, newest first
    Json,
    /// RFC 4180 with a heading: time,key,value
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Agg {
    /// The mean of the numbers
    Avg,
    /// The least
    Min,
    /// The greatest
    Max,
    /// The sum of the numbers
    Sum,
    /// How many values there are
    Count,
}

impl Agg {
    fn name(self) -> &'static str {
        match self {
            Agg::Avg => "avg",
            Agg::Min => "min",
            Agg::Max => "max",
            Agg::Sum => "sum",
            Agg::Count => "count",
        }
    }
}

pub(super) fn run(arguments: &Arguments, sources: &Sources) -> Result<(), CliError> {
    let path = path(arguments, moment::now_ms())?;
    let client = Client::new(&arguments.target, sources)?;
    let mut view: TelemetryView = client.get(&path)?;
    if arguments.json || arguments.format == Format::Json {
        return print_json(&view);
    }
    // The newest were asked for; people read downwards in time.
    view.points
        .sort_by(|one, other| (one.ts, &one.key).cmp(&(other.ts, &other.key)));
    if view.truncated {
        eprintln!(
            "tollgate: showing the newest {} points; there are more (--limit, --to)",
            view.points.len()
        );
    }
    for mark in &view.suspect {
        eprintln!(
            "tollgate: what it wrote from {} to its revocation at {} is marked as suspect \
             (--without-suspect leaves it out)",
            moment::show_unsigned(mark.from_ms),
            moment::show_unsigned(mark.revoked_ms)
        );
    }
    if arguments.format == Format::Csv {
        print(&csv(&view.points))
    } else if view.points.is_empty() {
        print("nothing stored in this range\n")
    } else {
        print(&table(&view.points))
    }
}

fn path(arguments: &Arguments, now_ms: i64) -> Result<String, CliError> {
    let usage = |flag: &str, text: &str, why: String| {
        CliError::Usage(format!("{flag} {text:?} cannot be read: {why}"))
    };
    let moment = |flag: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => moment::parse(text, now_ms)
            .map(Some)
            .map_err(|why| usage(flag, text, why)),
    };
    let (mut from, to) = (
        moment("--from", &arguments.from)?,
        moment("--to", &arguments.to)?,
    );
    if let Some(text) = &arguments.last {
        let length = moment::parse_length(text).map_err(|why| usage("--last", text, why))?;
        from = Some(now_ms.saturating_sub(length));
    }
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(CliError::Usage(format!(
            "--from ({}) must lie before --to ({})",
            moment::show(from),
            moment::show(to)
        )));
    }
    if arguments.keys.len() > KEYS_MAX {
        return Err(CliError::Usage(format!(
            "--keys: at most {KEYS_MAX} at once"
        )));
    }
    let mut path = format!(
        "/devices/{}/telemetry?order=desc&limit={}",
        path_step(&arguments.device),
        arguments.limit
    );
    let bounds = [("from", from), ("to", to)];
    for (name, ms) in bounds
        .iter()
        .filter_map(|(name, bound)| bound.map(|ms| (name, ms)))
    {
        let _ = write!(path, "&{name}={ms}");
    }
    if !arguments.keys.is_empty() {
        let keys: Vec<_> = arguments.keys.iter().map(|key| path_step(key)).collect();
        let _ = write!(path, "&keys={}", keys.join(","));
    }
    if let (Some(agg), Some(interval)) = (arguments.agg, arguments.interval) {
        let _ = write!(path, "&agg={}&interval={interval}", agg.name());
    }
    if arguments.without_suspect {
        path.push_str("&without_suspect=true");
    }
    Ok(path)
}

fn interval(text: &str) -> Result<i64, String> {
    match moment::parse_length(text)? {
        0 => Err("it must be longer than nothing".to_owned()),
        length => Ok(length),
    }
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|limit| (1..=POINTS_MAX).contains(limit))
        .ok_or_else(|| format!("allowed is 1 to {POINTS_MAX}; read more in several ranges"))
}

fn table(points: &[TelemetryPoint]) -> String {
    let rows: Vec<_> = points
        .iter()
        .map(|point| {
            [
                moment::show(point.ts),
                shown(&point.key),
                shown(&text(&point.value)),
            ]
        })
        .collect();
    aligned(["TIME", "KEY", "VALUE"], &rows)
}

fn csv(points: &[TelemetryPoint]) -> String {
    let mut out = String::from("time,key,value\r\n");
    for point in points {
        let (key, value) = (field(&point.key), field(&text(&point.value)));
        let _ = write!(out, "{},{key},{value}\r\n", moment::show(point.ts));
    }
    out
}

/// A value as text: a string without its quotes, everything else as it was sent.
fn text(value: &RawValue) -> String {
    serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

/// One field by RFC 4180.
fn field(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const NOW: i64 = 1_769_860_800_000;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn path_for(line: &[&str]) -> Result<String, String> {
        let line = Line::try_parse_from(["query"].iter().chain(line)).map_err(|e| e.to_string())?;
        path(&line.arguments, NOW).map_err(|e| e.to_string())
    }

    fn point(ts: i64, key: &str, value: &str) -> TelemetryPoint {
        let value = RawValue::from_string(value.to_owned()).unwrap();
        TelemetryPoint {
            key: key.to_owned(),
            ts,
            value,
        }
    }

    #[test]
    fn the_range_and_the_keys_are_in_the_request() {
        assert_eq!(
            path_for(&["boiler"]).unwrap(),
            "/devices/boiler/telemetry?order=desc&limit=1000"
        );
        assert_eq!(
            path_for(&["b", "--last", "1h", "--keys", "a b,c", "--limit", "5"]).unwrap(),
            format!(
                "/devices/b/telemetry?order=desc&limit=5&from={}&keys=a%20b,c",
                NOW - 3_600_000
            )
        );
        assert_eq!(
            path_for(&["b", "--from", "-5", "--to", "now"]).unwrap(),
            format!("/devices/b/telemetry?order=desc&limit=1000&from=-5&to={NOW}")
        );
    }

    #[test]
    fn an_aggregation_is_in_the_request() {
        assert_eq!(
            path_for(&["b", "--agg", "avg", "--interval", "1m"]).unwrap(),
            "/devices/b/telemetry?order=desc&limit=1000&agg=avg&interval=60000"
        );
    }

    #[test]
    fn a_range_that_makes_no_sense_is_refused() {
        for (line, word) in [
            (&["b", "--from", "now", "--to", "1h"][..], "must lie before"),
            (&["b", "--from", "yesterday"], "RFC 3339"),
            (&["b", "--last", "1x"], "--last"),
            (&["b", "--last", "1h", "--to", "now"], "cannot be used with"),
            (&["b", "--limit", "0"], "1 to 10000"),
            (&["b", "--limit", "10001"], "1 to 10000"),
            (&["b", "--json", "--format", "csv"], "cannot be used with"),
            (&["b", "--agg", "avg"], "--interval"),
            (&["b", "--interval", "1m"], "--agg"),
            (&["b", "--agg", "avg", "--interval", "0s"], "longer"),
            (&["b", "--agg", "mean", "--interval", "1m"], "avg"),
        ] {
            let error = path_for(line).unwrap_err();
            assert!(error.contains(word), "{line:?}: {error}");
        }
        let keys = vec!["k"; KEYS_MAX + 1].join(",");
        assert!(
            path_for(&["b", "--keys", &keys])
                .unwrap_err()
                .contains("at most")
        );
    }

    #[test]
    fn a_table_is_aligned_and_harmless() {
        let points = [
            point(NOW, "temperature", "25"),
            point(NOW + 1, "s", "\"a\\u001b[2J\""),
        ];
        assert_eq!(
            table(&points),
            "TIME                      KEY          VALUE\n\
             2026-01-31T12:00:00.000Z  temperature  25\n\
             2026-01-31T12:00:00.001Z  s            a\\u{1b}[2J\n"
        );
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let points = [
            point(NOW, "a,b", "\"say \\\"x\\\"\""),
            point(NOW, "j", "{\"a\":1}"),
        ];
        assert_eq!(
            csv(&points),
            "time,key,value\r\n\
             2026-01-31T12:00:00.000Z,\"a,b\",\"say \"\"x\"\"\"\r\n\
             2026-01-31T12:00:00.000Z,j,\"{\"\"a\"\":1}\"\r\n"
        );
    }
}
