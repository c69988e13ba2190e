//! Sealing and opening: passphrase to key, chunks that cannot be changed, cut or exchanged.

use std::io::{self, Read, Write};
use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, pbkdf2, rand};

use super::BackupError;

/// The newest format that is known here.
pub const FORMAT_VERSION: u32 = 1;

/// Shortest passphrase, bytes.
pub const PASSPHRASE_BYTES_MIN: usize = 12;

const MAGIC: &[u8; 8] = b"TOLLBKUP";

/// Bytes of the header. Its form, with the checksum at its end, is the same in every version.
pub(super) const HEADER_BYTES: usize = 80;

/// PBKDF2 with HMAC-SHA-256.
const KDF: u32 = 1;

/// About a third of a second of one core for each try at a passphrase.
const ITERATIONS: u32 = 1_000_000;

/// What is accepted in a header: not less than what makes guessing dear, not more than what a
/// restore can wait for.
const ITERATIONS_ALLOWED: std::ops::RangeInclusive<u32> = 600_000..=10_000_000;

const SALT_AT: usize = 24;
const SALT_BYTES: usize = 32;
const CHECK_AT: usize = SALT_AT + SALT_BYTES;
const CHECK_BYTES: usize = 16;
const CHECKSUM_AT: usize = HEADER_BYTES - 4;

/// Bytes of content in a chunk.
const CHUNK_BYTES: usize = 64 * 1024;
const TAG_BYTES: usize = 16;
/// In a chunk's length: it is the last one.
const LAST: u32 = 1 << 31;

/// What opens a backup. Overwritten when dropped, as well as safe code can.
pub struct Passphrase(Vec<u8>);

impl Passphrase {
    /// Takes one; line ends at its end do not belong to it.
    ///
    /// # Errors
    /// [`BackupError::Weak`].
    pub fn new(text: &str) -> Result<Passphrase, BackupError> {
        let text = text.trim_end_matches(['\r', '\n']);
        if text.len() < PASSPHRASE_BYTES_MIN {
            return Err(BackupError::Weak);
        }
        Ok(Passphrase(text.as_bytes().to_vec()))
    }
}

impl Drop for Passphrase {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(redacted)")
    }
}

/// The key of one file, and what tells a wrong passphrase.
struct Keys {
    seal: LessSafeKey,
    check: [u8; CHECK_BYTES],
}

impl Keys {
    fn derive(passphrase: &Passphrase, salt: &[u8], iterations: u32) -> Option<Keys> {
        let iterations = NonZeroU32::new(iterations)?;
        let mut master = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            &passphrase.0,
            &mut master,
        );
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &master);
        master.fill(0);
        let key = hmac::sign(&mac, b"tollgate backup 1 key");
        let check = hmac::sign(&mac, b"tollgate backup 1 check");
        Some(Keys {
            seal: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).ok()?),
            check: *check.as_ref().first_chunk()?,
        })
    }
}

/// Number of the chunk and whether it is the last: never twice under one key, as every file has
/// a salt of its own.
fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    let (count, flag) = bytes.split_at_mut(8);
    count.copy_from_slice(&number.to_le_bytes());
    if let Some(first) = flag.first_mut() {
        *first = u8::from(is_last);
    }
    Nonce::assume_unique_for_key(bytes)
}

fn written(source: io::Error) -> BackupError {
    BackupError::Stream {
        action: "written",
        source,
    }
}

/// Seals what is written to it.
pub(super) struct Sealer<W> {
    out: W,
    keys: Keys,
    header: [u8; HEADER_BYTES],
    chunk: Vec<u8>,
    number: u64,
}

impl<W: Write> Sealer<W> {
    /// Makes a key and writes the header.
    pub(super) fn new(mut out: W, passphrase: &Passphrase) -> Result<Sealer<W>, BackupError> {
        let mut header = [0; HEADER_BYTES];
        let random = || written(io::Error::other("the system gives no random numbers"));
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| random())?;
        let keys = Keys::derive(passphrase, &salt, ITERATIONS).ok_or_else(random)?;
        put(&mut header, 0, MAGIC);
        put(&mut header, 8, &FORMAT_VERSION.to_le_bytes());
        put(&mut header, 12, &KDF.to_le_bytes());
        put(&mut header, 16, &ITERATIONS.to_le_bytes());
        put(&mut header, SALT_AT, &salt);
        put(&mut header, CHECK_AT, &keys.check);
        let sum = checksum(&header);
        put(&mut header, CHECKSUM_AT, &sum.to_le_bytes());
        out.write_all(&header).map_err(written)?;
        Ok(Sealer {
            out,
            keys,
            header,
            chunk: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES),
            number: 0,
        })
    }

    /// Adds content.
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            if self.chunk.len() == CHUNK_BYTES {
                self.seal(false)?;
            }
            let room = CHUNK_BYTES - self.chunk.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Seals the last chunk; hands the writer back, flushed.
    pub(super) fn finish(mut self) -> Result<W, BackupError> {
        self.seal(true)?;
        self.out.flush().map_err(written)?;
        Ok(self.out)
    }

    fn seal(&mut self, is_last: bool) -> Result<(), BackupError> {
        let len = u32::try_from(self.chunk.len()).unwrap_or(0) | if is_last { LAST } else { 0 };
        let len = len.to_le_bytes();
        let aad = Aad::from([self.header.as_slice(), &len].concat());
        self.keys
            .seal
            .seal_in_place_append_tag(nonce(self.number, is_last), aad, &mut self.chunk)
            .map_err(|_| written(io::Error::other("a chunk could not be sealed")))?;
        self.out.write_all(&len).map_err(written)?;
        self.out.write_all(&self.chunk).map_err(written)?;
        self.chunk.clear();
        self.number += 1;
        Ok(())
    }
}

