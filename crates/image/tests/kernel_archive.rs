//! `cp` and `export` against roots that attack. Needs root; temporary directories only.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its fixtures")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_image::archive::{self, UnpackOptions};
use berth_image::tar_stream::{Entry, EntryKind, TarReader, TarWriter};
use berth_rootfs::RootDir;
use berth_types::{Classify, ErrorClass};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

struct Root {
    dir: tempfile::TempDir,
    root: RootDir,
}

impl Root {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "secret").unwrap();
        let root = RootDir::open_host(&dir.path().join("root")).unwrap();
        Self { dir, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    fn pack(&self, path: &str) -> Vec<(String, String)> {
        let mut out = Vec::new();
        archive::pack(&self.root, Path::new(path), &mut out).unwrap();
        read(&out)
    }
}

fn read(mut archive: &[u8]) -> Vec<(String, String)> {
    let mut reader = TarReader::new(&mut archive);
    let mut found = Vec::new();
    while reader.next_entry().unwrap() {
        let path = String::from_utf8(reader.entry().path.clone()).unwrap();
        let mut data = String::from_utf8(reader.entry().link.clone()).unwrap();
        while let Some((_, piece)) = reader.next_piece().unwrap() {
            data.push_str(std::str::from_utf8(piece).unwrap());
        }
        found.push((path, data));
    }
    found
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

fn file(path: &str, data: &str) -> Entry {
    Entry { path: path.into(), mode: 0o644, uid: 12, size: data.len() as u64, ..Entry::default() }
}

fn names(found: &[(String, String)]) -> Vec<&str> {
    found.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn copies_out_as_docker_names_them() {
    let root = Root::new();
    fs::create_dir_all(root.path("a/b")).unwrap();
    fs::write(root.path("a/b/f"), "content").unwrap();
    symlink("/a", root.path("link")).unwrap();
    assert_eq!(root.pack("/a/b/f"), [("f".to_owned(), "content".to_owned())]);
    assert_eq!(root.pack("link/b/f"), [("f".to_owned(), "content".to_owned())]);
    assert_eq!(names(&root.pack("/a")), ["a/", "a/b/", "a/b/f"]);
    assert_eq!(names(&root.pack("/a/.")), ["./", "./b/", "./b/f"]);
    assert_eq!(names(&root.pack("/link/")), ["link/", "link/b/", "link/b/f"]);
    assert_eq!(root.pack("/link"), [("link".to_owned(), "/a".to_owned())]);
    assert_eq!(names(&root.pack("/")), ["./", "./a/", "./a/b/", "./a/b/f", "./link"]);
    for missing in ["/nothing", "/a/b/f/", "/a/b/f/x"] {
        let error = archive::pack(&root.root, Path::new(missing), &mut Vec::new()).unwrap_err();
        assert_eq!(error.class(), ErrorClass::NotFound, "{missing}");
    }
}

#[test]
fn stat_tells_where_links_lead() {
    let root = Root::new();
    fs::create_dir(root.path("d")).unwrap();
    fs::write(root.path("d/f"), "12345").unwrap();
    for (name, target) in [
        ("abs", "/d/f"),
        ("rel", "../../d/./f"),
        ("chain", "abs"),
        ("dangling", "/no/where"),
        ("out", "/../../etc/passwd"),
    ] {
        symlink(target, root.path(name)).unwrap();
    }
    symlink("round", root.path("round")).unwrap();
    let stat = |path: &str| archive::stat(&root.root, Path::new(path));
    let info = stat("/d/f").unwrap();
    assert_eq!((info.name.as_str(), info.size, info.link_target), ("f", 5, None));
    assert_eq!(info.modified.unix_seconds(), fs::metadata(root.path("d/f")).unwrap().mtime());
    for (name, target) in
        [("abs", "/d/f"), ("rel", "/d/f"), ("chain", "/d/f"), ("dangling", "/no/where"), ("out", "/etc/passwd")]
    {
        assert_eq!(stat(name).unwrap().link_target.unwrap(), Path::new(target), "{name}");
    }
    assert_eq!(stat("round").unwrap_err().class(), ErrorClass::InvalidArgument);
    assert_eq!((stat("/").unwrap().name, stat("nothing").unwrap_err().class()), ("/".to_owned(), ErrorClass::NotFound));
}

#[test]
fn copies_in() {
    let root = Root::new();
    fs::create_dir(root.path("d")).unwrap();
    fs::write(root.path("d/old"), "old").unwrap();
    fs::hard_link(root.path("d/old"), root.path("d/other")).unwrap();
    symlink("/d", root.path("link")).unwrap();
    let options = UnpackOptions { keep_owners: true, ..UnpackOptions::default() };
    let unpack =
        |path: &str, archive: &[u8], options| archive::unpack(&root.root, Path::new(path), &mut &archive[..], options);
    let new = tar(&[(file("old", "new"), "new"), (file("sub/.wh.x", "w"), "w")]);
    unpack("/link", &new, options).unwrap();
    assert_eq!(fs::read(root.path("d/old")).unwrap(), b"new");
    assert_eq!(fs::read(root.path("d/other")).unwrap(), b"old", "not written through the hard link");
    assert_eq!(fs::read(root.path("d/sub/.wh.x")).unwrap(), b"w", "a name is only a name here");
    assert_eq!(fs::metadata(root.path("d/old")).unwrap().uid(), 12);
    unpack("/d", &new, UnpackOptions::default()).unwrap();
    assert_eq!(fs::metadata(root.path("d/old")).unwrap().uid(), 0);

    let strict = UnpackOptions { no_overwrite_dir_non_dir: true, ..options };
    let file_over_dir = tar(&[(file("sub", "x"), "x")]);
    let dir_over_file = tar(&[(Entry { kind: EntryKind::Directory, mode: 0o755, ..file("old/", "") }, "")]);
    for archive in [&file_over_dir, &dir_over_file] {
        assert_eq!(unpack("/d", archive, strict).unwrap_err().class(), ErrorClass::InvalidArgument);
    }
    unpack("/d", &file_over_dir, options).unwrap();
    assert!(root.path("d/sub").is_file());
    for (path, class) in [("/missing", ErrorClass::NotFound), ("/d/old", ErrorClass::NotFound)] {
        assert_eq!(unpack(path, &new, options).unwrap_err().class(), class, "{path}");
    }
}

/// Links of the root, however they lead, are the root's own.
#[test]
fn links_of_the_root_stay_inside() {
    let root = Root::new();
    let outside = root.outside();
    symlink(&outside, root.path("abs")).unwrap();
    symlink("../outside", root.path("rel")).unwrap();
    symlink("/proc/self/root", root.path("magic")).unwrap();
    let attack = tar(&[(file("canary", "x"), "x"), (file("new", "x"), "x")]);
    for path in ["abs", "rel", "abs/", "../outside", "magic", "magic/etc"] {
        let error = archive::unpack(&root.root, Path::new(path), &mut attack.as_slice(), UnpackOptions::default());
        assert_eq!(error.unwrap_err().class(), ErrorClass::NotFound, "{path}");
        for path in [format!("{path}/canary"), format!("{path}/.")] {
            assert!(archive::pack(&root.root, Path::new(&path), &mut Vec::new()).is_err(), "{path}");
        }
    }
    // In the archive: through a link of the root, and one that the archive brings.
    let through = tar(&[(file("abs/canary", "x"), "x")]);
    assert!(archive::unpack(&root.root, Path::new("/"), &mut through.as_slice(), UnpackOptions::default()).is_err());
    let link = Entry { kind: EntryKind::Symlink, link: outside.to_str().unwrap().into(), ..file("mine", "") };
    let brought = tar(&[(link, ""), (file("mine/canary", "x"), "x")]);
    assert!(archive::unpack(&root.root, Path::new("/"), &mut brought.as_slice(), UnpackOptions::default()).is_err());
    assert_eq!(fs::read(outside.join("canary")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

/// Nothing of a root may block us or be opened that has side effects.
#[test]
fn fifos_and_devices_are_not_opened() {
    let root = Root::new();
    fs::create_dir(root.path("d")).unwrap();
    mknodat(CWD, root.path("d/fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    mknodat(CWD, root.path("d/zero"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 5)).unwrap();
    assert_eq!(names(&root.pack("/d")), ["d/", "d/fifo", "d/zero"]);
    assert_eq!(names(&root.pack("/d/fifo")), ["fifo"]);
    let over = tar(&[(file("fifo", "x"), "x"), (file("zero", "x"), "x")]);
    archive::unpack(&root.root, Path::new("/d"), &mut over.as_slice(), UnpackOptions::default()).unwrap();
    assert!(root.path("d/fifo").is_file() && root.path("d/zero").is_file(), "replaced, not written into");
}

#[test]
fn export_is_the_whole_root() {
    let root = Root::new();
    fs::create_dir_all(root.path("etc/empty")).unwrap();
    fs::write(root.path("etc/f"), "x").unwrap();
    let mut out = Vec::new();
    archive::export(&root.root, &mut out).unwrap();
    assert_eq!(names(&read(&out)), ["etc/", "etc/empty/", "etc/f"]);
}

/// What is mounted in a root: part of it for `cp` (except the kernel's own file systems, which would answer with the engine's rights), not part
/// of it for `export`. The inner half runs in its own mount namespace.
#[test]
fn mounts_in_the_root() {
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "inner_mounts_in_the_root", "--ignored", "--nocapture"])
        .status()
        .expect("unshare (util-linux) is needed");
    assert!(status.success());
}

#[test]
#[ignore = "run by mounts_in_the_root in a mount namespace"]
fn inner_mounts_in_the_root() {
    let root = Root::new();
    for name in ["volume", "proc", "d"] {
        fs::create_dir(root.path(name)).unwrap();
    }
    fs::write(root.path("hosts"), "below").unwrap();
    mount("tmpfs", root.path("volume"), "tmpfs", MountFlags::empty(), None).unwrap();
    mount("proc", root.path("proc"), "proc", MountFlags::empty(), None).unwrap();
    fs::write(root.path("volume/x"), "volume").unwrap();
    mount_bind(root.path("volume/x"), root.path("hosts")).unwrap();

    let found = root.pack("/");
    assert_eq!(names(&found), ["./", "./d/", "./hosts", "./proc/", "./volume/", "./volume/x"]);
    assert_eq!(found[2].1, "volume");
    assert!(root.pack("/proc/version").is_empty());
    assert_eq!(names(&root.pack("/proc/sys")), ["sys/"]);

    let mut out = Vec::new();
    archive::export(&root.root, &mut out).unwrap();
    let nothing = |name: &str| (name.to_owned(), String::new());
    assert_eq!(read(&out), ["d/", "hosts", "proc/", "volume/"].map(nothing));

    // Copying in goes through a link into procfs no further than the kernel lets one create files there: not at all.
    symlink("/proc/sys/kernel", root.path("link")).unwrap();
    let hostname = fs::read(root.path("proc/sys/kernel/hostname")).unwrap();
    let attack = tar(&[(file("hostname", "owned"), "owned")]);
    for path in ["/link", "/proc/sys/kernel"] {
        let error = archive::unpack(&root.root, Path::new(path), &mut attack.as_slice(), UnpackOptions::default());
        assert_eq!(error.unwrap_err().class(), ErrorClass::PermissionDenied, "{path}");
    }
    assert_eq!(fs::read(root.path("proc/sys/kernel/hostname")).unwrap(), hostname);
    for name in ["hosts", "proc", "volume"] {
        unmount(root.path(name), UnmountFlags::DETACH).unwrap();
    }
}

/// CVE-2018-15664, CVE-2019-14271, CVE-2026-41567, CVE-2026-41568, CVE-2026-42306: a directory exchanged for a link to the outside, over and over,
/// while files are copied out and in. Nothing of the outside is ever read, made or changed. CVE-2021-41089: neither are modes and owners.
/// CVE-2023-0778: what is read for an archive is what was opened, not what is there a moment later.
#[test]
fn link_swap_race() {
    const ROUNDS: usize = 2000;
    let root = Root::new();
    let outside = root.outside();
    fs::set_permissions(outside.join("canary"), fs::Permissions::from_mode(0o600)).unwrap();
    let before = fs::metadata(outside.join("canary")).unwrap();
    fs::create_dir(root.path("d")).unwrap();
    fs::write(root.path("d/canary"), "inside").unwrap();
    // Absolute, and relative enough to climb out of any root.
    symlink(&outside, root.path("swap-a")).unwrap();
    symlink("../outside", root.path("swap-b")).unwrap();
    let attack = tar(&[
        (file("canary", "owned"), "owned"),
        (file("new", "owned"), "owned"),
        (Entry { kind: EntryKind::Directory, mode: 0o777, ..file("sub/", "") }, ""),
        (file("sub/deep", "owned"), "owned"),
    ]);
    let nested = tar(&[
        (Entry { kind: EntryKind::Directory, mode: 0o777, ..file("d/", "") }, ""),
        (file("d/canary", "owned"), "owned"),
    ]);
    let is_done = AtomicBool::new(false);
    let swaps = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps: usize = 0;
            while !is_done.load(Ordering::Relaxed) {
                let link = if swaps.is_multiple_of(2) { "swap-a" } else { "swap-b" };
                for _ in 0..2 {
                    // Copying in exchanges things too, so any of this may find something else than it left.
                    renameat_with(CWD, root.path("d"), CWD, root.path(link), RenameFlags::EXCHANGE).ok();
                }
                if !root.path(link).is_symlink() {
                    fs::remove_dir_all(root.path(link)).ok();
                    let target = if link == "swap-a" { outside.as_path() } else { Path::new("../outside") };
                    symlink(target, root.path(link)).ok();
                }
                swaps += 1;
            }
            swaps
        });
        for round in 0..ROUNDS {
            let mut out = Vec::new();
            for path in ["/d/canary", "/d/", "/"] {
                out.clear();
                if archive::pack(&root.root, Path::new(path), &mut out).is_ok() {
                    assert!(!read(&out).iter().any(|(_, data)| data == "secret"), "round {round}");
                }
            }
            drop(archive::unpack(&root.root, Path::new("/d"), &mut attack.as_slice(), UnpackOptions::default()));
            drop(archive::unpack(&root.root, Path::new("/"), &mut nested.as_slice(), UnpackOptions::default()));
            drop(archive::stat(&root.root, Path::new("/d/canary")));
        }
        is_done.store(true, Ordering::Relaxed);
        swapper.join()
    });
    assert_eq!(fs::read(outside.join("canary")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o755);
    let canary = fs::metadata(outside.join("canary")).unwrap();
    assert_eq!((canary.uid(), canary.gid(), canary.mode()), (before.uid(), before.gid(), before.mode()));
    assert!(swaps.unwrap() > 0);
}
