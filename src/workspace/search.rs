//! Finding files and text: directory listings, globs, regular expressions, and the nearest name of a missing file.
//!
//! Walks follow the ignore rules of the repository and never a symbolic link; `.git` is not shown, other hidden files
//! are. Names come from the walk, but every file that is searched is opened through the guard.

use super::guard::Location;
use super::walk::{Rules, builder, walk};
use super::{Workspace, WorkspaceError};
use globset::{GlobBuilder, GlobMatcher};
use grep_matcher::Matcher;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use ignore::WalkState;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Files a search for a similar name looks at.
const MAX_CANDIDATES: usize = 20_000;
/// More threads than this wait for the disk, and one for so few files does not pay.
const MOST_THREADS: usize = 8;
const FILES_PER_THREAD: usize = 64;
/// A line of a match longer than this is cut around the match.
const MAX_LINE: usize = 240;

/// Paths, and how many more there were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    pub paths: Vec<String>,
    pub left_out: usize,
}

#[derive(Debug, Clone, Default)]
pub struct GrepQuery {
    /// A regular expression; taken literally where it is none.
    pub pattern: String,
    /// A file or directory; the workspace if `None`.
    pub path: Option<String>,
    pub glob: Option<String>,
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    pub path: String,
    pub line: u64,
    pub text: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matches {
    pub matches: Vec<Match>,
    /// The limit ended the search before its end.
    pub more: bool,
    /// The pattern is no regular expression and was searched for as it stands.
    pub literal: bool,
    /// Nothing had this case; these are matches of any case.
    pub any_case: bool,
    pub files_searched: usize,
}

impl Workspace {
    /// The entries of one directory: directories end in `/`, links in `@`.
    pub fn list(&self, path: &str, limit: usize) -> Result<Listing, WorkspaceError> {
        let location = self.existing_directory(path)?;
        let mut listing = Listing::default();
        for entry in walk(&self.guard.absolute(&location), Rules::SEARCH, Some(1)).flatten() {
            if entry.depth() == 0 {
                continue;
            }
            let mark = match entry.file_type() {
                Some(kind) if kind.is_dir() => "/",
                Some(kind) if kind.is_symlink() => "@",
                _ => "",
            };
            listing.add(format!("{}{mark}", entry.file_name().to_string_lossy()), limit);
        }
        Ok(listing)
    }

    /// Files whose path beneath `path` matches; a pattern without `/` matches file names at any depth.
    pub fn glob(
        &self,
        pattern: &str,
        path: Option<&str>,
        limit: usize,
        cancel: &AtomicBool,
    ) -> Result<Listing, WorkspaceError> {
        let base = self.existing_directory(path.unwrap_or("."))?;
        let glob = PathGlob::new(pattern)?;
        let found = self.files_beneath(&base, cancel, &|relative| glob.is_match(relative));
        let left_out = found.len().saturating_sub(limit);
        let shown = found.iter().take(limit);
        let paths = shown.map(|relative| self.guard.display(&self.guard.beneath(&base, relative))).collect();
        Ok(Listing { paths, left_out })
    }

    /// Lines that match, by path and line.
    pub fn grep(&self, query: &GrepQuery, cancel: &AtomicBool) -> Result<Matches, WorkspaceError> {
        if query.pattern.is_empty() {
            return Err(WorkspaceError::Refused("the pattern is empty; give the text to look for".into()));
        }
        let (matcher, literal) = matcher(&query.pattern, false)?;
        let mut found = self.grep_with(&matcher, query, cancel)?;
        if found.matches.is_empty() && query.pattern.chars().any(char::is_alphabetic) {
            let (matcher, _) = self::matcher(&query.pattern, true)?;
            found = self.grep_with(&matcher, query, cancel)?;
            found.any_case = !found.matches.is_empty();
        }
        found.literal = literal;
        Ok(found)
    }

