//! Every kind of file with everything that can belong to it: as a layer has it, as a container sees it, and after the container changed it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt as _, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Check, chain, expect, make_layer, works};
use crate::SnapshotStore;

/// user:1234:r-- (posix_acl_xattr.h): version 2, then (tag, permissions, id).
const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 4, 0, 0xd2, 4, 0, 0, 4, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
    0x10, 0, 4, 0, 0xff, 0xff, 0xff, 0xff, 0x20, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
];
/// cap_net_bind_service=ep (struct vfs_cap_data, revision 2).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const SPARSE_SIZE: u64 = 64 << 20;
const NAMES: [&str; 3] = ["user.key", "security.capability", "system.posix_acl_access"];

/// What a path is, as far as a program can tell.
type Look = BTreeMap<String, String>;

pub(super) fn every_kind(store: &SnapshotStore) -> Check {
    make_layer(store, 20, None, fill)?;
    let layer = store.layer_dir(&chain(20));
    let expected = works("look at the layer", look(&layer))?;
    expect("all kinds are there", expected.len() >= 12, true)?;
    let lowers = vec![store.lower(&chain(20))];
    let rootfs = works("prepare", store.prepare("kinds", lowers.clone(), false))?;
    let mount = works("mount", rootfs.mount_detached())?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    expect("a container sees the layer", works("look", look(&root))?, expected.clone())?;
    expect("seeing changes nothing", works("size", store.writable_size(&rootfs))?, 0)?;
    changed_file_keeps_the_rest(&root)?;
    sparse_stays_sparse(&root)?;
    links_stay_links(&root)?;
    drop(mount);
    expect("the layer is as it was", works("look", look(&layer))?, expected)?;
    works("discard", store.discard("kinds"))?;
    works("remove", store.remove_layer(&chain(20)))
}

fn fill(root: &Path) -> std::io::Result<()> {
    fs::create_dir_all(root.join("dir/sub"))?;
    fs::write(root.join("plain"), "plain")?;
    fs::write(root.join("dir/owned"), "owned")?;
    symlink("../nowhere/at all", root.join("dir/link"))?;
    for (name, kind, device) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("disk", FileType::BlockDevice, rustix::fs::makedev(7, 200)),
    ] {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::RUSR | Mode::WUSR, device)?;
    }
    let owner = (Some(Uid::from_raw(1234)), Some(Gid::from_raw(70_000)));
    for name in ["dir/owned", "dir/link", "null", "dir"] {
        rustix::fs::chownat(CWD, root.join(name), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    rustix::fs::chmodat(CWD, root.join("dir/owned"), Mode::from_raw_mode(0o6751), AtFlags::empty())?;
    rustix::fs::chmodat(CWD, root.join("dir"), Mode::from_raw_mode(0o1770), AtFlags::empty())?;
    for (name, value) in NAMES.iter().zip([&b"value"[..], CAPABILITY, ACL]) {
        rustix::fs::lsetxattr(root.join("plain"), *name, value, XattrFlags::empty())?;
    }
    rustix::fs::lsetxattr(root.join("dir"), "system.posix_acl_default", ACL, XattrFlags::empty())?;
    fs::hard_link(root.join("plain"), root.join("dir/plain-too"))?;
    let sparse = fs::File::create(root.join("sparse"))?;
    sparse.set_len(SPARSE_SIZE)?;
    sparse.write_all_at(b"middle", SPARSE_SIZE / 2)?;
    let odd = root.join("name with \u{e9}\n and \\");
    fs::write(&odd, "odd")?;
    for name in ["plain", "dir/link", "fifo", "dir"] {
        let time = Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, root.join(name), &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Everything below a root but its own times: kind, mode, owner, device, size, time, links, attributes.
pub(super) fn look(root: &Path) -> std::io::Result<Look> {
    let mut found = Look::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let path = directory.join(entry?.file_name());
            let full = root.join(&path);
            let meta = fs::symlink_metadata(&full)?;
            let mut text = format!(
                "{:o} {}:{} {} {} {}.{}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.rdev(),
                if meta.is_dir() { (0, 0) } else { (meta.len(), meta.nlink()) }.0,
                meta.mtime(),
                meta.mtime_nsec()
            );
            if meta.is_symlink() {
                text += &format!(" -> {}", fs::read_link(&full)?.display());
            }
            if meta.is_file() || meta.is_dir() {
                for name in NAMES.iter().chain(&["system.posix_acl_default"]) {
                    let mut value = [0; 256];
                    if let Ok(length) = rustix::fs::lgetxattr(&full, *name, &mut value) {
                        text += &format!(" {name}={:?}", &value[..length]);
                    }
                }
            }
            if meta.is_dir() {
                pending.push(path.clone());
            }
            found.insert(path.to_string_lossy().into_owned(), text);
        }
    }
    Ok(found)
}

/// S-098: owner, attributes, ACL and the other bytes stay when one byte is written; writing takes capabilities away, as on any file system.
fn changed_file_keeps_the_rest(root: &Path) -> Check {
    let path = root.join("plain");
    works("change the mode", rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(0o640), AtFlags::empty()))?;
    let mut value = [0; 64];
    for (name, expected) in [("user.key", &b"value"[..]), ("security.capability", CAPABILITY)] {
        let length = works("attribute", rustix::fs::lgetxattr(&path, name, &mut value))?;
        expect("an attribute after a change", value[..length].to_vec(), expected.to_vec())?;
    }
    let length = works("acl", rustix::fs::lgetxattr(&path, "system.posix_acl_access", &mut value))?;
    expect("the ACL after a change", length, ACL.len())?;
    let appended = fs::OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(b"!"));
    works("append", appended)?;
    expect("the content", works("read", fs::read_to_string(&path))?, "plain!".to_owned())?;
    let meta = works("stat", fs::metadata(root.join("dir/owned")))?;
    expect("owner and mode", (meta.uid(), meta.gid(), meta.mode() & 0o7777), (1234, 70_000, 0o6751))
}

