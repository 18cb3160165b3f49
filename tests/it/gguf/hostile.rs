//! Files that lie. Whatever the bytes: no panic, one line that says what and where, and no more memory than a small
//! multiple of the file. An accepted file must hold what it says.
#![allow(unsafe_code)]
use super::builder::{GgufBuilder, Meta};
use qwright::commands::inspect_gguf::header_json;
use qwright::engine::gguf::Gguf;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what this thread allocates; the claim "nothing is allocated on the word of a count" is measured.
struct Counting;

thread_local! {
    static REQUESTED: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it is; the counter is a plain number of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = REQUESTED.try_with(|sum| sum.set(sum.get().saturating_add(layout.size())));
        // SAFETY: the caller's promise about `layout` is handed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise about `pointer` and `layout` is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Opens `bytes` and holds the outcome against what is promised for any bytes. Returns the refusal, if it was one.
fn check(bytes: &[u8]) -> Option<String> {
    let copy = bytes.to_vec();
    REQUESTED.set(0);
    let outcome = Gguf::from_bytes("hostile.gguf", copy);
    let requested = REQUESTED.get();
    // All requests, not only what is held at once: growing vectors and maps count several times over.
    assert!(
        requested <= 48 * bytes.len() + 4096,
        "{requested} bytes requested for a file of {}",
        bytes.len()
    );
    match outcome {
        Ok(gguf) => {
            for tensor in gguf.tensors() {
                let bytes = tensor.len() / tensor.kind.block_len() * tensor.kind.block_bytes();
                assert!(!tensor.is_empty() && gguf.data(tensor).len() == bytes, "{tensor:?}");
            }
            assert_eq!(header_json(&gguf)["tensors"].as_array().unwrap().len(), gguf.tensors().len());
            None
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("hostile.gguf: "), "{message}");
            assert!(message.len() < 1500 && !message.contains(char::is_control), "{message:?}");
            Some(message)
        }
    }
}

fn refused(builder: GgufBuilder, expected: &str) {
    let message = check(&builder.build()).unwrap_or_else(|| panic!("was opened; expected: {expected}"));
    assert!(message.contains(expected), "{message}\nexpected: {expected}");
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let bytes = GgufBuilder::tiny().build();
    assert_eq!(check(&bytes), None);
    for end in 0..bytes.len() {
        let message =
            check(&bytes[..end]).unwrap_or_else(|| panic!("opened with {end} of {} bytes", bytes.len()));
        assert!(message.contains("(at byte "), "{message}");
    }
}

#[test]
fn every_byte_of_the_header_may_be_anything() {
    let builder = GgufBuilder::tiny();
    let bytes = builder.build();
    for at in 0..builder.header().len() {
        for change in [1u8, 2, 4, 8, 16, 32, 64, 128, 255, bytes[at]] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            check(&changed);
        }
    }
}

#[test]
fn counts_that_lie_are_refused() {
    let tiny = GgufBuilder::tiny;
    for lie in [u64::MAX, 1 << 63, 1 << 40, 131_073] {
        let claimed = format!("the file claims {lie} tensors; at most 131072 are read (at byte 8)");
        refused(GgufBuilder { tensor_count: Some(lie), ..tiny() }, &claimed);
    }
    for lie in [u64::MAX, 1 << 32, 65_537] {
        let claimed = format!("the file claims {lie} metadata keys; at most 65536 are read (at byte 16)");
        refused(GgufBuilder { key_count: Some(lie), ..tiny() }, &claimed);
    }
    refused(GgufBuilder { tensor_count: Some(131_072), ..tiny() }, "the name of tensor 2");
    refused(GgufBuilder { key_count: Some(65_536), ..tiny() }, "the name of metadata key 9 claims");
}

#[test]
fn small_entries_in_great_number_stay_within_the_bound() {
    let keys =
        (0..20_000).fold(GgufBuilder::new(), |builder, i| builder.meta(&format!("{i:x}"), Meta::Bool(1)));
    assert_eq!(check(&keys.build()), None);
    let strings = GgufBuilder::new().meta("s", Meta::Strings(vec![""; 100_000]));
    assert_eq!(check(&strings.build()), None);
    let tensors = (0..20_000).fold(GgufBuilder::new(), |b, i| b.tensor(&format!("{i:x}"), &[1], 0, &[0; 4]));
    assert_eq!(check(&tensors.build()), None);
}

