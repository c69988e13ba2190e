//! Imports point one way: the table of docs/ARCHITECTURE.md is what this test reads and holds.

use std::collections::BTreeMap;

use crate::source::{self, Source, closing, is_word, line_at};

/// A path as the code names it: where it stands (line from 0, position) and its segments.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NamedPath {
    pub(crate) line: usize,
    pub(crate) position: usize,
    pub(crate) segments: Vec<String>,
}

/// Module to the modules it may know.
type Table = BTreeMap<String, Known>;

/// What a module may know.
enum Known {
    These(Vec<String>),
    /// All but itself and these.
    AllBut(Vec<String>),
}

/// Open to every module; `mqtt` does not count anything, so `metrics` is closed to it.
const OPEN_TO_ALL: [&str; 2] = ["limits", "metrics"];

/// Reads the one table of the document whose header is "| module | may know |".
fn table(document: &str) -> Table {
    let header = "| module | may know |";
    let behind = document.lines().skip_while(|line| *line != header).skip(1);
    let rows = behind.take_while(|line| line.starts_with('|'));
    let rows = rows.filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| {
        let (module, rest) = row.split_once("` |")?;
        Some((module, rest.trim_end_matches(['|', ' ']).trim()))
    });
    let names = |list: &str| {
        let names = list
            .split(',')
            .map(|name| name.trim().trim_matches('`').to_owned());
        names
            .filter(|name| !name.is_empty() && name != "-")
            .collect()
    };
    let known = |list: &str| match list.strip_prefix("all but ") {
        Some(others) => Known::AllBut(names(others)),
        None => Known::These(names(list)),
    };
    cells
        .map(|(module, list)| (module.to_owned(), known(list)))
        .collect()
}

fn is_open(table: &Table, from: &str, to: &str) -> bool {
    let is_common = OPEN_TO_ALL.contains(&to) && !(from == "mqtt" && to == "metrics");
    let is_listed = match table.get(from) {
        Some(Known::These(known)) => known.iter().any(|known| known == to),
        Some(Known::AllBut(closed)) => !closed.iter().any(|closed| closed == to),
        None => false,
    };
    from == to || is_common || is_listed
}

/// What the file imports against the table.
fn wrong_directions(table: &Table, source: &Source) -> Vec<String> {
    let module_path = module_path(&source.path);
    let Some(from) = module_path.first() else {
        return Vec::new(); // lib.rs and main.rs hold the parts together
    };
    if !table.contains_key(from) {
        return vec![format!(
            "{}: `{from}` has no row in the table of docs/ARCHITECTURE.md: add what it may know",
            source.path
        )];
    }
    let mut findings: Vec<String> = paths(&source.code)
        .iter()
        .filter_map(|path| Some((path.line, top_module(&source.code, &module_path, path)?)))
        .filter(|(_, to)| !is_open(table, from, to))
        .map(|(line, to)| {
            format!(
                "{}: `{from}` must not know `{to}`: turn the call round, or pass in what is needed",
                source.place(line)
            )
        })
        .collect();
    findings.dedup();
    findings
}

/// `src/mqtt/wire/mod.rs` is mqtt, wire; `src/lib.rs` is nothing.
fn module_path(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    let parts = inner
        .split('/')
        .filter(|part| !["mod", "lib", "main"].contains(part));
    parts.map(str::to_owned).collect()
}

/// The module of the crate that the path leads to from its root, if it does.
fn top_module(code: &str, module_path: &[String], path: &NamedPath) -> Option<String> {
    let first = path.segments.first()?;
    if first == "crate" || first == "tollgate" {
        return path.segments.get(1).cloned();
    }
    let ups = path
        .segments
        .iter()
        .take_while(|segment| *segment == "super")
        .count();
    let depth = module_path.len() + inline_modules(code, path.position);
    if ups > 0 && ups >= depth {
        path.segments.get(ups).cloned()
    } else {
        None
    }
}