/// Opens what a [`Sealer`] wrote.
pub(super) struct Opener<R> {
    input: R,
    keys: Keys,
    header: [u8; HEADER_BYTES],
    /// Opened content that was not taken yet, from `taken` on.
    chunk: Vec<u8>,
    taken: usize,
    number: u64,
    is_last: bool,
    /// Bytes read so far.
    at: u64,
}

impl<R: Read> Opener<R> {
    /// Reads the header and makes the key.
    pub(super) fn new(mut input: R, passphrase: &Passphrase) -> Result<Opener<R>, BackupError> {
        let mut header = [0; HEADER_BYTES];
        let read = fill(&mut input, &mut header)?;
        if !header.starts_with(MAGIC) {
            return Err(BackupError::Foreign);
        }
        let damaged = |at, what| BackupError::Damaged { at, what };
        if read < HEADER_BYTES {
            return Err(damaged(read as u64, "the file ends in its header"));
        }
        if number(&header, CHECKSUM_AT) != checksum(&header) {
            return Err(damaged(0, "the header's checksum does not hold"));
        }
        let found = number(&header, 8);
        if found > FORMAT_VERSION {
            let known = FORMAT_VERSION;
            return Err(BackupError::Newer { found, known });
        }
        let iterations = number(&header, 16);
        if number(&header, 12) != KDF || !ITERATIONS_ALLOWED.contains(&iterations) {
            return Err(damaged(12, "the key cannot be made as the header says"));
        }
        let salt = header.get(SALT_AT..CHECK_AT).unwrap_or_default();
        let keys = Keys::derive(passphrase, salt, iterations).ok_or(BackupError::Passphrase)?;
        if header.get(CHECK_AT..CHECK_AT + CHECK_BYTES) != Some(&keys.check) {
            return Err(BackupError::Passphrase);
        }
        Ok(Opener {
            input,
            keys,
            header,
            chunk: Vec::new(),
            taken: 0,
            number: 0,
            is_last: false,
            at: HEADER_BYTES as u64,
        })
    }

    /// Some content, at most `most` bytes and at least one.
    pub(super) fn some(&mut self, most: u64) -> Result<&[u8], BackupError> {
        while self.taken == self.chunk.len() {
            if self.is_last {
                return Err(self.damaged("the content ends too early"));
            }
            self.open()?;
        }
        let rest = self.chunk.len() - self.taken;
        let count = rest.min(usize::try_from(most).unwrap_or(usize::MAX));
        let from = self.taken;
        self.taken += count;
        Ok(self.chunk.get(from..self.taken).unwrap_or_default())
    }

    /// Exactly this many bytes of content.
    pub(super) fn exactly<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        let mut rest = bytes.as_mut_slice();
        while !rest.is_empty() {
            let some = self.some(rest.len() as u64)?;
            let (now, later) = rest.split_at_mut(some.len());
            now.copy_from_slice(some);
            rest = later;
        }
        Ok(bytes)
    }

    /// Checks that the content and the file end here.
    pub(super) fn end(mut self) -> Result<(), BackupError> {
        if self.taken == self.chunk.len() && !self.is_last {
            self.open()?;
        }
        if self.taken < self.chunk.len() || !self.is_last {
            return Err(self.damaged("there is content behind the end mark"));
        }
        let mut one = [0; 1];
        match fill(&mut self.input, &mut one)? {
            0 => Ok(()),
            _ => Err(self.damaged("there are bytes behind the last chunk")),
        }
    }

    /// Says that something is wrong where the reading is.
    pub(super) fn damaged(&self, what: &'static str) -> BackupError {
        BackupError::Damaged { at: self.at, what }
    }

    fn open(&mut self) -> Result<(), BackupError> {
        let mut len = [0; 4];
        if fill(&mut self.input, &mut len)? < len.len() {
            return Err(self.damaged("the file was cut off"));
        }
        let word = u32::from_le_bytes(len);
        let is_last = word & LAST != 0;
        let bytes = usize::try_from(word & !LAST).unwrap_or(usize::MAX);
        if bytes > CHUNK_BYTES {
            return Err(self.damaged("a chunk's length is wrong"));
        }
        self.chunk.resize(bytes + TAG_BYTES, 0);
        if fill(&mut self.input, &mut self.chunk)? < self.chunk.len() {
            return Err(self.damaged("the file was cut off"));
        }
        let aad = Aad::from([self.header.as_slice(), &len].concat());
        let nonce = nonce(self.number, is_last);
        let opened = self.keys.seal.open_in_place(nonce, aad, &mut self.chunk);
        if opened.is_err() {
            return Err(self.damaged("a chunk was changed, or is not where it belongs"));
        }
        self.chunk.truncate(bytes);
        self.at += (len.len() + bytes + TAG_BYTES) as u64;
        (self.taken, self.is_last) = (0, is_last);
        self.number += 1;
        Ok(())
    }
}

/// Reads until the buffer is full or the input ends; answers how much it was.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, BackupError> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                let action = "read";
                return Err(BackupError::Stream { action, source });
            }
        }
    }
    Ok(done)
}

fn put(header: &mut [u8; HEADER_BYTES], at: usize, bytes: &[u8]) {
    if let Some(to) = header.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

fn number(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let bytes = header.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn checksum(header: &[u8; HEADER_BYTES]) -> u32 {
    crc32fast::hash(header.get(..CHECKSUM_AT).unwrap_or_default())
}
