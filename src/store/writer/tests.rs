//! The writer against what requests and the disk can do to it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::TrySendError;

use rusqlite::ffi;

use super::*;
use crate::store::file;

fn database() -> (tempfile::TempDir, std::path::PathBuf, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let path = file::prepare(dir.path()).unwrap();
    let connection = file::open_for_writing(&path).unwrap();
    (dir, path, connection)
}

type Answer<T> = Receiver<Result<T, StoreError>>;

fn request<T: Send + 'static>(
    work: impl FnMut(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
) -> (Box<dyn Request>, Answer<T>) {
    let (reply, answer) = mpsc::sync_channel(1);
    (
        Box::new(Write {
            work,
            then: |value| value,
            done: None,
            is_spare: false,
            reply,
        }),
        answer,
    )
}

/// A request that can wait, and does not fit on the disk for as long as `is_full`.
fn spare(is_full: &Arc<AtomicBool>) -> (Box<dyn Request>, Answer<()>) {
    let (reply, answer) = mpsc::sync_channel(1);
    let is_full = Arc::clone(is_full);
    let work = move |transaction: &Transaction<'_>| match is_full.load(Ordering::Relaxed) {
        true => Err(code(ffi::SQLITE_FULL)),
        false => crate::store::devices::set_meta(transaction, "spare", b"1"),
    };
    let request = Box::new(Write {
        work,
        then: |value| value,
        done: None,
        is_spare: true,
        reply,
    });
    (request, answer)
}

fn set(name: &'static str, value: &'static [u8]) -> (Box<dyn Request>, Answer<()>) {
    request(move |transaction| crate::store::devices::set_meta(transaction, name, value))
}

fn code(extended: i32) -> StoreError {
    StoreError::Sqlite(rusqlite::Error::SqliteFailure(
        ffi::Error::new(extended),
        None,
    ))
}

fn state(connection: Connection, hook: Option<DiskFullHook>) -> State {
    State {
        connection,
        hook: Arc::new(Mutex::new(hook)),
        failed: None,
    }
}

fn names(connection: &Connection) -> Vec<String> {
    let mut statement = connection
        .prepare("SELECT name FROM meta ORDER BY name")
        .unwrap();
    statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

#[test]
fn a_failing_request_is_undone_and_its_neighbours_are_kept() {
    let (_dir, _, connection) = database();
    let mut state = state(connection, None);
    let (first, first_answer) = set("first", b"1");
    let (failing, failing_answer) = request(|transaction| -> Result<(), StoreError> {
        crate::store::devices::set_meta(transaction, "failing", b"2")?;
        transaction.execute("INSERT INTO meta (name) VALUES ('no value')", [])?;
        Ok(())
    });
    let (last, last_answer) = set("last", b"3");
    state.serve(vec![first, failing, last]);
    first_answer.recv().unwrap().unwrap();
    assert!(matches!(
        failing_answer.recv().unwrap(),
        Err(StoreError::Sqlite(_))
    ));
    last_answer.recv().unwrap().unwrap();
    assert_eq!(names(&state.connection), ["first", "last"]);
}

#[test]
fn rel_01_nothing_is_answered_before_the_commit() {
    let (_dir, path, connection) = database();
    let mut state = state(connection, None);
    let (first, answer) = set("first", b"1");
    let answer = Arc::new(Mutex::new(answer));
    let seen = Arc::clone(&answer);
    let (second, second_answer) = request(move |_| {
        // The first request has run in this very transaction, and is not answered yet.
        assert!(seen.lock().unwrap().try_recv().is_err());
        let reader = file::open_for_reading(&path)?;
        Ok(names(&reader))
    });
    state.serve(vec![first, second]);
    assert!(
        second_answer.recv().unwrap().unwrap().is_empty(),
        "visible before the commit"
    );
    answer.lock().unwrap().recv().unwrap().unwrap();
}

/// Fills the database up to a page limit that the second run, after the hook, does not have.
#[test]
fn rel_28_a_full_disk_is_tried_once_more_after_the_hook() {
    let (_dir, _, connection) = database();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let hook: DiskFullHook = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        true
    });
    let mut state = state(connection, Some(hook));
    let freed = Arc::clone(&asked);
    let (big, big_answer) = request(move |transaction| {
        let pages = if freed.load(Ordering::Relaxed) == 0 {
            1
        } else {
            1_000_000
        };
        transaction.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        crate::store::devices::set_meta(transaction, "big", &vec![7; 1 << 20])
    });
    let (neighbour, neighbour_answer) = set("neighbour", b"1");
    state.serve(vec![neighbour, big]);
    big_answer.recv().unwrap().unwrap();
    neighbour_answer.recv().unwrap().unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(names(&state.connection), ["big", "neighbour"]);
}

