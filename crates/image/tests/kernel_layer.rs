//! Applying and packing layers on a real file system and in real overlays, and archives that attack. Needs root; works below temporary
//! directories, with detached mounts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its fixtures")]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use berth_image::tar_stream::{Entry, EntryKind, Mtime, TarReader, TarWriter, Xattr};
use berth_image::{Applied, ImageError, apply, apply_on, pack};
use berth_rootfs::{OverlayRootfs, RootDir};
use berth_types::{Classify, ErrorClass};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, lsetxattr, mknodat};

const OPAQUE: &str = "trusted.overlay.opaque";

fn file(path: &str, size: usize) -> Entry {
    Entry { path: path.into(), mode: 0o644, size: size as u64, ..Entry::default() }
}

fn of(kind: EntryKind, path: &str) -> Entry {
    Entry { kind, path: path.into(), mode: 0o755, ..Entry::default() }
}

fn link(kind: EntryKind, path: &str, target: &str) -> Entry {
    Entry { kind, path: path.into(), link: target.into(), mode: 0o777, ..Entry::default() }
}

fn tar(entries: &[(Entry, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = TarWriter::new(&mut out);
    for (entry, data) in entries {
        writer.start(entry).unwrap();
        writer.data(data.as_bytes()).unwrap();
    }
    writer.finish().unwrap();
    out
}

/// A layer directory beside a canary that nothing may reach.
struct Layer {
    dir: tempfile::TempDir,
}

impl Layer {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("fs")).unwrap();
        fs::set_permissions(dir.path().join("fs"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "intact").unwrap();
        fs::set_permissions(dir.path().join("outside/canary"), fs::Permissions::from_mode(0o600)).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("fs").join(name)
    }

    fn apply(&self, entries: &[(Entry, &str)]) -> Result<Applied, ImageError> {
        let result = apply(&mut tar(entries).as_slice(), &RootDir::open_host(&self.path("")).unwrap());
        let outside = self.dir.path().join("outside");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "something was made outside");
        assert_eq!(fs::read(outside.join("canary")).unwrap(), b"intact");
        assert_eq!(fs::metadata(outside.join("canary")).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2, "something was made beside the layer");
        result
    }

    fn refuses(&self, entries: &[(Entry, &str)]) {
        let error = self.apply(entries).unwrap_err();
        assert_eq!(error.class(), ErrorClass::InvalidArgument, "{}", berth_types::report(&error));
    }
}

fn packed(upper: &Path, lowers: &[PathBuf]) -> Vec<u8> {
    let mut out = Vec::new();
    pack(upper, lowers, &mut out).unwrap();
    out
}

fn entries(archive: &[u8]) -> Vec<Entry> {
    let mut input = archive;
    let mut reader = TarReader::new(&mut input);
    let mut entries = Vec::new();
    while reader.next_entry().unwrap() {
        entries.push(reader.entry().clone());
    }
    entries
}

fn paths(archive: &[u8]) -> Vec<String> {
    entries(archive).iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 8];
    lgetxattr(path, OPAQUE, &mut value).is_ok_and(|length| &value[..length] == b"y")
}

