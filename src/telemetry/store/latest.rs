//! The newest point of each series: kept in memory, written down now and then.
//!
//! Only sealed samples are here; what is in the head is looked at when somebody asks. The
//! checkpoint (`_latest-N.checkpoint`, a file like those of samples) holds them up to offset N; a
//! start loads it and replays what the files have behind it. Without it all files are read.
//!
//! Beyond the limit the devices whose last sample is oldest are dropped, an eighth at a time. What
//! is asked of a device that is not complete here is looked up in the files.

mod newest;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::encode::Encoder;
use super::file::{OpenFile, Wanted};
use super::hasher::Cheap;
use super::manifest::{self, UNFINISHED};
use super::query::{again, newer, visit_file};
use super::rows::Row;
use super::shared::Shared;
use super::{BARRIER_MAX, Point, QueryError};
use crate::journal::Offset;
use crate::telemetry::sample::OwnedValue;
pub(super) use newest::Newest;

/// Its file; between these stands the offset.
const CHECKPOINT: &str = "_latest";
const CHECKPOINT_ENDING: &str = ".checkpoint";

/// Least time between two checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(600);

/// The latest values of all devices.
pub(super) struct Latest {
    bytes_max: usize,
    state: Mutex<Known>,
    loaded: Condvar,
}

#[derive(Default)]
struct Known {
    devices: HashMap<Uuid, Device, Cheap>,
    keys: HashMap<Arc<str>, (), Cheap>,
    bytes: usize,
    evictions: u64,
    /// Everything sealed is here, but for what was dropped.
    is_loaded: bool,
    saved: Option<Instant>,
}

#[derive(Default)]
struct Device {
    /// Nothing of it was dropped.
    is_complete: bool,
    last: u64,
    /// By key.
    series: Vec<Series>,
}

struct Series {
    key: Arc<str>,
    ts_ms: i64,
    offset: u64,
    value: OwnedValue,
}

impl Series {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.value.text_len()
    }
}

/// Bytes a device takes beside its series, the place in the map included.
const DEVICE_BYTES: usize = 2 * size_of::<(Uuid, Device)>();

