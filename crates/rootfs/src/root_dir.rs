//! A directory that is somebody else's root. Links inside it are resolved as that somebody would see them and can never lead out.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use berth_types::{Classify, ErrorClass};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// An operation below a root failed: what, on which path inside the root, and what the kernel said.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {} in the root file system", .path.display())]
pub struct RootError {
    pub operation: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: Errno,
}

impl Classify for RootError {
    fn class(&self) -> ErrorClass {
        match self.source {
            Errno::NOENT | Errno::NOTDIR => ErrorClass::NotFound,
            Errno::EXIST => ErrorClass::AlreadyExists,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorClass::PermissionDenied,
            Errno::NOSPC | Errno::DQUOT | Errno::MFILE => ErrorClass::ResourceExhausted,
            Errno::LOOP | Errno::XDEV | Errno::INVAL | Errno::NAMETOOLONG => ErrorClass::InvalidArgument,
            _ => ErrorClass::Internal,
        }
    }
}

/// How often a race with a rename inside the root (EAGAIN, openat2(2)) is tried again.
const RACE_RETRIES: usize = 128;

/// Calls again while the kernel cannot tell whether a concurrent rename or mount led out of the root.
pub(crate) fn retry_race<T>(mut open: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 0..RACE_RETRIES {
        match open() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened_or_failed => return opened_or_failed,
        }
    }
    Err(Errno::AGAIN)
}

/// A root held by a descriptor. All methods take paths as seen from inside; a leading `/` is the root itself.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
}

impl RootDir {
    /// Takes a directory descriptor (`O_PATH` will do) as a root.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens a host directory as a root. The path itself is the host's and trusted.
    ///
    /// # Errors
    /// When it cannot be opened or is no directory.
    pub fn open_host(path: &Path) -> Result<Self, RootError> {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map(Self::new)
            .map_err(|source| RootError { operation: "open", path: path.to_owned(), source })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// `openat2` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS` (Linux 5.6): links are followed inside the root only.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn open(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, RootError> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path_or_dot = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        retry_race(|| rustix::fs::openat2(&self.fd, path_or_dot, flags | OFlags::CLOEXEC, mode, resolve))
            .map_err(|source| RootError { operation: "open", path: path.to_owned(), source })
    }

