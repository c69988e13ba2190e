//! The schema, as numbered steps. A step that was ever on main is never changed: a new one is
//! added below it.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// "Toll" in ASCII: says that a SQLite file is ours.
pub(super) const APPLICATION_ID: i64 = 0x546f_6c6c;

/// Step n (counting from 1) leads to schema version n.
pub(super) const STEPS: &[&str] = &[
    VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5, VERSION_6, VERSION_7, VERSION_8,
    VERSION_9, VERSION_10, VERSION_11, VERSION_12, VERSION_13,
];

/// `device.number` keeps joins on small integers; `device.id` is what the world sees.
///
/// `credential.digest` is the whole HMAC-SHA-256 of the token; ended ones stay (a few per device)
/// so that a revoked token is recognised as such and never given out again (REL-08).
/// `tombstone.offset` is the journal offset up to which a deleted device's records are dead.
/// `session` and `checkpoint` belong to the broker.
const VERSION_1: &str = "
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE device (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    name TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    generation INTEGER NOT NULL CHECK (generation > 0)
) STRICT;

CREATE TABLE credential (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    device INTEGER NOT NULL REFERENCES device (number) ON DELETE CASCADE,
    kind INTEGER NOT NULL,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    chosen INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER
) STRICT;

CREATE INDEX credential_of_device ON credential (device);

CREATE TABLE tombstone (
    device BLOB PRIMARY KEY CHECK (length(device) = 16),
    offset INTEGER NOT NULL,
    deleted_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
    number INTEGER PRIMARY KEY,
    device BLOB NOT NULL CHECK (length(device) = 16),
    client_id TEXT NOT NULL,
    expiry_s INTEGER NOT NULL,
    ended_ms INTEGER,
    qos2_ids BLOB NOT NULL,
    filters TEXT NOT NULL,
    UNIQUE (device, client_id)
) STRICT;

