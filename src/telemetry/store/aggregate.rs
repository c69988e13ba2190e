//! One value for each stretch of time: average, least, greatest, sum, count (TB-94).

use uuid::Uuid;

use super::best::Order;
use super::file::{FileError, Wanted};
use super::merge::{Held, Source, merge};
use super::query::{Interrupted, again, newer, open_for};
use super::rows::Row;
use super::shared::Shared;
use super::{QueryError, RESULT_BYTES_MAX, Suspect};
use crate::telemetry::sample::{OwnedValue, Value};

/// Most buckets of one answer; beyond it [`QueryError::TooLarge`].
pub const BUCKETS_MAX: usize = 200_000;

/// What is made of the values of a bucket. Values that are no numbers do not enter an average or
/// a sum; they are the least or greatest (as text) only where there is no number; all are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregation {
    /// The mean, always a double.
    Average,
    /// The least; whole if all numbers are.
    Minimum,
    /// The greatest; whole if all numbers are.
    Maximum,
    /// The sum; whole if all numbers are and it fits 64 bits.
    Sum,
    /// How many values there are.
    Count,
}

/// A question for one value in each stretch of time.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The device.
    pub device: Uuid,
    /// Only these series; `None` means all.
    pub keys: Option<Vec<String>>,
    /// First time wanted, milliseconds.
    pub from_ms: i64,
    /// End of the times wanted, without it.
    pub to_ms: i64,
    /// Where a bucket begins; others lie whole intervals before and behind it.
    pub origin_ms: i64,
    /// Length of a bucket in milliseconds, at least 1.
    pub interval_ms: i64,
    /// What is made of a bucket's values.
    pub aggregation: Aggregation,
    /// But for what these mark.
    pub left_out: Vec<Suspect>,
}

/// One stretch of time of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// Name of the series.
    pub key: String,
    /// Where it begins; not before the times wanted.
    pub start_ms: i64,
    /// Where it ends, without this time; not behind the times wanted.
    pub end_ms: i64,
    /// What was made of its values.
    pub value: OwnedValue,
}

/// Answers with the buckets that have a value, by key and time.
pub(super) fn buckets(shared: &Shared, wanted: &Aggregate) -> Result<Vec<Bucket>, QueryError> {
    if wanted.from_ms >= wanted.to_ms || wanted.interval_ms < 1 {
        return Ok(Vec::new());
    }
    again(|| attempt(shared, wanted))
}

fn attempt(shared: &Shared, wanted: &Aggregate) -> Result<Vec<Bucket>, Interrupted> {
    let filter = Wanted {
        device: Some(wanted.device),
        keys: wanted.keys.as_deref(),
        times: (wanted.from_ms, wanted.to_ms),
        left_out: &wanted.left_out,
    };
    let (mut held, mut unread) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    let view = newer(shared, wanted.device, &mut |row, order| {
        if !filter.holds(row) {
            return Ok(());
        }
        let sample = Held::new(row);
        bytes += size_of::<Held>() + sample.key.len() + sample.value.text_len();
        if bytes > RESULT_BYTES_MAX {
            return Err(QueryError::TooLarge);
        }
        match order {
            Order::Descending => held.push(sample),
            Order::Ascending => unread.push(sample),
        }
        Ok(())
    })?;
    // Of one record the later place counts: it is to be found first.
    held.extend(unread.into_iter().rev());
    let mut sources = Vec::new();
    for file in view.files.iter() {
        if let Some(open) = open_for(shared, file, filter)? {
            match open.read(filter, false) {
                Ok(cursor) => sources.push(Source::File(Box::new(cursor), filter)),
                Err(error) => shared.report_file(file, &error),
            }
        }
    }
    sources.push(Source::memory(held));
    let mut made = Made::new(wanted);
    let damage = |error: FileError| {
        // Which file it is stands in the error.
        let path = match &error {
            FileError::Damaged { path, .. } | FileError::Open { path, .. } => path.clone(),
        };
        for file in view.files.iter().filter(|file| file.path == path) {
            shared.report_file(file, &error);
        }
        Ok(())
    };
    let mut rows: u32 = 0;
    merge(sources, damage, |row| {
        rows = rows.wrapping_add(1);
        if rows.is_multiple_of(1_024) && shared.is_refusing() {
            return Err(Interrupted::from(QueryError::Stopping));
        }
        if row.offset >= view.hidden.number() {
            made.add(row)?;
        }
        Ok(())
    })?;
    Ok(made.finish()?)
}

/// The answer while it is being made, from samples by key and time.
struct Made<'w> {
    wanted: &'w Aggregate,
    done: Vec<Bucket>,
    open: Option<(String, i64, Tally)>,
}

impl<'w> Made<'w> {
    fn new(wanted: &'w Aggregate) -> Self {
        Self {
            wanted,
            done: Vec::new(),
            open: None,
        }
    }

