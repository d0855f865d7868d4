//! Real pipes, terminals, sockets and plain child processes; only the container around them is missing.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};

use super::*;

/// Generous: it bounds a hang, it decides nothing.
const DEADLINE: Duration = Duration::from_secs(120);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn stopped_clock() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn open(stdin: &str, stdout: &str, stderr: &str) -> (Arc<ProcessIo>, Arc<OpenOutlets>) {
    let open = Arc::new(OpenOutlets::default());
    let request = IoRequest::parse(false, stdin, stdout, stderr).unwrap();
    (ProcessIo::open(request, &open).unwrap(), open)
}

/// Starts `sh -c script` on the streams of `io`.
fn spawn(io: &ProcessIo, script: &str) -> Child {
    let (Stdio::Fds { stdin, stdout, stderr }, ours) = io.streams(None).unwrap() else { unreachable!() };
    let child =
        Command::new("/bin/sh").args(["-c", script]).stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
    io.connect(ours, None).unwrap();
    io.follow_fifo().unwrap();
    child
}

async fn wait(child: &mut Child) -> i32 {
    tokio::time::timeout(DEADLINE, wait_on_stopped_clock(child)).await.unwrap()
}

/// Without a deadline: a stopped clock jumps to the next timer whenever nothing runs, and that must be the one under test.
async fn wait_on_stopped_clock(child: &mut Child) -> i32 {
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let watched = register(pidfd, Interest::READABLE).unwrap();
    drop(watched.readable().await.unwrap());
    child.wait().unwrap().code().unwrap_or(-1)
}

fn attach(io: &ProcessIo, stdin: bool) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let options = Options { stdin, stdout: true, stderr: true, ..Default::default() };
    io.attach(options, theirs.into()).unwrap();
    ours
}

/// Splits Docker's multiplexed stream again; panics when it is cut inside a frame.
fn demultiplex(mut bytes: &[u8]) -> [Vec<u8>; 2] {
    let mut streams = [Vec::new(), Vec::new()];
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at(8);
        assert_eq!(header[1..4], [0, 0, 0]);
        let len = u32::from_be_bytes(header[4..8].try_into().unwrap()) as usize;
        let (data, rest) = rest.split_at(len);
        streams[usize::from(header[0]) - 1].extend_from_slice(data);
        bytes = rest;
    }
    streams
}

fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::spawn(work)
}

fn read_all(mut stream: UnixStream) -> std::thread::JoinHandle<Vec<u8>> {
    in_background(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    })
}

/// Bytes without a period that a buffer size could hide.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn output_goes_to_the_log_and_to_a_client_framed() {
    let dir = tempfile::tempdir().unwrap();
    let log = format!("json-file://{}/x.log", dir.path().display());
    runtime().block_on(async {
        let (io, open) = open("", &log, &log);
        let client = read_all(attach(&io, false));
        let mut child = spawn(&io, "echo out; echo err >&2; printf tail");
        assert_eq!(wait(&mut child).await, 0);
        io.settle().await;
        open.none_left().await;
        assert_eq!(demultiplex(&client.join().unwrap()), [b"out\ntail".to_vec(), b"err\n".to_vec()]);
    });
    let log = std::fs::read_to_string(dir.path().join("x.log")).unwrap();
    let mut records: Vec<(String, String)> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|record| (record["stream"].as_str().unwrap().to_owned(), record["log"].as_str().unwrap().to_owned()))
        .collect();
    records.sort();
    let expected = [("stderr", "err\n"), ("stdout", "out\n"), ("stdout", "tail")];
    assert_eq!(records, expected.map(|(stream, text)| (stream.to_owned(), text.to_owned())));
}

