//! The program as its users call it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

fn hello(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hello"));
    command.args(words).env_clear().stdin(Stdio::null());
    command
}

fn output(words: &[&str]) -> Output {
    hello(words).output().expect("hello runs")
}

#[test]
fn statuses() {
    assert_eq!(output(&["true"]).status.code(), Some(0));
    assert_eq!(output(&["exit", "7"]).status.code(), Some(7));
    for wrong in [&["exit", "256"][..], &["exit"], &["sleep", "long"], &["nonsense"], &["--json", "x"]] {
        let output = output(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty() && output.stderr.starts_with(b"usage: hello"), "{wrong:?}");
    }
}

#[test]
fn words_and_bytes_come_back() {
    assert_eq!(output(&["echo", "a", "b  c"]).stdout, b"a b  c\n");
    assert_eq!(output(&["echo"]).stdout, b"\n");
    let mut child = hello(&["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("hello runs");
    child.stdin.take().expect("it is a pipe").write_all(b"\x00\xffbytes").expect("hello reads");
    assert_eq!(child.wait_with_output().expect("hello ends").stdout, b"\x00\xffbytes");
    assert!(output(&["sleep", "0.01"]).status.success());
}

#[test]
fn the_page_is_plain_when_nobody_looks() {
    let output = output(&[]);
    assert!(output.status.success());
    let page = String::from_utf8(output.stdout).expect("the page is text");
    assert!(!page.contains('\x1b'), "{page}");
    for title in ["Process", "Namespaces", "Mounts", "Cgroups", "Privileges", "Network"] {
        assert!(page.lines().any(|line| line.starts_with(title)), "{title}: {page}");
    }
}

#[test]
fn programs_get_the_same_as_json() {
    let inode = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("namespaces are listed");
        let text = link.display().to_string();
        text[kind.len() + 2..text.len() - 1].parse::<u64>().expect("a number")
    };
    let told = format!("mnt={},uts=1", inode("mnt"));
    let output = hello(&["--json"]).env("BERTH_HOST_NS", told).output().expect("hello runs");
    let facts: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    for kind in ["mnt", "uts", "pid", "net", "user", "ipc", "cgroup", "time"] {
        assert_eq!(facts["namespaces"][kind]["inode"], inode(kind), "{kind}");
    }
    assert_eq!(facts["namespaces"]["mnt"]["own"], false);
    assert_eq!(facts["namespaces"]["uts"]["own"], true);
    assert_eq!(facts["process"]["environment_count"], 1);
    // Whoever runs the tests may leave it more than three.
    assert_eq!(facts["process"]["open_fds"][0]["target"], "/dev/null");
    assert_eq!(facts["process"]["open_fds"][2]["fd"], 2);
    let status = std::fs::read_to_string("/proc/self/status").expect("it has a status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("it has capabilities");
    let count = u64::from_str_radix(effective, 16).expect("hexadecimal").count_ones();
    let names = facts["privileges"]["capabilities"]["effective"].as_array().expect("a list");
    assert_eq!(u32::try_from(names.len()), Ok(count));
}