    fn add(&mut self, row: &Row<'_>) -> Result<(), QueryError> {
        let since = i128::from(row.ts_ms) - i128::from(self.wanted.origin_ms);
        let number = since.div_euclid(i128::from(self.wanted.interval_ms));
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        if let Some((key, open, tally)) = &mut self.open
            && *open == number
            && key == row.key
        {
            tally.add(&row.value);
            return Ok(());
        }
        self.close()?;
        let mut tally = Tally::default();
        tally.add(&row.value);
        self.open = Some((row.key.to_owned(), number, tally));
        Ok(())
    }

    fn close(&mut self) -> Result<(), QueryError> {
        let Some((key, number, tally)) = self.open.take() else {
            return Ok(());
        };
        let Some(value) = tally.value(self.wanted.aggregation) else {
            return Ok(());
        };
        let edge = |number: i128| {
            let offset = number * i128::from(self.wanted.interval_ms);
            let edge = i128::from(self.wanted.origin_ms) + offset;
            let within = edge.clamp(
                i128::from(self.wanted.from_ms),
                i128::from(self.wanted.to_ms),
            );
            i64::try_from(within).unwrap_or(self.wanted.to_ms)
        };
        let number = i128::from(number);
        self.done.push(Bucket {
            key,
            start_ms: edge(number),
            end_ms: edge(number + 1),
            value,
        });
        if self.done.len() > BUCKETS_MAX {
            return Err(QueryError::TooLarge);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Bucket>, QueryError> {
        self.close()?;
        Ok(self.done)
    }
}

/// What is known of a bucket's values.
#[derive(Default)]
struct Tally {
    count: i64,
    /// Numbers among them.
    numbers: u32,
    /// Doubles among these.
    doubles: u32,
    /// Of the whole numbers; 2^31 of them cannot overflow it.
    whole_sum: i128,
    sum: f64,
    whole: Option<(i64, i64)>,
    least: Option<f64>,
    greatest: Option<f64>,
    texts: Option<(String, String)>,
}

impl Tally {
    fn add(&mut self, value: &Value<'_>) {
        self.count = self.count.saturating_add(1);
        match value {
            Value::Long(value) => self.add_long(*value),
            Value::Double(value) => {
                self.doubles = self.doubles.saturating_add(1);
                self.add_double(*value);
            }
            Value::Bool(value) => self.add_text(if *value { "true" } else { "false" }),
            Value::Text(text) | Value::Json(text) => self.add_text(text),
        }
    }

    fn add_long(&mut self, value: i64) {
        self.whole_sum = self.whole_sum.saturating_add(i128::from(value));
        self.whole = Some(match self.whole {
            None => (value, value),
            Some((least, greatest)) => (least.min(value), greatest.max(value)),
        });
        #[expect(clippy::cast_precision_loss, reason = "where doubles are mixed in")]
        self.add_double(value as f64);
    }

    fn add_double(&mut self, value: f64) {
        self.numbers = self.numbers.saturating_add(1);
        self.sum += value;
        self.least = Some(self.least.map_or(value, |least| least.min(value)));
        self.greatest = Some(self.greatest.map_or(value, |greatest| greatest.max(value)));
    }

    fn add_text(&mut self, text: &str) {
        match &mut self.texts {
            None => self.texts = Some((text.to_owned(), text.to_owned())),
            Some((least, _)) if text < least.as_str() => *least = text.to_owned(),
            Some((_, greatest)) if text > greatest.as_str() => *greatest = text.to_owned(),
            Some(_) => {}
        }
    }

    fn value(self, aggregation: Aggregation) -> Option<OwnedValue> {
        let is_whole = self.doubles == 0;
        let text = |choose: fn((String, String)) -> String| self.texts.clone().map(choose);
        let text = |choose| text(choose).map(OwnedValue::Text);
        let double = |value: Option<f64>| value.map(OwnedValue::Double);
        match aggregation {
            Aggregation::Count => Some(OwnedValue::Long(self.count)),
            _ if self.numbers == 0 => match aggregation {
                Aggregation::Minimum => text(|(least, _)| least),
                Aggregation::Maximum => text(|(_, greatest)| greatest),
                _ => None,
            },
            #[expect(clippy::cast_precision_loss, reason = "the mean is a double")]
            Aggregation::Average if is_whole => Some(OwnedValue::Double(
                self.whole_sum as f64 / f64::from(self.numbers),
            )),
            Aggregation::Average => Some(OwnedValue::Double(self.sum / f64::from(self.numbers))),
            Aggregation::Sum => Some(match i64::try_from(self.whole_sum) {
                Ok(sum) if is_whole => OwnedValue::Long(sum),
                _ => OwnedValue::Double(self.sum),
            }),
            Aggregation::Minimum if is_whole => {
                self.whole.map(|(least, _)| OwnedValue::Long(least))
            }
            Aggregation::Maximum if is_whole => self.whole.map(|(_, most)| OwnedValue::Long(most)),
            Aggregation::Minimum => double(self.least),
            Aggregation::Maximum => double(self.greatest),
        }
    }
}
