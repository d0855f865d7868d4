//! A layer directory against the blob it was unpacked from, entry by entry, without unpacking it again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use berth_rootfs::RootDir;
use berth_types::{ChainId, Digest};
use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::extract::clean_name;
use crate::store::ImageStore;
use crate::tar_stream::{Entry, EntryKind, TarReader};
use crate::{ImageError, Result, compression};

/// The first difference; `None` when there is none.
pub(super) fn compare(store: &ImageStore, chain_id: &ChainId, blob: &Digest) -> Result<Option<String>> {
    let root = RootDir::open_host(&store.snapshots.layer_dir(chain_id))?;
    let (compression, source) = compression::detect(store.content.reader(blob)?, "a stored layer")?;
    let mut source = compression::decoder(compression, source, store.expansion).map_err(ImageError::reading_archive)?;
    let mut reader = TarReader::new(&mut source);
    // A later entry of the same name is the one that counts.
    let mut differences: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    let mut path = Vec::new();
    while reader.next_entry()? {
        if clean_name(&reader.entry().path, &mut path).is_err() || is_mark(&path) {
            continue;
        }
        match entry(&root, &path, &mut reader)? {
            Some(difference) => drop(differences.insert(path.clone(), difference)),
            None => drop(differences.remove(&path)),
        }
    }
    Ok(differences.pop_first().map(|(path, what)| format!("/{}: {what}", String::from_utf8_lossy(&path))))
}

fn is_mark(path: &[u8]) -> bool {
    path.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(b".wh."))
}

fn entry(root: &RootDir, path: &[u8], reader: &mut TarReader<'_>) -> Result<Option<String>> {
    let shown = Path::new(OsStr::from_bytes(path));
    let stat = match root.lstat(shown) {
        Ok(stat) => stat,
        Err(error) if error.source == rustix::io::Errno::NOENT => return Ok(Some("it is missing".to_owned())),
        Err(error) => return Err(error.into()),
    };
    let expected = reader.entry();
    let kind = FileType::from_raw_mode(stat.st_mode);
    if expected.kind == EntryKind::HardLink {
        return Ok((kind == FileType::Directory).then(|| "it is a directory".to_owned()));
    }
    if kind != kind_of(expected.kind) {
        return Ok(Some("it is something else".to_owned()));
    }
    if !same_owner_and_mode(expected, &stat, kind) {
        return Ok(Some("its owner or mode is another".to_owned()));
    }
    if kind != FileType::RegularFile {
        return Ok(None);
    }
    if u64::try_from(stat.st_size) != Ok(expected.size) {
        return Ok(Some(format!("it has {} bytes instead of {}", stat.st_size, expected.size)));
    }
    let file = root.open(shown, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())?;
    content(&file, reader)
}

fn kind_of(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::File | EntryKind::HardLink => FileType::RegularFile,
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink => FileType::Symlink,
        EntryKind::CharDevice => FileType::CharacterDevice,
        EntryKind::BlockDevice => FileType::BlockDevice,
        EntryKind::Fifo => FileType::Fifo,
    }
}

fn same_owner_and_mode(entry: &Entry, stat: &Stat, kind: FileType) -> bool {
    let is_mode_told = kind != FileType::Symlink;
    (u64::from(stat.st_uid), u64::from(stat.st_gid)) == (entry.uid, entry.gid)
        && (!is_mode_told || stat.st_mode & 0o7777 == entry.mode & 0o7777)
}

fn content(file: &OwnedFd, reader: &mut TarReader<'_>) -> Result<Option<String>> {
    let mut buffer = Vec::new();
    while let Some((offset, piece)) = reader.next_piece()? {
        buffer.resize(piece.len(), 0);
        let mut length = 0;
        while length < buffer.len() {
            match rustix::io::pread(file, &mut buffer[length..], offset + length as u64) {
                Ok(0) => break,
                Ok(n) => length += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Ok(Some(format!("it cannot be read: {errno}"))),
            }
        }
        if length < buffer.len() || buffer != piece {
            return Ok(Some(format!("its bytes differ near {offset}")));
        }
    }
    Ok(None)
}
