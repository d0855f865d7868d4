//! Mounts as descriptors: made detached, then attached below a [`RootDir`]. No path of the container is ever handed to mount(2).
//!
//! Targets are resolved by the kernel inside the root and checked on the descriptor, so nothing can be swapped between the check
//! and the mount (CVE-2021-30465, CVE-2024-45310 and their kin).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use berth_sys::mount_attr::{MountAttr, mount_setattr};
use berth_types::{Classify, ErrorClass};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::options::MountOptions;
use crate::root_dir::{RootDir, RootError};

/// A mount that could not be made or attached.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("cannot {what} {}", .object.display())]
    Kernel { what: &'static str, object: PathBuf, source: Errno },
    #[error("file system {fstype} refuses option {option:?}")]
    Option { fstype: String, option: String, source: Errno },
    #[error("{} is inside procfs, where only a fixed list of files may be mounted over", .0.display())]
    OverProc(PathBuf),
    #[error("{fstype} must be mounted on ordinary directory, and {} is none", .target.display())]
    NotOrdinary { fstype: String, target: PathBuf },
    #[error(transparent)]
    Root(#[from] RootError),
}

impl MountError {
    /// The kernel's word, for reports that carry a number.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Kernel { source, .. } | Self::Option { source, .. } => *source,
            Self::OverProc(_) => Errno::PERM,
            Self::NotOrdinary { .. } => Errno::LOOP,
            Self::Root(error) => error.source,
        }
    }
}

impl Classify for MountError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Kernel { source, .. } => match *source {
                Errno::NOENT | Errno::NOTDIR => ErrorClass::NotFound,
                Errno::PERM | Errno::ACCESS => ErrorClass::PermissionDenied,
                Errno::INVAL => ErrorClass::InvalidArgument,
                Errno::NOSPC | Errno::NOMEM | Errno::MFILE => ErrorClass::ResourceExhausted,
                _ => ErrorClass::Internal,
            },
            Self::Option { .. } | Self::NotOrdinary { .. } => ErrorClass::InvalidArgument,
            Self::OverProc(_) => ErrorClass::PermissionDenied,
            Self::Root(error) => error.class(),
        }
    }
}

/// `PROC_SUPER_MAGIC`, linux/magic.h.
pub const PROC_MAGIC: u64 = 0x9fa0;
/// `DEVPTS_SUPER_MAGIC`.
pub const DEVPTS_MAGIC: u64 = 0x1cd1;

/// The file system's magic number below a descriptor.
///
/// # Errors
/// The kernel's.
pub fn magic(fd: impl AsFd) -> Result<u64, Errno> {
    rustix::fs::fstatfs(fd).map(|s| u64::try_from(s.f_type).unwrap_or(0))
}

/// A new instance of a file system as a detached mount, with its per-mount attributes.
///
/// # Errors
/// With the option the file system did not take.
pub fn new_filesystem(fstype: &str, source: Option<&Path>, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let kernel = |what| move |source| MountError::Kernel { what, object: PathBuf::from(fstype), source };
    let context =
        rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(kernel("find file system type"))?;
    if let Some(source) = source {
        rustix::mount::fsconfig_set_string(&context, "source", source).map_err(kernel("set the source of"))?;
    }
    set_superblock(&context, &options.superblock).map_err(kernel("set the options of"))?;
    set_data(&context, fstype, options)?;
    rustix::mount::fsconfig_create(&context).map_err(kernel("create an instance of"))?;
    // Nothing is mounted below it yet, so the options of the whole tree are its own.
    let attributes = options.top.set | options.tree.set;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(kernel("mount"))
}

/// Options of any file system. `iversion` is no parameter of the new mount API: a file system that counts versions does so unasked.
fn set_superblock(context: &OwnedFd, options: &[String]) -> Result<(), Errno> {
    for option in options {
        match rustix::mount::fsconfig_set_flag(context, option.as_str()) {
            Err(Errno::INVAL) if option.ends_with("iversion") => {}
            set_or_failed => set_or_failed?,
        }
    }
    Ok(())
}