CREATE TABLE checkpoint (
    name TEXT PRIMARY KEY,
    offset INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// The name of the device's profile (ThingsBoard's device type) and a label for people.
const VERSION_2: &str = "
ALTER TABLE device ADD COLUMN profile TEXT NOT NULL DEFAULT 'default';
ALTER TABLE device ADD COLUMN label TEXT NOT NULL DEFAULT '';
";

/// A row of `device` is an identity: a device (kind 0) or an application (kind 1), so that names,
/// tokens and credential numbers are unique across both. `application` holds what an application
/// may do: filters, one a line.
const VERSION_3: &str = "
ALTER TABLE device ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;

CREATE TABLE application (
    number INTEGER PRIMARY KEY REFERENCES device (number) ON DELETE CASCADE,
    publish TEXT NOT NULL,
    subscribe TEXT NOT NULL
) STRICT;
";

/// What the broker keeps of messages between two starts; all of it is derived from the journal up
/// to the offset in `checkpoint`.
///
/// `device.state_generation` is the first generation of an identity whose state counts: what it
/// left behind with an earlier one (sessions, wills, retained messages) was dropped by a revocation
/// and never comes back. Of sessions that are there, only live identities' stay.
///
/// `queued` names messages of `message` by their offset; a message without a row there goes. The
/// names in `retained` are in byte order, in which a start reads them.
const VERSION_4: &str = "
ALTER TABLE device ADD COLUMN state_generation INTEGER NOT NULL DEFAULT 0;

UPDATE device SET state_generation = generation WHERE NOT EXISTS (
    SELECT 1 FROM credential AS c WHERE c.device = device.number AND c.revoked_ms IS NULL);

ALTER TABLE session ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

DELETE FROM session WHERE NOT EXISTS (
    SELECT 1 FROM device AS d JOIN credential AS c ON c.device = d.number
    WHERE d.id = session.device AND c.revoked_ms IS NULL);

UPDATE session SET generation = (SELECT d.generation FROM device AS d WHERE d.id = session.device);

CREATE TABLE message (
    offset INTEGER PRIMARY KEY,
    publisher BLOB NOT NULL CHECK (length(publisher) = 16),
    credential INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    topic TEXT NOT NULL,
    properties BLOB NOT NULL,
    payload BLOB NOT NULL
) STRICT;

CREATE TABLE queued (
    session INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    ids BLOB NOT NULL,
    share TEXT,
    packet_id INTEGER,
    received INTEGER NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (session, offset)
) STRICT, WITHOUT ROWID;

CREATE INDEX queued_of_message ON queued (offset);

CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    offset INTEGER NOT NULL,
    publisher BLOB NOT NULL CHECK (length(publisher) = 16),
    credential INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    properties BLOB NOT NULL,
    payload BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX retained_of_publisher ON retained (publisher);

CREATE INDEX retained_expiring ON retained (expires_ms) WHERE expires_ms IS NOT NULL;

CREATE TABLE will (
    session INTEGER PRIMARY KEY,
    credential INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
";

/// Devices have scopes too, so that the table is named after what it holds. An application always
/// has a row; a device without one has its own topics and nothing else.
const VERSION_5: &str = "
ALTER TABLE application RENAME TO scope;
";

/// Users of the identity service are identities of kind 2; their tokens are credentials of kind 2
/// that end by themselves (`expires_ms`), have scopes (bits) and name the version of the access key
/// that their request was signed with. `access_key` holds the keys in use, sealed: 0 is the primary
/// one, 1 the secondary; versions only grow. A tombstone says what kind it stands for.
const VERSION_6: &str = "
ALTER TABLE credential ADD COLUMN expires_ms INTEGER;
ALTER TABLE credential ADD COLUMN scopes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE credential ADD COLUMN access_key INTEGER;

CREATE INDEX credential_expiring ON credential (expires_ms) WHERE expires_ms IS NOT NULL;

CREATE INDEX credential_of_key ON credential (access_key) WHERE access_key IS NOT NULL;

ALTER TABLE tombstone ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;

CREATE TABLE access_key (
    name INTEGER PRIMARY KEY CHECK (name IN (0, 1)),
    version INTEGER NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    sealed BLOB NOT NULL
) STRICT;
";

/// A token has terms: what it allows and when (`terms`; no row is no terms but an end, which is
/// `credential.expires_ms` for tokens of every kind). Networks stand one a line. A token whose
/// place another took (`superseded_by`) ends at the end of the grace time; `expires_before_ms` is
/// the end it had before that, for the way back. The other one may end it when it is first used
/// (`retires_older`). Ended by time, `revoked_ms` says so too.
const VERSION_7: &str = "
ALTER TABLE credential ADD COLUMN superseded_by INTEGER;
ALTER TABLE credential ADD COLUMN expires_before_ms INTEGER;
ALTER TABLE credential ADD COLUMN retires_older INTEGER NOT NULL DEFAULT 0;

CREATE TABLE terms (
    credential INTEGER PRIMARY KEY REFERENCES credential (id) ON DELETE CASCADE,
    not_before_ms INTEGER,
    rights INTEGER,
    networks TEXT NOT NULL,
    connections_max INTEGER,
    messages_max INTEGER
) STRICT;

DROP INDEX credential_expiring;

CREATE INDEX credential_expiring ON credential (expires_ms)
    WHERE expires_ms IS NOT NULL AND kind = 2;

CREATE INDEX credential_due ON credential (expires_ms)
    WHERE expires_ms IS NOT NULL AND kind <> 2 AND revoked_ms IS NULL;

CREATE INDEX credential_superseded ON credential (id)
    WHERE superseded_by IS NOT NULL AND revoked_ms IS NULL;
";

/// What revoked credentials wrote from a time on is marked by device, first record in the journal
/// and last credential. A moment says that records up to `offset` had come by then.
const VERSION_8: &str = "
CREATE TABLE suspect (
    number INTEGER PRIMARY KEY,
    device BLOB NOT NULL CHECK (length(device) = 16),
    first_offset INTEGER NOT NULL,
    credential_max INTEGER NOT NULL,
    from_ms INTEGER NOT NULL,
    revoked_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX suspect_of_device ON suspect (device);

CREATE TABLE moment (
    received_ms INTEGER PRIMARY KEY,
    offset INTEGER NOT NULL
) STRICT;
";

/// Tokens of the admin API, besides the one in the secrets directory. `number` is never used again,
/// so that what one token began is not taken for another's; `scope` is 0 (read), 1 (operate) or 2
/// (admin). A revoked one is removed.
const VERSION_9: &str = "
CREATE TABLE admin_token (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    scope INTEGER NOT NULL CHECK (scope IN (0, 1, 2)),
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER
) STRICT;
";

/// MQTT Basic credentials are credentials of kind 3; `basic` says what they are compared with: the
/// client id (form 1), the user name (2) or both (3), which `credential.digest` stands for, and
/// perhaps a password.
const VERSION_10: &str = "
CREATE TABLE basic (
    credential INTEGER PRIMARY KEY REFERENCES credential (id) ON DELETE CASCADE,
    form INTEGER NOT NULL CHECK (form IN (1, 2, 3)),
    password BLOB CHECK (password IS NULL OR length(password) = 32)
) STRICT;
";

/// `audit_outbox`: what the audit is to tell of changes that are committed here, until its file has
/// it. Numbers are never used twice: they stand in the file too, so that none is told twice.
const VERSION_11: &str = "
CREATE TABLE audit_outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    event TEXT NOT NULL,
    members TEXT NOT NULL
) STRICT;
";

/// Certificates of clients are credentials of kind 4: `credential.digest` is that of the
/// fingerprint, and `credential.expires_ms` is never later than `ends_ms`, the certificate's end.
const VERSION_12: &str = "
CREATE TABLE certificate (
    credential INTEGER PRIMARY KEY REFERENCES credential (id) ON DELETE CASCADE,
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    ends_ms INTEGER NOT NULL
) STRICT;
";

/// A token may be bound to a client's certificate: `terms.certificate` is the SHA-256 of its DER.
/// The names of MQTT Basic credentials that ask for a password too are kept, for people who have to
/// tell them apart; without a password they are the secret, and are not.
const VERSION_13: &str = "
ALTER TABLE basic ADD COLUMN client_id TEXT;
ALTER TABLE basic ADD COLUMN user_name TEXT;

ALTER TABLE terms ADD COLUMN certificate BLOB
    CHECK (certificate IS NULL OR length(certificate) = 32);
";

/// The newest schema version this program knows.
pub(super) fn newest() -> i64 {
    i64::try_from(STEPS.len()).expect("the steps are a short list in this file")
}

/// Applies the steps that are missing, each in its own transaction.
pub(super) fn apply(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    for (number, step) in (1..).zip(STEPS) {
        apply_step(connection, number, step).map_err(|source| StoreError::Migration {
            number,
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(())
}

fn apply_step(connection: &mut Connection, number: i64, step: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read inside the transaction: another process may have done this step meanwhile.
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version >= number {
        return Ok(());
    }
    transaction.execute_batch(step)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", number)?;
    transaction.commit()
}
