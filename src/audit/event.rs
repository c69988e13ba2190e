//! What can happen that the audit tells of, and how its facts become members of a record.
//!
//! Values come from people, clients and certificates: each is escaped so that it stays one JSON
//! string on one line of harmless characters, and cut at [`TEXT_BYTES_MAX`] (SEC-25, S-23). No
//! event has a place for a secret: credentials are named by their public number (SEC-55).

use std::fmt::Write as _;
use std::net::IpAddr;

use uuid::Uuid;

use super::Book;

/// Longest value written, bytes before escaping; the rest is left out, with `…` in its place.
pub const TEXT_BYTES_MAX: usize = 256;

/// Most values of a list in one record; a member beside it says how many there were.
const LIST_MAX: usize = 32;

/// Longest members of one event, bytes; more are left out.
const MEMBERS_BYTES_MAX: usize = 12 * 1024;

const _: () = assert!(MEMBERS_BYTES_MAX + 3_072 < super::record::LINE_BYTES_MAX);

/// Declares the events: what they are called, and in which book they stand.
macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $text:literal in $book:ident,)+) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum What { $($(#[$doc])* $name,)+ }

        impl What {
            /// Every event.
            pub const ALL: &'static [What] = &[$(What::$name,)+];

            /// Its name in records.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(What::$name => $text,)+ }
            }

            /// The book it stands in.
            #[must_use]
            pub const fn book(self) -> Book {
                match self { $(What::$name => Book::$book,)+ }
            }
        }
    };
}

events! {
    /// The broker started.
    Started = "started" in Admin,
    /// It is about to stop, as it was told to.
    Stopped = "stopped" in Admin,
    /// A device, application or user was added.
    Created = "created" in Admin,
    /// Many devices were added.
    Imported = "imported" in Admin,
    /// A device or application has a new token.
    Rotated = "rotated" in Admin,
    /// A rotation was taken back: the new token ended, the older ones live on.
    RolledBack = "rolled_back" in Admin,
    /// Tokens ended because the one that took their place was used.
    Replaced = "replaced" in Admin,
    /// Tokens ended because their time was over.
    Expired = "expired" in Admin,
    /// A device or application has a credential more, or another in the place of one.
    CredentialAdded = "credential_added" in Admin,
    /// One credential of several ended.
    CredentialEnded = "credential_ended" in Admin,
    /// When, from where and for what tokens are good was changed.
    TermsChanged = "terms_changed" in Admin,
    /// All tokens of a device, application or user ended.
    Revoked = "revoked" in Admin,
    /// What a device or application may do was changed.
    ScopeChanged = "scope_changed" in Admin,
    /// A device, application or user was removed.
    Deleted = "deleted" in Admin,
    /// A user was given a token.
    TokenIssued = "token_issued" in Admin,
    /// An admin token was made.
    AdminTokenCreated = "admin_token_created" in Admin,
    /// An admin token ended.
    AdminTokenRevoked = "admin_token_revoked" in Admin,
    /// An access key of the identity service was made.
    AccessKeyRenewed = "access_key_renewed" in Admin,
    /// A call of the admin API that is no plain reading; with its outcome.
    Call = "call" in Admin,
    /// New certificates are in use.
    CertificatesReloaded = "certificates_reloaded" in Admin,
    /// New certificates cannot be used; the old ones stay.
    CertificatesKept = "certificates_kept" in Admin,
    /// What a crash left of a last record was cut off.
    Cut = "cut" in Admin,
    /// Records of the audit are damaged or missing.
    Damaged = "damaged" in Admin,
    /// The oldest file went, because of the limit on disk.
    Removed = "removed" in Admin,
    /// A client was let in.
    Connected = "connected" in Access,
    /// A client was not.
    Refused = "refused" in Access,
    /// A client took the session of an older connection over.
    TakenOver = "taken_over" in Access,
    /// A call of the admin API, or a signed one, was refused because of who called.
    CallRefused = "call_refused" in Access,
    /// Something that an operator should look at.
    Alarm = "alarm" in Access,
    /// Events that are not told one by one.
    LeftOut = "left_out" in Access,
}

/// Who asked for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// By its public name: `admin`, or `access key 3`. Never a secret.
    pub by: Box<str>,
    /// Where the request came from.
    pub from: Option<IpAddr>,
}

/// An event with its facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    what: What,
    members: String,
}

impl Event {
    /// Nothing is known of it yet.
    #[must_use]
    pub fn new(what: What) -> Event {
        let members = String::new();
        Event { what, members }
    }

    /// Which one it is.
    #[must_use]
    pub fn what(&self) -> What {
        self.what
    }

    /// Its facts as members of a JSON object, each with a comma before it.
    pub(super) fn members(&self) -> &str {
        &self.members
    }

    /// Adds a text that comes from anywhere.
    #[must_use]
    pub fn text(mut self, name: &str, value: &str) -> Event {
        if self.begin(name) {
            quote(value, &mut self.members);
        }
        self
    }

