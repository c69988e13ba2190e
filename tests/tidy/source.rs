//! The tree as the rules see it: committed files, Rust code without its comments and literals, and
//! which lines are tests.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A text file of the tree.
pub(crate) struct File {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A Rust file.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the insides of literals blanked: same lines, same columns.
    pub(crate) code: String,
    /// For each line, whether it belongs to a test.
    pub(crate) is_test: Vec<bool>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let code = blank(text);
        let is_test = if is_test_path(path) {
            vec![true; code.lines().count()]
        } else {
            test_lines(&code)
        };
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            is_test,
        }
    }

    /// Whether the line, counted from 0, belongs to a test.
    pub(crate) fn in_test(&self, line: usize) -> bool {
        self.is_test.get(line).copied().unwrap_or(false)
    }

    /// The code with the lines of tests emptied, so that line numbers stay.
    pub(crate) fn code_without_tests(&self) -> String {
        let lines = self.code.lines().enumerate();
        lines
            .map(|(at, line)| if self.in_test(at) { "" } else { line }.to_owned() + "\n")
            .collect()
    }

    /// `path:line` for the line counted from 0.
    pub(crate) fn place(&self, line: usize) -> String {
        format!("{}:{}", self.path, line + 1)
    }
}

/// The folder of Cargo.toml; cargo says it to the tests it runs.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

pub(crate) fn read(path: &str) -> String {
    let full = root().join(path);
    std::fs::read_to_string(&full).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Every text file that is committed, or that would be by `git add .`.
pub(crate) fn files() -> Vec<File> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root())
        .output()
        .expect("git is installed: the rules look at what it would commit");
    assert!(
        listed.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let listed = String::from_utf8(listed.stdout).expect("our file names are UTF-8");
    let paths = listed.split('\0').filter(|path| !path.is_empty());
    let files: Vec<File> = paths
        .filter_map(|path| {
            // Removed but not yet committed files are listed too; binary files hold no rules.
            let text = String::from_utf8(std::fs::read(root().join(path)).ok()?).ok()?;
            Some(File {
                path: path.to_owned(),
                text,
            })
        })
        .collect();
    assert!(
        files.iter().any(|file| file.path == "src/lib.rs"),
        "the list of files is incomplete"
    );
    files
}

/// Every Rust file of the tree.
pub(crate) fn sources() -> Vec<Source> {
    let rust = files()
        .into_iter()
        .filter(|file| file.path.ends_with(".rs"));
    let mut sources: Vec<Source> = rust
        .map(|file| Source::new(&file.path, &file.text))
        .collect();
    let declared: Vec<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        if declared
            .iter()
            .any(|stem| is_module_file(&source.path, stem))
        {
            source.is_test = vec![true; source.code.lines().count()];
        }
    }
    sources
}

/// Fails with the findings, one a line, under the rule that was broken.
#[track_caller]
pub(crate) fn expect_none(rule: &str, findings: &[String]) {
    assert!(
        findings.is_empty(),
        "\n{rule}\n  {}\n",
        findings.join("\n  ")
    );
}

/// Comments and the insides of string, byte string and character literals become spaces.
pub(crate) fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match literal_or_comment(&chars, at) {
            Some(end) => end.min(chars.len()),
            None => {
                out.push(chars[at]);
                at += 1;
                continue;
            }
        };
        out.extend(
            chars[at..end]
                .iter()
                .map(|&c| if c == '\n' { '\n' } else { ' ' }),
        );
        at = end;
    }
    out
}

/// The end of the comment or literal that begins at `at`, if one does.
fn literal_or_comment(chars: &[char], at: usize) -> Option<usize> {
    let next = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    let is_word_before = at > 0 && is_word(chars[at - 1]);
    match (next(0), next(1)) {
        ('/', '/') => Some(find(chars, at, |c| c == '\n')),
        ('/', '*') => Some(block_comment_end(chars, at)),
        ('"', _) => Some(string_end(chars, at)),
        ('\'', '\\') => Some(find(chars, at + 3, |c| c == '\'') + 1),
        ('\'', _) if next(2) == '\'' => Some(at + 3), // a lifetime has no quote there
        ('b' | 'c', '"') if !is_word_before => Some(string_end(chars, at + 1)),
        ('r', '"' | '#') if !is_word_before => raw_string_end(chars, at + 1),
        ('b' | 'c', 'r') if !is_word_before => raw_string_end(chars, at + 2),
        _ => None,
    }
}

fn find(chars: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    (from..chars.len())
        .find(|&at| wanted(chars[at]))
        .unwrap_or(chars.len())
}

