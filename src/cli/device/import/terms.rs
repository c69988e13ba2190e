//! The terms of a row's token: the columns of an import and of an export.

use csv::ByteRecord;

use super::{Columns, NOT_BEFORE};
use crate::{cli::moment, http::api::Terms};

/// What stands in the column of rights for a token that has none of them, and for one that has all.
const NO_RIGHTS: &str = "none";
const ALL_RIGHTS: &str = "all";

/// What stands between the entries of one field.
pub(in crate::cli::device) const SEPARATOR: &str = ";";

/// The columns, in the order of an export.
pub(in crate::cli::device) const COLUMNS: [&str; 7] = [
    "not_before",
    "expires",
    "rights",
    "networks",
    "connections_max",
    "messages_max",
    "certificate",
];

/// The column of a field of the admin API.
pub(super) fn column_of(field: &str) -> &str {
    field.strip_suffix("_ms").unwrap_or(field)
}

/// What the row says, as the admin API wants it; or which column is wrong, and what with it. What
/// needs more than the text to be judged is left to the broker.
pub(super) fn read(
    record: &ByteRecord,
    columns: &Columns,
    now_ms: i64,
) -> Result<Option<Terms>, (&'static str, String)> {
    let field = |at: usize| columns.get(record, NOT_BEFORE + at);
    let [not_before, expires, _, _, connections, messages, _] = COLUMNS;
    let rights = field(2).map(|text| match &*text {
        ALL_RIGHTS => None,
        NO_RIGHTS => Some(Vec::new()),
        names => Some(entries(names)),
    });
    let terms = Terms {
        not_before_ms: moment_in(not_before, field(0).as_deref(), now_ms)?.map(Some),
        expires_ms: moment_in(expires, field(1).as_deref(), now_ms)?.map(Some),
        rights,
        networks: field(3).map(|text| entries(&text)),
        connections_max: number_in(connections, field(4).as_deref())?.map(Some),
        messages_max: number_in(messages, field(5).as_deref())?.map(Some),
        certificate: field(6).map(|text| Some(text.into_owned())),
    };
    Ok((terms != Terms::default()).then_some(terms))
}

/// The fields of an export.
pub(in crate::cli::device) fn fields(terms: Option<&Terms>) -> [String; 7] {
    let Some(terms) = terms else {
        return Default::default();
    };
    let moment = |at: Option<Option<u64>>| at.flatten().map(moment::show_unsigned);
    let number = |number: Option<Option<u32>>| number.flatten().map(|number| number.to_string());
    let rights = terms.rights.as_ref().and_then(Option::as_ref);
    let rights = rights.map(|names| match names.as_slice() {
        [] => NO_RIGHTS.to_owned(),
        names => names.join(SEPARATOR),
    });
    let networks = terms.networks.as_ref().map(|all| all.join(SEPARATOR));
    [
        moment(terms.not_before_ms),
        moment(terms.expires_ms),
        rights,
        networks,
        number(terms.connections_max),
        number(terms.messages_max),
        terms.certificate.clone().flatten(),
    ]
    .map(Option::unwrap_or_default)
}

fn entries(text: &str) -> Vec<String> {
    let entries = text.split(SEPARATOR).map(str::trim);
    let entries = entries.filter(|entry| !entry.is_empty());
    entries.map(str::to_owned).collect()
}

fn moment_in(
    column: &'static str,
    text: Option<&str>,
    now_ms: i64,
) -> Result<Option<u64>, (&'static str, String)> {
    let Some(text) = text else {
        return Ok(None);
    };
    let moment = moment::parse_ahead(text, now_ms);
    let moment = moment.and_then(|at| u64::try_from(at).map_err(|_| "this is before 1970".into()));
    let moment = moment.map_err(|what| (column, format!("has {text:?}: {what}")));
    moment.map(Some)
}

fn number_in(
    column: &'static str,
    text: Option<&str>,
) -> Result<Option<u32>, (&'static str, String)> {
    let number = text.map(|text| {
        let what = || (column, format!("has {text:?}, which is no whole number"));
        text.parse().map_err(|_| what())
    });
    number.transpose()
}
