//! User namespaces, owners, users and groups.

use std::fs;
use std::os::unix::fs::MetadataExt;

use berth_types::{Classify, ErrorClass};
use serde_json::json;

use crate::support::{Bundle, pipes};

fn status_line(pid: u32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned()
}

/// S-021, S-022
pub(super) fn s021_s022_ids_are_mapped() {
    let mut bundle = Bundle::new().user_ns().overlay().sh("id -u; id -g; echo up; sleep 60");
    bundle.spec["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [10, 20]});
    let running = bundle.start();
    assert_eq!(running.await_line("up"), "0\n0\nup\n");
    let pid = running.container.init.pid;
    assert_eq!(status_line(pid, "Uid:"), "100000\t100000\t100000\t100000");
    assert_eq!(status_line(pid, "Gid:"), "200000\t200000\t200000\t200000");
    assert_eq!(status_line(pid, "Groups:"), "200000 200010 200020");
    let words = |file: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(words("uid_map"), ["0", "100000", "65536"]);
    assert_eq!(words("gid_map"), ["0", "200000", "65536"]);
    assert_eq!(words("setgroups"), ["allow"]);
    running.container.delete().unwrap();
}

/// S-023: image files look root-owned with nothing chowned; a new file has the mapped owner as the host sees it.
pub(super) fn s023_owners_without_chown() {
    let host = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(host.path(), Some(100_000), Some(200_000)).unwrap();
    let mut bundle = Bundle::new().user_ns().overlay();
    bundle = bundle
        .mount(json!({"destination": "/volume", "type": "bind", "source": host.path(), "options": ["rbind"]}))
        .sh("stat -c '%u %g' /etc/passwd; touch /made /volume/made; stat -c '%u %g' /made; echo x >> /etc/group; echo up; sleep 60");
    let running = bundle.start();
    assert_eq!(running.await_line("up"), "0 0\n0 0\nup\n");
    let owner = |path: &str| {
        let stat = fs::metadata(path).unwrap();
        (stat.uid(), stat.gid())
    };
    let seen = format!("/proc/{}/root/made", running.container.init.pid);
    assert_eq!(owner(&seen), (100_000, 200_000));
    assert_eq!(owner(host.path().join("made").to_str().unwrap()), (100_000, 200_000));
    // On disk neither layer has changed owners: the layer can be committed as it is.
    assert_eq!(owner(bundle.rootfs().join("etc/passwd").to_str().unwrap()), (0, 0));
    assert_eq!(owner(bundle.dir.path().join("pair/upper/made").to_str().unwrap()), (0, 0));
    assert_eq!(owner(bundle.dir.path().join("pair/upper/etc/group").to_str().unwrap()), (0, 0));
    running.container.delete().unwrap();
}

/// S-023
pub(super) fn s023_id_mapped_bind() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("f"), "").unwrap();
    let mapping = json!([{"containerID": 0, "hostID": 5000, "size": 100}]);
    let text = Bundle::new()
        .mount(json!({"destination": "/v", "type": "bind", "source": host.path(), "options": ["rbind", "ridmap"],
            "uidMappings": mapping, "gidMappings": mapping}))
        .sh("stat -c '%u %g' /v/f")
        .output();
    assert_eq!(text, "5000 5000\n");
    let text = Bundle::new()
        .user_ns()
        .overlay()
        .mount(json!({"destination": "/v", "type": "bind", "source": host.path(), "options": ["rbind", "idmap"]}))
        .sh("stat -c '%u %g' /v/f; touch /v/g")
        .output();
    assert_eq!(text, "0 0\n");
    assert_eq!(fs::metadata(host.path().join("g")).unwrap().uid(), 0);
}

pub(super) fn names_are_looked_up_inside() {
    let text = Bundle::new().set("/process/user/username", json!("web")).sh("id -u; id -g; id -G; echo $HOME").output();
    assert_eq!(text, "33\n34\n34 50\n/srv\n");
    let text = Bundle::new()
        .set("/process/user/username", json!("web:log"))
        .set("/process/env", json!(["PATH=/bin", "HOME=/elsewhere"]))
        .sh("id -u; id -G; echo $HOME")
        .output();
    assert_eq!(text, "33\n50\n/elsewhere\n");
}

pub(super) fn groups_are_exact() {
    let text = Bundle::new()
        .set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [7, 8]}))
        .sh("id -u; grep Groups /proc/self/status")
        .output();
    assert_eq!(text, "1000\nGroups:\t7 8 1000 \n");
    let text = Bundle::new()
        .set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .sh("grep -E '^(Groups|Gid)' /proc/self/status")
        .output();
    assert_eq!(text, "Gid:\t1000\t1000\t1000\t1000\nGroups:\t \n");
    let text = Bundle::new()
        .set("/process/user/username", json!("web"))
        .set("/annotations", json!({"dev.berth.group-add": "root,77"}))
        .sh("id -G")
        .output();
    assert_eq!(text, "34 0 50 77\n");
}

pub(super) fn unknown_users_are_refused() {
    for (user, class) in [("nobody-such", ErrorClass::NotFound), ("4294967296", ErrorClass::InvalidArgument)] {
        let mut bundle = Bundle::new().set("/process/user/username", json!(user));
        let (stdio, _output) = pipes();
        let error = bundle.create_with(stdio, &mut Vec::new()).unwrap_err();
        assert_eq!(error.class(), class, "{}", berth_types::report(&error));
    }
}