fn set_data(context: &OwnedFd, fstype: &str, options: &MountOptions) -> Result<(), MountError> {
    for (key, value) in &options.data {
        let result = match value {
            Some(value) => rustix::mount::fsconfig_set_string(context, key.as_str(), value.as_str()),
            None => rustix::mount::fsconfig_set_flag(context, key.as_str()),
        };
        result.map_err(|source| MountError::Option {
            fstype: fstype.to_owned(),
            option: value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}")),
            source,
        })?;
    }
    Ok(())
}

/// Other options for the mount at a target: its attributes, and with options of the file system that one's own (fspick(2)).
///
/// # Errors
/// `EINVAL` when nothing is mounted at the target; the option that was not taken.
pub fn remount(target: BorrowedFd<'_>, path: &Path, options: &MountOptions) -> Result<(), MountError> {
    let kernel = |what| move |source| MountError::Kernel { what, object: path.to_owned(), source };
    set_attributes(target, options).map_err(kernel("remount"))?;
    if options.data.is_empty() && options.superblock.is_empty() {
        return Ok(());
    }
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = rustix::mount::fspick(target, "", flags).map_err(kernel("find the file system at"))?;
    set_superblock(&context, &options.superblock).map_err(kernel("set the options of"))?;
    set_data(&context, "the mounted file system", options)?;
    rustix::mount::fsconfig_reconfigure(&context).map_err(kernel("change the file system at"))
}

/// A detached copy of the mount at a path of the host (trusted), with everything mounted below it when `recursive`.
///
/// # Errors
/// The kernel's, with the path.
pub fn clone_tree(source: &Path, recursive: bool) -> Result<OwnedFd, MountError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(rustix::fs::CWD, source, flags).map_err(|errno| MountError::Kernel {
        what: "clone the mount at",
        object: source.to_owned(),
        source: errno,
    })
}

/// The same for a mount in another mount namespace, as its processes see the path: the calling thread visits it and comes back.
/// The caller must be single-threaded. Links are followed inside that namespace.
///
/// # Errors
/// The kernel's, with the path.
pub fn clone_tree_in(mount_ns: BorrowedFd<'_>, source: &Path, recursive: bool) -> Result<OwnedFd, MountError> {
    let failed = |what| move |errno| MountError::Kernel { what, object: source.to_owned(), source: errno };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = |path: &str| rustix::fs::open(path, flags, Mode::empty());
    let home = open("/proc/self/ns/mnt").map_err(failed("keep the own mount namespace for"))?;
    let directory = open(".").map_err(failed("keep the working directory for"))?;
    enter(mount_ns).map_err(failed("enter the mount namespace of"))?;
    let cloned = clone_tree(source, recursive);
    // Back first: everything this process does next is meant for its own namespace.
    enter(home.as_fd()).map_err(failed("leave the mount namespace of"))?;
    rustix::process::fchdir(directory).map_err(failed("return to the working directory after"))?;
    cloned
}

fn enter(mount_ns: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::thread::move_into_link_name_space(mount_ns, Some(rustix::thread::LinkNameSpaceType::Mount))
}

/// The same for what a descriptor is on.
///
/// # Errors
/// The kernel's.
pub fn clone_tree_fd(source: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(source, "", flags)
}

/// Applies what the options say about a mount cloned from elsewhere: propagation, attributes of the tree and of its top.
///
/// # Errors
/// The kernel's; `ENOSYS` before Linux 5.12.
pub fn set_attributes(mount: BorrowedFd<'_>, options: &MountOptions) -> Result<(), Errno> {
    for (propagation, recursive) in &options.propagation {
        let change = MountAttr { propagation: *propagation, ..MountAttr::default() };
        mount_setattr(mount, *recursive, &change)?;
    }
    for (change, recursive) in [(options.top, false), (options.tree, true)] {
        if change.is_empty() {
            continue;
        }
        let change = MountAttr { set: change.set, clear: change.clear, ..MountAttr::default() };
        mount_setattr(mount, recursive, &change)?;
    }
    Ok(())
}

/// Makes a mount read-only, with everything below it when `recursive`.
///
/// # Errors
/// The kernel's.
pub fn set_read_only(mount: BorrowedFd<'_>, recursive: bool) -> Result<(), Errno> {
    let change = MountAttr { set: MountAttrFlags::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    mount_setattr(mount, recursive, &change)
}

/// What shall be mounted: a directory or something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    Directory,
    File,
}

