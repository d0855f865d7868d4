//! The overlay mechanism as this engine mounts it, on a real kernel. Needs root. The mounts are detached: nothing here touches the host's
//! mount table, except one test that re-executes itself in a mount namespace of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its fixtures")]

use std::ffi::CString;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_rootfs::{OverlayError, OverlayOptions, OverlayRootfs};
use berth_types::{Classify, ErrorClass};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use rustix::io::Errno;

struct Fixture {
    dir: tempfile::TempDir,
    plan: OverlayRootfs,
}

/// A mounted overlay, reached through its descriptor.
struct Merged {
    _mount: OwnedFd,
    root: PathBuf,
}

impl Merged {
    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Fixture {
    /// `count` empty layers and a writable pair.
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lowers: Vec<PathBuf> = (0..count).map(|n| dir.path().join(format!("layer{n}"))).collect();
        let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
        for path in lowers.iter().chain([&upper, &work]) {
            fs::create_dir(path).unwrap();
        }
        let plan = OverlayRootfs { lowers, upper: Some(upper), work: Some(work), is_volatile: false };
        Self { dir, plan }
    }

    fn lower(&self, layer: usize, name: &str) -> PathBuf {
        self.plan.lowers[layer].join(name)
    }

    fn upper(&self, name: &str) -> PathBuf {
        self.plan.upper.as_ref().unwrap().join(name)
    }

