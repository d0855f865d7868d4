//! Whiteouts of a layer that is extracted onto a copy of those below: they delete from the copy what is not the layer's own, in whatever order
//! the two come.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use berth_rootfs::remove_tree;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{ExtractError, Extracted, Extractor, is_directory};
use crate::tar_stream::Entry;

impl Extractor<'_> {
    pub(super) fn merge_whiteout(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> Extracted<()> {
        let hidden = &name[b".wh.".len()..];
        if name == b".wh..wh..opq" {
            return self.clear(parent, entry);
        }
        if hidden.starts_with(b".wh.") {
            // Bookkeeping of an old driver (aufs); it was never content.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(ExtractError::Refused("a whiteout of nothing"));
        }
        let path = join(parent, hidden);
        if !self.own.contains(&hash(&path)) {
            let directory = self.parents.get(parent, entry)?;
            remove_tree(directory, OsStr::from_bytes(hidden), None)?;
            self.parents.close_all();
            return Ok(());
        }
        // The layer has the name itself: what it did not put in there goes.
        let directory = self.parents.get(parent, entry)?;
        if is_directory(directory, OsStr::from_bytes(hidden)) {
            return self.clear(&path, entry);
        }
        Ok(())
    }

    /// Deletes from a directory, at every depth, what is not the layer's own.
    fn clear(&mut self, path: &[u8], entry: &Entry) -> Extracted<()> {
        let directory = self.parents.get(path, entry)?;
        let directory =
            rustix::io::fcntl_dupfd_cloexec(directory, 3).map_err(ExtractError::kernel("open the directory"))?;
        clear(&self.own, &directory, path)?;
        self.parents.close_all();
        Ok(())
    }
}

fn clear(own: &HashSet<u64>, directory: &OwnedFd, path: &[u8]) -> Extracted<()> {
    for entry in Dir::read_from(directory).map_err(ExtractError::kernel("list the directory"))? {
        let entry = entry.map_err(ExtractError::kernel("list the directory"))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let child = join(path, name.to_bytes());
        if !own.contains(&hash(&child)) {
            remove_tree(directory.as_fd(), OsStr::from_bytes(name.to_bytes()), None)?;
            continue;
        }
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(directory, name, flags, Mode::empty()) {
                Ok(opened) => clear(own, &opened, &child)?,
                Err(Errno::NOENT) => {}
                Err(source) => return Err(ExtractError::Kernel { operation: "open the directory", source }),
            }
        }
    }
    Ok(())
}

/// A path of the layer, and the directories it is in.
pub(super) fn note(own: &mut HashSet<u64>, path: &[u8]) {
    let mut rest = path;
    while !rest.is_empty() && own.insert(hash(rest)) {
        rest = &rest[..rest.iter().rposition(|byte| *byte == b'/').unwrap_or(0)];
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

fn hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}
