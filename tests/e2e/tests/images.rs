//! Layers and what a container makes of them (checklist 1.6 and 1.7), through the command line.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;

use berth_testkit::{Image, Instance, LayerFile};

fn three_layers() -> Image {
    let mut image = Image::busybox();
    image.reference = "three:latest".to_owned();
    image
        .layer(vec![LayerFile::directory("d"), LayerFile::text("d/two", "2"), LayerFile::text("shared", "second")])
        .layer(vec![LayerFile::text("d/three", "3"), LayerFile::text("shared", "third")])
}

fn upper(berth: &Instance, container: &str) -> PathBuf {
    berth.inspect(container, "{{.GraphDriver.Data.UpperDir}}").into()
}

fn lowers(berth: &Instance, container: &str) -> Vec<PathBuf> {
    berth.inspect(container, "{{.GraphDriver.Data.LowerDir}}").split(':').map(PathBuf::from).collect()
}

/// S-080, S-083, S-095: three layers, three directories, one view; every container has its own upper.
#[test]
fn s080_layers_are_one_view() {
    let berth = Instance::start();
    berth.load(&three_layers().docker_archive()).ok();
    for name in ["a1", "b1"] {
        berth.berth(&["run", "-d", "--name", name, "three", "sleep", "1000"]).ok();
    }
    assert_eq!(
        berth.berth(&["exec", "a1", "sh", "-c", "cat /d/two /d/three /shared; ls /bin/busybox"]).ok(),
        "23third/bin/busybox"
    );
    let layers = lowers(&berth, "a1");
    assert_eq!(layers.len(), 3);
    let holders = |path: &str| -> Vec<usize> {
        layers.iter().enumerate().filter(|(_, l)| l.join(path).exists()).map(|(n, _)| n).collect()
    };
    assert_eq!((holders("d/three"), holders("d/two"), holders("bin/busybox")), (vec![0], vec![1], vec![2]));
    assert_eq!(holders("shared"), [0, 1]);
    assert_eq!(lowers(&berth, "b1"), layers, "lowers are shared");
    assert_ne!(upper(&berth, "a1"), upper(&berth, "b1"), "uppers are not");
    assert_eq!(berth.berth(&["diff", "a1"]).ok(), "", "a new container has changed nothing");
}

/// S-082: an image that shares its base stores only the rest.
#[test]
fn s082_layers_are_shared() {
    let berth = Instance::with_busybox();
    let count = || fs::read_dir(berth.root().join("content/blobs/sha256")).unwrap().count();
    let before = count();
    let loaded = berth.load(&three_layers().docker_archive());
    loaded.ok();
    // Two layers, a config and a manifest; the base is there already.
    assert_eq!(count(), before + 4, "{loaded:?}");
    berth.berth(&["rmi", "busybox"]).ok();
    assert_eq!(
        berth.berth(&["run", "--rm", "three", "cat", "/d/two"]).ok(),
        "2",
        "the base stays while somebody uses it"
    );
}

/// S-090 to S-093, S-097, S-098: reading leaves the upper alone; writing copies up once; lowers never change.
#[test]
fn s092_copy_up() {
    let berth = Instance::start();
    berth.load(&three_layers().docker_archive()).ok();
    berth.berth(&["run", "-d", "--name", "c1", "three", "sleep", "1000"]).ok();
    let (upper, lower) = (upper(&berth, "c1"), lowers(&berth, "c1")[0].clone());
    berth.berth(&["exec", "c1", "sh", "-c", "cat /shared; stat /shared"]).ok();
    assert!(!upper.join("shared").exists(), "reading copies nothing");
    berth.berth(&["exec", "c1", "sh", "-c", "echo more >> /shared"]).ok();
    let copy = fs::metadata(upper.join("shared")).unwrap().ino();
    berth.berth(&["exec", "c1", "sh", "-c", "echo again >> /shared"]).ok();
    assert_eq!(fs::metadata(upper.join("shared")).unwrap().ino(), copy, "the second write goes to the same copy");
    assert_eq!(fs::read_to_string(lower.join("shared")).unwrap(), "third");
    assert_eq!(fs::read_to_string(upper.join("shared")).unwrap(), "thirdmore\nagain\n");
    assert_eq!(
        fs::read_dir(upper.with_file_name("work").join("work")).map_or(0, Iterator::count),
        0,
        "nothing stays in work"
    );
}

