//! `explain path` in odd cases: what it says is what somebody sees who mounts the layers and looks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ffi::OsStr;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use berth_image::tar_stream::{Entry, EntryKind, TarWriter};
use berth_image::{MountPoint, PathStory, Say};
use support::*;

/// Files (`path`, `text`), directories (`path/`), links (`path -> target`), hard links (`path => target`).
fn layer(entries: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut tar = TarWriter::new(&mut bytes);
    for entry in entries {
        let cut = |mark: &[u8]| {
            let at = entry.windows(mark.len()).position(|part| part == mark)?;
            Some((entry[..at].to_vec(), entry[at + mark.len()..].to_vec()))
        };
        let plain = Entry { mode: 0o755, ..Entry::default() };
        let (entry, data) = if let Some((path, link)) = cut(b" -> ") {
            (Entry { kind: EntryKind::Symlink, path, link, ..plain }, Vec::new())
        } else if let Some((path, link)) = cut(b" => ") {
            (Entry { kind: EntryKind::HardLink, path, link, ..plain }, Vec::new())
        } else if let Some((path, text)) = cut(b" = ") {
            (Entry { kind: EntryKind::File, path, size: text.len() as u64, ..plain }, text)
        } else {
            (Entry { kind: EntryKind::Directory, path: entry.to_vec(), ..plain }, Vec::new())
        };
        tar.start(&entry).unwrap();
        tar.data(&data).unwrap();
    }
    tar.finish().unwrap();
    bytes
}

