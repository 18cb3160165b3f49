//! Blocks on disk: what was computed once need not be computed again in another process. A file holds one block and is
//! named after the chain of tokens that leads to it, so a block is written once whoever needs it, and the first blocks
//! of all sessions of a model are the same files. Files are written aside and renamed, by a thread of their own; read
//! files are mapped. Nothing in them is believed: model, settings, tokens and a checksum of every byte must fit, else
//! the file is named in the log and left out. The folder keeps to a budget; what was not used for longest goes.

use super::blocks::{BLOCK, BlockPool, KvBlock};
use crate::engine::TokenId;
use memmap2::Mmap;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

const MAGIC: &[u8; 8] = b"QWRIGHT1";
/// Bytes before a block: what it is, its tokens, and nothing up to a page.
const HEAD: usize = 4096;
/// Where the tokens stand in the head; before them magic, number of tokens, key, chain before it, checksum.
const TOKENS: usize = 128;
const KIND: &str = "kv";
/// Beginnings of temporary names; what a process that died left is removed.
const ASIDE: &str = ".new-";

/// What a snapshot is good for: a hash of all that decides what keys and values are.
pub type Key = [u8; 32];
type Chain = [u8; 16];

fn chain(before: &Chain, tokens: &[TokenId]) -> Chain {
    let mut hash = Sha256::new();
    hash.update(before);
    tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
    let mut chain = Chain::default();
    chain.copy_from_slice(&hash.finalize()[..16]);
    chain
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// BEFORE-OWN.kv: what follows a block is found by the beginning of its name.
fn file_name(before: &Chain, own: &Chain) -> String {
    format!("{}-{}.{KIND}", hex(before), hex(own))
}

/// A folder of snapshots of one model with one kind of keys and values.
pub struct SnapshotStore {
    folder: PathBuf,
    key: Key,
    /// Blocks that are there or on their way, by name.
    known: HashSet<String>,
    /// The block of fewer than 256 tokens that was read or written last: what stands before it, its tokens, its name.
    tail: Option<(Chain, Vec<TokenId>, String)>,
    writer: Option<(Sender<Job>, JoinHandle<()>)>,
    /// What could not be used, for the log.
    complaints: Vec<String>,
}

struct Job {
    name: String,
    /// The whole head but for the checksum.
    head: Box<[u8; HEAD]>,
    block: Arc<KvBlock>,
    /// A file that this one holds too: a block that has grown.
    replaces: Option<String>,
}

impl SnapshotStore {
    /// The snapshots in `folder` that `key` fits; at most `budget` bytes of files of all keys in the folder around it.
    pub fn open(root: &Path, key: Key, budget: u64) -> io::Result<Self> {
        let folder = root.join(hex(&key[..8]));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        clean(root);
        let (sender, jobs) = channel::<Job>();
        let (place, around) = (folder.clone(), root.to_path_buf());
        let thread = std::thread::Builder::new().name("snapshots".into()).spawn(move || {
            for job in jobs {
                // A full disk costs the snapshot and nothing else.
                if write(&place, &job).is_ok() {
                    if let Some(old) = &job.replaces {
                        let _ = std::fs::remove_file(place.join(old));
                    }
                    keep_to(&around, budget, &place.join(&job.name));
                }
            }
        })?;
        let writer = Some((sender, thread));
        Ok(Self { folder, key, known: HashSet::new(), tail: None, writer, complaints: Vec::new() })
    }

    fn root(&self) -> Chain {
        let mut root = Chain::default();
        root.copy_from_slice(&self.key[..16]);
        root
    }

    /// Writes what is not there yet of a sequence, in the background.
    pub fn save(&mut self, tokens: &[TokenId], blocks: &[Arc<KvBlock>]) {
        let mut before = self.root();
        for (index, (part, block)) in tokens.chunks(BLOCK).zip(blocks).enumerate() {
            let own = chain(&before, part);
            let name = file_name(&before, &own);
            if self.known.insert(name.clone()) && !self.folder.join(&name).exists() {
                // The shorter form of this block has had its use.
                let grown = self.tail.take_if(|(at, held, _)| *at == before && part.starts_with(held));
                let replaces = grown.map(|(.., name)| name);
                if let Some(old) = &replaces {
                    self.known.remove(old);
                }
                if part.len() < BLOCK {
                    self.tail = Some((before, part.to_vec(), name.clone()));
                }
                let head = self.head(&before, part);
                let job = Job { name, head, block: block.clone(), replaces };
                if let Some((sender, _)) = &self.writer {
                    let _ = sender.send(job);
                }
            }
            debug_assert!(part.len() == BLOCK || index + 1 == tokens.len().div_ceil(BLOCK));
            before = own;
        }
    }

    fn head(&self, before: &Chain, tokens: &[TokenId]) -> Box<[u8; HEAD]> {
        let mut head = Box::new([0u8; HEAD]);
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&(tokens.len() as u32).to_le_bytes());
        head[16..48].copy_from_slice(&self.key);
        head[48..64].copy_from_slice(before);
        for (out, token) in head[TOKENS..].as_chunks_mut::<4>().0.iter_mut().zip(tokens) {
            *out = token.to_le_bytes();
        }
        head
    }

    /// Blocks for `tokens` beyond the first `held` (whole blocks), as far as there are any: the length reached and the
    /// blocks.
    pub fn load(
        &mut self,
        pool: &Arc<BlockPool>,
        tokens: &[TokenId],
        held: usize,
    ) -> (usize, Vec<Arc<KvBlock>>) {
        let mut before = self.root();
        let (mut n, mut found) = (held / BLOCK * BLOCK, Vec::new());
        tokens[..n].chunks(BLOCK).for_each(|part| before = chain(&before, part));
        let mut whole = Vec::new();
        while let Some(part) = tokens.get(n + whole.len() * BLOCK..).and_then(|rest| rest.get(..BLOCK)) {
            let own = chain(&before, part);
            let path = self.folder.join(file_name(&before, &own));
            if !path.exists() {
                break;
            }
            whole.push((path, before, part));
            before = own;
        }
        // Checksums take a moment: on all cores.
        let checked = check_all(&whole, |(path, before, part)| self.read(pool, path, before, part));
        for ((path, before_it, _), checked) in whole.iter().zip(checked) {
            match checked {
                Ok((_, block)) => found.push(Arc::new(block)),
                Err(why) => {
                    self.complain(path, &why);
                    before = *before_it;
                    break;
                }
            }
            n += BLOCK;
        }
        // Of the next block, what it shares with the tokens.
        let rest = &tokens[n..];
        if let Some((path, held)) = self.longest(&before, rest) {
            match self.read(pool, &path, &before, rest) {
                Ok((shared, block)) => {
                    if let Some(name) = path.file_name().filter(|_| shared == held && shared < BLOCK) {
                        self.tail =
                            Some((before, rest[..shared].to_vec(), name.to_string_lossy().into_owned()));
                    }
                    n += shared;
                    found.push(Arc::new(block));
                }
                Err(why) => self.complain(&path, &why),
            }
        }
        (n, found)
    }

    /// Of the files that follow `before`, the one that shares most with `tokens`, and how many it holds.
    fn longest(&self, before: &Chain, tokens: &[TokenId]) -> Option<(PathBuf, usize)> {
        let begins = format!("{}-", hex(before));
        let names = std::fs::read_dir(&self.folder).ok()?.flatten();
        let paths = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(&begins));
        paths
            .filter_map(|entry| {
                let held = tokens_of(&*read_head(&entry.path()).ok()?);
                let shared = held.iter().zip(tokens).take_while(|(a, b)| a == b).count();
                (shared > 0).then_some((shared, entry.path(), held.len()))
            })
            .max_by_key(|(shared, ..)| *shared)
            .map(|(_, path, held)| (path, held))
    }

    /// Maps a file and checks all of it; the tokens it shares with `tokens`.
    fn read(
        &self,
        pool: &Arc<BlockPool>,
        path: &Path,
        before: &Chain,
        tokens: &[TokenId],
    ) -> Result<(usize, KvBlock), String> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
        let file = file.map_err(|error| error.to_string())?;
        let map = map(&file).map_err(|error| error.to_string())?;
        let head: &[u8; HEAD] =
            map.get(..HEAD).and_then(|head| head.try_into().ok()).ok_or("it is cut off")?;
        if head[..8] != *MAGIC {
            return Err("it is no snapshot".into());
        }
        if head[16..48] != self.key || head[48..64] != *before {
            return Err("it is of another model, other settings or another conversation".into());
        }
        if map.len() != HEAD + pool.block_bytes() {
            return Err("it is cut off".into());
        }
        if checksum(head, &map[HEAD..]) != head[64..96] {
            return Err("its checksum does not fit".into());
        }
        let held = tokens_of(head);
        let shared = held.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        if shared == 0 {
            return Err("it holds other tokens".into());
        }
        // What is used is what is kept.
        let _ = file.set_modified(SystemTime::now());
        let block = pool.mapped(map, HEAD).ok_or("it is cut off")?;
        Ok((shared, block))
    }

    fn complain(&mut self, path: &Path, why: &str) {
        self.complaints.push(format!("snapshot {} is not used: {why}", path.display()));
        let _ = std::fs::remove_file(path);
        if let Some(name) = path.file_name() {
            self.known.remove(&*name.to_string_lossy());
        }
    }

    /// What could not be used since this was last asked, a line each.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }
}

