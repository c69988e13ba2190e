//! A bar on stderr while something long runs; nothing at all where stderr is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often a bar without news still shows that the program is alive.
const TICK: Duration = Duration::from_millis(250);

/// A bar; it goes away when it is dropped.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// So many of something: `total` rows.
    pub(super) fn of(what: &'static str, total: u64) -> Progress {
        Progress::with(
            ProgressBar::new(total),
            what,
            "{msg} {wide_bar} {human_pos} of {human_len} {percent:>3} % {eta}",
        )
    }

    /// Bytes whose total is not known.
    pub(super) fn bytes(what: &'static str) -> Progress {
        let template = "{msg} {spinner} {bytes} {bytes_per_sec} {elapsed}";
        Progress::with(ProgressBar::new_spinner(), what, template)
    }

    fn with(bar: ProgressBar, what: &'static str, template: &str) -> Progress {
        // A template of ours that does not hold is only less pretty.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(TICK);
        Progress { bar }
    }

    /// So much more is done.
    pub(super) fn add(&self, more: u64) {
        self.bar.inc(more);
    }

    /// Another phase of the same work.
    pub(super) fn phase(&self, what: &'static str) {
        self.bar.set_message(what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
