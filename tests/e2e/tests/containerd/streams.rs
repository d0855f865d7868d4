//! Streams of tasks, byte for byte: FIFOs with and without a terminal across a restart of the daemon, files, and logging programs. 16 MiB each way in
//! the suite, 1 GiB with BERTH_LONG_IO.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_testkit::stream::{echo_over_a_restart, mebibytes};
use berth_testkit::{Instance, wait_until};

use super::{BUSYBOX, ctr_run, fifo_dir};

fn blocks() -> usize {
    mebibytes(16)
}

/// The FIFOs that `ctr run -d` leaves to whoever takes over.
fn fifos(instance: &Instance, id: &str) -> (PathBuf, PathBuf) {
    let mut found = None;
    for entry in std::fs::read_dir(fifo_dir(instance)).unwrap().flatten() {
        let stdin = entry.path().join(format!("{id}-stdin"));
        if stdin.exists() {
            found = Some((stdin, entry.path().join(format!("{id}-stdout"))));
        }
    }
    found.unwrap()
}

fn open(path: &Path, is_for_reading: bool) -> File {
    File::options().read(is_for_reading).write(!is_for_reading).open(path).unwrap()
}

/// `ctr run -d` hands on what it is given until it has ended, also the end of it.
fn run_with_open_input(mut command: Command) {
    let mut ran = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let input = ran.stdin.take();
    assert!(ran.wait().unwrap().success());
    drop(input);
}

/// S-133: FIFOs, the daemon restarted in the middle; the exit is known afterwards.
#[test]
fn s133_fifos_across_a_restart() {
    let mut instance = Instance::with_busybox();
    let script = format!("head -c {}; exit 5", blocks() << 20);
    let (fifos_in, cgroup) = (fifo_dir(&instance), super::cgroup(&instance, "c1"));
    let run = ["run", "-d", "--fifo-dir", &fifos_in, "--cgroup", &cgroup, BUSYBOX, "c1", "sh", "-c", &script];
    run_with_open_input(instance.ctr_command(&run));
    let (stdin, stdout) = fifos(&instance, "c1");
    let (stdin, mut stdout) = (open(&stdin, false), open(&stdout, true));
    echo_over_a_restart(&mut instance, blocks(), stdin, &mut stdout);
    wait_until("its end is known", || (instance.inspect("c1", "{{.State.Status}}") == "exited").then_some(()));
    assert_eq!(instance.inspect("c1", "{{.State.ExitCode}}"), "5");
    instance.berth(&["rm", "c1"]).ok();
}

/// `ctr run -d -t`, which wants a terminal of its own.
pub(super) fn run_in_a_terminal(instance: &Instance, id: &str, script: &str) {
    let (fifos_in, cgroup, quoted) = (fifo_dir(instance), super::cgroup(instance, id), format!("'{script}'"));
    let run = ["run", "-d", "-t", "--fifo-dir", &fifos_in, "--cgroup", &cgroup, BUSYBOX, id, "sh", "-c", &quoted];
    let ctr = instance.ctr_command(&run);
    let words = std::iter::once(ctr.get_program()).chain(ctr.get_args());
    let line: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let mut command = Command::new("script");
    command.args(["-qec", &line.join(" "), "/dev/null"]);
    run_with_open_input(command);
}

/// S-133: the same through a terminal that changes nothing.
#[test]
fn s133_a_terminal_across_a_restart() {
    let mut instance = Instance::with_busybox();
    // It says nothing before it is spoken to: that would go to `ctr`, as long as that runs.
    let script = format!("stty raw -echo; head -c 1 > /dev/null; echo ready; head -c {}; exit 5", blocks() << 20);
    run_in_a_terminal(&instance, "c1", &script);
    let (stdin, stdout) = fifos(&instance, "c1");
    let (mut stdin, mut stdout) = (open(&stdin, false), open(&stdout, true));
    stdin.write_all(b"\n").unwrap();
    // Before them the line feed may come back, from a terminal that was not told to be silent yet.
    let mut seen = Vec::new();
    while !seen.ends_with(b"ready\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        seen.extend(byte);
    }
    echo_over_a_restart(&mut instance, blocks(), stdin, &mut stdout);
    wait_until("its end is known", || (instance.inspect("c1", "{{.State.Status}}") == "exited").then_some(()));
    assert_eq!(instance.inspect("c1", "{{.State.ExitCode}}"), "5");
    instance.berth(&["rm", "c1"]).ok();
}

