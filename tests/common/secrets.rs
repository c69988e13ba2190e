//! Every secret that a test uses, and the search for it in whatever the broker lets out (SEC-55):
//! as it is, in hexadecimal, and inside of base 64 wherever it may begin there.
//!
//! Secrets are noted where they pass: what clients show at CONNECT, what commands print and are
//! given, replies, the files of `secrets/` and `certs/`. All tests of a program share one list, so
//! that a secret of one is looked for in the output of another's broker too.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Shorter ones are words: they would be found where they mean something else.
const BYTES_MIN: usize = 8;

/// Secrets remembered; a test that makes a whole fleet need not look for every token of it.
const SECRETS_MAX: usize = 5_000;

/// Of a file of the data directory this much is read.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where a file is looked at for the end of what was written: the rest of a segment is zeros.
const BLOCK: usize = 64 * 1024;

/// Names of credentials that ask for a password too: they are shown, and open no door alone.
static NAMES: Mutex<BTreeSet<Vec<u8>>> = Mutex::new(BTreeSet::new());

static USED: Mutex<BTreeSet<Vec<u8>>> = Mutex::new(BTreeSet::new());

fn list() -> MutexGuard<'static, BTreeSet<Vec<u8>>> {
    USED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes a secret.
pub(crate) fn used(secret: &[u8]) {
    let mut list = list();
    if secret.len() >= BYTES_MIN && list.len() < SECRETS_MAX && !list.contains(secret) {
        list.insert(secret.to_vec());
    }
}

/// Notes what a client shows at CONNECT. An id of the identity service is a name, and no secret.
pub(crate) fn shown_at_connect(user_name: Option<&str>, password: Option<&[u8]>) {
    if let Some(name) = user_name.filter(|name| !name.starts_with("8:acs:")) {
        let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let is_part = |known: &Vec<u8>| {
            known
                .windows(name.len())
                .any(|part| part == name.as_bytes())
        };
        if !name.is_empty() && !names.iter().any(is_part) {
            used(name.as_bytes());
        }
    }
    if let Some(password) = password {
        used(password);
    }
}

/// Notes what a command is given.
pub(crate) fn given(arguments: &[&str]) {
    let after = |option: &str| {
        let pair = arguments.windows(2).find(|pair| pair[0] == option);
        pair.map(|pair| pair[1].as_bytes())
    };
    if let (Some(name), Some(_)) = (after("--user-name"), after("--password")) {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_vec());
        list().remove(name);
    }
    for pair in arguments.windows(2) {
        if let ["--token" | "--password" | "--passphrase", secret] = pair {
            used(secret.as_bytes());
        }
    }
    arguments.iter().for_each(|text| harvest(text));
}

/// Notes the tokens and keys in a text: those of our form, signed ones, and what JSON calls a token
/// or a key.
pub(crate) fn harvest(text: &str) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.+/=".contains(c);
    for word in text.split(|c| !is_part(c)) {
        let is_ours = ["tga_", "tgd_"].iter().any(|kind| word.starts_with(kind));
        if (is_ours && word.len() == 40) || (word.starts_with("eyJ") && word.len() > 100) {
            used(word.as_bytes());
        }
        if let Some(key) = word.strip_prefix("accesskey=") {
            used(key.as_bytes());
        }
    }
    for name in ["token", "access_key", "password"] {
        let mut rest = text;
        while let Some((_, behind)) = rest.split_once(&format!("\"{name}\"")) {
            rest = behind;
            let value = behind.trim_start().strip_prefix(':').map(str::trim_start);
            let value = value.and_then(|value| value.strip_prefix('"'));
            if let Some((secret, _)) = value.and_then(|value| value.split_once('"')) {
                used(secret.as_bytes());
            }
        }
    }
}

/// Notes what an installation keeps in its files of secrets, as text and as the bytes that it
/// stands for.
pub(crate) fn harvest_files(dir: &Path) {
    for (folder, is_secret) in [
        ("secrets", (|_| true) as fn(&str) -> bool),
        ("certs", |name| name.ends_with(".key")),
    ] {
        for entry in fs::read_dir(dir.join(folder))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            for line in text.lines().filter(|_| is_secret(&name)) {
                // The last line of a PEM file may be short, and its frame is no secret.
                if line.len() < 24 || line.starts_with("---") {
                    continue;
                }
                used(line.as_bytes());
                let bytes = from_hex(line).or_else(|| from_base64(line));
                used(&bytes.unwrap_or_default());
            }
        }
    }
}

/// Looks for every secret noted so far.
///
/// # Panics
/// If one is there; the message names the place, the form and what stands around it, and not the
/// secret.
pub(crate) fn expect_none<'a>(outputs: impl IntoIterator<Item = (&'a str, &'a [u8])>) {
    let forms = Forms::new(&*list());
    let found: Vec<String> = outputs
        .into_iter()
        .filter_map(|(name, bytes)| Some(format!("{name}: {}", forms.find(bytes)?)))
        .collect();
    assert!(found.is_empty(), "a secret got out (SEC-55): {found:#?}");
}

