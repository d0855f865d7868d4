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
    for name in child_names(path).map_err(fail)? {
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
pub(crate) fn child_names(path: &Path) -> Result<Vec<String>, Errno> {
    let directory = match Directory::open(path.to_owned()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory.fd)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if entry.file_type() == FileType::Directory && !matches!(name, "." | "..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
