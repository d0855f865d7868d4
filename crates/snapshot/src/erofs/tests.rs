use std::path::PathBuf;
use std::process::Command;

use super::*;

fn attributes(mode: u32) -> NodeAttributes {
    NodeAttributes { mode, mtime_seconds: 1_700_000_000, mtime_nanoseconds: 5, ..NodeAttributes::default() }
}

fn write(image: &mut ErofsWriter, name: &[u8], size: u64, pieces: &[(u64, &[u8])]) -> NodeId {
    let node = image.add(image.root(), name, NodeKind::File, attributes(0o644), 0);
    image.begin_data(node, size).unwrap();
    for (offset, bytes) in pieces {
        image.data(*offset, bytes).unwrap();
    }
    image.end_data().unwrap();
    node
}

/// The peer's checker, from Debian's erofs-utils.
fn fsck(image: &std::path::Path) -> std::process::Output {
    let peers = std::env::var_os("BERTH_PEERS").map_or_else(|| PathBuf::from("target/peers"), PathBuf::from);
    let tool = peers.join("root/usr/bin/fsck.erofs");
    let library = peers.join("root/usr/lib/x86_64-linux-gnu");
    let tool = if tool.exists() { tool } else { PathBuf::from("fsck.erofs") };
    Command::new(tool).arg(image).env("LD_LIBRARY_PATH", library).output().expect("fsck.erofs (erofs-utils) is needed")
}

/// S-085: Debian's fsck.erofs finds our images clean: many names, deep and large files, holes, links, attributes.
#[test]
fn s085_images_are_clean_for_erofs_utils() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let mut image = ErofsWriter::new(File::create(&path).unwrap(), &ImageMemory::default()).unwrap();
    let root = image.root();
    for n in 0..700 {
        let name = format!("{n:03}-{}", "x".repeat(n % 200));
        write(&mut image, name.as_bytes(), n as u64 % 5, &[(0, &[7; 5][..n % 5])]);
    }
    let large = write(&mut image, b"large", 300_000, &[(0, &[1; 200_000]), (200_000, &[2; 100_000])]);
    write(&mut image, b"holes", 1 << 20, &[(5000, b"near the start"), (900_000, b"near the end")]);
    write(&mut image, b"all hole", 10 << 20, &[]);
    write(&mut image, b"huge", 300 << 30, &[(7, b"a"), (150 << 30, b"b")]);
    write(&mut image, b"empty", 0, &[]);
    image.add_name(root, b"large too", large);
    for n in 0..50 {
        image.add_link(root, format!("link-{n}").as_bytes(), "t".repeat(80 * n + 1).as_bytes(), attributes(0o777));
    }
    let mut at = root;
    for depth in 0..40 {
        at = image.add(at, format!("d{depth}").as_bytes(), NodeKind::Directory, attributes(0o750), 0);
        image.set_xattr(at, b"trusted.overlay.opaque", b"y");
        image.set_xattr(at, b"user.long", &vec![b'v'; 100 * depth]);
    }
    image.add(root, b"null", NodeKind::CharDevice, attributes(0o666), rustix::fs::makedev(1, 3));
    image.add(root, b"disk", NodeKind::BlockDevice, attributes(0o660), rustix::fs::makedev(259, 70_000));
    // Replaced: the first is gone.
    write(&mut image, b"empty", 3, &[(0, b"now")]);
    let bytes = image.finish().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
    let checked = fsck(&path);
    assert!(checked.status.success(), "{checked:?}");
    assert!(bytes < 64 << 20, "{bytes}: holes are not stored");
}

/// The same nodes give the same image.
#[test]
fn images_are_reproducible() {
    let make = || {
        let file = tempfile::tempfile().unwrap();
        let mut image = ErofsWriter::new(file.try_clone().unwrap(), &ImageMemory::default()).unwrap();
        write(&mut image, b"a", 3, &[(0, b"abc")]);
        image.finish().unwrap();
        let mut bytes = Vec::new();
        std::os::unix::fs::FileExt::read_at(&file, &mut [0; 1], 0).unwrap();
        std::io::Read::read_to_end(
            &mut {
                let mut f = file;
                f.seek(SeekFrom::Start(0)).unwrap();
                f
            },
            &mut bytes,
        )
        .unwrap();
        bytes
    };
    assert_eq!(make(), make());
}
