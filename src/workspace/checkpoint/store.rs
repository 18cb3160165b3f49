//! The bytes that checkpoints hold: raw, one after the other in one file without a name, found by their SHA-256.
//!
//! A file without a name needs no lock, no list of sessions and no sweeping: it takes room while its session lives and
//! is gone when the process ends, however that comes about; nobody can open it by a path. A git store would hold no
//! more (the originals are of use to the living session only) and would cost compression, which for a first checkpoint
//! is most of the time. The bound is per session; what does not fit is refused, and said by whoever asked.

use crate::workspace::write::{Hash, hash};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;

pub struct Store {
    directory: PathBuf,
    file: File,
    /// Where the next blob begins. What lies behind it was not finished.
    end: u64,
    /// Bytes it may hold, or could when the disk was full.
    limit: u64,
    /// `end` after the last clearing.
    cleared: u64,
    blobs: HashMap<Hash, Place>,
    chunk: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    length: u64,
}

#[derive(Debug)]
pub enum PutError {
    /// The store holds as much as it may, or the disk as much as it can.
    Full,
    /// The file is longer than what is kept.
    TooLarge,
    Unreadable,
}

impl Store {
    /// A store of at most `limit` bytes in `directory`, which is made where it is missing.
    pub fn create(directory: &Path, limit: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        Ok(Self {
            // Made without a name where the system can, else with one that only we know and that goes at once.
            file: tempfile::tempfile_in(directory)?,
            directory: directory.to_path_buf(),
            end: 0,
            limit,
            cleared: 0,
            blobs: HashMap::new(),
            chunk: vec![0; CHUNK],
        })
    }

    /// Takes in what is left to read of `source`, of which no more than `most` bytes are kept.
    pub fn put(&mut self, source: &mut File, most: u64) -> Result<Hash, PutError> {
        let mut digest = Sha256::new();
        let mut length = 0;
        let mut room = true;
        loop {
            let read = match source.read(&mut self.chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(PutError::Unreadable),
            };
            let bytes = &self.chunk[..read];
            digest.update(bytes);
            let at = self.end + length;
            length += read as u64;
            if length > most {
                return Err(PutError::TooLarge);
            }
            // What is known already needs no room: that is clear only at the end.
            room = room && at + read as u64 <= self.limit;
            if room && self.file.write_all_at(bytes, at).is_err() {
                (room, self.limit) = (false, self.end);
            }
        }
        let hash: Hash = digest.finalize().into();
        if !self.blobs.contains_key(&hash) {
            if !room {
                return Err(PutError::Full);
            }
            self.blobs.insert(hash, Place { offset: self.end, length });
            self.end += length;
        }
        Ok(hash)
    }

    /// Bytes that still fit.
    pub fn room(&self) -> u64 {
        self.limit.saturating_sub(self.end)
    }

    /// The bytes of a blob; `None` where they are not here or no longer what they were.
    pub fn get(&self, wanted: &Hash) -> Option<Vec<u8>> {
        let place = self.blobs.get(wanted)?;
        let mut bytes = vec![0; usize::try_from(place.length).ok()?];
        self.file.read_exact_at(&mut bytes, place.offset).ok()?;
        (hash(&bytes) == *wanted).then_some(bytes)
    }

    pub fn length_of(&self, hash: &Hash) -> Option<u64> {
        self.blobs.get(hash).map(|place| place.length)
    }

    /// Whether it is time to drop what nobody needs any more.
    pub fn is_crowded(&self) -> bool {
        self.end > self.limit / 2 && self.end > self.cleared + self.limit / 8
    }

    /// Drops all blobs but `needed`; until that is done both the old file and the new one take room.
    pub fn clear_but(&mut self, needed: &HashSet<Hash>) -> io::Result<()> {
        let file = tempfile::tempfile_in(&self.directory)?;
        let mut blobs = HashMap::new();
        let mut end = 0;
        for (hash, place) in self.blobs.iter().filter(|(hash, _)| needed.contains(*hash)) {
            let mut done = 0;
            while done < place.length {
                let most = usize::try_from(place.length - done).unwrap_or(CHUNK).min(CHUNK);
                let bytes = &mut self.chunk[..most];
                self.file.read_exact_at(bytes, place.offset + done)?;
                file.write_all_at(bytes, end + done)?;
                done += most as u64;
            }
            blobs.insert(*hash, Place { offset: end, length: place.length });
            end += place.length;
        }
        (self.file, self.blobs, self.end, self.cleared) = (file, blobs, end, end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn put(store: &mut Store, bytes: &[u8]) -> Result<Hash, PutError> {
        store.put(&mut file(bytes), 1000)
    }

    #[test]
    fn bytes_come_back_as_they_were_and_nothing_has_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a/b");
        let mut store = Store::create(&place, 1000).unwrap();
        let long: Vec<u8> = (0..900).map(|n| (n * n % 251) as u8).collect();
        let (one, none) = (put(&mut store, &long).unwrap(), put(&mut store, b"").unwrap());
        assert_eq!(put(&mut store, &long).unwrap(), one);
        assert_eq!(store.get(&one).unwrap(), long);
        assert_eq!(store.get(&none).unwrap(), b"");
        assert_eq!(store.get(&hash(b"other")), None);
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_known_fits() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::create(directory.path(), 10).unwrap();
        let first = put(&mut store, b"12345678").unwrap();
        assert!(matches!(put(&mut store, b"abc"), Err(PutError::Full)));
        assert_eq!(put(&mut store, b"12345678").unwrap(), first);
        assert!(matches!(store.put(&mut file(b"1234"), 3), Err(PutError::TooLarge)));
        // What was refused left nothing behind.
        let second = put(&mut store, b"ab").unwrap();
        assert_eq!(store.get(&first).unwrap(), b"12345678");
        assert_eq!(store.get(&second).unwrap(), b"ab");
    }

    #[test]
    fn clearing_keeps_what_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::create(directory.path(), 20).unwrap();
        let blobs = ["one-one", "two-two", "three"].map(|text| put(&mut store, text.as_bytes()).unwrap());
        assert!(store.is_crowded());
        store.clear_but(&HashSet::from([blobs[1], hash(b"never here")])).unwrap();
        assert!(!store.is_crowded());
        assert_eq!(store.get(&blobs[0]), None);
        assert_eq!(store.get(&blobs[1]).unwrap(), b"two-two");
        let again = put(&mut store, b"one-one").unwrap();
        assert_eq!((again, store.get(&again).unwrap()), (blobs[0], b"one-one".to_vec()));
    }

    #[test]
    fn damaged_bytes_are_not_given_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::create(directory.path(), 100).unwrap();
        let blob = put(&mut store, b"sound").unwrap();
        store.file.write_all_at(b"x", 0).unwrap();
        assert_eq!(store.get(&blob), None);
    }
}
