//! The directories that files lie in: opened, made where missing, and removed again where nothing came of it.

use super::{Guard, Location, directory_flags, io_error, open_beneath};
use crate::workspace::{WorkspaceError, faults};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

impl Guard {
    /// The directory that holds `location`.
    fn parent(location: &Location) -> Location {
        let names = location.split().map_or(&[][..], |(parent, _)| parent);
        Location { root: location.root, names: names.to_vec() }
    }

    /// A handle on the directory that holds `location`; `None` where there is none, or a link stands in the way. One that
    /// may not be read can be written in all the same, but not synced.
    pub fn open_parent(&self, location: &Location) -> Result<Option<OwnedFd>, Errno> {
        let (Some((parent, _)), Some(root)) = (location.split(), self.roots.get(location.root)) else {
            return Ok(None);
        };
        let open = |flags| open_beneath(root.handle.as_fd(), parent, flags, Mode::empty());
        let opened = match open(OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC) {
            Err(Errno::ACCESS) => open(directory_flags()),
            opened => opened,
        };
        match opened {
            Ok(handle) => Ok(Some(handle)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The directories that [`Guard::make_parent`] would make, the outermost first.
    pub fn missing_parents(&self, location: &Location) -> Result<Vec<Location>, WorkspaceError> {
        let mut missing = Vec::new();
        let mut parent = Self::parent(location);
        while self.open_directory(&parent)?.is_none() && !parent.is_root() {
            missing.insert(0, parent.clone());
            parent.names.pop();
        }
        Ok(missing)
    }

    /// A handle on the directory that holds `location`, made where missing. Returns the directories it made, the
    /// outermost first.
    pub fn make_parent(&self, location: &Location) -> Result<(OwnedFd, Vec<Location>), WorkspaceError> {
        let parent = Self::parent(location);
        if let Some(handle) = self.open_directory(&parent)? {
            return Ok((handle, Vec::new()));
        }
        let mut made = Vec::new();
        match self.make_directories(location, &parent, &mut made) {
            Ok(handle) => Ok((handle, made)),
            Err(error) => {
                made.iter().rev().for_each(|directory| self.remove_directory_if_empty(directory));
                Err(error)
            }
        }
    }

    fn make_directories(
        &self,
        location: &Location,
        parent: &Location,
        made: &mut Vec<Location>,
    ) -> Result<OwnedFd, WorkspaceError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base = self.handle(location)?;
        let mut handle = open_beneath(base, &[], flags, Mode::empty())
            .map_err(|errno| io_error("open", &self.display(location), errno))?;
        for depth in 0..parent.names.len() {
            let here = Location { root: location.root, names: parent.names[..=depth].to_vec() };
            let failed = |errno| io_error("create the directory", &self.display(&here), errno);
            let make = || {
                faults::step()?;
                rustix::fs::mkdirat(&handle, &parent.names[depth], Mode::from_raw_mode(0o777))
            };
            match make() {
                Ok(()) => {
                    made.push(here.clone());
                    // What is written in it is to be found after a loss of power, too.
                    let _ = rustix::fs::fsync(&handle);
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
            handle = open_beneath(base, &here.names, flags, Mode::empty()).map_err(failed)?;
        }
        Ok(handle)
    }

    pub fn remove_directory_if_empty(&self, location: &Location) {
        if let (Ok(Some(parent)), Ok(name)) = (self.open_parent(location), self.name(location))
            && faults::step().is_ok()
        {
            let _ = rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR);
        }
    }
}
