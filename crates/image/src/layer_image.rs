//! Puts a layer tar into an EROFS image: the same rules as `extract`, on names in memory instead of directories on the disk.
//!
//! Nothing of the archive reaches the host's file system but bytes in one file, so there is nothing to escape from; what an archive must not contain is
//! refused all the same.

use std::io;

use berth_snapshot::{ErofsWriter, NodeAttributes, NodeId, NodeKind};

use crate::extract::{ENTRIES_MAX, ExtractError, OPAQUE, clean_name, keeps_xattr};
use crate::layer_apply::Applied;
use crate::tar_stream::{Entry, EntryKind, TarReader};
use crate::{ImageError, Result};

/// Links followed to find a directory (the kernel's limit).
const LINKS_MAX: usize = 40;
const PATH_LENGTH_MAX: usize = 4095;

type Placed<T> = std::result::Result<T, ExtractError>;

/// Reads the tar to the end of the archive. The image is not finished.
pub(crate) fn apply(tar: &mut dyn io::Read, image: &mut ErofsWriter) -> Result<Applied> {
    let mut reader = TarReader::new(tar);
    let mut path = Vec::new();
    let (mut size_bytes, mut nodes) = (0_u64, 0);
    while reader.next_entry()? {
        nodes += 1;
        let named = |source| ImageError::Extract { entry: shown(reader.entry()), source };
        if nodes > ENTRIES_MAX {
            return Err(named(ExtractError::Refused("the layer has too many entries")));
        }
        image.check_memory().map_err(|_| ImageError::ImageMemory)?;
        clean_name(&reader.entry().path, &mut path).map_err(named)?;
        let Some(file) = place(image, reader.entry(), &path).map_err(named)? else { continue };
        size_bytes = size_bytes.saturating_add(reader.entry().size);
        let failed = |source| ImageError::Io { operation: "write", object: "the layer's image".to_owned(), source };
        image.begin_data(file, reader.entry().size).map_err(failed)?;
        while let Some((offset, piece)) = reader.next_piece()? {
            image.data(offset, piece).map_err(failed)?;
        }
        image.end_data().map_err(failed)?;
    }
    Ok(Applied { size_bytes })
}

fn shown(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.path).chars().take(200).collect()
}

/// Makes the entry; a regular file comes back, to be filled.
fn place(image: &mut ErofsWriter, entry: &Entry, path: &[u8]) -> Placed<Option<NodeId>> {
    let Some((parent, name)) = split(path) else { return place_root(image, entry) };
    if name.len() > 255 {
        return Err(ExtractError::Refused("a name longer than 255 bytes"));
    }
    let parent = directory(image, parent, entry)?;
    if name.starts_with(b".wh.") {
        return whiteout(image, parent, name).map(|()| None);
    }
    match entry.kind {
        EntryKind::Directory => {
            place_directory(image, parent, name, entry)?;
        }
        EntryKind::HardLink => place_hard_link(image, parent, name, entry)?,
        EntryKind::File => {
            return Ok(Some(image.add(parent, name, NodeKind::File, attributes(entry)?, 0)));
        }
        EntryKind::Symlink => {
            if entry.link.is_empty() || entry.link.len() > PATH_LENGTH_MAX {
                return Err(ExtractError::Refused("a link whose target is empty or too long"));
            }
            image.add_link(parent, name, &entry.link, attributes(entry)?);
        }
        EntryKind::CharDevice if (entry.device_major, entry.device_minor) == (0, 0) => {
            return Err(ExtractError::Refused("character device 0/0 means deleted; an archive must not contain it"));
        }
        EntryKind::CharDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
            let kind = match entry.kind {
                EntryKind::CharDevice => NodeKind::CharDevice,
                EntryKind::BlockDevice => NodeKind::BlockDevice,
                _ => NodeKind::Fifo,
            };
            let device = rustix::fs::makedev(entry.device_major, entry.device_minor);
            image.add(parent, name, kind, attributes(entry)?, if kind == NodeKind::Fifo { 0 } else { device });
        }
    }
    Ok(None)
}

fn place_root(image: &mut ErofsWriter, entry: &Entry) -> Placed<Option<NodeId>> {
    if entry.kind != EntryKind::Directory {
        return Err(ExtractError::Refused("the root of an archive must be a directory"));
    }
    let root = image.root();
    image.set_attributes(root, attributes(entry)?);
    Ok(None)
}

fn place_directory(image: &mut ErofsWriter, parent: NodeId, name: &[u8], entry: &Entry) -> Placed<NodeId> {
    let attributes = attributes(entry)?;
    match image.child(parent, name) {
        Some(known) if image.kind(known) == NodeKind::Directory => {
            let is_opaque = image.is_opaque(known);
            image.set_attributes(known, attributes);
            if is_opaque {
                image.set_xattr(known, OPAQUE.as_bytes(), b"y");
            }
            Ok(known)
        }
        in_the_way => {
            let made = image.add(parent, name, NodeKind::Directory, attributes, 0);
            if in_the_way.is_some() {
                image.set_xattr(made, OPAQUE.as_bytes(), b"y");
            }
            Ok(made)
        }
    }
}