fn string_end(chars: &[char], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// `None` when no raw string begins here: a raw identifier, for instance.
fn raw_string_end(chars: &[char], from: usize) -> Option<usize> {
    let quote = find(chars, from, |c| c != '#');
    if chars.get(quote) != Some(&'"') {
        return None;
    }
    let hashes = quote - from;
    let closes = |at: usize| {
        let after = chars.get(at + 1..at + 1 + hashes);
        chars[at] == '"' && after.is_some_and(|after| after.iter().all(|&c| c == '#'))
    };
    let end = (quote + 1..chars.len())
        .find(|&at| closes(at))
        .unwrap_or(chars.len());
    Some(end + 1 + hashes)
}

fn block_comment_end(chars: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0, from);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The line, counted from 0, of a byte position.
pub(crate) fn line_at(text: &str, position: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(position)
        .filter(|&&byte| byte == b'\n')
        .count()
}

/// The position behind the bracket that closes the one at `open`.
pub(crate) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, c) in code[open..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

/// Integration tests, benches, and the files that hold a module's unit tests.
fn is_test_path(path: &str) -> bool {
    let path = Path::new(path);
    path.components().any(|part| {
        ["tests", "benches"]
            .iter()
            .any(|name| part.as_os_str() == *name)
    }) || path.file_name().is_some_and(|name| name == "tests.rs")
}

/// Marks each item under `#[cfg(test)]` or `#[test]`, its attributes included.
fn test_lines(code: &str) -> Vec<bool> {
    let mut marks = vec![false; code.lines().count()];
    for (start, end) in test_items(code) {
        let (first, last) = (line_at(code, start), line_at(code, end.saturating_sub(1)));
        marks
            .iter_mut()
            .take(last + 1)
            .skip(first)
            .for_each(|mark| *mark = true);
    }
    marks
}

fn test_items(code: &str) -> Vec<(usize, usize)> {
    ["#[cfg(test)]", "#[cfg(all(test", "#[test]"]
        .iter()
        .flat_map(|attribute| code.match_indices(attribute))
        .map(|(start, _)| (start, item_end(code, start)))
        .collect()
}

/// The end of the item whose first attribute begins at `start`: `}` of its body, or `;`.
fn item_end(code: &str, start: usize) -> usize {
    let mut at = start;
    while let Some(c) = code[at..].chars().next() {
        match c {
            '#' if code[at..].starts_with("#[") => at = closing(code, at + 1),
            '(' | '[' => at = closing(code, at),
            '{' => return closing(code, at),
            ';' => return at + 1,
            _ => at += c.len_utf8(),
        }
    }
    code.len()
}

/// Paths without `.rs` of the modules that the file declares as `#[cfg(test)] mod name;`.
fn test_modules(source: &Source) -> Vec<String> {
    let folder = match source.path.rsplit_once('/') {
        Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_owned(),
        _ => source.path.trim_end_matches(".rs").to_owned(),
    };
    let items = test_items(&source.code)
        .into_iter()
        .map(|(start, end)| &source.code[start..end]);
    let declarations = items.filter(|item| item.ends_with(';') && !item.contains('{'));
    let names = declarations.filter_map(|item| item.trim_end_matches(';').split_once("mod "));
    names
        .map(|(_, name)| format!("{folder}/{}", name.trim()))
        .collect()
}

fn is_module_file(path: &str, stem: &str) -> bool {
    path.strip_prefix(stem)
        .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

#[test]
fn comments_and_literals_are_blanked_and_columns_stay() {
    let text =
        "let a = \"x // y\"; // c\nlet b = 'x'; /* /* n */ */ f::<'a>(r#\"a \"q\" b\"#, b'\\'');";
    let code = blank(text);
    let columns = |text: &str| {
        text.lines()
            .map(|line| line.chars().count())
            .collect::<Vec<_>>()
    };
    assert_eq!(columns(&code), columns(text));
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words.join(" "), "let a = ; let b = ; f::<'a>( , b );");
}

#[test]
fn tests_are_told_from_code() {
    let text =
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[test]\nfn d() {\n}";
    let source = Source::new("src/a.rs", text);
    assert_eq!(
        source.is_test,
        [false, true, true, true, true, false, true, true, true]
    );
    assert_eq!(source.code_without_tests().matches("fn").count(), 2);
    assert!(Source::new("src/journal/tests.rs", "fn a() {}").in_test(0));

    let parent = Source::new(
        "src/journal/mod.rs",
        "#[cfg(test)]\npub(crate) mod faults;\nmod disk;",
    );
    assert_eq!(test_modules(&parent), ["src/journal/faults"]);
    assert!(is_module_file(
        "src/journal/faults.rs",
        "src/journal/faults"
    ));
    assert!(!is_module_file(
        "src/journal/faults_not.rs",
        "src/journal/faults"
    ));
}