impl Latest {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            state: Mutex::default(),
            loaded: Condvar::new(),
        }
    }

    /// Bytes in memory, and devices dropped.
    pub(super) fn usage(&self) -> (usize, u64) {
        let known = self.lock();
        (known.bytes, known.evictions)
    }

    /// Makes those who wait look whether the store stops.
    pub(super) fn wake(&self) {
        self.loaded.notify_all();
    }

    /// Forgets what a device sent before an offset.
    pub(super) fn forget(&self, device: Uuid, before: Offset) {
        let mut known = self.lock();
        let Some(held) = known.devices.get_mut(&device) else {
            return;
        };
        let bytes = |held: &Device| held.series.iter().map(Series::bytes).sum::<usize>();
        let old = bytes(held);
        held.series
            .retain(|series| series.offset >= before.number());
        let kept = bytes(held);
        known.bytes = known.bytes.saturating_sub(old - kept);
    }

    /// Writes the checkpoint if the last one is old. `sealed`: what is complete here.
    pub(super) fn save_if_due(&self, dir: &Path, sealed: Offset) {
        let mut known = self.lock();
        let begun = *known.saved.get_or_insert_with(Instant::now);
        let is_due = begun.elapsed() >= CHECKPOINT_INTERVAL;
        drop(known);
        if is_due {
            self.save(dir, sealed);
        }
    }

    /// Writes the checkpoint. A failure costs time at the next start, nothing else.
    pub(super) fn save(&self, dir: &Path, sealed: Offset) {
        if let Err(error) = self.try_save(dir, sealed) {
            tracing::warn!(%error, "the latest values are not written down");
        }
    }

    fn try_save(&self, dir: &Path, sealed: Offset) -> std::io::Result<()> {
        let mut known = self.lock();
        if !known.is_loaded || known.evictions > 0 {
            return Ok(()); // not all of it is here
        }
        known.saved = Some(Instant::now());
        let mut devices: Vec<Uuid> = known.devices.keys().copied().collect();
        drop(known);
        devices.sort_unstable();
        let unfinished = dir.join(format!("{CHECKPOINT}{UNFINISHED}"));
        let mut encoder = Encoder::create(&unfinished)?;
        for id in devices {
            // One by one, so that nobody waits for the disk. What is newer by now does no harm.
            let series: Vec<_> = self.points(id).into_iter().flatten().collect();
            for point in &series {
                encoder.push(&Row {
                    device: id.into_bytes(),
                    key: &point.key,
                    ts_ms: point.ts_ms,
                    value: point.value.as_value(),
                    offset: point.offset.number(),
                    credential: 0,
                    generation: 0,
                })?;
            }
        }
        encoder.finish()?;
        let name = format!("{CHECKPOINT}-{:020}{CHECKPOINT_ENDING}", sealed.number());
        fs::rename(&unfinished, dir.join(&name))?;
        manifest::sync_dir(dir)?;
        for (old, _) in checkpoints(dir) {
            if old != name {
                fs::remove_file(dir.join(old))?;
            }
        }
        Ok(())
    }

    /// The points of a device, by key; `None` if they are not all here.
    fn points(&self, device: Uuid) -> Option<Vec<Point>> {
        let known = self.lock();
        match known.devices.get(&device) {
            None if known.evictions == 0 => Some(Vec::new()),
            None => None,
            Some(held) if !held.is_complete => None,
            Some(held) => Some(held.series.iter().map(point).collect()),
        }
    }

    fn add(&self, gathered: &mut Vec<(Uuid, Series)>) {
        let mut known = self.lock();
        for (device, series) in gathered.drain(..) {
            known.add(device, series);
        }
        while known.bytes > self.bytes_max && known.evict() {}
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, device: Uuid, mut series: Series) {
        let is_first_time = self.evictions == 0;
        let Self {
            devices,
            keys,
            bytes,
            ..
        } = self;
        let held = devices.entry(device).or_insert_with(|| {
            *bytes += DEVICE_BYTES;
            Device {
                is_complete: is_first_time,
                ..Device::default()
            }
        });
        held.last = held.last.max(series.offset);
        match held
            .series
            .binary_search_by(|known| known.key.cmp(&series.key))
        {
            Err(place) => {
                if let Some((known, ())) = keys.get_key_value(&series.key) {
                    series.key = Arc::clone(known);
                } else {
                    *bytes += series.key.len() + 64;
                    keys.insert(Arc::clone(&series.key), ());
                }
                *bytes += series.bytes();
                held.series.insert(place, series);
            }
            Ok(place) => {
                if let Some(known) = held.series.get_mut(place)
                    && (known.ts_ms, known.offset) <= (series.ts_ms, series.offset)
                {
                    *bytes = (*bytes + series.bytes()).saturating_sub(known.bytes());
                    // The name stays the one that all devices share.
                    series.key = Arc::clone(&known.key);
                    *known = series;
                }
            }
        }
    }

    /// Drops the eighth of the devices that was silent longest; false if there is none.
    fn evict(&mut self) -> bool {
        let mut last: Vec<u64> = self.devices.values().map(|held| held.last).collect();
        if last.is_empty() {
            return false;
        }
        let middle = last.len() / 8;
        let (_, limit, _) = last.select_nth_unstable(middle);
        let limit = *limit;
        let before = self.devices.len();
        let mut freed = 0;
        self.devices.retain(|_, held| {
            let stays = held.last > limit;
            if !stays {
                freed += DEVICE_BYTES + held.series.iter().map(Series::bytes).sum::<usize>();
            }
            stays
        });
        self.bytes = self.bytes.saturating_sub(freed);
        let evicted = before - self.devices.len();
        self.evictions += u64::try_from(evicted).unwrap_or(u64::MAX);
        evicted > 0
    }
}

fn point(series: &Series) -> Point {
    Point {
        key: series.key.as_ref().to_owned(),
        ts_ms: series.ts_ms,
        value: series.value.clone(),
        offset: Offset::new(series.offset),
    }
}

