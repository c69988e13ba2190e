//! What the operator wrote: file, environment and flags, laid over each other.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{
    error::{ConfigError, Place},
    key::{KEYS, Key, LOG_LEVEL, RENAMED},
};

/// Where settings come from, besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`; without it `TOLLGATE_CONFIG`, without that `config.toml` if it exists.
    pub file: Option<PathBuf>,
    /// The environment: all of it, so that a misspelt variable is noticed.
    pub environment: Vec<(OsString, OsString)>,
    /// (key path, flag, value) of the flags that were given.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

impl Sources {
    /// The process's environment and nothing else.
    pub fn from_environment() -> Sources {
        Sources {
            environment: std::env::vars_os().collect(),
            ..Sources::default()
        }
    }
}

/// The winning value of every key that was set.
#[derive(Debug)]
pub(super) struct Layers {
    file: Option<PathBuf>,
    found: BTreeMap<String, Found>,
}

/// One value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) value: Raw,
    pub(super) place: Place,
}

/// A value before it is checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// A string of the file.
    Text(String),
    /// From the environment or a flag, where everything is text and lists have commas.
    Word(String),
    Integer(i128),
    Switch(bool),
    List(Vec<Raw>),
    /// Anything no key takes, as it was written.
    Other(String),
}

impl Layers {
    pub(super) fn read(sources: &Sources) -> Result<Layers, ConfigError> {
        let variables = variables(&sources.environment)?;
        let mut layers = Layers {
            file: None,
            found: BTreeMap::new(),
        };
        if let Some((path, text)) = file(sources)? {
            read_file(&path, &text, &mut layers.found)?;
            layers.file = Some(path);
        }
        layers.found.extend(variables);
        for (path, flag, text) in &sources.flags {
            let found = Found {
                value: Raw::Word(text.clone()),
                place: Place::Flag(flag),
            };
            layers.found.insert((*path).to_owned(), found);
        }
        Ok(layers)
    }

    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The value of a key, or its default.
    pub(super) fn find(&self, key: &'static Key) -> Found {
        self.found
            .get(&key.path())
            .cloned()
            .unwrap_or_else(|| Found {
                value: default(key),
                place: Place::Default,
            })
    }
}

fn default(key: &Key) -> Raw {
    match DeValue::parse(key.default) {
        Ok(value) => raw(value.get_ref()),
        Err(error) => Raw::Other(error.to_string()), // a typing error in KEYS; its test finds it
    }
}

/// Name of the file that is read when none is named.
const DEFAULT_FILE: &str = "config.toml";

fn file(sources: &Sources) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let named = sources.file.clone().or_else(|| {
        let is_config = |(name, _): &&(OsString, OsString)| name == "TOLLGATE_CONFIG";
        sources
            .environment
            .iter()
            .find(is_config)
            .map(|(_, value)| PathBuf::from(value))
    });
    let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Unreadable { path, source }),
    }
}

fn read_file(
    path: &Path,
    text: &str,
    found: &mut BTreeMap<String, Found>,
) -> Result<(), ConfigError> {
    let place = |span: Range<usize>| Place::File {
        path: path.to_path_buf(),
        line: line_of(text, span.start),
    };
    let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        place: place(error.span().unwrap_or(0..0)),
        what: error.message().to_owned(),
    })?;
    for (name, value) in document.get_ref() {
        let name_of = name.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Table(table) => {
                if table.is_empty() && !KEYS.iter().any(|key| key.section == name_of) {
                    return Err(unknown_key(name_of, place(name.span())));
                }
                for (inner, value) in table {
                    let key = format!("{name_of}.{}", inner.get_ref());
                    keep(found, key, raw(value.get_ref()), place(inner.span()))?;
                }
            }
            other => keep(found, name_of.to_owned(), raw(other), place(name.span()))?,
        }
    }
    if found.is_empty() {
        return Err(ConfigError::Empty {
            path: path.to_path_buf(),
        });
    }
    if !text.ends_with('\n') {
        return Err(ConfigError::Cut {
            path: path.to_path_buf(),
            line: line_of(text, text.len()),
        });
    }
    Ok(())
}

