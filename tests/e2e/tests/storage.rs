//! The stores behind the images: snapshotters, fsck, what is freed when, and where a path comes from.

#[path = "storage/damage.rs"]
mod damage;
#[path = "storage/disk_use.rs"]
mod disk_use;
#[path = "storage/explain.rs"]
mod explain;
#[path = "storage/hostile.rs"]
mod hostile;
#[path = "storage/memory.rs"]
mod memory;

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use berth_testkit::disk::SmallDisk;
use berth_testkit::registry::noise;
use berth_testkit::{Image, Instance, LayerFile, wait_until};

fn three_layers() -> Image {
    let mut image = Image::busybox();
    image.reference = "three:latest".to_owned();
    image
        .layer(vec![LayerFile::directory("d"), LayerFile::text("d/two", "2"), LayerFile::text("shared", "second")])
        .layer(vec![
            LayerFile::text("d/three", "3"),
            LayerFile::text("shared", "third"),
            LayerFile::text("d/.wh.two", ""),
        ])
}

fn count(path: &Path) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

/// S-085: a container runs, changes, is committed and runs again on a snapshotter that keeps whole trees; info names it.
#[test]
fn s085_containers_on_the_native_snapshotter() {
    containers_on("native");
}

/// S-085: the same where each layer is one mounted file, also after the daemon that held the mounts was killed.
#[test]
fn s085_containers_on_the_erofs_snapshotter() {
    containers_on("erofs");
    let mut berth = Instance::start_with(&["--snapshotter", "erofs"]);
    berth.load(&three_layers().docker_archive()).ok();
    berth.berth(&["run", "-d", "--name", "lives", "three", "sleep", "1000"]).ok();
    berth.kill_daemon();
    berth.spawn();
    assert_eq!(berth.berth(&["exec", "lives", "cat", "/d/three", "/shared"]).ok(), "3third");
    assert_eq!(berth.berth(&["diff", "lives"]).ok(), "");
    assert_eq!(berth.berth(&["run", "--rm", "three", "cat", "/shared"]).ok(), "third");
    assert!(berth.berth(&["fsck"]).ok().ends_with("all in order"));
}

fn containers_on(snapshotter: &str) {
    let berth = Instance::start_with(&["--snapshotter", snapshotter]);
    assert_eq!(berth.berth(&["info", "--format", "{{.Driver}}"]).ok(), snapshotter);
    berth.load(&three_layers().docker_archive()).ok();
    let seen = "cat /d/three /shared; ls /d";
    assert_eq!(berth.berth(&["run", "--rm", "three", "sh", "-c", seen]).ok(), "3thirdthree");
    berth
        .berth(&["run", "--name", "cc", "three", "sh", "-c", "echo new > /new; rm /shared; echo changed > /d/three"])
        .ok();
    assert_eq!(berth.berth(&["diff", "cc"]).ok(), "C /d\nC /d/three\nA /new\nD /shared");
    berth.berth(&["commit", "cc", "next"]).ok();
    assert_eq!(
        berth.berth(&["run", "--rm", "next", "sh", "-c", "cat /new /d/three; ls /shared 2>&1 | wc -l"]).ok(),
        "new\nchanged\n1"
    );
    assert_eq!(berth.berth(&["run", "--rm", "--userns", "auto", "next", "cat", "/new"]).ok(), "new");
    berth.berth(&["rm", "cc"]).ok();
    berth.berth(&["rmi", "next", "three"]).ok();
    assert_eq!(count(&berth.root().join("snapshots").join(snapshotter).join("layers")), 0);
}

/// S-085: what does not work here is refused at the start, with the reason and the way out.
#[test]
fn s085_a_snapshotter_that_does_not_work_is_refused() {
    let berth = Instance::start();
    let mut daemon = std::process::Command::new(berth_testkit::peers::binaries().join("berthd"));
    daemon.args(["--root"]).arg(berth.root().join("other")).arg("--state").arg(berth.state().join("other"));
    daemon.args(["--snapshotter", "btrfs"]);
    let output = berth_testkit::instance::run(daemon, b"");
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("snapshotter btrfs does not work"), "{output:?}");
    assert!(output.stderr.contains("hint: "), "{output:?}");
}

