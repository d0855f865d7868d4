//! Removing directories, deepest first.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, unlinkat};
use rustix::io::Errno;

use crate::error::CgroupError;
use crate::file::Directory;
use crate::wait::Deadline;

/// Groups nested deeper than this are an attack on our stack.
const DEPTH_MAX: usize = 256;

/// Removes a directory and the groups below it. Gone already is fine.
pub(super) fn delete_tree(path: &Path, deadline: &mut Deadline) -> Result<(), CgroupError> {
    // Without children, the usual case, this is the only system call.
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(_) => delete_children(path, deadline, 0)?,
    }
    delete_directory(path, deadline)
}

fn delete_children(path: &Path, deadline: &mut Deadline, depth: usize) -> Result<(), CgroupError> {
    let fail = |source| CgroupError::Delete { path: path.to_owned(), source };
    if depth > DEPTH_MAX {
        return Err(fail(Errno::LOOP));
    }
    let directory = match Directory::open(path.to_owned()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(fail(errno)),
    };
    for name in child_names(&directory)? {
        let child = path.join(name);
        delete_children(&child, deadline, depth + 1)?;
        delete_directory(&child, deadline)?;
    }
    Ok(())
}

/// Removes one directory, waiting while it is busy.
pub(super) fn delete_directory(path: &Path, deadline: &mut Deadline) -> Result<(), CgroupError> {
    loop {
        match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // A process that was killed still counts for a moment after its parent has seen it die.
            Err(Errno::BUSY) if deadline.pause() => {}
            Err(source) => return Err(CgroupError::Delete { path: path.to_owned(), source }),
        }
    }
}

/// The groups directly below; none when the directory is gone.
pub(crate) fn child_names(directory: &Directory) -> Result<Vec<String>, CgroupError> {
    let fail = |source| CgroupError::Open { path: directory.path.clone(), source };
    // Cgroup file systems count directories in the links, so a group without children costs one call.
    const LINKS_OF_A_LEAF: u64 = 2;
    let links = rustix::fs::fstat(&directory.fd).map_err(fail)?.st_nlink;
    let mut names = Vec::new();
    #[allow(clippy::useless_conversion, reason = "the count has 32 bits on some architectures")]
    if u64::from(links) <= LINKS_OF_A_LEAF {
        return Ok(names);
    }
    for entry in Dir::read_from(&directory.fd).map_err(fail)? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(fail(errno)),
        };
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if entry.file_type() == FileType::Directory && !matches!(name, "." | "..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