/// S-133: byte-exact both ways through pipes, with log and back-pressure. `BERTH_SOAK_MIB` makes it longer.
#[test]
fn s133_input_and_output_are_byte_exact() {
    let mib = std::env::var_os("BERTH_SOAK_MIB").map_or(64, |text| text.to_str().unwrap().parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let log = format!("json-file://{}/x.log?max-size=1000000&max-file=2", dir.path().display());
    runtime().block_on(async {
        let (io, open) = open("attach://?once=1", &log, &log);
        let client = attach(&io, true);
        let mut writer = client.try_clone().unwrap();
        let sender = in_background(move || {
            let block = noise(1 << 20);
            for _ in 0..mib {
                writer.write_all(&block).unwrap();
            }
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let receiver = read_all(client);
        let mut child = spawn(&io, "cat");
        assert_eq!(wait(&mut child).await, 0);
        io.settle().await;
        open.none_left().await;
        sender.join().unwrap();
        let [stdout, stderr] = demultiplex(&receiver.join().unwrap());
        assert!(stderr.is_empty());
        assert_eq!(stdout.len(), mib << 20);
        let block = noise(1 << 20);
        assert!(stdout.chunks(1 << 20).all(|piece| piece == block));
    });
}

/// S-133: a terminal in raw mode passes every byte too.
#[test]
fn s133_terminal_is_byte_exact() {
    runtime().block_on(async {
        let open = Arc::new(OpenOutlets::default());
        let request = IoRequest::parse(true, "attach://", "attach://", "").unwrap();
        let io = ProcessIo::open(request, &open).unwrap();
        io.resize(33, 99).unwrap();
        let (stdio, ours) = io.streams(Some((1, 1))).unwrap();
        assert!(matches!(stdio, Stdio::Terminal { rows: 33, columns: 99, .. }));
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let slave = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let mut raw = rustix::termios::tcgetattr(&slave).unwrap();
        raw.make_raw();
        rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &raw).unwrap();
        let client = attach(&io, true);
        let mut child = Command::new("/bin/sh")
            .args(["-c", "head -c 4194304"])
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        io.connect(ours, Some(master)).unwrap();
        io.resize(40, 120).unwrap();
        let mut writer = client.try_clone().unwrap();
        let sender = in_background(move || writer.write_all(&noise(4 << 20)).unwrap());
        let receiver = read_all(client);
        assert_eq!(wait(&mut child).await, 0);
        io.settle().await;
        open.none_left().await;
        sender.join().unwrap();
        // Not framed: a terminal has one stream.
        assert!(receiver.join().unwrap() == noise(4 << 20));
    });
}

#[test]
fn a_client_that_leaves_does_not_hold_up_the_process_or_the_others() {
    runtime().block_on(async {
        let (io, open) = open("", "attach://", "attach://");
        let leaver = attach(&io, false);
        let stayer = read_all(attach(&io, false));
        let mut child = spawn(&io, "echo first; head -c 3000000 /dev/zero");
        let mut greeting = [0; 8];
        let leaver = in_background(move || {
            (&leaver).read_exact(&mut greeting).unwrap();
            drop(leaver);
        });
        assert_eq!(wait(&mut child).await, 0);
        leaver.join().unwrap();
        io.settle().await;
        open.none_left().await;
        assert_eq!(demultiplex(&stayer.join().unwrap())[0].len(), 3_000_006);
    });
}

/// The process waits for a slow client as for a slow terminal: nothing is lost, and no more than a queue is held.
#[test]
fn a_slow_client_gets_everything() {
    runtime().block_on(async {
        let (io, open) = open("", "attach://", "attach://");
        let client = attach(&io, false);
        let mut child = spawn(&io, "head -c 8000000 /dev/zero");
        // Nobody reads yet: the child fills pipe, socket and queue, then blocks.
        let is_blocked = async {
            loop {
                let stat = std::fs::read_to_string(format!("/proc/{}/wchan", child.id())).unwrap_or_default();
                let state = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
                let queued = io.hub.queued_bytes();
                if queued >= outlet::QUEUE_BYTES && (stat.contains("pipe") || state.contains(") S")) {
                    return queued;
                }
                tokio::task::yield_now().await;
            }
        };
        let queued = tokio::time::timeout(DEADLINE, is_blocked).await.unwrap();
        assert!(queued < outlet::QUEUE_BYTES + (256 << 10), "{queued}");
        let client = read_all(client);
        assert_eq!(wait(&mut child).await, 0);
        io.settle().await;
        open.none_left().await;
        assert_eq!(demultiplex(&client.join().unwrap())[0].len(), 8_000_000);
    });
}

/// Time is stopped and moved by hand: a client that takes nothing for the whole of `PATIENCE` is dropped.
#[test]
fn a_stuck_client_is_dropped_and_the_process_goes_on() {
    stopped_clock().block_on(async {
        let (io, open) = open("", "attach://", "attach://");
        let stuck = attach(&io, false);
        let begun = tokio::time::Instant::now();
        let mut child = spawn(&io, "head -c 8000000 /dev/zero");
        assert_eq!(wait_on_stopped_clock(&mut child).await, 0);
        assert!(begun.elapsed() >= outlet::PATIENCE);
        io.settle().await;
        open.none_left().await;
        let got = read_all(stuck).join().unwrap();
        assert!(got.len() < 8_000_000);
    });
}

#[test]
fn detach_keys_end_the_client_not_the_process() {
    runtime().block_on(async {
        let open = Arc::new(OpenOutlets::default());
        let request = IoRequest::parse(true, "attach://?once=1", "attach://", "").unwrap();
        let io = ProcessIo::open(request, &open).unwrap();
        let (mut client, theirs) = UnixStream::pair().unwrap();
        let options = Options {
            stdin: true,
            stdout: true,
            detach_keys: vec![16, 17],
            early_input: b"early ".to_vec(),
            ..Default::default()
        };
        io.attach(options, theirs.into()).unwrap();
        // A socket in the terminal's place, to see what arrives at the other side.
        let (process, console) = UnixStream::pair().unwrap();
        io.connect(Streams::default(), Some(console.into())).unwrap();
        client.write_all(b"typed\x10x\x10\x11never").unwrap();
        open.none_left().await;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
        process.set_nonblocking(true).unwrap();
        let mut got = [0; 64];
        let len = (&process).read(&mut got).unwrap();
        assert_eq!(&got[..len], b"early typed\x10x");
        assert!(!*io.ended.borrow());
        drop(process);
        io.settle().await;
    });
}

#[test]
fn without_once_the_end_of_one_client_leaves_stdin_open_for_the_next() {
    runtime().block_on(async {
        let (io, open) = open("attach://", "attach://", "attach://");
        let first = attach(&io, true);
        (&first).write_all(b"one\n").unwrap();
        let mut child = spawn(&io, "read a; echo got $a; read b; echo got $b");
        let mut line = [0; 16];
        let first = in_background(move || {
            (&first).read_exact(&mut line).unwrap();
            drop(first);
            line
        });
        while !first.is_finished() {
            tokio::task::yield_now().await;
        }
        assert_eq!(&first.join().unwrap()[8..], b"got one\n");
        let second = attach(&io, true);
        (&second).write_all(b"two\n").unwrap();
        assert_eq!(wait(&mut child).await, 0);
        io.settle().await;
        open.none_left().await;
        assert_eq!(demultiplex(&read_all(second).join().unwrap())[0], b"got two\n");
    });
}

#[test]
fn fifos_of_other_engines() {
    let dir = tempfile::tempdir().unwrap();
    let [stdin, stdout] = ["in", "out"].map(|name| dir.path().join(name));
    for path in [&stdin, &stdout] {
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    }
    runtime().block_on(async {
        let (io, open) = open(stdin.to_str().unwrap(), stdout.to_str().unwrap(), "");
        let reader = in_background({
            let stdout = stdout.clone();
            move || std::fs::read(stdout).unwrap()
        });
        let mut child = spawn(&io, "cat; echo done");
        let writer = in_background({
            let stdin = stdin.clone();
            move || std::fs::write(stdin, "through fifos\n").unwrap()
        });
        while !writer.is_finished() {
            tokio::task::yield_now().await;
        }
        writer.join().unwrap();
        io.close_stdin();
        assert_eq!(wait(&mut child).await, 0);
        io.settle().await;
        open.none_left().await;
        drop(io);
        while !reader.is_finished() {
            tokio::task::yield_now().await;
        }
        assert_eq!(reader.join().unwrap(), b"through fifos\ndone\n");
    });
}

/// Another shim opens the input long after it has said that the process runs, and after the client's input has ended: it gets all of it, and its end.
#[test]
fn input_waits_for_who_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    for input in ["through", ""] {
        runtime().block_on(async {
            let (io, _open) = open("attach://?once=1", "", "");
            let fifos = io.fifos(dir.path(), "exec").unwrap();
            let mut client = attach(&io, true);
            client.write_all(input.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            drop(fifos.keepers);
            let connecting = tokio::spawn(Arc::clone(&io).connect_when_read(fifos.input.unwrap()));
            // Its first looks find nobody.
            tokio::time::sleep(READER_INTERVAL * 4).await;
            assert!(!connecting.is_finished());
            let path = fifos.addresses.stdin.clone();
            let reader = tokio::task::spawn_blocking(move || std::fs::read(path).unwrap());
            tokio::time::timeout(DEADLINE, io.input_closed()).await.unwrap();
            assert_eq!(tokio::time::timeout(DEADLINE, reader).await.unwrap().unwrap(), input.as_bytes());
            connecting.await.unwrap();
        });
    }
    // A process that ends without having read.
    runtime().block_on(async {
        let (io, _open) = open("attach://?once=1", "", "");
        let fifos = io.fifos(dir.path(), "exec").unwrap();
        drop(fifos.keepers);
        let connecting = tokio::spawn(Arc::clone(&io).connect_when_read(fifos.input.unwrap()));
        io.settle().await;
        tokio::time::timeout(DEADLINE, connecting).await.unwrap().unwrap();
        io.input_closed().await;
    });
}

#[test]
fn output_of_children_left_behind_does_not_hold_up_the_end() {
    stopped_clock().block_on(async {
        let (io, open) = open("", "attach://", "attach://");
        let client = read_all(attach(&io, false));
        let mut child = spawn(&io, "sleep 1000 & echo $!; exit 3");
        assert_eq!(wait_on_stopped_clock(&mut child).await, 3);
        io.settle().await;
        open.none_left().await;
        let [stdout, _] = demultiplex(&client.join().unwrap());
        let pid: i32 = String::from_utf8(stdout).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
    });
}

#[test]
fn refusals() {
    runtime().block_on(async {
        let (io, _) = open("", "attach://", "attach://");
        let (_, theirs) = UnixStream::pair().unwrap();
        let options = Options { stdin: true, ..Default::default() };
        assert_eq!(io.attach(options, theirs.into()).unwrap_err().class(), ErrorClass::FailedPrecondition);
        assert_eq!(io.resize(1, 1).unwrap_err().class(), ErrorClass::FailedPrecondition);
        let missing = IoRequest::parse(false, "", "/does/not/exist", "").unwrap();
        assert_eq!(ProcessIo::open(missing, &Arc::default()).unwrap_err().class(), ErrorClass::NotFound);
    });
}

/// S-133: the end of a process is kept from a client as long as its FIFO is read and holds something. Time is moved by hand.
#[test]
fn the_end_waits_for_the_reader_of_a_fifo() {
    let dir = tempfile::tempdir().unwrap();
    let (path, mut reader, _writer) = readable_fifo(dir.path());
    stopped_clock().block_on(async {
        let (io, _open) = open("", &path, "");
        let mut child = spawn(&io, "head -c 400000 /dev/zero");
        assert_eq!(wait_on_stopped_clock(&mut child).await, 0);
        let delivered = io.delivered();
        tokio::pin!(delivered);
        let mut got = 0;
        let mut piece = [0; 40_000];
        while got < 400_000 {
            let early = tokio::time::timeout(Duration::from_millis(5), &mut delivered).await;
            assert!(early.is_err(), "told of the end after {got} bytes");
            got += reader.read(&mut piece).unwrap();
        }
        delivered.await;
    });
}

/// Nobody waits for a FIFO that nobody else has open: `ctr run -d` leaves such ones.
#[test]
fn the_end_does_not_wait_for_a_reader_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _reader, _writer) = readable_fifo(dir.path());
    stopped_clock().block_on(async {
        let (io, _open) = open("", &path, "");
        let mut child = spawn(&io, "echo kept");
        assert_eq!(wait_on_stopped_clock(&mut child).await, 0);
        let begun = tokio::time::Instant::now();
        io.delivered().await;
        assert!(begun.elapsed() < 2 * READER_MISSED, "{:?}", begun.elapsed());
        assert!(io.underway() > 0);
    });
}