#[test]
fn everything_an_archive_can_hold() {
    let layer = Layer::new();
    let mtime = Mtime { seconds: 1_000_000_000, nanoseconds: 123_456_789 };
    let caps = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let all = [
        (Entry { mode: 0o1777, mtime, ..of(EntryKind::Directory, "./") }, ""),
        (Entry { mode: 0o2750, uid: 5, gid: 6, mtime, ..of(EntryKind::Directory, "d/") }, ""),
        (Entry { mode: 0o4755, uid: 7, gid: 8, mtime, ..file("d/setuid", 5) }, "12345"),
        (Entry { mode: 0o666, mtime, ..file("d/open", 0) }, ""),
        (
            Entry {
                mtime,
                xattrs: vec![Xattr { name: b"security.capability".to_vec(), value: caps.clone() }],
                uid: 1,
                ..file("capable", 1)
            },
            "c",
        ),
        (link(EntryKind::HardLink, "hard", "d/setuid"), ""),
        (Entry { uid: 9, mtime, ..link(EntryKind::Symlink, "soft", "/no/where") }, ""),
        (Entry { mode: 0o620, device_major: 1, device_minor: 3, gid: 5, ..of(EntryKind::CharDevice, "null") }, ""),
        (Entry { device_major: 7, device_minor: 0, ..of(EntryKind::BlockDevice, "loop") }, ""),
        (of(EntryKind::Fifo, "fifo"), ""),
        (file("implied/deep/f", 1), "f"),
    ];
    assert_eq!(layer.apply(&all).unwrap(), Applied { size_bytes: 7 });
    let look = |name: &str| fs::symlink_metadata(layer.path(name)).unwrap();
    let mode = |name: &str| look(name).mode() & 0o7777;
    assert_eq!((mode(""), mode("d"), mode("d/setuid"), mode("d/open")), (0o1777, 0o2750, 0o4755, 0o666));
    assert_eq!((look("d").uid(), look("d").gid(), look("d/setuid").uid()), (5, 6, 7));
    for name in ["", "d", "d/setuid", "soft"] {
        assert_eq!((look(name).mtime(), look(name).mtime_nsec()), (1_000_000_000, 123_456_789), "{name}");
    }
    assert_eq!(look("hard").ino(), look("d/setuid").ino());
    assert_eq!((fs::read_link(layer.path("soft")).unwrap(), look("soft").uid()), (PathBuf::from("/no/where"), 9));
    assert_eq!((look("null").rdev(), mode("null"), look("null").gid()), (rustix::fs::makedev(1, 3), 0o620, 5));
    assert!(look("loop").file_type().is_block_device() && look("fifo").file_type().is_fifo());
    assert_eq!((mode("implied"), mode("implied/deep")), (0o755, 0o755));
    let mut value = [0; 64];
    let length = lgetxattr(layer.path("capable"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..length], caps);
}

/// CVE-2014-9356, CVE-2018-20990, CVE-2021-32760, CVE-2025-47290, CVE-2026-17106: links of the archive itself never lead out.
#[test]
fn links_in_the_way_stay_inside() {
    for target in ["../outside", "/outside", "../../../../../../../../tmp", "d/../../outside"] {
        let layer = Layer::new();
        let result = layer.apply(&[(link(EntryKind::Symlink, "out", target), ""), (file("out/new", 1), "x")]);
        if let Err(error) = result {
            assert_eq!(error.class(), ErrorClass::InvalidArgument, "{error:?}");
        }
    }
    // Through the real outside, by its absolute path.
    let layer = Layer::new();
    let outside = layer.dir.path().join("outside");
    let outside = outside.to_str().unwrap();
    for entry in [
        (file("out/canary", 1), "x"),
        (Entry { mode: 0o777, ..of(EntryKind::Directory, "out/") }, ""),
        (Entry { mode: 0o777, ..of(EntryKind::Directory, "out/canary/") }, ""),
        (link(EntryKind::HardLink, "stolen", "out/canary"), ""),
        (file("out/.wh.canary", 0), ""),
    ] {
        let layer = Layer::new();
        drop(layer.apply(&[(link(EntryKind::Symlink, "out", outside), ""), entry]));
    }
    // Inside, links are links.
    layer
        .apply(&[
            (of(EntryKind::Directory, "usr/lib/"), ""),
            (link(EntryKind::Symlink, "lib", "/usr/lib"), ""),
            (file("lib/x", 1), "x"),
        ])
        .unwrap();
    assert_eq!(fs::read(layer.path("usr/lib/x")).unwrap(), b"x");
}

