//! `fsck --repair` and what clients of containerd's API run on.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use berth_testkit::{Instance, wait_until};

use super::{BUSYBOX, ctr_exec, ctr_run, fifo_dir, tasks::task};

/// S-087, S-115: a damaged layer below a client's container is told with the container's name and is not made anew under it; nor under a snapshot that a
/// client may have mounted; when they are gone, it is.
#[test]
fn s087_layers_of_clients_containers_are_not_made_anew() {
    // Its layers can be written to behind the engine's back.
    let instance = Instance::start_with(&["--snapshotter", "overlay"]);
    let archive = berth_testkit::Image::busybox().docker_archive();
    instance.load(&archive).ok();
    let file = instance.directory.join("busybox.tar");
    fs::write(&file, &archive).unwrap();
    instance.ctr(&["-n", "other", "images", "import", "--no-unpack", file.to_str().unwrap()]).ok();
    ctr_run(&instance, &["-d"], "web", &["sleep", "1000"]).ok();
    let (fifos, group) = (fifo_dir(&instance), super::cgroup(&instance, "far"));
    let run = ["-n", "other", "run", "-d", "--fifo-dir", &fifos, "--cgroup", &group, BUSYBOX, "far", "sleep", "1000"];
    instance.ctr(&run).ok();

    let layers = instance.berth(&["image", "layers", "--json", "busybox"]).ok().to_owned();
    let layers: serde_json::Value = serde_json::from_str(&layers).unwrap();
    let directory = Path::new(layers[0]["directory"].as_str().unwrap()).to_owned();
    let inode = || fs::metadata(&directory).unwrap().ino();
    let (before, damaged) = (inode(), directory.join("bin/busybox"));
    let mut bytes = fs::read(&damaged).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(directory.join("bin/spoilt"), &bytes).unwrap();
    fs::set_permissions(directory.join("bin/spoilt"), fs::metadata(&damaged).unwrap().permissions()).unwrap();
    fs::rename(directory.join("bin/spoilt"), &damaged).unwrap();

    let on_it = |who: &str| {
        let checked = instance.berth(&["fsck", "--repair"]);
        assert_eq!(checked.code, 1, "{checked:?}");
        assert!(checked.stdout.contains("/bin/busybox: its bytes differ near"), "{checked:?}");
        assert!(checked.stdout.contains(who), "{who}: {checked:?}");
        assert_eq!(inode(), before, "{who}: the layer was made anew");
        checked.stdout
    };
    let both = on_it("container web of namespace default is on it");
    assert!(both.contains("container far of namespace other is on it"), "{both}");
    assert_eq!(ctr_exec(&instance, "web", "e1", &["echo", "alive"]).ok(), "alive");
    instance.ctr(&["tasks", "kill", "-s", "KILL", "web"]).ok();
    wait_until("web ends", || task(&instance, "web").is_some_and(|(_, status)| status == "STOPPED").then_some(()));
    instance.ctr(&["tasks", "rm", "web"]);
    let other = on_it("container far of namespace other is on it");
    assert!(!other.contains("container web"), "without a task nothing of it is mounted: {other}");
    instance.ctr(&["-n", "other", "tasks", "rm", "-f", "far"]).ok();

    let top = instance
        .ctr(&["snapshots", "ls"])
        .ok()
        .lines()
        .find(|line| line.contains("Committed"))
        .map(|line| line.split_whitespace().next().unwrap().to_owned());
    instance.ctr(&["snapshots", "prepare", "mine", &top.unwrap()]).ok();
    on_it("snapshot \"mine\", which its client may have mounted, of namespace default is on it");
    instance.ctr(&["snapshots", "rm", "mine"]).ok();
    assert!(instance.berth(&["fsck", "--repair"]).ok().contains("(unpacked again from its blob)"));
    assert!(instance.berth(&["fsck"]).ok().ends_with("all in order"));
    assert_eq!(instance.berth(&["run", "--rm", "busybox", "echo", "again"]).ok(), "again");
    for words in [&["containers", "rm", "web"][..], &["-n", "other", "containers", "rm", "far"]] {
        instance.ctr(words).ok();
    }
}

/// S-087, S-115: a start that finds a layer damaged makes it anew beside the one that a client's container runs on.
#[test]
fn s087_a_start_does_not_take_a_clients_layer_away() {
    let instance = Instance::start_with(&["--snapshotter", "overlay"]);
    let archive = berth_testkit::Image::busybox().docker_archive();
    instance.load(&archive).ok();
    let file = instance.directory.join("busybox.tar");
    fs::write(&file, &archive).unwrap();
    instance.ctr(&["images", "import", file.to_str().unwrap()]).ok();
    ctr_run(&instance, &["-d"], "web", &["sleep", "1000"]).ok();
    let layers = instance.berth(&["image", "layers", "--json", "busybox"]).ok().to_owned();
    let layers: serde_json::Value = serde_json::from_str(&layers).unwrap();
    let directory = Path::new(layers[0]["directory"].as_str().unwrap()).to_owned();
    let store = instance.root().join("snapshots/overlay");
    let count = |name: &str| fs::read_dir(store.join(name)).unwrap().count();

    let before = fs::metadata(&directory).unwrap().ino();
    fs::write(directory.join("came-later"), "").unwrap();
    assert_eq!(instance.berth(&["run", "--rm", "busybox", "ls", "/came-later"]).code, 1);
    assert_ne!(fs::metadata(&directory).unwrap().ino(), before, "it was made anew");
    wait_until("the trash is empty", || (count("trash") == 0).then_some(()));
    assert_eq!(ctr_exec(&instance, "web", "e1", &["echo", "alive"]).ok(), "alive");
    assert_eq!(count("replaced"), 1);
    instance.ctr(&["tasks", "rm", "-f", "web"]).ok();
    instance.ctr(&["containers", "rm", "web"]).ok();
    wait_until("the old copy is let go", || (count("replaced") == 0).then_some(()));
}
