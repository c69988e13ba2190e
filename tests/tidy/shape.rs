//! Sizes that keep a file and a function readable in one sitting.

use crate::source::{self, Source, closing, is_word, line_at};

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line.
const LINE_COLUMNS_MAX: usize = 100;

fn long_files(source: &Source) -> Vec<String> {
    if source.path.starts_with("tests/") {
        return Vec::new();
    }
    let lines = (0..source.text.lines().count())
        .filter(|&line| !source.in_test(line))
        .count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![format!(
        "{}: {lines} lines without tests, {FILE_LINES_MAX} allowed: split it by concern",
        source.path
    )]
}

fn long_functions(source: &Source) -> Vec<String> {
    functions(&source.code)
        .into_iter()
        .filter(|(_, first, last)| last + 1 - first > FUNCTION_LINES_MAX)
        .map(|(name, first, last)| {
            format!(
                "{}: `{name}` has {} lines, {FUNCTION_LINES_MAX} allowed: move work to helpers",
                source.place(first),
                last + 1 - first
            )
        })
        .collect()
}

/// Name, first and last line of every function with a body.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String = code[at + 3..].chars().take_while(|&c| is_word(c)).collect();
        if name.is_empty() || code[..at].ends_with(is_word) {
            continue;
        }
        if let Some(open) = body_start(code, at) {
            let end = closing(code, open);
            found.push((name, line_at(code, at), line_at(code, end - 1)));
        }
    }
    found
}

/// Where the body of the function at `from` opens; `None` for a declaration.
fn body_start(code: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match code.as_bytes().get(at)? {
            b'{' => return Some(at),
            b';' => return None,
            b'(' | b'[' => at = closing(code, at),
            _ => at += 1,
        }
    }
}

fn long_lines(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .map(|(at, line)| (at + 1, line.chars().count()))
        .filter(|&(_, columns)| columns > LINE_COLUMNS_MAX)
        .map(|(line, columns)| {
            format!("{path}:{line}: {columns} columns, {LINE_COLUMNS_MAX} allowed: break the line")
        })
        .collect()
}

/// Code that people read; data files and documents may have long lines.
fn has_short_lines(path: &str) -> bool {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    ["rs", "py", "js", "mjs", "sh"].contains(&extension)
        || path == ".ci/run"
        || (path.starts_with("scripts/") && !path.contains('.'))
}

#[test]
fn files_are_short() {
    let findings: Vec<String> = source::sources().iter().flat_map(long_files).collect();
    source::expect_none("A file fits a reader's head.", &findings);
}

#[test]
fn functions_are_short() {
    let findings: Vec<String> = source::sources().iter().flat_map(long_functions).collect();
    source::expect_none("A function fits a screen.", &findings);
}

#[test]
fn lines_are_short() {
    let files = source::files();
    let read = files.iter().filter(|file| has_short_lines(&file.path));
    let findings: Vec<String> = read
        .flat_map(|file| long_lines(&file.path, &file.text))
        .collect();
    source::expect_none("A line fits half a screen.", &findings);
}

#[test]
fn sizes_beyond_the_limits_are_found() {
    let body = "    a();\n".repeat(FUNCTION_LINES_MAX - 1);
    let fits = format!(
        "fn f(a: [u8; 2]) {{\n{}}}\n",
        "    a();\n".repeat(FUNCTION_LINES_MAX - 2)
    );
    let long = format!("trait T {{ fn g(&self); }}\nfn f(a: [u8; 2]) {{\n{body}}}\n");
    assert_eq!(long_functions(&Source::new("src/a.rs", &fits)).len(), 0);
    let found = long_functions(&Source::new("src/a.rs", &long));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("src/a.rs:2: `f` has 71 lines"),
        "{found:?}"
    );

    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// t\n".repeat(600));
    let file = "// c\n".repeat(FILE_LINES_MAX) + &tests;
    assert_eq!(long_files(&Source::new("src/a.rs", &file)).len(), 0);
    assert_eq!(
        long_files(&Source::new("src/a.rs", &format!("// more\n{file}"))).len(),
        1
    );

    let line = "x".repeat(LINE_COLUMNS_MAX);
    assert_eq!(long_lines("a.rs", &line).len(), 0);
    assert_eq!(long_lines("a.rs", &format!("{line}é")).len(), 1);
}