/// How many `mod name { }` of the file enclose the position.
fn inline_modules(code: &str, position: usize) -> usize {
    code.match_indices("mod ")
        .filter(|(at, _)| !code[..*at].ends_with(is_word))
        .filter_map(|(at, _)| {
            let open = at + code[at..].find(['{', ';'])?;
            (code[open..].starts_with('{')).then(|| at..closing(code, open))
        })
        .filter(|range| range.contains(&position))
        .count()
}

/// Every path of two segments or more, imports opened up. A path that begins with a name the file
/// imported itself is left out: its import was seen.
pub(crate) fn paths(code: &str) -> Vec<NamedPath> {
    let mut found = Vec::new();
    let mut rest = code.to_owned();
    for (at, _) in code.match_indices("use ") {
        let is_statement = !code[..at].ends_with(|c| is_word(c) || c == '<');
        let Some(end) = code[at..].find(';').filter(|_| is_statement) else {
            continue;
        };
        let mut segments = Vec::new();
        expand(&code[at + 4..at + end], &mut Vec::new(), &mut segments);
        found.extend(
            segments
                .into_iter()
                .map(|segments| named(code, at, segments)),
        );
        let blank = " ".repeat(end);
        rest.replace_range(at..at + end, &blank);
    }
    let imported: Vec<String> = found
        .iter()
        .filter_map(|path| path.segments.last().cloned())
        .collect();
    let inline = inline_paths(&rest)
        .into_iter()
        .map(|(at, path)| named(code, at, path));
    found.extend(inline.filter(|path| !imported.contains(&path.segments[0])));
    found
}

fn named(code: &str, position: usize, segments: Vec<String>) -> NamedPath {
    NamedPath {
        line: line_at(code, position),
        position,
        segments,
    }
}

/// Opens `a::{b, c::{d, self}, e as f}`. A renamed import ends in its new name.
fn expand(tree: &str, prefix: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    let tree = tree.trim().trim_start_matches("::");
    let (head, group) = tree
        .split_once('{')
        .map_or((tree, None), |(h, g)| (h, Some(g)));
    let before = prefix.len();
    let (head, alias) = head
        .split_once(" as ")
        .map_or((head, None), |(h, a)| (h, Some(a)));
    let segments = head.split("::").map(str::trim);
    prefix.extend(
        segments
            .filter(|s| !s.is_empty() && *s != "self")
            .map(str::to_owned),
    );
    match group {
        Some(group) => {
            let inner = group.rsplit_once('}').map_or(group, |(inner, _)| inner);
            for part in split_top(inner) {
                expand(part, prefix, out);
            }
        }
        None => {
            let renamed = alias.map(|alias| alias.trim().to_owned());
            out.push(prefix.iter().cloned().chain(renamed).collect());
        }
    }
    prefix.truncate(before);
}

/// Splits at the commas that are in no braces.
fn split_top(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts
        .into_iter()
        .filter(|part| !part.trim().is_empty())
        .collect()
}

fn inline_paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = code[at..].find(is_word).map(|offset| at + offset) {
        let length = code[start..]
            .find(|c| !is_word(c) && c != ':')
            .unwrap_or(code.len() - start);
        let text = &code[start..start + length];
        let is_first = !code[..start].ends_with(['.', ':']) || code[..start].ends_with(" ::");
        let segments: Vec<&str> = text
            .split("::")
            .take_while(|part| !part.is_empty())
            .collect();
        let is_path = segments.len() > 1 || text.ends_with("::");
        if is_path && is_first && segments.iter().all(|part| !part.contains(':')) {
            found.push((start, segments.into_iter().map(str::to_owned).collect()));
        }
        at = start + length;
    }
    found
}

#[test]
fn imports_point_one_way() {
    let table = table(&source::read("docs/ARCHITECTURE.md"));
    let sources = source::sources();
    let ours = sources
        .iter()
        .filter(|source| source.path.starts_with("src/"));
    let findings: Vec<String> = ours
        .flat_map(|source| wrong_directions(&table, source))
        .collect();
    source::expect_none(
        "Imports follow the table of docs/ARCHITECTURE.md.",
        &findings,
    );
}

