//! Images, content, snapshots and leases by `ctr`.

use berth_testkit::Instance;

use super::{BUSYBOX, ctr_run, fifo_dir, rows};

fn names(instance: &Instance, tenant: &str) -> Vec<String> {
    let listed = instance.ctr(&["-n", tenant, "images", "ls", "-q"]);
    listed.ok().lines().map(str::to_owned).collect()
}

/// S-111, S-114 to S-117: what one tenant exports another imports, unpacks and runs; names, blobs and snapshots are its own.
#[test]
fn s116_export_import_run() {
    let instance = Instance::with_busybox();
    let archive = instance.directory.join("image.tar");
    let archive = archive.to_str().unwrap();
    instance.ctr(&["images", "export", archive, BUSYBOX]).ok();
    assert_eq!(names(&instance, "team"), [""; 0]);
    instance.ctr(&["-n", "team", "images", "import", archive]).ok();
    assert_eq!(names(&instance, "team"), [BUSYBOX]);
    let blobs = instance.ctr(&["-n", "team", "content", "ls", "-q"]);
    assert!(blobs.ok().lines().count() >= 3, "{blobs:?}");
    let snapshots = instance.ctr(&["-n", "team", "snapshots", "ls"]);
    assert_eq!(rows(snapshots.ok())[0].last(), Some(&"Committed"));
    let fifos = fifo_dir(&instance);
    let cgroup = super::cgroup(&instance, "c1");
    let run = ["-n", "team", "run", "--rm", "--fifo-dir", &fifos, "--cgroup", &cgroup];
    let words = [&run[..], &[BUSYBOX, "c1", "echo", "hello"]].concat();
    assert_eq!(instance.ctr(&words).ok(), "hello");
    let verified = blobs.ok().lines().next().unwrap();
    let info = instance.ctr(&["-n", "team", "content", "get", verified]);
    assert_eq!(info.code, 0, "{info:?}");
    instance.ctr(&["-n", "team", "images", "rm", "--sync", BUSYBOX]).ok();
    assert_eq!(names(&instance, "team"), [""; 0]);
    assert_eq!(names(&instance, "default"), [BUSYBOX], "the other tenant's stays");
    assert_eq!(ctr_run(&instance, &["--rm"], "c2", &["echo", "still"]).ok(), "still");
}

/// S-004: names given by one face are names in the other.
#[test]
fn s004_names_in_both_faces() {
    let instance = Instance::with_busybox();
    instance.ctr(&["images", "tag", BUSYBOX, "docker.io/library/bb:2"]).ok();
    let listed = instance.berth(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(listed.ok().lines().any(|line| line == "bb:2"), "{listed:?}");
    assert_eq!(instance.busybox(&[], &["true"]).code, 0);
    instance.berth(&["tag", "busybox", "third:1"]).ok();
    assert!(names(&instance, "default").contains(&"docker.io/library/third:1".to_owned()));
    instance.berth(&["rmi", "bb:2"]).ok();
    instance.ctr(&["images", "rm", "docker.io/library/third:1"]).ok();
    assert_eq!(names(&instance, "default"), [BUSYBOX]);
    instance.ctr(&["images", "label", BUSYBOX, "tier=base"]).ok();
    assert_eq!(instance.ctr(&["images", "ls", "-q", "labels.tier==base"]).ok(), BUSYBOX);
}

/// S-114: content by digest: written, labelled, read back; a wrong digest is refused and leaves nothing.
#[test]
fn s114_content() {
    let instance = Instance::start();
    let put = |digest: &str, bytes: &[u8]| {
        let size = bytes.len().to_string();
        let words = ["content", "ingest", "--expected-digest", digest, "--expected-size", &size, "ref-1"];
        berth_testkit::instance::run(instance.ctr_command(&words), bytes)
    };
    // sha256 of "hello\n"
    let digest = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let wrong = put(digest, b"other\n");
    assert!(wrong.code != 0, "{wrong:?}");
    assert_eq!(instance.ctr(&["content", "ls", "-q"]).ok(), "");
    put(digest, b"hello\n").ok();
    assert_eq!(instance.ctr(&["content", "get", digest]).ok(), "hello");
    instance.ctr(&["content", "label", digest, "a=b"]).ok();
    assert_eq!(instance.ctr(&["content", "ls", "-q", "labels.a==b"]).ok(), digest);
    assert_eq!(instance.ctr(&["-n", "other", "content", "ls", "-q"]).ok(), "");
    instance.ctr(&["content", "rm", digest]).ok();
    assert_eq!(instance.ctr(&["content", "ls", "-q"]).ok(), "");
}

/// S-115, S-116: snapshots by hand: prepare, mounts, commit, a view, usage, removal; a difference becomes a layer.
#[test]
fn s115_snapshots() {
    let instance = Instance::with_busybox();
    let listed = instance.ctr(&["content", "ls", "-q"]);
    assert!(listed.ok().lines().count() >= 3);
    let ages = instance.ctr(&["content", "ls"]);
    assert!(!ages.ok().contains("years"), "blobs of docker's images are as old as they are: {ages:?}");
    ctr_run(&instance, &["-d"], "web", &["sh", "-c", "echo new > /new; sleep 1000"]).ok();
    let mounts = instance.ctr(&["snapshots", "mounts", "/mnt", "web"]);
    assert!(mounts.ok().starts_with("mount -t overlay"), "{mounts:?}");
    let parent = rows(instance.ctr(&["snapshots", "ls"]).ok())
        .into_iter()
        .find(|row| row.last() == Some(&"Committed"))
        .map(|row| row[0].to_owned())
        .unwrap();
    instance.ctr(&["snapshots", "prepare", "mine", &parent]).ok();
    let twice = instance.ctr(&["snapshots", "prepare", "mine", &parent]);
    assert!(twice.code != 0 && twice.stderr.contains("exists"), "{twice:?}");
    instance.ctr(&["snapshots", "commit", "frozen", "mine"]).ok();
    instance.ctr(&["snapshots", "view", "look", "frozen"]).ok();
    let based = instance.ctr(&["snapshots", "rm", "frozen"]);
    assert!(based.code != 0, "{based:?}");
    let usage = instance.ctr(&["snapshots", "usage", "web"]);
    assert_eq!(rows(usage.ok())[0][0], "web");
    instance.ctr(&["snapshots", "rm", "look"]).ok();
    instance.ctr(&["snapshots", "rm", "frozen"]).ok();
    let layer = instance.ctr(&["snapshots", "diff", "web"]);
    assert_eq!(layer.code, 0, "{}", layer.stderr);
    let other = instance.ctr(&["snapshots", "--snapshotter", "native", "ls"]);
    assert!(other.code != 0 && other.stderr.contains("snapshotter not loaded: native"), "{other:?}");
    instance.berth(&["rm", "-f", "web"]).ok();
}
