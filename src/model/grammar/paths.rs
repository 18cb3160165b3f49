//! Paths as they are spelled: component by component through the directories that are there, which are listed as a path
//! comes to them. Knows the spellings that lead into the workspace (`./`, its own name, its absolute path); `..`, empty
//! components and directories that hold nothing are not offered. What stands in a directory, `LiveValues` says.

use super::live::{Entry, EntryKind, LiveValues, Rule};
use super::trie::LONG;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The path so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    directory: u32,
    /// Entries of the directory that the component may still be: `from..to`, which agree in `depth` bytes.
    from: u32,
    to: u32,
    depth: u16,
    /// Nothing of this name is there, or the directory is a new one.
    new: bool,
    fresh_directory: bool,
    component: Component,
}

/// What the text of a component says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Component {
    /// Dots only, so far, or bytes of blanks that are not ASCII: no name that a tool takes.
    dots: bool,
    blank_end: bool,
    /// How far a line break beyond ASCII has begun.
    line: Begun,
    /// Bytes that agree with a name that may not be written, for each of them; `OFF` where one does not.
    kept: [u8; KEPT.len()],
}

/// The first bytes of what UTF-8 writes as U+0085, U+2028 or U+2029: no path holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Begun {
    #[default]
    Nothing,
    /// c2
    Next,
    /// e2, e2 80
    Separator,
    Separator80,
}

impl Begun {
    /// `None` where the byte ends a line break.
    fn step(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Next, 0x85) | (Self::Separator80, 0xa8 | 0xa9) => None,
            (Self::Separator, 0x80) => Some(Self::Separator80),
            (_, 0xc2) => Some(Self::Next),
            (_, 0xe2) => Some(Self::Separator),
            _ => Some(Self::Nothing),
        }
    }
}

/// Names that tools may not write, in small letters; the last would be somebody's home to a shell.
const KEPT: [&[u8]; 4] = [b".git", b".qwright", b"git~1", b"~"];
const OFF: u8 = u8::MAX;
/// Bytes of a new name.
const MAX_NAME: u16 = 200;

impl Component {
    fn step(mut self, byte: u8) -> Option<Self> {
        self.line = self.line.step(byte)?;
        self.dots &= byte == b'.' || of_a_wide_blank(byte);
        self.blank_end = byte == b' ' || byte == b'.';
        for (at, name) in self.kept.iter_mut().zip(KEPT) {
            *at = match name.get(usize::from(*at)) {
                Some(expected) if *at != OFF && expected.eq_ignore_ascii_case(&byte) => *at + 1,
                // Dots and blanks at its end do not make it another name.
                None if *at != OFF && matches!(byte, b'.' | b' ') => *at,
                _ => OFF,
            };
        }
        Some(self)
    }

    fn start() -> Self {
        Self { dots: true, ..Self::default() }
    }

    fn is_kept(self) -> bool {
        self.kept.iter().zip(KEPT).any(|(at, name)| usize::from(*at) == name.len())
    }
}

/// Whether UTF-8 writes a blank beyond ASCII (U+0085, U+00A0, U+1680, U+2000 to U+200A, U+2028 and on, U+3000) with
/// this byte.
fn of_a_wide_blank(byte: u8) -> bool {
    matches!(byte, 0x80..=0x8a | 0x9a | 0x9f | 0xa0 | 0xa8 | 0xa9 | 0xaf | 0xc2 | 0xe1..=0xe3)
}

#[derive(Debug)]
struct Directory {
    /// As `LiveValues` knows it; `None` for one that only leads to the workspace.
    name: Option<String>,
    entries: Rc<[Named]>,
}

#[derive(Debug)]
struct Named {
    name: Box<[u8]>,
    kind: EntryKind,
    /// A directory that stands for another place: a spelling of the workspace.
    leads_to: Option<u32>,
}

#[derive(Default)]
pub struct Paths {
    directories: RefCell<Vec<Rc<Directory>>>,
    known: RefCell<HashMap<String, u32>>,
    /// Whether there is a file in a directory or beneath it that the rule lets be named.
    holds: RefCell<HashMap<(u32, Rule), bool>>,
    /// Whether the text of a file can be edited.
    editable: RefCell<HashMap<String, bool>>,
}

/// Directories looked into for a file before one is taken to hold some.
const LOOKS: usize = 1000;

impl Paths {
    /// The start of a path: the workspace, and the other spellings that lead to it.
    pub fn start(&self, live: &dyn LiveValues) -> Place {
        if self.directories.borrow().is_empty() {
            let top = self.list(live, "");
            let mut entries: Vec<Named> = Vec::new();
            for (spelling, leads_to) in live.spellings() {
                let target = self.directory(live, &leads_to);
                if let Some((first, rest)) = spelling.split_once('/') {
                    let at = self.chain(rest, target);
                    entries.push(Named {
                        name: first.as_bytes().into(),
                        kind: EntryKind::Directory,
                        leads_to: Some(at),
                    });
                }
            }
            // Names that are there come before the other spellings of the workspace.
            for entry in top {
                entries.retain(|other| other.name != entry.name);
                entries.push(entry);
            }
            // Ids are handed out as directories are met; this one is looked up by its own name.
            let id = self.push(Some(String::new()), entries);
            self.known.borrow_mut().insert("\0start".into(), id);
        }
        let id = self.known.borrow().get("\0start").copied().unwrap_or(0);
        self.enter(id)
    }

