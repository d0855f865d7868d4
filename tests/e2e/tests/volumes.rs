//! Volumes: named, anonymous, filled from the image, shared, removed with their containers or kept.

use berth_testkit::archive::LayerFile;
use berth_testkit::{Image, Instance, peers, wait_until};

fn volumes(berth: &Instance) -> Vec<String> {
    berth.berth(&["volume", "ls", "-q"]).ok().lines().map(str::to_owned).collect()
}

/// busybox with `VOLUME /data`, where the image has files of several kinds and owners.
fn with_volume(berth: &Instance) {
    let busybox = std::fs::read(peers::busybox()).unwrap();
    let files = vec![
        LayerFile::directory("bin"),
        LayerFile::program("bin/busybox", busybox),
        LayerFile::symlink("bin/sh", "busybox"),
        LayerFile::Directory { path: "data".to_owned(), mode: 0o750 },
        LayerFile::text("data/f", "from the image"),
        LayerFile::directory("data/sub"),
        LayerFile::symlink("data/sub/link", "../f"),
        LayerFile::directory("tmp"),
    ];
    let image = Image::new("v:1").layer(files).config("Volumes", serde_json::json!({"/data": {}}));
    berth.load(&image.docker_archive()).ok();
}

/// A `VOLUME` of the image is an anonymous volume that begins with the image's files, and goes with `--rm` and `rm -v`.
#[test]
fn volumes_of_images() {
    let berth = Instance::start();
    with_volume(&berth);
    let sh = |options: &[&str], script: &str| {
        berth.berth(&[&["run", "--rm"], options, &["v:1", "/bin/sh", "-c", script]].concat())
    };
    let looked = sh(&[], "/bin/busybox stat -c '%a' /data; /bin/busybox cat /data/f /data/sub/link");
    assert_eq!(looked.ok(), "750\nfrom the imagefrom the image");
    assert_eq!(volumes(&berth), [""; 0], "--rm takes it along");

    berth.berth(&["run", "--name", "c1", "v:1", "/bin/sh", "-c", "echo more > /data/new"]).ok();
    let [name] = &volumes(&berth)[..] else { panic!("one volume") };
    assert_eq!(name.len(), 64);
    let mount = berth.inspect("c1", "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}");
    assert_eq!(mount, format!("volume {name} /data true"));
    let source = berth.inspect("c1", "{{range .Mounts}}{{.Source}}{{end}}");
    assert_eq!(std::fs::read_to_string(format!("{source}/new")).unwrap(), "more\n");
    assert_eq!(berth.berth(&["diff", "c1"]).ok(), "", "what is in a volume is no change of the container");

    let refused = berth.berth(&["volume", "rm", name]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("volume is in use"), "{refused:?}");
    // It lasts over a restart of the container, and its removal without -v.
    berth.berth(&["start", "c1"]).ok();
    wait_until("c1 has ended", || (berth.inspect("c1", "{{.State.Running}}") == "false").then_some(()));
    berth.berth(&["rm", "c1"]).ok();
    assert_eq!(volumes(&berth), std::slice::from_ref(name));
    let pruned = berth.berth(&["volume", "prune", "-f"]);
    assert!(pruned.ok().contains(name.as_str()), "{pruned:?}");

    berth.berth(&["create", "--name", "c2", "v:1", "/bin/sh"]).ok();
    assert_eq!(volumes(&berth).len(), 1);
    berth.berth(&["rm", "-v", "c2"]).ok();
    assert_eq!(volumes(&berth), [""; 0], "rm -v");
    // A mount of the user's own takes the volume's place.
    assert_eq!(sh(&["--tmpfs", "/data"], "/bin/busybox ls /data").ok(), "");
    assert_eq!(volumes(&berth), [""; 0]);
}

