//! Registries that stall, lie, break off and lead astray (hostile.md 1c, 2H). Each ends with success or a clear error, credentials go to nobody
//! else, and nothing grows without a limit.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "misbehaving/mirror.rs"]
mod mirror;
#[path = "misbehaving/push.rs"]
mod push;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use berth_content::{ContentStore, digest_of};
use berth_registry::{Credentials, Partials, Registry, RegistryError, RegistryOptions, Session};
use berth_types::Reference;

/// One request as the registry sees it.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    path: String,
    head: String,
    body: String,
}

impl Seen {
    fn range(&self) -> Option<(usize, usize)> {
        let text = self.header("range")?.strip_prefix("bytes=")?.to_owned();
        let (start, end) = text.split_once('-')?;
        Some((start.parse().ok()?, end.parse::<usize>().ok()? + 1))
    }

    fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }
}

/// A registry of a few lines: one request per connection, answered by a closure that may do what it likes.
struct Rogue {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    sent: Arc<AtomicU64>,
}

/// The connection, counting what is sent, and whether it ends by RST.
struct Wire<'w>(&'w mut TcpStream, &'w AtomicU64, bool);

impl Wire<'_> {
    /// `false`: the client is gone.
    fn send(&mut self, bytes: &[u8]) -> bool {
        let is_sent = self.0.write_all(bytes).is_ok();
        if is_sent {
            self.1.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        is_sent
    }

    fn answer(&mut self, status: &str, headers: &str, body: &[u8]) {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        let _: bool = self.send(head.as_bytes()) && self.send(body);
    }

    /// A range of a blob as it should be, cut off after `limit` bytes.
    fn blob(&mut self, blob: &[u8], seen: &Seen, limit: usize) {
        let (start, end) = seen.range().unwrap_or((0, blob.len()));
        let (status, range) = match seen.range() {
            Some(_) => ("206 Partial Content", format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, blob.len())),
            None => ("200 OK", String::new()),
        };
        let length = end - start;
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{range}\r\n");
        let _: bool = self.send(head.as_bytes()) && self.send(&blob[start..end][..limit.min(length)]);
    }

    /// As much of these bytes as there may be; then the connection ends, by RST or by FIN.
    fn cut(&mut self, bytes: &[u8], limit: usize, is_reset: bool) {
        let _: bool = self.send(&bytes[..limit.min(bytes.len())]);
        if is_reset {
            rustix::net::sockopt::set_socket_linger(&*self.0, Some(Duration::ZERO)).unwrap();
            self.2 = true;
        }
    }

    /// Until the client gives up.
    fn stall(&mut self) {
        let mut byte = [0];
        drop(self.0.read(&mut byte));
    }
}

impl Rogue {
    fn new(answer: impl Fn(&Seen, &mut Wire<'_>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, sent) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let (log, counter, answer) = (Arc::clone(&seen), Arc::clone(&sent), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, log, counter, answer) =
                    (stream.unwrap(), Arc::clone(&log), Arc::clone(&counter), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some(seen) = read_request(&stream) else { return };
                    log.lock().unwrap().push(seen.clone());
                    let mut wire = Wire(&mut stream, &counter, false);
                    answer(&seen, &mut wire);
                    if !wire.2 {
                        drop(stream.shutdown(Shutdown::Both));
                    }
                });
            }
        });
        Self { port, seen, sent }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn session(&self, credentials: Credentials) -> Arc<Session> {
        self.session_with(credentials, options())
    }

    fn session_with(&self, credentials: Credentials, options: RegistryOptions) -> Arc<Session> {
        Registry::new(options).session(&self.reference(), credentials).unwrap()
    }

    fn reference(&self) -> Reference {
        format!("127.0.0.1:{}/app:1", self.port).parse().unwrap()
    }
}

