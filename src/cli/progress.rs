//! A line that shows how far a long command is. Only on a terminal: a log, a pipe and a program
//! that reads the output never see it.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Drawn so often at most: it must not slow down what it shows.
const DRAWS_PER_S: u8 = 5;
/// The line moves by itself so often, so that a wait does not look like a hang.
const TICK: Duration = Duration::from_millis(500);

/// How far a long command is, on stderr. It vanishes when dropped.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of `total` of something, named by `unit` ("s", "devices"); 0 is a total not known yet.
    pub(super) fn new(total: u64, unit: &str) -> Progress {
        let bar = match io::stderr().is_terminal() {
            true => ProgressBar::with_draw_target(
                Some(total),
                ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S),
            ),
            false => ProgressBar::hidden(),
        };
        let template = format!("[{{bar:30}}] {{human_pos}}/{{human_len}} {unit}  {{msg}}");
        Progress::with(bar, &template)
    }

    /// Of bytes whose total is not known.
    pub(super) fn bytes(what: &'static str) -> Progress {
        let bar = match io::stderr().is_terminal() {
            true => ProgressBar::new_spinner(),
            false => ProgressBar::hidden(),
        };
        bar.set_message(what);
        Progress::with(bar, "{msg} {spinner} {bytes} {bytes_per_sec} {elapsed}")
    }

    fn with(bar: ProgressBar, template: &str) -> Progress {
        // A wrong template, a unit with braces say, costs the look and not the command.
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Progress { bar }
    }

    /// How much is done by now.
    pub(super) fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// So much more is done.
    pub(super) fn add(&self, more: u64) {
        self.bar.inc(more);
    }

    /// What is going on, behind the bar.
    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if !self.bar.is_hidden() {
            self.bar.set_message(what());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_terminal_nothing_is_drawn() {
        let progress = Progress::new(10, "{devices}");
        assert!(progress.bar.is_hidden() || io::stderr().is_terminal());
        progress.set(3);
        assert_eq!(progress.bar.position(), 3);
    }
}
