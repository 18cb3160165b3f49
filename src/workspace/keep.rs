//! Files that are to stay as they are: known by where they really lie, whatever a path calls them, and put back where
//! a command changed them all the same. Who asks for that, and why, is the agent's.

use super::guard::Location;
use super::undo::UndoReport;
use super::write::{self, Attributes, Expected};
use super::{MAX_WHOLE, Workspace, WorkspaceError, read_whole, write_error};
use rustix::fs::{AtFlags, Stat};

/// Files as they were at one moment.
#[derive(Default)]
pub struct Kept(Vec<File>);

impl Kept {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

struct File {
    location: Location,
    bytes: Vec<u8>,
    stat: Stat,
}

impl Workspace {
    /// Remembers files as they are now. What is no file of the workspace, or too large for an edit, is left out.
    pub fn keep(&self, paths: &[String]) -> Kept {
        let mut files: Vec<File> = Vec::new();
        for path in paths {
            let Ok(location) = self.guard.file(path) else { continue };
            if files.iter().any(|file| file.location == location) {
                continue;
            }
            if let Some((bytes, stat)) = self.as_it_is(&location) {
                files.push(File { location, bytes, stat });
            }
        }
        Kept(files)
    }

    /// Whether `path` leads to a file that was kept.
    pub fn is_kept(&self, kept: &Kept, path: &str) -> bool {
        !kept.is_empty()
            && self.guard.file(path).is_ok_and(|location| kept.0.iter().any(|file| file.location == location))
    }

    /// Makes kept files what they were; names those that were not.
    pub fn put_back(&self, kept: &Kept) -> UndoReport {
        let mut report = UndoReport::default();
        for file in &kept.0 {
            let path = self.guard.display(&file.location);
            match self.put_back_one(file) {
                Ok(true) => report.restored.push(path),
                Ok(false) => {}
                Err(error) => report.kept.push((path, error.to_string())),
            }
        }
        report
    }

    fn put_back_one(&self, file: &File) -> Result<bool, WorkspaceError> {
        let now = self.as_it_is(&file.location);
        if now.as_ref().is_some_and(|(bytes, stat)| *bytes == file.bytes && stat.st_mode == file.stat.st_mode)
        {
            return Ok(false);
        }
        let (directory, _) = self.guard.make_parent(&file.location)?;
        let name = self.guard.name(&file.location)?;
        let expected = match now {
            Some((bytes, _)) => Expected::Hash(write::hash(&bytes)),
            // Something else may have taken its place: a link, say. A directory stays, and is an error below.
            None => {
                let _ = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
                Expected::Absent
            }
        };
        let (attributes, temporary) = (Attributes::Like(file.stat), write::temporary_name());
        write::replace(&directory, name, &file.bytes, attributes, expected, &temporary)
            .map_err(|error| write_error(&self.guard.display(&file.location), error))?;
        Ok(true)
    }

    /// `None` where no plain file that can be held is there.
    fn as_it_is(&self, location: &Location) -> Option<(Vec<u8>, Stat)> {
        let (file, stat) = self.guard.open_file(location).ok()??;
        if u64::try_from(stat.st_size).unwrap_or(0) > MAX_WHOLE {
            return None;
        }
        Some((read_whole(file, &self.guard.display(location)).ok()?, stat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn kept_files_are_known_by_any_name_and_put_back_from_anything() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir(at("tests")).unwrap();
        for name in ["tests/a", "tests/b", "tests/c", "other"] {
            fs::write(at(name), name).unwrap();
        }
        symlink("tests/a", at("link")).unwrap();
        let workspace = Workspace::open(root.path(), &[]).unwrap();
        let kept = workspace.keep(&["tests/a", "link", "tests/b", "tests/c", "missing"].map(String::from));
        for path in ["tests/a", "./tests/../tests/a", "link", &at("tests/b").to_string_lossy()] {
            assert!(workspace.is_kept(&kept, path), "{path}");
        }
        assert!(!workspace.is_kept(&kept, "other") && !workspace.is_kept(&kept, "missing"));
        assert_eq!(workspace.put_back(&kept), UndoReport::default());
        fs::write(at("tests/a"), "changed").unwrap();
        fs::remove_file(at("tests/b")).unwrap();
        symlink("a", at("tests/b")).unwrap();
        fs::set_permissions(at("tests/c"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(workspace.put_back(&kept).restored, ["tests/a", "tests/b", "tests/c"]);
        for name in ["tests/a", "tests/b", "tests/c"] {
            assert_eq!(fs::read_to_string(at(name)).unwrap(), name);
            assert!(!at(name).is_symlink());
        }
        fs::remove_dir_all(at("tests")).unwrap();
        assert_eq!(workspace.put_back(&kept).restored.len(), 3);
        assert_eq!(fs::read_to_string(at("tests/c")).unwrap(), "tests/c");
    }
}
