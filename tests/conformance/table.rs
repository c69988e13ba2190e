//! `docs/conformance.md` and `docs/security-scenarios.md` are complete and true: every statement
//! and every scenario once, every test they name exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A row that names a statement: its number and the text of its other columns.
struct Row {
    statement: String,
    about: String,
    shown_by: String,
}

/// The page of the security scenarios.
const SCENARIOS: &str = "docs/security-scenarios.md";

/// What stands in the last column where no test can stand.
const REASONS: [&str; 2] = ["Binds clients.", "Does not apply: "];

fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The part of the page below this heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, below) = page
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    below.split("\n## ").next().unwrap_or(below)
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(inner.split(" | ").map(str::trim).collect())
}

fn rows(section: &str) -> Vec<Row> {
    let lines = section.lines().filter_map(cells);
    lines
        .filter(|cells| cells[0].starts_with("MQTT-"))
        .map(|cells| {
            assert_eq!(cells.len(), 3, "three columns: {cells:?}");
            Row {
                statement: cells[0].to_owned(),
                about: cells[1].to_owned(),
                shown_by: cells[2].to_owned(),
            }
        })
        .collect()
}

/// The tests named in backticks: letters, digits and `_`, no blanks, no paths.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| {
        let is_letter =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        name.contains('_') && name.bytes().all(is_letter)
    })
}

fn collect_tests(folder: &Path, found: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            collect_tests(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            for name in tests_in(&text) {
                found.insert(name, path.clone());
            }
        }
    }
}

/// Functions behind `#[test]`, with other attributes between, and those of `proptest!`.
fn tests_in(text: &str) -> Vec<String> {
    let mut is_test = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
            let name: String = rest
                .chars()
                .take_while(|c| *c != '(' && *c != '<')
                .collect();
            names.push(name);
            is_test = false;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            is_test = false;
        }
    }
    names
}

fn existing() -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    collect_tests(&root().join("src"), &mut found);
    collect_tests(&root().join("tests"), &mut found);
    found
}

/// What is wrong with a section: statements missing, twice or unknown, rows that say nothing.
fn findings(section: &str, statements: &str) -> Vec<String> {
    let wanted: BTreeSet<&str> = statements.lines().collect();
    let rows = rows(section);
    let mut seen = BTreeSet::new();
    let mut findings = Vec::new();
    for row in &rows {
        let statement = row.statement.as_str();
        if !wanted.contains(statement) {
            findings.push(format!("{statement}: the standard has no such statement"));
        }
        if !seen.insert(statement) {
            findings.push(format!("{statement}: there twice"));
        }
        let is_reason = REASONS
            .iter()
            .any(|reason| row.shown_by.starts_with(reason));
        if row.about.is_empty() || (!is_reason && named(&row.shown_by).next().is_none()) {
            findings.push(format!("{statement}: neither a test nor a reason"));
        }
    }
    let missing = wanted
        .iter()
        .filter(|statement| !seen.contains(**statement));
    findings.extend(missing.map(|statement| format!("{statement}: no row")));
    findings
}

#[test]
fn every_statement_of_both_standards_has_its_row() {
    let page = read("docs/conformance.md");
    for (heading, file, count) in [
        ("MQTT 5.0", "tests/data/mqtt-5.0-statements.txt", 251),
        ("MQTT 3.1.1", "tests/data/mqtt-3.1.1-statements.txt", 141),
    ] {
        let statements = read(file);
        assert_eq!(statements.lines().count(), count, "{file}");
        let findings = findings(section(&page, heading), &statements);
        assert!(findings.is_empty(), "{heading}: {findings:#?}");
    }
}

#[test]
fn every_test_that_the_pages_name_exists() {
    let existing = existing();
    for page in ["docs/conformance.md", SCENARIOS] {
        let text = read(page);
        let missing: BTreeSet<&str> = named(&text)
            .filter(|name| !existing.contains_key(*name))
            .collect();
        assert!(missing.is_empty(), "{page}: no such tests: {missing:#?}");
    }
}

/// The ids that the page must have.
fn scenario_ids() -> BTreeSet<String> {
    let cases = (1..=50).map(|number| format!("P-{number:02}"));
    let lists = (1..=32).chain([34]).chain(36..=40);
    let lists = lists.map(|number| format!("S-{number:02}"));
    let requirements = (20..=28).chain(34..=42).chain(50..=60).chain(72..=74);
    let requirements = requirements.map(|number| format!("SEC-{number}"));
    cases.chain(lists).chain(requirements).collect()
}

