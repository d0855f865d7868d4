//! A registry whose connections end at a byte of an answer, by FIN or by RST: once, and every time.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_testkit::archive::{digest, gzip, layer_tar};
use berth_testkit::registry::noise;
use berth_testkit::{Instance, LayerFile};
use serde_json::json;

use super::MANIFEST;

/// Which answer is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Described,
    Manifest,
    Config,
    Layer,
}

/// One repository with one image and one fault.
struct Case {
    answer: Answer,
    at: usize,
    is_reset: bool,
    /// How often it is still to happen.
    left: AtomicUsize,
    config: Vec<u8>,
    layer: Vec<u8>,
}

impl Case {
    fn new(number: usize, answer: Answer, at: usize, is_reset: bool, times: usize) -> Self {
        let tar = layer_tar(&[LayerFile::program("noise", noise(20_000, number as u64 + 1))]);
        let host = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let config = json!({
            "architecture": host, "os": "linux", "config": { "Cmd": ["/noise"] },
            "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
        });
        let (config, layer) = (config.to_string().into_bytes(), gzip(&tar));
        Self { answer, at, is_reset, left: AtomicUsize::new(times), config, layer }
    }

    fn manifest(&self) -> Vec<u8> {
        let blob = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len() });
        let layers = [blob("layer.v1.tar+gzip", &self.layer)];
        let config = blob("config.v1+json", &self.config);
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers })
            .to_string()
            .into_bytes()
    }

    /// The answer to a request of this kind: head and body, and the head's length.
    fn bytes(&self, answer: Answer, is_head: bool) -> (Vec<u8>, usize) {
        let (kind, body) = match answer {
            Answer::Described | Answer::Manifest => (MANIFEST, self.manifest()),
            Answer::Config => ("application/octet-stream", self.config.clone()),
            Answer::Layer => ("application/octet-stream", self.layer.clone()),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {}\r\n\r\n",
            body.len(),
            digest(&body)
        );
        let body = if is_head { &[][..] } else { &body };
        ([head.as_bytes(), body].concat(), head.len())
    }

    /// The length of the answer that is cut, and of its head.
    fn lengths(answer: Answer) -> (usize, usize) {
        let (bytes, head) = Self::new(0, answer, 0, false, 0).bytes(answer, answer == Answer::Described);
        (bytes.len(), head)
    }

    /// `false`: the connection is over.
    fn serve(&self, stream: &mut TcpStream, method: &str, path: &str) -> bool {
        let asked = match (method, path) {
            ("HEAD", _) => Answer::Described,
            (_, path) if path.contains("/manifests/") => Answer::Manifest,
            (_, path) if path.ends_with(&digest(&self.config)) => Answer::Config,
            _ => Answer::Layer,
        };
        let (bytes, _) = self.bytes(asked, method == "HEAD");
        let is_cut = asked == self.answer
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let sent = stream.write_all(&bytes[..if is_cut { self.at.min(bytes.len() - 1) } else { bytes.len() }]);
        if is_cut && self.is_reset {
            rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO)).unwrap();
        } else if is_cut {
            drop(stream.shutdown(Shutdown::Both));
        }
        sent.is_ok() && !is_cut
    }
}

/// Serves the cases as repositories `c<number>`; the threads end with the process.
fn serve(cases: Arc<Vec<Case>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, cases) = (stream.unwrap(), Arc::clone(&cases));
            std::thread::spawn(move || {
                while let Some((method, path)) = request(&stream) {
                    let number =
                        path.strip_prefix("/v2/c").and_then(|rest| rest.split('/').next()?.parse::<usize>().ok());
                    let is_served = number.is_some_and(|number| cases[number].serve(&mut stream, &method, &path));
                    if !is_served {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// Method and path; nothing for what is no request, as a probe for TLS is not.
fn request(stream: &TcpStream) -> Option<(String, String)> {
    let mut reader = BufReader::new(stream);
    let mut first = Vec::new();
    reader.read_until(b'\n', &mut first).ok()?;
    let first = String::from_utf8(first).ok()?;
    let (method, rest) = first.trim().split_once(' ')?;
    let path = rest.strip_suffix(" HTTP/1.1")?.to_owned();
    let mut line = String::from("…");
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line).ok()?;
    }
    Some((method.to_owned(), path))
}

/// Offsets all over the head and the body of each answer; each kind of end in turn.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for answer in [Answer::Described, Answer::Manifest, Answer::Config, Answer::Layer] {
        let (length, head) = Case::lengths(answer);
        // The numbers in the heads differ in length by nothing that matters here.
        let in_head = (0..head).step_by(11);
        let in_body = [head, head + 1, (head + length) / 2, length - 1].into_iter().filter(|at| *at < length);
        for (n, at) in in_head.chain(in_body).enumerate() {
            cases.push(Case::new(cases.len(), answer, at, n % 2 == 0, 1));
            if n % 9 == 0 {
                cases.push(Case::new(cases.len(), answer, at, n % 2 == 1, usize::MAX));
            }
        }
    }
    cases
}

/// hostile.md 2H, resets at any byte: a pull whose connections end in the head or the body of an answer has the right image in the end; one whose
/// connections always end there fails with the host and the cause, and nothing of it is listed.
#[test]
fn resets_at_any_byte_of_a_pull() {
    let cases = Arc::new(cases());
    let port = serve(Arc::clone(&cases));
    let berth = Instance::start();
    let next = AtomicUsize::new(0);
    let pull_next = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let case = cases.get(number)?;
        let name = format!("127.0.0.1:{port}/c{number}:1");
        let pulled = berth.berth(&["pull", "-q", &name]);
        let fault = format!("{:?} cut at {}, is_reset: {}", case.answer, case.at, case.is_reset);
        if case.left.load(Ordering::Relaxed) == 0 {
            assert_eq!(pulled.code, 0, "{fault}: {pulled:?}");
            let id = berth.berth(&["image", "inspect", "--format", "{{.Id}}", &name]);
            assert_eq!(id.ok(), digest(&case.config), "{fault}");
            return Some(Some(name));
        }
        assert!(case.left.load(Ordering::Relaxed) > 1, "{fault}: it did not happen: {pulled:?}");
        assert_ne!(pulled.code, 0, "{fault}: {pulled:?}");
        assert!(pulled.stderr.contains(&format!("127.0.0.1:{port}")), "{fault}: {pulled:?}");
        let causes = ["connection closed", "error reading a body", "reset by peer", "it ended after"];
        assert!(causes.iter().any(|cause| pulled.stderr.to_lowercase().contains(cause)), "{fault}: {pulled:?}");
        Some(None)
    };
    let good: BTreeSet<String> = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..16).map(|_| scope.spawn(|| std::iter::from_fn(pull_next).flatten().collect::<Vec<_>>())).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let listed = berth.berth(&["images", "-a", "--format", "{{.Repository}}:{{.Tag}}"]).ok().to_owned();
    assert_eq!(listed.lines().map(str::to_owned).collect::<BTreeSet<_>>(), good);
    let checked = berth.berth(&["fsck"]);
    assert!(checked.ok().ends_with("all in order"), "{checked:?}");
    // Manifest, configuration and layer of each that came, and of no other.
    let blobs = std::fs::read_dir(berth.root().join("content/blobs/sha256")).unwrap().count();
    assert_eq!(blobs, good.len() * 3);
}
