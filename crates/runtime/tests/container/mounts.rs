//! Mounts of the spec, devices, hidden and read-only paths, the root itself.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::mount::MountFlags;
use serde_json::json;

use crate::support::Bundle;

fn bind(source: &std::path::Path, destination: &str, options: &[&str]) -> serde_json::Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// S-014
pub(super) fn s014_bind_mounts_both_ways() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("f"), "from host\n").unwrap();
    let inode = fs::metadata(host.path().join("f")).unwrap().ino();
    let text = Bundle::new()
        .mount(bind(host.path(), "/x/y", &["rbind", "rprivate"]))
        .sh("cat /x/y/f; stat -c %i /x/y/f; echo inside > /x/y/g")
        .output();
    assert_eq!(text, format!("from host\n{inode}\n"));
    assert_eq!(fs::read_to_string(host.path().join("g")).unwrap(), "inside\n");
}

/// S-014
pub(super) fn s014_read_only_is_recursive_when_asked() {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("sub")).unwrap();
    rustix::mount::mount("tmpfs", host.path().join("sub"), "tmpfs", MountFlags::empty(), None).unwrap();
    let script = "touch /x/a; touch /x/sub/a";
    let (code, text) = Bundle::new().mount(bind(host.path(), "/x", &["rbind", "ro"])).sh(script).run();
    assert_eq!((code, text.as_str()), (0, "touch: /x/a: Read-only file system\n"));
    let (code, text) = Bundle::new().mount(bind(host.path(), "/x", &["rbind", "rro"])).sh(script).run();
    assert_eq!(
        (code, text.as_str()),
        (1, "touch: /x/a: Read-only file system\ntouch: /x/sub/a: Read-only file system\n")
    );
    rustix::mount::unmount(host.path().join("sub"), rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// S-053
pub(super) fn s053_default_devices() {
    let script = "ls /dev; stat -c '%n %F %t:%T %a' /dev/null /dev/zero /dev/full /dev/tty /dev/random /dev/urandom; \
                  for l in fd stdin ptmx; do readlink /dev/$l; done; mknod /tmp/disk b 8 0 && dd if=/tmp/disk of=/dev/null count=1";
    let mut bundle = Bundle::new().sh(script);
    for set in ["bounding", "effective", "permitted"] {
        bundle.spec["process"]["capabilities"][set] = json!(["CAP_MKNOD"]);
    }
    let (code, text) = bundle.run();
    let expected = "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n\
        /dev/null character special file 1:3 666\n/dev/zero character special file 1:5 666\n\
        /dev/full character special file 1:7 666\n/dev/tty character special file 5:0 666\n\
        /dev/random character special file 1:8 666\n/dev/urandom character special file 1:9 666\n\
        /proc/self/fd\n/proc/self/fd/0\npts/ptmx\ndd: can't open '/tmp/disk': Operation not permitted\n";
    assert_eq!(text, expected);
    assert_eq!(code, 1);
}

pub(super) fn tmpfs_takes_its_options() {
    let text = Bundle::new()
        .mount(json!({"destination": "/scratch", "type": "tmpfs", "source": "t",
            "options": ["size=64k", "mode=1770", "uid=5", "gid=6", "noexec", "nosuid", "nodev"]}))
        .sh("grep ' /scratch ' /proc/mounts | cut -d' ' -f1,3,4; stat -c '%a %u %g' /scratch; \
             dd if=/dev/zero of=/scratch/big bs=1k count=100 2>&1 | head -1")
        .output();
    let expected = "t tmpfs rw,nosuid,nodev,noexec,relatime,size=64k,mode=1770,uid=5,gid=6\n1770 5 6\n\
        dd: error writing '/scratch/big': No space left on device\n";
    assert_eq!(text, expected);
}

pub(super) fn tmpcopyup_keeps_what_it_hides() {
    let mut bundle = Bundle::new();
    let data = bundle.rootfs().join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("sub/file"), "kept\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", data.join("link")).unwrap();
    bundle = bundle
        .mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]}))
        .sh("cat /data/sub/file; readlink /data/link; touch /data/new");
    assert_eq!(bundle.run(), (1, "kept\n/etc/passwd\ntouch: /data/new: Read-only file system\n".to_owned()));
}

