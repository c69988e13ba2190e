//! The database file: its making, its modes, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::thread;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set(store: &Store, name: &'static str) {
    store
        .write(move |transaction| devices::set_meta(transaction, name, b"x"))
        .unwrap();
}

fn get(store: &Store, name: &str) -> Option<Vec<u8>> {
    store
        .read(|connection| devices::meta(connection, name))
        .unwrap()
}

/// A database made by other means, with these two numbers in its header.
fn raw_database(dir: &Path, application_id: i64, version: i64, sql: &str) -> PathBuf {
    let path = dir.join(FILE_NAME);
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(sql).unwrap();
    connection
        .pragma_update(None, "application_id", application_id)
        .unwrap();
    connection
        .pragma_update(None, "user_version", version)
        .unwrap();
    path
}

fn refusal(dir: &Path) -> StoreError {
    match Store::open(dir) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[test]
fn sec_78_directory_and_files_belong_to_their_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/data");
    let store = Store::open(&dir).unwrap();
    set(&store, "something");
    assert_eq!(mode(&dir), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
        files += 1;
    }
    assert!(files >= 3, "state.db, -wal, -shm");
}

#[test]
fn sec_78_what_is_ours_is_closed_to_others_and_what_is_not_is_left() {
    let parent = tempfile::tempdir().unwrap();
    let (empty, shared) = (parent.path().join("empty"), parent.path().join("shared"));
    for dir in [&empty, &shared] {
        fs::create_dir(dir).unwrap();
        set_mode(dir, 0o755);
    }
    fs::write(shared.join("somebody else's"), "").unwrap();
    drop(Store::open(&empty).unwrap());
    drop(Store::open(&shared).unwrap());
    assert_eq!((mode(&empty), mode(&shared)), (0o700, 0o755));
    set_mode(&empty.join(FILE_NAME), 0o644);
    drop(Store::open(&empty).unwrap());
    assert_eq!(mode(&empty.join(FILE_NAME)), 0o600);
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    set(&store, "kept");
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(get(&store, "kept").as_deref(), Some(b"x".as_slice()));
    assert!(store.is_empty().unwrap());
}

#[test]
fn rel_10_a_newer_schema_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let newer = migrations::newest() + 1;
    let path = raw_database(
        dir.path(),
        migrations::APPLICATION_ID,
        newer,
        "CREATE TABLE t (a)",
    );
    let before = fs::read(&path).unwrap();
    let error = refusal(dir.path());
    assert!(
        matches!(error, StoreError::NewerSchema { found, .. } if found == newer),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no file was added"
    );
}

/// A newer version that was killed leaves its number in the write-ahead log only.
#[test]
fn rel_10_a_newer_schema_in_the_log_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let path = dir.path().join(FILE_NAME);
    let wal = dir.path().join("state.db-wal");
    let newer = Connection::open(&path).unwrap();
    newer
        .pragma_update(None, "user_version", migrations::newest() + 1)
        .unwrap();
    let (file_before, wal_before) = (fs::read(&path).unwrap(), fs::read(&wal).unwrap());
    let copy = tempfile::tempdir().unwrap();
    fs::copy(&path, copy.path().join(FILE_NAME)).unwrap();
    fs::copy(&wal, copy.path().join("state.db-wal")).unwrap();
    drop(newer);
    let error = refusal(copy.path());
    assert!(matches!(error, StoreError::NewerSchema { .. }), "{error}");
    assert_eq!(fs::read(copy.path().join(FILE_NAME)).unwrap(), file_before);
    assert_eq!(
        fs::read(copy.path().join("state.db-wal")).unwrap(),
        wal_before
    );
}

