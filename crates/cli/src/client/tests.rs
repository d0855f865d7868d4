//! The framing, against a server that answers with exactly these bytes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use super::*;

/// Reads one request head; returns its lines.
fn read_head(reader: &mut BufReader<UnixStream>) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
            return lines;
        }
        lines.push(line.trim_end().to_owned());
    }
}

/// A server for one test: `serve` gets each accepted connection in turn.
fn server<T: Send + 'static>(
    connections: usize,
    mut serve: impl FnMut(usize, BufReader<UnixStream>) -> T + Send + 'static,
) -> (tempfile::TempDir, Client, JoinHandle<Vec<T>>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let thread = std::thread::spawn(move || {
        let accept = |n| {
            let stream = listener.accept().unwrap().0;
            // A client that asks for less than the test expects fails it instead of hanging it.
            stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
            serve(n, BufReader::new(stream))
        };
        (0..connections).map(accept).collect()
    });
    let mut client = Client::new(Address::parse(Some(socket.to_str().unwrap()), "-H").unwrap());
    client.is_version_known = true;
    (dir, client, thread)
}

/// Answers every request of one connection with `answer`; returns the request lines.
fn answering(answers: &'static [&'static str]) -> (tempfile::TempDir, Client, JoinHandle<Vec<Vec<String>>>) {
    server(1, move |_, mut reader| {
        let mut seen = Vec::new();
        for answer in answers {
            seen.push(read_head(&mut reader).first().cloned().unwrap_or_default());
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
        seen
    })
}

#[test]
fn one_connection_serves_many_requests() {
    let (_dir, mut client, thread) = answering(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\": 1}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"b\r\n5;x=y\r\n\": 2}\r\n0\r\nTrailer: z\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ]);
    assert_eq!(client.get("/x").unwrap()["a"], 1);
    assert_eq!(client.get("/y").unwrap()["b"], 2);
    assert_eq!(client.post("/z", None).unwrap(), Value::Null);
    assert_eq!(client.delete("/z").unwrap(), Value::Null);
    let seen = thread.join().unwrap().concat();
    assert_eq!(
        seen,
        ["GET /v1.51/x HTTP/1.1", "GET /v1.51/y HTTP/1.1", "POST /v1.51/z HTTP/1.1", "DELETE /v1.51/z HTTP/1.1"]
    );
}

#[test]
fn refusals_carry_our_fields() {
    let (_dir, mut client, thread) = answering(&[
        "HTTP/1.1 404 Not Found\r\nContent-Length: 102\r\n\r\n{\"message\":\"no such container: x\",\"berth\":{\"class\":\"not_found\",\"hint\":\"see ps\",\"exit_code\":127},\"a\":1}",
    ]);
    let failure = client.get("/x").unwrap_err();
    thread.join().unwrap();
    assert_eq!(failure.message, "no such container: x");
    assert_eq!(failure.hint.as_deref(), Some("see ps"));
    assert_eq!((failure.exit_code, failure.status), (127, 404));
}

#[test]
fn plain_refusals() {
    let (_dir, mut client, thread) = answering(&["HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nboom"]);
    let failure = client.get("/x").unwrap_err();
    thread.join().unwrap();
    assert_eq!((failure.message.as_str(), failure.exit_code, failure.status), ("boom", 125, 500));
}

#[test]
fn an_older_daemon_is_followed() {
    let (_dir, mut client, thread) = server(2, |n, mut reader| {
        let seen = read_head(&mut reader)[0].clone();
        let answer = match n {
            0 => "HTTP/1.1 400 Bad Request\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\n{}",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7",
        };
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
        seen
    });
    assert_eq!(client.get("/x").unwrap(), 7);
    assert_eq!(client.version(), "1.41");
    assert_eq!(thread.join().unwrap(), ["GET /v1.51/x HTTP/1.1", "GET /v1.41/x HTTP/1.1"]);
}

/// A stream cannot be sent twice, so the version is asked for first, once.
#[test]
fn an_upload_asks_for_the_version_first() {
    let (_dir, mut client, thread) = server(3, |n, mut reader| {
        let seen = read_head(&mut reader)[0].clone();
        let answer = match n {
            0 => "HTTP/1.1 400 Bad Request\r\nApi-Version: 1.41\r\nContent-Length: 2\r\n\r\n{}",
            1 => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        };
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
        seen
    });
    client.is_version_known = false;
    drop(client.stream("POST", "/x", Payload::Stream(&mut "".as_bytes(), "application/x-tar")).unwrap());
    assert_eq!(
        thread.join().unwrap(),
        ["GET /v1.51/_ping HTTP/1.1", "GET /v1.41/_ping HTTP/1.1", "POST /v1.41/x HTTP/1.1"]
    );
}

#[test]
fn broken_answers_are_errors() {
    for (answer, why) in [
        ("", "the connection was closed before the answer"),
        ("SSH-2.0\r\n\r\n", "the answer is not HTTP/1.1: status line \"SSH-2.0\""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "the answer ended in the middle"),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "the answer is not HTTP/1.1: content length \"x\""),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "the answer is not HTTP/1.1: chunk size \"zz\"",
        ),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "the answer is not HTTP/1.1: header line \"no colon\""),
    ] {
        let (_dir, mut client, thread) = server(1, move |_, mut reader| {
            read_head(&mut reader);
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        });
        let failure = client.get("/x?secret=1").unwrap_err();
        thread.join().unwrap();
        assert!(failure.message.starts_with("lost the daemon at unix://"), "{failure}");
        assert!(failure.message.ends_with("while it answered GET /x"), "{failure}");
        assert_eq!(failure.because, [why]);
    }
}

