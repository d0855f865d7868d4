//! Whole commands against a daemon of a few lines: what is asked in which order, and what comes of the answers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// One request: its first line and its body.
struct Request {
    line: String,
    body: String,
}

/// Reads a request; `None` at the end of the connection.
fn read_request(reader: &mut BufReader<UnixStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|length| *length > 0)?;
        if let Some(text) = header.strip_prefix("Content-Length: ") {
            length = text.trim().parse().unwrap();
        }
        if header == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Some(Request {
        line: line.trim_end().replace("/v1.51", "").replace(" HTTP/1.1", ""),
        body: String::from_utf8(body).unwrap(),
    })
}

/// Answers by `answer`; it gets the socket for what is more than one answer.
fn daemon(
    answer: impl Fn(&Request, &mut BufReader<UnixStream>) + Send + Sync + 'static,
) -> (tempfile::TempDir, PathBuf, Receiver<String>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (seen, log) = channel();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (seen, answer) = (seen.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.unwrap());
                while let Some(request) = read_request(&mut reader) {
                    seen.send(request.line.clone()).unwrap();
                    answer(&request, &mut reader);
                }
            });
        }
    });
    (dir, socket, log)
}

fn json(reader: &mut BufReader<UnixStream>, status: &str, body: &str) {
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    reader.get_mut().write_all(answer.as_bytes()).unwrap();
}

fn spawn(socket: &Path, words: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(words)
        .env_clear()
        .env("BERTH_HOST", format!("unix://{}", socket.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs with `input`; stdout, stderr, exit code.
fn run(socket: &Path, words: &[&str], input: &str) -> (String, String, i32) {
    let mut child = spawn(socket, words);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
        output.status.code().unwrap(),
    )
}

const ATTACHED: &str = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";

fn frame(stream: u8, text: &str) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// A container that echoes its input in capitals on stdout, says "err" on stderr and ends with 7.
fn container(request: &Request, reader: &mut BufReader<UnixStream>) {
    let path = request.line.split(['?', ' ']).nth(1).unwrap_or_default();
    match path {
        "/containers/create" if request.body.contains("missing") => {
            json(reader, "404 Not Found", "{\"message\":\"no such image: missing\"}");
        }
        "/containers/create" => json(reader, "201 Created", "{\"Id\":\"c0ffee\",\"Warnings\":[\"careful\"]}"),
        "/containers/c0ffee/attach" => {
            reader.get_mut().write_all(ATTACHED.as_bytes()).unwrap();
            let mut input = String::new();
            if request.line.contains("stdin=1") {
                reader.read_to_string(&mut input).unwrap();
            }
            reader.get_mut().write_all(&frame(1, &input.to_uppercase())).unwrap();
            reader.get_mut().write_all(&frame(2, "err\n")).unwrap();
            reader.get_mut().shutdown(std::net::Shutdown::Both).unwrap();
        }
        "/containers/c0ffee/wait" => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            reader.get_mut().write_all(head.as_bytes()).unwrap();
            reader.get_mut().write_all(b"10\r\n{\"StatusCode\":7}\r\n0\r\n\r\n").unwrap();
        }
        "/containers/c0ffee/start" => reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(),
        other => json(reader, "404 Not Found", &format!("{{\"message\":\"no {other}\"}}")),
    }
}

#[test]
fn run_streams_and_takes_the_exit_code() {
    let (_dir, socket, log) = daemon(container);
    let (stdout, stderr, code) = run(&socket, &["run", "-i", "--rm", "--name", "x y", "busybox", "cat"], "hello\n");
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("HELLO\n", "warning: careful\nerr\n", 7));
    let mut seen: Vec<String> = log.try_iter().collect();
    assert_eq!(seen.remove(0), "POST /containers/create?name=x%20y");
    assert_eq!(seen.pop().unwrap(), "POST /containers/c0ffee/start");
    seen.sort();
    assert_eq!(
        seen,
        [
            "POST /containers/c0ffee/attach?stream=1&stdin=1&stdout=1&stderr=1",
            "POST /containers/c0ffee/wait?condition=removed"
        ]
    );
}

#[test]
fn run_detached_prints_the_id() {
    let (dir, socket, log) = daemon(container);
    let file = dir.path().join("cid");
    let (stdout, stderr, code) = run(&socket, &["run", "-d", "--cidfile", file.to_str().unwrap(), "busybox"], "");
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("c0ffee\n", "warning: careful\n", 0));
    assert_eq!(std::fs::read_to_string(file).unwrap(), "c0ffee");
    assert_eq!(log.try_iter().collect::<Vec<_>>(), ["POST /containers/create", "POST /containers/c0ffee/start"]);
}

#[test]
fn a_missing_image_is_named_with_a_way_out() {
    let (_dir, socket, _log) = daemon(container);
    let (stdout, stderr, code) = run(&socket, &["run", "--pull", "never", "missing"], "");
    assert_eq!((stdout.as_str(), code), ("", 125));
    assert_eq!(
        stderr,
        "error: no such image: missing\nhint: fetch it with `berth pull NAME`, or load it from an archive with `berth load -i FILE`\n"
    );
}