/// `None` for what is no HTTP request, as a probe for TLS is not.
fn read_request(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut first = Vec::new();
    reader.read_until(b'\n', &mut first).ok()?;
    let first = String::from_utf8(first).ok()?;
    let (method, rest) = first.trim().split_once(' ')?;
    let path = rest.strip_suffix(" HTTP/1.1")?.to_owned();
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(line.trim());
        head.push('\n');
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { method: method.to_owned(), path, head, body: String::from_utf8_lossy(&body).into_owned() })
}

fn options() -> RegistryOptions {
    RegistryOptions {
        stall: Duration::from_millis(300),
        connect_timeout: Duration::from_secs(2),
        backoff: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        attempts_max: 4,
        range_bytes: 256 << 10,
        ..RegistryOptions::default()
    }
}

fn me() -> Credentials {
    Credentials::Basic { user: "me".into(), password: "s3cr3t".into() }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 99u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(next).collect()
}

/// Fetches a blob that should have these bytes; how it ended, and how long it took.
async fn fetch(session: &Arc<Session>, partials: &Partials, blob: &[u8]) -> Result<(), String> {
    let fetch = session.fetch(partials, &digest_of(blob), blob.len() as u64).unwrap();
    fetch.partial().verified().await.map_err(|error| berth_types::report(&error))?;
    let mut got = Vec::new();
    fetch.partial().reader().read_to_end(&mut got).unwrap();
    assert!(got == blob, "what was verified is what is read");
    Ok(())
}

struct Scratch {
    _root: tempfile::TempDir,
    partials: Partials,
}

fn scratch() -> Scratch {
    let root = tempfile::tempdir().unwrap();
    let partials = Partials::open(Arc::new(ContentStore::open(root.path()).unwrap())).unwrap();
    Scratch { _root: root, partials }
}

#[tokio::test]
async fn breaking_off_at_many_bytes_costs_no_byte_twice() {
    let blob = noise(700_001);
    for limit in [0, 1, 100, 65_535, 65_536, 65_537, 200_000, 262_143, 262_144, 700_000] {
        let (content, breaks) = (blob.clone(), AtomicUsize::new(0));
        let rogue = Rogue::new(move |seen, wire| {
            // Three answers are cut, the rest are whole.
            let is_cut = breaks.fetch_add(1, Ordering::Relaxed) < 3;
            wire.blob(&content, seen, if is_cut { limit } else { usize::MAX });
        });
        let scratch = scratch();
        fetch(&rogue.session(Credentials::Anonymous), &scratch.partials, &blob).await.unwrap();
        let heads = 250 * rogue.seen().len() as u64;
        let sent = rogue.sent.load(Ordering::Relaxed);
        assert!(sent <= blob.len() as u64 + heads, "cut at {limit}: {sent} bytes sent");
    }
}

/// What a client asks for, each with an answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Described,
    Manifest,
    Config,
    Blob,
    Tags,
}

const DOCUMENT: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

/// A whole answer: head and body.
fn whole(asked: Asked, content: &[u8]) -> (Vec<u8>, usize) {
    let body = if asked == Asked::Tags { &br#"{"name":"app","tags":["1","2"]}"#[..] } else { content };
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: {}\r\n\
         Docker-Content-Digest: {}\r\n\r\n",
        body.len(),
        digest_of(content)
    );
    let body = if asked == Asked::Described { &[][..] } else { body };
    ([head.as_bytes(), body].concat(), head.len())
}

/// Asks, and looks at what came.
async fn ask(asked: Asked, session: &Arc<Session>, content: &[u8]) -> Result<(), String> {
    let told = |error: RegistryError| berth_types::report(&error);
    match asked {
        Asked::Described => {
            let found = session.describe("1").await.map_err(told)?.unwrap();
            assert_eq!(found.digest, digest_of(content));
        }
        Asked::Manifest => assert_eq!(session.manifest("1").await.map_err(told)?.bytes, content),
        Asked::Config => {
            let found = session.document(&digest_of(content), 1 << 20).await.map_err(told)?;
            assert_eq!(found, content);
        }
        Asked::Blob => fetch(session, &scratch().partials, content).await?,
        Asked::Tags => assert_eq!(session.tags().await.map_err(told)?, ["1", "2"]),
    }
    Ok(())
}

