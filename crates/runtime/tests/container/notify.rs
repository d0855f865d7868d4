//! `SCMP_ACT_NOTIFY`: the listener reaches an agent, and the call waits for it.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use berth_sys::clone::{Child, CloneArgs, clone_child};
use berth_types::report;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};

use crate::support::{Bundle, process_value};

fn filter(agent: &std::path::Path, names: &[&str]) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": agent, "listenerMetadata": "for the agent",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_NOTIFY"}]})
}

fn one_connection(socket: &OwnedFd) -> (Value, OwnedFd) {
    let connection = rustix::net::accept(socket).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; 16384];
    let mut slices = [IoSliceMut::new(&mut text)];
    let length = rustix::net::recvmsg(&connection, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let listener = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    text.truncate(length);
    // Exactly one state, then the end.
    assert_eq!(std::fs::File::from(connection).read_to_end(&mut text).unwrap(), 0);
    (serde_json::from_slice(&text).unwrap(), listener.unwrap())
}

/// An agent that takes `count` listeners, waits for a call at each and lets go of it, which answers the call with ENOSYS.
fn agent(path: &std::path::Path, count: usize, log: &std::path::Path) -> Child {
    let socket =
        rustix::net::socket_with(rustix::net::AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 4).unwrap();
    let mut kept = Vec::new();
    clone_child(&CloneArgs::default(), || {
        for round in 0..count {
            let (state, listener) = one_connection(&socket);
            std::fs::write(log.with_extension(round.to_string()), state.to_string()).unwrap();
            let mut fds = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
            let timeout = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
            if rustix::event::poll(&mut fds, Some(&timeout)).unwrap() != 1 {
                return 1;
            }
            if round > 0 {
                kept.push(listener);
                kept.clear();
            }
        }
        0
    })
    .unwrap()
}

fn end(agent: &Child) {
    let id = rustix::process::WaitId::PidFd(agent.pidfd.as_fd());
    let status = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
}

/// The calls init itself makes after the filter is there (becoming the user, exec) are none of the agent's trouble.
pub(super) fn the_listener_reaches_the_agent() {
    for no_new_privileges in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (path, log) = (dir.path().join("agent"), dir.path().join("log"));
        let agent = agent(&path, 2, &log);
        let mut bundle = Bundle::new()
            .set("/linux/seccomp", filter(&path, &["mkdir", "mkdirat", "swapon"]))
            .set("/process/noNewPrivileges", json!(no_new_privileges))
            .set("/annotations", json!({"some": "annotation"}))
            .sh("mkdir /tmp/x; echo up; sleep 60");
        let running = bundle.start();
        let text = running.await_line("up");
        assert!(text.contains("Function not implemented"), "{text}");
        let state: Value = serde_json::from_slice(&std::fs::read(log.with_extension("0")).unwrap()).unwrap();
        let pid = running.container.init.pid;
        assert_eq!(state["fds"], json!(["seccompFd"]));
        assert_eq!((&state["pid"], &state["metadata"]), (&json!(pid), &json!("for the agent")));
        assert_eq!((&state["state"]["status"], &state["state"]["pid"]), (&json!("created"), &json!(pid)));
        assert_eq!(state["state"]["annotations"], json!({"some": "annotation"}));
        assert_eq!(state["ociVersion"], json!(berth_runtime::OCI_VERSION));
        // An added process has a listener of its own; no helper is left of either.
        let mut process = process_value(&["sh", "-c", "mkdir /tmp/y; ps | grep -vc -e PID -e ps"]);
        process["noNewPrivileges"] = json!(no_new_privileges);
        let (_, text) = running.exec(&process);
        assert!(text.contains("Function not implemented") && text.ends_with("\n1\n"), "{text}");
        end(&agent);
        running.container.delete().unwrap();
    }
}

pub(super) fn without_an_agent_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new().set("/linux/seccomp", filter(&dir.path().join("nobody"), &["mkdir"]));
    let mut container = super::spec::create(&mut bundle).unwrap();
    let error = container.start(&mut Vec::new()).unwrap_err();
    assert!(report(&error).contains("failed to connect with seccomp agent"), "{}", report(&error));
    container.delete().unwrap();
}
