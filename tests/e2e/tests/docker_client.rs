//! The stock docker client, unmodified, against our socket.

use std::io::Write as _;
use std::process::Stdio;

use berth_testkit::{Image, Instance};

#[test]
fn the_stock_client_does_its_verbs() {
    let berth = Instance::start();
    let archive = berth.directory.join("busybox.tar");
    std::fs::write(&archive, Image::busybox().docker_archive()).unwrap();
    berth.docker(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert!(berth.docker(&["version"]).ok().contains("Berth"));
    let info = berth.docker(&["info"]).ok().to_owned();
    assert!(["erofs", "overlay2"].iter().any(|name| info.contains(&format!("Storage Driver: {name}"))));
    assert_eq!(berth.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok(), "busybox:latest");
    let ran = berth.docker(&["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"));
    let id = berth
        .docker(&[
            "run",
            "-d",
            "--name",
            "c1",
            "-p",
            "127.0.0.1::80",
            "-m",
            "64m",
            "-l",
            "k=v",
            "-e",
            "A=b",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok()
        .to_owned();
    assert_eq!(id.len(), 64);
    let row = berth.docker(&["ps", "--format", "{{.Names}} {{.Image}} {{.State}} {{.Labels}}"]);
    assert_eq!(row.ok(), "c1 busybox running k=v");
    assert_eq!(berth.docker(&["exec", "-e", "X=y", "c1", "sh", "-c", "echo $A $X"]).ok(), "b y");
    assert_eq!(
        berth.docker(&["inspect", "-f", "{{.State.Running}} {{.HostConfig.Memory}}", "c1"]).ok(),
        "true 67108864"
    );
    assert!(berth.docker(&["port", "c1"]).ok().starts_with("80/tcp -> 127.0.0.1:"));
    assert!(berth.docker(&["top", "c1"]).ok().contains("sleep 1000"));
    assert!(berth.docker(&["stats", "--no-stream", "c1"]).ok().contains("64MiB"));
    berth.docker(&["exec", "c1", "touch", "/new"]).ok();
    assert_eq!(berth.docker(&["diff", "c1"]).ok(), "A /new");
    berth.docker(&["pause", "c1"]).ok();
    berth.docker(&["unpause", "c1"]).ok();
    berth.docker(&["update", "--cpus", "1", "c1"]).ok();
    berth.docker(&["rename", "c1", "d1"]).ok();
    berth.docker(&["commit", "d1", "made:v1"]).ok();
    assert!(berth.docker(&["history", "made:v1"]).ok().lines().count() >= 2);
    berth.docker(&["cp", archive.to_str().unwrap(), "d1:/archive"]).ok();
    let back = berth.directory.join("back.tar");
    berth.docker(&["cp", "d1:/archive", back.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read(&back).unwrap(), std::fs::read(&archive).unwrap());
    berth.docker(&["restart", "-t", "0", "d1"]).ok();
    berth.docker(&["stop", "-t", "0", "d1"]).ok();
    assert_eq!(berth.docker(&["wait", "d1"]).ok(), "137");
    berth.docker(&["start", "d1"]).ok();
    berth.docker(&["kill", "d1"]).ok();
    berth.docker(&["rm", "-f", "d1"]).ok();
    assert!(berth.docker(&["system", "df"]).ok().contains("Images"));
    berth.docker(&["tag", "busybox", "x:y"]).ok();
    berth.docker(&["rmi", "x:y", "made:v1"]).ok();
    let events = berth.docker(&["events", "--since", "1h", "--until", "0s", "--filter", "event=die"]);
    assert!(events.ok().contains("exitCode=3"), "{events:?}");
    let codes = [("no-such-program", 127), ("/etc/passwd", 126)];
    for (program, code) in codes {
        assert_eq!(berth.docker(&["run", "--rm", "busybox", program]).code, code, "{program}");
    }
    let missing = berth.docker(&["run", "--rm", "--pull", "never", "nothing", "true"]);
    assert_eq!(missing.code, 125);
    assert_eq!(berth.docker(&["volume", "create", "data"]).ok(), "data");
    berth.docker(&["run", "--rm", "-v", "data:/data", "busybox", "touch", "/data/file"]).ok();
    assert_eq!(berth.docker(&["run", "--rm", "-v", "data:/data", "busybox", "ls", "/data"]).ok(), "file");
    assert_eq!(berth.docker(&["volume", "rm", "data"]).ok(), "data");
    let swarm = berth.docker(&["service", "ls"]);
    assert!(swarm.code != 0 && swarm.stderr.contains("swarm"), "{swarm:?}");
}

#[test]
fn the_stock_client_attaches_and_pipes() {
    let berth = Instance::with_busybox();
    let mut client = berth
        .docker_command(&["run", "--rm", "-i", "busybox", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through\n");
    berth.docker(&["run", "-d", "--name", "c1", "busybox", "sh", "-c", "echo logged; sleep 1000"]).ok();
    assert_eq!(
        berth_testkit::wait_until("it logged", || Some(berth.docker(&["logs", "c1"]).stdout).filter(|t| !t.is_empty())),
        "logged\n"
    );
}

/// Old clients' versions are spoken; too old and too new ones are told so.
#[test]
fn api_versions() {
    let berth = Instance::start();
    for version in ["1.24", "1.40", "1.44"] {
        let mut command = berth.docker_command(&["ps"]);
        command.env("DOCKER_API_VERSION", version);
        assert!(berth_testkit::instance::run(command, b"").ok().contains("CONTAINER ID"), "{version}");
    }
    let mut command = berth.docker_command(&["ps"]);
    command.env("DOCKER_API_VERSION", "1.99");
    let refused = berth_testkit::instance::run(command, b"");
    assert!(refused.stderr.contains("too new"), "{refused:?}");
}