/// A connection that ends at any byte of the head, and at bytes all over the body, of every kind of answer, by FIN and by RST: what was asked for
/// comes all the same, whole; and where it happens every time, the error names the host and what happened.
#[tokio::test]
async fn a_cut_at_any_byte_of_any_answer_is_made_good() {
    let mut walked = 0;
    for asked in [Asked::Described, Asked::Manifest, Asked::Config, Asked::Blob, Asked::Tags] {
        let content = if asked == Asked::Blob { noise(200_000) } else { DOCUMENT.to_vec() };
        let (answer, head_len) = whole(asked, &content);
        let body_len = answer.len() - head_len;
        let in_body = (0..8).map(|n| head_len + n * body_len / 8).chain([answer.len() - 1]);
        let step = if asked == Asked::Tags { 9 } else { 1 };
        let mut offsets: Vec<usize> =
            (0..head_len).step_by(step).chain(in_body.filter(|at| *at < answer.len())).collect();
        offsets.sort_unstable();
        offsets.dedup();
        let (limit, cuts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for is_reset in [false, true] {
            let (served, limit_of, cuts_of) = (answer.clone(), Arc::clone(&limit), Arc::clone(&cuts));
            let rogue = Rogue::new(move |_, wire| {
                let left = cuts_of.load(Ordering::Relaxed);
                if left == 0 {
                    let _: bool = wire.send(&served);
                    return;
                }
                cuts_of.store(left - 1, Ordering::Relaxed);
                wire.cut(&served, limit_of.load(Ordering::Relaxed), is_reset);
            });
            let host = format!("127.0.0.1:{}", rogue.port);
            let registry = Registry::new(options());
            let session = || registry.session(&rogue.reference(), Credentials::Anonymous).unwrap();
            for at in &offsets {
                let after = format!("{asked:?} cut at {at} of {}, is_reset: {is_reset}", answer.len());
                limit.store(*at, Ordering::Relaxed);
                cuts.store(1, Ordering::Relaxed);
                let found = ask(asked, &session(), &content).await;
                assert_eq!(found, Ok(()), "{after}");
                assert_eq!(cuts.load(Ordering::Relaxed), 0, "{after}: nothing was cut");
                walked += 1;
                if at % 40 == 0 || *at == answer.len() - 1 {
                    cuts.store(usize::MAX, Ordering::Relaxed);
                    let error = ask(asked, &session(), &content).await.unwrap_err();
                    assert!(error.contains(&host), "{after}: {error}");
                    let causes = ["connection closed", "error reading a body", "reset by peer", "it ended after"];
                    assert!(causes.iter().any(|cause| error.to_lowercase().contains(cause)), "{after}: {error}");
                }
            }
        }
    }
    assert!(walked > 1000, "{walked}");
}

#[tokio::test]
async fn one_byte_at_a_time_is_given_up() {
    let blob = noise(300_000);
    let content = blob.clone();
    let rogue = Rogue::new(move |seen, wire| wire.blob(&content, seen, 1));
    let error = fetch(&rogue.session(Credentials::Anonymous), &scratch().partials, &blob).await.unwrap_err();
    assert!(error.starts_with("cannot fetch http://127.0.0.1:"), "{error}");
    assert!(rogue.seen().len() < 40);
}

#[tokio::test]
async fn a_stall_ends_in_time_and_is_resumed() {
    let blob = noise(600_000);
    let (content, is_stalling) = (blob.clone(), Arc::new(std::sync::atomic::AtomicBool::new(true)));
    let stalls = Arc::clone(&is_stalling);
    let rogue = Rogue::new(move |seen, wire| {
        wire.blob(&content, seen, if stalls.load(Ordering::Relaxed) { 150_000 } else { usize::MAX });
        if stalls.load(Ordering::Relaxed) {
            wire.stall();
        }
    });
    let scratch = scratch();
    let session = rogue.session(Credentials::Anonymous);
    is_stalling.store(false, Ordering::Relaxed);
    let started = Instant::now();
    is_stalling.store(true, Ordering::Relaxed);
    // Every attempt brings something, so it goes on; what it may cost in time is bounded by the stall.
    drop(fetch(&session, &scratch.partials, &blob).await);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    let before = scratch.partials.kept_bytes(&digest_of(&blob), blob.len() as u64);
    assert!(before >= 65_536, "{before} bytes were kept");
    is_stalling.store(false, Ordering::Relaxed);
    let sent = rogue.sent.load(Ordering::Relaxed);
    fetch(&session, &scratch.partials, &blob).await.unwrap();
    let again = rogue.sent.load(Ordering::Relaxed) - sent;
    assert!(again <= blob.len() as u64 - before + 5000, "{again} bytes came again after {before}");
    // Nothing at all, not even a head.
    let silent = Rogue::new(|_, wire| wire.stall());
    let started = Instant::now();
    let error = silent.session(Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert!(matches!(error, RegistryError::Stalled { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn lies_about_bytes_are_named() {
    let blob = noise(600_000);
    type Lie = fn(&[u8], &Seen, &mut Wire<'_>);
    let lies: [(&str, Lie); 7] = [
        ("has digest", |blob, seen, wire| {
            let other: Vec<u8> = blob.iter().map(|b| b ^ 1).collect();
            wire.blob(&other, seen, usize::MAX);
        }),
        ("it gives", |blob, seen, wire| {
            let (start, end) = seen.range().unwrap();
            let head = format!("Content-Range: bytes {}-{}/{}\r\n", start + 1, end, blob.len());
            wire.answer("206 Partial Content", &head, &blob[start..end]);
        }),
        ("it gives", |blob, seen, wire| {
            let (start, end) = seen.range().unwrap();
            let head = format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, blob.len() + 1);
            wire.answer("206 Partial Content", &head, &blob[start..end]);
        }),
        ("it gives", |blob, seen, wire| {
            let (start, end) = seen.range().unwrap();
            let head = format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, blob.len());
            wire.answer("206 Partial Content", &head, &[&blob[start..end], b"more"].concat());
        }),
        ("it gives", |blob, _, wire| wire.answer("200 OK", "", &[blob, b"more"].concat())),
        ("does not end where it should", |blob, seen, wire| {
            let (start, end) = seen.range().unwrap();
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nConnection: close\r\nContent-Range: bytes {start}-{}/{}\r\n\r\n",
                end - 1,
                blob.len()
            );
            let _: bool = wire.send(head.as_bytes()) && wire.send(&blob[start..end]) && wire.send(b"more");
        }),
        ("status 204", |_, _, wire| wire.answer("204 No Content", "", b"")),
    ];
    for (why, lie) in lies {
        let content = blob.clone();
        let rogue = Rogue::new(move |seen, wire| lie(&content, seen, wire));
        let scratch = scratch();
        let error = fetch(&rogue.session(Credentials::Anonymous), &scratch.partials, &blob).await.unwrap_err();
        assert!(error.contains(why), "{error} | {why}");
        assert!(rogue.sent.load(Ordering::Relaxed) < 8 << 20);
    }
}

/// A host that gives everything whatever is asked for is used all the same.
#[tokio::test]
async fn no_ranges_is_fine() {
    let blob = noise(900_000);
    let (content, cuts) = (blob.clone(), AtomicUsize::new(0));
    let rogue = Rogue::new(move |_, wire| {
        let limit = if cuts.fetch_add(1, Ordering::Relaxed) == 0 { 500_000 } else { content.len() };
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", content.len());
        let _: bool = wire.send(head.as_bytes()) && wire.send(&content[..limit]);
    });
    fetch(&rogue.session(Credentials::Anonymous), &scratch().partials, &blob).await.unwrap();
}

#[tokio::test]
async fn bursts_of_429_and_5xx_pass() {
    let document = br#"{"schemaVersion":2}"#;
    let count = AtomicUsize::new(0);
    let rogue = Rogue::new(move |_, wire| match count.fetch_add(1, Ordering::Relaxed) {
        0 => wire.answer("429 Too Many Requests", "Retry-After: 3600\r\n", b""),
        1 => wire.answer("503 Service Unavailable", "Retry-After: soon\r\n", b"{"),
        2 => wire.answer("500 Internal Server Error", "", b""),
        _ => wire.answer("200 OK", "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n", document),
    });
    let found = rogue.session(Credentials::Anonymous).manifest("1").await.unwrap();
    assert_eq!(found.bytes, document);
    let always = Rogue::new(|_, wire| {
        wire.answer("429 Too Many Requests", "", br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#)
    });
    let error = always.session(Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert!(error.to_string().ends_with("status 429: toomanyrequests: slow down"), "{error}");
    assert_eq!(always.seen().len(), 4);
}

/// CVE-2017-11468, CVE-2023-2253: documents and heads without an end.
#[tokio::test]
async fn endless_documents_are_cut() {
    let endless = |start: &'static str, piece: &str| {
        let piece = piece.repeat(64);
        Rogue::new(move |_, wire| {
            let mut is_open = wire.send(start.as_bytes());
            while is_open {
                is_open = wire.send(piece.as_bytes());
            }
        })
    };
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let rogue = endless(chunked, &chunk);
    let error = rogue.session(Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { bytes_max: 4_194_304, .. }), "{error}");
    let rogue = endless("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "0123456789abcdef");
    let error = rogue.session(Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
    let rogue = endless("HTTP/1.1 200 OK\r\n", "X-Filler: 0123456789abcdef\r\n");
    let error = rogue.session(Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert!(matches!(error, RegistryError::Broken { .. }), "{error}");
    let rogue = endless("HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", &chunk);
    assert!(rogue.session(Credentials::Anonymous).manifest("1").await.is_err());
}

#[tokio::test]
async fn wrong_digests_and_old_schemas_are_refused() {
    let other = digest_of(b"other");
    let rogue = Rogue::new(move |_, wire| {
        wire.answer("200 OK", &format!("Docker-Content-Digest: {other}\r\n"), br#"{"schemaVersion":2}"#);
    });
    let session = rogue.session(Credentials::Anonymous);
    for target in ["1".to_owned(), other.to_string()] {
        let error = session.manifest(&target).await.unwrap_err();
        assert!(matches!(error, RegistryError::WrongDigest { .. }), "{error}");
    }
    let kind = "Content-Type: application/vnd.docker.distribution.manifest.v1+prettyjws\r\n";
    let old = Rogue::new(move |_, wire| wire.answer("200 OK", kind, b"{}"));
    let error = old.session(Credentials::Anonymous).manifest("1").await.unwrap_err();
    assert!(error.to_string().starts_with("the schema 1 manifest of 127.0.0.1:"), "{error}");
}

fn asks_basic(seen: &Seen, wire: &mut Wire<'_>) -> bool {
    if seen.header("authorization").as_deref() == Some("Basic bWU6czNjcjN0") {
        return false;
    }
    wire.answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
    true
}

/// CVE-2020-15157, CVE-2026-33540 and their like: what proves who we are goes to the registry and to nobody it leads us to.
#[tokio::test]
async fn redirects_take_no_credentials_along() {
    let blob = noise(1000);
    let content = blob.clone();
    let other = Rogue::new(move |seen, wire| wire.blob(&content, seen, usize::MAX));
    let target = format!("Location: http://127.0.0.1:{}/elsewhere\r\n", other.port);
    let rogue = Rogue::new(move |seen, wire| {
        if !asks_basic(seen, wire) {
            wire.answer("307 Temporary Redirect", &target, b"");
        }
    });
    fetch(&rogue.session(me()), &scratch().partials, &blob).await.unwrap();
    assert!(rogue.seen().iter().any(|seen| seen.header("authorization").is_some()));
    assert!(!rogue.seen()[0].head.to_ascii_lowercase().contains("authorization"), "nothing is proven unasked");
    assert_eq!(other.seen().len(), 1);
    assert!(!other.seen()[0].head.to_ascii_lowercase().contains("authorization"), "{:?}", other.seen());
}

#[tokio::test]
async fn redirect_games_end() {
    for (location, why) in [
        ("file:///etc/passwd", "which is no web address"),
        ("http://user:pw@127.0.0.1/x", "which is no web address"),
        ("/v2/app/manifests/1", "redirects more than 5 times"),
    ] {
        let rogue = Rogue::new(move |_, wire| wire.answer("302 Found", &format!("Location: {location}\r\n"), b""));
        let error = rogue.session(me()).manifest("1").await.unwrap_err();
        assert!(error.to_string().contains(why), "{error} | {why}");
        assert!(rogue.seen().len() <= 7);
    }
    let nowhere = Rogue::new(|_, wire| wire.answer("302 Found", "", b""));
    let error = nowhere.session(me()).manifest("1").await.unwrap_err();
    assert!(error.to_string().contains("redirects to nowhere"), "{error}");
}

#[tokio::test]
async fn token_realms_elsewhere_get_nothing() {
    for realm in ["http://203.0.113.1/token", "file:///token", "/token", "https://u:p@203.0.113.1/token"] {
        let rogue = Rogue::new(move |_, wire| {
            wire.answer("401 Unauthorized", &format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), b"");
        });
        let started = Instant::now();
        let error = rogue.session(me()).manifest("1").await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("refused: ") || text.contains("is no web address"), "{realm}: {text}");
        assert!(started.elapsed() < Duration::from_secs(20), "{realm}: nobody was asked");
    }
    // A realm that redirects: the password does not go along.
    let thief = Rogue::new(|_, wire| wire.answer("200 OK", "", br#"{"token":"t"}"#));
    let away = format!("Location: http://127.0.0.1:{}/\r\n", thief.port);
    let realm = Rogue::new(move |_, wire| wire.answer("302 Found", &away, b""));
    let challenge = format!("WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{}/token\"\r\n", realm.port);
    let rogue = Rogue::new(move |_, wire| wire.answer("401 Unauthorized", &challenge, b""));
    assert!(rogue.session(me()).manifest("1").await.is_err());
    assert_eq!((realm.seen().len(), thief.seen().len()), (1, 0));
}

#[tokio::test]
async fn tokens_by_password_and_by_identity_token() {
    let realm = Rogue::new(|seen, wire| {
        let is_good = match seen.method.as_str() {
            "GET" => seen.path.contains("scope=repository%3Aapp%3Apull") && seen.path.contains("account=me"),
            _ => seen.body.contains("grant_type=refresh_token") && seen.body.contains("refresh_token=id%2Ftoken"),
        };
        match is_good {
            true => wire.answer("200 OK", "", br#"{"access_token":"abc","expires_in":300}"#),
            false => wire.answer("401 Unauthorized", "", br#"{"details":"incorrect username or password"}"#),
        }
    });
    let challenge = format!(
        "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{}/token\",service=\"s\",scope=\"repository:app:pull\"\r\n",
        realm.port
    );
    let registry = || {
        let challenge = challenge.clone();
        Rogue::new(move |seen, wire| match seen.header("authorization").as_deref() {
            Some("Bearer abc") => wire.answer("200 OK", "", br#"{"schemaVersion":2}"#),
            _ => wire.answer("401 Unauthorized", &challenge, b""),
        })
    };
    for credentials in [me(), Credentials::IdentityToken { token: "id/token".into() }] {
        let rogue = registry();
        let session = rogue.session(credentials);
        session.manifest("1").await.unwrap();
        session.manifest("2").await.unwrap();
        assert_eq!(rogue.seen().len(), 3, "the token is used again: {:?}", rogue.seen());
        assert!(!rogue.seen().iter().any(|seen| seen.head.contains("Basic")));
    }
    let error =
        registry().session(Credentials::IdentityToken { token: "wrong".into() }).manifest("1").await.unwrap_err();
    assert!(error.to_string().contains("pull access denied for 127.0.0.1:"), "{error}");
    assert!(error.to_string().ends_with("incorrect username or password"), "{error}");
}

#[tokio::test]
async fn an_upload_elsewhere_gets_no_credentials() {
    let other = Rogue::new(|_, wire| wire.answer("201 Created", "", b""));
    let location = format!("Location: http://127.0.0.1:{}/upload\r\n", other.port);
    let rogue = Rogue::new(move |seen, wire| {
        if asks_basic(seen, wire) {
            return;
        }
        match seen.method.as_str() {
            "HEAD" => wire.answer("404 Not Found", "", b""),
            _ => wire.answer("202 Accepted", &location, b""),
        }
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    drop(rogue.session(me()).push_blob(&digest_of(b""), file.path(), 0, &[], &|_| {}).await);
    assert!(!other.seen().is_empty());
    assert!(other.seen().iter().all(|seen| seen.header("authorization").is_none()), "{:?}", other.seen());
}

/// A registry that takes nothing of what it says it takes is given up; one byte, of which it says the same as of none, is one.
#[tokio::test]
async fn an_upload_that_never_grows_ends() {
    let rogue = Rogue::new(|seen, wire| {
        let location = "Location: /v2/app/blobs/uploads/1\r\nRange: 0-0\r\n";
        match seen.method.as_str() {
            "HEAD" => wire.answer("404 Not Found", "", b""),
            "PUT" => wire.answer("201 Created", "", b""),
            _ => wire.answer("202 Accepted", location, b""),
        }
    });
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"some").unwrap();
    let session = rogue.session(me());
    let push = |bytes: &'static [u8]| {
        let (session, path) = (Arc::clone(&session), file.path().to_owned());
        async move { session.push_blob(&digest_of(bytes), &path, bytes.len() as u64, &[], &|_| {}).await }
    };
    let within = Duration::from_secs(20);
    let error = tokio::time::timeout(within, push(b"some")).await.expect("it ends").unwrap_err();
    assert!(error.to_string().contains("misbehaves: it takes nothing of an upload"), "{error}");
    let pushed = tokio::time::timeout(within, push(b"s")).await.expect("it ends").unwrap();
    assert_eq!(pushed, berth_registry::Pushed::Uploaded);
}

/// A mirror that fails is passed over; it never sees the credentials; the registry's own headers do not go to it.
#[tokio::test]
async fn a_broken_mirror_is_passed_over() {
    let blob = noise(100_000);
    let content = blob.clone();
    let rogue = Rogue::new(move |seen, wire| {
        if !asks_basic(seen, wire) {
            wire.blob(&content, seen, usize::MAX);
        }
    });
    let mirror = Rogue::new(|seen, wire| match seen.path.contains("/manifests/") {
        true => wire.answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"mine\"\r\n", b""),
        false => wire.answer("404 Not Found", "", b""),
    });
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join(format!("127.0.0.1:{}", rogue.port));
    std::fs::create_dir(&directory).unwrap();
    let text = format!(
        "[host.\"http://127.0.0.1:{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n[header]\nx-own = \"1\"\n",
        mirror.port
    );
    std::fs::write(directory.join("hosts.toml"), text).unwrap();
    let options = RegistryOptions { hosts_directories: vec![root.path().to_owned()], ..options() };
    let session = rogue.session_with(me(), options);
    fetch(&session, &scratch().partials, &blob).await.unwrap();
    drop(session.manifest("1").await);
    assert!(!mirror.seen().is_empty());
    for seen in mirror.seen() {
        let head = seen.head.to_ascii_lowercase();
        assert!(!head.contains("authorization") && !head.contains("x-own"), "{seen:?}");
        assert!(seen.path.contains("ns=127.0.0.1"), "{seen:?}");
    }
    assert!(rogue.seen().iter().all(|seen| seen.header("x-own").is_some()));
}
