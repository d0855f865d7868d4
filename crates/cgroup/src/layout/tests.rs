use super::*;

const HYBRID_MOUNTS: &str = "\
23 1 254:0 / / rw - ext4 /dev/root rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
99 31 0:32 /docker/a /mnt/a\\040b rw - cgroup cgroup rw,memory
";
const HYBRID_SELF: &str = "3:memory:/user/one\n2:cpu,cpuacct:/\n1:name=systemd:/init.scope\n0::/init.scope\n";

#[test]
fn hybrid_names_every_hierarchy_once() {
    let layout = Layout::parse(HYBRID_MOUNTS, HYBRID_SELF).unwrap();
    assert_eq!(layout.version, Version::Hybrid);
    assert_eq!(layout.version_text(), "1");
    let found: Vec<_> = layout
        .hierarchies
        .iter()
        .map(|h| (h.mount.to_str().unwrap(), h.controllers.join(" "), h.own.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("/sys/fs/cgroup/cpu,cpuacct", "cpu cpuacct".to_owned(), "/"),
            ("/sys/fs/cgroup/memory", "memory".to_owned(), "/user/one"),
            ("/sys/fs/cgroup/systemd", "name=systemd".to_owned(), "/init.scope"),
        ]
    );
    let unified = layout.unified.as_ref().unwrap();
    assert_eq!((unified.mount.to_str().unwrap(), unified.own.as_str()), ("/sys/fs/cgroup/unified", "/init.scope"));
    assert_eq!(layout.home(Controller::Cpuacct), Some(Home::V1(0)));
    assert_eq!(layout.home(Controller::Memory), Some(Home::V1(1)));
    assert_eq!(layout.home(Controller::Freezer), Some(Home::V2));
    assert_eq!(layout.home(Controller::Pids), None);
    assert!(!layout.has(Controller::NetCls));
}

#[test]
fn pure_v2_and_pure_v1_and_none() {
    let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
    let mut layout = Layout::parse(v2, "0::/system.slice/berthd.service\n").unwrap();
    assert_eq!((layout.version, layout.version_text()), (Version::V2, "2"));
    assert_eq!(layout.unified.as_ref().unwrap().own, "/system.slice/berthd.service");
    assert!(!layout.has(Controller::Memory) && layout.has(Controller::Devices) && layout.has(Controller::Cpuacct));
    layout.unified.as_mut().unwrap().controllers = vec!["memory".into(), "io".into()];
    assert!(layout.has(Controller::Memory) && layout.has(Controller::BlockIo) && !layout.has(Controller::NetPrio));

    let v1 = "32 31 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
    assert_eq!(Layout::parse(v1, "8:pids:/\n").unwrap().version, Version::V1);
    assert!(matches!(Layout::parse("", ""), Err(CgroupError::NotMounted)));
    assert!(matches!(Layout::parse("23 1 254:0 / / rw - ext4 /dev/root rw\n", "0::/\n"), Err(CgroupError::NotMounted)));
}

#[test]
fn own_path_counts_from_the_mounted_part() {
    let bind = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
    for (membership, own) in [
        ("0::/docker/abc/x\n", "/x"),
        ("0::/docker/abc\n", "/"),
        ("0::/docker/abcd\n", "/"),
        ("0::/../..\n", "/"),
        ("", "/"),
    ] {
        assert_eq!(Layout::parse(bind, membership).unwrap().unified.unwrap().own, own, "{membership}");
    }
}

#[test]
fn damaged_lines_are_passed_over() {
    for text in ["\n", " - \n", "1 2 3 - cgroup\n", "1 2 3:4 / /x rw - cgroup2\n", "\\04 - cgroup2 x y", "x\\777 - - -"]
    {
        drop(Layout::parse(text, text));
    }
}