impl Drop for SnapshotStore {
    /// Waits for what is being written.
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.writer.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

/// Runs `check` on all items, on as many threads as there are cores; results in order.
fn check_all<T: Sync, R: Send>(items: &[T], check: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let check = &check;
        let work =
            items.chunks(part).map(|items| scope.spawn(move || items.iter().map(check).collect::<Vec<R>>()));
        // All are started before the first is waited for.
        let work: Vec<_> = work.collect();
        work.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    })
}

fn tokens_of(head: &[u8; HEAD]) -> Vec<TokenId> {
    let n = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    head[TOKENS..].as_chunks::<4>().0.iter().take(n.min(BLOCK)).map(|x| TokenId::from_le_bytes(*x)).collect()
}

fn read_head(path: &Path) -> io::Result<Box<[u8; HEAD]>> {
    let mut head = Box::new([0u8; HEAD]);
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?.read_exact(&mut head[..])?;
    Ok(head)
}

/// Of all but the checksum itself.
fn checksum(head: &[u8; HEAD], block: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&head[..64]);
    hash.update(&head[96..]);
    hash.update(block);
    hash.finalize().into()
}

#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: snapshots are made whole, renamed into place and never written again, only removed; the folder is the
    // user's alone.
    unsafe { Mmap::map(file) }
}

