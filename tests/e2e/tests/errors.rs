//! Bad input: one clear error, code 125 (or 1 where Docker's clients have it), and nothing half done.

use std::fs;

use berth_testkit::{Image, Instance, LayerFile};

/// What exists of containers, layers and blobs, to be the same before and after a refusal.
fn inventory(berth: &Instance) -> Vec<String> {
    let mut found = vec![berth.berth(&["ps", "-aq"]).ok().to_owned(), berth.berth(&["images", "-q"]).ok().to_owned()];
    for directory in ["content/blobs/sha256", "content/ingest", "snapshots/overlay/layers", "containers"] {
        let mut names: Vec<String> = fs::read_dir(berth.root().join(directory))
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| format!("{directory}/{}", e.file_name().to_string_lossy()))
            .collect();
        names.sort();
        found.extend(names);
    }
    found
}

/// Flags of `run` that cannot be honoured: the message names the object.
#[test]
fn refusals_of_run() {
    let berth = Instance::with_busybox();
    berth.berth(&["create", "--name", "taken", "busybox", "true"]).ok();
    let before = inventory(&berth);
    for (options, names) in [
        (&["--name", "taken"][..], &["taken", "in use"][..]),
        (&["--name", "no/slash"], &["no/slash"]),
        (&["-m", "1"], &["memory"]),
        (&["-m", "64m", "--memory-swap", "32m"], &["swap"]),
        (&["-m", "lots"], &["lots"]),
        (&["--cpus", "999"], &["CPUs available"]),
        (&["--cpuset-cpus", "99"], &["99"]),
        (&["--cap-add", "NONSENSE"], &["NONSENSE"]),
        (&["--device", "/dev/no-such"], &["/dev/no-such"]),
        (&["--ulimit", "nonsense=1"], &["nonsense"]),
        (&["--sysctl", "kernel.panic=1"], &["kernel.panic"]),
        (&["-p", "99999:80"], &["99999"]),
        (&["--network", "container:no-such"], &["no-such"]),
        (&["--network", "mine"], &["mine"]),
        (&["--mount", "type=bind,source=/no/such,target=/x"], &["/no/such"]),
        (&["--mount", "type=nonsense,target=/x"], &["nonsense"]),
        (&["-v", "rel/ative:/x"], &["rel/ative"]),
        (&["-v", "/tmp:relative"], &["relative"]),
        (&["--env-file", "/no/such"], &["/no/such"]),
        (&["--env-file", "/etc"], &["/etc", "directory"]),
        (&["--stop-timeout", "soon"], &["soon"]),
        (&["--shm-size", "12parsecs"], &["12parsecs"]),
        (&["--device-read-bps", "/no/such:1mb"], &["/no/such"]),
        (&["--cpu-rt-runtime", "900000"], &["rt_runtime"]),
        (&["-e", "=x"], &["=x"]),
        (&["-u", "1:2:3"], &["1:2:3"]),
        (&["-w", "relative"], &["relative"]),
        (&["--volumes-from", "no-such"], &["no-such"]),
        (&["-p", "127.0.0.1:80-90:80-85"], &["80"]),
        (&["--add-host", "nonsense"], &["nonsense"]),
        (&["--dns", "nonsense"], &["nonsense"]),
        (&["--tmpfs", "relative"], &["relative"]),
        (&["--pull", "sometimes"], &["sometimes"]),
        (&["--ipc", "container:no-such"], &["no-such"]),
        (&["--cidfile", "/no/such/file"], &["/no/such/file"]),
        (&["--label-file", "/no/such"], &["/no/such"]),
        (&["--blkio-weight", "5"], &["weight"]),
        (&["--cpu-period", "10"], &["period"]),
        (&["--pids-limit", "many"], &["many"]),
        (&["--stop-signal", "NONSENSE"], &["NONSENSE"]),
        (&["--security-opt", "nonsense=1"], &["nonsense"]),
        (&["--security-opt", "seccomp=/no/such"], &["/no/such"]),
        (&["--runtime", "nonsense"], &["nonsense"]),
        (&["--cgroupns", "nonsense"], &["nonsense"]),
        (&["--userns", "nonsense"], &["nonsense"]),
        (&["--log-driver", "nonsense"], &["nonsense"]),
        (&["--gpus", "all"], &["gpus"]),
        (&["--health-cmd", "true"], &["health"]),
    ] {
        let words = [&["run", "--rm"], options, &["busybox", "true"]].concat();
        let refused = berth.berth(&words);
        assert_eq!(refused.code, 125, "{options:?}: {refused:?}");
        assert_eq!(refused.stdout, "", "{options:?}");
        for name in names {
            assert!(
                refused.stderr.to_lowercase().contains(&name.to_lowercase()),
                "{options:?} should name {name}: {refused:?}"
            );
        }
        assert_eq!(inventory(&berth), before, "{options:?} left something");
    }
}