    fn grep_with(
        &self,
        matcher: &RegexMatcher,
        query: &GrepQuery,
        cancel: &AtomicBool,
    ) -> Result<Matches, WorkspaceError> {
        let path = query.path.as_deref().unwrap_or(".");
        let base = self.guard.directory(path)?;
        let glob = query.glob.as_deref().map(PathGlob::new).transpose()?;
        if !base.is_root() && matches!(self.guard.open_file(&base), Ok(Some(_))) {
            return Ok(self.grep_files(matcher, &[base], query.limit, cancel));
        }
        if self.guard.open_directory(&base)?.is_none() {
            return Err(self.missing("file or directory", path));
        }
        let wanted = |relative: &Path| glob.as_ref().is_none_or(|glob| glob.is_match(relative));
        let files = self.files_beneath(&base, cancel, &wanted);
        let files: Vec<Location> = files.iter().map(|relative| self.guard.beneath(&base, relative)).collect();
        Ok(self.grep_files(matcher, &files, query.limit, cancel))
    }

    /// The first matches in these files. Threads take one file after the other until there are more than enough: what is
    /// taken by then has no gaps, so that the same tree gives the same matches however many threads there are.
    fn grep_files(
        &self,
        matcher: &RegexMatcher,
        files: &[Location],
        limit: usize,
        cancel: &AtomicBool,
    ) -> Matches {
        let (next, count) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            let mut searcher =
                SearcherBuilder::new().binary_detection(BinaryDetection::quit(0)).line_number(true).build();
            let (mut searched, mut found) = (0, Vec::new());
            while count.load(Ordering::Relaxed) <= limit && !cancel.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(location) = files.get(index) else { break };
                let Ok(Some((file, _))) = self.guard.open_file(location) else { continue };
                searched += 1;
                let mut sink = Collect { matcher, limit, matches: Vec::new() };
                // A file that cannot be read is as if it were not there; others still count.
                let _ = searcher.search_file(matcher, &file, &mut sink);
                if !sink.matches.is_empty() {
                    count.fetch_add(sink.matches.len(), Ordering::Relaxed);
                    found.push((index, sink.matches));
                }
            }
            (searched, found)
        };
        let threads = threads().min(files.len() / FILES_PER_THREAD);
        let parts = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            // One that panicked found nothing.
            others.into_iter().filter_map(|thread| thread.join().ok()).chain([own]).collect::<Vec<_>>()
        });
        let mut matches =
            Matches { files_searched: parts.iter().map(|part| part.0).sum(), ..Matches::default() };
        let mut found: Vec<(usize, Vec<(u64, String)>)> = parts.into_iter().flat_map(|part| part.1).collect();
        found.sort_by_key(|(index, _)| *index);
        for (index, lines) in found {
            let path = self.guard.display(&files[index]);
            for (line, text) in lines {
                if matches.matches.len() == limit {
                    matches.more = true;
                    return matches;
                }
                matches.matches.push(Match { path: path.clone(), line, text });
            }
        }
        matches
    }

    /// Every file the ignore rules leave, in the order of the walk.
    pub fn files(&self, limit: usize) -> Vec<String> {
        let Ok(base) = self.guard.directory(".") else { return Vec::new() };
        let top = self.guard.absolute(&base);
        let files = walk(&top, Rules::SEARCH, None).flatten().filter_map(|entry| {
            let relative = entry.path().strip_prefix(&top).ok()?;
            let is_file = entry.file_type().is_some_and(|kind| kind.is_file());
            (is_file && !self.is_of_check(entry.path()))
                .then(|| self.guard.display(&self.guard.beneath(&base, relative)))
        });
        files.take(limit).collect()
    }

    /// Every file beneath `base` that is wanted, by its path from there, sorted. Several threads look: in a large tree
    /// most of the time goes to opening directories.
    fn files_beneath(
        &self,
        base: &Location,
        cancel: &AtomicBool,
        wanted: &(dyn Fn(&Path) -> bool + Sync),
    ) -> Vec<PathBuf> {
        let top = self.guard.absolute(base);
        let (sender, found) = std::sync::mpsc::channel();
        builder(&top, Rules::SEARCH).threads(threads()).build_parallel().run(|| {
            let (sender, top) = (sender.clone(), &top);
            Box::new(move |entry| {
                if cancel.load(Ordering::Relaxed) {
                    return WalkState::Quit;
                }
                if let Ok(entry) = entry
                    && entry.file_type().is_some_and(|kind| kind.is_file())
                    && let Ok(relative) = entry.path().strip_prefix(top)
                    && wanted(relative)
                {
                    // The other end waits until all are through.
                    let _ = sender.send(relative.to_path_buf());
                }
                WalkState::Continue
            })
        });
        drop(sender);
        let mut found: Vec<PathBuf> = found.into_iter().collect();
        found.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
        found
    }

    pub(super) fn missing_file(&self, path: &str) -> WorkspaceError {
        match self.guard.directory(path).and_then(|location| self.guard.open_directory(&location)) {
            Ok(Some(_)) => WorkspaceError::Refused(format!("{path} is a directory; see list_directory")),
            _ => self.missing("file", path),
        }
    }

    /// `no file src/foo.rs; did you mean src/food.rs?`
    pub(super) fn missing(&self, kind: &str, path: &str) -> WorkspaceError {
        let mut candidates = self.files(MAX_CANDIDATES);
        if kind == "directory" {
            let mut parents: Vec<String> = candidates
                .iter()
                .flat_map(|file| Path::new(file).ancestors().skip(1))
                .map(|parent| parent.to_string_lossy().into_owned())
                .filter(|parent| !parent.is_empty())
                .collect();
            parents.sort();
            parents.dedup();
            candidates = parents;
        }
        let near = nearest_paths(path, &candidates);
        let next = match near.as_slice() {
            [] => "look with list_directory or glob".to_string(),
            [one] => format!("did you mean {one}?"),
            several => format!("did you mean one of {}?", several.join(", ")),
        };
        WorkspaceError::Missing(format!("no {kind} {path}; {next}"))
    }
}