    fn mount(&self) -> Merged {
        let mount = self.plan.mount_detached().unwrap();
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        Merged { _mount: mount, root }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Everything about a tree that a change would show in.
fn fingerprint(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = vec![dir.to_owned()];
    while let Some(path) = rest.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.push(format!(
            "{path:?} {:o} {} {} {} {}.{} {content:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.rdev(),
            meta.mtime(),
            meta.mtime_nsec()
        ));
        if meta.is_dir() {
            rest.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

fn is_whiteout(path: &Path) -> bool {
    let meta = fs::symlink_metadata(path).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 64];
    lgetxattr(path, name, &mut value).ok().map(|length| value[..length].to_vec())
}

/// S-090, S-091, S-095, S-097, S-105: one view of all layers, upper wins, lowers stay as they are.
#[test]
fn s090_s091_s095_s097_s105_union_of_layers() {
    let f = Fixture::new(2);
    fs::write(f.lower(0, "both"), "top").unwrap();
    fs::write(f.lower(1, "both"), "bottom").unwrap();
    fs::create_dir(f.lower(0, "d")).unwrap();
    fs::create_dir(f.lower(1, "d")).unwrap();
    fs::write(f.lower(0, "d/a"), "a").unwrap();
    fs::write(f.lower(1, "d/b"), "b").unwrap();
    let before: Vec<_> = f.plan.lowers.iter().map(|lower| fingerprint(lower)).collect();

    let merged = f.mount();
    assert_eq!(names(&merged.root), ["both", "d"]);
    assert_eq!(names(&merged.path("d")), ["a", "b"]);
    assert_eq!(fs::read(merged.path("both")).unwrap(), b"top");
    assert!(names(&f.upper("")).is_empty(), "reading copies nothing up");

    fs::write(merged.path("new"), "hi").unwrap();
    fs::write(merged.path("d/b"), "changed").unwrap();
    fs::remove_file(merged.path("both")).unwrap();
    assert_eq!(fs::read(f.upper("new")).unwrap(), b"hi");
    assert_eq!(fs::read(merged.path("new")).unwrap(), b"hi");
    assert_eq!(fs::read(merged.path("d/a")).unwrap(), b"a");
    let after: Vec<_> = f.plan.lowers.iter().map(|lower| fingerprint(lower)).collect();
    assert_eq!(before, after);
}

/// S-092, S-093, S-098: copied at the first change, once, with everything that belongs to the file.
#[test]
fn s092_s093_s098_copy_up() {
    let f = Fixture::new(1);
    let lower = f.lower(0, "file");
    fs::write(&lower, "old").unwrap();
    std::os::unix::fs::chown(&lower, Some(1234), Some(2345)).unwrap();
    fs::set_permissions(&lower, fs::Permissions::from_mode(0o4751)).unwrap();
    lsetxattr(&lower, "user.note", b"kept", XattrFlags::empty()).unwrap();
    fs::hard_link(&lower, f.lower(0, "linked")).unwrap();
    fs::write(f.lower(0, "mode-only"), "m").unwrap();
    let mtime = fs::metadata(&lower).unwrap().mtime_nsec();

    let merged = f.mount();
    assert_eq!(fs::read(merged.path("file")).unwrap(), b"old");
    fs::metadata(merged.path("file")).unwrap();
    assert!(names(&f.upper("")).is_empty());

    lsetxattr(merged.path("file"), "user.more", b"new", XattrFlags::empty()).unwrap();
    let copied = fs::metadata(f.upper("file")).unwrap();
    assert_eq!((copied.mode() & 0o7777, copied.uid(), copied.gid(), copied.mtime_nsec()), (0o4751, 1234, 2345, mtime));
    assert_eq!(xattr(&f.upper("file"), "user.note").unwrap(), b"kept");

    let mut writer = fs::OpenOptions::new().append(true).open(merged.path("file")).unwrap();
    writer.write_all(b"+1").unwrap();
    drop(writer);
    fs::OpenOptions::new().append(true).open(merged.path("file")).unwrap().write_all(b"+2").unwrap();
    assert_eq!(fs::metadata(f.upper("file")).unwrap().ino(), copied.ino(), "copied once");
    assert_eq!(fs::read(f.upper("file")).unwrap(), b"old+1+2");
    assert_eq!(fs::read(&lower).unwrap(), b"old");
    assert_eq!(
        fs::read(merged.path("linked")).unwrap(),
        b"old",
        "the other name of a lower hard link stays (no index)"
    );

    fs::set_permissions(merged.path("mode-only"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(fs::read(f.upper("mode-only")).unwrap(), b"m", "no metadata-only copies");
    assert_eq!(xattr(&f.upper("mode-only"), "trusted.overlay.metacopy"), None);
}

/// S-094, S-098: the copy of a large sparse file goes through the work directory, which is empty again afterwards.
#[test]
fn s094_s098_sparse_copy_through_work() {
    let f = Fixture::new(1);
    let file = fs::File::create(f.lower(0, "sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"end", (64 << 20) - 3).unwrap();
    let merged = f.mount();
    fs::OpenOptions::new().write(true).open(merged.path("sparse")).unwrap().write_all(b"start").unwrap();
    let copied = fs::metadata(f.upper("sparse")).unwrap();
    assert_eq!(copied.len(), 64 << 20);
    assert!(copied.blocks() * 512 < 8 << 20, "holes kept: {} blocks", copied.blocks());
    let mut reader = fs::File::open(merged.path("sparse")).unwrap();
    let mut start = [0; 6];
    reader.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"start\0");
    reader.seek(SeekFrom::End(-3)).unwrap();
    let mut end = Vec::new();
    reader.read_to_end(&mut end).unwrap();
    assert_eq!(end, b"end");
    assert!(names(&f.plan.work.as_ref().unwrap().join("work")).is_empty());
}

/// S-099, S-100, S-102: deletion is a mark in the upper directory.
#[test]
fn s099_s100_s102_whiteout() {
    let f = Fixture::new(1);
    fs::write(f.lower(0, "gone"), "still here").unwrap();
    let merged = f.mount();
    fs::remove_file(merged.path("gone")).unwrap();
    assert!(is_whiteout(&f.upper("gone")));
    assert_eq!(fs::read(f.lower(0, "gone")).unwrap(), b"still here");
    assert!(names(&merged.root).is_empty());
    for error in [fs::metadata(merged.path("gone")).unwrap_err(), fs::File::open(merged.path("gone")).unwrap_err()] {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
    fs::write(merged.path("gone"), "again").unwrap();
    assert_eq!(fs::read(f.upper("gone")).unwrap(), b"again");
}

/// S-101, S-102: a directory made anew hides what is below by an extended attribute.
#[test]
fn s101_s102_opaque_directory() {
    for has_user_xattrs in [false, true] {
        let f = Fixture::new(1);
        fs::create_dir(f.lower(0, "d")).unwrap();
        fs::write(f.lower(0, "d/hidden"), "x").unwrap();
        let options = OverlayOptions { has_user_xattrs, ..OverlayOptions::default() };
        let mount = f.plan.mount_detached_with(options).unwrap();
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::create_dir(root.join("d")).unwrap();
        let name = if has_user_xattrs { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
        assert_eq!(xattr(&f.upper("d"), name).unwrap(), b"y");
        assert!(names(&root.join("d")).is_empty());
        assert_eq!(fs::read(f.lower(0, "d/hidden")).unwrap(), b"x");
    }
}

/// A directory of a layer cannot be renamed by reference: nothing in an upper directory points elsewhere.
#[test]
fn renaming_a_lower_directory_makes_no_redirect() {
    let f = Fixture::new(1);
    fs::create_dir(f.lower(0, "d")).unwrap();
    fs::write(f.lower(0, "d/x"), "x").unwrap();
    let merged = f.mount();
    let error = fs::rename(merged.path("d"), merged.path("e")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::XDEV.raw_os_error()));
}

/// A layer that smuggles a redirect (an attribute an image must not carry) shows nothing of what it points at.
#[test]
fn smuggled_redirect_is_not_followed() {
    let f = Fixture::new(2);
    fs::create_dir(f.lower(1, "secret")).unwrap();
    fs::write(f.lower(1, "secret/key"), "k").unwrap();
    fs::create_dir(f.lower(0, "public")).unwrap();
    lsetxattr(f.lower(0, "public"), "trusted.overlay.redirect", b"/secret", XattrFlags::empty()).unwrap();
    let merged = f.mount();
    match fs::read_dir(merged.path("public")) {
        Ok(entries) => assert_eq!(entries.count(), 0),
        Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::PERM.raw_os_error())),
    }
}

/// The same for an attribute that says that a file's data is elsewhere: the layer's file is refused or is what it holds, never the other's data.
#[test]
fn smuggled_metacopy_is_not_followed() {
    for redirect in [None, Some(&b"/secret"[..])] {
        let f = Fixture::new(2);
        for name in ["secret", "public"] {
            fs::write(f.lower(1, name), "key").unwrap();
        }
        fs::write(f.lower(0, "public"), "mine").unwrap();
        let set = |name: &str, value: &[u8]| lsetxattr(f.lower(0, "public"), name, value, XattrFlags::empty()).unwrap();
        set("trusted.overlay.metacopy", b"");
        if let Some(target) = redirect {
            set("trusted.overlay.redirect", target);
        }
        let merged = f.mount();
        match fs::read(merged.path("public")) {
            Ok(bytes) => assert_eq!(bytes, b"mine"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::PERM.raw_os_error())),
        }
    }
}

/// S-103: more than 64 layers, and long paths, names with separators.
#[test]
fn s103_many_layers_and_strange_names() {
    let f = Fixture::new(128);
    for n in 0..128 {
        fs::write(f.lower(n, &format!("f{n}")), n.to_string()).unwrap();
    }
    let merged = f.mount();
    assert_eq!(names(&merged.root).len(), 128);
    assert_eq!(fs::read(merged.path("f127")).unwrap(), b"127");

    for name in ["with:colon", "with,comma", "with\\backslash", &"l".repeat(250)] {
        let mut strange = Fixture::new(2);
        let base = strange.dir.path().join(name);
        fs::create_dir(&base).unwrap();
        for path in strange.plan.lowers.iter_mut().chain(strange.plan.upper.as_mut()).chain(strange.plan.work.as_mut())
        {
            *path = base.join(path.file_name().unwrap());
            fs::create_dir(&path).unwrap();
        }
        fs::write(strange.lower(1, "x"), "x").unwrap();
        let merged = strange.mount();
        fs::write(merged.path("y"), "y").unwrap();
        assert_eq!(names(&strange.upper("")), ["y"], "{name}");
        assert_eq!(names(&merged.root), ["x", "y"], "{name}");
    }
}

/// S-103: what `mount` shows, once attached. The inner half runs in its own mount namespace.
#[test]
fn s103_options_shown() {
    let this = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(this)
        .args(["--exact", "inner_options_shown", "--ignored", "--nocapture"])
        .status()
        .expect("unshare (util-linux) is needed");
    assert!(status.success());
}

#[test]
#[ignore = "run by s103_options_shown in a mount namespace"]
fn inner_options_shown() {
    let f = Fixture::new(3);
    let point = f.dir.path().join("merged");
    fs::create_dir(&point).unwrap();
    let mountinfo = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = f.plan.mount_detached().unwrap();
    assert!(!mountinfo().contains(f.plan.lowers[0].to_str().unwrap()), "detached: not in the mount table");
    rustix::mount::move_mount(
        &mount,
        "",
        rustix::fs::CWD,
        &point,
        rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .unwrap();
    let table = mountinfo();
    let line = table.lines().find(|line| line.contains(point.to_str().unwrap())).unwrap();
    assert!(line.contains(" - overlay overlay "), "{line}");
    let lowers: Vec<String> = f.plan.lowers.iter().map(|lower| format!("lowerdir+={}", lower.display())).collect();
    assert!(line.contains(&lowers.join(",")), "top to bottom: {line}");
    assert!(line.contains(&format!("upperdir={}", f.upper("").display()).trim_end_matches('/').to_owned()), "{line}");
    assert!(line.contains("workdir=") && line.contains("redirect_dir=nofollow"), "{line}");
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// A volatile pair can be mounted again after its mount is gone: a throw-away container that is restarted.
#[test]
fn volatile_pair_mounts_again() {
    let mut f = Fixture::new(1);
    f.plan.is_volatile = true;
    let merged = f.mount();
    fs::write(merged.path("x"), "x").unwrap();
    assert!(f.plan.work.as_ref().unwrap().join("work/incompat/volatile").is_dir());
    drop(merged);
    assert_eq!(fs::read(f.mount().path("x")).unwrap(), b"x");
}

/// One layer and nothing writable is that layer, read-only; nothing but a writable pair is its upper directory.
#[test]
fn single_directories_need_no_overlay() {
    let mut f = Fixture::new(1);
    fs::write(f.lower(0, "x"), "x").unwrap();
    (f.plan.upper, f.plan.work) = (None, None);
    let merged = f.mount();
    assert_eq!(fs::read(merged.path("x")).unwrap(), b"x");
    let error = fs::write(merged.path("y"), "y").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);

    let f = Fixture::new(0);
    fs::write(f.mount().path("y"), "y").unwrap();
    assert_eq!(names(&f.upper("")), ["y"]);
}

#[test]
fn failures_name_the_object_and_the_kernels_reason() {
    let mut f = Fixture::new(2);
    fs::remove_dir(&f.plan.lowers[1]).unwrap();
    let error = f.plan.mount_detached().unwrap_err();
    assert_eq!(error.class(), ErrorClass::NotFound, "{error:?}");
    assert!(error.to_string().contains("layer1"), "{error}");

    f = Fixture::new(2);
    f.plan.work = Some(f.plan.upper.as_ref().unwrap().join("work"));
    fs::create_dir(f.plan.work.as_ref().unwrap()).unwrap();
    let error = f.plan.mount_detached().unwrap_err();
    assert!(matches!(error, OverlayError::Mount { .. } | OverlayError::Option { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::InvalidArgument);
}

/// A user namespace that maps 0.. to 100000.., held by a child until dropped.
struct UserNs {
    child: std::process::Child,
    fd: OwnedFd,
}

impl UserNs {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--user", "--fork", "--kill-child", "sh", "-c", "echo ready; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) is needed");
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{file}", child.id()), "0 100000 65536").unwrap();
        }
        let fd = fs::File::open(format!("/proc/{}/ns/user", child.id())).unwrap().into();
        Self { child, fd }
    }
}

impl Drop for UserNs {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// S-023: with a user namespace files of the image belong to the mapped ids, nothing is chowned, and what the container makes is stored as its own.
#[test]
fn s023_idmapped_overlay() {
    let user_ns = UserNs::new();
    for is_volatile in [false, true] {
        let mut f = Fixture::new(3);
        f.plan.is_volatile = is_volatile;
        fs::write(f.lower(0, "root-file"), "r").unwrap();
        fs::write(f.lower(2, "user-file"), "u").unwrap();
        std::os::unix::fs::chown(f.lower(2, "user-file"), Some(1000), Some(1000)).unwrap();

        let mount = f.plan.mount_detached_idmapped(user_ns.fd.as_fd()).unwrap();
        let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        let owner = |path: &Path| {
            let meta = fs::symlink_metadata(path).unwrap();
            (meta.uid(), meta.gid())
        };
        assert_eq!(owner(&root.join(".")), (100_000, 100_000));
        assert_eq!(owner(&root.join("root-file")), (100_000, 100_000));
        assert_eq!(owner(&root.join("user-file")), (101_000, 101_000));
        assert_eq!(owner(&f.lower(2, "user-file")), (1000, 1000), "no chown of the layer");

        let script = format!(
            "echo made > {0}/made && chown 7:8 {0}/made && echo changed >> {0}/user-file && rm {0}/root-file && stat -c %u {0}/user-file",
            root.display()
        );
        // The child reaches the mount through a descriptor it inherits.
        rustix::io::fcntl_setfd(&mount, rustix::io::FdFlags::empty()).unwrap();
        let output = Command::new("nsenter")
            .arg(format!("--user=/proc/{}/ns/user", user_ns.child.id()))
            .args(["--setuid", "0", "--setgid", "0", "sh", "-c"])
            .arg(script)
            .output()
            .expect("nsenter (util-linux) is needed");
        rustix::io::fcntl_setfd(&mount, rustix::io::FdFlags::CLOEXEC).unwrap();
        if output.status.success() {
            assert_eq!(output.stdout, b"1000\n", "inside, the image's own ids");
            assert_eq!(owner(&root.join("made")), (100_007, 100_008), "the host sees the mapped id");
            assert_eq!(owner(&f.upper("made")), (7, 8), "stored as the container's own");
            assert_eq!(owner(&f.upper("user-file")), (1000, 1000));
            assert!(is_whiteout(&f.upper("root-file")));
        } else {
            panic!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn idmapped_pair_must_share_its_parent() {
    let user_ns = UserNs::new();
    let mut f = Fixture::new(1);
    let elsewhere = f.dir.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("work")).unwrap();
    f.plan.work = Some(elsewhere.join("work"));
    assert!(matches!(f.plan.mount_detached_idmapped(user_ns.fd.as_fd()), Err(OverlayError::WritablePair)));
}

/// What a container cannot do to its layers through links and special names of the merged view.
#[test]
fn links_and_special_files_are_stored_as_they_are() {
    let f = Fixture::new(1);
    let merged = f.mount();
    symlink("/etc/passwd", merged.path("link")).unwrap();
    let fifo = CString::new(merged.path("fifo").to_str().unwrap()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, fifo.as_c_str(), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(fs::read_link(f.upper("link")).unwrap(), Path::new("/etc/passwd"));
    assert!(fs::symlink_metadata(f.upper("fifo")).unwrap().file_type().is_fifo());
}