/// A command that prints blocks of its own, and their sum. Numbers are counted once: the programs that do are slower than what is tested.
fn printed() -> (String, String) {
    let print = format!("seq 1 1200000 > $f; while cat $f; do :; done | head -c {}", blocks() << 20);
    let script = format!("f=/numbers; {print}; echo err >&2");
    let words = format!("f=$(mktemp); ({print} | sha256sum) 2>/dev/null; rm $f");
    let sum = Command::new("sh").args(["-c", &words]).output().unwrap().stdout;
    (script, String::from_utf8(sum).unwrap().split_whitespace().next().unwrap().to_owned())
}

fn sum(path: &Path) -> String {
    let output = Command::new("sha256sum").stdin(File::open(path).unwrap()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// S-133: `--log-uri file://`: both streams into the file, also while there is no daemon.
#[test]
fn s133_a_file_takes_the_output() {
    let mut instance = Instance::with_busybox();
    let (script, expected) = printed();
    let log = instance.directory.join("out.log");
    let uri = format!("file://{}", log.display());
    ctr_run(&instance, &["-d", "--log-uri", &uri], "c1", &["sh", "-c", &script.replace("; echo err >&2", "")]).ok();
    instance.kill_daemon();
    instance.spawn();
    wait_until("its end is known", || (instance.inspect("c1", "{{.State.Status}}") == "exited").then_some(()));
    assert_eq!(std::fs::metadata(&log).unwrap().len(), (blocks() << 20) as u64);
    assert_eq!(sum(&log), expected);
    instance.berth(&["rm", "c1"]).ok();
    ctr_run(&instance, &["--rm", "--log-uri", &uri], "c2", &["sh", "-c", "echo out; echo err >&2"]).ok();
    let text = std::fs::read(&log).unwrap();
    assert!(text.ends_with(b"out\nerr\n") || text.ends_with(b"err\nout\n"), "appended");
}

/// S-133: `--log-uri binary://`: a program gets both streams, whole and apart, and what it is told; also while there is no daemon.
#[test]
fn s133_a_program_takes_the_output() {
    let mut instance = Instance::with_busybox();
    let (script, expected) = printed();
    let dir = &instance.directory.clone();
    let program = dir.join("logger");
    let text = "#!/bin/sh\nPATH=/usr/bin:/bin\nexec 5>&-\ncat <&3 > \"$2/out\" &\ncat <&4 > \"$2/err\"\nwait\n\
        echo \"$1 $CONTAINER_ID $CONTAINER_NAMESPACE\" > \"$2/next\"; mv \"$2/next\" \"$2/done\"\n";
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let uri = format!("binary://{}?KEY={}", program.display(), dir.display());
    ctr_run(&instance, &["-d", "--log-uri", &uri], "c1", &["sh", "-c", &script]).ok();
    instance.kill_daemon();
    instance.spawn();
    wait_until("its end is known", || (instance.inspect("c1", "{{.State.Status}}") == "exited").then_some(()));
    let told = wait_until("the program has ended", || std::fs::read_to_string(dir.join("done")).ok());
    assert_eq!(told, "KEY c1 default\n");
    assert_eq!(sum(&dir.join("out")), expected);
    assert_eq!(std::fs::read_to_string(dir.join("err")).unwrap(), "err\n");
    instance.berth(&["rm", "c1"]).ok();
    let missing = ctr_run(&instance, &["-d", "--log-uri", "binary:///does/not/exist"], "c2", &["true"]);
    assert!(missing.code != 0 && missing.stderr.contains("/does/not/exist"), "{missing:?}");
    instance.berth(&["rm", "-f", "c2"]).ok();
    for name in ["out", "err", "done", "logger"] {
        std::fs::remove_file(dir.join(name)).unwrap();
    }
}
