//! A change that was begun, as bytes: what each of its files was and what it is to become. The first line says the
//! version, the second the length and SHA-256 of all that follows: the files as one line of JSON, and then what they
//! held, one after the other. What is not exactly that is no record.

use crate::workspace::guard::Location;
use crate::workspace::write::{self, Hash};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

const VERSION: &str = "qwright change 1\n";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Real paths of the workspace's roots, the first one first.
    pub roots: Vec<Name>,
    /// What every new file of the change is called until it is in place.
    pub temporary: String,
    /// In the order in which they are changed.
    pub parts: Vec<Part>,
    /// Directories that are made for them.
    pub made: Vec<Place>,
}

/// What is done to one file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub place: Place,
    /// `None`: it was not there.
    pub before: Option<Before>,
    /// `None`: it goes.
    pub after: Option<After>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    pub mode: u32,
    length: usize,
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    pub hash: Hash,
    /// `None`: that of any new file.
    pub mode: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub root: usize,
    /// Real names, relative to the root.
    pub path: Name,
}

/// A path, as JSON a string where it can be one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Spelling", into = "Spelling")]
pub struct Name(pub PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Spelling {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<Name> for Spelling {
    fn from(name: Name) -> Self {
        match name.0.into_os_string().into_string() {
            Ok(text) => Self::Text(text),
            Err(other) => Self::Bytes(other.as_bytes().to_vec()),
        }
    }
}

impl From<Spelling> for Name {
    fn from(spelling: Spelling) -> Self {
        Self(match spelling {
            Spelling::Text(text) => text.into(),
            Spelling::Bytes(bytes) => OsString::from_vec(bytes).into(),
        })
    }
}

impl From<&Location> for Place {
    fn from(location: &Location) -> Self {
        Self { root: location.root(), path: Name(location.relative()) }
    }
}

impl Part {
    /// Bytes and mode of a file before, hash and mode after.
    pub fn new(
        location: &Location,
        before: Option<(Vec<u8>, u32)>,
        after: Option<(Hash, Option<u32>)>,
    ) -> Self {
        Self {
            place: location.into(),
            before: before.map(|(bytes, mode)| Before { mode, length: bytes.len(), bytes }),
            after: after.map(|(hash, mode)| After { hash, mode }),
        }
    }
}

impl Record {
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut body = serde_json::to_vec(self)?;
        body.push(b'\n');
        for before in self.parts.iter().filter_map(|part| part.before.as_ref()) {
            body.extend_from_slice(&before.bytes);
        }
        let mut bytes = format!("{VERSION}{} {}\n", body.len(), hexadecimal(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// `None` where anything about it does not fit.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (line, body) = split_line(bytes.strip_prefix(VERSION.as_bytes())?)?;
        let (length, sum) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        if length.parse() != Ok(body.len()) || hexadecimal(body) != sum {
            return None;
        }
        let (line, mut rest) = split_line(body)?;
        let mut record: Self = serde_json::from_slice(line).ok()?;
        for before in record.parts.iter_mut().filter_map(|part| part.before.as_mut()) {
            let (bytes, after) = rest.split_at_checked(before.length)?;
            before.bytes = bytes.to_vec();
            rest = after;
        }
        // It says which file is removed as a leftover.
        write::unguessable(&record.temporary)?;
        rest.is_empty().then_some(record)
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn hexadecimal(bytes: &[u8]) -> String {
    write::hash(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let place = |path: &[u8]| Place { root: 0, path: Name(OsString::from_vec(path.to_vec()).into()) };
        let before = |bytes: &[u8]| Before { mode: 0o100_644, length: bytes.len(), bytes: bytes.to_vec() };
        let after = |mode| Some(After { hash: write::hash(b"new"), mode });
        Record {
            roots: vec![place(b"/w").path],
            temporary: write::temporary_name(),
            parts: vec![
                Part { place: place(b"a"), before: Some(before(b"one\ntwo")), after: after(Some(0o755)) },
                Part { place: place(b"not \xff UTF-8"), before: None, after: after(None) },
                Part { place: place(b"gone"), before: Some(before(b"\0\xff")), after: None },
            ],
            made: vec![place(b"d"), place(b"d/e")],
        }
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Record::decode(&record().encode().unwrap()).map(|read| read.parts), Some(record().parts));
    }

    #[test]
    fn a_record_that_was_cut_or_of_which_a_bit_flipped_is_none() {
        let whole = record().encode().unwrap();
        for cut in 0..whole.len() {
            assert_eq!(Record::decode(&whole[..cut]), None, "cut at {cut}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut broken = whole.clone();
                broken[at] ^= 1 << bit;
                assert_eq!(Record::decode(&broken), None, "bit {bit} of byte {at}");
            }
        }
        assert_eq!(Record::decode(&[&whole[..], b"x"].concat()), None);
    }
}
