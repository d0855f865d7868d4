//! External snapshotters: Debian's containerd serves its own, and one of our daemons serves another.

use berth_testkit::{Containerd, Image, Instance, LayerFile, wait_until};

fn two_layers() -> Image {
    let mut image = Image::busybox();
    image.reference = "two:latest".to_owned();
    image.layer(vec![LayerFile::directory("d"), LayerFile::text("d/two", "2"), LayerFile::text("shared", "second")])
}

fn address(name: &str, socket: &std::path::Path) -> String {
    format!("{name}=unix://{},snapshotter=overlayfs,namespace=far", socket.display())
}

/// What runs, changes, is committed, copied and removed.
fn containers_on(berth: &mut Instance, name: &str) {
    let info = berth.berth(&["info"]);
    assert!(info.ok().contains(name) && info.ok().contains("answers"), "{info:?}");
    berth.load(&two_layers().docker_archive()).ok();
    assert_eq!(berth.berth(&["run", "--rm", "two", "cat", "/d/two", "/shared"]).ok(), "2second");
    let change = "echo new > /new; rm /shared; echo changed > /d/two";
    berth.berth(&["run", "--name", "cc", "two", "sh", "-c", change]).ok();
    assert_eq!(berth.berth(&["diff", "cc"]).ok(), "C /d\nC /d/two\nA /new\nD /shared");
    berth.berth(&["commit", "cc", "next"]).ok();
    let seen = "cat /new /d/two; ls /shared 2>&1 | wc -l";
    assert_eq!(berth.berth(&["run", "--rm", "next", "sh", "-c", seen]).ok(), "new\nchanged\n1");
    let explained = berth.berth(&["explain", "path", "next", "/new"]);
    assert!(explained.ok().contains("layer 3"), "{explained:?}");
    berth.berth(&["run", "-d", "--name", "lives", "-v", "/d", "next", "sleep", "1000"]).ok();
    berth.kill_daemon();
    berth.spawn();
    assert_eq!(berth.berth(&["exec", "lives", "cat", "/d/two", "/new"]).ok(), "changed\nnew");
    assert_eq!(berth.berth(&["run", "--rm", "next", "cat", "/new"]).ok(), "new");
    let clean = berth.berth(&["fsck"]);
    assert!(clean.ok().ends_with("all in order"), "{clean:?}");
    berth.berth(&["rm", "-f", "-v", "cc", "lives"]).ok();
    berth.berth(&["rmi", "next", "two"]).ok();
}

/// S-085: images and containers of the engine in the hands of a foreign containerd, across a kill of the daemon; nothing is left there.
#[test]
fn s085_containers_on_a_foreign_snapshotter() {
    let server = Containerd::scratch();
    let mut berth =
        Instance::start_with(&["--proxy-snapshotter", &address("far", &server.socket()), "--snapshotter", "far"]);
    containers_on(&mut berth, "far");
    let proxied = || {
        let listed = berth.ctr_of(&server.socket(), &["-n", "far", "snapshots", "ls"]);
        (listed.ok().lines().count() == 1).then_some(())
    };
    wait_until("the server keeps nothing of ours", proxied);
}

/// S-085, S-115: our own snapshots service as the external snapshotter of another daemon.
#[test]
fn s085_containers_on_another_daemon_of_ours() {
    let server = Instance::start();
    let mut berth = Instance::start_with(&[
        "--proxy-snapshotter",
        &address("near", &server.containerd_socket()),
        "--snapshotter",
        "near",
    ]);
    // Two images of one archive on one base that is new with them.
    for name in ["one", "other"] {
        let mut image = Image::busybox().layer(vec![LayerFile::text("mine", name)]);
        image.reference = format!("{name}:latest");
        server.load(&image.docker_archive()).ok();
    }
    let both = berth.directory.join("both.tar");
    server.berth(&["save", "-o", both.to_str().unwrap(), "one", "other"]).ok();
    berth.berth(&["load", "-i", both.to_str().unwrap()]).ok();
    for name in ["one", "other"] {
        assert_eq!(berth.berth(&["run", "--rm", name, "cat", "/mine"]).ok(), name);
    }
    berth.berth(&["rmi", "one", "other"]).ok();
    containers_on(&mut berth, "near");
    drop(berth);
}

