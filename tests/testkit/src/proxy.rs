//! A forward proxy for tests: one name leads to one port of this machine, whatever port was asked for; it knows no other.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct ForwardProxy {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: &'static str,
    target: u16,
    heads: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl ForwardProxy {
    pub fn to(name: &'static str, target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { name, target, heads: Mutex::default(), is_over: AtomicBool::new(false) });
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ours.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&ours);
                std::thread::spawn(move || serve(client, &shared));
            }
        });
        Self { port, shared }
    }

    /// Heads of all requests so far, those in tunnels excepted.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// The requests of one connection; they have no bodies.
fn serve(mut client: TcpStream, shared: &Shared) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", shared.target)) else { return };
    let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let mut is_answering = None;
    while let Some(head) = head(&mut client) {
        shared.heads.lock().unwrap().push(head.clone());
        let is_tunnel = head.starts_with("CONNECT ");
        if !head.contains(&format!("Host: {}", shared.name)) && !head.contains(&format!("host: {}", shared.name)) {
            drop(client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
            break;
        }
        let sent = match is_tunnel {
            true => client.write_all(b"HTTP/1.1 200 OK\r\n\r\n"),
            false => server.write_all(in_origin_form(&head).as_bytes()),
        };
        if sent.is_err() {
            break;
        }
        if is_answering.is_none() {
            let (mut from, mut to) = (answers.try_clone().unwrap(), back.try_clone().unwrap());
            is_answering = Some(std::thread::spawn(move || {
                drop(std::io::copy(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Both));
            }));
        }
        if is_tunnel {
            drop(std::io::copy(&mut client, &mut server));
            break;
        }
    }
    drop(answers.shutdown(Shutdown::Both));
    drop(back.flush());
    drop(answers.flush());
}

fn head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// `GET http://host/path` as the server wants it, without what is for the proxy.
fn in_origin_form(head: &str) -> String {
    let (line, rest) = head.split_once("\r\n").unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    let path = words[1].splitn(4, '/').nth(3).unwrap_or_default();
    let rest: Vec<&str> = rest.split("\r\n").filter(|l| !l.to_ascii_lowercase().starts_with("proxy-")).collect();
    format!("{} /{path} {}\r\n{}", words[0], words[2], rest.join("\r\n"))
}