#[test]
fn an_upload_is_chunked() {
    let (_dir, mut client, thread) = server(1, |_, mut reader| {
        let head = read_head(&mut reader).join("|");
        let mut body = String::new();
        while !body.ends_with("0\r\n\r\n") {
            reader.read_line(&mut body).unwrap();
        }
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        (head, body)
    });
    client.call("PUT", "/x", Payload::Stream(&mut "hello".as_bytes(), "application/x-tar")).unwrap();
    let (head, body) = thread.join().unwrap().remove(0);
    assert!(head.contains("Transfer-Encoding: chunked") && head.contains("Content-Type: application/x-tar"), "{head}");
    assert_eq!(body, "5\r\nhello\r\n0\r\n\r\n");
}

#[test]
fn a_refused_upload_shows_the_refusal() {
    let (_dir, mut client, thread) = server(1, |_, mut reader| {
        read_head(&mut reader);
        let answer = "HTTP/1.1 400 Bad\r\nContent-Length: 23\r\n\r\n{\"message\":\"bad image\"}";
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
        // Read on, so that the close is no reset that would take the answer along.
        let mut rest = Vec::new();
        reader.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
        reader.read_to_end(&mut rest).unwrap();
    });
    let mut endless = std::io::repeat(0).take(4 << 20);
    let failure = client.call("POST", "/x", Payload::Stream(&mut endless, "application/x-tar")).unwrap_err();
    assert_eq!(failure.message, "bad image");
    drop(client);
    thread.join().unwrap();
}

#[test]
fn a_hijacked_stream_goes_both_ways_and_half_closes() {
    let (_dir, mut client, thread) = server(1, |_, mut reader| {
        let head = read_head(&mut reader).join("|");
        let answer = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                      Connection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly ";
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
        let mut sent = String::new();
        reader.read_to_string(&mut sent).unwrap(); // until the half-close
        reader.get_mut().write_all(format!("got {sent}").as_bytes()).unwrap();
        head
    });
    let mut stream = client.hijack("/attach", None).unwrap();
    let mut writer = stream.writer().unwrap();
    writer.write_all(b"input").unwrap();
    writer.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert_eq!(all, "early got input");
    assert!(thread.join().unwrap()[0].contains("Upgrade: tcp"));
}

#[test]
fn json_lines() {
    let lines = JsonLines::new("{\"a\":1}\r\n\n\u{1e}{\"a\":2}\n{bad".as_bytes());
    let seen: Vec<Result<i64, String>> =
        lines.map(|line| line.map(|v| v["a"].as_i64().unwrap()).map_err(|f| f.message)).collect();
    assert_eq!(seen, [Ok(1), Ok(2), Err("the daemon's stream is not valid JSON".to_owned())]);
}

#[test]
fn nobody_there() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none");
    let mut client = Client::new(Address::parse(Some(socket.to_str().unwrap()), "-H").unwrap());
    let failure = client.get("/x").unwrap_err();
    assert_eq!(failure.message, format!("cannot connect to the daemon at unix://{}", socket.display()));
    assert!(failure.hint.unwrap().starts_with("is berthd running there?"));
}