#[test]
fn rel_10_foreign_files_are_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    for content in ["short", &"this is a text file, not a database. ".repeat(10)] {
        fs::write(&path, content).unwrap();
        let error = refusal(dir.path());
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    fs::remove_file(&path).unwrap();
    for (application_id, version) in [(0x1234, 0), (0, 0), (0, 3)] {
        raw_database(
            dir.path(),
            application_id,
            version,
            "CREATE TABLE theirs (a)",
        );
        let before = fs::read(&path).unwrap();
        let error = refusal(dir.path());
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn rel_27_a_damaged_file_is_refused_with_what_where_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for number in 0..500 {
        let name = format!("device {number}");
        let id = uuid::Uuid::new_v4();
        store
            .write(move |tx| devices::insert(tx, id, &name, 1).map(|_| ()))
            .unwrap();
    }
    drop(store);
    let path = dir.path().join(FILE_NAME);
    let whole = fs::read(&path).unwrap();
    let page = 4096;
    let mut zeroed = whole.clone();
    zeroed[page * 5..page * 6].fill(0);
    let mut garbled = whole.clone();
    garbled[page + 3..page + 60].fill(0xa5);
    let cut = whole[..whole.len() - 2 * page].to_vec();
    let stub = whole[..50].to_vec();
    for (what, damaged) in [
        ("zeroed", zeroed),
        ("garbled", garbled),
        ("cut", cut),
        ("stub", stub),
    ] {
        fs::write(&path, &damaged).unwrap();
        let error = refusal(dir.path());
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "{what}: {error}"
        );
        let text = error.to_string();
        assert!(text.contains(&*path.to_string_lossy()), "{text}");
        assert!(text.contains("restore"), "{text}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "{what}: it was changed");
    }
}

#[test]
fn a_failed_migration_is_rolled_back_and_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let sql = "CREATE TABLE device (surprise)";
    let path = raw_database(dir.path(), migrations::APPLICATION_ID, 0, sql);
    let error = refusal(dir.path());
    assert!(
        matches!(error, StoreError::Migration { number: 1, .. }),
        "{error}"
    );
    let connection = Connection::open(path).unwrap();
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = refusal(&file.join("data"));
    assert!(matches!(error, StoreError::File { .. }), "{error}");
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[test]
fn many_writers_and_readers_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let other = Store::open(dir.path()).unwrap();
    thread::scope(|scope| {
        for writer in 0..16 {
            let store = if writer % 4 == 0 {
                other.clone()
            } else {
                store.clone()
            };
            scope.spawn(move || {
                for number in 0..25 {
                    let name = format!("{writer}/{number}");
                    let key = name.clone();
                    store
                        .write(move |tx| devices::set_meta(tx, &key, b"x"))
                        .unwrap();
                    assert!(get(&store, &name).is_some(), "answered and not readable");
                }
            });
        }
    });
    let count: i64 = store
        .read(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM meta", [], |row| row.get(0))?)
        })
        .unwrap();
    assert_eq!(count, 400);
}

#[test]
fn then_runs_in_the_order_of_the_commits_before_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let order = Arc::clone(&seen);
                    let number = store
                        .write_then(next_number, move |number| {
                            order.lock().unwrap().push(number);
                            number
                        })
                        .unwrap();
                    assert!(seen.lock().unwrap().contains(&number));
                }
            });
        }
    });
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 200);
    assert!(seen.is_sorted(), "{seen:?}");
}

fn next_number(transaction: &Transaction<'_>) -> Result<i64, StoreError> {
    let sql = "INSERT INTO checkpoint (name, offset) VALUES ('n', 1)
               ON CONFLICT (name) DO UPDATE SET offset = offset + 1 RETURNING offset";
    Ok(transaction.query_row(sql, [], |row| row.get(0))?)
}

#[test]
fn readers_beyond_the_limit_wait_for_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (inside, entered) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    // `go` moves in, so that a failure in here lets the readers go.
    thread::scope(move |scope| {
        for _ in 0..readers::READERS_MAX + 1 {
            let (store, inside, wait) = (store.clone(), inside.clone(), Arc::clone(&wait));
            scope.spawn(move || {
                let read = store.read(|_| {
                    inside.send(()).unwrap();
                    wait.lock().unwrap().recv().unwrap();
                    Ok(())
                });
                read.unwrap();
            });
        }
        for _ in 0..readers::READERS_MAX {
            entered.recv().unwrap();
        }
        assert!(entered.try_recv().is_err(), "one reader too many");
        go.send(()).unwrap();
        entered.recv().unwrap(); // its turn has come
        for _ in 0..readers::READERS_MAX {
            go.send(()).unwrap();
        }
    });
}

#[test]
fn a_panic_in_a_request_stops_the_writer_and_no_one_is_told_success() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    set(&store, "before");
    let panicked = store.write(|transaction| -> Result<(), StoreError> {
        devices::set_meta(transaction, "half", b"x")?;
        panic!("a bug")
    });
    assert!(matches!(panicked, Err(StoreError::Stopped)));
    let later = store.write(|transaction| devices::set_meta(transaction, "later", b"x"));
    assert!(matches!(later, Err(StoreError::Stopped)));
    assert!(get(&store, "before").is_some());
    assert!(get(&store, "half").is_none());
}

#[test]
fn numbers_that_do_not_fit_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let write = store.write(|transaction| {
        let sql = "INSERT INTO checkpoint (name, offset) VALUES ('big', ?1)";
        Ok(transaction.execute(sql, [Unsigned(u64::MAX)])?)
    });
    assert!(matches!(write, Err(StoreError::Sqlite(_))));
    let read = store.read(|connection| {
        Ok(connection.query_row("SELECT -1", [], |row| row.get::<_, Unsigned>(0))?)
    });
    assert!(matches!(read, Err(StoreError::Sqlite(_))));
}

