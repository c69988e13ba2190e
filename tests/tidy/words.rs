//! Words that have no place on main, and words that would tell of one machine.

use crate::source::{self, File, Source};

/// Left-overs of work in progress. Written in two halves, so that this list does not find itself.
const LEFT_OVERS: &[(&str, &str)] = &[
    ("FIX", "ME"),
    ("XX", "X:"),
    ("todo", "!("),
    ("unimplemented", "!("),
    ("dbg", "!("),
];

/// Folders of the machine a change was made on; a clone must work anywhere.
const MACHINE_PATHS: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("/ho", "me/"),
    ("/tmp", "/wt"),
    ("/tmp", "/tg"),
    ("../sha", "red"),
    ("/Use", "rs/"),
];

/// Hosts that packages come from: which ones is a setting of the machine, not of the project.
const REGISTRY_HOSTS: &[(&str, &str)] = &[
    ("crates", ".io"),
    ("pypi", ".org"),
    ("python", "hosted.org"),
    ("npm", "js.org"),
    ("npm", "js.com"),
    ("debian", ".org"),
    ("golang", ".org"),
];

/// What may sit before a path without it being a part of a longer one.
fn begins_here(text: &str, at: usize) -> bool {
    !text[..at].ends_with(|c: char| c.is_alphanumeric() || "-_.}~".contains(c))
}

fn left_overs(file: &File) -> Vec<String> {
    findings(
        file,
        LEFT_OVERS,
        |_, _| true,
        "finish it or open an issue, then delete the mark",
    )
}

fn machine_paths(file: &File) -> Vec<String> {
    let is_path = |line: &str, at: usize| begins_here(line, at);
    findings(
        file,
        MACHINE_PATHS,
        is_path,
        "a clone must work in any folder: make it relative",
    )
}

fn registry_hosts(file: &File) -> Vec<String> {
    // Cargo writes the index into Cargo.lock itself.
    let is_ours = |line: &str, _: usize| {
        file.path != "Cargo.lock" || !line.starts_with("source = \"registry+")
    };
    findings(
        file,
        REGISTRY_HOSTS,
        is_ours,
        "name the package, not the host it came from",
    )
}

/// The words of `list` in the file where `counts` holds, with what to do about each.
fn findings(
    file: &File,
    list: &[(&str, &str)],
    counts: impl Fn(&str, usize) -> bool,
    advice: &str,
) -> Vec<String> {
    let words: Vec<String> = list.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for word in &words {
            if line
                .match_indices(word.as_str())
                .any(|(at, _)| counts(line, at))
            {
                found.push(format!("{}:{}: `{word}`: {advice}", file.path, number + 1));
            }
        }
    }
    found
}

/// Files that several test binaries compile for themselves: each uses a part of them, so that an
/// expected lint would hold in one binary and fail in the next.
const SHARED_BY_TESTS: &[&str] = &["tests/common/", "tests/torture/rig.rs"];

/// Lint exceptions say why and vanish by themselves; a panic needs a proof.
fn exceptions(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in source.code.lines().enumerate() {
        let place = source.place(at);
        let is_allow = line.contains("#[allow(") || line.contains("#![allow(");
        if is_allow
            && !SHARED_BY_TESTS
                .iter()
                .any(|shared| source.path.starts_with(shared))
        {
            found.push(format!(
                "{place}: use #[expect(lint, reason = \"...\")] instead of allow"
            ));
        }
        if line.contains(".unwrap()") && !source.in_test(at) {
            found.push(format!(
                "{place}: unwrap: handle it, or `expect` with the proof"
            ));
        }
    }
    let starts = ["#[expect(", "#![expect(", "#[allow(", "#![allow("];
    let attributes = starts
        .iter()
        .flat_map(|start| source.code.match_indices(start));
    for (at, start) in attributes {
        let open = at + start.len() - 1;
        let attribute = &source.code[open..source::closing(&source.code, open)];
        if !attribute.contains("reason =") {
            let place = source.place(source::line_at(&source.code, at));
            found.push(format!("{place}: an exception needs a reason = \"...\""));
        }
    }
    found
}

#[test]
fn nothing_is_left_over() {
    let findings: Vec<String> = source::files().iter().flat_map(left_overs).collect();
    source::expect_none("What is on main is finished.", &findings);
}

#[test]
fn no_machine_is_named() {
    let files = source::files();
    let findings = files
        .iter()
        .flat_map(|f| [machine_paths(f), registry_hosts(f)].concat());
    source::expect_none(
        "Nothing depends on one machine.",
        &findings.collect::<Vec<_>>(),
    );
}

#[test]
fn exceptions_have_reasons() {
    let findings: Vec<String> = source::sources().iter().flat_map(exceptions).collect();
    source::expect_none("An exception says why.", &findings);
}

#[test]
fn left_overs_and_machine_words_are_found() {
    let file = |path: &str, text: String| File {
        path: path.to_owned(),
        text,
    };
    for (a, b) in LEFT_OVERS {
        assert_eq!(left_overs(&file("a.rs", format!("x {a}{b}"))).len(), 1);
    }
    for (a, b) in MACHINE_PATHS {
        assert_eq!(
            machine_paths(&file("a.md", format!("see `{a}{b}x`"))).len(),
            1,
            "{a}{b}"
        );
    }
    let inside = format!("certs{}{}ca.pem ${{HOME}}{}{}", "/ro", "ot/", "/wo", "rk/");
    assert_eq!(machine_paths(&file("a.md", inside)).len(), 0);
    for (a, b) in REGISTRY_HOSTS {
        assert_eq!(
            registry_hosts(&file("a.md", format!("from {a}{b}"))).len(),
            1
        );
    }
    let lock = format!(
        "source = \"registry+https://x/{}{}-index\"",
        "crates", ".io"
    );
    assert_eq!(registry_hosts(&file("Cargo.lock", lock.clone())).len(), 0);
    assert_eq!(registry_hosts(&file("Cargo.toml", lock)).len(), 1);
}

#[test]
fn exceptions_without_reasons_are_found() {
    let found = |text: &str| exceptions(&Source::new("src/a.rs", text)).len();
    assert_eq!(
        found("#[expect(dead_code, reason = \"read by tests\")]\nfn f() {}"),
        0
    );
    assert_eq!(
        found("#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }"),
        0
    );
    assert_eq!(found("// x.unwrap()\nlet a = \"#[allow(x)]\";"), 0);

    assert_eq!(found("#[expect(\n    dead_code,\n)]\nfn f() {}"), 1);
    assert_eq!(found("#[allow(dead_code, reason = \"a\")]\nfn f() {}"), 1);
    assert_eq!(found("#[allow(dead_code)]\nfn f() {}"), 2);
    let shared = |text: &str| exceptions(&Source::new("tests/common/mod.rs", text)).len();
    assert_eq!(shared("#![allow(dead_code, reason = \"a\")]"), 0);
    assert_eq!(shared("#![allow(dead_code)]"), 1);
    assert_eq!(found("fn f() { x.unwrap(); }"), 1);
}