impl Listing {
    fn add(&mut self, path: String, limit: usize) {
        if self.paths.len() < limit {
            self.paths.push(path);
        } else {
            self.left_out += 1;
        }
    }
}

struct PathGlob {
    matcher: GlobMatcher,
    name_only: bool,
}

impl PathGlob {
    fn new(pattern: &str) -> Result<Self, WorkspaceError> {
        let plain = pattern.trim().trim_start_matches("./").trim_start_matches('/');
        if plain.is_empty() || plain.split('/').any(|part| part == "..") {
            return Err(WorkspaceError::Refused(format!(
                "the pattern {pattern:?} is not beneath the workspace; use one like **/*.rs"
            )));
        }
        let glob = GlobBuilder::new(plain).literal_separator(true).build().map_err(|error| {
            WorkspaceError::Refused(format!(
                "the pattern {pattern:?} is not a glob ({}); use one like **/*.rs",
                error.kind()
            ))
        })?;
        Ok(Self { matcher: glob.compile_matcher(), name_only: !plain.contains('/') })
    }

    fn is_match(&self, relative: &Path) -> bool {
        match (self.name_only, relative.file_name()) {
            (true, Some(name)) => self.matcher.is_match(Path::new(name)),
            _ => self.matcher.is_match(relative),
        }
    }
}

/// The matcher, and whether the pattern had to be taken literally.
fn matcher(pattern: &str, any_case: bool) -> Result<(RegexMatcher, bool), WorkspaceError> {
    let build = |literal: bool| {
        RegexMatcherBuilder::new()
            .case_insensitive(any_case)
            .fixed_strings(literal)
            .multi_line(true)
            .line_terminator(Some(b'\n'))
            .build(pattern)
    };
    match build(false) {
        Ok(matcher) => Ok((matcher, false)),
        Err(_) => match build(true) {
            Ok(matcher) => Ok((matcher, true)),
            Err(error) => Err(WorkspaceError::Refused(format!(
                "cannot search for {pattern:?}: {error}; search for a text within one line"
            ))),
        },
    }
}