/// Finds, or makes, the place for a mount. Links on the way are followed inside the root.
///
/// # Errors
/// `InvalidArgument` for the root itself and for a target of the other kind.
pub fn mount_target(root: &RootDir, path: &Path, kind: TargetKind) -> Result<OwnedFd, MountError> {
    if !path.components().any(|c| matches!(c, Component::Normal(_))) {
        return Err(RootError { operation: "mount over", path: path.to_owned(), source: Errno::BUSY }.into());
    }
    match root.resolve(path) {
        Ok(fd) => check_kind(fd, path, kind),
        // A link to what is not there yet is followed: the target is made where it leads.
        Err(RootError { source: Errno::NOENT, .. }) => make_target(root, &root.through_links(path)?, kind),
        Err(error) => Err(error.into()),
    }
}

fn check_kind(fd: OwnedFd, path: &Path, kind: TargetKind) -> Result<OwnedFd, MountError> {
    let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH).map_err(|source| RootError {
        operation: "stat",
        path: path.to_owned(),
        source,
    })?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if is_directory == (kind == TargetKind::Directory) {
        return Ok(fd);
    }
    let source = if is_directory { Errno::ISDIR } else { Errno::NOTDIR };
    Err(RootError { operation: "mount over", path: path.to_owned(), source }.into())
}

fn make_target(root: &RootDir, path: &Path, kind: TargetKind) -> Result<OwnedFd, MountError> {
    if kind == TargetKind::Directory {
        return Ok(root.create_dir_all(path, Mode::from_raw_mode(0o755))?);
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    root.create_dir_all(parent, Mode::from_raw_mode(0o755))?;
    let (directory, name) = root.parent(path)?;
    // O_EXCL: the name did not resolve, so it is missing or a dangling link; a link is not followed.
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o644)).map_err(|source| RootError {
        operation: "create mount target",
        path: path.to_owned(),
        source,
    })?;
    Ok(root.resolve(path)?)
}

/// Attaches a detached mount to a target found by [`mount_target`].
///
/// # Errors
/// The kernel's.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// Files of procfs that programs outside the kernel may stand in for.
const PROC_ALLOWED: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
    "/proc/net/dev",
];

/// Refuses a mount that would hide part of procfs (CVE-2019-16884): labels and sysctls written there must reach the kernel.
///
/// # Errors
/// [`MountError::OverProc`].
pub fn check_not_over_proc(path: &Path, target: BorrowedFd<'_>, mount: BorrowedFd<'_>) -> Result<(), MountError> {
    let named = lexical(path);
    let object = || path.to_owned();
    let stat_error = |source| MountError::Kernel { what: "stat the file system of", object: object(), source };
    let target_is_proc = magic(target).map_err(stat_error)? == PROC_MAGIC;
    if named == Path::new("/proc") || (target_is_proc && is_root_of_proc(target)) {
        let mount_is_proc = magic(mount).map_err(stat_error)? == PROC_MAGIC;
        return if mount_is_proc { Ok(()) } else { Err(MountError::OverProc(object())) };
    }
    if target_is_proc && !PROC_ALLOWED.iter().any(|allowed| named == Path::new(allowed)) {
        return Err(MountError::OverProc(object()));
    }
    Ok(())
}

fn is_root_of_proc(fd: BorrowedFd<'_>) -> bool {
    /// `PROC_ROOT_INO`
    const ROOT_INODE: u64 = 1;
    rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH).is_ok_and(|stat| stat.st_ino == ROOT_INODE)
}

/// The path with `.` and `..` taken out, as text.
pub fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// The target of procfs or sysfs: made when missing, but never reached over a link (CVE-2019-19921).
///
/// # Errors
/// [`MountError::NotOrdinary`] when a link is in the way.
pub fn ordinary_directory(root: &RootDir, path: &Path, fstype: &str) -> Result<OwnedFd, MountError> {
    let not_ordinary = || MountError::NotOrdinary { fstype: fstype.to_owned(), target: path.to_owned() };
    let inside = path.strip_prefix("/").unwrap_or(path);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat2(root.as_fd(), inside, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(fd),
        Err(Errno::NOENT) => {
            mount_target(root, path, TargetKind::Directory)?;
            rustix::fs::openat2(root.as_fd(), inside, flags, Mode::empty(), resolve).map_err(|_| not_ordinary())
        }
        Err(_) => Err(not_ordinary()),
    }
}
