//! What the broker counted, beside what the generator counted: every message must be somewhere.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::cli::bench::{BenchError, interrupt};

/// How long messages in flight and the history's lag may take to come to rest after a run.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);
/// After so long without another message, what is missing is lost.
const MISSING_LIMIT: Duration = Duration::from_secs(5);
/// How often the figures are read meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long one reading may take.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// The figures of a Tollgate, read before and after a run.
pub(super) struct Ledger {
    url: String,
    agent: ureq::Agent,
    before: Figures,
}

/// Sums over all labels, at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    received: u64,
    stored: u64,
    refused: u64,
    repeated: u64,
    in_flight: u64,
    lag: u64,
}

/// What became of the messages of a run, as the broker counts them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Balance {
    received: u64,
    stored: u64,
    refused: u64,
    repeated: u64,
    in_flight: u64,
    /// Until nothing was in flight and history had read all, after the last ack.
    settled_after_s: f64,
}

impl Ledger {
    /// Reads the figures for the first time.
    pub(super) fn open(url: &str) -> Result<Ledger, BenchError> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(READ_LIMIT))
            .build();
        let mut ledger = Ledger {
            url: url.to_owned(),
            agent: config.into(),
            before: Figures::default(),
        };
        ledger.before = ledger.read()?;
        Ok(ledger)
    }

    /// Waits until the broker is at rest and has received all `sent`, and says what it counted
    /// since the start. A broker whose journal is behind answers PINGREQ before it has taken all
    /// that was sent at QoS 0.
    pub(super) fn settle(&self, sent: u64) -> Result<Balance, BenchError> {
        let began = Instant::now();
        let (mut received, mut came) = (self.before.received, began);
        loop {
            let now = self.read()?;
            if now.received > received {
                (received, came) = (now.received, Instant::now());
            }
            let is_all = now.received.saturating_sub(self.before.received) >= sent
                || came.elapsed() > MISSING_LIMIT;
            let is_at_rest = is_all && now.in_flight == 0 && now.lag == 0;
            if is_at_rest || began.elapsed() > SETTLE_LIMIT || interrupt::is_asked() {
                return Ok(now.since(&self.before, began.elapsed()));
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    fn read(&self) -> Result<Figures, BenchError> {
        let wrong = |what: String| BenchError::Metrics {
            url: self.url.clone(),
            what,
        };
        let reply = self.agent.get(&self.url).call();
        let mut reply = reply.map_err(|error| wrong(error.to_string()))?;
        let text = reply.body_mut().read_to_string();
        let text = text.map_err(|error| wrong(error.to_string()))?;
        figures(&text).map_err(wrong)
    }
}

impl Figures {
    fn since(&self, before: &Figures, settled_after: Duration) -> Balance {
        Balance {
            received: self.received.saturating_sub(before.received),
            stored: self.stored.saturating_sub(before.stored),
            refused: self.refused.saturating_sub(before.refused),
            repeated: self.repeated.saturating_sub(before.repeated),
            in_flight: self.in_flight,
            settled_after_s: settled_after.as_secs_f64(),
        }
    }
}

impl Balance {
    /// An error unless every message that was sent is accounted for, and every ack is of a message
    /// that is stored or refused. Other clients of the same broker would break it.
    pub(super) fn verdict(&self, sent: u64, acked: u64, refused: u64) -> Result<(), BenchError> {
        let accounted = self.stored + self.refused + self.repeated + self.in_flight;
        let stored_least = acked - refused;
        if self.received == sent && self.received == accounted && self.stored >= stored_least {
            return Ok(());
        }
        Err(BenchError::Ledger(format!(
            "{sent} sent, {acked} acknowledged, {refused} of these refused; the broker received \
             {}, stored {}, refused {}, repeated {}, has in flight {}",
            self.received, self.stored, self.refused, self.repeated, self.in_flight
        )))
    }

    pub(super) fn rows(&self) -> Vec<[String; 2]> {
        let row = |name: &str, count: u64| [format!("broker {name}"), count.to_string()];
        vec![
            row("received", self.received),
            row("stored", self.stored),
            row("refused", self.refused),
            row("in flight", self.in_flight),
            [
                "history caught up after".to_owned(),
                format!("{:.2} s", self.settled_after_s),
            ],
        ]
    }
}

fn figures(text: &str) -> Result<Figures, String> {
    let sum = |name: &str| {
        let mut sum = None;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (key, value) = line.rsplit_once(' ').unwrap_or_default();
            if key.split('{').next() == Some(name) {
                let value: u64 = value.parse().map_err(|_| format!("{name} is {value}"))?;
                *sum.get_or_insert(0) += value;
            }
        }
        sum.ok_or_else(|| format!("there is no {name}: is it a Tollgate?"))
    };
    Ok(Figures {
        received: sum("tollgate_messages_received_total")?,
        stored: sum("tollgate_messages_stored_total")?,
        refused: sum("tollgate_messages_refused_total")?,
        repeated: sum("tollgate_messages_repeated_total")?,
        in_flight: sum("tollgate_messages_in_flight")?,
        lag: sum("tollgate_history_lag_records")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE tollgate_messages_received_total counter\n\
        tollgate_messages_received_total{qos=\"0\"} 3\n\
        tollgate_messages_received_total{qos=\"1\"} 10\n\
        tollgate_messages_stored_total{qos=\"1\"} 12\n\
        tollgate_messages_refused_total{reason=\"bad_payload\"} 1\n\
        tollgate_messages_repeated_total 0\n\
        tollgate_messages_in_flight 0\n\
        tollgate_history_lag_records 7\n";

    #[test]
    fn labels_are_summed() {
        let found = figures(TEXT).unwrap();
        assert_eq!((found.received, found.stored, found.lag), (13, 12, 7));
        let error = figures("up 1\n").unwrap_err();
        assert!(
            error.contains("tollgate_messages_received_total"),
            "{error}"
        );
    }

    #[test]
    fn a_message_that_is_nowhere_is_told() {
        let balance = figures(TEXT)
            .unwrap()
            .since(&Figures::default(), Duration::ZERO);
        assert!(balance.verdict(13, 10, 0).is_ok());
        for (sent, acked, refused) in [(14, 10, 0), (13, 13, 0), (12, 10, 0)] {
            let error = balance.verdict(sent, acked, refused).unwrap_err();
            assert!(error.to_string().contains("13, stored 12"), "{error}");
        }
    }
}
