//! The broker's words as whoever typed a command knows them: its fields by the names of options,
//! and what to do next.

use crate::http::api::ErrorBody;

/// Fields of the admin API, and the options that they come from. Others have their option's name.
const OPTIONS: &[(&str, &str)] = &[
    ("grace_s 0", "--grace 0s"),
    ("grace_s", "--grace"),
    ("expires_ms", "--expires"),
    ("not_before_ms", "--not-before"),
    ("networks", "--from"),
    ("rights", "--allow"),
    ("connections_max", "--connections"),
    ("messages_max", "--rate"),
    ("user_name", "--user-name"),
    ("client_id", "--client-id"),
];

/// What helps whoever asked for something that is not there.
const HINTS: &[(&str, &str)] = &[
    ("device_not_found", "`tollgate device list` names all"),
    ("app_not_found", "`tollgate app list` names all"),
    ("user_not_found", "`tollgate identity user list` names all"),
    (
        "admin_token_not_found",
        "`tollgate admin-token list` names all",
    ),
    (
        "credential_not_found",
        "`tollgate device show` and `tollgate app show` list them with their numbers",
    ),
];

/// A refusal, to be shown to whoever typed a command.
pub(super) fn refusal(error: ErrorBody) -> String {
    let mut message = error.message;
    if error.target.is_some() {
        for (field, option) in OPTIONS {
            message = match message.strip_prefix(field) {
                Some(rest) if rest.starts_with(' ') => format!("{option}{rest}"),
                // An ordinary word is a field at the begin only.
                _ if !field.contains('_') => message,
                _ => replaced(&message, field, option),
            };
        }
    }
    let hint = HINTS.iter().find(|(code, _)| *code == error.code);
    match hint {
        Some((_, hint)) => format!("{message}; {hint}"),
        None => message,
    }
}

/// Whole words only: a field's name may be part of another's, or of a device's.
fn replaced(message: &str, field: &str, option: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || "_-\"".contains(c);
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(field) {
        let is_whole = !before.ends_with(is_part) && !after.starts_with(is_part);
        out.push_str(before);
        out.push_str(if is_whole { option } else { field });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: &str, message: &str, target: Option<&str>) -> String {
        refusal(ErrorBody {
            code: code.to_owned(),
            message: message.to_owned(),
            target: target.map(str::to_owned),
            rows: Vec::new(),
        })
    }

    #[test]
    fn fields_are_named_as_the_options_that_were_typed() {
        let wanted = "--grace leaves too many: rotate with --grace 0s, which ends them";
        let message = "grace_s leaves too many: rotate with grace_s 0, which ends them";
        assert_eq!(said("bad_field", message, Some("grace_s")), wanted);
        let message = "not_before_ms is not before expires_ms, 7";
        let wanted = "--not-before is not before --expires, 7";
        assert_eq!(said("bad_field", message, Some("not_before_ms")), wanted);
        let message = "rights has \"fly\", which is none of the rights";
        let wanted = "--allow has \"fly\", which is none of the rights";
        assert_eq!(said("bad_field", message, Some("rights")), wanted);
        // Names of devices and parts of words stay.
        for message in [
            "device \"grace_s\" has none",
            "my_grace_s is",
            "the grace_seconds",
        ] {
            assert_eq!(said("bad_field", message, Some("device")), message);
        }
        assert_eq!(said("busy", "grace_s", None), "grace_s");
    }

    #[test]
    fn who_asks_for_what_is_not_there_is_told_where_to_look() {
        let message = "there is no device \"x\"";
        let told = said("device_not_found", message, Some("device"));
        assert!(
            told.starts_with(message) && told.contains("device list"),
            "{told}"
        );
    }
}