fn sparse_stays_sparse(root: &Path) -> Check {
    let path = root.join("sparse");
    let file = works("open", fs::OpenOptions::new().read(true).write(true).open(&path))?;
    works("write", file.write_all_at(b"start", 0))?;
    let mut middle = [0; 6];
    works("read", file.read_exact_at(&mut middle, SPARSE_SIZE / 2))?;
    expect("bytes in the middle", &middle, b"middle")?;
    let mut end = Vec::new();
    works("read the end", file.take(8).read_to_end(&mut end))?;
    let meta = works("stat", fs::metadata(&path))?;
    expect("the size", meta.len(), SPARSE_SIZE)?;
    expect("holes stay holes", meta.blocks() * 512 < SPARSE_SIZE / 8, true)
}

fn links_stay_links(root: &Path) -> Check {
    works("new", fs::write(root.join("new"), "1"))?;
    works("link", fs::hard_link(root.join("new"), root.join("dir/new-too")))?;
    works("write through one", fs::write(root.join("dir/new-too"), "22"))?;
    expect("read through the other", works("read", fs::read_to_string(root.join("new")))?, "22".to_owned())
}

/// A directory of a layer is renamed in a container: done, or refused with `EXDEV` as between file systems (then programs copy).
pub(super) fn renamed_directories(store: &SnapshotStore) -> Check {
    make_layer(store, 21, None, |root| {
        fs::create_dir_all(root.join("old/deep"))?;
        fs::write(root.join("old/deep/file"), "x")
    })?;
    let lowers = vec![store.lower(&chain(21))];
    let rootfs = works("prepare", store.prepare("rename", lowers.clone(), false))?;
    let mount = works("mount", rootfs.mount_detached())?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    match rustix::fs::renameat(CWD, root.join("old"), CWD, root.join("new")) {
        Ok(()) => {}
        Err(Errno::XDEV) => {
            works("copy", fs::create_dir_all(root.join("new/deep")))?;
            works("copy", fs::copy(root.join("old/deep/file"), root.join("new/deep/file")))?;
            works("remove", fs::remove_dir_all(root.join("old")))?;
        }
        Err(errno) => return works("rename", Err(errno)),
    }
    works("a new directory", fs::create_dir(root.join("made")))?;
    works("is renamed", fs::rename(root.join("made"), root.join("renamed")))?;
    drop(mount);
    let rootfs = works("rootfs", store.rootfs("rename", lowers))?;
    let mount = works("mount again", rootfs.mount_detached())?;
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    expect("the new name", works("read", fs::read_to_string(root.join("new/deep/file")))?, "x".to_owned())?;
    expect("the old name is gone", root.join("old").exists() || root.join("made").exists(), false)?;
    expect("the other", root.join("renamed").is_dir(), true)?;
    drop(mount);
    expect("the layer is as it was", store.layer_dir(&chain(21)).join("old/deep/file").exists(), true)?;
    works("discard", store.discard("rename"))?;
    works("remove", store.remove_layer(&chain(21)))
}