/// S-080, S-102: which layer a path comes from, who changed and who deleted it, in the image and in a container on it.
#[test]
fn s080_explain_path_names_the_layer() {
    let berth = Instance::start();
    berth.load(&three_layers().docker_archive()).ok();
    let explain = |of: &str, path: &str| berth.berth(&["explain", "path", of, path]).ok().to_owned();
    assert!(
        explain("three", "/d/three").starts_with("/d/three: it comes from layer 3"),
        "{}",
        explain("three", "/d/three")
    );
    assert!(explain("three", "/bin/busybox").starts_with("/bin/busybox: it comes from layer 1"));
    let shared = explain("three", "/shared");
    assert!(shared.contains("layer 3  changed") && shared.contains("layer 2  added"), "{shared}");
    let two = explain("three", "/d/two");
    assert!(two.starts_with("/d/two: it is not there: layer 3 deleted /d/two"), "{two}");
    assert_eq!(explain("three", "/nowhere"), "/nowhere: no layer has ever had it");

    berth
        .berth(&["run", "--name", "cc", "three", "sh", "-c", "echo x >> /shared; rm -r /d; mkdir /d; echo > /own"])
        .ok();
    assert!(explain("cc", "/shared").starts_with("/shared: the container has its own copy"));
    assert!(explain("cc", "/bin/busybox").contains("it comes from layer 1; nothing was copied"));
    let three = explain("cc", "/d/three");
    assert!(three.starts_with("/d/three: it is not there: the container emptied /d"), "{three}");
    assert!(explain("cc", "/own").starts_with("/own: the container made it"));
}

/// S-081: the listing of a layer is that of its archive.
#[test]
fn s081_layers_list_their_files() {
    let berth = Instance::start();
    berth.load(&three_layers().docker_archive()).ok();
    let listing = berth.berth(&["image", "layers", "--files", "three"]).ok().to_owned();
    let last = listing.rsplit("layer 3").next().unwrap();
    let names: Vec<&str> = last.lines().skip(1).map(str::trim).collect();
    assert_eq!(names, ["d/three", "shared", "d/.wh.two"]);
    assert_eq!(berth.berth(&["image", "layers", "three"]).ok().lines().count(), 4);
}

/// S-087: fsck finds a store in order, finds damage, and mends it while the engine works.
#[test]
fn s087_fsck_finds_and_mends() {
    // Its layers can be written to behind the engine's back.
    let berth = Instance::start_with(&["--snapshotter", "overlay"]);
    berth.load(&three_layers().docker_archive()).ok();
    let clean = berth.berth(&["fsck"]);
    assert!(clean.ok().ends_with("all in order"), "{clean:?}");
    let layer = berth.berth(&["image", "layers", "--json", "three"]).ok().to_owned();
    let layer: serde_json::Value = serde_json::from_str(&layer).unwrap();
    let directory = Path::new(layer[2]["directory"].as_str().unwrap()).to_owned();
    fs::write(directory.join("shared"), "THIRD").unwrap();
    let found = berth.berth(&["fsck"]);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.stdout.contains("/shared: its bytes differ near 0"), "{found:?}");
    assert!(berth.berth(&["fsck", "--repair"]).ok().contains("(unpacked again from its blob)"));
    assert!(berth.berth(&["fsck"]).ok().ends_with("all in order"));
    assert_eq!(berth.berth(&["run", "--rm", "three", "cat", "/shared"]).ok(), "third");

    // A layer that is gone is made again from its blob when it is used.
    fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    assert_eq!(berth.berth(&["run", "--rm", "three", "cat", "/shared"]).ok(), "third");
}

