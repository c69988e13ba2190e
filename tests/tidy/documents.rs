//! Documents that stay true: paths that exist, an index that is complete, a changelog that is open.

use crate::source::{self, File};

/// Where a path in backticks counts as one of ours.
const FOLDERS: &[&str] = &["src/", "tests/", "docs/", "scripts/", "benches/", ".ci/"];
/// Endings of files that lie in the root.
const ROOT_ENDINGS: &[&str] = &[".md", ".toml", ".lock"];

/// The paths of the tree that a document names in backticks.
fn named_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let is_ours = FOLDERS.iter().any(|folder| quoted.starts_with(folder))
                || (!quoted.contains('/') && ROOT_ENDINGS.iter().any(|end| quoted.ends_with(end)));
            if is_ours && !quoted.contains(['*', ' ', '<', '{']) {
                found.push((number + 1, quoted.to_owned()));
            }
        }
    }
    found
}

/// The targets of the links that lead to files, without their anchors.
fn link_targets(text: &str) -> Vec<(usize, String)> {
    let lines = text
        .lines()
        .enumerate()
        .flat_map(|(number, line)| line.split("](").skip(1).map(move |rest| (number + 1, rest)));
    lines
        .filter_map(|(number, rest)| Some((number, rest.split_once(')')?.0)))
        .map(|(number, target)| (number, target.split('#').next().unwrap_or(target)))
        .filter(|(_, target)| !target.is_empty() && !target.contains("://"))
        .map(|(number, target)| (number, target.to_owned()))
        .collect()
}

fn missing(file: &File, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let links = link_targets(&file.text).into_iter();
    let links = links.map(|(line, target)| (line, format!("{folder}/{target}")));
    let gone = |(line, path): (usize, String)| {
        (!exists(path.trim_start_matches('/'))).then(|| {
            format!(
                "{}:{line}: {path} does not exist: correct or drop it",
                file.path
            )
        })
    };
    named_paths(&file.text)
        .into_iter()
        .chain(links)
        .filter_map(gone)
        .collect()
}

/// The pages that the index does not link to.
fn unlisted(index: &str, pages: &[String]) -> Vec<String> {
    let linked = link_targets(index);
    let is_linked = |page: &String| linked.iter().any(|(_, target)| target == page);
    pages
        .iter()
        .filter(|page| !is_linked(page))
        .map(|page| format!("docs/decisions/README.md: no link to {page}: add its line"))
        .collect()
}

/// Whether the page names the part of src, a file or a folder.
fn is_mapped(page: &str, part: &str) -> bool {
    page.contains(&format!("`src/{part}.rs`")) || page.contains(&format!("`src/{part}/`"))
}

fn exists(path: &str) -> bool {
    source::root().join(path).exists()
}

#[test]
fn documents_name_only_what_exists() {
    let files = source::files();
    let is_document = |file: &&File| {
        file.path == "README.md" || (file.path.starts_with("docs/") && file.path.ends_with(".md"))
    };
    let findings = files
        .iter()
        .filter(is_document)
        .flat_map(|file| missing(file, exists));
    source::expect_none(
        "A document leads to what exists.",
        &findings.collect::<Vec<_>>(),
    );
}

#[test]
fn the_architecture_page_maps_all_of_src() {
    let page = source::read("docs/ARCHITECTURE.md");
    assert!(
        page.lines().count() <= 150,
        "docs/ARCHITECTURE.md is read in one sitting: 150 lines"
    );
    let entries = std::fs::read_dir(source::root().join("src")).expect("src is a folder");
    let names = entries.map(|entry| entry.expect("src can be listed").file_name());
    let findings: Vec<String> = names
        .map(|name| name.to_string_lossy().trim_end_matches(".rs").to_owned())
        .filter(|part| !is_mapped(&page, part))
        .map(|part| format!("docs/ARCHITECTURE.md: src/{part} is not on the map: say what it is"))
        .collect();
    source::expect_none("The map shows every room.", &findings);
}

#[test]
fn the_index_of_decisions_is_complete() {
    let files = source::files();
    let names = files
        .iter()
        .filter_map(|file| file.path.strip_prefix("docs/decisions/"));
    let pages = names.filter(|name| *name != "README.md").map(str::to_owned);
    let index = source::read("docs/decisions/README.md");
    source::expect_none(
        "Every decision can be found.",
        &unlisted(&index, &pages.collect::<Vec<_>>()),
    );
}

#[test]
fn the_changelog_is_open() {
    let log = source::read("CHANGELOG.md");
    let first = log.lines().find(|line| line.starts_with("## "));
    assert_eq!(
        first,
        Some("## Unreleased"),
        "CHANGELOG.md: the first section collects what is new"
    );
}

#[test]
fn dead_paths_and_links_are_found() {
    let text =
        "`src/gone.rs` `src/here.rs` `v1/devices/me` `old.toml`\n[a](here.md#x) [b](gone.md)";
    let file = File {
        path: "docs/page.md".to_owned(),
        text: text.to_owned(),
    };
    let found = missing(&file, |path| {
        ["src/here.rs", "docs/here.md"].contains(&path)
    });
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("docs/page.md:1: src/gone.rs"))
    );
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("docs/page.md:1: old.toml"))
    );
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("docs/page.md:2: docs/gone.md"))
    );
}

#[test]
fn a_part_that_is_not_on_the_map_is_found() {
    assert!(is_mapped("| `src/net/` | sockets |", "net"));
    assert!(is_mapped("| `src/app.rs` | start |", "app"));
    assert!(!is_mapped("| `src/net/tls.rs` | TLS |", "net"));
}

#[test]
fn an_unlisted_decision_is_found() {
    let pages = ["a.md".to_owned(), "b.md".to_owned()];
    assert_eq!(unlisted("- [A](a.md): because\n", &pages).len(), 1);
}
