//! What a newcomer meets: default paths, no daemon running, nothing configured.

use std::process::Command;

use berth_testkit::{instance, peers};

/// Runs `script` as root of a machine where nothing of ours was ever used: `/run`, `/var/lib`, `/etc` and the network are its own,
/// `$BIN` and `$HOME` are set, and what it started ends with it. The control groups lie below the tests' parent.
fn on_a_fresh_machine(name: &str, script: &str) -> instance::Output {
    let directory =
        std::path::PathBuf::from(std::env::var_os("BERTH_TEST_ROOT").expect("run by tests/run.sh")).join(name);
    std::fs::create_dir_all(directory.join("etc/up/berth")).unwrap();
    std::fs::create_dir_all(directory.join("etc/work")).unwrap();
    std::fs::write(directory.join("etc/up/berth/config.toml"), format!("cgroup-parent = \"/berth-test/{name}\"\n"))
        .unwrap();
    let prelude = "set -eu
        mount -t tmpfs run /run; mount -t tmpfs lib /var/lib; ip link set lo up 2>/dev/null || true
        mount -t overlay -o lowerdir=/etc,upperdir=$DIR/etc/up,workdir=$DIR/etc/work etc /etc\n";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--propagation", "private", "--kill-child"]);
    command.args(["sh", "-c", &format!("{prelude}{script}")]);
    command
        .env("DIR", &directory)
        .env("BIN", peers::binaries())
        .env("HOME", directory.join("etc"))
        .env_remove("BERTH_HOST");
    let done = instance::run(command, b"");
    std::fs::remove_dir_all(&directory).unwrap();
    done
}

/// The first command starts the daemon, several at the same time start one, and containers work with no flag at all.
#[test]
fn the_first_command_starts_the_daemon() {
    let done = on_a_fresh_machine(
        "autostart",
        r#"
        count() { n=0; for comm in /proc/[0-9]*/comm; do read -r c <"$comm" && [ "$c" = berthd ] && n=$((n+1)); done; echo "daemons: $n"; }
        count
        for i in 1 2 3 4; do "$BIN/berth" ps >/dev/null & p="${p:-} $!"; done
        for i in $p; do wait "$i"; done
        count
        "$BIN/berth" run --rm --network none hello true
        ls /run/berth/docker.sock /run/berth/containerd.sock
        test -d /var/lib/berth/content && echo "root: /var/lib/berth"
        for comm in /proc/[0-9]*/comm; do read -r c <"$comm" && [ "$c" = berthd ] && { d=${comm#/proc/}; d=${d%/comm}; kill "$d"; while [ -d "/proc/$d" ]; do :; done; }; done
        count
        "$BIN/berth" images -q | grep -c . || true
        count
        "#,
    );
    assert_eq!(done.code, 0, "{done:?}");
    for line in ["daemons: 0", "/run/berth/docker.sock", "/run/berth/containerd.sock", "root: /var/lib/berth"] {
        assert!(done.stdout.lines().any(|l| l == line), "{line}: {done:?}");
    }
    let counts: Vec<&str> = done.stdout.lines().filter(|line| line.starts_with("daemons")).collect();
    assert_eq!(counts, ["daemons: 0", "daemons: 1", "daemons: 0", "daemons: 1"], "{done:?}");
}

/// A daemon that cannot start tells the client why; one that is named is not started by itself.
#[test]
fn a_daemon_that_cannot_start_says_why() {
    let done = on_a_fresh_machine(
        "autofail",
        r#"echo 'nonsense = 1' >>/etc/berth/config.toml; "$BIN/berth" ps && exit 3; "$BIN/berth" -H unix:///run/other/docker.sock ps && exit 4; exit 0"#,
    );
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("nonsense"), "the key at fault is named: {done:?}");
    assert!(done.stderr.contains("/run/other/docker.sock") && done.stderr.contains("hint: "), "{done:?}");
}