/// CVE-2026-33056: a directory of the name of a link to one does not change the mode of what the link leads to. CVE-2021-38511: directories that
/// only names imply are not made through a link.
#[test]
fn cve_2026_33056_directories_over_links() {
    let layer = Layer::new();
    let outside = layer.dir.path().join("outside");
    let (mode, names) = (fs::metadata(&outside).unwrap().mode(), fs::read_dir(&outside).unwrap().count());
    for target in [outside.to_str().unwrap().to_owned(), "../../../outside".to_owned(), "../outside".to_owned()] {
        for entry in [
            Entry { mode: 0o777, ..of(EntryKind::Directory, "out") },
            Entry { mode: 0o777, ..of(EntryKind::Directory, "out/") },
            Entry { mode: 0o777, ..of(EntryKind::Directory, "out/./") },
            Entry { mode: 0o777, ..of(EntryKind::Directory, "out/implied/deep/") },
            file("out/implied/deep/file", 1),
        ] {
            let fresh = Layer::new();
            // Made inside, or refused.
            let data = if entry.size == 0 { "" } else { "x" };
            drop(fresh.apply(&[(link(EntryKind::Symlink, "out", &target), ""), (entry, data)]));
            assert_eq!(fs::metadata(&outside).unwrap().mode(), mode, "{target}");
            assert_eq!(fs::read_dir(&outside).unwrap().count(), names, "{target}");
        }
    }
}