    /// Directories that only lead from one to the next, and at last to `target`.
    fn chain(&self, rest: &str, target: u32) -> u32 {
        let mut at = target;
        for name in rest.split('/').filter(|name| !name.is_empty()).rev() {
            let entry =
                Named { name: name.as_bytes().into(), kind: EntryKind::Directory, leads_to: Some(at) };
            at = self.push(None, vec![entry]);
        }
        at
    }

    fn push(&self, name: Option<String>, mut entries: Vec<Named>) -> u32 {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut directories = self.directories.borrow_mut();
        directories.push(Rc::new(Directory { name, entries: entries.into() }));
        u32::try_from(directories.len() - 1).unwrap_or(u32::MAX)
    }

    fn list(&self, live: &dyn LiveValues, name: &str) -> Vec<Named> {
        let entries = live.entries(name).into_iter();
        let named =
            |entry: Entry| Named { name: entry.name.into_bytes().into(), kind: entry.kind, leads_to: None };
        // A name with `<` might hold a tag of the call.
        let fine = |entry: &Named| !entry.name.is_empty() && !entry.name.contains(&b'<');
        entries.map(named).filter(fine).collect()
    }

    fn directory(&self, live: &dyn LiveValues, name: &str) -> u32 {
        if let Some(id) = self.known.borrow().get(name) {
            return *id;
        }
        let entries = self.list(live, name);
        let id = self.push(Some(name.to_string()), entries);
        self.known.borrow_mut().insert(name.to_string(), id);
        id
    }

    fn enter(&self, directory: u32) -> Place {
        let entries = self.get(directory).map_or(0, |found| found.entries.len());
        Place {
            directory,
            from: 0,
            to: u32::try_from(entries).unwrap_or(u32::MAX),
            depth: 0,
            new: false,
            fresh_directory: false,
            component: Component::start(),
        }
    }

    fn get(&self, id: u32) -> Option<Rc<Directory>> {
        self.directories.borrow().get(id as usize).cloned()
    }

    /// Where a directory entry leads.
    fn target(&self, live: &dyn LiveValues, directory: &Directory, entry: &Named) -> u32 {
        match (entry.leads_to, &directory.name) {
            (Some(target), _) => target,
            (None, name) => self.directory(live, &join(name.as_deref().unwrap_or_default(), &entry.name)),
        }
    }

    /// Whether there is a file in it or beneath it, as far as a short look shows.
    fn holds_file(&self, live: &dyn LiveValues, id: u32, rule: Rule) -> bool {
        if let Some(known) = self.holds.borrow().get(&(id, rule)) {
            return *known;
        }
        let mut looks = 0;
        let mut waiting = vec![id];
        let mut found = false;
        while let Some(next) = waiting.pop() {
            looks += 1;
            let Some(directory) = self.get(next) else { continue };
            let file =
                |entry: &Named| entry.kind == EntryKind::File && self.offers(live, &directory, entry, rule);
            if looks > LOOKS || directory.entries.iter().any(file) {
                found = true;
                break;
            }
            for entry in directory.entries.iter().filter(|entry| entry.kind == EntryKind::Directory) {
                waiting.push(self.target(live, &directory, entry));
            }
        }
        self.holds.borrow_mut().insert((id, rule), found);
        found
    }

    pub fn lead_to_a_file(&self, live: &dyn LiveValues, place: Place, rule: Rule) -> bool {
        self.holds_file(live, place.directory, rule)
    }

    fn offers(&self, live: &dyn LiveValues, directory: &Directory, entry: &Named, rule: Rule) -> bool {
        match (entry.kind, rule) {
            (EntryKind::File, Rule::Directory) | (EntryKind::Blocked, _) => false,
            (EntryKind::File, Rule::Edited) => self.is_editable(live, directory, entry),
            (EntryKind::File, _) => true,
            (EntryKind::Directory, Rule::File | Rule::Edited) => {
                self.holds_file(live, self.target(live, directory, entry), rule)
            }
            (EntryKind::Directory, _) => true,
        }
    }

    fn is_editable(&self, live: &dyn LiveValues, directory: &Directory, entry: &Named) -> bool {
        let Some(name) = &directory.name else { return false };
        let path = join(name, &entry.name);
        if let Some(known) = self.editable.borrow().get(&path) {
            return *known;
        }
        let found = live.text(&path).is_some();
        self.editable.borrow_mut().insert(path, found);
        found
    }