/// References that name nothing that can exist.
#[test]
fn refusals_of_references() {
    let berth = Instance::with_busybox();
    for reference in ["UPPER", "a//b", "a:b:c", "-x", "x@sha256:12", "x:", "/x", "http://a/b", ""] {
        for words in [
            &["run", "--rm", "--", reference, "true"][..],
            &["tag", "--", "busybox", reference],
            &["rmi", "--", reference],
        ] {
            let refused = berth.berth(words);
            assert_ne!(refused.code, 0, "{words:?}: {refused:?}");
            assert!(
                refused.stderr.starts_with("error: ") && refused.stderr.contains(reference.trim_start_matches('/')),
                "{words:?}: {refused:?}"
            );
        }
    }
    assert_eq!(berth.berth(&["images", "-q"]).ok().lines().count(), 1);
}

/// A restart policy nobody knows; alone, for with --rm the two exclude each other first.
#[test]
fn restart_policy_must_be_known() {
    let berth = Instance::with_busybox();
    let refused = berth.berth(&["create", "--restart", "nonsense", "busybox", "true"]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("nonsense"), "{refused:?}");
    assert_eq!(berth.berth(&["ps", "-aq"]).ok(), "");
}

/// Archives that lie or attack: refused, nothing listed, nothing left, no file outside touched.
#[test]
fn refusals_of_load() {
    let berth = Instance::with_busybox();
    let before = inventory(&berth);
    let good = Image::new("evil:latest").layer(vec![LayerFile::text("f", "content")]);
    let archive = good.docker_archive();
    let mut flipped = archive.clone();
    let place = flipped.windows(7).position(|w| w == b"content").unwrap();
    flipped[place] ^= 1;
    let canary = berth.directory.join("canary");
    let up = format!("{}x", "../".repeat(20));
    for (what, bytes) in [
        ("truncated", archive[..archive.len() / 2].to_vec()),
        ("mis-digested", flipped),
        ("no archive", b"this is no archive".to_vec()),
        ("empty", Vec::new()),
        (
            "manifest only",
            berth_testkit::archive::outer(&[(
                "manifest.json".to_owned(),
                br#"[{"Config":"../../etc/passwd","RepoTags":["x:y"],"Layers":[]}]"#.to_vec(),
            )]),
        ),
        ("bad reference", Image { reference: "UPPER//case".to_owned(), ..good.clone() }.docker_archive()),
        (
            "duplicate documents",
            berth_testkit::archive::outer(&[
                ("manifest.json".to_owned(), b"[]".to_vec()),
                ("manifest.json".to_owned(), b"[{}]".to_vec()),
            ]),
        ),
    ] {
        let refused = berth.load(&bytes);
        assert_ne!(refused.code, 0, "{what}: {refused:?}");
        assert!(!refused.stderr.is_empty(), "{what}");
        assert_eq!(inventory(&berth), before, "{what} left something");
    }
    let through_link = Image::new("link:latest").layer(vec![
        LayerFile::symlink("out", canary.to_str().unwrap()),
        LayerFile::text("out/f", "x"),
        LayerFile::text("g", &up),
    ]);
    berth.load(&through_link.docker_archive());
    assert!(!canary.exists(), "nothing is written through a link to the host");
}

/// A port in use: names the port and who has it; the container is not left running.
#[test]
fn port_in_use() {
    let berth = Instance::with_busybox();
    berth.sleeper("first", &["-p", "127.0.0.1:45871:80"]);
    let refused =
        berth.berth(&["run", "-d", "--name", "second", "-p", "127.0.0.1:45871:80", "busybox", "sleep", "1000"]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("45871"), "{refused:?}");
    assert_ne!(berth.inspect("second", "{{.State.Status}}"), "running");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let refused = berth.berth(&["run", "--rm", "-p", &format!("127.0.0.1:{port}:80"), "busybox", "true"]);
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains(&port.to_string()), "{refused:?}");
}

/// Errors read as: what failed, because of what, and what to do.
#[test]
fn errors_have_a_shape() {
    let berth = Instance::start();
    let missing = berth.berth(&["run", "--rm", "--pull", "never", "busybox", "true"]);
    assert_eq!(missing.code, 125);
    assert!(missing.stderr.starts_with("error: "), "{missing:?}");
    assert!(missing.stderr.contains("busybox") && missing.stderr.contains("hint: "), "{missing:?}");
    let mut nobody = std::process::Command::new(berth_testkit::peers::binaries().join("berth"));
    nobody.args(["-H", "unix:///no/such.sock", "ps"]);
    let nobody = berth_testkit::instance::run(nobody, b"");
    assert_ne!(nobody.code, 0);
    assert!(nobody.stderr.contains("/no/such.sock"), "{nobody:?}");
    assert_eq!(berth.berth(&["run", "--no-such-flag", "x"]).code, 125);
}
