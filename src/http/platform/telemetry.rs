//! `…/plugins/telemetry/DEVICE/{id}/…`: keys, latest values and history (TB-93, TB-94).
//!
//! Unlike the admin API it ignores parameters that it does not know, as the reference does:
//! clients send some that mean nothing here.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::in_platform_form;
use crate::http::api::KEYS_MAX;
use crate::http::history::refused_by_history;
use crate::http::parameters::{Parameters, bad};
use crate::http::refused::{Code, Refused};
use crate::http::service::{ServiceState, Shared};
use crate::http::views::refused_by_registry;
use crate::telemetry::{Aggregate, Aggregation, OwnedValue, Point, Query, QueryError};

/// Points of a key when nobody says how many.
const LIMIT_DEFAULT: usize = 100;

/// Most points of a key, and of all keys together.
const LIMIT_MAX: usize = 100_000;

/// Most buckets of a reply for each key (the reference's own limit), if they are this long.
const BUCKETS_MAX: i64 = 700;
const BUCKET_MS_MIN: i64 = 1_000;

/// A path with the kind of thing and its id.
type ThingPath = Result<Path<(String, String)>, PathRejection>;

/// Points by key.
type ByKey = BTreeMap<String, Vec<Point>>;

/// `GET …/keys/timeseries`: the names of all series.
pub(in crate::http) async fn keys(State(shared): State<Shared>, path: ThingPath) -> Response {
    let lanes = Shared::clone(&shared);
    let work = move || {
        let device = device(&shared, &path)?;
        let latest = shared.history.latest(device, None);
        let latest = latest.map_err(|error| refused_by_history(&error))?;
        let keys: Vec<String> = latest.into_iter().map(|point| point.key).collect();
        json(&keys)
    };
    answer(lanes.lanes.history(work).await)
}

/// `GET …/values/timeseries`, also with `/history` behind it: the latest values, or those of a
/// stretch of time.
pub(in crate::http) async fn values(
    State(shared): State<Shared>,
    path: ThingPath,
    RawQuery(query): RawQuery,
) -> Response {
    let wanted = Parameters::new(query.as_deref()).and_then(Wanted::new);
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(refused) => return in_platform_form(refused),
    };
    let lanes = Shared::clone(&shared);
    let work = move || {
        let device = device(&shared, &path)?;
        let found = match &wanted.range {
            None => latest(&shared, device, wanted.keys.as_deref())?,
            Some(range) => history(&shared, device, wanted.keys.as_deref(), range)?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
        let mut shown: BTreeMap<String, Vec<Shown>> = BTreeMap::new();
        for (key, points) in found {
            let points = points
                .into_iter()
                .map(|point| show(point, wanted.is_strict));
            let points: Result<_, _> = points.collect();
            let points = points.map_err(|error: serde_json::Error| Refused::internal(&error))?;
            shown.insert(key, points);
        }
        if wanted.range.is_none() {
            // A key that was never written has no value, now.
            for key in wanted.keys.into_iter().flatten() {
                let none = || Shown {
                    ts: now,
                    value: None,
                };
                shown.entry(key).or_insert_with(|| vec![none()]);
            }
        }
        json(&shown)
    };
    answer(lanes.lanes.history(work).await)
}

/// The parameters, checked.
struct Wanted {
    keys: Option<Vec<String>>,
    is_strict: bool,
    /// `None`: the latest values.
    range: Option<Range>,
}

struct Range {
    start_ms: i64,
    end_ms: i64,
    limit: usize,
    newest_first: bool,
    /// What is made of each so many milliseconds.
    aggregate: Option<(Aggregation, i64)>,
}

impl Wanted {
    fn new(mut parameters: Parameters) -> Result<Self, Refused> {
        let mut keys = parameters.list("keys")?.unwrap_or_default();
        keys.extend(parameters.repeated("key")?);
        keys.retain(|key| !key.is_empty());
        if keys.len() > KEYS_MAX {
            return Err(bad("keys", &format!("names more than {KEYS_MAX} keys")));
        }
        keys.sort_unstable();
        keys.dedup();
        let is_strict = match parameters.text("useStrictDataTypes")?.as_deref() {
            None | Some("false" | "") => false,
            Some("true") => true,
            Some(_) => return Err(bad("useStrictDataTypes", "must be true or false")),
        };
        let all = i64::MIN..=i64::MAX;
        let start = parameters.number("startTs", all.clone())?;
        let end = parameters.number("endTs", all)?;
        let range = match (start, end) {
            (None, None) => None,
            (Some(_), None) => return Err(bad("endTs", "is missing: `startTs` needs it")),
            (None, Some(_)) => return Err(bad("startTs", "is missing: `endTs` needs it")),
            (Some(start_ms), Some(end_ms)) => Some(Range::new(parameters, start_ms, end_ms)?),
        };
        Ok(Self {
            keys: (!keys.is_empty()).then_some(keys),
            is_strict,
            range,
        })
    }
}

