//! What the operator sets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How the history is set up.
#[derive(Clone, Debug)]
pub struct HistoryOptions {
    /// Directory of the files; made when missing. Nothing else belongs in it.
    pub dir: PathBuf,
    /// Bytes of samples in memory: half for the generation that grows, half for the one that is
    /// being sealed, each at least 4 KiB. At the limit the reader waits and the journal keeps.
    pub head_bytes_max: usize,
    /// Bytes of latest values in memory; beyond it those of the devices that were silent longest
    /// are dropped, and looked up in the files when they are asked for.
    pub latest_bytes_max: usize,
    /// Age at which a file is removed, counted from its newest sample; `None` keeps all.
    pub retention: Option<Duration>,
    /// Age at which a head with many samples is sealed.
    pub seal_busy: Duration,
    /// Age at which any head is sealed.
    pub seal_idle: Duration,
    /// How often files are looked through for the bytes of deleted devices and for their age.
    pub sweep_interval: Duration,
    /// Told of each step of a seal or compaction.
    pub on_step: Option<OnStep>,
}

/// Called between the steps that change the directory; the tests take a copy there, as a crash
/// would leave it.
#[derive(Clone)]
pub struct OnStep(pub Arc<dyn Fn(&'static str) + Send + Sync>);

impl std::fmt::Debug for OnStep {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("OnStep")
    }
}

impl HistoryOptions {
    /// The defaults for a directory: 64 MiB of head, 256 MiB of latest values, all kept, sealed
    /// after 10 s with many samples and after 10 min otherwise, swept every hour.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            head_bytes_max: 64 * 1024 * 1024,
            latest_bytes_max: 256 * 1024 * 1024,
            retention: None,
            seal_busy: Duration::from_secs(10),
            seal_idle: Duration::from_secs(600),
            sweep_interval: Duration::from_secs(3_600),
            on_step: None,
        }
    }

    pub(super) fn step(&self, what: &'static str) {
        if let Some(OnStep(on_step)) = &self.on_step {
            on_step(what);
        }
    }
}
