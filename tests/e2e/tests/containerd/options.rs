//! What clients of runc's shim ask it for by its options, and our own does in its place.

use std::os::unix::fs::MetadataExt as _;

use berth_containerd_api::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_containerd_api::containerd::services::snapshots::v1::{MountsRequest, PrepareSnapshotRequest};
use berth_testkit::Instance;

use super::client::{Client, block_on};
use super::{ctr_exec, ctr_run};

/// S-138: the pipes are the container's users' (`io_uid`, `io_gid`), so root of a user namespace opens them again; and a root file system that
/// the client has given to those users is not given to them once more.
#[test]
fn s138_pipes_and_files_of_a_user_namespace() {
    let instance = Instance::with_busybox();
    let again = "echo out > /proc/self/fd/1; echo err > /proc/self/fd/2; : < /proc/self/fd/0";
    let mapped = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let script = format!("{again}; stat -c %u:%g /bin; touch /made; stat -c %u:%g /made");
    let ran = ctr_run(&instance, &[&mapped[..], &["--rm"]].concat(), "c1", &["sh", "-c", &script]);
    assert_eq!((ran.ok(), ran.stderr.as_str()), ("out\n0:0\n0:0", "err\n"));
    ctr_run(&instance, &[&mapped[..], &["-d"]].concat(), "c2", &["sleep", "1000"]).ok();
    let joined = ctr_exec(&instance, "c2", "e1", &["sh", "-c", again]);
    assert_eq!((joined.ok(), joined.stderr.as_str()), ("out", "err\n"));
    instance.berth(&["rm", "-f", "c2"]).ok();
}

/// S-138: `no_pivot_root` makes a container as well.
#[test]
fn s138_no_pivot() {
    let instance = Instance::with_busybox();
    assert_eq!(ctr_run(&instance, &["--rm", "--no-pivot"], "c1", &["ls", "/bin/busybox"]).ok(), "/bin/busybox");
}

/// S-138, S-115: labels of a snapshot map its layers (`remap-ids`): the mounts say so, the writable directory is its users'. With a snapshotter that
/// cannot have it (whole trees, mounts that only descriptors lead to) it is refused, and not among the capabilities.
#[test]
fn s138_labels_map_the_layers() {
    for (snapshotter, is_able) in [("overlay", true), ("erofs", false), ("native", false)] {
        let instance = Instance::start_with(&["--snapshotter", snapshotter]);
        instance.load(&berth_testkit::Image::busybox().docker_archive()).ok();
        let listed = instance.ctr(&["plugins", "ls", "-d", "id==overlayfs"]);
        assert_eq!(listed.ok().contains("remap-ids"), is_able, "{snapshotter}: {listed:?}");
        let images = instance.berth(&["image", "layers", "--json", "busybox"]).ok().to_owned();
        let images: serde_json::Value = serde_json::from_str(&images).unwrap();
        let parent = images[0]["diff_id"].as_str().unwrap().to_owned();
        let prepare = |key: &str, uids: &str| PrepareSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            key: key.to_owned(),
            parent: parent.clone(),
            labels: [("uid", uids), ("gid", "0:200000:65536")]
                .map(|(kind, text)| (format!("containerd.io/snapshot/{kind}mapping"), text.to_owned()))
                .into(),
        };
        block_on(async {
            let client = Client::connect(&instance, "default").await;
            let mut snapshots = SnapshotsClient::new(client.channel.clone());
            let bad = snapshots.prepare(client.request(prepare("bad", "0:100000"))).await.unwrap_err();
            assert_eq!(bad.code(), tonic::Code::InvalidArgument, "{bad:?}");
            let made = snapshots.prepare(client.request(prepare("mine", "0:100000:65536"))).await;
            if !is_able {
                assert_eq!(made.unwrap_err().code(), tonic::Code::Unimplemented, "{snapshotter}");
                return;
            }
            let mounts = made.unwrap().into_inner().mounts;
            let has = |option: &str| mounts[0].options.iter().any(|found| found == option);
            assert!(has("uidmap=0:100000:65536") && has("gidmap=0:200000:65536"), "{mounts:?}");
            let upper = mounts[0].options.iter().find_map(|option| option.strip_prefix("upperdir=")).unwrap();
            let found = std::fs::metadata(upper).unwrap();
            assert_eq!((found.uid(), found.gid()), (100_000, 200_000));
            let ask = MountsRequest { snapshotter: "overlayfs".to_owned(), key: "mine".to_owned() };
            assert_eq!(snapshots.mounts(client.request(ask)).await.unwrap().into_inner().mounts, mounts);
        });
    }
}

/// S-138, S-115: `--remap-labels` of containerd's client: no file is copied or given to anybody, what the container makes is its users' on the host. Clients
/// before 2.0 do not know the mounts.
#[test]
fn s138_containers_on_layers_that_labels_map() {
    let mapped = ["--remap-labels", "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let instance = Instance::start_with(&["--snapshotter", "overlay"]);
    if !instance.ctr(&["--version"]).ok().contains("/v2 ") {
        println!("does not apply: containerd's clients know id-mapped mounts from 2.0 on (make compat has them)");
        return;
    }
    instance.load(&berth_testkit::Image::busybox().docker_archive()).ok();
    let ran = ctr_run(&instance, &[&mapped[..], &["-d"]].concat(), "c1", &["sleep", "1000"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let mounts = instance.ctr(&["snapshots", "mounts", "/x", "c1"]).ok().to_owned();
    assert!(mounts.contains("uidmap=0:100000:65536") && mounts.contains("gidmap=0:200000:65536"), "{mounts}");
    let seen = ctr_exec(&instance, "c1", "e1", &["sh", "-c", "touch /made; stat -c %u:%g / /bin/busybox /made"]);
    assert_eq!(seen.ok(), "0:0\n0:0\n0:0");
    let upper = mounts.split("upperdir=").nth(1).unwrap().split([',', ' ', '\n']).next().unwrap();
    assert!(!std::path::Path::new(upper).join("bin").exists(), "nothing was copied");
    let made = std::fs::metadata(std::path::Path::new(upper).join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (100_000, 200_000));
    instance.berth(&["rm", "-f", "c1"]).ok();
}
