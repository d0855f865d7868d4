//! `explain path` of a container: what is mounted over a path, links into it, names that are no text.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use berth_testkit::instance::run;
use berth_testkit::{Image, Instance, LayerFile};

/// S-080, S-102: what is said to be there is there for `test -e` in the container, running and not, below volumes, bind mounts and what the engine mounts.
#[test]
fn s102_paths_below_mounts_and_odd_names() {
    let berth = Instance::start();
    let image = Image::busybox().layer(vec![
        LayerFile::directory("data"),
        LayerFile::text("data/hidden", "1"),
        LayerFile::symlink("way", "data/sub"),
        LayerFile::text("etc/hosts", "of the image"),
        LayerFile::text("scratch/hidden", "1"),
    ]);
    berth.load(&image.docker_archive()).ok();
    let host = berth.directory.join("shared");
    fs::create_dir_all(&host).unwrap();
    fs::write(host.join("there"), "1").unwrap();
    let bind = format!("{}:/host", host.display());
    let options = ["-v", "data:/data", "-v", &bind, "--tmpfs", "/scratch"];
    berth.sleeper("c1", &options);
    berth.berth(&["exec", "c1", "sh", "-c", "mkdir /data/sub; echo 1 > /data/sub/x; echo 1 > /scratch/y"]).ok();
    let explain = |path: &str| -> (String, bool) {
        let story = berth.berth(&["explain", "path", "--json", "c1", path]);
        let story: serde_json::Value = serde_json::from_str(story.ok()).unwrap();
        (story["verdict"].as_str().unwrap().to_owned(), story["is_there"].as_bool().unwrap())
    };
    let host = host.display().to_string();
    let none = "; nothing of that name is in it";
    let hidden = "what layers have there is not seen";
    let cases = [
        // A new volume begins with what the image has there.
        ("/data/hidden", format!("it is in volume data, mounted at /data; {hidden}")),
        ("/data/none", format!("it is in volume data, mounted at /data; {hidden}{none}")),
        ("/data/sub/x", format!("it is in volume data, mounted at /data; {hidden}")),
        ("/way/x", format!("/way -> data/sub, so it is /data/sub/x: it is in volume data, mounted at /data; {hidden}")),
        ("/host/there", format!("it is in {host} of the host, mounted at /host; {hidden}")),
        ("/host/none", format!("it is in {host} of the host, mounted at /host; {hidden}{none}")),
        ("/scratch/y", format!("it is in a tmpfs, mounted at /scratch; {hidden}")),
        ("/scratch/hidden", format!("it is in a tmpfs, mounted at /scratch; {hidden}{none}")),
        ("/etc/hosts", format!("it is in a file that the engine writes, mounted at /etc/hosts; {hidden}")),
        ("/proc/1/status", format!("it is in a proc of the container's own, mounted at /proc; {hidden}")),
        ("/bin/busybox", "it comes from layer 1; nothing was copied".to_owned()),
    ];
    for (path, verdict) in &cases {
        let (said, is_there) = explain(path);
        assert_eq!(said, *verdict, "{path}");
        let seen = berth.berth(&["exec", "c1", "test", "-e", path]).code == 0;
        assert_eq!(is_there, seen, "{path}");
    }
    berth.berth(&["kill", "c1"]).ok();
    berth.berth(&["wait", "c1"]).ok();
    for (path, verdict) in &cases {
        let is_kept = !["a tmpfs", "a proc", "a file that"].iter().any(|kind| verdict.contains(kind));
        let (said, is_there) = explain(path);
        if is_kept {
            assert_eq!((said.as_str(), is_there), (verdict.as_str(), !verdict.ends_with(none)), "{path}");
        } else {
            assert!(said.ends_with("it is there only while the container runs") && !is_there, "{path}: {said}");
        }
    }
    // Bytes that are no text come and go as they are.
    berth.berth(&["run", "--name", "odd", "busybox", "sh", "-c", "echo 1 > /$(printf 'n\\377')"]).ok();
    let ask = |name: &[u8]| {
        let mut command = berth.berth_command(&["explain", "path", "odd"]);
        command.arg(OsStr::from_bytes(name));
        run(command, b"").ok().to_owned()
    };
    assert!(ask(b"/n\xff").starts_with("/n\\xff: the container made it"), "{}", ask(b"/n\xff"));
    assert_eq!(ask(b"/n\xfe"), "/n\\xfe: no layer has ever had it");
    let refused = berth.berth(&["explain", "path", "odd", "/none/../bin"]);
    assert!(refused.code == 125 && refused.stderr.contains("/none/../bin goes up again from /none"), "{refused:?}");
}