/// The latest points of a device, by key.
pub(super) fn points(
    shared: &Shared,
    device: Uuid,
    keys: Option<&[String]>,
) -> Result<Vec<Point>, QueryError> {
    let mut found: BTreeMap<Box<str>, Point> = BTreeMap::new();
    let mut offer = |key: &str, ts_ms: i64, offset: u64, value: &dyn Fn() -> OwnedValue, wins| {
        if keys.is_some_and(|keys| !keys.iter().any(|wanted| wanted == key)) {
            return;
        }
        let known = found
            .get(key)
            .map(|known| (known.ts_ms, known.offset.number()));
        // Of one record the later place counts: `wins` tells whether that is this one.
        let is_better =
            known.is_none_or(|known| known < (ts_ms, offset) || (wins && known == (ts_ms, offset)));
        if is_better {
            let point = Point {
                key: key.to_owned(),
                ts_ms,
                value: value(),
                offset: Offset::new(offset),
            };
            found.insert(Box::from(key), point);
        }
    };
    wait_until_loaded(shared)?;
    again(|| {
        let view = newer(shared, device, &mut |row, order| {
            let value = || row.value.clone().into_owned();
            let wins = order == super::best::Order::Ascending;
            offer(row.key, row.ts_ms, row.offset, &value, wins);
            Ok(())
        })?;
        if let Some(points) = shared.latest.points(device) {
            for point in points {
                let (offset, value) = (point.offset.number(), || point.value.clone());
                offer(&point.key, point.ts_ms, offset, &value, false);
            }
            return Ok(());
        }
        let wanted = Wanted {
            device: Some(device),
            keys,
            ..Wanted::ALL
        };
        for file in view.files.iter() {
            visit_file(shared, file, wanted, |row| {
                if row.offset >= view.hidden.number() {
                    let value = || row.value.clone().into_owned();
                    offer(row.key, row.ts_ms, row.offset, &value, false);
                }
                Ok(())
            })?;
        }
        Ok(())
    })?;
    let hidden = shared.lock().hidden_before(device);
    let seen = |point: &Point| point.offset >= hidden;
    Ok(found.into_values().filter(seen).collect())
}

/// Waits until the start has brought in what is in files.
fn wait_until_loaded(shared: &Shared) -> Result<(), QueryError> {
    let deadline = Instant::now() + BARRIER_MAX;
    let mut known = shared.latest.lock();
    while !known.is_loaded {
        if shared.is_refusing() {
            return Err(QueryError::Stopping);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            drop(known);
            let state = shared.lock();
            return Err(QueryError::Behind {
                read: Offset::ZERO,
                wanted: state.sealed,
            });
        }
        let slice = left.min(Duration::from_millis(200));
        let waited = shared.latest.loaded.wait_timeout(known, slice);
        known = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    Ok(())
}

/// The thread `store-latest`: loads the checkpoint, reads what the files have behind it, and ends.
pub(super) fn load(shared: &Shared) {
    let dir = &shared.options.dir;
    let mut newest = Newest::new(&shared.latest);
    let mut complete = Offset::ZERO;
    for (name, offset) in checkpoints(dir) {
        match load_file(shared, &dir.join(&name), &mut newest) {
            Ok(()) => complete = offset,
            Err(what) => {
                tracing::warn!(
                    name,
                    what,
                    "the latest values are read from all files again"
                );
                let _ = fs::remove_file(dir.join(name));
            }
        }
    }
    let read = again(|| {
        let files = Arc::clone(&shared.lock().files);
        let newer = files
            .iter()
            .filter(|file| file.entry.offsets().1 > complete);
        for file in newer {
            let mut hidden = Hidden::default();
            visit_file(shared, file, Wanted::ALL, |row| {
                if !hidden.is_hidden(shared, row) {
                    newest.add(row);
                }
                Ok(())
            })?;
        }
        Ok(())
    });
    newest.finish();
    if let Err(error) = read {
        if !shared.is_refusing() {
            tracing::error!(%error, "the latest values are not complete");
        }
        return;
    }
    shared.latest.lock().is_loaded = true;
    shared.latest.loaded.notify_all();
}

fn load_file(shared: &Shared, path: &Path, newest: &mut Newest<'_>) -> Result<(), String> {
    let open = OpenFile::open(path, None).map_err(|error| error.to_string())?;
    let rows = open
        .read(Wanted::ALL, false)
        .map_err(|error| error.to_string())?;
    let mut hidden = Hidden::default();
    rows.visit(
        Wanted::ALL,
        |error| Err(error.to_string()),
        |row| {
            if !hidden.is_hidden(shared, row) {
                newest.add(row);
            }
            Ok(())
        },
    )
}

/// What is hidden of the device that sorted rows are at.
#[derive(Default)]
struct Hidden {
    device: Option<[u8; 16]>,
    before: u64,
}

impl Hidden {
    fn is_hidden(&mut self, shared: &Shared, row: &Row<'_>) -> bool {
        if self.device != Some(row.device) {
            let device = Uuid::from_bytes(row.device);
            self.before = shared.lock().hidden_before(device).number();
            self.device = Some(row.device);
        }
        row.offset < self.before
    }
}

/// The checkpoints of a directory with their offsets, the oldest first.
fn checkpoints(dir: &Path) -> Vec<(String, Offset)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<_> = names
        .filter_map(|name| {
            let number = name
                .strip_prefix(CHECKPOINT)?
                .strip_suffix(CHECKPOINT_ENDING)?
                .strip_prefix('-')?
                .parse()
                .ok()?;
            Some((name, Offset::new(number)))
        })
        .collect();
    found.sort();
    found
}