#[test]
fn lengths_that_lie_are_refused() {
    for lie in [u64::MAX, u64::MAX - 7, 1 << 63, 1 << 40, 1000] {
        let bytes = lie.to_le_bytes().to_vec();
        let string = GgufBuilder::new().meta("k", Meta::Raw(8, bytes.clone()));
        refused(string, &format!("the value of \"k\" claims {lie} bytes and 0 are left (at byte 37)"));
        // Elements of one byte, of eight, strings, arrays.
        for element in [0u32, 10, 8, 9] {
            let value = [element.to_le_bytes().to_vec(), bytes.clone(), vec![0; 24]].concat();
            let builder = GgufBuilder::new().meta("k", Meta::Raw(9, value));
            refused(
                builder,
                &format!("the array \"k\" claims {lie} elements and 24 bytes are left (at byte 41)"),
            );
        }
        let inner = [&1u64.to_le_bytes()[..], &lie.to_le_bytes()[..], b"abc"].concat();
        let builder = GgufBuilder::new().meta("k", Meta::Raw(9, [&8u32.to_le_bytes()[..], &inner].concat()));
        refused(builder, &format!("claims {lie} bytes and 3 are left (element 0 of \"k\")"));
        let mut named = GgufBuilder::new().header();
        named[16] = 1;
        named.extend(lie.to_le_bytes());
        let message = check(&named).unwrap();
        assert!(message.contains(&format!("the name of metadata key 0 claims {lie} bytes")), "{message}");
    }
}

#[test]
fn types_that_do_not_exist_are_refused() {
    let raw = |kind| GgufBuilder::new().meta("k", Meta::Raw(kind, vec![0; 16]));
    for kind in [13, 255, u32::MAX] {
        refused(raw(kind), &format!("the value of \"k\" has type {kind}, which GGUF does not define"));
        let array = [kind.to_le_bytes().to_vec(), vec![0; 16]].concat();
        let builder = GgufBuilder::new().meta("k", Meta::Raw(9, array));
        refused(builder, &format!("\"k\" is an array of type {kind}, which GGUF does not define"));
    }
    refused(GgufBuilder::new().meta("k", Meta::Bool(2)), "the value of \"k\" is a boolean of 2");
    let typed = |kind| GgufBuilder::new().tensor("blk.0.w", &[256], kind, &[0; 512]);
    refused(typed(4), "tensor \"blk.0.w\" has type 4, which this engine does not read");
    refused(typed(15), "tensor \"blk.0.w\" has type 15 (Q8_K), which this engine does not read");
    refused(typed(u32::MAX), "has type 4294967295, which");
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let shaped = |dims: &[u64]| GgufBuilder::new().tensor("w", dims, 0, &[0; 16]);
    let ranked = |rank| {
        let mut builder = shaped(&[4]);
        builder.tensors[0].rank = Some(rank);
        builder
    };
    for rank in [0, 5, u32::MAX] {
        refused(ranked(rank), &format!("tensor \"w\" has {rank} dimensions; 1 to 4 are read"));
    }
    for dims in [&[0][..], &[4, 0], &[0, u64::MAX], &[2, 2, 2, 0]] {
        refused(shaped(dims), "tensor \"w\" has a dimension of zero");
    }
    for dims in [&[u64::MAX, 2][..], &[1 << 32, 1 << 32], &[1 << 16; 4], &[3, u64::MAX / 2]] {
        refused(shaped(dims), "more values than can be counted");
    }
    refused(shaped(&[1 << 63]), "tensor \"w\" has more bytes than can be counted");
    refused(shaped(&[1 << 62, 1]), "tensor \"w\" has more bytes than can be counted");
    refused(shaped(&[5]), "tensor \"w\" needs 20 bytes");
    let rows = |kind, row| GgufBuilder::new().tensor("w", &[row, 4], kind, &[0; 4096]);
    refused(rows(8, 33), "tensor \"w\" has rows of 33 values, no multiple of the 32 of a Q8_0 block");
    refused(rows(12, 128), "tensor \"w\" has rows of 128 values, no multiple of the 256 of a Q4_K block");
}

#[test]
fn offsets_outside_the_file_are_refused() {
    let at = |offset| {
        let mut builder = GgufBuilder::tiny();
        builder.tensors[1].offset = Some(offset);
        builder
    };
    for offset in [u64::MAX - 31, 1 << 63, 1 << 40, 64] {
        refused(at(offset), "tensor \"output.weight\" needs 68 bytes at ");
    }
    refused(at(33), "tensor \"output.weight\" lies at offset 33, no multiple of the alignment 32");
    refused(at(u64::MAX), "no multiple of the alignment 32");
    refused(at(0), "tensors \"norm.weight\" and \"output.weight\" overlap");
}

#[test]
fn alignments_that_make_no_sense_are_refused() {
    let aligned = |value| GgufBuilder::new().meta("general.alignment", value).tensor("w", &[4], 0, &[0; 16]);
    for alignment in [0, 1, 4, 33, 1 << 21, u32::MAX] {
        let expected =
            format!("general.alignment is {alignment}; a power of two from 8 to 1048576 is expected");
        refused(aligned(Meta::U32(alignment)), &expected);
    }
    refused(aligned(Meta::Str("32")), "general.alignment is a string; an unsigned integer is expected");
    for alignment in [8u32, 64, 4096] {
        let builder = GgufBuilder { alignment: alignment as usize, ..aligned(Meta::U32(alignment)) };
        assert_eq!(check(&builder.build()), None, "{alignment}");
    }
}