/// S-099 to S-102: a whiteout is a device 0/0, an opaque directory an attribute; both read as gone.
#[test]
fn s100_whiteouts() {
    let berth = Instance::start();
    berth.load(&three_layers().docker_archive()).ok();
    berth.berth(&["run", "-d", "--name", "c1", "three", "sleep", "1000"]).ok();
    berth.berth(&["exec", "c1", "sh", "-c", "rm /shared; rm -r /d; mkdir /d; touch /d/new"]).ok();
    let (upper, layers) = (upper(&berth, "c1"), lowers(&berth, "c1"));
    let whiteout = fs::symlink_metadata(upper.join("shared")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    let mut value = [0u8; 8];
    let length = rustix::fs::getxattr(upper.join("d"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..length], b"y");
    assert!(layers[0].join("shared").exists() && layers[1].join("d/two").exists(), "the layers still have them");
    assert_eq!(berth.berth(&["exec", "c1", "ls", "/d"]).ok(), "new");
    assert_ne!(berth.berth(&["exec", "c1", "stat", "/shared"]).code, 0);
    let diff = berth.berth(&["diff", "c1"]);
    let lines: Vec<&str> = diff.ok().lines().collect();
    for line in ["D /shared", "D /d/three", "D /d/two", "A /d/new", "C /d"] {
        assert!(lines.contains(&line), "{line} in {lines:?}");
    }
    // Export and import of the marks: the committed image has the same view.
    berth.berth(&["commit", "c1", "marked"]).ok();
    assert_eq!(berth.berth(&["run", "--rm", "marked", "sh", "-c", "ls /d; ls /shared 2>/dev/null"]).stdout, "new\n");
}

/// S-096, S-104, S-105, S-106: a file made by exec is in diff, in the upper directory and in the merged view.
#[test]
fn s104_exec_writes_are_seen() {
    let berth = Instance::with_busybox();
    berth.sleeper("c1", &[]);
    berth.berth(&["exec", "c1", "sh", "-c", "echo hi > /new"]).ok();
    assert_eq!(berth.berth(&["diff", "c1"]).ok(), "A /new");
    assert_eq!(fs::read_to_string(upper(&berth, "c1").join("new")).unwrap(), "hi\n");
    let of_image = berth.berth(&["image", "inspect", "--format", "{{.GraphDriver.Name}}", "busybox"]);
    assert_eq!(of_image.ok(), berth.inspect("c1", "{{.GraphDriver.Name}}"));
    let merged = PathBuf::from(berth.inspect("c1", "{{.GraphDriver.Data.MergedDir}}"));
    assert_eq!(fs::read_to_string(merged.join("new")).unwrap(), "hi\n");
    assert!(merged.join("bin/busybox").exists());
    let mut host: Vec<String> =
        fs::read_dir(&merged).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).collect();
    host.sort();
    let mut inside: Vec<String> =
        berth.berth(&["exec", "c1", "ls", "-A", "/"]).ok().lines().map(str::to_owned).collect();
    inside.sort();
    assert_eq!(host, inside);
}

