//! `GET /admin/v1/devices/{device}/telemetry`: what a device sent.

use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::api::{
    KEYS_MAX, POINTS_DEFAULT, POINTS_MAX, SuspectView, TelemetryPoint, TelemetryView,
};
use super::parameters::{Parameters, RawPath, bad, device_in};
use super::refused::{Code, Refused};
use super::service::{ServiceState, Shared};
use super::suspects;
use super::views::refused_by_registry;
use crate::journal::Offset;
use crate::telemetry::{Aggregate, Aggregation, OwnedValue, Point, Query, QueryError};

const PARAMETERS: [&str; 8] = [
    "keys",
    "from",
    "to",
    "limit",
    "order",
    "agg",
    "interval",
    "without_suspect",
];

/// Answers with points, newest first unless asked otherwise.
pub(super) async fn telemetry(
    State(shared): State<Shared>,
    path: RawPath,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let device = device_in(path)?;
    let wanted = Wanted::new(Parameters::new(query.as_deref())?)?;
    let lanes = Shared::clone(&shared);
    let json = lanes
        .lanes
        .history(move || read(&shared, &device, wanted))
        .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

/// The parameters, checked.
struct Wanted {
    keys: Option<Vec<String>>,
    from_ms: i64,
    to_ms: i64,
    limit: usize,
    newest_first: bool,
    /// What is made of the points of each so many milliseconds.
    aggregate: Option<(Aggregation, i64)>,
    /// What is marked is left out.
    without_suspect: bool,
}

impl Wanted {
    fn new(mut parameters: Parameters) -> Result<Wanted, Refused> {
        let keys = parameters.list("keys")?;
        if keys.as_ref().is_some_and(|keys| keys.len() > KEYS_MAX) {
            return Err(bad("keys", &format!("names more than {KEYS_MAX} keys")));
        }
        if keys.iter().flatten().any(String::is_empty) {
            return Err(bad(
                "keys",
                "must be keys separated by commas, none of them empty",
            ));
        }
        let from_ms = parameters
            .number("from", i64::MIN..=i64::MAX)?
            .unwrap_or(i64::MIN);
        let to_ms = parameters
            .number("to", i64::MIN..=i64::MAX)?
            .unwrap_or(i64::MAX);
        if from_ms > to_ms {
            return Err(bad("from", "must not be after `to`"));
        }
        let limit = parameters
            .number("limit", 1..=POINTS_MAX)?
            .unwrap_or(POINTS_DEFAULT);
        let newest_first = match parameters.text("order")?.as_deref() {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(_) => return Err(bad("order", "must be asc or desc")),
        };
        let aggregation = parameters.text("agg")?;
        let interval = parameters.number("interval", 1..=i64::MAX)?;
        let aggregate = match (aggregation.as_deref(), interval) {
            (None, None) => None,
            (Some(name), Some(interval)) => Some((aggregation_named(name)?, interval)),
            (Some(_), None) => return Err(bad("interval", "is missing: `agg` needs it")),
            (None, Some(_)) => return Err(bad("agg", "is missing: `interval` needs it")),
        };
        let without_suspect = parameters.flag("without_suspect")?;
        parameters.finish(&PARAMETERS)?;
        Ok(Wanted {
            keys,
            from_ms,
            to_ms,
            limit,
            newest_first,
            aggregate,
            without_suspect,
        })
    }
}

/// The aggregation with this name, in lower case.
fn aggregation_named(name: &str) -> Result<Aggregation, Refused> {
    Ok(match name {
        "avg" => Aggregation::Average,
        "min" => Aggregation::Minimum,
        "max" => Aggregation::Maximum,
        "sum" => Aggregation::Sum,
        "count" => Aggregation::Count,
        _ => return Err(bad("agg", "must be avg, min, max, sum or count")),
    })
}

/// Blocking: asks the store and writes the reply.
fn read(shared: &ServiceState, device: &str, wanted: Wanted) -> Result<Vec<u8>, Refused> {
    let device = shared
        .registry
        .device(device)
        .map_err(|error| refused_by_registry(&error))?;
    let marks = shared.registry.suspects(Some(device.id));
    let marks = marks.map_err(|error| refused_by_registry(&error))?;
    let (left_out, told) = match wanted.without_suspect {
        true => (marks.iter().map(suspects::suspect).collect(), Vec::new()),
        false => (Vec::new(), marks.iter().map(suspects::view).collect()),
    };
    let limit = wanted.limit;
    if let Some((aggregation, interval_ms)) = wanted.aggregate {
        let aggregate = Aggregate {
            device: device.id,
            keys: wanted.keys,
            from_ms: wanted.from_ms,
            to_ms: wanted.to_ms,
            origin_ms: 0,
            interval_ms,
            aggregation,
            left_out,
        };
        let points = aggregated(shared, &aggregate, wanted.newest_first)?;
        return reply(device.id, points, limit, told);
    }
    let query = Query {
        device: device.id,
        keys: wanted.keys,
        from_ms: wanted.from_ms,
        to_ms: wanted.to_ms,
        limit: limit.saturating_add(1), // one more shows whether there are more
        newest_first: wanted.newest_first,
        left_out,
    };
    let points = shared
        .history
        .query(&query)
        .map_err(|error| refused_by_history(&error))?;
    reply(device.id, points, limit, told)
}

/// The buckets as points at their beginnings, in the order of a reply.
fn aggregated(
    shared: &ServiceState,
    aggregate: &Aggregate,
    newest_first: bool,
) -> Result<Vec<Point>, Refused> {
    let buckets = shared
        .history
        .aggregate(aggregate)
        .map_err(|error| refused_by_history(&error))?;
    let mut points: Vec<_> = buckets
        .into_iter()
        .map(|bucket| Point {
            key: bucket.key,
            ts_ms: bucket.start_ms,
            value: bucket.value,
            offset: Offset::ZERO,
        })
        .collect();
    points.sort_by(|one, other| (one.ts_ms, &one.key).cmp(&(other.ts_ms, &other.key)));
    if newest_first {
        points.reverse();
    }
    Ok(points)
}

fn reply(
    device: Uuid,
    mut points: Vec<Point>,
    limit: usize,
    suspect: Vec<SuspectView>,
) -> Result<Vec<u8>, Refused> {
    let truncated = points.len() > limit;
    points.truncate(limit);
    let points = points.into_iter().map(view).collect::<Result<_, _>>();
    let points = points.map_err(|error: serde_json::Error| Refused::internal(&error))?;
    let view = TelemetryView {
        device,
        points,
        truncated,
        suspect,
    };
    serde_json::to_vec(&view).map_err(|error| Refused::internal(&error))
}

fn view(point: Point) -> Result<TelemetryPoint, serde_json::Error> {
    let value = match point.value {
        OwnedValue::Long(value) => serde_json::value::to_raw_value(&value)?,
        OwnedValue::Double(value) => serde_json::value::to_raw_value(&value)?,
        OwnedValue::Bool(value) => serde_json::value::to_raw_value(&value)?,
        OwnedValue::Text(text) => serde_json::value::to_raw_value(&text)?,
        OwnedValue::Json(text) => RawValue::from_string(text)?,
    };
    Ok(TelemetryPoint {
        key: point.key,
        ts: point.ts_ms,
        value,
    })
}

pub(super) fn refused_by_history(error: &QueryError) -> Refused {
    match error {
        QueryError::Behind { .. } => {
            let message = "the history has not caught up with what is on disk; ask again";
            Refused::new(Code::HistoryBehind, message)
        }
        QueryError::TooLarge => {
            let message = "the points are too large together; ask for fewer or for a shorter time";
            Refused::new(Code::BadParameter, message).target("limit")
        }
        QueryError::Stopping => Refused::new(Code::Busy, "the broker is stopping"),
        QueryError::Journal(error) => Refused::internal(error),
        QueryError::File { .. } => Refused::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::JournalError;

    #[test]
    fn why_the_history_has_no_answer_is_said_without_its_inside() {
        let behind = QueryError::Behind {
            read: Offset::new(1),
            wanted: Offset::new(7),
        };
        let failed = QueryError::Journal(JournalError::Locked {
            path: "/secret/place".into(),
        });
        for (error, code) in [
            (behind, Code::HistoryBehind),
            (QueryError::TooLarge, Code::BadParameter),
            (QueryError::Stopping, Code::Busy),
            (failed, Code::Internal),
        ] {
            let refused = refused_by_history(&error);
            assert_eq!(refused.code, code);
            assert!(!refused.message.contains("secret"), "{}", refused.message);
        }
    }

    #[test]
    fn every_kind_of_value_becomes_the_json_it_was() {
        for (value, json) in [
            (OwnedValue::Long(i64::MIN), "-9223372036854775808"),
            (OwnedValue::Double(25.0), "25.0"),
            (OwnedValue::Bool(true), "true"),
            (OwnedValue::Text("a\"\u{7}".to_owned()), "\"a\\\"\\u0007\""),
            (
                OwnedValue::Json("[1,{\"b\":1,\"a\":2}]".to_owned()),
                "[1,{\"b\":1,\"a\":2}]",
            ),
        ] {
            let point = Point {
                key: "k".to_owned(),
                ts_ms: -1,
                value,
                offset: Offset::new(1),
            };
            let view = view(point).unwrap();
            assert_eq!((view.ts, view.value.get()), (-1, json));
        }
    }
}
