//! Debian's docker-registry on loopback, skopeo as its client, and a slow wire with a counter between it and whoever pulls.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::instance::{Output, run};
use crate::{peers, wait_until};

/// User and password of registries that ask for one.
pub const USER: &str = "berth";
pub const PASSWORD: &str = "s3cr3t:w0rd";
/// `PASSWORD` as bcrypt (cost 5), as `htpasswd -B` writes it.
const HTPASSWD: &str = "berth:$2y$05$abcdefghijklmnopqrstuuKye8CDIiKcTopHWmzdBqpBzqV7zsDLq\n";

/// A running docker-registry; it and its files go with the value.
#[derive(Debug)]
pub struct DockerRegistry {
    pub port: u16,
    directory: PathBuf,
    child: Child,
}

impl DockerRegistry {
    pub fn start() -> Self {
        Self::start_with(false)
    }

    /// Only for clients with a certificate, by TLS.
    pub fn start_tls(files: &TlsFiles) -> Self {
        let path = |name: &str| files.directory.join(name).display().to_string();
        let tls = format!(
            ", tls: {{certificate: {}, key: {}, clientcas: [{}]}}",
            path("server.pem"),
            path("server.key"),
            path("ca.pem")
        );
        Self::start_as(false, &tls)
    }

    /// With `is_private` only [`USER`] may do anything.
    pub fn start_with(is_private: bool) -> Self {
        Self::start_as(is_private, "")
    }

