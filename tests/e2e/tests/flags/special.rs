//! Flags whose effect takes more than one command to see.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use berth_testkit::{Instance, instance, wait_until};

use crate::Client;

fn id_of(berth: &Instance, words: &[&str], client: Client<'_>) -> String {
    instance::run(client(berth, words), b"").ok().to_owned()
}

pub(crate) fn detaches(berth: &Instance, client: Client<'_>) {
    let id = id_of(berth, &["run", "-d", "busybox", "sleep", "1000"], client);
    assert_eq!(id.len(), 64, "{id}");
    assert_eq!(berth.inspect(&id, "{{.State.Status}}"), "running");
    berth.berth(&["rm", "-f", &id]).ok();
}

pub(crate) fn attaches_one(berth: &Instance, client: Client<'_>) {
    let words = ["run", "--rm", "-a", "stderr", "busybox", "sh", "-c", "echo out; echo err >&2"];
    let done = instance::run(client(berth, &words), b"");
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", "err\n"));
}

/// The stock client knows `host` alone, which is the default where a daemon maps no users; another word reaches nobody.
pub(crate) fn user_namespace(berth: &Instance, client: Client<'_>) {
    let run = |mode: &str| {
        instance::run(client(berth, &["run", "--rm", "--userns", mode, "busybox", "cat", "/proc/self/uid_map"]), b"")
    };
    assert!(run("host").ok().ends_with("4294967295"));
    assert_eq!(run("nonsense").code, 125);
    let mapped = run("map:0:700000:10");
    assert!(mapped.code == 125 || mapped.ok().split_whitespace().eq(["0", "700000", "10"]), "{mapped:?}");
}

/// Typed at a terminal, the keys end the client and not the container.
pub(crate) fn detach_keys(berth: &Instance, client: Client<'_>) {
    types_and_leaves(
        berth,
        client,
        &["run", "-i", "-t", "--name", "typed", "--detach-keys", "ctrl-e,x", "busybox", "cat"],
    );
    assert_eq!(berth.inspect("typed", "{{.State.Status}}"), "running");
    berth.berth(&["rm", "-f", "typed"]).ok();
}

/// The same for a process in a container that runs.
pub(crate) fn exec_detach_keys(berth: &Instance, client: Client<'_>) {
    types_and_leaves(berth, client, &["exec", "-i", "-t", "--detach-keys", "ctrl-e,x", "changed", "cat"]);
    assert!(berth.berth(&["top", "changed"]).ok().lines().any(|line| line.ends_with("cat")));
}

