//! The shim's calls as containerd makes them, old and new, from bare commands.

use std::io::Write as _;
use std::process::{Command, Stdio};

use containerd_shim_protos::api::{ConnectRequest, ConnectResponse};
use containerd_shim_protos::protobuf::Message as _;
use containerd_shim_protos::ttrpc::{self, Client};

use super::{SHIM, shim};

/// S-138: `-v` and `-info`.
#[test]
fn s138_version_and_info() {
    let version = Command::new(shim()).arg("-v").output().unwrap();
    let text = String::from_utf8(version.stdout).unwrap();
    assert!(version.status.success() && text.starts_with(SHIM) && text.contains("task v2 and v3"), "{text}");
    let info = Command::new(shim()).arg("-info").stdin(Stdio::null()).output().unwrap();
    assert!(info.status.success());
    // RuntimeInfo { name = 1: "io.containerd.berth.v1" }
    assert_eq!(info.stdout.get(..24).unwrap(), b"\x0a\x16io.containerd.berth.v1");
}

/// The pid that a shim gives of itself by this name of the service.
fn connect(socket: &str, service: &str, id: &str) -> u32 {
    let client = Client::connect(&format!("unix://{socket}")).unwrap();
    let payload = ConnectRequest { id: id.to_owned(), ..Default::default() }.write_to_bytes().unwrap();
    let request = ttrpc::Request {
        service: service.to_owned(),
        method: "Connect".to_owned(),
        timeout_nano: 5_000_000_000,
        payload,
        ..Default::default()
    };
    let response = client.request(request).unwrap();
    ConnectResponse::parse_from_bytes(&response.payload).unwrap().shim_pid
}

/// S-138: one shim each by the flags of containerd 1.x, of 2.0 and 2.1 (JSON), and by 2.3's message on stdin; each answers at its address under
/// both names of the Task service, and ends by `delete`.
#[test]
fn s138_three_ways_to_start() {
    let root = std::env::var_os("BERTH_TEST_ROOT").map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    let directory = root.join(format!("calls-{}", std::process::id()));
    // BootstrapParams: instance_id = 1, namespace = 2.
    let message = b"\x0a\x05three\x12\x02ns".to_vec();
    for (id, newest, input) in [("one", None, Vec::new()), ("two", Some("3"), Vec::new()), ("three", None, message)] {
        let bundle = directory.join(id);
        std::fs::create_dir_all(&bundle).unwrap();
        std::fs::write(bundle.join("config.json"), "{}").unwrap();
        let call = |verb: &[&str]| {
            let mut command = Command::new(shim());
            command.args(["-namespace", "ns", "-address", "/nowhere", "-publish-binary", "", "-id", id]).args(verb);
            command.env("BERTH_SOCKET_DIR", directory.join("s")).current_dir(&bundle);
            command.env_remove("MAX_SHIM_VERSION").envs(newest.map(|newest| ("MAX_SHIM_VERSION", newest)));
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            // A call that reads nothing may be over.
            child.stdin.take().unwrap().write_all(&input).unwrap_or(());
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{id} {verb:?}");
            output.stdout
        };
        let answer = call(&["start"]);
        let text = String::from_utf8_lossy(&answer);
        let address = text.split("unix://").nth(1).unwrap();
        let socket = &address[..directory.join("s").as_os_str().len() + 33];
        match id {
            "one" => assert_eq!(text, format!("unix://{socket}")),
            "two" => assert_eq!(text, format!(r#"{{"version":3,"address":"unix://{socket}","protocol":"ttrpc"}}"#)),
            // BootstrapResult: version = 1, address = 2, protocol = 3.
            _ => assert!(answer.starts_with(b"\x08\x03\x12") && text.ends_with("ttrpc"), "{text}"),
        }
        for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
            assert_eq!(
                connect(socket, service, id).to_string(),
                std::fs::read_to_string(bundle.join("shim.pid")).unwrap()
            );
        }
        let pid: i32 = std::fs::read_to_string(bundle.join("shim.pid")).unwrap().trim().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // DeleteResponse: exit_status = 2: 137.
        assert!(
            call(&["-bundle", bundle.to_str().unwrap(), "delete"]).windows(3).any(|bytes| bytes == b"\x10\x89\x01")
        );
        assert!(!std::path::Path::new(socket).exists(), "delete takes the socket away");
    }
    std::fs::remove_dir_all(directory).unwrap();
}