    fn start_as(is_private: bool, more: &str) -> Self {
        let port = free_port();
        let root = std::env::var_os("BERTH_TEST_ROOT").map_or_else(std::env::temp_dir, PathBuf::from);
        let directory = root.join(format!("registry-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {0}/data}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\"{more}}}\n",
            directory.display()
        );
        if is_private {
            std::fs::write(directory.join("htpasswd"), HTPASSWD).unwrap();
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}/htpasswd}}}}\n", directory.display()));
        }
        std::fs::write(directory.join("config.yml"), config).unwrap();
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let child = Command::new(peers::peer("usr/bin/docker-registry"))
            .args(["serve".into(), directory.join("config.yml")])
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let registry = Self { port, directory, child };
        wait_until("docker-registry answers", || TcpStream::connect(("127.0.0.1", port)).ok());
        registry
    }

    /// `127.0.0.1:<port>/<name>`
    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Puts a docker- or OCI archive under a name, by skopeo.
    #[track_caller]
    pub fn put(&self, archive: &[u8], name: &str) {
        let kind = if archive.windows(10).any(|w| w == b"oci-layout") { "oci-archive" } else { "docker-archive" };
        let file = self.directory.join("put.tar");
        std::fs::write(&file, archive).unwrap();
        let source = format!("{kind}:{}", file.display());
        let done = skopeo(&["copy", "--dest-tls-verify=false", &source, &format!("docker://{}", self.name(name))]);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(done.code, 0, "{done:?}");
    }

    /// Lays an OCI archive where the registry keeps what was pushed: very many layers would be long on their way.
    pub fn place(&self, archive: &[u8], repository: &str, tag: &str) {
        let (file, unpacked) = (self.directory.join("place.tar"), self.directory.join("place"));
        std::fs::write(&file, archive).unwrap();
        std::fs::create_dir(&unpacked).unwrap();
        let done = Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(&unpacked).status().unwrap();
        assert!(done.success(), "{done:?}");
        let store = self.directory.join("data/docker/registry/v2");
        let repository = store.join("repositories").join(repository);
        let link = |directory: PathBuf, digest: &str| {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join("link"), digest).unwrap();
        };
        for blob in std::fs::read_dir(unpacked.join("blobs/sha256")).unwrap() {
            let blob = blob.unwrap();
            let hex = blob.file_name().into_string().unwrap();
            let home = store.join("blobs/sha256").join(&hex[..2]).join(&hex);
            std::fs::create_dir_all(&home).unwrap();
            std::fs::rename(blob.path(), home.join("data")).unwrap();
            link(repository.join("_layers/sha256").join(&hex), &format!("sha256:{hex}"));
        }
        let index: serde_json::Value =
            serde_json::from_slice(&std::fs::read(unpacked.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap();
        let manifests = repository.join("_manifests");
        link(manifests.join("revisions/sha256").join(&digest[7..]), digest);
        let tag = manifests.join("tags").join(tag);
        link(tag.join("index/sha256").join(&digest[7..]), digest);
        link(tag.join("current"), digest);
        std::fs::remove_file(&file).unwrap();
        std::fs::remove_dir_all(&unpacked).unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        if std::thread::panicking() {
            eprintln!("--- log of docker-registry ---\n{}", self.log());
        }
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// A certificate authority with a server certificate for 127.0.0.1 and a client certificate; gone with the value.
#[derive(Debug)]
pub struct TlsFiles {
    pub directory: PathBuf,
}

impl TlsFiles {
    pub fn make() -> Self {
        let root = std::env::var_os("BERTH_TEST_ROOT").map_or_else(std::env::temp_dir, PathBuf::from);
        let directory = root.join(format!("tls-{}-{}", std::process::id(), free_port()));
        std::fs::create_dir_all(&directory).unwrap();
        let files = Self { directory };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let common = ["req", "-x509", "-days", "2"];
        files.openssl(
            &[&common[..], &key, &["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority"]].concat(),
        );
        for (name, more) in [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")] {
            let [key_file, file, subject] = [format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}")];
            let own = ["-keyout", &key_file, "-out", &file, "-subj", &subject, "-CA", "ca.pem", "-CAkey", "ca.key"];
            let extensions = ["-addext", more, "-addext", "basicConstraints=critical,CA:FALSE"];
            files.openssl(&[&common[..], &key, &own, &extensions].concat());
        }
        files
    }

    fn openssl(&self, words: &[&str]) {
        let mut command = Command::new("openssl");
        command.args(words).current_dir(&self.directory);
        let done = run(command, b"");
        assert_eq!(done.code, 0, "{done:?}");
    }
}

impl Drop for TlsFiles {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// `berth registry serve`; it and its files go with the value.
#[derive(Debug)]
pub struct OwnRegistry {
    pub port: u16,
    directory: PathBuf,
    child: Child,
}

impl OwnRegistry {
    pub fn start() -> Self {
        let port = free_port();
        let root = std::env::var_os("BERTH_TEST_ROOT").map_or_else(std::env::temp_dir, PathBuf::from);
        let directory = root.join(format!("own-registry-{}-{port}", std::process::id()));
        let child = Self::spawn(&directory, port);
        Self { port, directory, child }
    }

    fn spawn(directory: &std::path::Path, port: u16) -> Child {
        let child = Command::new(peers::binaries().join("berth"))
            .args(["registry", "serve", "--listen", &format!("127.0.0.1:{port}"), "--store"])
            .arg(directory)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("our registry answers", || TcpStream::connect(("127.0.0.1", port)).ok());
        child
    }

    /// `kill -9`, and again.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(&self.directory, self.port);
    }

    /// `127.0.0.1:<port>/<name>`
    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for OwnRegistry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `skopeo WORDS…`, without a policy and with the libraries it was unpacked with.
pub fn skopeo(words: &[&str]) -> Output {
    let libraries = peers::peer("usr/bin/skopeo").ancestors().nth(2).unwrap().join("lib/x86_64-linux-gnu");
    let mut command = Command::new(peers::peer("usr/bin/skopeo"));
    command.arg("--insecure-policy").args(words).env("LD_LIBRARY_PATH", libraries);
    command.env("HOME", std::env::temp_dir());
    run(command, b"")
}

/// Bytes that do not shrink when they are packed, always the same.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Forwards connections to a registry, counts what the registry says, and can be slow.
#[derive(Debug)]
pub struct Wire {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: u16,
    bytes: AtomicU64,
    sent: AtomicU64,
    /// Once so many bytes were sent in all, every connection is cut; 0: never.
    cut_at: AtomicU64,
    /// First lines of requests; of those with a body only what looks like one.
    requests: Mutex<Vec<String>>,
    /// Each connection passes on 16 KiB, then waits this many microseconds.
    pause_us: AtomicU64,
    is_over: AtomicBool,
}

impl Wire {
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target,
            bytes: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            cut_at: AtomicU64::new(0),
            requests: Mutex::default(),
            pause_us: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", accepting.target))) else {
                    continue;
                };
                let shared = Arc::clone(&accepting);
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let asking = Arc::clone(&accepting);
                std::thread::spawn(move || ask(from, to, &asking));
                std::thread::spawn(move || pass(server, client, &shared));
            }
        });
        Self { port, shared }
    }

    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Bytes that came from the registry so far.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that were sent to the registry so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Cuts every connection once, when so many bytes were sent to the registry.
    pub fn cut_at(&self, sent: u64) {
        self.shared.cut_at.store(sent, Ordering::Relaxed);
    }

    /// How many requests began so (`GET /v2/name/blobs/`), by what follows.
    pub fn requests(&self, prefix: &str) -> std::collections::BTreeMap<String, usize> {
        let mut found = std::collections::BTreeMap::new();
        for line in self.shared.requests.lock().unwrap().iter() {
            if let Some(rest) = line.strip_prefix(prefix) {
                *found.entry(rest.split(' ').next().unwrap_or_default().to_owned()).or_insert(0) += 1;
            }
        }
        found
    }

    pub fn reset(&self) {
        self.shared.bytes.store(0, Ordering::Relaxed);
    }

    pub fn pause(&self, pause: Duration) {
        self.shared.pause_us.store(u64::try_from(pause.as_micros()).unwrap(), Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// What a client says, on its way to the registry.
fn ask(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut buffer = [0; 16 << 10];
    let mut head = Vec::new();
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let sent = shared.sent.fetch_add(length as u64, Ordering::Relaxed) + length as u64;
        let cut_at = shared.cut_at.load(Ordering::Relaxed);
        if cut_at > 0 && sent >= cut_at {
            shared.cut_at.store(0, Ordering::Relaxed);
            break;
        }
        head.extend_from_slice(&buffer[..length]);
        while let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&head[..end]);
            let line = text.lines().find(|line| line.ends_with(" HTTP/1.1")).unwrap_or_default().to_owned();
            shared.requests.lock().unwrap().push(line);
            head.drain(..end + 4);
        }
        if head.len() > 64 << 10 {
            head.clear();
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}

fn pass(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut buffer = [0; 16 << 10];
    // Nobody sends: it is a clock.
    let (_sender, clock) = channel::<()>();
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
        shared.bytes.fetch_add(length as u64, Ordering::Relaxed);
        let pause = Duration::from_micros(shared.pause_us.load(Ordering::Relaxed));
        if !pause.is_zero() {
            assert_eq!(clock.recv_timeout(pause), Err(RecvTimeoutError::Timeout));
        }
    }
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}
