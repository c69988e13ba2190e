//! A backup of a broker that runs holds a consistent prefix: of messages, too.

use std::sync::Arc;

use tempfile::TempDir;
use tollgate::backup::{self, Folders, Passphrase};
use tollgate::broker::record::queue;
use tollgate::journal::RecordKind;

use crate::place::Place;

fn folders(dir: &TempDir) -> Folders {
    let in_dir = |name| dir.path().join(name);
    Folders {
        data: in_dir("data"),
        secrets: in_dir("secrets"),
        certs: in_dir("certs"),
    }
}

#[test]
fn rel_44_a_backup_holds_queues_wills_and_retained_messages() {
    let mut place = Place::new();
    let device = place.device("pump");
    place.begin(1, device, Some("gone"));
    let passphrase = Passphrase::new("a passphrase of the tests\n").expect("long enough");
    let mut backups = Vec::new();
    // Some of them with all of it in the journal, some with a part in the database, and with
    // checkpoints under way.
    for round in 0..40_u32 {
        let text = format!("{round}");
        let records = [
            place.message(device, "t", &text, false, &[1]),
            place.message(device, "last", &text, true, &[]),
            place.message(device, &format!("r/{round:02}"), &text, true, &[]),
        ];
        let first = place.write(&records);
        if round % 2 == 1 {
            let mut body = Vec::new();
            queue::put(&mut body, 1, first);
            place.write(&[(queue::header(RecordKind::Settled, 1), body)]);
        }
        if round % 8 == 7 {
            let filler = place.header(RecordKind::Telemetry, device, 0);
            for _ in 0..9 {
                place.write(&[(filler, vec![b' '; 30_000])]);
            }
            let (_, bytes) = backup::write(
                &folders(&place.dir),
                &place.journal,
                &passphrase,
                Vec::new(),
            )
            .expect("a backup");
            backups.push((round, bytes));
        }
        if round == 20 {
            place = place.restart();
        }
    }
    for (round, bytes) in backups {
        let dir = TempDir::with_prefix("tollgate-durability-").expect("a temporary directory");
        backup::restore(&folders(&dir), &passphrase, bytes.as_slice()).expect("a restore");
        let copy = Place::open(Arc::new(dir));
        let unsettled: Vec<String> = (0..=round)
            .filter(|round| round % 2 == 0)
            .map(|round| round.to_string())
            .collect();
        assert_eq!(copy.queued(1), unsettled, "after round {round}");
        let mut retained: Vec<(String, String)> = (0..=round)
            .map(|round| (format!("r/{round:02}"), round.to_string()))
            .collect();
        retained.insert(0, ("last".to_owned(), round.to_string()));
        assert_eq!(copy.retained(), retained, "after round {round}");
        assert!(copy.stored(1).expect("it is kept").state.will.is_some());
        copy.stop();
    }
    place.stop();
}