#[test]
fn the_table_has_every_module_and_no_circle() {
    let table = table(&source::read("docs/ARCHITECTURE.md"));
    let library = source::read("src/lib.rs");
    let declared = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod "));
    let modules: Vec<&str> = declared.map(|line| line.trim_end_matches(';')).collect();
    let rows: Vec<&str> = table.keys().map(String::as_str).collect();
    assert_eq!(
        rows, modules,
        "docs/ARCHITECTURE.md has one row per module of src/lib.rs"
    );
    assert_eq!(
        circle(&table),
        None,
        "two modules may know each other: decide for one direction"
    );
}

/// The first module that can be reached from itself.
fn circle(table: &Table) -> Option<String> {
    let known = |module: &String| match table.get(module) {
        Some(Known::These(known)) => known.clone(),
        Some(Known::AllBut(closed)) => {
            let open = |other: &&String| *other != module && !closed.contains(other);
            table.keys().filter(open).cloned().collect()
        }
        None => Vec::new(),
    };
    table.keys().find_map(|start| {
        let (mut open, mut seen) = (known(start), Vec::new());
        while let Some(module) = open.pop() {
            if module == *start {
                return Some(start.clone());
            }
            if !seen.contains(&module) {
                open.extend(known(&module));
                seen.push(module);
            }
        }
        None
    })
}

#[cfg(test)]
const SMALL_TABLE: &str = "\
| module | may know |
|---|---|
| `mqtt` | - |
| `broker` | `mqtt` |
| `app` | all but `cli` |
";

#[test]
fn a_wrong_direction_is_found() {
    let table = table(SMALL_TABLE);
    let found = |path: &str, text: &str| wrong_directions(&table, &Source::new(path, text)).len();
    assert_eq!(
        found(
            "src/broker/mod.rs",
            "use crate::mqtt::{wire, topic::Topic};"
        ),
        0
    );
    assert_eq!(
        found(
            "src/mqtt/wire/mod.rs",
            "use crate::mqtt::topic; use super::topic::T;"
        ),
        0
    );
    assert_eq!(
        found(
            "src/app.rs",
            "use crate::broker::Control; fn f() { crate::mqtt::g(); }"
        ),
        0
    );
    assert_eq!(
        found(
            "src/mqtt/mod.rs",
            "// use crate::broker::X;\nuse crate::limits::L;"
        ),
        0
    );
    assert_eq!(
        found(
            "src/mqtt/a.rs",
            "mod t { mod u { use super::super::super::mqtt::x; } }"
        ),
        0
    );

    assert_eq!(found("src/app.rs", "use crate::cli;"), 1);
    assert_eq!(found("src/mqtt/mod.rs", "use crate::metrics::COUNT;"), 1);
    assert_eq!(found("src/mqtt/mod.rs", "use crate::broker::Control;"), 1);
    assert_eq!(
        found("src/mqtt/mod.rs", "use crate::{broker::{a, b}, limits};"),
        1
    );
    assert_eq!(
        found("src/mqtt/mod.rs", "fn f() -> crate::app::App { todo() }"),
        1
    );
    assert_eq!(found("src/mqtt/topic.rs", "use super::super::app::App;"), 1);
    assert_eq!(
        found(
            "src/mqtt/a.rs",
            "mod t { use super::super::super::app::x; }"
        ),
        1
    );
    assert_eq!(found("src/hub/mod.rs", ""), 1, "a module without a row");
}

#[test]
fn a_circle_is_found() {
    assert_eq!(circle(&table(SMALL_TABLE)), None);
    let both = "| module | may know |\n| `mqtt` | `broker` |\n| `broker` | `mqtt` |\n";
    assert_eq!(circle(&table(both)).as_deref(), Some("broker"));
}

#[test]
fn paths_are_opened_up() {
    let code = "use a::{b, c::{self, d as e}};\nfn f() { e::g(); ::h::i(x.y::<Z>()); k::l!(); }";
    let joined: Vec<String> = paths(code)
        .iter()
        .map(|path| path.segments.join("::"))
        .collect();
    assert_eq!(joined, ["a::b", "a::c", "a::c::d::e", "h::i", "k::l"]);
}
