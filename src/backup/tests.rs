//! The seal, without a broker: every byte counts.

use super::seal::{Opener, Sealer};
use super::{BackupError, Passphrase};

fn passphrase() -> Passphrase {
    Passphrase::new("a passphrase of the tests\n").unwrap()
}

fn sealed(content: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::new(Vec::new(), &passphrase()).unwrap();
    sealer.put(content).unwrap();
    sealer.finish().unwrap()
}

fn opened(bytes: &[u8], len: usize) -> Result<Vec<u8>, BackupError> {
    let mut opener = Opener::new(bytes, &passphrase())?;
    let mut content = Vec::new();
    while content.len() < len {
        content.extend_from_slice(opener.some((len - content.len()) as u64)?);
    }
    opener.end()?;
    Ok(content)
}

#[test]
fn what_was_sealed_is_opened_whatever_its_length() {
    for len in [0, 1, 65_535, 65_536, 65_537, 200_000] {
        let content: Vec<u8> = (0..=250).cycle().take(len).collect();
        let bytes = sealed(&content);
        assert!(opened(&bytes, len).unwrap() == content, "{len}");
        assert!(opened(&bytes, len + 1).is_err(), "{len}");
    }
}

#[test]
fn chunks_cannot_be_exchanged_left_out_or_taken_from_another_file() {
    let content = vec![5; 3 * 65_536];
    let (one, two) = (sealed(&content), sealed(&content));
    let chunk = 4 + 65_536 + 16;
    let part = |bytes: &[u8], number: usize| {
        bytes[80 + number * chunk..80 + (number + 1) * chunk].to_vec()
    };
    let exchanged = [&one[..80], &part(&one, 1), &part(&one, 0), &part(&one, 2)].concat();
    let left_out = [&one[..80], &part(&one, 0), &part(&one, 2)].concat();
    let foreign = [&one[..80], &part(&one, 0), &part(&two, 1), &part(&one, 2)].concat();
    let twice = [&one[..], &part(&one, 2)].concat();
    for bytes in [exchanged, left_out, foreign, twice] {
        let refused = opened(&bytes, content.len());
        assert!(matches!(refused, Err(BackupError::Damaged { .. })));
    }
    assert!(opened(&one, content.len()).is_ok());
}