fn place_hard_link(image: &mut ErofsWriter, parent: NodeId, name: &[u8], entry: &Entry) -> Placed<()> {
    let mut target = Vec::new();
    clean_name(&entry.link, &mut target)?;
    let (target_parent, target_name) = split(&target).ok_or(ExtractError::Refused("a hard link to a directory"))?;
    let missing = ExtractError::Refused("a hard link to what the layer does not have");
    let directory = walk(image, target_parent, LINKS_MAX)?;
    let Some(node) = directory.and_then(|directory| image.child(directory, target_name)) else { return Err(missing) };
    if image.kind(node) == NodeKind::Directory {
        return Err(ExtractError::Refused("a hard link to a directory"));
    }
    if image.is_whiteout(node) {
        return Err(ExtractError::Refused("a hard link to a deleted file"));
    }
    image.add_name(parent, name, node);
    Ok(())
}

/// OCI whiteouts as the overlay reads them. They hide what lower layers have, never what this layer has, in whatever order the two come.
fn whiteout(image: &mut ErofsWriter, parent: NodeId, name: &[u8]) -> Placed<()> {
    let hidden = &name[b".wh.".len()..];
    if name == b".wh..wh..opq" {
        image.set_xattr(parent, OPAQUE.as_bytes(), b"y");
        return Ok(());
    }
    if hidden.starts_with(b".wh.") {
        // Bookkeeping of an old driver (aufs); it was never content.
        return Ok(());
    }
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(ExtractError::Refused("a whiteout of nothing"));
    }
    match image.child(parent, hidden) {
        None => drop(image.add(parent, hidden, NodeKind::CharDevice, NodeAttributes::default(), 0)),
        Some(known) if image.kind(known) == NodeKind::Directory => image.set_xattr(known, OPAQUE.as_bytes(), b"y"),
        Some(_) => {}
    }
    Ok(())
}

/// The directory of a clean path, made (with missing ones above it) if it is not there.
fn directory(image: &mut ErofsWriter, path: &[u8], entry: &Entry) -> Placed<NodeId> {
    if let Some(found) = walk(image, path, LINKS_MAX)? {
        return Ok(found);
    }
    let Some((parent, name)) = split(path) else { return Ok(image.root()) };
    let parent = directory(image, parent, entry)?;
    let attributes = NodeAttributes {
        mode: 0o755,
        mtime_seconds: entry.mtime.seconds,
        mtime_nanoseconds: entry.mtime.nanoseconds,
        ..NodeAttributes::default()
    };
    let was_deleted = match image.child(parent, name) {
        None => false,
        Some(known) if image.is_whiteout(known) => true,
        Some(_) => return Err(ExtractError::Refused("what should be its directory is something else")),
    };
    let made = image.add(parent, name, NodeKind::Directory, attributes, 0);
    if was_deleted {
        image.set_xattr(made, OPAQUE.as_bytes(), b"y");
    }
    Ok(made)
}

/// Finds a directory as the kernel would inside the layer: links of the layer are followed, and end at its root.
fn walk(image: &ErofsWriter, path: &[u8], links: usize) -> Placed<Option<NodeId>> {
    let mut at = image.root();
    let mut rest: Vec<Vec<u8>> = path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect();
    let mut left = links;
    while let Some(name) = rest.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                at = image.parent(at);
                continue;
            }
            _ => {}
        }
        let Some(next) = image.child(at, &name) else { return Ok(None) };
        match image.kind(next) {
            NodeKind::Directory => at = next,
            NodeKind::Symlink => {
                left = left.checked_sub(1).ok_or(ExtractError::Refused("its directory is a link without end"))?;
                let target = image.target(next).unwrap_or_default();
                if target.first() == Some(&b'/') {
                    at = image.root();
                }
                rest.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// Ids over 2^31-1 wrap in programs that take them for signed (CVE-2024-40635).
fn attributes(entry: &Entry) -> Placed<NodeAttributes> {
    let id = |id: u64| match u32::try_from(id) {
        Ok(id) if i32::try_from(id).is_ok() => Ok(id),
        _ => Err(ExtractError::Refused("an owner over 2147483647")),
    };
    let kept = entry.xattrs.iter().filter(|xattr| keeps_xattr(&xattr.name));
    Ok(NodeAttributes {
        mode: entry.mode & 0o7777,
        uid: id(entry.uid)?,
        gid: id(entry.gid)?,
        mtime_seconds: entry.mtime.seconds,
        mtime_nanoseconds: entry.mtime.nanoseconds,
        xattrs: kept.map(|xattr| (xattr.name.clone(), xattr.value.clone())).collect(),
    })
}

fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None if path.is_empty() => None,
        None => Some((b"", path)),
    }
}
