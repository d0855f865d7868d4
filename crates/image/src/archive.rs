//! `cp` and `export`: tar streams from and into a root that may be hostile (a running container's `/proc/<pid>/root`, or a detached overlay).
//!
//! Paths are given as the container sees them and are resolved by the kernel inside its root, at each use; what the container does meanwhile
//! decides only which of its own files are meant (CVE-2018-15664). Nothing of the root is executed or loaded (CVE-2019-14271, CVE-2026-41567).

use std::ffi::{CString, OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_rootfs::{RootDir, RootError};
use berth_types::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::extract::{Extractor, Placement};
use crate::pack_tree::{Tree, TreePacker, failed};
use crate::tar_stream::{TarReader, TarWriter};
use crate::{ImageError, Result};

/// Links followed to find where a link leads (the kernel's limit).
const LINKS_MAX: usize = 40;

/// Metadata of a path in a root, the last link not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    pub name: String,
    pub size: u64,
    /// st_mode
    pub mode: u32,
    pub modified: Timestamp,
    /// Where a link finally leads, as an absolute path in the root; there may be nothing.
    pub link_target: Option<PathBuf>,
}

/// A path as the user wrote it: cleaned as text, with what its end asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// Without a leading slash; empty for the root.
    path: PathBuf,
    /// It ended with `/` or `/.`: a directory is meant, a link at the end is followed.
    is_directory: bool,
    /// It ended with `/.`: the directory's contents are meant.
    is_contents: bool,
}

impl Asked {
    fn new(path: &Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        let is_contents = bytes.ends_with(b"/.") || bytes == b".";
        let mut clean = PathBuf::new();
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    clean.pop();
                }
                name => clean.push(OsStr::from_bytes(name)),
            }
        }
        let is_root = clean.as_os_str().is_empty();
        Self {
            is_directory: is_root || is_contents || bytes.ends_with(b"/"),
            is_contents: is_root || is_contents,
            path: clean,
        }
    }

    fn open(&self, root: &RootDir) -> std::result::Result<OwnedFd, RootError> {
        if self.is_directory {
            root.open(&self.path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        } else {
            root.open(&self.path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
        }
    }

    fn name(&self) -> String {
        self.path.file_name().map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

/// What a path is.
///
/// # Errors
/// `NotFound` when there is nothing; a path ending with `/` must be a directory.
pub fn stat(root: &RootDir, path: &Path) -> Result<PathInfo> {
    let asked = Asked::new(path);
    let fd = asked.open(root)?;
    let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH)
        .map_err(|errno| failed("stat", path.as_os_str().as_bytes(), errno))?;
    let link_target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Some(final_target(root, &asked.path)?),
        _ => None,
    };
    let nanoseconds = stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec.cast_signed());
    Ok(PathInfo {
        name: asked.name(),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        modified: Timestamp(nanoseconds),
        link_target,
    })
}

/// Tar of the file or directory, named by its last component, as Docker's `GET archive`: `a/b` and `a/b/` give `b`, `a/b/.` gives `./`.
/// What is mounted in the root belongs to it, except the kernel's own file systems.
///
/// # Errors
/// `NotFound` when there is nothing; what the kernel says, with the path in the root.
pub fn pack(root: &RootDir, path: &Path, out: &mut (dyn Write + Send)) -> Result<()> {
    let asked = Asked::new(path);
    let mut out: &mut dyn Write = out;
    let mut packer = TreePacker::new(TarWriter::new(&mut out), Tree::Mounted);
    let name = if asked.is_contents { OsString::from(".") } else { OsString::from(asked.name()) };
    let mut entry_path = name.as_bytes().to_vec();
    if asked.is_directory {
        let directory = asked.open(root)?;
        entry_path.push(b'/');
        packer.directory_entry(directory.as_fd(), &entry_path)?;
        packer.children(directory.as_fd(), &mut entry_path, 0)?;
    } else {
        let (parent, name) = root.parent(&asked.path)?;
        let name = CString::new(name.as_bytes()).map_err(|_| failed("open", name.as_bytes(), Errno::INVAL))?;
        packer.child(parent.as_fd(), &name, &mut entry_path, 0)?;
    }
    packer.finish()
}