/// S-085, S-115: a client of the containerd API names an external snapshotter: import, unpack, run, snapshots of its own.
#[test]
fn s115_ctr_names_an_external_snapshotter() {
    let server = Containerd::scratch();
    let berth = Instance::start_with(&["--proxy-snapshotter", &address("far", &server.socket())]);
    let archive = berth.directory.join("two.tar");
    std::fs::write(&archive, two_layers().oci_archive()).unwrap();
    let archive = archive.to_str().unwrap().to_owned();
    let team = |words: &[&str]| berth.ctr(&[&["-n", "team"], words].concat());
    team(&["images", "import", "--snapshotter", "far", &archive]).ok();
    let fifos = berth.directory.join("fifo");
    std::fs::create_dir_all(&fifos).unwrap();
    let fifos = fifos.to_str().unwrap().to_owned();
    let cgroup = format!("{}/c1", berth.cgroup_parent());
    let name = team(&["images", "ls", "-q"]).ok().to_owned();
    let run = ["run", "--rm", "--snapshotter", "far", "--fifo-dir", &fifos, "--cgroup", &cgroup, &name, "c1"];
    assert_eq!(team(&[&run[..], &["cat", "/d/two", "/shared"]].concat()).ok(), "2second");
    let listed = team(&["snapshots", "--snapshotter", "far", "ls"]);
    assert_eq!(listed.ok().lines().count(), 3, "two layers: {listed:?}");
    assert_eq!(team(&["snapshots", "ls"]).ok().lines().count(), 1, "none of them is ours");
    assert_eq!(berth.ctr(&["snapshots", "--snapshotter", "far", "ls"]).ok().lines().count(), 1, "another tenant's");
    let top = listed.ok().lines().find(|line| line.contains("sha256:") && line.split_whitespace().count() == 3);
    let top = top.unwrap().split_whitespace().next().unwrap().to_owned();
    team(&["snapshots", "--snapshotter", "far", "prepare", "mine", &top]).ok();
    let mounts = team(&["snapshots", "--snapshotter", "far", "mounts", "/mnt", "mine"]);
    assert!(mounts.ok().starts_with("mount -t overlay"), "{mounts:?}");
    team(&["snapshots", "--snapshotter", "far", "commit", "frozen", "mine"]).ok();
    team(&["snapshots", "--snapshotter", "far", "rm", "frozen"]).ok();
    let unknown = team(&["snapshots", "--snapshotter", "nowhere", "ls"]);
    assert!(unknown.code != 0 && unknown.stderr.contains("there is overlayfs, far"), "{unknown:?}");
}

/// S-085: one that nobody serves stops a daemon that was to keep everything there, and is a warning to one that was not.
#[test]
fn s085_an_unreachable_snapshotter_is_told() {
    let nobody = "nobody=unix:///nowhere/at/all.sock";
    let berth = Instance::start_with(&["--proxy-snapshotter", nobody]);
    let info = berth.berth(&["info"]);
    let warning = "snapshotter nobody cannot be reached at /nowhere/at/all.sock";
    assert!(format!("{}{}", info.stdout, info.stderr).contains(warning), "{info:?}");
    let doctor = berth.berth(&["doctor"]);
    assert!(doctor.stdout.contains(warning), "{doctor:?}");
    let listed = berth.ctr(&["snapshots", "--snapshotter", "nobody", "ls"]);
    assert!(listed.code != 0 && listed.stderr.contains(warning), "{listed:?}");

    let output = refused(&berth, &["--proxy-snapshotter", nobody, "--snapshotter", "nobody"]);
    assert!(output.contains(warning) && output.contains("hint: start the external snapshotter"), "{output}");
    let output = refused(&berth, &["--proxy-snapshotter", "overlay=unix:///x"]);
    assert!(output.contains("this is the name of a snapshotter of our own"), "{output}");
}

/// S-086: AUFS is in no mainline kernel: it is not among our own, and the refusal and the page say that it can be had over the proxy.
#[test]
fn s086_aufs_is_had_over_the_proxy_only() {
    let berth = Instance::start();
    let output = refused(&berth, &["--snapshotter", "aufs"]);
    assert!(output.contains("there is no snapshotter \"aufs\""), "{output}");
    assert!(output.contains("needs an external snapshotter: proxy-snapshotter"), "{output}");
    let page = std::fs::read_to_string(berth_testkit::peers::workspace().join("docs/storage.md")).unwrap();
    let line = page.lines().find(|line| line.contains("AUFS")).unwrap();
    assert!(line.contains("external snapshotter"), "{line}");
}

fn refused(berth: &Instance, words: &[&str]) -> String {
    let mut daemon = std::process::Command::new(berth_testkit::peers::binaries().join("berthd"));
    daemon.args(["--root"]).arg(berth.root().join("other")).arg("--state").arg(berth.state().join("other"));
    daemon.args(words);
    let output = berth_testkit::instance::run(daemon, b"");
    assert_ne!(output.code, 0);
    output.stderr
}
