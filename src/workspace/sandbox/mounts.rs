//! Carries out a [`Layout`] in a mount namespace of our own: first takes hold of everything that stays visible,
//! then makes the whole tree read-only, then lays the private directories over it, and puts what was held back in
//! its place, outermost first.
#![allow(unsafe_code)]

use super::init::{Failure, Step};
use super::layout::{Layout, Toolchain};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, fstat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
    open_tree,
};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const SAFE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
const READ_ONLY: MountAttrFlags = SAFE.union(MountAttrFlags::MOUNT_ATTR_RDONLY);

/// A tree in hand and where it goes.
struct Held {
    path: PathBuf,
    tree: OwnedFd,
}

pub fn apply(layout: &Layout) -> Result<(), Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).step("make the mounts its own")?;

    let held = hold(layout)?;
    let devices: Vec<(&str, OwnedFd)> = DEVICES
        .iter()
        .filter_map(|name| Some((*name, clone_tree(&Path::new("/dev").join(name)).ok()?)))
        .collect();
    let proc =
        new_file_system("proc", &[], READ_ONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC).step("mount /proc")?;

    set_attributes(&root()?, READ_ONLY).step("make the file system read-only")?;

    let mut attached = Vec::new();
    for scratch in &layout.scratch {
        let tree = memory(scratch.mode, &format!("{}%", scratch.percent)).step("make private directories")?;
        attached.push(Held { path: PathBuf::from(&scratch.path), tree });
    }
    // Before the rest: a workspace may lie in `/dev/shm`.
    attach_devices(devices)?;
    attach(Held { path: "/proc".into(), tree: proc }).step("mount /proc")?;
    attached.extend(held);
    // Stable: at one depth scratch comes before the workspace, and pinned before read-only.
    attached.sort_by_key(|held| held.path.components().count());
    for held in attached {
        let path = held.path.clone();
        attach(held).step_with(|| format!("mount {}", path.display()))?;
    }
    hide(layout)?;
    let dev = clone_point("/dev").step("make /dev read-only")?;
    set_attributes_here(&dev, MountAttrFlags::MOUNT_ATTR_RDONLY).step("make /dev read-only")
}

/// Takes hold of everything that must stay visible, with its final attributes.
fn hold(layout: &Layout) -> Result<Vec<Held>, Failure> {
    let mut held = Vec::new();
    let workspace = PathBuf::from(&layout.workspace);
    let tree = clone_tree(&workspace).step("open the workspace")?;
    set_attributes(&tree, SAFE).step("open the workspace")?;
    held.push(Held { path: workspace, tree });
    for toolchain in &layout.toolchains {
        let path = PathBuf::from(&toolchain.path);
        // A toolchain that cannot be shown is missed by the command that needs it, not by the rest.
        let tree = overlay(toolchain).or_else(|_| overlay_in_memory(toolchain)).or_else(|_| read_only(&path));
        if let Ok(tree) = tree {
            held.push(Held { path, tree });
        }
    }
    for path in &layout.pinned {
        let path = PathBuf::from(path);
        let tree = clone_tree(&path).step("guard .git")?;
        set_attributes(&tree, SAFE).step("guard .git")?;
        held.push(Held { path, tree });
    }
    for path in &layout.read_only {
        let path = PathBuf::from(path);
        let tree = read_only(&path).step("guard what is read-only")?;
        held.push(Held { path, tree });
    }
    Ok(held)
}

fn root() -> Result<OwnedFd, Failure> {
    clone_point("/").step("open the root directory")
}

/// The mount at a path itself, not a copy.
fn clone_point(path: &str) -> Result<OwnedFd, Errno> {
    open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

fn clone_tree(path: &Path) -> Result<OwnedFd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags)
}

fn read_only(path: &Path) -> Result<OwnedFd, Errno> {
    let tree = clone_tree(path)?;
    set_attributes(&tree, READ_ONLY)?;
    Ok(tree)
}

/// The toolchain below, our layer above: reads see both, writes reach only ours.
fn overlay(toolchain: &Toolchain) -> Result<OwnedFd, Errno> {
    let layer = Path::new(toolchain.layer.as_ref().ok_or(Errno::NOENT)?);
    let escaped = |path: &Path| {
        let bytes = path.as_os_str().as_bytes().iter();
        bytes.flat_map(|byte| if b":\\".contains(byte) { vec![b'\\', *byte] } else { vec![*byte] }).collect()
    };
    let lower: Vec<u8> = escaped(Path::new(&toolchain.path));
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "lowerdir", lower)?;
    fsconfig_set_string(&context, "upperdir", layer.join("upper"))?;
    fsconfig_set_string(&context, "workdir", layer.join("work"))?;
    fsconfig_set_flag(&context, "userxattr")?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, SAFE)
}