/// S-087: a check that repairs goes on while images and containers come and go: it finds nothing, and takes nothing of theirs away.
#[test]
fn s087_fsck_spares_what_is_just_being_made() {
    let berth = Instance::with_busybox();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let berth = &berth;
                scope.spawn(move || {
                    for round in 0..6 {
                        let [name, image] = [format!("c{worker}-{round}"), format!("i{worker}:{round}")];
                        berth.berth(&["create", "--name", &name, "busybox", "true"]).ok();
                        let program = berth.directory.join(&name);
                        fs::write(&program, &name).unwrap();
                        berth.berth(&["cp", program.to_str().unwrap(), &format!("{name}:/mine")]).ok();
                        berth.berth(&["commit", &name, &image]).ok();
                        if round % 3 == 0 {
                            berth.berth(&["rm", &name]).ok();
                            berth.berth(&["rmi", &image]).ok();
                        }
                    }
                })
            })
            .collect();
        let checking = scope.spawn(|| {
            let mut checks = 0;
            while !is_over.load(relaxed) {
                let checked = berth.berth(&["fsck", "--repair"]);
                assert!(checked.ok().ends_with("all in order"), "after {checks}: {checked:?}");
                checks += 1;
            }
            checks
        });
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        is_over.store(true, relaxed);
        assert!(checking.join().unwrap() > 1);
        ended.into_iter().for_each(Result::unwrap);
    });
    for (worker, round) in (0..3).flat_map(|worker| (0..6).filter(|n| n % 3 != 0).map(move |round| (worker, round))) {
        let name = format!("c{worker}-{round}");
        let diff = berth.berth(&["diff", &name]);
        assert_eq!(diff.ok(), "A /mine", "{name}");
        assert_eq!(berth.berth(&["run", "--rm", &format!("i{worker}:{round}"), "cat", "/mine"]).ok(), name);
    }
}

/// An image removed by force under a stopped container is freed with the container.
#[test]
fn a_hidden_image_goes_with_its_container() {
    let berth = Instance::start();
    berth.load(&three_layers().docker_archive()).ok();
    berth.berth(&["create", "--name", "cc", "three", "true"]).ok();
    berth.berth(&["rmi", "-f", "three"]).ok();
    assert_eq!(berth.berth(&["images", "-q"]).ok(), "");
    let blobs = berth.root().join("content/blobs/sha256");
    assert!(count(&blobs) > 0);
    berth.berth(&["start", "-a", "cc"]).ok();
    berth.berth(&["rm", "cc"]).ok();
    wait_until("the image is freed", || (count(&blobs) == 0).then_some(()));
}