/// A start that fails: the daemon's exit code, and a --rm container is not left behind.
#[test]
fn a_failed_start() {
    let (_dir, socket, log) = daemon(|request, reader| {
        if request.line.contains("/start") {
            let body = "{\"message\":\"cannot start: /nope not found\",\"berth\":{\"exit_code\":127,\"hint\":\"check the path\",\"class\":\"not_found\"}}";
            json(reader, "400 Bad Request", body);
        } else {
            container(request, reader);
        }
    });
    let (stdout, stderr, code) = run(&socket, &["run", "-d", "--rm", "busybox", "/nope"], "");
    assert_eq!((stdout.as_str(), code), ("", 127));
    assert_eq!(stderr, "warning: careful\nerror: cannot start: /nope not found\nhint: check the path\n");
    let seen: Vec<String> = log.try_iter().collect();
    assert_eq!(seen.last().unwrap(), "DELETE /containers/c0ffee?force=1&v=1");
}

/// A signal that reaches us goes to the container; the session ends when the container does.
#[test]
fn signals_are_forwarded() {
    let (_dir, socket, log) = daemon(|request, reader| {
        if request.line.contains("/attach") {
            // Open until the signal has come: the kill is answered on another connection, which ends this one's wait.
            reader.get_mut().write_all(ATTACHED.as_bytes()).unwrap();
            reader.get_mut().write_all(&frame(1, "ready\n")).unwrap();
            let flag = flag_path(reader);
            let deadline = Instant::now() + Duration::from_secs(60);
            while !flag.exists() && Instant::now() < deadline {
                std::thread::yield_now();
            }
            reader.get_mut().shutdown(std::net::Shutdown::Both).unwrap();
        } else if request.line.contains("/kill") {
            std::fs::write(flag_path(reader), "").unwrap();
            reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        } else {
            container(request, reader);
        }
    });
    let mut child = spawn(&socket, &["run", "busybox", "sleep"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(log.try_iter().any(|line| line == "POST /containers/c0ffee/kill?signal=10"));
}

/// A file beside the daemon's socket.
fn flag_path(reader: &BufReader<UnixStream>) -> PathBuf {
    let address = reader.get_ref().local_addr().unwrap();
    address.as_pathname().unwrap().with_file_name("killed")
}

#[test]
fn ps_prints_dockers_table() {
    let (_dir, socket, log) = daemon(|_, reader| {
        let body = "[{\"Id\":\"0123456789abcdef\",\"Names\":[\"/web\"],\"Image\":\"busybox\",\"Command\":\"sleep 1000\",\"Created\":1,\
                    \"Ports\":[{\"IP\":\"0.0.0.0\",\"PrivatePort\":80,\"PublicPort\":8080,\"Type\":\"tcp\"}],\"State\":\"running\",\
                    \"Status\":\"Up 3 minutes\",\"Labels\":{\"a\":\"b\"}}]";
        json(reader, "200 OK", body);
    });
    let (stdout, _, code) =
        run(&socket, &["ps", "--format", "table {{.ID}}\\t{{.Names}}\\t{{.Ports}}\\t{{.Label \"a\"}}"], "");
    assert_eq!(code, 0);
    assert_eq!(
        stdout,
        "CONTAINER ID   NAMES     PORTS                  a\n0123456789ab   web       0.0.0.0:8080->80/tcp   b\n"
    );
    let (stdout, _, _) = run(&socket, &["ps", "-q", "-a", "-f", "status=exited"], "");
    assert_eq!(stdout, "0123456789ab\n");
    let seen: Vec<String> = log.try_iter().collect();
    assert_eq!(seen[1], "GET /containers/json?all=1&filters=%7B%22status%22%3A%5B%22exited%22%5D%7D");
}

#[test]
fn inspect_keeps_the_daemons_order() {
    let (_dir, socket, _log) = daemon(|request, reader| {
        if request.line.ends_with("/containers/web/json") {
            json(reader, "200 OK", "{\"Id\":\"1\",\"Args\":[],\"A\":{\"z\":1,\"b\":null}}");
        } else {
            json(reader, "404 Not Found", "{\"message\":\"no\"}");
        }
    });
    let (stdout, stderr, code) = run(&socket, &["inspect", "web", "gone"], "");
    assert_eq!(
        stdout,
        "[\n    {\n        \"Id\": \"1\",\n        \"Args\": [],\n        \"A\": {\n            \"z\": 1,\n            \"b\": null\n        }\n    }\n]\n"
    );
    assert_eq!((stderr.as_str(), code), ("error: no such object: gone\n", 125));
    let (stdout, _, code) = run(&socket, &["inspect", "-f", "{{.A.z}}{{if .Nope}}x{{end}}", "web"], "");
    assert_eq!((stdout.as_str(), code), ("1\n", 0));
}

#[test]
fn several_objects_one_failure() {
    let (_dir, socket, _log) = daemon(|request, reader| {
        if request.line.contains("/gone") {
            json(reader, "404 Not Found", "{\"message\":\"no such container: gone\"}");
        } else {
            reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        }
    });
    let (stdout, stderr, code) = run(&socket, &["stop", "-t", "0", "a", "gone", "b"], "");
    assert_eq!((stdout.as_str(), stderr.as_str(), code), ("a\nb\n", "error: no such container: gone\n", 125));
    let (_, _, code) = run(&socket, &["rm", "-f", "gone"], "");
    assert_eq!(code, 0);
}