#[test]
fn rel_28_a_disk_that_stays_full_refuses_and_later_works_again() {
    let (_dir, _, connection) = database();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let hook: DiskFullHook = Arc::new(move || counted.fetch_add(1, Ordering::Relaxed) < 100);
    let mut state = state(connection, Some(hook));
    let (full, full_answer) = request(|_| Err::<(), _>(code(ffi::SQLITE_FULL)));
    let (neighbour, neighbour_answer) = set("neighbour", b"1");
    state.serve(vec![neighbour, full]);
    assert!(matches!(full_answer.recv().unwrap(), Err(StoreError::Full)));
    assert!(matches!(
        neighbour_answer.recv().unwrap(),
        Err(StoreError::Full)
    ));
    assert_eq!(asked.load(Ordering::Relaxed), 1, "one retry, not more");
    let (later, later_answer) = set("later", b"1");
    state.serve(vec![later]);
    later_answer.recv().unwrap().unwrap();
    assert_eq!(names(&state.connection), ["later"]);
}

/// The space kept aside is for revocations: what happens in the background does not use it up, and
/// does not keep others from being written either.
#[test]
fn rel_28_what_can_wait_leaves_the_space_kept_aside_to_others() {
    let (_dir, _, connection) = database();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let hook: DiskFullHook = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        true
    });
    let mut state = state(connection, Some(hook));
    let is_full = Arc::new(AtomicBool::new(true));
    let (alone, alone_answer) = spare(&is_full);
    state.serve(vec![alone]);
    assert!(matches!(
        alone_answer.recv().unwrap(),
        Err(StoreError::Full)
    ));
    let (beside, beside_answer) = spare(&is_full);
    let (wanted, wanted_answer) = set("wanted", b"1");
    state.serve(vec![beside, wanted]);
    assert!(matches!(
        beside_answer.recv().unwrap(),
        Err(StoreError::Full)
    ));
    wanted_answer.recv().unwrap().unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nobody needed it");
    is_full.store(false, Ordering::Relaxed);
    let (later, later_answer) = spare(&is_full);
    state.serve(vec![later]);
    later_answer.recv().unwrap().unwrap();
    assert_eq!(names(&state.connection), ["spare", "wanted"]);
}

#[test]
fn rel_04_after_a_failed_sync_nothing_is_written() {
    let (_dir, _, connection) = database();
    let mut state = state(connection, None);
    let (before, before_answer) = set("before", b"1");
    let (failing, failing_answer) = request(|_| Err::<(), _>(code(ffi::SQLITE_IOERR_FSYNC)));
    state.serve(vec![before, failing]);
    assert!(matches!(
        before_answer.recv().unwrap(),
        Err(StoreError::Failed(_))
    ));
    assert!(matches!(
        failing_answer.recv().unwrap(),
        Err(StoreError::Failed(_))
    ));
    let (later, later_answer) = set("later", b"1");
    state.serve(vec![later]);
    assert!(matches!(
        later_answer.recv().unwrap(),
        Err(StoreError::Failed(_))
    ));
    assert!(names(&state.connection).is_empty());
}

#[test]
fn a_request_that_ends_the_shared_transaction_fails_all_of_it() {
    let (_dir, _, connection) = database();
    let mut state = state(connection, None);
    let (before, before_answer) = set("before", b"1");
    let (rogue, rogue_answer) = request(|transaction| Ok(transaction.execute_batch("ROLLBACK")?));
    let (after, after_answer) = set("after", b"1");
    state.serve(vec![before, rogue, after]);
    for answer in [before_answer, rogue_answer, after_answer] {
        assert!(matches!(
            answer.recv().unwrap(),
            Err(StoreError::NotCommitted(_))
        ));
    }
    assert!(names(&state.connection).is_empty());
}

#[test]
fn the_queue_has_its_limit() {
    let (_dir, path, connection) = database();
    let writer = Writer::start(&path, connection).unwrap();
    let sender = writer.requests.as_ref().unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let (started, running) = mpsc::channel();
    let (blocking, _answer) = request(move |_| {
        started.send(()).unwrap();
        let _ = wait.recv();
        Ok(())
    });
    sender.send(blocking).unwrap();
    running.recv().unwrap();
    // What the writer had not taken when it started counts, so the queue itself is empty now.
    for _ in 0..WRITES_WAITING_MAX {
        sender.try_send(set("filler", b"1").0).ok().unwrap();
    }
    let refused = sender.try_send(set("one too many", b"1").0);
    assert!(matches!(refused, Err(TrySendError::Full(_))));
    drop(go);
}
