//! The binary as a person meets it: help pages and refusals, exact stdout, stderr and exit code. No daemon is needed.
//!
//! Snapshots are in `tests/snapshots`; `BERTH_UPDATE_SNAPSHOTS=1 cargo test -p berth-cli` writes them anew, to be read in the diff.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn berth<I: AsRef<OsStr>>(words: &[I]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(words)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .current_dir("/")
        .output()
        .unwrap()
}

#[track_caller]
fn check_snapshot(name: &str, found: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("BERTH_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expect = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expect == found, "{} differs from what was found:\n{found}", path.display());
}

/// The verbs as the program's own page lists them, and those of the groups.
fn verbs() -> Vec<String> {
    let listed = |words: &[&str]| -> Vec<String> {
        let page = String::from_utf8(berth(words).stdout).unwrap();
        let commands = page.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
        commands
            .lines()
            .take_while(|line| line.starts_with("  "))
            .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
            .collect()
    };
    let mut verbs = listed(&["--help"]);
    for group in ["container", "image", "network", "system"] {
        verbs.extend(listed(&[group, "--help"]).into_iter().map(|verb| format!("{group} {verb}")));
    }
    verbs
}

#[test]
fn help_pages() {
    check_snapshot("berth.txt", &String::from_utf8(berth(&["--help"]).stdout).unwrap());
    let verbs = verbs();
    assert!(verbs.len() > 70, "{verbs:?}");
    for verb in verbs {
        let words: Vec<&str> = verb.split(' ').chain(["--help"]).collect();
        let output = berth(&words);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        assert!(output.stderr.is_empty(), "{verb}");
        let page = String::from_utf8(output.stdout).unwrap();
        assert!(page.contains("Usage: berth ") && page.contains("Examples:\n"), "{verb}:\n{page}");
        if !verb.contains(' ') {
            check_snapshot(&format!("{verb}.txt"), &page);
        }
    }
}

#[test]
fn both_forms_have_one_page() {
    for (short, long) in
        [("run", "container run"), ("images", "image ls"), ("rmi", "image rm"), ("info", "system info")]
    {
        let page = |words: &str| {
            let words: Vec<&str> = words.split(' ').chain(["--help"]).collect();
            String::from_utf8(berth(&words).stdout).unwrap()
        };
        let flags =
            |page: String| page.split_once("\n\n").unwrap().1.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(flags(page(short)), flags(page(long)));
    }
}

const REFUSED: &[&[&str]] = &[
    &["rnu"],
    &["image", "lss"],
    &["container", "nonsense"],
    &["run"],
    &["run", "--no-such-flag", "img"],
    &["run", "--memory"],
    &["run", "-m", "lots", "img"],
    &["run", "--cpus", "many", "img"],
    &["run", "-p", "99999:80", "img"],
    &["run", "-v", "/tmp:relative", "img"],
    &["run", "--mount", "type=nonsense,target=/x", "img"],
    &["run", "--env-file", "/no/such", "img"],
    &["run", "--security-opt", "seccomp=/no/such", "img"],
    &["run", "--ulimit", "nonsense=1", "img"],
    &["run", "--stop-signal", "NONSENSE", "img"],
    &["run", "--restart", "nonsense", "img"],
    &["run", "--rm", "--restart", "always", "img"],
    &["run", "--rm=maybe", "img"],
    &["run", "--platform", "linux/s390x", "img"],
    &["run", "--detach-keys", "ctrl-1", "img"],
    &["run", "-it", "img"],
    &["run", "-d", "-a", "stdout", "img"],
    &["run", "--gpus", "all", "img"],
    &["run", "--health-cmd", "true", "img"],
    &["run", "--link", "a:b", "img"],
    &["run", "--ip", "1.2.3.4", "img"],
    &["run", "--storage-opt", "size=1g", "img"],
    &["run", "--isolation", "process", "img"],
    &["run", "--use-api-socket", "img"],
    &["create", "--network", "a", "--network", "b", "img"],
    &["exec", "web"],
    &["exec", "-it", "web", "sh"],
    &["update", "web"],
    &["start", "-a", "a", "b"],
    &["logs", "--since", "yesterday", "web"],
    &["logs", "--tail", "few", "web"],
    &["ps", "--filter", "running"],
    &["ps", "--format", "json", "--json"],
    &["inspect", "-f", "{{.Id", "x"],
    &["cp", "a:/x", "b:/y"],
    &["cp", "a", "b"],
    &["cp", "a:", "b"],
    &["load", "-i", "/no/such"],
    &["load", "-i", "/tmp"],
    &["import", "https://example.com/x.tar"],
    &["import", "/etc/hostname", "UPPER"],
    &["tag", "a", "b@sha256:0"],
    &["container", "rm", "a/../b"],
    &["container", "prune"],
    &["search", "busybox"],
    &["pull", "-a", "busybox:1"],
    &["push", "busybox@sha256:0"],
    &["manifest", "create", "x"],
    &["build", "."],
    &["compose", "up"],
    &["network", "create", "x"],
    &["swarm", "init"],
    &["completion", "tcsh"],
    &["--tls", "ps"],
    &["-H", "tcp://1.2.3.4:2375", "ps"],
    &["-H", "unix:///no/such.sock", "ps"],
];

/// Every refusal that needs no daemon: one snapshot of all of them.
#[test]
fn refusals() {
    let mut found = String::new();
    for words in REFUSED {
        let output = berth(words);
        assert_eq!(output.stdout, b"", "{words:?}");
        writeln!(
            found,
            "$ berth {}\n{}[{}]\n",
            words.join(" "),
            String::from_utf8(output.stderr).unwrap(),
            output.status.code().unwrap()
        )
        .unwrap();
    }
    check_snapshot("refusals.txt", &found);
}

#[test]
fn version_and_completion_need_no_daemon() {
    let output = berth(&["--version"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("Berth version {}\n", env!("CARGO_PKG_VERSION")));
    for (shell, word) in [("bash", "_berth()"), ("zsh", "#compdef berth"), ("fish", "complete -c berth")] {
        let output = berth(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains(word) && script.contains("cpuset-cpus"), "{shell}");
    }
}

#[test]
fn an_id_file_does_not_survive_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cid").display().to_string();
    let words = ["-H", "unix:///no/such.sock", "run", "--cidfile", &file, "img"];
    assert_eq!(berth(&words).status.code(), Some(125));
    assert!(!Path::new(&file).exists());
    std::fs::write(&file, "taken").unwrap();
    let output = berth(&words);
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!(
            "error: cannot create --cidfile {file:?}\n  because: File exists (os error 17)\nhint: remove it, or name another file\n"
        )
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "taken");
}

/// The reader of stdout goes away: no message, the code of SIGPIPE.
#[test]
fn a_broken_pipe_is_quiet() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(["completion", "bash"])
        .env_clear()
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(141));
}
