//! Scopes as operators give them: filters that were checked, of an application or a device.
//!
//! # Placeholders
//! The pattern of a device may hold `%d`, its id, and `%n`, its name, as whole levels. They are
//! put in level by level, after the pattern was taken apart (SEC-25): whatever a device is called,
//! a placeholder stands for one level without wildcards. A name that cannot be one (it is empty,
//! or has `/`, `+` or `#`; at the first level also if it begins with `$`) makes the pattern stand
//! for nothing.

use uuid::Uuid;

use super::permit::{DEVICE_PREFIXES, is_below_device_prefix};
use super::{IdentityKind, Permit, RegistryError};
use crate::mqtt::topic::{Filter, FilterBuf, Topic};
use crate::store::scopes::Filters;

/// Filters for publishing, and for subscribing, that one scope may have.
pub const FILTERS_MAX: usize = 64;

/// Bytes of all filters of one scope, both lists together.
pub const SCOPE_BYTES_MAX: usize = 8_192;

/// The placeholder of a device's id.
const ID: &str = "%d";

/// The placeholder of a device's name.
const NAME: &str = "%n";

/// The tree of the broker's own figures.
const SYSTEM: &str = "$SYS";

/// What an identity may do besides what its kind gives it: filters that were checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(pub(super) Filters);

/// A change of a scope: a list that is not given stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeChange {
    /// Filters of the topics it may publish to.
    pub publish: Option<Vec<String>>,
    /// Filters of the topics it may receive.
    pub subscribe: Option<Vec<String>>,
}

impl Scope {
    /// Checks the filters: at most [`FILTERS_MAX`] of each and [`SCOPE_BYTES_MAX`] bytes, valid,
    /// without `$share` (a share gives no more than the plain filter, SEC-32), outside of the
    /// device topics, which no scope changes (TB-10), and outside of the `$` trees (SEC-33), but
    /// that applications may read `$SYS`. Placeholders stand alone on their level, and only where
    /// there is a device.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] with the filter at fault.
    pub fn new(
        kind: IdentityKind,
        publish: &[String],
        subscribe: &[String],
    ) -> Result<Scope, RegistryError> {
        for (field, filters) in [(PUBLISH, publish), (SUBSCRIBE, subscribe)] {
            if filters.len() > FILTERS_MAX {
                let found = filters.len();
                let what = format!("has {found} filters, the limit is {FILTERS_MAX}");
                return Err(RegistryError::Invalid { field, what });
            }
            for text in filters {
                fault(kind, field, text).map_or(Ok(()), |why| {
                    let what = format!("filter {text:?} {why}");
                    Err(RegistryError::Invalid { field, what })
                })?;
            }
        }
        let filters = Filters::new(publish, subscribe);
        if filters.bytes() > SCOPE_BYTES_MAX {
            let found = filters.bytes();
            return Err(RegistryError::Invalid {
                field: SUBSCRIBE,
                what: format!(
                    "and publish have {found} bytes together, the limit is {SCOPE_BYTES_MAX}"
                ),
            });
        }
        Ok(Scope(filters))
    }

    /// Refuses a scope that needs a device's name as a level where the name cannot be one.
    pub(super) fn check_name(&self, name: &str) -> Result<(), RegistryError> {
        let lists = [
            (PUBLISH, self.0.publish().collect::<Vec<_>>()),
            (SUBSCRIBE, self.0.subscribe().collect()),
        ];
        for (field, filters) in lists {
            let unfit = filters.iter().find(|pattern| {
                let mut levels = pattern.split('/').enumerate();
                levels.any(|(place, level)| level == NAME && !is_level(name, place))
            });
            if let Some(pattern) = unfit {
                let what = format!(
                    "filter {pattern:?} puts the device's name in for %n, and {name:?} cannot be \
                     one level of a topic; use %d, its id"
                );
                return Err(RegistryError::Invalid { field, what });
            }
        }
        Ok(())
    }

    /// The scope after a change, checked as a whole.
    pub(super) fn changed(
        filters: &Filters,
        kind: IdentityKind,
        change: &ScopeChange,
    ) -> Result<Scope, RegistryError> {
        let kept = |texts: &mut dyn Iterator<Item = &str>| -> Vec<String> {
            texts.map(str::to_owned).collect()
        };
        let publish = match &change.publish {
            Some(publish) => publish.clone(),
            None => kept(&mut filters.publish()),
        };
        let subscribe = match &change.subscribe {
            Some(subscribe) => subscribe.clone(),
            None => kept(&mut filters.subscribe()),
        };
        Scope::new(kind, &publish, &subscribe)
    }
}

const PUBLISH: &str = "publish";
const SUBSCRIBE: &str = "subscribe";

/// Whom the placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) id: Uuid,
    pub(super) name: &'a str,
}

