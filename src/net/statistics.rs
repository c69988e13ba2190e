//! `$SYS/broker/…`: figures of the broker under the names that users of Mosquitto know, published
//! by a timer to those who subscribed and whose scope has a filter that begins with `$SYS`.
//!
//! Nothing of it is retained: a subscriber gets the first figures with the next tick. Nobody
//! listens: then nothing is rendered.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Clocks;
use super::route::Routing;
use super::worker::Worker;
use crate::mqtt::message::{Content, Message, Publisher};
use crate::mqtt::topic::Topic;
use crate::mqtt::wire::QoS;

/// What a topic says.
enum Says {
    Version,
    /// Seconds since the start.
    Uptime,
    /// The sum of these figures over their labels.
    Sum(&'static [&'static str]),
}

/// The topics.
const TOPICS: &[(&str, Says)] = &[
    ("$SYS/broker/version", Says::Version),
    ("$SYS/broker/uptime", Says::Uptime),
    (
        "$SYS/broker/clients/connected",
        Says::Sum(&["tollgate_connections"]),
    ),
    (
        "$SYS/broker/clients/active",
        Says::Sum(&["tollgate_connections"]),
    ),
    (
        "$SYS/broker/publish/messages/received",
        Says::Sum(&["tollgate_messages_received_total"]),
    ),
    (
        "$SYS/broker/publish/messages/sent",
        Says::Sum(&["tollgate_deliveries_total", "tollgate_feed_delivered_total"]),
    ),
    (
        "$SYS/broker/publish/messages/dropped",
        Says::Sum(&["tollgate_deliveries_dropped_total"]),
    ),
    (
        "$SYS/broker/retained messages/count",
        Says::Sum(&["tollgate_retained_messages"]),
    ),
    (
        "$SYS/broker/subscriptions/count",
        Says::Sum(&["tollgate_subscriptions"]),
    ),
    (
        "$SYS/broker/heap/current",
        Says::Sum(&["process_resident_memory_bytes"]),
    ),
];

/// When the figures are published.
#[derive(Debug)]
pub(super) struct Statistics {
    started: Instant,
    next: Instant,
}

impl Statistics {
    pub(super) fn new(now: Instant) -> Statistics {
        Statistics {
            started: now,
            next: now,
        }
    }
}

impl Worker {
    /// Publishes the figures if it is time. One worker does it for all.
    pub(super) fn publish_statistics(&self, now: Instant, every: Duration) {
        let statistics = &mut *self.statistics.borrow_mut();
        if self.index != 0 || every.is_zero() || now < statistics.next {
            return;
        }
        statistics.next = now + every;
        let uptime = now.saturating_duration_since(statistics.started);
        let mut figures = None;
        for (topic, says) in TOPICS {
            let Ok(topic) = Topic::new(topic) else {
                continue;
            };
            let routing = Routing {
                topic,
                qos: QoS::AtMostOnce,
                retain: false,
                from: None,
                packet: None,
                will_of: None,
            };
            self.route(routing, now, || {
                let figures = figures.get_or_insert_with(|| self.shared.metrics.render());
                let text = text_of(says, uptime, figures);
                let payload = text.as_bytes();
                let content = Content::from_parts(topic, &[], payload, QoS::AtMostOnce, false);
                let received_ms = Clocks::read().wall_ms;
                Arc::new(Message::new(
                    content,
                    Publisher::default(),
                    received_ms,
                    None,
                ))
            });
        }
        self.hand_over_soon();
    }
}

fn text_of(says: &Says, uptime: Duration, figures: &str) -> String {
    let mut text = String::new();
    let written = match says {
        Says::Version => write!(text, "tollgate version {}", env!("CARGO_PKG_VERSION")),
        Says::Uptime => write!(text, "{} seconds", uptime.as_secs()),
        Says::Sum(names) => {
            let all = names.iter().map(|name| sum(figures, name));
            write!(text, "{}", all.sum::<f64>())
        }
    };
    // A String takes everything.
    let _ = written;
    text
}

/// The sum of a figure over its labels.
fn sum(figures: &str, name: &str) -> f64 {
    let lines = figures.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with([' ', '{']));
    let values = values.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_summed_over_its_labels_and_no_other_name() {
        let figures = "# HELP a b\na{qos=\"0\"} 2\na{qos=\"1\"} 3\na_total 7\nb 9\n";
        assert_eq!(sum(figures, "a"), 5.0);
        assert_eq!(sum(figures, "b"), 9.0);
        assert_eq!(sum(figures, "c"), 0.0);
    }

    #[test]
    fn every_topic_is_a_name_and_every_figure_is_in_the_list() {
        for (topic, says) in TOPICS {
            assert!(Topic::new(topic).is_ok_and(Topic::is_dollar), "{topic}");
            if let Says::Sum(names) = says {
                for name in *names {
                    let mut known = crate::metrics::FIGURES.iter();
                    assert!(known.any(|figure| figure.name == *name), "{name}");
                }
            }
        }
    }
}