    /// Adds a text if there is one.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<&str>) -> Event {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, name: &str, value: u64) -> Event {
        if self.begin(name) {
            let _ = write!(self.members, "{value}"); // writing to a String cannot fail
        }
        self
    }

    /// Adds a number if there is one.
    #[must_use]
    pub fn maybe_number(self, name: &str, value: Option<u64>) -> Event {
        match value {
            Some(value) => self.number(name, value),
            None => self,
        }
    }

    /// Adds what is true; nothing for what is not.
    #[must_use]
    pub fn flag(mut self, name: &str, value: bool) -> Event {
        if value && self.begin(name) {
            self.members.push_str("true");
        }
        self
    }

    /// Adds an id.
    #[must_use]
    pub fn id(mut self, name: &str, value: Uuid) -> Event {
        if self.begin(name) {
            let _ = write!(self.members, "\"{value}\"");
        }
        self
    }

    /// Adds an address.
    #[must_use]
    pub fn address(mut self, name: &str, value: IpAddr) -> Event {
        if self.begin(name) {
            let _ = write!(self.members, "\"{value}\"");
        }
        self
    }

    /// Adds numbers, such as of credentials that ended: nothing for none, at most 32.
    #[must_use]
    pub fn numbers(mut self, name: &str, values: &[u64]) -> Event {
        if values.is_empty() || !self.begin(name) {
            return self;
        }
        for (place, value) in values.iter().take(LIST_MAX).enumerate() {
            let _ = write!(
                self.members,
                "{}{value}",
                if place == 0 { '[' } else { ',' }
            );
        }
        self.members.push(']');
        self.and_more(name, values.len())
    }

    /// Adds texts: nothing for none, at most 32.
    #[must_use]
    pub fn texts<'t>(mut self, name: &str, values: impl Iterator<Item = &'t str>) -> Event {
        let mut count = 0;
        for value in values {
            if count == 0 && !self.begin(name) {
                return self;
            }
            // The first one always: a list that was begun is ended.
            let has_room = count < LIST_MAX && self.members.len() < MEMBERS_BYTES_MAX;
            if count == 0 || has_room {
                self.members.push(if count == 0 { '[' } else { ',' });
                quote(value, &mut self.members);
            }
            count += 1;
        }
        if count > 0 {
            self.members.push(']');
        }
        self.and_more(name, count)
    }

    /// Says who asked for it.
    #[must_use]
    pub fn by(self, caller: Option<&Caller>) -> Event {
        let Some(caller) = caller else {
            return self.text("by", "tollgate");
        };
        let event = self.text("by", &caller.by);
        match caller.from {
            Some(from) => event.address("from", from),
            None => event,
        }
    }

    fn and_more(self, name: &str, count: usize) -> Event {
        if count <= LIST_MAX {
            return self;
        }
        self.number(&format!("{name}_total"), count as u64)
    }

    /// Begins a member, if there is room for one more.
    fn begin(&mut self, name: &str) -> bool {
        if self.members.len() >= MEMBERS_BYTES_MAX {
            return false;
        }
        let _ = write!(self.members, ",\"{name}\":");
        true
    }
}

/// Writes a JSON string that a terminal shows as it is: letters and digits of any script, printable
/// ASCII; all else (control characters, what turns the direction of writing) escaped.
pub(super) fn quote(text: &str, out: &mut String) {
    let shown = cut(text, TEXT_BYTES_MAX);
    out.push('"');
    for c in shown.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if c.is_alphanumeric() => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    if shown.len() < text.len() {
        out.push_str("\\u2026");
    }
    out.push('"');
}

/// The beginning of a text: whole characters, at most so many bytes.
#[must_use]
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let end = text.floor_char_boundary(bytes_max);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> String {
        let mut out = String::new();
        quote(text, &mut out);
        out
    }

    #[test]
    fn s_23_what_a_client_sends_stays_one_harmless_string() {
        let evil = "a\r\nb\u{1b}[31m\"{}\\\u{7f}\u{85}\u{2028}\u{202e}\u{1f600}é";
        let text = quoted(evil);
        assert_eq!(
            text,
            "\"a\\u000d\\u000ab\\u001b[31m\\\"{}\\\\\\u007f\\u0085\\u2028\\u202e\\ud83d\\ude00é\""
        );
        let back: String = serde_json::from_str(&text).unwrap();
        assert_eq!(back, evil);
    }

    #[test]
    fn a_long_value_is_cut_at_a_character() {
        let text = quoted(&"é".repeat(1_000));
        let back: String = serde_json::from_str(&text).unwrap();
        assert_eq!(back, format!("{}…", "é".repeat(TEXT_BYTES_MAX / 2)));
    }

    #[test]
    fn sec_56_an_event_is_bounded_whatever_is_put_in() {
        let many: Vec<u64> = (0..100_000).collect();
        let long = "\u{1}".repeat(10_000);
        let mut event = Event::new(What::ScopeChanged).numbers("ended", &many);
        for place in 0..100 {
            event = event.texts(&format!("list_{place}"), (0..1_000).map(|_| long.as_str()));
        }
        let text = format!("{{\"a\":1{}}}", event.members());
        assert!(
            text.len() < super::super::record::LINE_BYTES_MAX - 512,
            "{}",
            text.len()
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["ended"].as_array().unwrap().len(), LIST_MAX);
        assert_eq!(value["ended_total"], 100_000);
    }

    #[test]
    fn an_empty_list_is_no_member() {
        let event = Event::new(What::Revoked).numbers("ended", &[]);
        assert_eq!(event.texts("publish", [].into_iter()).members(), "");
    }
}