fn types_and_leaves(berth: &Instance, client: Client<'_>, words: &[&str]) {
    let inner = client(berth, words);
    let line: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &line.join(" "), "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    script.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let mut child = script.spawn().unwrap();
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    keys.write_all(b"typed\n").unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    // Once by the terminal's echo, once by cat.
    while String::from_utf8_lossy(&seen).matches("typed").count() < 2 {
        assert_eq!(screen.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    keys.write_all(b"\x05x").unwrap();
    screen.read_to_end(&mut seen).unwrap();
    child.wait().unwrap();
}

/// SIGTERM for the client reaches the process; without the proxy it does not, and the client's end (the stock one ends only by force) is
/// not the container's.
pub(crate) fn signals(berth: &Instance, client: Client<'_>) {
    for (flag, status) in [("--sig-proxy=true", "exited"), ("--sig-proxy=false", "running")] {
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let mut command = client(berth, &["run", "--name", "told", flag, "busybox", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        if status == "running" {
            child.kill().unwrap();
        }
        let ended = child.wait().unwrap();
        assert_eq!(berth.inspect("told", "{{.State.Status}}"), status, "{flag}");
        if status == "exited" {
            assert_eq!(ended.code(), Some(7), "{flag}");
        }
        berth.berth(&["rm", "-f", "told"]).ok();
    }
}

pub(crate) fn cgroup_parent(berth: &Instance, client: Client<'_>) {
    let parent = format!("{}/given-parent", berth.cgroup_parent());
    let words =
        ["run", "--rm", "--cgroup-parent", &parent, "--cgroupns", "host", "busybox", "cat", "/proc/self/cgroup"];
    let shown = instance::run(client(berth, &words), b"");
    assert!(shown.ok().lines().any(|line| line.contains(&format!(":memory:{parent}/"))), "{shown:?}");
}

pub(crate) fn cidfile(berth: &Instance, client: Client<'_>) {
    let file = berth.directory.join("cid");
    let words = ["run", "-d", "--cidfile", file.to_str().unwrap(), "busybox", "true"];
    let id = id_of(berth, &words, client);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), id);
    let again = instance::run(client(berth, &words), b"");
    assert_ne!(again.code, 0);
    assert!(again.stderr.contains("cid"), "{again:?}");
    std::fs::remove_file(&file).unwrap();
    wait_until("it ended", || (berth.inspect(&id, "{{.State.Status}}") == "exited").then_some(()));
    berth.berth(&["rm", &id]).ok();
}

/// What is said of pulling is said without it and not with it.
pub(crate) fn quiet(berth: &Instance, client: Client<'_>) {
    let said = |words: &[&str]| instance::run(client(berth, words), b"").stderr.contains("Unable to find image");
    assert!(said(&["run", "--rm", "127.0.0.1:9/none", "true"]));
    assert!(!said(&["run", "--rm", "-q", "127.0.0.1:9/none", "true"]));
}

/// Its output goes nowhere, its effect is there.
pub(crate) fn exec_detaches(berth: &Instance, client: Client<'_>) {
    assert_eq!(id_of(berth, &["exec", "-d", "changed", "sh", "-c", "echo said; touch /made"], client), "");
    wait_until("the file", || (berth.berth(&["exec", "changed", "ls", "/made"]).code == 0).then_some(()));
    berth.berth(&["exec", "changed", "rm", "/made"]).ok();
}

pub(crate) fn update_help(berth: &Instance, client: Client<'_>) {
    assert!(instance::run(client(berth, &["update", "--help"]), b"").ok().contains("Usage"));
}

/// The stock client knows the flag and sends it to nobody: an engine has nothing to honour or refuse.
pub(crate) fn kernel_memory_of_run(berth: &Instance, client: Client<'_>) {
    let said = requests(berth, client(berth, &["run", "--rm", "--kernel-memory", "8m", "busybox", "true"]));
    assert!(said.contains("\"Image\":\"busybox\"") && !said.contains("KernelMemory\":8"), "{said}");
}

pub(crate) fn kernel_memory_of_update(berth: &Instance, client: Client<'_>) {
    let said = requests(berth, client(berth, &["update", "--kernel-memory", "8m", "--pids-limit", "33", "changed"]));
    assert!(said.contains("\"PidsLimit\":33") && !said.contains("KernelMemory\":8"), "{said}");
}

pub(crate) fn content_trust(berth: &Instance, client: Client<'_>) {
    let words = ["create", "--name", "trusting", "--disable-content-trust=true", "busybox", "true"];
    let said = requests(berth, client(berth, &words));
    assert!(said.contains("\"Image\":\"busybox\"") && !said.to_lowercase().contains("trust\""), "{said}");
    berth.berth(&["rm", "trusting"]).ok();
}

/// What the stock client asks of the engine, byte for byte, on its way there.
fn requests(berth: &Instance, mut command: Command) -> String {
    let path = berth.directory.join("between.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let (engine, heard) = (berth.socket(), Arc::clone(&said));
    let relay = std::thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let Ok(engine) = UnixStream::connect(&engine) else { return };
            if relayed(client, engine, &heard).is_none() {
                return;
            }
        }
    });
    command.env("DOCKER_HOST", format!("unix://{}", path.display()));
    let done = instance::run(command, b"");
    // A connection without a word ends the relay.
    drop(UnixStream::connect(&path).unwrap());
    relay.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    done.ok();
    let said = said.lock().unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

/// Passes a connection on in both directions, in threads of its own; nothing when its client says nothing.
fn relayed(mut client: UnixStream, mut engine: UnixStream, heard: &Arc<Mutex<Vec<u8>>>) -> Option<()> {
    let mut bytes = [0; 4096];
    let length = client.read(&mut bytes).unwrap();
    if length == 0 {
        return None;
    }
    heard.lock().unwrap().extend_from_slice(&bytes[..length]);
    engine.write_all(&bytes[..length]).unwrap();
    let (mut from, mut to) = (engine.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        std::io::copy(&mut from, &mut to).ok();
        to.shutdown(std::net::Shutdown::Write).ok();
    });
    let heard = Arc::clone(heard);
    std::thread::spawn(move || {
        while let Ok(length) = client.read(&mut bytes) {
            heard.lock().unwrap().extend_from_slice(&bytes[..length]);
            if length == 0 || engine.write_all(&bytes[..length]).is_err() {
                engine.shutdown(std::net::Shutdown::Write).ok();
                return;
            }
        }
    });
    Some(())
}