pub(super) fn masked_and_read_only_paths() {
    let mut bundle = Bundle::new();
    fs::create_dir(bundle.rootfs().join("secret")).unwrap();
    fs::write(bundle.rootfs().join("secret/key"), "key").unwrap();
    bundle.spec["linux"]["maskedPaths"] = json!(["/secret", "/etc/group", "/proc/timer_list", "/not/there"]);
    let text = bundle
        .sh("ls /secret | wc -l; wc -c < /etc/group; wc -c < /proc/timer_list; touch /secret/x; echo 1 > /proc/sys/vm/swappiness; \
             stat -c %t:%T /etc/group")
        .output();
    let expected = "0\n0\n0\ntouch: /secret/x: Read-only file system\n\
        /bin/sh: can't create /proc/sys/vm/swappiness: Read-only file system\n1:3\n";
    assert_eq!(text, expected);
}

pub(super) fn read_only_root() {
    let bundle = Bundle::new().set("/root/readonly", json!(true)).sh("touch /file; touch /dev/shm/file && echo fine");
    let rootfs = bundle.rootfs();
    assert_eq!({ bundle }.run(), (0, "touch: /file: Read-only file system\nfine\n".to_owned()));
    assert!(!rootfs.join("file").exists());
}

pub(super) fn overlay_root() {
    let mut bundle = Bundle::new().overlay().sh("echo changed > /etc/passwd; rm /etc/group; touch /new");
    bundle.output();
    let upper = bundle.dir.path().join("pair/upper");
    assert_eq!(fs::read_to_string(upper.join("etc/passwd")).unwrap(), "changed\n");
    assert!(upper.join("new").exists());
    assert!(bundle.rootfs().join("etc/group").exists());
    assert!(fs::read_to_string(bundle.rootfs().join("etc/passwd")).unwrap().starts_with("root:"));
}

pub(super) fn missing_targets_are_made() {
    let host = tempfile::NamedTempFile::new().unwrap();
    fs::write(host.path(), "content\n").unwrap();
    let text = Bundle::new()
        .overlay()
        .mount(bind(host.path(), "/made/by/us/file", &["bind", "ro"]))
        .sh("cat /made/by/us/file; pwd")
        .set("/process/cwd", json!("/made/cwd"))
        .output();
    assert_eq!(text, "content\n/made/cwd\n");
}

pub(super) fn file_binds_propagation() {
    let host = tempfile::tempdir().unwrap();
    use rustix::mount::MountPropagationFlags;
    rustix::mount::mount("tmpfs", host.path(), "tmpfs", MountFlags::empty(), None).unwrap();
    rustix::mount::mount_change(host.path(), MountPropagationFlags::SHARED).unwrap();
    let text = Bundle::new()
        .mount(bind(host.path(), "/private", &["rbind", "rprivate"]))
        .mount(bind(host.path(), "/slave", &["rbind", "rslave"]))
        .mount(bind(host.path(), "/default", &["rbind"]))
        .mount(bind(host.path(), "/shared", &["rbind", "rshared"]))
        .sh("for m in private slave default shared; do \
             grep -E \" /$m \" /proc/self/mountinfo | sed 's/.*relatime//; s/ - .*//; s/:[0-9]*//' ; done")
        .output();
    assert_eq!(text, "\n master\n master\n shared\n");
    rustix::mount::unmount(host.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

pub(super) fn sysctls_of_own_namespaces() {
    let host = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let text = Bundle::new()
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "65536", "fs.mqueue.msg_max": "7"}))
        .sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/sys/fs/mqueue/msg_max")
        .output();
    assert_eq!(text, "1\n65536\n7\n");
    assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), host);
}

pub(super) fn cgroup_mount_shows_the_limits() {
    let text = Bundle::new()
        .set(
            "/linux/resources",
            json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 20}, "cpu": {"shares": 512}}),
        )
        .sh("cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.shares 2>/dev/null || \
             cat memory.max pids.max; touch x; echo 1 > pids/pids.max")
        .run()
        .1;
    let expected = "67108864\n20\n512\ntouch: x: Read-only file system\n\
        /bin/sh: can't create pids/pids.max: Read-only file system\n";
    assert_eq!(text, expected);
}