/// Time is stopped and moved by hand: a reader that takes nothing does not hold up the news of the end for long.
#[test]
fn the_end_does_not_wait_for_a_reader_that_stalls() {
    let dir = tempfile::tempdir().unwrap();
    let (path, reader, _writer) = readable_fifo(dir.path());
    let mut other = Command::new("sleep").arg("1000").stdin(reader).spawn().unwrap();
    stopped_clock().block_on(async {
        let (io, _open) = open("", &path, "");
        let mut child = spawn(&io, "head -c 400000 /dev/zero");
        assert_eq!(wait_on_stopped_clock(&mut child).await, 0);
        let begun = tokio::time::Instant::now();
        io.delivered().await;
        assert!(begun.elapsed() >= READER_STALLS && begun.elapsed() < READER_IS_LATE, "{:?}", begun.elapsed());
        assert!(io.underway() > 0);
    });
    other.kill().unwrap();
    other.wait().unwrap();
}

/// A FIFO's path, an end that reads and one that keeps it from ending.
fn readable_fifo(dir: &Path) -> (String, std::fs::File, OwnedFd) {
    let (path, reader, writer) = fifo(dir, "x", "stdout").unwrap();
    (path, reader.into(), writer)
}

/// A logger that keeps what it gets, and says to whom it belongs.
fn logger(dir: &Path, last_words: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("logger");
    let script = format!(
        "#!/bin/sh\nPATH=/usr/bin:/bin\nexec 5>&-\ncat <&3 > \"$2/out\" &\ncat <&4 > \"$2/err\"\nwait\n\
         echo \"$1 $CONTAINER_ID $CONTAINER_NAMESPACE\" > \"$2/next\"; mv \"$2/next\" \"$2/done\"\n{last_words}\n"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("binary://{}?KEY={}", path.display(), dir.display())
}

/// S-133: a logging program gets both streams to their last byte, and is told whose they are; it is no zombie when it has ended.
#[test]
fn s133_a_logger_gets_everything() {
    let dir = tempfile::tempdir().unwrap();
    let uri = logger(dir.path(), "");
    let noise = noise(3 << 20);
    std::fs::write(dir.path().join("noise"), &noise).unwrap();
    let file = |name: &str| std::fs::read(dir.path().join(name));
    runtime().block_on(async {
        let mut request = IoRequest::parse(false, "", &uri, "").unwrap();
        request.subject = crate::io::Subject { id: "c1".to_owned(), namespace: "tenant".to_owned() };
        let open = Arc::<OpenOutlets>::default();
        let io = ProcessIo::open(request, &open).unwrap();
        io.ready().await.unwrap();
        let mut child = spawn(&io, &format!("cat {0}/noise; echo err >&2; cat {0}/noise", dir.path().display()));
        assert_eq!(wait(&mut child).await, 0);
        io.settle().await;
        open.none_left().await;
        while file("done").is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(file("out").unwrap() == [noise.as_slice(), &noise].concat());
    assert_eq!(file("err").unwrap(), b"err\n");
    assert_eq!(String::from_utf8(file("done").unwrap()).unwrap(), "KEY c1 tenant\n");
}

/// A logger that is not there is the caller's to learn; one that ends early does not hold up the process.
#[test]
fn loggers_that_do_not_log() {
    let dir = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let missing = IoRequest::parse(false, "", "binary:///does/not/exist", "").unwrap();
        assert_eq!(ProcessIo::open(missing, &Arc::default()).unwrap_err().class(), ErrorClass::NotFound);
        let (io, open) = open("", "binary:///bin/true", "");
        io.ready().await.unwrap();
        let mut child = spawn(&io, "head -c 3000000 /dev/zero; exit 3");
        assert_eq!(wait(&mut child).await, 3);
        io.settle().await;
        open.none_left().await;
        // It has all it will ever get, and goes on: for so long.
        let (io, open) = self::open("", &logger(dir.path(), "exec sleep 1000"), "");
        io.ready().await.unwrap();
        let mut child = spawn(&io, "echo last");
        assert_eq!(wait(&mut child).await, 0);
        io.settle().await;
        open.none_left().await;
        while !dir.path().join("done").exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let sleeper = || {
            let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
            children.split_whitespace().any(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|words| words == ["sleep", "1000", ""].join("\0"))
            })
        };
        while !sleeper() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::pause();
        while sleeper() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
}