/// Writes a block aside and renames it: there is a whole file of that name or none.
fn write(folder: &Path, job: &Job) -> io::Result<()> {
    let aside = folder.join(format!("{ASIDE}{}-{}", std::process::id(), job.name));
    let mut head = job.head.clone();
    let sum = checksum(&head, job.block.bytes());
    head[64..96].copy_from_slice(&sum);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&aside)
        .and_then(|mut file| {
            file.write_all(&head[..])?;
            file.write_all(job.block.bytes())
        });
    let placed = written.and_then(|()| std::fs::rename(&aside, folder.join(&job.name)));
    if placed.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    placed
}

/// Files of all folders: when they were last used, how large they are.
fn files(root: &Path) -> Vec<(SystemTime, u64, PathBuf)> {
    let folders = std::fs::read_dir(root).into_iter().flatten().flatten();
    let entries = folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
    entries
        .filter_map(|entry| {
            let data = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            Some((data.modified().ok()?, data.len(), entry.path()))
        })
        .collect()
}

/// Removes what was not used for longest until the rest fits; the new file stays.
fn keep_to(root: &Path, budget: u64, new: &Path) {
    let mut files = files(root);
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    if total <= budget {
        return;
    }
    files.sort();
    for (_, bytes, path) in files.iter().filter(|(.., path)| path != new) {
        if total <= budget {
            return;
        }
        if std::fs::remove_file(path).is_ok() {
            total -= bytes;
        }
    }
}