/// What stands in the data directory, file by file, without the zeros behind what was written.
pub(crate) fn data_of(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(data_of(&path));
        } else if let Ok(bytes) = written_part(&path) {
            found.push((path.display().to_string(), bytes));
        }
    }
    found
}

fn written_part(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut file = fs::File::open(path)?.take(FILE_BYTES_MAX);
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        file.by_ref()
            .take(u64::try_from(BLOCK).expect("small"))
            .read_to_end(&mut bytes)?;
        if bytes[before..].iter().all(|byte| *byte == 0) {
            bytes.truncate(before);
            return Ok(bytes);
        }
    }
}

/// The forms of all secrets, found by their first eight bytes.
struct Forms {
    forms: Vec<(Vec<u8>, &'static str)>,
    by_start: HashMap<[u8; BYTES_MIN], Vec<usize>>,
    /// Whether some form begins with these two bytes: most places are done with after it.
    begins: Vec<bool>,
}

impl Forms {
    fn new<'a>(secrets: impl IntoIterator<Item = &'a Vec<u8>>) -> Forms {
        let mut forms = Forms {
            forms: Vec::new(),
            by_start: HashMap::new(),
            begins: vec![false; 1 << 16],
        };
        for secret in secrets {
            for (form, what) in forms_of(secret) {
                let Some(start) = form.first_chunk::<BYTES_MIN>() else {
                    continue;
                };
                forms.begins[usize::from(u16::from_le_bytes([start[0], start[1]]))] = true;
                forms
                    .by_start
                    .entry(*start)
                    .or_default()
                    .push(forms.forms.len());
                forms.forms.push((form, what));
            }
        }
        forms
    }

    /// The first secret in a text: what form it has and what stands before it.
    fn find(&self, bytes: &[u8]) -> Option<String> {
        for (at, pair) in bytes.windows(2).enumerate() {
            if !self.begins[usize::from(u16::from_le_bytes([pair[0], pair[1]]))] {
                continue;
            }
            let start = bytes[at..].first_chunk::<BYTES_MIN>()?;
            for place in self.by_start.get(start).into_iter().flatten() {
                let (form, what) = &self.forms[*place];
                if bytes[at..].starts_with(form) {
                    let before = String::from_utf8_lossy(&bytes[at.saturating_sub(200)..at]);
                    let shown: String = form[..4].iter().map(|byte| char::from(*byte)).collect();
                    return Some(format!(
                        "{what} of {} bytes at {at}, {shown:?}…, behind {before:?}",
                        form.len()
                    ));
                }
            }
        }
        None
    }
}

/// How a secret can look.
fn forms_of(secret: &[u8]) -> Vec<(Vec<u8>, &'static str)> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![
        (secret.to_vec(), "a secret"),
        (hex.to_uppercase().into_bytes(), "hexadecimal"),
        (hex.into_bytes(), "hexadecimal"),
    ];
    for skip in 0..3 {
        let standard = inside_base64(secret, skip);
        let for_addresses: Vec<u8> = standard
            .iter()
            .map(|char| match char {
                b'+' => b'-',
                b'/' => b'_',
                char => *char,
            })
            .collect();
        if for_addresses != standard {
            forms.push((for_addresses, "base 64 for addresses"));
        }
        forms.push((standard, "base 64"));
    }
    forms
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The characters that stand for nothing but this secret, when `before` bytes (modulo 3) come
/// before it in what is encoded, and anything behind it.
fn inside_base64(secret: &[u8], before: usize) -> Vec<u8> {
    let mut bits: Vec<bool> = Vec::with_capacity(secret.len() * 8);
    for byte in secret {
        bits.extend((0..8).rev().map(|bit| byte >> bit & 1 == 1));
    }
    // The first character that holds no bit of what comes before.
    let first = (6 - before * 8 % 6) % 6;
    bits[first..]
        .chunks_exact(6)
        .map(|six| {
            let value = six.iter().fold(0, |sum, bit| sum << 1 | usize::from(*bit));
            BASE64[value]
        })
        .collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks_exact(2);
    let is_hex = digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit);
    is_hex.then(|| {
        pairs
            .map(|pair| {
                let text = std::str::from_utf8(pair).expect("digits");
                u8::from_str_radix(text, 16).expect("digits")
            })
            .collect()
    })
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for char in text.trim_end_matches('=').bytes() {
        let value = BASE64.iter().position(|known| *known == char)?;
        bits = bits << 6 | u32::try_from(value).expect("below 64");
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).expect("one byte"));
        }
    }
    Some(bytes)
}
