//! runtime-spec config, "Mounts", with the options of "Linux mount options".

use std::fs;

use serde_json::json;

use crate::bundle::Container;
use crate::cgroup;
use crate::runtime::{Outcome, Runtime};

pub fn binds(runtime: &Runtime) -> Outcome {
    let mut container =
        Container::with_script(runtime, "cat /in/file; echo out >/in/made; touch /ro/x 2>/dev/null || echo refused");
    let folder = container.host_folder("host");
    fs::write(folder.join("file"), "inside\n").unwrap();
    let source = folder.to_str().unwrap().to_owned();
    container.mount("/in", "bind", &source, &["bind"]).mount("/ro", "none", &source, &["rbind", "ro"]);
    assert_eq!(container.run().ok(), "inside\nrefused");
    assert_eq!(fs::read_to_string(folder.join("made")).unwrap(), "out\n");
    Ok(())
}

pub fn bind_of_a_file(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "cat /etc/new/file /data/there");
    let file = container.host_folder("host").join("file");
    fs::write(&file, "text\n").unwrap();
    fs::write(container.rootfs().join("data/there"), "covered\n").unwrap();
    let source = file.to_str().unwrap().to_owned();
    container.mount("/etc/new/file", "bind", &source, &["bind"]).mount("/data/there", "bind", &source, &["bind", "ro"]);
    assert_eq!(container.run().ok(), "text\ntext");
    Ok(())
}

pub fn missing_source_is_refused(runtime: &Runtime) -> Outcome {
    let mut container = Container::new(runtime);
    container.mount("/in", "bind", "/no/such/source", &["bind"]);
    let output = container.run();
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains("/no/such/source") || output.stderr.contains("no such file"), "{}", output.stderr);
    assert!(!cgroup::is_left(&container));
    Ok(())
}

pub fn tmpfs_with_options(runtime: &Runtime) -> Outcome {
    let script = "stat -c '%a %u %g' /t; grep ' /t ' /proc/self/mounts; dd if=/dev/zero of=/t/x bs=1k count=200 2>&1 | grep -c space";
    let mut container = Container::with_script(runtime, script);
    container.mount("/t", "tmpfs", "tmpfs", &["size=64k", "mode=1770", "uid=5", "gid=6", "nosuid", "nodev", "noexec"]);
    let said = container.run().ok().to_owned();
    assert!(said.starts_with("1770 5 6\n"), "{said}");
    assert!(said.contains("nosuid,nodev,noexec") && said.contains("size=64k"), "{said}");
    assert!(said.ends_with('1'), "{said}");
    Ok(())
}

pub fn attributes(runtime: &Runtime) -> Outcome {
    let script = "for m in a b c d; do grep \" /$m \" /proc/self/mounts | cut -d' ' -f4; done";
    let mut container = Container::with_script(runtime, script);
    let source = container.host_folder("host").to_str().unwrap().to_owned();
    container
        .mount("/a", "bind", &source, &["bind", "nosuid", "nodev", "noexec", "ro"])
        .mount("/b", "bind", &source, &["bind", "noatime"])
        .mount("/c", "tmpfs", "tmpfs", &["noatime", "nodiratime"])
        .mount("/d", "tmpfs", "tmpfs", &["ro", "rw", "nosuid", "suid"]);
    let said = container.run().ok().to_owned();
    let lines: Vec<&str> = said.lines().collect();
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(lines[0].split(',').any(|o| o == option), "{said}");
    }
    assert!(lines[1].contains("noatime") && lines[1].starts_with("rw"), "{said}");
    assert!(lines[2].contains("noatime") && lines[2].contains("nodiratime"), "{said}");
    assert!(lines[3].starts_with("rw") && !lines[3].contains("nosuid"), "{said}");
    Ok(())
}

/// A tmpfs of the case's own below a folder of the host, unmounted at its end.
struct HostMount(std::path::PathBuf);