/// Removes what processes that are gone began to write.
fn clean(root: &Path) {
    for (.., path) in files(root) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(rest) = name.strip_prefix(ASIDE) else { continue };
        let pid = rest.split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        let lives = pid.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists());
        if !lives || pid == Some(std::process::id()) {
            let _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::kv::{KvShape, KvType};

    fn pool() -> Arc<BlockPool> {
        BlockPool::new(KvShape { layers: 2, heads: 1, head_dim: 32, kind: KvType::Q8_0 }, 16)
    }

    fn blocks(pool: &Arc<BlockPool>, n: usize) -> Vec<Arc<KvBlock>> {
        let filled = |i: usize| {
            let mut block = pool.take().unwrap();
            let own = block.own().unwrap();
            // SAFETY: a block of that many bytes, this test's alone.
            #[allow(unsafe_code)]
            unsafe {
                own.write_bytes(i as u8 + 1, pool.block_bytes());
            }
            Arc::new(block)
        };
        (0..n).map(filled).collect()
    }

    fn saved(folder: &Path, key: u8, tokens: &[TokenId]) {
        let pool = pool();
        let mut store = SnapshotStore::open(folder, [key; 32], 1 << 30).unwrap();
        store.save(tokens, &blocks(&pool, tokens.len().div_ceil(BLOCK)));
    }

    fn names(folder: &Path) -> Vec<PathBuf> {
        files(folder).into_iter().map(|(.., path)| path).collect()
    }

    #[test]
    fn what_was_saved_is_found_again_as_far_as_tokens_agree() {
        let folder = tempfile::tempdir().unwrap();
        let tokens: Vec<TokenId> = (0..600).collect();
        saved(folder.path(), 1, &tokens);
        let pool = pool();
        let mut store = SnapshotStore::open(folder.path(), [1; 32], 1 << 30).unwrap();
        let (n, found) = store.load(&pool, &tokens, 0);
        assert_eq!((n, found.len()), (600, 3));
        assert!(found.iter().enumerate().all(|(i, block)| block.bytes().iter().all(|x| *x == i as u8 + 1)));
        let mut other = tokens.clone();
        other[530] = 7777;
        assert_eq!(store.load(&pool, &other, 0).0, 530);
        other[300] = 7777;
        assert_eq!(store.load(&pool, &other, 0).0, 300);
        let (n, found) = store.load(&pool, &tokens, 300);
        assert_eq!((n, found.len()), (600, 2));
        assert_eq!(store.load(&pool, &tokens[..100], 0).0, 100);
        // Another model finds nothing.
        let mut other = SnapshotStore::open(folder.path(), [2; 32], 1 << 30).unwrap();
        assert_eq!(other.load(&pool, &tokens, 0).0, 0);
        assert!(store.complaints().is_empty());
    }

    #[test]
    fn a_block_that_grows_leaves_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let tokens: Vec<TokenId> = (0..600).collect();
        let pool = pool();
        let all = blocks(&pool, 3);
        // In one session, and in one after another.
        let mut store = SnapshotStore::open(folder.path(), [1; 32], 1 << 30).unwrap();
        for n in [520, 521, 560] {
            store.save(&tokens[..n], &all);
        }
        drop(store);
        assert_eq!(names(folder.path()).len(), 3);
        let mut store = SnapshotStore::open(folder.path(), [1; 32], 1 << 30).unwrap();
        assert_eq!(store.load(&pool, &tokens, 0).0, 560);
        store.save(&tokens, &all);
        drop(store);
        assert_eq!(names(folder.path()).len(), 3);
        let mut store = SnapshotStore::open(folder.path(), [1; 32], 1 << 30).unwrap();
        assert_eq!(store.load(&pool, &tokens, 0).0, 600);
    }

    #[test]
    fn damage_of_any_kind_is_named_and_never_used() {
        let tokens: Vec<TokenId> = (0..300).collect();
        let folder = tempfile::tempdir().unwrap();
        saved(folder.path(), 1, &tokens);
        let first = names(folder.path())
            .into_iter()
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&hex(&[1; 16])));
        let (path, pool) = (first.unwrap(), pool());
        let whole = std::fs::read(&path).unwrap();
        let mut state = 5u64;
        for case in 0..200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % whole.len();
            let mut bad = whole.clone();
            match case % 3 {
                0 => bad[at] ^= 1 << (state >> 20 & 7),
                1 => bad.truncate(at),
                // Every byte of what comes before the block.
                _ => bad[case / 3 * 2 % HEAD] ^= 0x10,
            }
            std::fs::write(&path, &bad).unwrap();
            let mut store = SnapshotStore::open(folder.path(), [1; 32], 1 << 30).unwrap();
            assert_eq!(store.load(&pool, &tokens, 0).0, 0, "case {case}, byte {at}");
            let said = store.complaints();
            assert!(said.len() == 1 && said[0].contains("is not used"), "case {case}: {said:?}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn the_folder_keeps_to_its_budget_and_litter_goes() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool();
        let size = (HEAD + pool.block_bytes()) as u64;
        for session in 0..5u32 {
            let tokens: Vec<TokenId> = (0..512).map(|i| i + session * 1000).collect();
            let mut store = SnapshotStore::open(folder.path(), [1; 32], size * 4).unwrap();
            store.save(&tokens, &blocks(&pool, 2));
        }
        assert_eq!(names(folder.path()).len(), 4);
        let dead = folder.path().join(hex(&[1; 8])).join(format!("{ASIDE}4294967294-x"));
        std::fs::write(&dead, "half").unwrap();
        SnapshotStore::open(folder.path(), [1; 32], size * 4).unwrap();
        assert!(!dead.exists());
    }
}