    /// An `O_PATH` descriptor of what the path leads to, links followed inside the root.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn resolve(&self, path: &Path) -> Result<OwnedFd, RootError> {
        self.open(path, OFlags::PATH, Mode::empty())
    }

    /// The directory that holds the path's last component (links in the way followed inside the root), and that component.
    /// The component itself is not looked at. `..` as the last component is refused.
    ///
    /// # Errors
    /// `InvalidArgument` when the path has no last component; the kernel's otherwise.
    pub fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), RootError> {
        let name = match path.components().next_back() {
            Some(Component::Normal(name)) => name,
            _ => {
                return Err(RootError { operation: "find the parent of", path: path.to_owned(), source: Errno::INVAL });
            }
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let fd = self.open(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok((fd, name))
    }

    /// Metadata of the path itself: a link at its end is not followed.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn lstat(&self, path: &Path) -> Result<Stat, RootError> {
        let error = |source| RootError { operation: "stat", path: path.to_owned(), source };
        let fd = self.open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH).map_err(error)
    }

    /// Makes every missing directory of the path with `mode`; existing ones, and links to directories inside the root, are used as they are.
    /// Returns the last one as an `O_PATH` descriptor.
    ///
    /// # Errors
    /// The kernel's, with the path of the component that failed.
    pub fn create_dir_all(&self, path: &Path, mode: Mode) -> Result<OwnedFd, RootError> {
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, directory, Mode::empty()) {
            Err(RootError { source: Errno::NOENT, .. }) => {}
            found_or_failed => return found_or_failed,
        }
        let mut so_far = PathBuf::new();
        for component in path.components() {
            let Component::Normal(name) = component else {
                if component == Component::ParentDir {
                    so_far.push("..");
                }
                continue;
            };
            so_far.push(name);
            match self.open(&so_far, directory, Mode::empty()) {
                Err(RootError { source: Errno::NOENT, .. }) => {}
                Ok(_) => continue,
                Err(error) => return Err(error),
            }
            let (parent, name) = self.parent(&so_far)?;
            match rustix::fs::mkdirat(&parent, name, mode) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(source) => return Err(RootError { operation: "create directory", path: so_far, source }),
            }
        }
        self.open(path, directory, Mode::empty())
    }

    /// The path with every link on it replaced by where it leads inside the root, also where nothing is there yet: `/run/lock` for
    /// `/var/lock` in an image whose `/run` is empty. Text, to be used with the methods of this type: a link that is swapped in
    /// afterwards still cannot lead out.
    ///
    /// # Errors
    /// `ELOOP` after 40 links; the kernel's.
    pub fn through_links(&self, path: &Path) -> Result<PathBuf, RootError> {
        const LINKS_MAX: usize = 40;
        let mut links = 0;
        // The next component is the last of the list.
        let reversed = |path: &Path| path.components().rev().map(|c| PathBuf::from(c.as_os_str())).collect::<Vec<_>>();
        let mut rest = reversed(path);
        let mut done = PathBuf::from("/");
        while let Some(component) = rest.pop() {
            match component.components().next() {
                Some(Component::Normal(_)) => {}
                Some(Component::ParentDir) => {
                    done.pop();
                    continue;
                }
                Some(Component::RootDir) => {
                    done = PathBuf::from("/");
                    continue;
                }
                _ => continue,
            }
            done.push(&component);
            if self.kind(&done)? != Some(FileType::Symlink) {
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(RootError { operation: "follow", path: path.to_owned(), source: Errno::LOOP });
            }
            let target = self.read_link(&done)?;
            done.pop();
            rest.extend(reversed(&target));
        }
        Ok(done)
    }

    fn read_link(&self, path: &Path) -> Result<PathBuf, RootError> {
        let error = |source| RootError { operation: "read link", path: path.to_owned(), source };
        let link = self.open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        let target = rustix::fs::readlinkat(&link, "", Vec::new()).map_err(error)?;
        Ok(PathBuf::from(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(target.as_bytes())))
    }

    /// What kind of file the path is, a link at its end not followed; `None` when it does not exist.
    ///
    /// # Errors
    /// The kernel's, with the path.
    pub fn kind(&self, path: &Path) -> Result<Option<FileType>, RootError> {
        match self.lstat(path) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(RootError { source: Errno::NOENT | Errno::NOTDIR, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, RootDir) {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open_host(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn links_never_lead_out() {
        let (dir, root) = root();
        std::os::unix::fs::symlink("/etc", dir.path().join("abs")).unwrap();
        std::os::unix::fs::symlink("../../../../etc", dir.path().join("rel")).unwrap();
        for path in ["abs/passwd", "rel/passwd", "../../etc/passwd", "/etc/passwd"] {
            let error = root.resolve(Path::new(path)).unwrap_err();
            assert_eq!(error.source, Errno::NOENT, "{path}");
        }
    }

    #[test]
    fn links_to_nothing_are_followed_inside() {
        let (dir, root) = root();
        let check = |path: &str, expected: &str| {
            assert_eq!(root.through_links(Path::new(path)).unwrap(), Path::new(expected), "{path}");
        };
        std::fs::create_dir(dir.path().join("var")).unwrap();
        std::os::unix::fs::symlink("/run/lock", dir.path().join("var/lock")).unwrap();
        std::os::unix::fs::symlink("../../../up", dir.path().join("var/up")).unwrap();
        std::os::unix::fs::symlink("lock/deep", dir.path().join("var/chain")).unwrap();
        std::os::unix::fs::symlink("round", dir.path().join("round")).unwrap();
        check("/var/lock", "/run/lock");
        check("var/lock/x/../y", "/run/lock/y");
        check("/var/up/x", "/up/x");
        check("/var/chain", "/run/lock/deep");
        check("/not/there", "/not/there");
        check("../..", "/");
        assert_eq!(root.through_links(Path::new("/round/x")).unwrap_err().source, Errno::LOOP);
    }

    #[test]
    fn create_dir_all_follows_links_inside_only() {
        let (dir, root) = root();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("/real", dir.path().join("link")).unwrap();
        root.create_dir_all(Path::new("/link/a/b"), Mode::from_raw_mode(0o755)).unwrap();
        assert!(dir.path().join("real/a/b").is_dir());
        std::os::unix::fs::symlink("/nowhere", dir.path().join("dangling")).unwrap();
        assert!(root.create_dir_all(Path::new("dangling/x"), Mode::from_raw_mode(0o755)).is_err());
    }
}
