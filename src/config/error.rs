//! What can be wrong with the settings. Every message names the place, the key, what was found,
//! what is allowed, and what to do.

use std::{fmt, io, path::PathBuf};

use super::key::{Key, Shape};
use super::value::RIGHTS_MAX;

/// Why the settings were refused. Nothing has been written or bound when this is returned.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is named but cannot be read.
    #[error(
        "{}: the configuration cannot be read: {source}. Check the path (--config, \
         TOLLGATE_CONFIG) and its permissions",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds no key at all: a cut file must not open what it used to close (SEC-42).
    #[error(
        "{}: the configuration holds no setting; it may have been cut. Restore it, or remove it \
         to start with the defaults",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The last line has no end: the file may be half-written (SEC-42).
    #[error(
        "{}, line {line}: the configuration does not end with a newline; it may have been cut. \
         Check its last line and end it with a newline",
        path.display()
    )]
    Cut {
        /// The file.
        path: PathBuf,
        /// The last line, from 1.
        line: usize,
    },
    /// The file is no TOML.
    #[error("{place}: {what}. Correct the line; config.toml in the source shows every key")]
    Syntax {
        /// Where.
        place: Place,
        /// What the TOML parser said.
        what: String,
    },
    /// A key that does not exist.
    #[error("{place}: there is no key {key}{}", suggestion(nearest.as_deref()))]
    UnknownKey {
        /// Where.
        place: Place,
        /// What was written.
        key: String,
        /// The known key that resembles it most.
        nearest: Option<String>,
    },
    /// A key that has another name here.
    #[error("{place}: {key} is called {now} here; rename it")]
    RenamedKey {
        /// Where.
        place: Place,
        /// What was written.
        key: String,
        /// Our name.
        now: &'static str,
    },
    /// A variable with our prefix that sets nothing.
    #[error("environment: there is no setting {name}{}", suggestion(nearest.as_deref()))]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The known variable that resembles it most.
        nearest: Option<String>,
    },
    /// Two variables that set the same key.
    #[error("environment: {one} and {other} set the same; keep one of them")]
    TwoVariables {
        /// The short name.
        one: String,
        /// The full name.
        other: String,
    },
    /// A value of the wrong kind or out of its range.
    #[error(
        "{place}: {} = {found}: allowed is {expected}. Change it, or remove it for the default, {}",
        key.path(), key.default
    )]
    Value {
        /// Where.
        place: Place,
        /// The key.
        key: &'static Key,
        /// What was written.
        found: String,
        /// What may be written.
        expected: Expected,
    },
    /// A value that is right alone but not beside another.
    #[error("{place}: {} = {found} {problem}", key.path())]
    Conflict {
        /// Where.
        place: Place,
        /// The key.
        key: &'static Key,
        /// What was written.
        found: String,
        /// Why the two do not go together, and what to do.
        problem: String,
    },
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the default stands.
    Default,
    /// In the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In an environment variable.
    Variable(String),
    /// On the command line.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => write!(f, "default"),
            Place::File { path, line } => write!(f, "{}, line {line}", path.display()),
            Place::Variable(name) => write!(f, "environment, {name}"),
            Place::Flag(name) => write!(f, "{name}"),
        }
    }
}

/// What a key may hold, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected(pub &'static Shape);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Shape::Path => write!(f, "a path in quotes"),
            Shape::OptionalPath => write!(f, "a path in quotes, \"\" for none"),
            Shape::Listen => write!(
                f,
                "\"ADDRESS:PORT\" with an IP address, as in \"127.0.0.1:1883\" or \"[::]:1883\", \
                 a list of them, or \"off\""
            ),
            Shape::Names => write!(
                f,
                "a list of host names and IP addresses, without wildcards"
            ),
            Shape::Origins => write!(
                f,
                "a list of origins as browsers send them, as in [\"https://fleet.example\", \
                 \"http://localhost:3000\"]: no path, no slash at the end"
            ),
            Shape::Networks => write!(
                f,
                "a list of networks, as in [\"10.0.0.0/8\", \"2001:db8::/32\", \"192.0.2.7\"], \
                 with zeros behind the prefix"
            ),
            Shape::Pairs => write!(f, "a list of \"CERTIFICATE:KEY\", each a path"),
            Shape::Rights => write!(
                f,
                "a list of \"subscribe FILTER\" and \"publish FILTER\", at most {RIGHTS_MAX}"
            ),
            Shape::Switch => write!(f, "true or false, without quotes"),
            Shape::Number { least, most, unit } => {
                write!(f, "a whole number from {least} to {most} ({unit})")
            }
            Shape::Choice(words) => {
                write!(f, "one of ")?;
                for (i, word) in words.iter().enumerate() {
                    write!(f, "{}\"{word}\"", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Shape::LogFilter => write!(
                f,
                "\"error\", \"warn\", \"info\", \"debug\", \"trace\", \"off\", or a list like \
                 \"info,tollgate::net=debug\""
            ),
        }
    }
}

fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(known) => format!("; the nearest is {known}. Correct the name or remove it"),
        None => "; remove it. config.toml in the source shows every key".to_owned(),
    }
}