/// A database of schema 3, with what a broker of that time kept of sessions.
#[test]
fn rel_10_sessions_of_schema_3_are_read_and_those_of_revoked_devices_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut sql = migrations::STEPS[..3].concat();
    for (number, name, revoked_ms) in [(1, "live", "NULL"), (2, "revoked", "7")] {
        sql += &format!(
            "INSERT INTO device (number, id, name, created_ms, generation)
             VALUES ({number}, x'{number:032x}', '{name}', 1, 4);
             INSERT INTO credential (device, kind, digest, chosen, created_ms, revoked_ms)
             VALUES ({number}, 0, x'{number:064x}', 0, 1, {revoked_ms});
             INSERT INTO session (number, device, client_id, expiry_s, qos2_ids, filters)
             VALUES ({number}, x'{number:032x}', 'c', 60, x'4d00', '1 a/#' || char(10) ||
                     '0@5:17 v1/devices/+/telemetry');"
        );
    }
    sql += "INSERT INTO checkpoint (name, offset) VALUES ('sessions', 99);";
    raw_database(dir.path(), migrations::APPLICATION_ID, 3, &sql);
    let store = Store::open(dir.path()).unwrap();
    let (rows, offset, generations) = store
        .read(|connection| {
            let of = |n| devices::state_generation(connection, uuid::Uuid::from_u128(n));
            let generations = [of(1)?, of(2)?, of(3)?];
            let offset = sessions::offset(connection)?;
            Ok((sessions::load(connection)?, offset, generations))
        })
        .unwrap();
    assert_eq!(offset, 99);
    // Whatever the live device has left counts; of the other one nothing does.
    assert_eq!(generations, [Some(0), None, None]);
    let [row] = rows.as_slice() else {
        panic!("{rows:?}");
    };
    assert_eq!((row.number, row.generation), (1, 4));
    assert_eq!(row.unreleased, [77]);
    let filters = row.filters.iter();
    let filters = filters.map(|row| (row.options, row.id, &*row.filter, row.start, row.settled));
    let expected = [
        (1, None, "a/#", 0, None),
        (0, None, "v1/devices/+/telemetry", 5, Some(17)),
    ];
    assert_eq!(filters.collect::<Vec<_>>(), expected);
    // A new token does not bring back what was left before the revocation.
    let first: u32 = store
        .read(|connection| {
            let sql = "SELECT state_generation FROM device WHERE number = 2";
            Ok(connection.query_row(sql, [], |row| row.get(0))?)
        })
        .unwrap();
    assert_eq!(first, 4);
}

/// A database of schema 6, with tokens of users that end by themselves.
#[test]
fn rel_10_tokens_of_schema_6_are_read_and_only_those_of_users_are_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut sql = migrations::STEPS[..6].concat();
    for (number, kind, expires_ms) in [(1, 0, "NULL"), (2, 2, "2000")] {
        let credential = if kind == 2 { 2 } else { 1 };
        sql += &format!(
            "INSERT INTO device (number, id, name, created_ms, generation, kind)
             VALUES ({number}, x'{number:032x}', 'n{number}', 1, 4, {kind});
             INSERT INTO credential (device, kind, digest, chosen, created_ms, expires_ms)
             VALUES ({number}, {credential}, x'{number:064x}', 0, 1, {expires_ms});"
        );
    }
    raw_database(dir.path(), migrations::APPLICATION_ID, 6, &sql);
    let store = Store::open(dir.path()).unwrap();
    let mut live = Vec::new();
    store
        .read(|connection| {
            let all = load::extent(connection)?.credentials;
            load::each_live(connection, all, |found| live.push(found))
        })
        .unwrap();
    let found: Vec<_> = live
        .iter()
        .map(|found| (found.kind, found.row.expires_ms))
        .collect();
    assert_eq!(found, [(0, None), (2, Some(2_000))]);
    assert!(live.iter().all(|found| found.row.terms.is_none()));
    // A device's token may end by itself now; each is cleared away in its own manner.
    let (ended, removed, next) = store
        .write(|transaction| {
            terms::set_expiry(transaction, 1, Some(1_000))?;
            let row = terms::TermsRow {
                not_before_ms: Some(500),
                rights: Some(3),
                networks: "10.0.0.0/8".into(),
                connections_max: Some(2),
                messages_max: Some(7),
                certificate: Some(Box::new([9; 32])),
            };
            terms::set(transaction, 1, &row)?;
            let next = terms::next_end(transaction)?;
            let removed = users::remove_expired(transaction, 5_000, 10)?;
            Ok((terms::end_due(transaction, 5_000, 10)?, removed, next))
        })
        .unwrap();
    assert_eq!(next, Some(1_000), "of users' tokens nothing is noted");
    assert_eq!(ended.iter().map(|row| row.id).collect::<Vec<_>>(), [1]);
    assert_eq!(removed.iter().map(|gone| gone.0).collect::<Vec<_>>(), [2]);
    let credential = store
        .read(|connection| {
            let row = devices::by_name(connection, "n1")?.unwrap();
            Ok(devices::credentials(connection, &row)?.remove(0))
        })
        .unwrap();
    assert_eq!(credential.revoked_ms, Some(1_000));
    let terms = credential.terms;
    assert_eq!((terms.rights, &*terms.networks), (Some(3), "10.0.0.0/8"));
    assert_eq!(
        (terms.connections_max, terms.messages_max),
        (Some(2), Some(7))
    );
    assert_eq!(terms.certificate.as_deref(), Some(&[9; 32]));
}