/// Tar of the whole root (`export`), staying on its own file system: what is mounted in it is an empty directory or file.
///
/// # Errors
/// What the kernel says, with the path in the root.
pub fn export(root: &RootDir, out: &mut (dyn Write + Send)) -> Result<()> {
    let directory = root.open(Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let mut out: &mut dyn Write = out;
    let mut packer = TreePacker::new(TarWriter::new(&mut out), Tree::Bare);
    packer.children(directory.as_fd(), &mut Vec::new(), 0)?;
    packer.finish()
}

#[derive(Debug, Clone, Copy, Default)]
pub struct UnpackOptions {
    pub no_overwrite_dir_non_dir: bool,
    /// Keep the archive's owners; else everything belongs to root.
    pub keep_owners: bool,
}

/// Extracts a tar into a directory of the root. Existing files are replaced, never written into.
///
/// # Errors
/// `NotFound` when the directory is not there; `InvalidArgument` where the archive is damaged or wants what it must not.
pub fn unpack(root: &RootDir, path: &Path, tar: &mut (dyn Read + Send), options: UnpackOptions) -> Result<()> {
    let asked = Asked::new(path);
    root.open(&asked.path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let placement =
        Placement::Copy { refuses_dir_non_dir: options.no_overwrite_dir_non_dir, keeps_owners: options.keep_owners };
    let mut tar: &mut dyn Read = tar;
    Extractor::new(root, &asked.path, &[], placement).extract(&mut TarReader::new(&mut tar))?;
    Ok(())
}

/// Where a link leads when every link on the way is followed as the container would, also where nothing is. Only told to the user: nothing is
/// opened by this text.
fn final_target(root: &RootDir, path: &Path) -> Result<PathBuf> {
    let mut rest: Vec<OsString> = path.iter().rev().map(OsStr::to_owned).collect();
    let mut so_far = PathBuf::new();
    let mut links = 0;
    while let Some(component) = rest.pop() {
        match component.as_bytes() {
            b"/" => so_far.clear(),
            b"." => {}
            b".." => {
                so_far.pop();
            }
            _ => {
                so_far.push(&component);
                let Some(target) = read_link(root, &so_far)? else { continue };
                links += 1;
                if links > LINKS_MAX {
                    return Err(ImageError::Root(RootError {
                        operation: "follow the links of",
                        path: path.to_owned(),
                        source: Errno::LOOP,
                    }));
                }
                so_far.pop();
                rest.extend(target.iter().rev().map(OsStr::to_owned));
            }
        }
    }
    Ok(Path::new("/").join(so_far))
}

/// The target if the path is a link; `None` for everything else, also nothing.
fn read_link(root: &RootDir, path: &Path) -> Result<Option<PathBuf>> {
    let fd = match root.open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(fd) => fd,
        Err(RootError { source: Errno::NOENT | Errno::NOTDIR, .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::readlinkat(&fd, "", Vec::new()) {
        Ok(target) => Ok(Some(PathBuf::from(OsStr::from_bytes(target.as_bytes())))),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(errno) => Err(failed("read the link", path.as_os_str().as_bytes(), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_users_write_them() {
        let cases = [
            ("/", "", true, true),
            ("", "", true, true),
            (".", "", true, true),
            ("/a/b", "a/b", false, false),
            ("a//b/", "a/b", true, false),
            ("/a/b/.", "a/b", true, true),
            ("/../../etc/x", "etc/x", false, false),
            ("/a/../b", "b", false, false),
        ];
        for (text, path, is_directory, is_contents) in cases {
            let expected = Asked { path: PathBuf::from(path), is_directory, is_contents };
            assert_eq!(Asked::new(Path::new(text)), expected, "{text}");
        }
    }
}