fn image() -> Vec<Vec<u8>> {
    vec![
        layer(&[
            b"usr/",
            b"usr/lib/",
            b"usr/lib/a = 1",
            b"lib -> usr/lib",
            b"abs -> /usr/lib/a",
            b"deep/",
            b"deep/er/",
            b"deep/er/old = 1",
            b"deep/er/kept = 1",
            b"again = 1",
            b"one = 1",
            b"two => one",
            b"dir/",
            b"dir/in = 1",
            b"file = 1",
            b"back = 1",
            b"moved/",
            b"moved/x = 1",
            b"name-\xff\xfe = 1",
            b"odd -> \xff",
            b"loop -> loop",
        ]),
        layer(&[
            b"deep/",
            b"deep/er/",
            b"deep/er/.wh..wh..opq = ",
            b"deep/er/new = 2",
            b".wh.again = ",
            b"one = 2",
            b".wh.dir = ",
            b"dir = 2",
            b"file/",
            b"file/in = 2",
            b".wh.back = ",
            b".wh.moved = ",
            b"moved -> deep",
        ]),
        layer(&[b"again = 3", b"usr/lib/a = 3", b"deep/er/old = 3", b"back/", b"back/in = 3", b"file/in = 3"]),
    ]
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Path, what is said of it, and the layers that say something of it, topmost first.
type Case = (&'static [u8], &'static str, &'static [(usize, Say)]);
const CASES: [Case; 27] = [
    (b"/", "a directory merged of 3 layers", &[(3, Say::Merged), (2, Say::Merged), (1, Say::Added)]),
    (b"/usr/lib/a", "it comes from layer 3; nothing was copied", &[(3, Say::Changed), (1, Say::Added)]),
    (b"//usr/./lib/../lib/a", "it comes from layer 3; nothing was copied", &[(3, Say::Changed), (1, Say::Added)]),
    (
        b"/lib/a",
        "/lib -> usr/lib, so it is /usr/lib/a: it comes from layer 3; nothing was copied",
        &[(3, Say::Changed), (1, Say::Added)],
    ),
    (b"/lib", "it comes from layer 1; nothing was copied", &[(1, Say::Added)]),
    (
        b"/lib/",
        "/lib -> usr/lib, so it is /usr/lib: a directory merged of 2 layers",
        &[(3, Say::Merged), (1, Say::Added)],
    ),
    (b"/abs/x", "/abs -> /usr/lib/a, so it is /usr/lib/a/x: it is not there: /usr/lib/a is no directory", &[]),
    (b"/usr/lib/a/", "it is not there: /usr/lib/a is no directory", &[(3, Say::Changed), (1, Say::Added)]),
    (
        b"/lib/../../usr",
        "/lib -> usr/lib, so it is /usr: a directory merged of 2 layers",
        &[(3, Say::Merged), (1, Say::Added)],
    ),
    (b"/deep/er/kept", "it is not there: layer 2 emptied /deep/er", &[(2, Say::DeletedByOpaque), (1, Say::Added)]),
    (
        b"/deep/er/old",
        "it comes from layer 3; nothing was copied",
        &[(3, Say::Added), (2, Say::DeletedByOpaque), (1, Say::Added)],
    ),
    (b"/deep/er/new", "it comes from layer 2; nothing was copied", &[(2, Say::Added)]),
    (b"/deep/er", "a directory merged of 2 layers", &[(3, Say::Merged), (2, Say::Added), (1, Say::Added)]),
    (
        b"/again",
        "it comes from layer 3; nothing was copied",
        &[(3, Say::Added), (2, Say::DeletedByWhiteout), (1, Say::Added)],
    ),
    (b"/one", "it comes from layer 2; nothing was copied", &[(2, Say::Changed), (1, Say::Added)]),
    (b"/two", "it comes from layer 1; nothing was copied", &[(1, Say::Added)]),
    (b"/dir", "it comes from layer 2; nothing was copied", &[(2, Say::Changed), (1, Say::Added)]),
    (
        b"/dir/in",
        "it is not there: layer 2 put something else in place of /dir",
        &[(2, Say::DeletedByReplacement), (1, Say::Added)],
    ),
    (b"/file", "a directory merged of 2 layers", &[(3, Say::Merged), (2, Say::Changed), (1, Say::Added)]),
    (b"/file/in", "it comes from layer 3; nothing was copied", &[(3, Say::Changed), (2, Say::Added)]),
    (
        b"/back",
        "it comes from layer 3; nothing was copied",
        &[(3, Say::Added), (2, Say::DeletedByWhiteout), (1, Say::Added)],
    ),
    (b"/moved/x", "/moved -> deep, so it is /deep/x: no layer has ever had it", &[]),
    (
        b"/moved/er/new",
        "/moved -> deep, so it is /deep/er/new: it comes from layer 2; nothing was copied",
        &[(2, Say::Added)],
    ),
    (b"/name-\xff\xfe", "it comes from layer 1; nothing was copied", &[(1, Say::Added)]),
    (b"/odd", "it comes from layer 1; nothing was copied", &[(1, Say::Added)]),
    (b"/odd/x", "/odd -> \\xff, so it is /\\xff/x: no layer has ever had it", &[]),
    (b"/nowhere/x", "no layer has ever had it", &[]),
];

fn said(story: &PathStory) -> Vec<(usize, Say)> {
    story.versions.iter().map(|version| (version.layer.unwrap_or(0), version.what)).collect()
}

/// S-080, S-102: each case against a mount of the layers, where the kernel says whether something is there.
#[test]
fn s080_paths_are_explained_as_the_kernel_follows_them() {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("odd:1", &image()).archive()).unwrap();
    let image = fixture.store.get("odd:1").unwrap();
    let rootfs = fixture.store.prepare("c", &image, false).unwrap();
    let mount = rootfs.mount_detached().unwrap();
    let root = berth_rootfs::RootDir::new(mount);
    for (asked, verdict, versions) in CASES {
        let shown = String::from_utf8_lossy(asked);
        let story = fixture.store.explain_path(&image, None, path(asked), &[]).unwrap();
        assert_eq!((story.verdict.as_str(), said(&story).as_slice()), (verdict, versions), "{shown}");
        let resolved = story.leads_to.as_deref().unwrap_or(path(asked));
        let is_directory_wanted = asked.len() > 1 && asked.ends_with(b"/");
        let seen = root.lstat(resolved.strip_prefix("/").unwrap()).is_ok_and(|stat| {
            !is_directory_wanted || rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
        });
        assert_eq!(story.is_there, seen, "{shown}: as the kernel sees it");
        let json = serde_json::to_value(&story).unwrap();
        assert!(json["path"].is_string(), "{json}");
    }
    for (asked, why) in [
        (&b"relative"[..], "relative is not absolute"),
        (b"/loop/x", "/loop/x leads through more than 40 links"),
        (b"/nowhere/../usr", "goes up again from /nowhere"),
        (b"/again/../usr", "goes up again from /again"),
    ] {
        let error = fixture.store.explain_path(&image, None, path(asked), &[]).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// S-102: in a container: copies made by the overlay, files made anew, what is mounted over a path, also through a link and one in another.
#[test]
fn s102_paths_of_a_container() {
    let fixture = Fixture::new();
    fixture.load(&Docker::new("odd:1", &image()).archive()).unwrap();
    let image = fixture.store.get("odd:1").unwrap();
    let rootfs = fixture.store.prepare("c", &image, false).unwrap();
    let mount = rootfs.mount_detached().unwrap();
    let at = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    let append = |name: &str| {
        use std::io::Write as _;
        let file = std::fs::OpenOptions::new().append(true).open(at.join(name));
        file.unwrap().write_all(b"more").unwrap();
    };
    append("usr/lib/a");
    append("two");
    std::fs::remove_file(at.join("again")).unwrap();
    std::fs::write(at.join("again"), "anew").unwrap();
    std::fs::write(at.join("own"), "1").unwrap();
    std::fs::remove_dir_all(at.join("back")).unwrap();
    drop(mount);
    let volume = |destination: &str, what: &str| MountPoint {
        destination: destination.into(),
        what: what.to_owned(),
        is_kept: true,
    };
    let mounts =
        [volume("/lib", "volume libs"), volume("/usr/lib/sub", "volume sub"), volume("/deep/er/new", "a file")];
    for (asked, verdict) in [
        ("/usr/a", "no layer has ever had it"),
        ("/again", "the container has its own in place of the image's"),
        // A copy of a file with two names breaks the tie, and the kernel does not note what it is of.
        ("/two", "the container has its own in place of the image's"),
        ("/one", "it comes from layer 2; nothing was copied"),
        ("/own", "the container made it"),
        ("/back/in", "it is not there: the container deleted /back"),
        ("/usr/lib/a", "it is in volume libs, mounted at /usr/lib; what layers have there is not seen"),
        (
            "/lib/a",
            "/lib -> usr/lib, so it is /usr/lib/a: it is in volume libs, mounted at /usr/lib; what layers have there is not seen",
        ),
        ("/usr/lib/sub/x/y", "it is in volume sub, mounted at /usr/lib/sub; what layers have there is not seen"),
        ("/deep/er/new", "it is in a file, mounted at /deep/er/new; what layers have there is not seen"),
        ("/deep/er", "a directory merged of 2 layers"),
    ] {
        let story = fixture.store.explain_path(&image, Some(&rootfs), Path::new(asked), &mounts).unwrap();
        assert_eq!(story.verdict, verdict, "{asked}");
        assert_eq!(story.mounted.is_some(), story.verdict.contains("mounted at"), "{asked}");
    }
    let copied = fixture.store.explain_path(&image, Some(&rootfs), Path::new("/usr/lib/a"), &[]).unwrap();
    assert_eq!(copied.verdict, "the container has its own copy, made when it changed it");
}