/// S-084: commit adds one layer with just the change; the first ones are the same; config changes hold.
#[test]
fn s084_commit() {
    let berth = Instance::with_busybox();
    berth.sleeper("c1", &[]);
    berth.berth(&["exec", "c1", "sh", "-c", "echo made > /made; rm /etc/group"]).ok();
    berth
        .berth(&[
            "commit",
            "-a",
            "me",
            "-m",
            "why",
            "--change",
            "CMD [\"cat\", \"/made\"]",
            "--change",
            "ENV A=b",
            "c1",
            "img2:v1",
        ])
        .ok();
    assert_eq!(berth.berth(&["run", "--rm", "img2:v1"]).ok(), "made");
    assert_eq!(
        berth.berth(&["run", "--rm", "img2:v1", "sh", "-c", "echo $A; ls /etc"]).ok(),
        "b\nhostname\nhosts\npasswd\nresolv.conf"
    );
    let layers = |image: &str| -> Vec<String> {
        serde_json::from_str(berth.berth(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", image]).ok())
            .unwrap()
    };
    let (base, new) = (layers("busybox"), layers("img2:v1"));
    assert_eq!(new.len(), base.len() + 1);
    assert_eq!(new[..base.len()], base[..]);
    assert_eq!(berth.berth(&["image", "inspect", "--format", "{{.Author}} {{.Comment}}", "img2:v1"]).ok(), "me why");
    assert!(berth.berth(&["history", "img2:v1"]).ok().contains("why"));
    assert_eq!(berth.inspect("c1", "{{.State.Status}}"), "running", "unpaused again");
}

/// save and load: the same ids, several images, layers once; the stock client reads it too.
#[test]
fn save_and_load_round_trip() {
    let berth = Instance::with_busybox();
    berth.load(&three_layers().oci_archive()).ok();
    berth.berth(&["tag", "three", "copy:v2"]).ok();
    let ids = || {
        berth
            .berth(&["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])
            .ok()
            .lines()
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let before = ids();
    let file = berth.directory.join("saved.tar");
    berth.berth(&["save", "-o", file.to_str().unwrap(), "busybox", "three", "copy:v2"]).ok();
    for image in ["busybox", "three", "copy:v2"] {
        berth.berth(&["rmi", image]).ok();
    }
    assert!(ids().is_empty());
    assert_eq!(fs::read_dir(berth.root().join("content/blobs/sha256")).unwrap().count(), 0, "no blob without an image");
    berth.docker(&["load", "-q", "-i", file.to_str().unwrap()]).ok();
    assert_eq!(ids(), before);
    assert_eq!(berth.berth(&["run", "--rm", "copy:v2", "cat", "/d/two"]).ok(), "2");
}

/// import of a root file system; export of a container's.
#[test]
fn export_and_import() {
    let berth = Instance::with_busybox();
    berth.sleeper("c1", &[]);
    berth.berth(&["exec", "c1", "sh", "-c", "echo x > /x; rm /etc/group"]).ok();
    let file = berth.directory.join("root.tar");
    berth.berth(&["export", "-o", file.to_str().unwrap(), "c1"]).ok();
    berth.berth(&["import", "-c", "CMD [\"/bin/cat\", \"/x\"]", file.to_str().unwrap(), "flat:v1"]).ok();
    assert_eq!(berth.berth(&["run", "--rm", "flat:v1"]).ok(), "x");
    assert_eq!(
        berth.berth(&["run", "--rm", "flat:v1", "/bin/sh", "-c", "ls /etc/group 2>/dev/null; echo gone"]).ok(),
        "gone"
    );
}

/// cp in both directions, to a running and a stopped container, files and directories.
#[test]
fn copy_in_and_out() {
    let berth = Instance::with_busybox();
    let here = berth.directory.join("files");
    fs::create_dir_all(here.join("sub")).unwrap();
    fs::write(here.join("sub/f"), "content").unwrap();
    berth.sleeper("running", &[]);
    berth.berth(&["create", "--name", "stopped", "busybox", "cat", "/copied/sub/f"]).ok();
    for container in ["running", "stopped"] {
        berth.berth(&["cp", here.to_str().unwrap(), &format!("{container}:/copied")]).ok();
        let back = berth.directory.join(format!("back-{container}"));
        berth.berth(&["cp", &format!("{container}:/copied/sub/f"), back.to_str().unwrap()]).ok();
        assert_eq!(fs::read_to_string(&back).unwrap(), "content", "{container}");
    }
    assert_eq!(berth.berth(&["start", "-a", "stopped"]).ok(), "content");
    let missing = berth.berth(&["cp", "running:/no/such", here.to_str().unwrap()]);
    assert_eq!(missing.code, 125);
    assert!(missing.stderr.contains("/no/such"), "{missing:?}");
    // A link inside leads inside, never to the host (CVE-2018-15664 class).
    berth.berth(&["exec", "running", "ln", "-s", here.to_str().unwrap(), "/out"]).ok();
    let through = berth.berth(&["cp", "running:/out/sub/f", berth.directory.join("stolen").to_str().unwrap()]);
    assert_ne!(through.code, 0, "{through:?}");
}

/// tag, rmi, prune by Docker's rules.
#[test]
fn tags_and_removal() {
    let berth = Instance::with_busybox();
    berth.berth(&["tag", "busybox", "other:v1"]).ok();
    assert_eq!(berth.berth(&["images", "-q"]).ok().lines().collect::<std::collections::BTreeSet<_>>().len(), 1);
    let untagged = berth.berth(&["rmi", "other:v1"]);
    assert_eq!(untagged.ok(), "Untagged: other:v1");
    berth.sleeper("c1", &[]);
    let used = berth.berth(&["rmi", "busybox"]);
    assert_eq!(used.code, 125);
    assert!(used.stderr.contains("container"), "{used:?}");
    berth.berth(&["rm", "-f", "c1"]).ok();
    assert!(berth.berth(&["rmi", "busybox"]).ok().contains("Deleted: sha256:"));
    assert_eq!(berth.berth(&["rmi", "busybox"]).code, 125);
}