fn keep(
    found: &mut BTreeMap<String, Found>,
    key: String,
    value: Raw,
    place: Place,
) -> Result<(), ConfigError> {
    if !KEYS.iter().any(|known| known.path() == key) {
        return Err(unknown_key(&key, place));
    }
    found.insert(key, Found { value, place });
    Ok(())
}

fn unknown_key(key: &str, place: Place) -> ConfigError {
    if let Some((_, now)) = RENAMED.iter().find(|(theirs, _)| *theirs == key) {
        return ConfigError::RenamedKey {
            place,
            key: key.to_owned(),
            now,
        };
    }
    let nearest = nearest(key, KEYS.iter().map(|known| known.path()));
    ConfigError::UnknownKey {
        place,
        key: key.to_owned(),
        nearest,
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(string) => Raw::Text(string.to_string()),
        DeValue::Boolean(switch) => Raw::Switch(*switch),
        DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| Raw::Other(integer.as_str().to_owned()), Raw::Integer),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Float(float) => Raw::Other(float.as_str().to_owned()),
        DeValue::Datetime(moment) => Raw::Other(moment.to_string()),
        DeValue::Table(_) => Raw::Other("a table".to_owned()),
    }
}

fn line_of(text: &str, position: usize) -> usize {
    text.bytes()
        .take(position)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

/// Variables with our prefix that are no settings of this process: the command line's, and what
/// the tests of this source take.
const OTHER_VARIABLES: &[&str] = &[
    "TOLLGATE_ADMIN_TOKEN",
    "TOLLGATE_ADMIN_URL",
    "TOLLGATE_BACKUP_PASSPHRASE",
    "TOLLGATE_CONFIG",
    "TOLLGATE_FUZZ_SECONDS",
    "TOLLGATE_MODEL_SECONDS",
    "TOLLGATE_SEED",
];

/// Groups of such variables. The last three are set by Kubernetes in every pod beside a service
/// that is named `tollgate`; they must not stop the start.
const OTHER_PREFIXES: &[&str] = &[
    "TOLLGATE_TEST_",
    "TOLLGATE_TORTURE_",
    "TOLLGATE_SERVICE_",
    "TOLLGATE_PORT_",
];

/// Short for `TOLLGATE_LOG_LEVEL`, as `--log` is for `log.level`.
const LOG_VARIABLE: &str = "TOLLGATE_LOG";

fn variables(environment: &[(OsString, OsString)]) -> Result<BTreeMap<String, Found>, ConfigError> {
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for (name, value) in environment {
        let name = name.to_string_lossy();
        let other = OTHER_VARIABLES.contains(&name.as_ref())
            || name == "TOLLGATE_PORT"
            || OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if !name.starts_with("TOLLGATE_") || other {
            continue;
        }
        let key = match KEYS.iter().find(|key| key.variable() == name) {
            Some(key) => key.path(),
            None if name == LOG_VARIABLE => LOG_LEVEL.path(),
            None => return Err(unknown_variable(&name)),
        };
        let value = Raw::Word(value.to_string_lossy().into_owned());
        let place = Place::Variable(name.into_owned());
        if found.insert(key, Found { value, place }).is_some() {
            let other = LOG_LEVEL.variable();
            return Err(ConfigError::TwoVariables {
                one: LOG_VARIABLE.to_owned(),
                other,
            });
        }
    }
    Ok(found)
}

fn unknown_variable(name: &str) -> ConfigError {
    let known = KEYS
        .iter()
        .map(|key| key.variable())
        .chain(OTHER_VARIABLES.iter().map(|name| (*name).to_owned()))
        .chain([LOG_VARIABLE.to_owned()]);
    ConfigError::UnknownVariable {
        name: name.to_owned(),
        nearest: nearest(name, known),
    }
}

/// Under this likeness (0 to 1) a suggestion would only confuse.
const LIKENESS_MIN: f64 = 0.4;

fn nearest(written: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let likeness = |name: &str| {
        let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
        let whole = strsim::normalized_damerau_levenshtein(written, name);
        // The right name in the wrong table is the likelier mistake.
        if last(written) == last(name) {
            whole + 1.0
        } else {
            whole
        }
    };
    known
        .map(|name| (likeness(&name), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}
