//! What a container is: an ordinary process on an image's files, isolated and limited (checklist 1.1 and 1.10).

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use berth_testkit::{Image, Instance};

/// S-001: one kernel, an ordinary child process, no machine monitor.
#[test]
fn s001_light_virtualisation() {
    let berth = Instance::with_busybox();
    let inside = berth.busybox(&[], &["uname", "-r"]);
    assert_eq!(inside.ok(), fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim());
    berth.sleeper("c1", &[]);
    let pid = berth.pid("c1");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim(), "sleep");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().to_owned();
    let parent = fs::read_to_string(format!("/proc/{parent}/comm")).unwrap();
    assert!(parent.starts_with("berth-shim"), "the parent is the shim, not {parent}");
}

/// S-002: the image lies on the disk: blobs by digest, and a size that `du` agrees with.
#[test]
fn s002_image_lies_on_disk() {
    let berth = Instance::with_busybox();
    let blobs: Vec<_> = fs::read_dir(berth.root().join("content/blobs/sha256"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    let id = berth.berth(&["image", "inspect", "--format", "{{.Id}}", "busybox"]).ok().to_owned();
    assert!(blobs.contains(&id.strip_prefix("sha256:").unwrap().to_owned()), "{id} is one of {blobs:?}");
    let size: u64 = berth.berth(&["image", "inspect", "--format", "{{.Size}}", "busybox"]).ok().parse().unwrap();
    let layers = berth.root().join("snapshots");
    let mut on_disk = 0;
    let mut pending = vec![layers];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let metadata = fs::symlink_metadata(entry.path()).unwrap();
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.is_file() {
                let path = entry.path();
                let is_layer = path.extension().is_some_and(|name| name == "erofs");
                if is_layer || path.components().any(|c| c.as_os_str() == "bin") {
                    on_disk += metadata.size();
                }
            }
        }
    }
    // Unpacked files, or one file for the layer with its directories and padding.
    assert!(size.abs_diff(on_disk) < 96 << 10, "inspect says {size}, the disk {on_disk}");
}

/// S-003, S-151: create makes the object, visible to others, without a process; start makes the process on the image's files.
#[test]
fn s003_create_then_start() {
    let berth = Instance::with_busybox();
    berth.berth(&["create", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    assert_eq!(berth.inspect("c1", "{{.State.Status}} {{.State.Pid}}"), "created 0");
    assert!(berth.docker(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok().contains("c1 created"));
    berth.berth(&["start", "c1"]).ok();
    let pid = berth.pid("c1");
    assert!(fs::read_dir(format!("/proc/{pid}/root/bin")).unwrap().flatten().any(|e| e.file_name() == "busybox"));
    assert_eq!(berth.inspect("c1", "{{.State.Status}}"), "running");
}

/// S-005: inspect shows the kernel's namespaces and cgroups, and they are true.
#[test]
fn s005_isolated_and_limited() {
    let berth = Instance::with_busybox();
    berth.sleeper("c1", &["-m", "64m"]);
    let pid = berth.pid("c1");
    for ns in ["mnt", "uts", "pid", "net", "ipc", "user", "cgroup", "time"] {
        let link = fs::read_link(format!("/proc/{pid}/ns/{ns}")).unwrap();
        let inode: String = link.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        assert_eq!(berth.inspect("c1", &format!("{{{{.Berth.Namespaces.{ns}}}}}")), inode, "{ns}");
    }
    let cgroups = berth.inspect("c1", "{{json .Berth.Cgroups}}");
    let proc = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let memory = proc.lines().find_map(|l| l.split_once(":memory:").map(|(_, path)| path));
    if let Some(path) = memory {
        assert!(cgroups.contains(path), "{path} is in {cgroups}");
    }
    assert!(proc.contains(&berth.cgroup_parent()), "{proc}");
}

/// S-006: busybox from both kinds of archives, plain and compressed.
#[test]
fn s006_busybox_from_archives() {
    let berth = Instance::start();
    let image = Image::busybox();
    for (archive, name) in [
        (image.docker_archive(), "busybox:latest"),
        (image.oci_archive(), "busybox:latest"),
        (berth_testkit::archive::gzip(&image.docker_archive()), "busybox:latest"),
    ] {
        let loaded = berth.load(&archive);
        assert!(loaded.ok().contains(&format!("Loaded image: {name}")), "{loaded:?}");
        assert_eq!(berth.busybox(&[], &["echo", "hello"]).ok(), "hello");
        berth.berth(&["rmi", "busybox"]).ok();
        assert_eq!(berth.berth(&["images", "-q"]).ok(), "");
    }
}

/// S-150, S-152, S-153, S-154: the trace names the parties and the steps of the workflow in order.
#[test]
fn s150_trace_shows_the_parties_in_order() {
    let berth = Instance::with_busybox();
    berth.berth(&["run", "--name", "c1", "--trace=json", "busybox", "true"]).ok();
    let spans = berth.berth(&["run", "--rm", "--trace=json", "busybox", "true"]);
    let text = format!("{}{}", spans.stdout, spans.stderr);
    let order = ["metadata.create", "shim.start", "task.create", "task.start"];
    let places: Vec<usize> = order
        .iter()
        .map(|name| text.find(&format!("\"{name}\"")).unwrap_or_else(|| panic!("{name} is in {text}")))
        .collect();
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{order:?} at {places:?}");
    for party in ["engine", "runtime"] {
        assert!(
            text.contains(&format!("\"party\":\"{party}\"")) || text.contains(&format!("\"party\": \"{party}\"")),
            "{party} in {text}"
        );
    }
}

/// `--plan` tells every step and changes nothing.
#[test]
fn plan_changes_nothing() {
    let berth = Instance::with_busybox();
    let plan = berth.berth(&["run", "--plan", "--name", "planned", "-m", "64m", "--read-only", "busybox", "true"]);
    let text = plan.ok();
    for word in ["mount-rootfs", "memory", "--read-only"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    assert_eq!(berth.berth(&["ps", "-aq"]).ok(), "");
}
