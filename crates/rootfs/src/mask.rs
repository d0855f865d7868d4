//! Paths hidden from, or read-only for, a container: masked by an empty directory or `/dev/null`, or bound over themselves.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::devices::null_mount;
use crate::mounts::{MountError, attach, clone_tree_fd, new_filesystem, set_read_only};
use crate::options::MountOptions;
use crate::root_dir::{RootDir, RootError};

/// Sources for masking, made when first needed.
#[derive(Debug, Default)]
pub struct Masks {
    empty: Option<OwnedFd>,
    label: Option<String>,
}

impl Masks {
    /// With an SELinux context for the directories that are put over others.
    #[must_use]
    pub fn labelled(self, label: Option<&str>) -> Self {
        Self { label: label.map(str::to_owned), ..self }
    }

    /// Hides a path; one that does not exist is no error.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn mask(&mut self, root: &RootDir, path: &Path) -> Result<(), MountError> {
        let Some(target) = existing(root, path)? else { return Ok(()) };
        let error = |source| MountError::Kernel { what: "mask", object: path.to_owned(), source };
        let stat = rustix::fs::statat(&target, "", AtFlags::EMPTY_PATH).map_err(error)?;
        let mount = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.empty_directory()?
        } else {
            null_mount()?
        };
        attach(mount.as_fd(), target.as_fd()).map_err(error)
    }

    /// One empty read-only tmpfs serves all directories; a kernel before 6.15 does not clone detached mounts and gets one each.
    fn empty_directory(&mut self) -> Result<OwnedFd, MountError> {
        if let Some(empty) = &self.empty
            && let Ok(copy) = clone_tree_fd(empty.as_fd(), false)
        {
            return Ok(copy);
        }
        let mut options = MountOptions::parse(&["ro", "nosuid", "nodev", "noexec", "nr_inodes=1", "mode=555"]);
        options.data.extend(self.label.iter().map(|label| ("context".to_owned(), Some(label.clone()))));
        let mount = new_filesystem("tmpfs", Some(Path::new("tmpfs")), &options)?;
        if self.empty.is_none() {
            self.empty = clone_tree_fd(mount.as_fd(), false).ok();
        }
        Ok(mount)
    }
}

/// Binds a path read-only over itself; one that does not exist is no error.
///
/// # Errors
/// The kernel's, with the path.
pub fn read_only(root: &RootDir, path: &Path) -> Result<(), MountError> {
    let Some(target) = existing(root, path)? else { return Ok(()) };
    over_itself(target.as_fd()).map_err(|source| MountError::Kernel {
        what: "make read-only",
        object: path.to_owned(),
        source,
    })
}

fn over_itself(target: BorrowedFd<'_>) -> Result<(), Errno> {
    let mount = clone_tree_fd(target, true)?;
    set_read_only(mount.as_fd(), true)?;
    attach(mount.as_fd(), target)
}

fn existing(root: &RootDir, path: &Path) -> Result<Option<OwnedFd>, MountError> {
    match root.resolve(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(RootError { source: Errno::NOENT | Errno::NOTDIR, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