/// CVE-2014-6407, CVE-2021-29136 and names that cannot be.
#[test]
fn hostile_entries_are_refused() {
    let long_component = "n".repeat(300);
    let deep = "d/".repeat(400);
    let cases: Vec<Vec<(Entry, &str)>> = vec![
        vec![(file("../x", 0), "")],
        vec![(file("a/../../x", 0), "")],
        vec![(link(EntryKind::Symlink, ".", "/etc"), "")],
        vec![(link(EntryKind::Symlink, "/", "/etc"), "")],
        vec![(link(EntryKind::HardLink, "a", "../outside/canary"), "")],
        vec![(link(EntryKind::HardLink, "a", "missing"), "")],
        vec![(link(EntryKind::HardLink, "a", "/"), "")],
        vec![(link(EntryKind::Symlink, "a", ""), "")],
        vec![(of(EntryKind::CharDevice, "smuggled-whiteout"), "")],
        vec![(file(".wh.gone", 0), ""), (link(EntryKind::HardLink, "smuggled", "gone"), "")],
        vec![(file("d/.wh...", 0), "")],
        vec![(file("d/.wh..", 0), "")],
        vec![(file(".wh.", 0), "")],
        vec![(Entry { uid: 1 << 31, ..file("x", 0) }, "")],
        vec![(Entry { gid: (1 << 32) + 5, ..file("x", 0) }, "")],
        vec![(Entry { uid: u64::from(u32::MAX), ..of(EntryKind::Directory, "x") }, "")],
        vec![(file(&long_component, 0), "")],
        vec![(file(&deep, 0), "")],
        vec![(file("f", 0), ""), (file("f/below", 0), "")],
        vec![(link(EntryKind::Symlink, "loop", "loop"), ""), (file("loop/x", 0), "")],
    ];
    for case in cases {
        Layer::new().refuses(&case);
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let layer = Layer::new();
    let outside = layer.dir.path().join("outside/canary");
    layer
        .apply(&[
            (file("f", 3), "old"),
            (link(EntryKind::HardLink, "other-name", "f"), ""),
            (file("f", 3), "new"),
            (link(EntryKind::Symlink, "s", outside.to_str().unwrap()), ""),
            (Entry { mode: 0o777, ..file("s", 4) }, "file"),
            (of(EntryKind::Directory, "d/sub/"), ""),
            (file("d/sub/x", 1), "x"),
            (file("d", 4), "file"),
            (file("e", 4), "file"),
            (of(EntryKind::Directory, "e/"), ""),
            (file("e/x", 1), "x"),
            (of(EntryKind::Directory, "kept/"), ""),
            (file("kept/x", 1), "x"),
            (Entry { mode: 0o700, ..of(EntryKind::Directory, "kept/") }, ""),
        ])
        .unwrap();
    let read = |name: &str| fs::read_to_string(layer.path(name)).unwrap();
    assert_eq!(
        (read("f"), read("other-name")),
        ("new".to_owned(), "old".to_owned()),
        "never written through a hard link"
    );
    assert_eq!(
        (read("s"), read("d"), read("e/x"), read("kept/x")),
        ("file".into(), "file".into(), "x".into(), "x".into())
    );
    assert_eq!(fs::metadata(layer.path("kept")).unwrap().mode() & 0o7777, 0o700);
    assert!(is_opaque(&layer.path("e")), "what replaced a file hides a lower directory of that name");
}

/// What the overlay obeys, and labels of the host, are not an image's to set.
#[test]
fn attributes_of_the_overlay_cannot_be_smuggled() {
    let layer = Layer::new();
    let xattr = |name: &str| Xattr { name: name.into(), value: b"y".to_vec() };
    let bad = [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "user.overlay.opaque",
        "user.overlay.redirect",
        "security.selinux",
        "security.ima",
        "trusted.x",
    ];
    let xattrs: Vec<Xattr> = bad.iter().map(|name| xattr(name)).chain([xattr("user.kept")]).collect();
    layer
        .apply(&[
            (Entry { xattrs: xattrs.clone(), ..of(EntryKind::Directory, "d/") }, ""),
            (Entry { xattrs, ..file("f", 0) }, ""),
        ])
        .unwrap();
    for name in ["d", "f"] {
        let mut list = [0; 1024];
        let length = rustix::fs::llistxattr(layer.path(name), &mut list[..]).unwrap();
        assert_eq!(&list[..length], b"user.kept\0", "{name}");
    }
}

/// A default ACL of a directory applies to what is made in it later, not to what the archive puts there.
#[test]
fn default_acls_do_not_change_other_entries() {
    let layer = Layer::new();
    // Version 2; user::rwx, user:5:rwx, group::---, mask::rwx, other::---
    let acl = [
        &[2u8, 0, 0, 0][..],
        &[1, 0, 7, 0, 255, 255, 255, 255],
        &[2, 0, 7, 0, 5, 0, 0, 0],
        &[4, 0, 0, 0, 255, 255, 255, 255],
        &[16, 0, 7, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    let xattrs = vec![Xattr { name: b"system.posix_acl_default".to_vec(), value: acl.clone() }];
    layer.apply(&[(Entry { xattrs, ..of(EntryKind::Directory, "d/") }, ""), (file("d/f", 0), "")]).unwrap();
    let mut value = [0; 256];
    let length = lgetxattr(layer.path("d"), "system.posix_acl_default", &mut value).unwrap();
    assert_eq!(value[..length], acl);
    assert_eq!(fs::metadata(layer.path("d/f")).unwrap().mode() & 0o7777, 0o644);
    assert!(lgetxattr(layer.path("d/f"), "system.posix_acl_access", &mut value).is_err());
    let again = packed(&layer.path(""), &[]);
    let again = entries(&again);
    assert_eq!(again[0].xattrs.first().map(|xattr| &xattr.value), Some(&acl), "{again:?}");
}

/// S-100, S-101, S-102: whiteouts of an archive are the overlay's marks, in whatever order they come.
#[test]
fn s102_whiteouts_become_overlay_marks() {
    let layer = Layer::new();
    layer
        .apply(&[
            (file(".wh.gone", 0), ""),
            (file("d/.wh..wh..opq", 0), ""),
            (file("d/new", 0), ""),
            (file(".wh.remade", 0), ""),
            (of(EntryKind::Directory, "remade/"), ""),
            (file("remade/x", 0), ""),
            (file(".wh.implied", 0), ""),
            (file("implied/x", 0), ""),
            (of(EntryKind::Directory, "before/"), ""),
            (file(".wh.before", 0), ""),
            (file("file", 4), "kept"),
            (file(".wh.file", 0), ""),
            (file(".wh..wh.plnk", 0), ""),
        ])
        .unwrap();
    assert!(is_whiteout(&layer.path("gone")));
    for name in ["d", "remade", "implied", "before"] {
        assert!(is_opaque(&layer.path(name)), "{name}");
    }
    assert_eq!(fs::read(layer.path("file")).unwrap(), b"kept", "a whiteout hides nothing of its own layer");
    let found = fs::read_dir(layer.path("")).unwrap().count();
    assert_eq!(found, 6, "no .wh. name is left");
}

/// Every kind of change and file, with every kind of metadata.
fn change_everything(root: &Path) {
    fs::remove_dir_all(root.join("gone")).unwrap();
    fs::remove_file(root.join("old/a")).unwrap();
    fs::remove_dir_all(root.join("keep")).unwrap();
    fs::create_dir(root.join("keep")).unwrap();
    fs::write(root.join("keep/z"), "z").unwrap();
    fs::write(root.join("n".repeat(255)), "long").unwrap();
    fs::create_dir_all(root.join("p".repeat(200)).join("q".repeat(200))).unwrap();
    fs::write(root.join("first"), "linked").unwrap();
    fs::hard_link(root.join("first"), root.join("second")).unwrap();
    symlink("x".repeat(300), root.join("soft")).unwrap();
    std::os::unix::fs::chown(root.join("first"), Some(3_000_000), Some(2_147_483_647)).unwrap();
    fs::set_permissions(root.join("first"), fs::Permissions::from_mode(0o6755)).unwrap();
    lsetxattr(root.join("first"), "user.note", b"binary\0\n=", XattrFlags::empty()).unwrap();
    mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 3))
        .unwrap();
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    drop(sparse);
}

/// S-102, S-116: whiteouts go out as `.wh.` entries and come back as marks; a layer packed, applied and packed again is the same bytes.
#[test]
fn s102_s116_round_trip_is_byte_stable() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["lower", "upper", "work", "applied"] {
        fs::create_dir(path(name)).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["old/a", "old/b", "gone/x", "keep/y"] {
        fs::create_dir_all(path("lower").join(name).parent().unwrap()).unwrap();
        fs::write(path("lower").join(name), name).unwrap();
    }
    let plan = OverlayRootfs {
        lowers: vec![path("lower")],
        upper: Some(path("upper")),
        work: Some(path("work")),
        is_volatile: false,
    };
    let mount = plan.mount_detached().unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    change_everything(&root);
    drop(mount);

    let first = packed(&path("upper"), &plan.lowers);
    let found = paths(&first);
    for name in [
        ".wh.gone",
        "old/",
        "old/.wh.a",
        "keep/",
        "keep/.wh..wh..opq",
        "keep/z",
        "first",
        "second",
        "soft",
        "null",
        "fifo",
        "sparse",
    ] {
        assert!(found.contains(&name.to_owned()), "{name} in {found:?}");
    }
    assert!(!found.iter().any(|name| name == "socket" || name == "old/b" || name == "./"), "{found:?}");
    let linked = entries(&first).into_iter().find(|entry| entry.path == b"first").unwrap();
    assert_eq!((linked.uid, linked.gid, linked.mode), (3_000_000, 2_147_483_647, 0o6755));
    assert_eq!(linked.xattrs, [Xattr { name: b"user.note".to_vec(), value: b"binary\0\n=".to_vec() }]);
    assert_eq!(first, packed(&path("upper"), &plan.lowers), "the same tree, the same bytes");

    let into = RootDir::open_host(&path("applied")).unwrap();
    let applied = apply(&mut first.as_slice(), &into).unwrap();
    assert_eq!(applied.size_bytes, (1 << 20) + 4 + 1 + 6);
    assert_eq!(packed(&path("applied"), &plan.lowers), first, "the same layer again");
    assert!(is_whiteout(&path("applied/gone")) && is_opaque(&path("applied/keep")));

    // On the same lower layer both show the same.
    let merged = OverlayRootfs { lowers: vec![path("applied"), path("lower")], ..OverlayRootfs::default() };
    let mount = merged.mount_detached().unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    assert!(!root.join("gone").exists() && !root.join("old/a").exists() && !root.join("keep/y").exists());
    assert_eq!(fs::read(root.join("old/b")).unwrap(), b"old/b");
}

#[test]
fn a_changed_root_directory_has_an_entry() {
    let dir = tempfile::tempdir().unwrap();
    let (lower, upper) = (dir.path().join("lower"), dir.path().join("upper"));
    fs::create_dir(&lower).unwrap();
    fs::create_dir(&upper).unwrap();
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o700)).unwrap();
    let found = packed(&upper, std::slice::from_ref(&lower));
    assert_eq!((paths(&found), entries(&found)[0].mode), (vec!["./".to_owned()], 0o700));
    fs::set_permissions(&upper, fs::metadata(&lower).unwrap().permissions()).unwrap();
    assert!(paths(&packed(&upper, &[lower])).is_empty());
}