/// Compiles what a kind of identity may do with these filters; `owner` is `None` for those without
/// placeholders. A filter that this version does not take (a newer one wrote it) allows nothing.
pub(super) fn compile(kind: IdentityKind, filters: &Filters, owner: Option<Owner<'_>>) -> Permit {
    let compiled = |pattern: &str| -> Option<FilterBuf> {
        let filter = match (kind, owner) {
            (IdentityKind::Device, Some(owner)) => substituted(pattern, owner),
            _ => plain(pattern),
        };
        if filter.is_none() {
            tracing::warn!(filter = pattern, "this filter of a scope allows nothing");
        }
        filter
    };
    Permit::new(
        kind == IdentityKind::Device,
        filters.publish().filter_map(compiled).collect(),
        filters.subscribe().filter_map(compiled).collect(),
    )
}

/// Whether a scope has placeholders at all, and whether one of them is the name.
pub(super) fn placeholders(kind: IdentityKind, filters: &Filters) -> (bool, bool) {
    if kind != IdentityKind::Device {
        return (false, false);
    }
    let has = |placeholder: &str| {
        let mut all = filters.publish().chain(filters.subscribe());
        all.any(|pattern| pattern.split('/').any(|level| level == placeholder))
    };
    let has_name = has(NAME);
    (has_name || has(ID), has_name)
}

fn plain(pattern: &str) -> Option<FilterBuf> {
    let filter = Filter::new(pattern).ok()?;
    filter.share_name().is_none().then(|| filter.into())
}

/// The filter that a pattern stands for, `None` if it stands for nothing.
fn substituted(pattern: &str, owner: Owner<'_>) -> Option<FilterBuf> {
    let pattern = Filter::new(pattern).ok()?;
    if pattern.share_name().is_some() {
        return None;
    }
    let id = owner.id.hyphenated().to_string();
    let level = |(place, level)| match level {
        ID => Some(id.as_str()),
        NAME => is_level(owner.name, place).then_some(owner.name),
        level => Some(level),
    };
    let levels: Vec<&str> = pattern
        .levels()
        .enumerate()
        .map(level)
        .collect::<Option<_>>()?;
    let text = levels.join("/");
    let filter = plain(&text)?;
    // Nothing that was put in became a separator, a wildcard or a share.
    let same = filter.as_filter().levels().eq(levels.iter().copied());
    same.then_some(filter)
}

/// Whether a device's name can stand as one level, the first being at `place` 0.
fn is_level(name: &str, place: usize) -> bool {
    // No wildcard, no control character, not empty.
    Topic::new(name).is_ok_and(|topic| place > 0 || !topic.is_dollar()) && !name.contains('/')
}

/// What is wrong with a filter, as the rest of a sentence.
fn fault(kind: IdentityKind, field: &str, text: &str) -> Option<String> {
    let filter = match Filter::new(text) {
        Ok(filter) => filter,
        Err(error) => return Some(error.to_string()),
    };
    if filter.share_name().is_some() {
        return Some(
            "names a share group; give the plain filter, which allows every group on it".to_owned(),
        );
    }
    if is_below_device_prefix(text) {
        let prefixes = DEVICE_PREFIXES.join(", ");
        return Some(format!(
            "lies in the device topics ({prefixes}), which every device has for itself; no scope \
             changes them"
        ));
    }
    if filter.matched().starts_with('$') {
        return dollar_fault(kind, field, &filter);
    }
    if kind == IdentityKind::Device && text.contains(';') {
        return Some("has a ;, which separates the filters in files of devices".to_owned());
    }
    filter
        .levels()
        .find_map(|level| placeholder_fault(kind, level))
}

fn dollar_fault(kind: IdentityKind, field: &str, filter: &Filter<'_>) -> Option<String> {
    if field == PUBLISH {
        return Some("is in a $ tree, which is closed: no client publishes there".to_owned());
    }
    if kind == IdentityKind::Device {
        return Some("is in a $ tree, which is closed to devices".to_owned());
    }
    let is_system = filter.levels().next() == Some(SYSTEM);
    (!is_system).then(|| "is in a $ tree; applications may read $SYS, no other".to_owned())
}

fn placeholder_fault(kind: IdentityKind, level: &str) -> Option<String> {
    let is_one = level.len() == 2 && level.starts_with('%');
    if kind == IdentityKind::Application {
        let is_ours = level == ID || level == NAME;
        return is_ours.then(|| {
            format!("has the placeholder {level}, which stands for a device; this is none")
        });
    }
    match level {
        ID | NAME => None,
        _ if is_one => Some(format!(
            "has an unknown placeholder {level}; known are %d, the device's id, and %n, its name"
        )),
        _ if level.contains(ID) || level.contains(NAME) => Some(format!(
            "has a placeholder inside the level {level:?}; %d and %n stand alone between slashes"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