impl HostMount {
    fn tmpfs(path: std::path::PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        let done = std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&path).status().unwrap();
        assert!(done.success());
        Self(path)
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        let _gone = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

pub fn recursive_read_only(runtime: &Runtime) -> Outcome {
    runtime.needs("/mountOptions", "rro")?;
    let script = "touch /plain/sub/x 2>/dev/null && echo plain; touch /all/sub/x 2>/dev/null || echo refused";
    let mut container = Container::with_script(runtime, script);
    let folder = container.host_folder("host");
    let _below = HostMount::tmpfs(folder.join("sub"));
    let source = folder.to_str().unwrap().to_owned();
    container.mount("/plain", "bind", &source, &["rbind", "ro"]).mount("/all", "bind", &source, &["rbind", "rro"]);
    assert_eq!(container.run().ok(), "plain\nrefused");
    Ok(())
}

pub fn later_mounts_lie_on_top(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "ls /t /t/in");
    let source = container.host_folder("host");
    fs::write(source.join("file"), "").unwrap();
    container.mount("/t", "tmpfs", "tmpfs", &[]).mount("/t/in", "bind", source.to_str().unwrap(), &["bind"]);
    assert_eq!(container.run().ok(), "/t:\nin\n\n/t/in:\nfile");
    Ok(())
}

pub fn links_stay_inside(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "ls /data/real");
    let outside = container.host_folder("outside");
    std::os::unix::fs::symlink("/data/real", container.rootfs().join("link")).unwrap();
    std::os::unix::fs::symlink(&outside, container.rootfs().join("away")).unwrap();
    let source = container.host_folder("host");
    fs::write(source.join("file"), "").unwrap();
    let source = source.to_str().unwrap().to_owned();
    container.mount("/link", "bind", &source, &["bind"]).mount("/away/deep", "bind", &source, &["bind"]);
    assert_eq!(container.run().ok(), "file");
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0, "nothing may be made on the host");
    Ok(())
}

pub fn propagation(runtime: &Runtime) -> Outcome {
    let script = "for m in a b c; do grep \" /$m \" /proc/self/mountinfo | grep -o 'shared\\|master\\|unbindable' | tr '\\n' ' '; echo; done";
    let mut container = Container::with_script(runtime, script);
    let source = container.host_folder("host").to_str().unwrap().to_owned();
    container
        .mount("/a", "bind", &source, &["bind", "rshared"])
        .mount("/b", "bind", &source, &["bind", "rprivate"])
        .mount("/c", "bind", &source, &["bind", "unbindable"]);
    let said = container.run().ok().to_owned();
    let lines: Vec<&str> = said.split('\n').collect();
    assert!(lines[0].contains("shared"), "{said:?}");
    assert_eq!(lines[1].trim(), "", "{said:?}");
    assert!(lines[2].contains("unbindable"), "{said:?}");
    Ok(())
}

pub fn tmpcopyup(runtime: &Runtime) -> Outcome {
    runtime.needs("/mountOptions", "tmpcopyup")?;
    let mut container = Container::with_script(runtime, "cat /data/kept; touch /data/new");
    fs::write(container.rootfs().join("data/kept"), "kept").unwrap();
    container.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    assert_eq!(container.run().ok(), "kept");
    assert!(!container.rootfs().join("data/new").exists());
    Ok(())
}

pub fn nothing_reaches_the_host(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "sleep 60");
    let source = container.host_folder("host");
    container.mount("/in", "bind", source.to_str().unwrap(), &["rbind"]).mount("/t", "tmpfs", "tmpfs", &[]);
    container.create_and_start();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = container.directory.to_str().unwrap();
    assert!(!mounts.contains(ours), "the host's mount table names the container");
    Ok(())
}

pub fn cgroup_view(runtime: &Runtime) -> Outcome {
    let file = if cgroup::is_v2() { "cgroup.procs" } else { "pids/cgroup.procs" };
    let mut container = Container::with_script(
        runtime,
        &format!(
            "cat /sys/fs/cgroup/{file} | wc -l; mkdir $(dirname /sys/fs/cgroup/{file})/x 2>/dev/null || echo refused"
        ),
    );
    container.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    container.push("/linux/namespaces", json!({"type": "cgroup"}));
    let said = container.run().ok().to_owned();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].parse::<u32>().unwrap() >= 1, "{said}");
    assert_eq!(lines[1], "refused");
    Ok(())
}

pub fn idmapped_bind(runtime: &Runtime) -> Outcome {
    if runtime.features().pointer("/linux/mountExtensions/idmap/enabled") != Some(&json!(true)) {
        return Err("features do not claim id-mapped mounts".to_owned());
    }
    let mut container = Container::with_script(runtime, "stat -c '%u %g' /in/file");
    let folder = container.host_folder("host");
    fs::write(folder.join("file"), "").unwrap();
    container.mount("/in", "bind", folder.to_str().unwrap(), &["bind"]);
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    let last = container.config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    last["uidMappings"] = map.clone();
    last["gidMappings"] = map;
    assert_eq!(container.run().ok(), "1000 1000");
    Ok(())
}