#[test]
fn a_name_that_would_mean_a_whiteout_is_not_packed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".wh.sh"), "").unwrap();
    let error = pack(dir.path(), &[], &mut Vec::new()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::InvalidArgument);
}

/// Depth is bounded, and what is within the bound works on an ordinary thread.
#[test]
fn deep_trees() {
    let layer = Layer::new();
    let deep = "d/".repeat(249);
    layer.apply(&[(file(&format!("{deep}f"), 1), "x")]).unwrap();
    let archive = packed(&layer.path(""), &[]);
    assert_eq!(paths(&archive).len(), 250);
    let plan = OverlayRootfs { upper: Some(layer.path("")), ..OverlayRootfs::default() };
    assert_eq!(berth_image::changes(&plan).unwrap().len(), 250);
    layer.apply(&[(of(EntryKind::Symlink, "d"), "")]).unwrap_err();
    layer.apply(&[(file("d", 1), "y")]).unwrap();
    assert_eq!(fs::read(layer.path("d")).unwrap(), b"y", "replaced with all below it");
    let upper = tempfile::tempdir().unwrap();
    fs::create_dir_all(upper.path().join("d/".repeat(300))).unwrap();
    let error = pack(upper.path(), &[], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("too many levels"), "{error}");
}

/// A directory that the archive only implies looks as it does below.
#[test]
fn implied_directories_keep_their_looks() {
    let lower = tempfile::tempdir().unwrap();
    fs::create_dir_all(lower.path().join("etc/private")).unwrap();
    fs::set_permissions(lower.path().join("etc/private"), fs::Permissions::from_mode(0o2710)).unwrap();
    std::os::unix::fs::chown(lower.path().join("etc/private"), Some(3), Some(4)).unwrap();
    fs::set_permissions(lower.path().join("etc/private"), fs::Permissions::from_mode(0o2710)).unwrap();
    let layer = Layer::new();
    let lowers = [RootDir::open_host(lower.path()).unwrap()];
    let archive = tar(&[(file("etc/private/f", 0), "")]);
    apply_on(&mut archive.as_slice(), &RootDir::open_host(&layer.path("")).unwrap(), &lowers).unwrap();
    let look = |path: PathBuf| {
        let meta = fs::metadata(path).unwrap();
        (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec())
    };
    assert_eq!(look(layer.path("etc/private")), look(lower.path().join("etc/private")));
}

/// A file with holes of a gigabyte takes no gigabyte, and ends in no time.
#[test]
fn sparse_files_stay_sparse() {
    let layer = Layer::new();
    let records = ["GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=s", "GNU.sparse.realsize=1073741824"];
    let mut pax = String::new();
    for record in records {
        let length = record.len() + 2;
        let length = length + (length + 2).to_string().len();
        pax.push_str(&format!("{length} {record}\n"));
    }
    let map = "1\n1073741821\n3\n";
    let mut data = map.as_bytes().to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"end");
    let body = String::from_utf8(data).unwrap();
    let mut archive = tar(&[(file("pax", pax.len()), pax.as_str()), (file("s", body.len()), body.as_str())]);
    // Make the first file the extended header of the second.
    archive[156] = b'x';
    let sum: u32 = archive[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    apply(&mut archive.as_slice(), &RootDir::open_host(&layer.path("")).unwrap()).unwrap();
    let meta = fs::metadata(layer.path("s")).unwrap();
    assert_eq!(meta.len(), 1 << 30);
    assert!(meta.blocks() < 1000, "{}", meta.blocks());
}
