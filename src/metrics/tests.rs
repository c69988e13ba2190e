use std::{collections::BTreeSet, time::Duration};

use super::*;

#[test]
fn sec_77_the_list_in_the_docs_is_the_list_in_the_code() {
    let docs = include_str!("../../docs/metrics.md");
    let table: String = docs
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(
        table,
        catalogue(),
        "docs/metrics.md must hold exactly this table"
    );
}

#[test]
fn every_figure_is_visible_from_the_start_with_its_help_and_nothing_else_is() {
    let text = Metrics::new().render();
    let types: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let names: BTreeSet<&str> = FIGURES.iter().map(|figure| figure.name).collect();
    assert_eq!(types, names);
    for figure in FIGURES {
        assert!(
            text.contains(&format!("# HELP {} {}", figure.name, figure.help)),
            "{text}"
        );
        // What is known of the process is never zero.
        if figure.name.starts_with("process_") || figure.name == "tollgate_build_info" {
            let no_value = format!("\n{} 0\n", figure.name);
            assert!(!text.contains(&no_value), "{no_value} in\n{text}");
            continue;
        }
        let (label, values) = figure.label.unwrap_or(("", &[""]));
        for value in values {
            let row = match (figure.kind, label) {
                (Kind::Histogram, _) => format!("{}_count 0\n", figure.name),
                (_, "") => format!("{} 0\n", figure.name),
                (_, label) => format!("{}{{{label}=\"{value}\"}} 0\n", figure.name),
            };
            assert!(text.contains(&row), "{row} in\n{text}");
        }
    }
}

#[test]
fn names_end_with_their_unit_and_counters_with_total() {
    for figure in FIGURES {
        let name = figure.name;
        assert_eq!(
            name.ends_with("_total"),
            figure.kind == Kind::Counter,
            "{name}"
        );
        let name = name.trim_end_matches("_total");
        assert_eq!(
            name.ends_with("_seconds"),
            figure.unit == metrics::Unit::Seconds,
            "{name}"
        );
        assert_eq!(
            name.ends_with("_bytes"),
            figure.unit == metrics::Unit::Bytes,
            "{name}"
        );
    }
}

#[test]
fn the_ledger_of_a_worker_adds_up_and_is_visible_after_a_flush() {
    let metrics = Metrics::new();
    let mut worker = metrics.worker();
    worker.received(1, 5);
    worker.received(2, 2);
    worker.stored(1, 3);
    worker.refused(Refusal::Revoked, 1);
    worker.repeated();
    worker.connected();
    worker.connected();
    worker.disconnected();
    worker.connect_refused(ConnectRefusal::Unavailable);
    worker.taken_over();
    worker.panicked();
    assert!(
        metrics
            .render()
            .contains("tollgate_messages_received_total{qos=\"1\"} 0\n")
    );
    worker.flush();
    worker.flush(); // a second one adds nothing
    let text = metrics.render();
    for row in [
        "tollgate_messages_received_total{qos=\"1\"} 5\n",
        "tollgate_messages_received_total{qos=\"2\"} 2\n",
        "tollgate_messages_stored_total{qos=\"1\"} 3\n",
        "tollgate_messages_refused_total{reason=\"revoked\"} 1\n",
        "tollgate_messages_refused_total{reason=\"stopping\"} 0\n",
        "tollgate_messages_repeated_total 1\n",
        "tollgate_messages_in_flight 2\n",
        "tollgate_connections 1\n",
        "tollgate_connects_total 2\n",
        "tollgate_connects_refused_total{reason=\"unavailable\"} 1\n",
        "tollgate_takeovers_total 1\n",
        "tollgate_connection_panics_total 1\n",
    ] {
        assert!(text.contains(row), "{row} in\n{text}");
    }
    worker.stored(2, 2);
    worker.disconnected();
    drop(worker);
    let text = metrics.render();
    assert!(text.contains("tollgate_messages_in_flight 0\n"), "{text}");
    assert!(text.contains("tollgate_connections 0\n"), "{text}");
}

#[test]
fn a_distribution_sorts_into_cumulative_buckets() {
    let metrics = Metrics::new();
    let worker = metrics.worker();
    worker.acknowledged(Duration::from_micros(100), 2); // on a bound: inside
    worker.acknowledged(Duration::from_millis(3), 3);
    worker.acknowledged(Duration::from_secs(60), 1); // above every bound
    let text = metrics.render();
    for row in [
        "tollgate_ack_wait_seconds_bucket{le=\"0.0001\"} 2\n",
        "tollgate_ack_wait_seconds_bucket{le=\"0.0025\"} 2\n",
        "tollgate_ack_wait_seconds_bucket{le=\"0.005\"} 5\n",
        "tollgate_ack_wait_seconds_bucket{le=\"10\"} 5\n",
        "tollgate_ack_wait_seconds_bucket{le=\"+Inf\"} 6\n",
        "tollgate_ack_wait_seconds_sum 60.0092\n",
        "tollgate_ack_wait_seconds_count 6\n",
        "# TYPE tollgate_ack_wait_seconds histogram\n",
    ] {
        assert!(text.contains(row), "{row} in\n{text}");
    }
}

#[test]
fn what_the_journal_says_replaces_what_it_said_before() {
    let metrics = Metrics::new();
    let figures = JournalFigures {
        durable: 7,
        bytes: 9,
        segments: 1,
        commits: 2,
        commit_bytes: 3,
        state: JournalState::Running,
    };
    metrics.set_journal(figures);
    metrics.set_journal(JournalFigures {
        durable: 8,
        state: JournalState::Full,
        ..figures
    });
    metrics.journal_commit().record(0.002);
    metrics.set_history(HistoryFigures {
        lag_records: 4,
        head_bytes: 5,
        damage: 6,
        unreadable: 7,
    });
    let text = metrics.render();
    for row in [
        "tollgate_journal_durable_offset 8\n",
        "tollgate_journal_bytes 9\n",
        "tollgate_journal_commits_total 2\n",
        "tollgate_journal_commit_bytes_total 3\n",
        "tollgate_journal_state{state=\"running\"} 0\n",
        "tollgate_journal_state{state=\"full\"} 1\n",
        "tollgate_journal_commit_seconds_count 1\n",
        "tollgate_history_lag_records 4\n",
        "tollgate_history_head_bytes 5\n",
        "tollgate_history_damage 6\n",
        "tollgate_history_unreadable 7\n",
    ] {
        assert!(text.contains(row), "{row} in\n{text}");
    }
}

#[test]
fn http_requests_are_counted_by_class_of_status() {
    let metrics = Metrics::new();
    for status in [200, 204, 404, 503, 99, 600] {
        metrics.http_request(status);
    }
    metrics.http_connection(true);
    metrics.http_connection(true);
    metrics.http_connection(false);
    let text = metrics.render();
    for row in [
        "tollgate_http_requests_total{status=\"2xx\"} 2\n",
        "tollgate_http_requests_total{status=\"4xx\"} 1\n",
        "tollgate_http_requests_total{status=\"5xx\"} 1\n",
        "tollgate_http_connections 1\n",
    ] {
        assert!(text.contains(row), "{row} in\n{text}");
    }
}