impl Range {
    fn new(mut parameters: Parameters, start_ms: i64, end_ms: i64) -> Result<Self, Refused> {
        if end_ms < start_ms {
            return Err(bad("endTs", "must not be before `startTs`"));
        }
        let limit = parameters.number("limit", 1..=LIMIT_MAX)?;
        let interval_ms = parameters.number("interval", 0..=i64::MAX)?.unwrap_or(0);
        let aggregation = match parameters.text("agg")?.as_deref() {
            None | Some("" | "NONE") => None,
            Some("AVG") => Some(Aggregation::Average),
            Some("MIN") => Some(Aggregation::Minimum),
            Some("MAX") => Some(Aggregation::Maximum),
            Some("SUM") => Some(Aggregation::Sum),
            Some("COUNT") => Some(Aggregation::Count),
            Some(_) => return Err(bad("agg", "must be NONE, AVG, MIN, MAX, SUM or COUNT")),
        };
        let newest_first = match parameters.text("orderBy")?.as_deref() {
            None | Some("" | "DESC") => true,
            Some("ASC") => false,
            Some(_) => return Err(bad("orderBy", "must be ASC or DESC")),
        };
        let aggregate = aggregation
            .filter(|_| interval_ms > 0)
            .map(|aggregation| (aggregation, interval_ms));
        let buckets = end_ms.saturating_sub(start_ms) / interval_ms.max(1);
        if aggregate.is_some() && interval_ms >= BUCKET_MS_MIN && buckets > BUCKETS_MAX {
            let what = format!("makes more than {BUCKETS_MAX} of the time asked for");
            return Err(bad("interval", &what));
        }
        Ok(Self {
            start_ms,
            end_ms,
            limit: limit.unwrap_or(LIMIT_DEFAULT),
            newest_first,
            aggregate,
        })
    }
}

/// The device that is meant, if there is one.
fn device(shared: &ServiceState, path: &ThingPath) -> Result<Uuid, Refused> {
    let Ok(Path((kind, id))) = path else {
        let message = "the address is not percent-encoded UTF-8";
        return Err(Refused::new(Code::BadParameter, message));
    };
    if kind != "DEVICE" {
        let message = format!("entity type {kind:?} has no telemetry here; DEVICE has");
        return Err(Refused::new(Code::BadParameter, message));
    }
    let id = Uuid::try_parse(id)
        .map_err(|_| Refused::new(Code::BadParameter, "the id of the device is not a UUID"))?;
    let device = shared.registry.device(&id.to_string());
    Ok(device.map_err(|error| refused_by_registry(&error))?.id)
}

fn latest(shared: &ServiceState, device: Uuid, keys: Option<&[String]>) -> Result<ByKey, Refused> {
    let points = shared.history.latest(device, keys);
    let points = points.map_err(|error| refused_by_history(&error))?;
    let by_key = points
        .into_iter()
        .map(|point| (point.key.clone(), vec![point]));
    Ok(by_key.collect())
}

fn history(
    shared: &ServiceState,
    device: Uuid,
    keys: Option<&[String]>,
    range: &Range,
) -> Result<ByKey, Refused> {
    let refused = |error: QueryError| refused_by_history(&error);
    let mut found = ByKey::new();
    if let Some((aggregation, interval_ms)) = range.aggregate {
        let aggregate = Aggregate {
            device,
            keys: keys.map(<[String]>::to_vec),
            from_ms: range.start_ms,
            to_ms: range.end_ms,
            origin_ms: range.start_ms,
            interval_ms,
            aggregation,
            left_out: Vec::new(),
        };
        for bucket in shared.history.aggregate(&aggregate).map_err(refused)? {
            let half = (i128::from(bucket.end_ms) - i128::from(bucket.start_ms)) / 2;
            let half = i64::try_from(half).unwrap_or(i64::MAX);
            let point = Point {
                key: bucket.key.clone(),
                ts_ms: bucket.start_ms.saturating_add(half),
                value: bucket.value,
                offset: crate::journal::Offset::ZERO,
            };
            found.entry(bucket.key).or_default().push(point);
        }
        if range.newest_first {
            found.values_mut().for_each(|points| points.reverse());
        }
        return Ok(found);
    }
    let keys = match keys {
        Some(keys) => keys.to_vec(),
        None => {
            let latest = shared.history.latest(device, None).map_err(refused)?;
            latest.into_iter().map(|point| point.key).collect()
        }
    };
    let mut left = LIMIT_MAX;
    for key in keys {
        // The limit is one for each key.
        let query = Query {
            device,
            keys: Some(vec![key.clone()]),
            from_ms: range.start_ms,
            to_ms: range.end_ms,
            limit: range.limit.min(left),
            newest_first: range.newest_first,
            left_out: Vec::new(),
        };
        let points = shared.history.query(&query).map_err(refused)?;
        left -= points.len().min(left);
        if !points.is_empty() {
            found.insert(key, points);
        }
    }
    Ok(found)
}

/// A point as the platform shows it.
#[derive(Serialize)]
struct Shown {
    ts: i64,
    value: Option<Box<RawValue>>,
}

/// `is_strict`: the value itself; otherwise every value is a string.
fn show(point: Point, is_strict: bool) -> Result<Shown, serde_json::Error> {
    let value = match (point.value, is_strict) {
        (OwnedValue::Text(text), _) | (OwnedValue::Json(text), false) => to_raw_value(&text)?,
        (OwnedValue::Json(text), true) => RawValue::from_string(text)?,
        (OwnedValue::Long(value), true) => to_raw_value(&value)?,
        (OwnedValue::Double(value), true) => to_raw_value(&value)?,
        (OwnedValue::Bool(value), true) => to_raw_value(&value)?,
        (OwnedValue::Long(value), false) => to_raw_value(&value.to_string())?,
        (OwnedValue::Bool(value), false) => to_raw_value(&value.to_string())?,
        (OwnedValue::Double(value), false) => to_raw_value(&serde_json::to_string(&value)?)?,
    };
    Ok(Shown {
        ts: point.ts_ms,
        value: Some(value),
    })
}

fn json<T: Serialize>(reply: &T) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(reply).map_err(|error| Refused::internal(&error))
}

fn answer(result: Result<Vec<u8>, Refused>) -> Response {
    match result {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(refused) => in_platform_form(refused),
    }
}
