//! The root file system, what is hidden in it, and the devices.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::bundle::Container;
use crate::runtime::{Outcome, Runtime};

pub fn read_only_root(runtime: &Runtime) -> Outcome {
    let mut container =
        Container::with_script(runtime, "touch /data/x 2>/dev/null && echo wrote; touch /dev/shm/x && echo shm");
    assert_eq!(container.run().ok(), "wrote\nshm");
    container.set("/root/readonly", json!(true));
    assert_eq!(container.run().ok(), "shm");
    Ok(())
}

pub fn masked_paths(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "cat /data/secret; ls /data/folder; cat /proc/meminfo | wc -c");
    fs::write(container.rootfs().join("data/secret"), "secret").unwrap();
    fs::create_dir(container.rootfs().join("data/folder")).unwrap();
    fs::write(container.rootfs().join("data/folder/secret"), "").unwrap();
    container.set("/linux/maskedPaths", json!(["/data/secret", "/data/folder", "/proc/meminfo", "/no/such/path"]));
    assert_eq!(container.run().ok(), "0");
    Ok(())
}

pub fn read_only_paths(runtime: &Runtime) -> Outcome {
    let script =
        "touch /data/x 2>/dev/null || echo refused; echo 1 2>/dev/null >/proc/sys/kernel/printk || echo refused";
    let mut container = Container::with_script(runtime, script);
    container.set("/linux/readonlyPaths", json!(["/data", "/proc/sys", "/no/such/path"]));
    assert_eq!(container.run().ok(), "refused\nrefused");
    Ok(())
}

pub fn default_devices(runtime: &Runtime) -> Outcome {
    let script = "for d in null zero full random urandom tty; do stat -c '%n %t %T %a %F' /dev/$d; done; \
                  echo lost >/dev/null; head -c 3 /dev/zero | wc -c; echo x 2>/dev/null >/dev/full || echo full";
    let container = Container::with_script(runtime, script);
    let said = container.run().ok().to_owned();
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        assert!(said.contains(&format!("/dev/{name} {major} {minor} 666 character special file")), "{said}");
    }
    assert!(said.ends_with("3\nfull"), "{said}");
    Ok(())
}

pub fn further_devices(runtime: &Runtime) -> Outcome {
    let script =
        "for d in one pipe deep/two; do stat -c '%n %t %T %a %u %g %F' /dev/$d; done; head -c 2 /dev/one | wc -c";
    let mut container = Container::with_script(runtime, script);
    container.set(
        "/linux/devices",
        json!([
            {"path": "/dev/one", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600, "uid": 1, "gid": 2},
            {"path": "/dev/deep/two", "type": "b", "major": 7, "minor": 200},
        ]),
    );
    container
        .push("/linux/resources/devices", json!({"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"}));
    let said = container.run().ok().to_owned();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "/dev/one 1 5 640 7 8 character special file");
    assert_eq!(lines[1], "/dev/pipe 0 0 600 1 2 fifo");
    assert!(lines[2].starts_with("/dev/deep/two 7 c8 ") && lines[2].ends_with("block special file"), "{said}");
    assert_eq!(lines[3], "2");
    Ok(())
}

pub fn default_links(runtime: &Runtime) -> Outcome {
    let script = "for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; echo through >/dev/stdout";
    let container = Container::with_script(runtime, script);
    let said = container.run().ok().to_owned();
    assert!(said.starts_with("/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n"), "{said}");
    assert!(said.contains("pts/ptmx") && said.ends_with("through"), "{said}");
    Ok(())
}

pub fn root_may_be_absolute(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "ls /mark");
    let elsewhere = container.directory.join("elsewhere");
    fs::rename(container.rootfs(), &elsewhere).unwrap();
    fs::write(elsewhere.join("mark"), "").unwrap();
    container.set("/root/path", json!(elsewhere));
    assert_eq!(container.run().ok(), "/mark");
    Ok(())
}

pub fn root_propagation(runtime: &Runtime) -> Outcome {
    let mut container = Container::with_script(runtime, "cut -d' ' -f5- /proc/self/mountinfo | grep -c '^/ .*shared:'");
    // Whether a shared root stays shared depends on the host's own mounts in runc 1.1; that a private one is, does not.
    for propagation in ["private", "rslave"] {
        container.set("/linux/rootfsPropagation", json!(propagation));
        assert_eq!(container.run().stdout.trim(), "0", "{propagation}");
    }
    container.set("/linux/rootfsPropagation", json!("nonsense"));
    assert_ne!(container.run().stdout.trim(), "0", "it must not run");
    Ok(())
}

pub fn no_pivot(runtime: &Runtime) -> Outcome {
    let container = Container::with_script(runtime, "ls /mark; ls / | wc -l");
    fs::write(container.rootfs().join("mark"), "").unwrap();
    container.write_config();
    let output = container.run_command(&["--no-pivot"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("/mark\n"), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::metadata(container.rootfs().join("mark")).unwrap().size(), 0);
    Ok(())
}