/// The ids that the name of a test bears: `p_41_p_42_…` is of P-41 and P-42. One that goes through
/// a list of them, `p_01_to_p_14_…`, bears none.
fn ids_of(test: &str) -> BTreeSet<String> {
    if test.contains("_to_p_") {
        return BTreeSet::new();
    }
    let parts: Vec<&str> = test.split('_').collect();
    let id = |pair: &[&str]| {
        let is_kind = ["p", "s", "sec"].contains(&pair[0]);
        let is_number = pair[1].len() == 2 && pair[1].bytes().all(|byte| byte.is_ascii_digit());
        (is_kind && is_number).then(|| format!("{}-{}", pair[0].to_uppercase(), pair[1]))
    };
    parts.windows(2).filter_map(id).collect()
}

/// Rows of the tables, by id: the last column.
fn scenario_rows(page: &str) -> BTreeMap<String, Vec<String>> {
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for cells in page.lines().filter_map(cells) {
        let id = cells[0];
        if ["P-", "S-", "SEC-"].iter().any(|kind| id.starts_with(kind)) {
            let last = cells.last().expect("a row has cells");
            rows.entry(id.to_owned())
                .or_default()
                .push((*last).to_owned());
        }
    }
    rows
}

fn scenario_findings(page: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let rows = scenario_rows(page);
    let wanted = scenario_ids();
    let mut findings = Vec::new();
    for id in wanted.iter().filter(|id| !rows.contains_key(*id)) {
        findings.push(format!("{id}: no row"));
    }
    for (id, shown_by) in &rows {
        if !wanted.contains(id) || shown_by.len() != 1 {
            findings.push(format!("{id}: unknown, or there twice"));
        }
        let is_shown = named(&shown_by[0]).any(|test| ids_of(test).contains(id));
        if !is_shown && !shown_by[0].starts_with(REASONS[1]) {
            findings.push(format!("{id}: no test bears its id"));
        }
    }
    for test in tests {
        // The rows of requirements name some of many.
        let wanted = wanted.iter().filter(|id| !id.starts_with("SEC-"));
        for id in wanted.filter(|id| ids_of(test).contains(*id)) {
            let row = rows.get(id).map_or("", |row| row[0].as_str());
            if !named(row).any(|name| name == test) {
                findings.push(format!("{id}: {test} is not in its row"));
            }
        }
    }
    findings
}

#[test]
fn every_scenario_has_its_row_and_a_test_that_bears_its_id() {
    let outside = root().join("tests");
    let tests = existing().into_iter();
    let tests = tests.filter(|(_, path)| path.starts_with(&outside));
    let findings = scenario_findings(&read(SCENARIOS), &tests.map(|(name, _)| name).collect());
    assert!(findings.is_empty(), "{SCENARIOS}: {findings:#?}");
}

#[test]
fn scenarios_without_a_test_are_found() {
    let page = read(SCENARIOS);
    assert_eq!(scenario_findings(&page, &BTreeSet::new()), [""; 0]);
    let worse = page
        .replace("p_07_", "p_70_")
        .replace("| S-04 |", "| S-05 |");
    let found = scenario_findings(&worse, &["p_01_another".to_owned()].into());
    let starts = ["S-04: no", "P-07: no", "S-05: un", "S-05: no", "P-01: p_"];
    for start in starts {
        assert!(
            found.iter().any(|found| found.starts_with(start)),
            "{start}: {found:#?}"
        );
    }
}

#[test]
fn every_test_of_the_suite_stands_in_a_row() {
    let page = read("docs/conformance.md");
    let named: BTreeSet<&str> = named(&page).collect();
    let suite = root().join("tests/conformance");
    let unnamed: Vec<String> = existing()
        .into_iter()
        .filter(|(name, path)| {
            path.starts_with(&suite) && name.starts_with("mqtt_") && !named.contains(name.as_str())
        })
        .map(|(name, _)| name)
        .collect();
    assert!(
        unnamed.is_empty(),
        "docs/conformance.md does not name {unnamed:#?}"
    );
}

#[test]
fn a_page_with_gaps_is_found() {
    let section = "| MQTT-1 | a | `some_test` |\n| MQTT-1 | a | `some_test` |\n\
        | MQTT-2 | b | later |\n| MQTT-3 | c | Binds clients. |\n| MQTT-9 | d | `some_test` |\n";
    let findings = findings(section, "MQTT-1\nMQTT-2\nMQTT-3\nMQTT-4\n");
    assert_eq!(findings.len(), 4, "{findings:#?}");
}

#[test]
fn tests_are_told_from_helpers() {
    let text =
        "#[test]\nfn one() {\n}\nfn helper() {\n}\n#[test]\n// why\n#[ignore]\nfn two<T>() {";
    assert_eq!(tests_in(text), ["one", "two"]);
}
