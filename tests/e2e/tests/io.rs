//! Streams: stdin, stdout, stderr, terminals, attach, logs (S-133).

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use berth_testkit::stream::{echo_over_a_restart, mebibytes};
use berth_testkit::{Instance, wait_until};

/// S-133: 32 MiB each way (1 GiB with BERTH_LONG_IO), byte for byte, through `run -i`, with the daemon killed and started again in the
/// middle; the exit code is right all the same.
#[test]
fn s133_bytes_are_exact() {
    let mut berth = Instance::with_busybox();
    let blocks = mebibytes(32);
    let mut client = berth
        .berth_command(&["run", "-i", "--name", "c1", "--log-driver", "none", "busybox", "sh", "-c", "cat; exit 5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdin = client.stdin.take().unwrap();
    let mut stdout = client.stdout.take().unwrap();
    echo_over_a_restart(&mut berth, blocks, stdin, &mut stdout);
    assert_eq!(stdout.read(&mut [0]).unwrap(), 0, "more than was sent");
    client.wait().unwrap();
    wait_until("its end is known", || (berth.inspect("c1", "{{.State.Status}}") == "exited").then_some(()));
    assert_eq!(berth.inspect("c1", "{{.State.ExitCode}}"), "5");
}

/// An attached client by Docker's API: both ways are the terminal's bytes as they are.
fn attach_to_terminal(berth: &Instance, container: &str) -> std::os::unix::net::UnixStream {
    let mut stream = std::os::unix::net::UnixStream::connect(berth.socket()).unwrap();
    // Keys that are not among the bytes sent: the usual two are.
    let keys = "a,ctrl-b,c,ctrl-d,e,ctrl-f,g,ctrl-h";
    let request = format!(
        "POST /containers/{container}/attach?stream=1&stdin=1&stdout=1&detachKeys={keys} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: tcp\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// S-133: the same through a terminal that changes nothing: 16 MiB each way (1 GiB with BERTH_LONG_IO), the daemon restarted in the middle.
#[test]
fn s133_bytes_through_a_terminal_are_exact() {
    let mut berth = Instance::with_busybox();
    let blocks = mebibytes(16);
    let script = format!("stty raw -echo; echo ready; head -c {}; exit 5", blocks << 20);
    berth.berth(&["create", "-i", "-t", "--name", "c1", "--log-driver", "none", "busybox", "sh", "-c", &script]).ok();
    let mut stdout = attach_to_terminal(&berth, "c1");
    berth.berth(&["start", "c1"]).ok();
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    let stdin = stdout.try_clone().unwrap();
    echo_over_a_restart(&mut berth, blocks, stdin, &mut stdout);
    assert_eq!(stdout.read(&mut [0]).unwrap(), 0, "more than was sent");
    wait_until("its end is known", || (berth.inspect("c1", "{{.State.Status}}") == "exited").then_some(()));
    assert_eq!(berth.inspect("c1", "{{.State.ExitCode}}"), "5");
}

/// stdout and stderr stay apart, attached and in the log.
#[test]
fn streams_stay_apart() {
    let berth = Instance::with_busybox();
    let both = berth.berth(&["run", "--name", "c1", "busybox", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    let logs = berth.berth(&["logs", "c1"]);
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    let stamped = berth.berth(&["logs", "-t", "c1"]);
    assert!(stamped.stdout.starts_with("20") && stamped.stdout.ends_with("Z out\n"), "{stamped:?}");
}

/// logs: tail, since, until, follow to the end.
#[test]
fn logs_options() {
    let berth = Instance::with_busybox();
    berth
        .berth(&[
            "run",
            "-d",
            "--name",
            "c1",
            "busybox",
            "sh",
            "-c",
            "for i in 1 2 3 4 5; do echo $i; done; while [ ! -e /go ]; do sleep 0.02; done; echo last",
        ])
        .ok();
    wait_until("five lines", || (berth.berth(&["logs", "c1"]).stdout.lines().count() == 5).then_some(()));
    assert_eq!(berth.berth(&["logs", "-n", "2", "c1"]).ok(), "4\n5");
    assert_eq!(berth.berth(&["logs", "--since", "1h", "c1"]).ok().lines().count(), 5);
    assert_eq!(berth.berth(&["logs", "--until", "1h", "c1"]).ok(), "");
    let follower = berth.berth_command(&["logs", "-f", "-n", "1", "c1"]).stdout(Stdio::piped()).spawn().unwrap();
    berth.berth(&["exec", "c1", "touch", "/go"]).ok();
    let output = follower.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "5\nlast\n");
}

/// The log rotates at its size and keeps its count; nothing is lost before the oldest kept.
#[test]
fn logs_rotate() {
    let berth = Instance::with_busybox();
    berth
        .berth(&[
            "run",
            "--name",
            "c1",
            "--log-opt",
            "max-size=20k",
            "--log-opt",
            "max-file=3",
            "busybox",
            "seq",
            "1",
            "3000",
        ])
        .ok();
    let path = berth.inspect("c1", "{{.LogPath}}");
    let directory = std::path::Path::new(&path).parent().unwrap();
    let files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().contains("json.log"))
        .collect();
    assert_eq!(files.len(), 3);
    assert!(files.iter().all(|f| f.metadata().unwrap().len() < 24_000));
    let logs = berth.berth(&["logs", "c1"]);
    let numbers: Vec<u32> = logs.ok().lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(numbers.last(), Some(&3000));
    assert!(numbers.windows(2).all(|p| p[1] == p[0] + 1), "no gap");
}

/// attach sees what comes, in both directions, and several clients see the same.
#[test]
fn attach_to_a_running_container() {
    let berth = Instance::with_busybox();
    berth.berth(&["run", "-d", "-i", "--name", "c1", "busybox", "cat"]).ok();
    let mut watcher = berth
        .berth_command(&["attach", "--no-stdin", "c1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = watcher.stdout.take().unwrap();
    let mut speaker =
        berth.berth_command(&["attach", "c1"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut words = speaker.stdin.take().unwrap();
    let mut answer = speaker.stdout.take().unwrap();
    words.write_all(b"hello\n").unwrap();
    let mut bytes = [0; 6];
    answer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello\n");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 6];
        seen.read_exact(&mut bytes).unwrap();
        tell.send(bytes).unwrap();
    });
    // The watcher may come late: what is said from then on is seen.
    let heard = wait_until("the watcher sees a line", || {
        words.write_all(b"again\n").unwrap();
        answer.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"again\n");
        told.try_recv().ok()
    });
    assert!([b"hello\n", b"again\n"].contains(&&heard));
    berth.berth(&["kill", "c1"]).ok();
    speaker.wait().unwrap();
    watcher.wait().unwrap();
}

/// An attached client keeps its stream when the daemon is killed under it.
#[test]
fn an_attached_stream_survives_the_daemon() {
    let mut berth = Instance::with_busybox();
    let mut client = berth
        .berth_command(&["run", "-i", "--name", "c1", "busybox", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let mut stdout = client.stdout.take().unwrap();
    let mut bytes = [0; 4];
    stdin.write_all(b"one\n").unwrap();
    stdout.read_exact(&mut bytes).unwrap();
    berth.kill_daemon();
    stdin.write_all(b"two\n").unwrap();
    stdout.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"two\n");
    drop(stdin);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    client.wait().unwrap();
    berth.spawn();
}

/// A terminal: one stream, its size, and a controlling terminal.
#[test]
fn terminals() {
    let berth = Instance::with_busybox();
    berth
        .berth(&[
            "run",
            "-d",
            "-t",
            "--name",
            "c1",
            "busybox",
            "sh",
            "-c",
            "tty; test -t 0 && test -t 1 && echo terminal; sleep 1000",
        ])
        .ok();
    wait_until("it wrote", || berth.berth(&["logs", "c1"]).stdout.contains("terminal").then_some(()));
    assert!(berth.berth(&["logs", "c1"]).stdout.starts_with("/dev/pts/0\r\n"));
    assert_eq!(berth.berth(&["exec", "c1", "sh", "-c", "test -t 1 || echo none"]).ok(), "none");
}