/// Where the layer's file system cannot be the upper one (in containers it is an overlay itself): in memory, and gone
/// after the command.
fn overlay_in_memory(toolchain: &Toolchain) -> Result<OwnedFd, Errno> {
    let layer = PathBuf::from(toolchain.layer.as_ref().ok_or(Errno::NOENT)?);
    attach(Held { path: layer.clone(), tree: memory(0o700, "10%")? })?;
    for part in ["upper", "work"] {
        rustix::fs::mkdir(layer.join(part), Mode::RWXU)?;
    }
    overlay(toolchain)
}

fn memory(mode: u32, size: &str) -> Result<OwnedFd, Errno> {
    new_file_system("tmpfs", &[("mode", &format!("{mode:o}")), ("size", size)], SAFE)
}

fn new_file_system(kind: &str, options: &[(&str, &str)], flags: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        fsconfig_set_string(&context, *name, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

fn attach(held: Held) -> Result<(), Errno> {
    let Held { path, tree } = held;
    if rustix::fs::lstat(&path).is_err() {
        let missing = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let make = |path: &Path| std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
        if FileType::from_raw_mode(fstat(&tree)?.st_mode) == FileType::Directory {
            make(&path).map_err(missing)?;
        } else {
            make(path.parent().unwrap_or(Path::new("/"))).map_err(missing)?;
            std::fs::File::create_new(&path).map_err(missing)?;
        }
    }
    move_mount(&tree, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn attach_devices(devices: Vec<(&str, OwnedFd)>) -> Result<(), Failure> {
    const STEP: &str = "make /dev";
    attach(Held { path: "/dev".into(), tree: memory(0o755, "1m").step(STEP)? }).step(STEP)?;
    for (name, tree) in devices {
        attach(Held { path: Path::new("/dev").join(name), tree }).step(STEP)?;
    }
    let shared = memory(0o1777, "10%").step(STEP)?;
    attach(Held { path: "/dev/shm".into(), tree: shared }).step(STEP)?;
    // Pseudo-terminals of its own, for tests that need one; some containers refuse them.
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if let Ok(terminals) = new_file_system("devpts", &[("ptmxmode", "0666"), ("mode", "0620")], flags) {
        attach(Held { path: "/dev/pts".into(), tree: terminals }).step(STEP)?;
        symlink("pts/ptmx", "/dev/ptmx").step(STEP)?;
    }
    for (link, target) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        symlink(format!("/proc/self/fd{target}"), Path::new("/dev").join(link)).step(STEP)?;
    }
    Ok(())
}

/// Covers files with an empty one and directories with an empty directory.
fn hide(layout: &Layout) -> Result<(), Failure> {
    const STEP: &str = "hide credentials";
    const EMPTY: &str = "/dev/empty";
    std::fs::write(EMPTY, "").step(STEP)?;
    for path in layout.hidden.iter().map(PathBuf::from) {
        // A socket may be gone since it was listed, or go while this runs, and what is gone needs no hiding.
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let tree = if metadata.is_dir() {
            let tree = memory(0o555, "4k").step(STEP)?;
            set_attributes(&tree, READ_ONLY).step(STEP)?;
            tree
        } else {
            read_only(Path::new(EMPTY)).step(STEP)?
        };
        match attach(Held { path: path.clone(), tree }) {
            Err(_) if path.symlink_metadata().is_err() => {}
            attached => attached.step(STEP)?,
        }
    }
    std::fs::remove_file(EMPTY).step(STEP)
}

fn set_attributes(tree: &OwnedFd, set: MountAttrFlags) -> Result<(), Errno> {
    // From the kernel's interface; the libraries do not name it as an `AtFlags`.
    const AT_RECURSIVE: u32 = 0x8000;
    mount_setattr(tree, AT_RECURSIVE, set)
}

fn set_attributes_here(tree: &OwnedFd, set: MountAttrFlags) -> Result<(), Errno> {
    mount_setattr(tree, 0, set)
}

fn mount_setattr(tree: impl AsFd, flags: u32, set: MountAttrFlags) -> Result<(), Errno> {
    /// The kernel's `struct mount_attr`, first version.
    #[repr(C)]
    struct MountAttributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = MountAttributes { set: set.bits().into(), clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: an open descriptor, an empty NUL-terminated path, and a structure of the size that is passed; all
    // live until the call returns and the kernel writes to none of them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            AtFlags::EMPTY_PATH.bits() | flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Whether the root of the file system is read-only now: the one thing worth checking twice.
pub fn root_is_read_only() -> bool {
    rustix::fs::statvfs("/").is_ok_and(|root| root.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        && rustix::fs::open(
            "/.qwright-probe",
            rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
            Mode::RUSR,
        )
        .is_err()
}