/// Named volumes: made by `-v` or `volume create`, shared, read-only, filled once, never removed with a container.
#[test]
fn named_volumes() {
    let berth = Instance::with_busybox();
    let made = berth.berth(&["volume", "create", "--label", "a=b", "data"]);
    assert_eq!(made.ok(), "data");
    berth.busybox(&["-v", "data:/d"], &["sh", "-c", "echo one > /d/f"]).ok();
    assert_eq!(berth.busybox(&["--mount", "type=volume,src=data,dst=/e"], &["cat", "/e/f"]).ok(), "one");
    let refused = berth.busybox(&["-v", "data:/d:ro"], &["touch", "/d/g"]);
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    berth.busybox(&["-v", "data:/d"], &["mkdir", "/d/part"]).ok();
    let part = berth
        .busybox(&["--mount", "type=volume,src=data,dst=/p,volume-subpath=part"], &["sh", "-c", "echo two > /p/g"]);
    part.ok();
    assert_eq!(berth.busybox(&["-v", "data:/d"], &["cat", "/d/part/g"]).ok(), "two");
    // Filled with what the image has there, the first time only.
    berth.busybox(&["-v", "etc:/etc"], &["sh", "-c", "rm /etc/passwd; echo x > /etc/own"]).ok();
    assert_eq!(berth.busybox(&["-v", "etc:/etc"], &["sh", "-c", "ls /etc/passwd 2>/dev/null; cat /etc/own"]).code, 0);
    assert_eq!(berth.busybox(&["-v", "bare:/bin2:nocopy", "-v", "full:/etc"], &["ls", "/bin2"]).ok(), "");

    berth.sleeper("one", &["-v", "data:/d"]);
    let shared = berth.busybox(&["--volumes-from", "one:ro"], &["sh", "-c", "cat /d/f; touch /d/x"]);
    assert!(shared.stdout.starts_with("one\n") && shared.stderr.contains("Read-only"), "{shared:?}");
    berth.berth(&["rm", "-f", "-v", "one"]).ok();
    assert_eq!(volumes(&berth), ["bare", "data", "etc", "full"]);

    let shown = berth.berth(&["volume", "inspect", "-f", "{{.Driver}} {{.Scope}} {{index .Labels \"a\"}}", "data"]);
    assert_eq!(shown.ok(), "local local b");
    let listed = berth.berth(&["volume", "ls", "--filter", "label=a", "--format", "{{.Name}}"]);
    assert_eq!(listed.ok(), "data");
    let df = berth.berth(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"]);
    assert!(df.ok().contains("Local Volumes 4"), "{df:?}");
    assert_eq!(berth.berth(&["volume", "prune", "-f"]).ok(), "Total reclaimed space: 0B", "named ones stay");
    berth.berth(&["volume", "prune", "-a", "-f"]).ok();
    assert_eq!(volumes(&berth), [""; 0]);
    assert_eq!(berth.berth(&["volume", "rm", "data"]).code, 125);
    berth.berth(&["volume", "rm", "-f", "data"]).ok();
}

/// A directory of the host under a volume's name; a volume in a user namespace, whose files belong to the container's users.
#[test]
fn volumes_with_options_and_user_namespaces() {
    let berth = Instance::with_busybox();
    let directory = berth.directory.join("host");
    std::fs::create_dir(&directory).unwrap();
    let device = format!("device={}", directory.display());
    berth.berth(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bound"]).ok();
    berth.busybox(&["-v", "bound:/b"], &["sh", "-c", "echo here > /b/f"]).ok();
    assert_eq!(std::fs::read_to_string(directory.join("f")).unwrap(), "here\n");
    let other = berth.berth(&["volume", "create", "-o", "type=nfs", "-o", "device=:/x", "net"]);
    assert!(other.code == 125 && other.stderr.contains("only type=none,o=bind"), "{other:?}");

    berth.busybox(&["-v", "data:/d"], &["sh", "-c", "echo x > /d/f; chown 7:7 /d/f"]).ok();
    let mapped = berth.busybox(&["--userns", "auto", "-v", "data:/d"], &["stat", "-c", "%u:%g", "/d/f"]);
    assert_eq!(mapped.ok(), "7:7");
    berth.busybox(&["--userns", "auto", "-v", "data:/d"], &["touch", "/d/made"]).ok();
    assert_eq!(berth.busybox(&["-v", "data:/d"], &["stat", "-c", "%u:%g", "/d/made"]).ok(), "0:0");
}

/// What cannot be is refused before anything is made.
#[test]
fn bad_volumes() {
    let berth = Instance::with_busybox();
    for (flag, why) in [
        ("a b:/d", "invalid characters"),
        ("vx:d", "absolute"),
        ("vx:/", "destination can't be '/'"),
        ("vx:/d:bogus", "invalid mode"),
        ("vx:/d/../../e", "contains .."),
    ] {
        let refused = berth.busybox(&["-v", flag], &["true"]);
        assert_eq!(refused.code, 125, "{flag}: {refused:?}");
        assert!(refused.stderr.contains(why), "{flag}: {refused:?}");
    }
    let outside = berth.busybox(&["--mount", "type=volume,src=vx,dst=/d,volume-subpath=../../.."], &["true"]);
    assert!(outside.code == 125 && outside.stderr.contains("subpath"), "{outside:?}");
    let driver = berth.busybox(&["--volume-driver", "nfs", "-v", "vx:/d"], &["true"]);
    assert!(driver.code == 125 && driver.stderr.contains("local only"), "{driver:?}");
    assert_eq!(volumes(&berth), [""; 0]);
    assert_eq!(berth.berth(&["ps", "-aq"]).ok(), "");
}

/// `cp` to and from a container that does not run sees its volumes and bind mounts, by both clients, before and after its first start.
#[test]
fn cp_of_a_stopped_container_reaches_its_mounts() {
    let berth = Instance::start();
    with_volume(&berth);
    let bound = berth.directory.join("bound");
    let sealed = berth.directory.join("sealed");
    std::fs::create_dir_all(&bound).unwrap();
    std::fs::create_dir_all(&sealed).unwrap();
    let (bind, read_only) = (format!("{}:/tmp/b", bound.display()), format!("{}:/sealed:ro", sealed.display()));
    let options = ["create", "--name", "c1", "-v", "named:/named", "-v", &bind, "-v", &read_only];
    let script = "/bin/busybox cat /data/one /named/two /tmp/b/three";
    berth.berth(&[&options[..], &["v:1", "/bin/sh", "-c", script]].concat()).ok();
    for (client, round) in [("berth", 1), ("docker", 2)] {
        let run = |words: &[&str]| if client == "berth" { berth.berth(words) } else { berth.docker(words) };
        for (name, to) in [("one", "/data/"), ("two", "/named"), ("three", "/tmp/b")] {
            let here = berth.directory.join(name);
            std::fs::write(&here, format!("{name}{round}")).unwrap();
            run(&["cp", here.to_str().unwrap(), &format!("c1:{to}")]).ok();
        }
        assert_eq!(std::fs::read_to_string(bound.join("three")).unwrap(), format!("three{round}"));
        let back = berth.directory.join(format!("back{round}"));
        run(&["cp", "c1:/named", back.to_str().unwrap()]).ok();
        assert_eq!(std::fs::read_to_string(back.join("two")).unwrap(), format!("two{round}"));
        let refused = run(&["cp", back.join("two").to_str().unwrap(), "c1:/sealed/"]);
        assert!(refused.code != 0 && std::fs::read_dir(&sealed).unwrap().next().is_none(), "{refused:?}");
        assert_eq!(berth.berth(&["diff", "c1"]).ok(), "", "nothing went below the mounts");
        let seen = berth.berth(&["start", "-a", "c1"]);
        assert_eq!(seen.ok(), format!("one{round}two{round}three{round}"));
    }
    // A read-only root file system does not seal a volume.
    berth
        .berth(&[
            "create",
            "--name",
            "c2",
            "--read-only",
            "-v",
            "named:/named",
            "v:1",
            "/bin/busybox",
            "cat",
            "/named/two",
        ])
        .ok();
    let here = berth.directory.join("two");
    std::fs::write(&here, "sealed root").unwrap();
    berth.berth(&["cp", here.to_str().unwrap(), "c2:/named/"]).ok();
    let refused = berth.berth(&["cp", here.to_str().unwrap(), "c2:/tmp/"]);
    assert!(refused.code != 0 && refused.stderr.contains("read-only"), "{refused:?}");
    assert_eq!(berth.berth(&["start", "-a", "c2"]).ok(), "sealed root");
    // A part of a volume is all there is of it.
    let part = "type=volume,source=named,target=/part,volume-subpath=inner";
    let made = berth.berth(&["run", "--rm", "-v", "named:/named", "v:1", "/bin/busybox", "mkdir", "/named/inner"]);
    made.ok();
    berth.berth(&["create", "--name", "c3", "--mount", part, "v:1", "/bin/busybox", "cat", "/part/two"]).ok();
    berth.berth(&["cp", here.to_str().unwrap(), "c3:/part/"]).ok();
    assert_eq!(berth.berth(&["start", "-a", "c3"]).ok(), "sealed root");
    berth.berth(&["rm", "-v", "c1", "c2", "c3"]).ok();
}