/// Images beyond the budget go by themselves while others load images and make containers of them: never one that a container, another tenant or
/// a create under way needs.
#[test]
fn the_collection_spares_what_is_live() {
    let berth = Instance::start_with(&["--gc-interval", "1", "--gc-max-size", "3m"]);
    let archive = berth.directory.join("team.tar");
    fs::write(&archive, three_layers().oci_archive()).unwrap();
    berth.ctr(&["-n", "team", "images", "import", archive.to_str().unwrap()]).ok();
    let team = || berth.ctr(&["-n", "team", "content", "ls", "-q"]).ok().lines().count();
    // Manifest, configuration and three layers. The archive's index is garbage once the import has ended: no image names it.
    let blobs_of_team = 5;
    wait_until("the index is collected", || (team() == blobs_of_team).then_some(()));
    let seed = u64::from(std::process::id());
    let made: Vec<(String, String)> = std::thread::scope(|scope| {
        let work = |worker: u64| {
            let berth = &berth;
            move || {
                let mut random = seed.wrapping_add(worker * 7919) | 1;
                let mut made = Vec::new();
                for round in 0..5 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let mut image = Image::busybox();
                    image.reference = format!("r{worker}:{round}");
                    let text = format!("{worker} {round} {random}");
                    let image = image.layer(vec![LayerFile::text("mine", &text)]);
                    berth.load(&image.docker_archive()).ok();
                    if (random >> 33) % 3 == 0 {
                        continue;
                    }
                    let name = format!("c{worker}-{round}");
                    let created = berth.berth(&["create", "--name", &name, &image.reference, "cat", "/mine"]);
                    // Collected before the create had it: then there is no such image, and nothing else.
                    if created.code == 0 {
                        made.push((name, text));
                    } else {
                        assert!(created.stderr.contains("No such image"), "seed {seed}: {created:?}");
                    }
                }
                made
            }
        };
        let workers: Vec<_> = (0..3).map(|worker| scope.spawn(work(worker))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(!made.is_empty(), "seed {seed}");
    let listed = || berth.berth(&["images", "-q"]).ok().lines().count();
    wait_until("only images of containers are left", || (listed() == made.len()).then_some(()));
    for (name, text) in &made {
        assert_eq!(berth.berth(&["start", "-a", name]).ok(), text, "seed {seed}");
    }
    assert_eq!(team(), blobs_of_team, "seed {seed}");
    let checked = berth.berth(&["fsck"]);
    assert!(checked.ok().ends_with("all in order"), "seed {seed}: {checked:?}");
    // Without its container an image has no use.
    berth.berth(&["rm", &made[0].0]).ok();
    wait_until("its image follows", || (listed() == made.len() - 1).then_some(()));
}

/// However many images go at once: what belongs to nobody then is looked for once.
#[test]
fn many_images_are_one_collection() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let berth = Instance::start_with(&["--metrics-address", &address]);
    for n in 0..6 {
        let mut image = Image::busybox();
        image.reference = format!("many:{n}");
        berth.load(&image.layer(vec![LayerFile::text("n", &n.to_string())]).docker_archive()).ok();
    }
    berth.berth(&["create", "--name", "cc", "many:3", "cat", "/n"]).ok();
    let runs = || disk_use::metric(&address, "berth_gc_runs_total");
    let before = runs();
    let pruned = berth.berth(&["image", "prune", "-a", "-f"]);
    assert_eq!(pruned.ok().matches("untagged: ").count(), 5, "{pruned:?}");
    assert_eq!(runs(), before + 1);
    assert_eq!(berth.berth(&["images", "--format", "{{.Tag}}"]).ok(), "3");
    // Config, manifest, and two layers of the one that stays.
    assert_eq!(count(&berth.root().join("content/blobs/sha256")), 4);
    assert_eq!(berth.berth(&["start", "-a", "cc"]).ok(), "3");
}

/// By free space: the images that were wanted longest ago go, as many as are needed, in one collection.
#[test]
fn images_make_room() {
    let disk = SmallDisk::mount(96);
    let berth = disk.instance(&["--gc-interval", "2", "--gc-min-free", "40m", "--snapshotter", "overlay"]);
    let name = |n: u64| format!("room:{n}");
    // 4 MiB as a blob and 4 MiB unpacked, each.
    let load = |n: u64| {
        let image = Image::new(&name(n)).layer(vec![LayerFile::program("noise", noise(4 << 20, n + 1))]);
        berth.load(&image.docker_archive()).ok();
    };
    (0..5).for_each(load);
    berth.berth(&["create", "--name", "cc", &name(0), "/noise"]).ok();
    assert!(disk.free() > 40 << 20, "{}", disk.free());
    // Now some 16 MiB are missing: two images, and not the one that is used.
    (5..9).for_each(load);
    wait_until("there is room again", || (disk.free() >= 40 << 20).then_some(()));
    wait_until("the oldest that nobody uses went", || {
        let left = berth.berth(&["images", "--format", "{{.Tag}}"]).ok().to_owned();
        let mut left: Vec<u64> = left.lines().map(|tag| tag.parse().unwrap()).collect();
        left.sort_unstable();
        (left.len() <= 7 && left[0] == 0 && left.ends_with(&[6, 7, 8])).then_some(())
    });
    assert!(berth.berth(&["fsck"]).ok().ends_with("all in order"));
    drop(berth);
}

/// By age: an image that nobody used for so long goes, one of a container stays.
#[test]
fn old_images_are_collected() {
    let berth = Instance::start_with(&["--gc-interval", "1", "--gc-unused-for", "1s"]);
    let mut other = Image::busybox();
    other.reference = "other:latest".to_owned();
    berth.load(&other.layer(vec![LayerFile::text("x", "y")]).docker_archive()).ok();
    berth.berth(&["create", "--name", "cc", "other", "cat", "/x"]).ok();
    berth.load(&Image::busybox().docker_archive()).ok();
    wait_until("the unused one goes", || {
        (berth.berth(&["images", "--format", "{{.Repository}}"]).ok() == "other").then_some(())
    });
    assert_eq!(berth.berth(&["start", "-a", "cc"]).ok(), "y");
    wait_until("its files as well", || (count(&berth.root().join("content/blobs/sha256")) == 4).then_some(()));
    let events = berth.berth(&["events", "--since", "1h", "--until", "0s", "--filter", "type=image"]);
    assert!(events.ok().contains("image delete") && events.ok().contains("image prune"), "{events:?}");
}