/// The matches of one file: one more than are wanted says that there are more.
struct Collect<'a> {
    matcher: &'a RegexMatcher,
    limit: usize,
    matches: Vec<(u64, String)>,
}

impl Sink for Collect<'_> {
    type Error = std::io::Error;

    fn matched(&mut self, _: &Searcher, matched: &SinkMatch<'_>) -> Result<bool, Self::Error> {
        let bytes = matched.bytes();
        let at = self.matcher.find(bytes)?.map_or(0, |place| place.start());
        self.matches.push((matched.line_number().unwrap_or(0), shorten(bytes, at)));
        Ok(self.matches.len() <= self.limit)
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS)
}

/// A line without its break; a long one only around `at`.
fn shorten(line: &[u8], at: usize) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    if text.chars().count() <= MAX_LINE {
        return text.to_string();
    }
    let before = String::from_utf8_lossy(&line[..at.min(line.len())]).chars().count();
    let start = before.saturating_sub(MAX_LINE / 4);
    let shown: String = text.chars().skip(start).take(MAX_LINE).collect();
    let cut = |yes: bool| if yes { "[...]" } else { "" };
    let ends_early = text.chars().count() > start + MAX_LINE;
    format!("{}{shown}{}", cut(start > 0), cut(ends_early))
}

/// At most three paths that `wanted` may have meant: the same file name elsewhere, else a name a few letters off.
fn nearest_paths(wanted: &str, candidates: &[String]) -> Vec<String> {
    const SHOWN: usize = 3;
    let wanted = wanted.trim_matches('/').trim_start_matches("./").to_lowercase();
    let name_of = |path: &str| path.rsplit('/').next().unwrap_or(path).to_string();
    let name = name_of(&wanted);
    let allowed = (name.chars().count() / 3).clamp(1, 4);
    let mut scored: Vec<(usize, usize, &String)> = candidates
        .iter()
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let own_name = name_of(&lower);
            let by_name = distance(&name, &own_name, allowed)?;
            let same_parts =
                lower.split('/').rev().zip(wanted.split('/').rev()).filter(|(a, b)| a == b).count();
            Some((by_name, usize::MAX - same_parts, candidate))
        })
        .collect();
    scored.sort();
    let best = scored.first().map_or(0, |(by_name, _, _)| *by_name);
    scored
        .iter()
        .take_while(|(by_name, _, _)| *by_name == best)
        .take(SHOWN)
        .map(|(_, _, path)| path.to_string())
        .collect()
}

/// Levenshtein's distance where it is at most `allowed`.
fn distance(a: &str, b: &str, allowed: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > allowed {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().filter(|distance| *distance <= allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_letters() {
        assert_eq!(distance("kitten", "sitting", 4), Some(3));
        assert_eq!(distance("kitten", "sitting", 2), None);
        assert_eq!(distance("", "ab", 2), Some(2));
        assert_eq!(distance("same", "same", 1), Some(0));
    }

    #[test]
    fn a_missing_path_names_what_was_meant() {
        let files: Vec<String> =
            ["src/food.rs", "src/main.rs", "lib/util/mod.rs", "lib/text/mod.rs", "README.md"]
                .map(String::from)
                .into();
        let near = |path: &str| nearest_paths(path, &files);
        assert_eq!(near("src/foo.rs"), ["src/food.rs"]);
        assert_eq!(near("/home/me/project/src/main.rs"), ["src/main.rs"]);
        assert_eq!(near("main.rs"), ["src/main.rs"]);
        assert_eq!(near("util/mod.rs"), ["lib/util/mod.rs", "lib/text/mod.rs"]);
        assert_eq!(near("readme.md"), ["README.md"]);
        assert!(near("something/else/entirely.py").is_empty());
    }

    #[test]
    fn long_lines_are_cut_around_the_match() {
        let line = format!("{}needle{}\n", "x".repeat(1000), "y".repeat(1000));
        let short = shorten(line.as_bytes(), 1000);
        assert!(short.contains("needle") && short.starts_with("[...]") && short.ends_with("[...]"));
        assert!(short.len() < 300);
    }
}