#[test]
fn names_are_unique_and_shown_harmlessly() {
    let twice = GgufBuilder::new().meta("k", Meta::U32(1)).meta("k", Meta::U32(1));
    refused(twice, "metadata key \"k\" appears twice (at byte 41)");
    let tensor = |name: &str| GgufBuilder::new().tensor(name, &[4], 0, &[0; 16]);
    refused(tensor("w").tensor("w", &[4], 0, &[0; 16]), "tensor \"w\" appears twice");
    refused(tensor(""), "the name of tensor 0 is 0 bytes long; 1 to 256 are allowed");
    refused(tensor(&"x".repeat(257)), "the name of tensor 0 is 257 bytes long; 1 to 256 are allowed");
    refused(GgufBuilder::new().meta("", Meta::U32(1)), "the name of metadata key 0 is 0 bytes long");
    refused(GgufBuilder::new().meta(&"x".repeat(65_536), Meta::U32(1)), "1 to 65535 are allowed");
    let rude = "\u{1b}[2J\n\u{202e}".repeat(20);
    refused(GgufBuilder::new().tensor(&rude, &[0], 0, &[]), "tensor \"\\u{1b}[2J\\n\\u{202e}");
    let mut bytes = tensor("wv").build();
    let at = bytes.windows(2).position(|pair| pair == b"wv").unwrap();
    bytes[at] = 0xff;
    assert!(check(&bytes).unwrap().contains("the name of tensor 0 is not UTF-8"));
}

#[test]
fn arrays_may_not_nest_without_end() {
    let nested = |depth: usize| {
        let innermost = Meta::Ints(vec![1]);
        GgufBuilder::new().meta("n", (1..depth).fold(innermost, |inner, _| Meta::Nested(vec![inner])))
    };
    assert_eq!(check(&nested(4).build()), None);
    refused(nested(5), "\"n\" nests arrays more than 4 deep");
    refused(nested(10_000), "\"n\" nests arrays more than 4 deep");
    let wide = |count| GgufBuilder::new().meta("n", Meta::Nested(vec![Meta::Ints(Vec::new()); count]));
    assert_eq!(check(&wide(1 << 14).build()), None);
    refused(wide((1 << 14) + 1), "\"n\" brings the arrays inside arrays to more than 16384");
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b"PK\x03\x04 and more"[..], b"ggml 0000", b"GGU", b""] {
        assert!(check(bytes).is_some());
    }
    assert!(check(b"\x7fELF\x02\x01\x01\x00").unwrap().contains("not a GGUF file"));
    for version in [0, 1, 4, u32::MAX] {
        let builder = GgufBuilder { version, ..GgufBuilder::tiny() };
        refused(builder, &format!("GGUF version {version}; versions 2 and 3 are read (at byte 4)"));
    }
    refused(GgufBuilder { version: 3u32.swap_bytes(), ..GgufBuilder::tiny() }, "a big-endian GGUF file");
}

/// A small generator with a fixed seed, so that a failure comes back.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[test]
fn twenty_thousand_damaged_headers_are_opened_or_refused() {
    const NUMBERS: [u64; 12] = [0, 1, 2, 8, 9, 31, 255, 1 << 20, 1 << 32, 1 << 63, u64::MAX - 1, u64::MAX];
    let builder = GgufBuilder::tiny();
    let (bytes, header) = (builder.build(), builder.header().len());
    let mut random = Random(0x5eed_2026);
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut changed = bytes.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(header.min(changed.len().max(8)) - 8);
            match random.below(6) {
                0 => changed[at] = random.next() as u8,
                1 => changed[at] ^= 1 << random.below(8),
                2 => changed[at..at + 8].copy_from_slice(&NUMBERS[random.below(12)].to_le_bytes()),
                3 => changed[at..at + 4].copy_from_slice(&(NUMBERS[random.below(12)] as u32).to_le_bytes()),
                4 => drop(changed.drain(at..at + 1 + random.below(8))),
                _ => {
                    let from = random.below(header - 16);
                    let len = 1 + random.below(16);
                    changed.splice(at..at, bytes[from..from + len].iter().copied());
                }
            }
        }
        match check(&changed) {
            None => opened += 1,
            Some(_) => refused += 1,
        }
    }
    // Both ways must have been taken, or the damage is not of a useful kind.
    assert!(opened > 500 && refused > 5_000, "{opened} opened, {refused} refused");
}