    pub fn step(&self, live: &dyn LiveValues, place: Place, byte: u8, rule: Rule) -> Option<Place> {
        if byte < 0x20 || byte == 0x7f {
            return None;
        }
        let directory = self.get(place.directory)?;
        if byte == b'/' {
            return self.descend(live, place, &directory, rule);
        }
        let component = place.component.step(byte)?;
        let mut next = Place { depth: place.depth + 1, component, ..place };
        if !place.new {
            let entries = &directory.entries[place.from as usize..place.to as usize];
            let at = usize::from(place.depth);
            let start = entries.partition_point(|entry| entry.name.get(at) < Some(&byte));
            let end = entries.partition_point(|entry| entry.name.get(at) <= Some(&byte));
            next.from = place.from + start as u32;
            next.to = place.from + end as u32;
            let entries = &entries[start..end];
            // What is there and closed is no new name, but others may begin with its own.
            let begins_new = rule == Rule::New
                && !entries.is_empty()
                && directory.name.is_some()
                && place.depth < MAX_NAME / 2;
            if begins_new || entries.iter().any(|entry| self.offers(live, &directory, entry, rule)) {
                return Some(next);
            }
        }
        // Only what is written may be new, and only in a real directory.
        let may_be_new = rule == Rule::New && directory.name.is_some() && place.depth < MAX_NAME;
        let fine = !matches!(byte, b'<' | b'>' | b'|' | b'?' | b'*') && (place.depth > 0 || byte != b' ');
        // The last bytes are such that the name can end with them.
        let last = place.depth + 4 >= MAX_NAME && (byte == b' ' || byte == b'.' || byte >= 0xc0);
        (may_be_new && fine && !last).then_some(Place { new: true, ..next })
    }

    /// Where a new name is written with room for any token, whatever it is: the bytes that it does not begin with.
    pub fn is_free(&self, place: Place, rule: Rule) -> Option<Vec<u8>> {
        let free = rule == Rule::New
            && usize::from(place.depth) + LONG + 8 < usize::from(MAX_NAME)
            && self.get(place.directory).is_some_and(|directory| directory.name.is_some());
        free.then(|| if place.depth == 0 { vec![b' '] } else { Vec::new() })
    }

    /// At the slash after a component.
    fn descend(
        &self,
        live: &dyn LiveValues,
        place: Place,
        directory: &Directory,
        rule: Rule,
    ) -> Option<Place> {
        if let Some(entry) = exact(directory, place) {
            let allowed = entry.kind == EntryKind::Directory
                && self.offers(live, directory, entry, rule)
                && !(rule == Rule::New && place.component.is_kept());
            return allowed.then(|| self.enter(self.target(live, directory, entry)));
        }
        let fine = rule == Rule::New && place.new_name_is_fine() && directory.name.is_some();
        fine.then_some(Place {
            depth: 0,
            new: true,
            fresh_directory: true,
            component: Component::start(),
            ..place
        })
    }

    /// May the path end here?
    pub fn may_end(&self, live: &dyn LiveValues, place: Place, rule: Rule) -> bool {
        let Some(directory) = self.get(place.directory) else { return false };
        if place.depth == 0 {
            // After a slash: a directory that is there.
            let start = self.known.borrow().get("\0start").copied();
            return matches!(rule, Rule::Directory | Rule::Any)
                && !place.fresh_directory
                && directory.name.is_some()
                && start != Some(place.directory);
        }
        match exact(&directory, place) {
            Some(entry) => match (entry.kind, rule) {
                (EntryKind::Directory, Rule::Directory | Rule::Any) => {
                    self.get(self.target(live, &directory, entry)).is_some_and(|found| found.name.is_some())
                }
                (EntryKind::File, Rule::New) => !place.component.is_kept(),
                (EntryKind::File, Rule::File | Rule::Any) => true,
                (EntryKind::File, Rule::Edited) => self.is_editable(live, &directory, entry),
                _ => false,
            },
            None => rule == Rule::New && directory.name.is_some() && place.new_name_is_fine(),
        }
    }

    /// The path as `LiveValues` knows it, where it has come to a file.
    pub fn file(&self, place: Place) -> Option<String> {
        let directory = self.get(place.directory)?;
        let entry = exact(&directory, place).filter(|entry| entry.kind == EntryKind::File)?;
        Some(join(directory.name.as_deref()?, &entry.name))
    }
}

impl Place {
    fn new_name_is_fine(self) -> bool {
        let Component { dots, blank_end, .. } = self.component;
        self.depth > 0 && !dots && !blank_end && !self.component.is_kept()
    }
}

fn exact(directory: &Directory, place: Place) -> Option<&Named> {
    if place.new {
        return None;
    }
    let entry = directory.entries.get(place.from as usize..place.to as usize)?.first()?;
    (entry.name.len() == usize::from(place.depth)).then_some(entry)
}

fn join(directory: &str, name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    match directory {
        "" => name.into_owned(),
        "/" => format!("/{name}"),
        _ => format!("{directory}/{name}"),
    }
}
