//! What became of one checkpoint in the next: changes that undo can take back, and what it cannot.
//!
//! A file that is new in a checkpoint need not be new: it may have been moved out of a directory that is ignored, or be
//! ignored no longer. Undo would remove the only copy, so it counts as made by the command only if the file system
//! says that it was made then, or knows it as a file that was covered.

use super::scan::{Checkpoint, Item};
use crate::workspace::node::Node;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// File systems keep time by a clock that may be behind by so much.
pub const SLACK: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub struct Difference {
    pub changes: Vec<Changed>,
    /// What is not kept, and why.
    pub left_out: Vec<(PathBuf, &'static str)>,
    /// What was there before under a name that is not covered.
    pub foreign: Vec<PathBuf>,
}

#[derive(Debug)]
pub struct Changed {
    pub path: PathBuf,
    pub before: Node,
    pub after: Node,
    /// What stands there now is no work of the command's.
    pub foreign: bool,
}

impl Difference {
    pub fn between(before: &Checkpoint, after: &Checkpoint) -> Self {
        let mut difference = Self::default();
        let mut known: Option<HashSet<(u64, u64)>> = None;
        for (path, item) in &after.items {
            let was = before.items.get(path).map(|was| &was.node);
            if was == Some(&item.node) {
                continue;
            }
            let foreign = is_older(item, before.started) && {
                let known = known.get_or_insert_with(|| before.items.values().map(identity).collect());
                !known.contains(&identity(item))
            };
            match (was, &item.node) {
                (None, Node::Opaque { .. }) if foreign => difference.foreign.push(path.clone()),
                (Some(Node::Opaque { why, .. }), _) | (None, Node::Opaque { why, .. }) => {
                    difference.left_out.push((path.clone(), why));
                }
                (None, _) if foreign => difference.foreign.push(path.clone()),
                (was, now) => difference.changes.push(Changed {
                    path: path.clone(),
                    before: was.cloned().unwrap_or(Node::Absent),
                    after: now.clone(),
                    foreign,
                }),
            }
        }
        for (path, item) in before.items.iter().filter(|(path, _)| !after.items.contains_key(*path)) {
            match &item.node {
                Node::Opaque { why, .. } => difference.left_out.push((path.clone(), why)),
                node => difference.changes.push(Changed {
                    path: path.clone(),
                    before: node.clone(),
                    after: Node::Absent,
                    foreign: false,
                }),
            }
        }
        difference.changes.sort_by(|a, b| a.path.cmp(&b.path));
        difference.left_out.sort();
        difference.foreign.sort();
        difference
    }
}

fn identity(item: &Item) -> (u64, u64) {
    (item.stamp.device, item.stamp.inode)
}

/// Whether it was made before `time`. Where the file system does not say, what was last written before then counts.
fn is_older(item: &Item, time: SystemTime) -> bool {
    match item.born {
        Some(born) => born < time - SLACK,
        None => {
            let time = (time - SLACK).duration_since(UNIX_EPOCH).unwrap_or_default();
            item.stamp.modified.0 < i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::node::Stamp;
    use std::collections::{BTreeSet, HashMap};
    use std::sync::Arc;

    const NOON: u64 = 1_000_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn item(byte: u8, inode: u64, born: Option<u64>) -> Item {
        let written = (born.unwrap_or(1) as i64, 0);
        let stamp = Stamp { device: 1, inode, size: 1, mode: 0, modified: written, changed: written };
        Item { node: Node::File { hash: [byte; 32], mode: 0o644 }, stamp, born: born.map(at) }
    }

    fn opaque(size: u64) -> Item {
        let mut item = item(0, 99, Some(NOON + 1));
        item.stamp.size = size;
        item.node = Node::Opaque { why: "large", stamp: item.stamp };
        item
    }

    fn checkpoint(items: Vec<(&str, Item)>) -> Checkpoint {
        Checkpoint {
            started: at(NOON),
            items: items.into_iter().map(|(path, item)| (path.into(), item)).collect::<HashMap<_, _>>(),
            uncovered: Arc::default(),
            unreadable: BTreeSet::new(),
        }
    }

    type Shown = (Vec<String>, Vec<String>, Vec<String>);

    fn shown(before: Vec<(&str, Item)>, after: Vec<(&str, Item)>) -> Shown {
        let difference = Difference::between(&checkpoint(before), &checkpoint(after));
        let path = |path: &PathBuf| path.display().to_string();
        let changes = difference.changes.iter().map(|c| match (&c.before, &c.after) {
            (Node::Absent, _) => format!("+{}", path(&c.path)),
            (_, Node::Absent) => format!("-{}", path(&c.path)),
            _ if c.foreign => format!("?{}", path(&c.path)),
            _ => format!("~{}", path(&c.path)),
        });
        (
            changes.collect(),
            difference.left_out.iter().map(|(left_out, _)| path(left_out)).collect(),
            difference.foreign.iter().map(path).collect(),
        )
    }

    #[test]
    fn changed_made_removed_and_moved() {
        let before =
            || vec![("a", item(1, 1, Some(5))), ("b", item(2, 2, Some(5))), ("d/x", item(3, 3, Some(5)))];
        assert_eq!(shown(before(), before()), Shown::default());
        let after = vec![
            ("a", item(9, 1, Some(5))),
            ("new", item(4, 4, Some(NOON))),
            // A directory that was moved: what lies in it is as old as it was.
            ("e/x", item(3, 3, Some(5))),
        ];
        let (changes, left_out, foreign) = shown(before(), after);
        assert_eq!(changes, ["~a", "-b", "-d/x", "+e/x", "+new"]);
        assert!(left_out.is_empty() && foreign.is_empty());
    }

    #[test]
    fn what_was_there_before_is_no_work_of_the_commands() {
        let before = vec![("a", item(1, 1, Some(5)))];
        let after = vec![
            ("a", item(7, 70, Some(6))),
            ("secret", item(8, 80, Some(6))),
            ("unknown age", item(9, 90, None)),
        ];
        let (changes, _, foreign) = shown(before, after);
        assert_eq!((changes, foreign), (vec!["?a".into()], vec!["secret".into(), "unknown age".into()]));
    }

    #[test]
    fn what_is_not_kept_is_named_where_it_changed() {
        let (changes, left_out, _) = shown(
            vec![
                ("same", opaque(5)),
                ("grew", opaque(5)),
                ("gone", opaque(5)),
                ("small", item(1, 1, Some(5))),
            ],
            vec![("same", opaque(5)), ("grew", opaque(6)), ("made", opaque(5)), ("small", opaque(5))],
        );
        assert_eq!(changes, ["~small"], "what it was is kept");
        assert_eq!(left_out, ["gone", "grew", "made"]);
    }
}
