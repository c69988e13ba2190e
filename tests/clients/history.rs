//! The history's files in other programs' hands: the examples of `docs/history-format.md`.

use std::fs;
use std::process::Command;

use crate::common::{
    broker::{Broker, Setup},
    packets::{Connect, Version, log_in, publish},
    tools::{printed, repository, run, tool},
    wire::Wire,
};

/// Two series of which one value came twice, in files as a clean stop leaves them.
fn files() -> Broker {
    let mut broker = Setup::new().start();
    broker.create_device_with_token("boiler", "boilers-token");
    for round in 0..2 {
        let mut wire = Wire::connect(broker.address("mqtt"));
        log_in(
            &mut wire,
            &Connect::with_token(Version::V311, "boiler", "boilers-token"),
        );
        let payloads: &[&[u8]] = if round == 0 {
            &[
                br#"{"ts":1000,"values":{"temperature":20.5,"name":"a"}}"#,
                br#"{"ts":2000,"values":{"temperature":21}}"#,
            ]
        } else {
            // The same time again, in another file: the later one counts. And a time that no
            // timestamp type holds.
            &[
                br#"{"ts":1000,"values":{"temperature":19.5}}"#,
                br#"{"ts":9223372036854775807,"values":{"other":1}}"#,
            ]
        };
        for (id, payload) in (1..).zip(payloads) {
            wire.send(&publish(
                Version::V311,
                1,
                id,
                "v1/devices/me/telemetry",
                payload,
            ));
            assert_eq!(wire.packet()[0], 0x40);
        }
        drop(wire);
        assert_eq!(broker.stop(), 0, "{}", broker.stderr());
        if round == 0 {
            broker.restart();
        }
    }
    broker
}

/// The block of the page in this language.
fn example(language: &str) -> String {
    let page = fs::read_to_string(repository().join("docs/history-format.md")).unwrap();
    let begin = format!("```{language}\n");
    let (_, rest) = page.split_once(&begin).expect("the page has an example");
    rest.split_once("```").unwrap().0.to_owned()
}

fn python(broker: &Broker, program: &str) -> String {
    let mut command = Command::new(tool("python"));
    command.current_dir(broker.dir()).args(["-c", program]);
    let output = run(&mut command);
    let (stdout, stderr) = printed(&output);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    stdout
}

#[test]
fn duckdb_reads_the_files_as_the_page_says() {
    let broker = files();
    let program = format!(
        "import duckdb\nfor row in duckdb.sql('''{}''').fetchall(): print(row[2], row[3])",
        example("sql")
    );
    let said = python(&broker, &program);
    assert_eq!(said, "1970-01-01 00:00:01 19.5\n1970-01-01 00:00:02 21.0\n");
    let ids = "import duckdb\nprint(duckdb.sql(\"SELECT count(DISTINCT device), count(*), \
               typeof(any_value(device)) FROM \
               read_parquet('data/history/*.parquet')\").fetchone())";
    assert_eq!(python(&broker, ids), "(1, 5, 'UUID')\n");
}

#[test]
fn pandas_reads_the_files_as_the_page_says() {
    let broker = files();
    let program = format!(
        "{}\nprint(list(samples.sort_values('ts')['value']))",
        example("python")
    );
    let said = python(&broker, &program);
    let last = said.lines().last().unwrap_or_default();
    assert_eq!(last, "[19.5, 21.0]", "{said}");
}
