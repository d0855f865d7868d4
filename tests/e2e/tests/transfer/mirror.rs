//! Mirrors that give wrong bytes, before Debian's docker-registry.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use berth_testkit::archive::{digest, layer_tar, outer};
use berth_testkit::registry::{DockerRegistry, TlsFiles, noise};
use berth_testkit::{Instance, LayerFile};
use serde_json::json;

use super::{MANIFEST, image};

/// Changes a byte of every answer with this in its path.
#[derive(Debug, Clone)]
struct Spoiling {
    path: String,
    /// Where in the whole; the last byte for what is longer.
    at: usize,
}

/// Passes requests on and spoils what comes back.
struct Mirror {
    port: u16,
    spoilt: Arc<AtomicUsize>,
}

impl Mirror {
    fn of(target: u16, spoiling: Spoiling) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let spoilt = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&spoilt);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, spoiling, counter) = (stream.unwrap(), spoiling.clone(), Arc::clone(&counter));
                // A client that goes away in the middle ends this connection and nothing else.
                std::thread::spawn(move || pass(stream, target, &spoiling, &counter).unwrap_or_default());
            }
        });
        Self { port, spoilt }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn pass(mut client: TcpStream, target: u16, spoiling: &Spoiling, counter: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let lines: Vec<&str> =
        head.trim_end().lines().filter(|l| !l.to_ascii_lowercase().starts_with("connection:")).collect();
    let mut server = TcpStream::connect(("127.0.0.1", target))?;
    write!(server, "{}\r\nConnection: close\r\n\r\n", lines.join("\r\n"))?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let body = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let range = head.to_ascii_lowercase().split_once("range: bytes=").map(|(_, rest)| rest.to_owned());
    let start: usize = range.and_then(|rest| rest.split('-').next()?.parse().ok()).unwrap_or(0);
    let (first, length) = (lines.first().copied().unwrap_or_default(), answer.len() - body);
    let is_meant = first.contains(&spoiling.path) && length > 0;
    let at = if spoiling.at == usize::MAX { Some(length.saturating_sub(1)) } else { spoiling.at.checked_sub(start) };
    if let Some(at) = at.filter(|at| is_meant && *at < length) {
        answer[body + at] ^= 1;
        counter.fetch_add(1, Ordering::Relaxed);
    }
    client.write_all(&answer)?;
    client.shutdown(Shutdown::Both)
}

/// `hosts.toml` of a registry, with mirrors before it.
fn configure(directory: &Path, registry: u16, mirrors: &[&Mirror], server: Option<&Mirror>) {
    let home = directory.join(format!("127.0.0.1:{registry}"));
    std::fs::create_dir_all(&home).unwrap();
    let hosts = mirrors.iter().map(|m| format!("[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n", m.host()));
    let server = server.map(|mirror| format!("server = \"http://{}\"\n", mirror.host())).unwrap_or_default();
    std::fs::write(home.join("hosts.toml"), server + &hosts.collect::<String>()).unwrap();
}

/// An image of one layer that is not packed: an unpacker cannot see by itself that something in it is wrong.
fn plain_image(tar: &[u8]) -> Vec<u8> {
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": { "Cmd": ["/x"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(tar)] },
    });
    let config = config.to_string().into_bytes();
    let blob = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len() });
    let (of_config, layers) = (blob("config.v1+json", &config), [blob("layer.v1.tar", tar)]);
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": of_config, "layers": layers });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({ "schemaVersion": 2, "manifests": [blob("manifest.v1+json", &manifest)] });
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", &digest(bytes)[7..]);
    outer(&[
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        (name(&config), config),
        (name(tar), tar.to_vec()),
        (name(&manifest), manifest),
        ("index.json".to_owned(), index.to_string().into_bytes()),
    ])
}

/// What a container of the image has at this path.
fn file_of(berth: &Instance, name: &str, path: &str) -> Vec<u8> {
    let container = berth.berth(&["create", name]).ok().to_owned();
    let to = berth.directory.join("copied");
    berth.berth(&["cp", &format!("{container}:{path}"), to.to_str().unwrap()]).ok();
    berth.berth(&["rm", &container]).ok();
    let bytes = std::fs::read(&to).unwrap();
    std::fs::remove_file(&to).unwrap();
    bytes
}

/// hostile.md 2H: a mirror with wrong bytes is passed over and named, whatever it spoils and wherever; what is unpacked and kept is right.
/// Where the registry's bytes are wrong too, the error names the digest and the host.
#[test]
fn a_mirror_with_wrong_bytes_costs_nothing_but_time() {
    let size = 700_000;
    let registry = DockerRegistry::start();
    let (content, packed_content) = (noise(size, 71), noise(size, 72));
    let tar = layer_tar(&[LayerFile::program("x", content.clone()), LayerFile::text("y", "z")]);
    registry.place(&plain_image(&tar), "plain", "1");
    registry.put(&image("packed:1", &[(size, 72)]).oci_archive(), "packed:1");
    let files = TlsFiles::make();
    let hosts = files.directory.join("hosts");
    let berth = Instance::start_with(&["--registry-config-dir", hosts.to_str().unwrap()]);
    let everywhere = |repository: &str, kind: &str| format!("/v2/{repository}/{kind}/");
    let layer = format!("/v2/plain/blobs/{}", digest(&tar));
    let mut named = 0;
    for (repository, path, at) in [
        ("plain", layer.clone(), 5000),
        ("plain", layer.clone(), size / 2),
        ("plain", layer.clone(), usize::MAX),
        ("plain", layer, 0),
        ("packed", everywhere("packed", "blobs"), 0),
        ("packed", everywhere("packed", "blobs"), size / 2),
        ("packed", everywhere("packed", "blobs"), usize::MAX),
        ("packed", everywhere("packed", "manifests"), 100),
    ] {
        let case = format!("{path} at {at}");
        let mirror = Mirror::of(registry.port, Spoiling { path, at });
        configure(&hosts, registry.port, &[&mirror], None);
        let by_tag = registry.name(&format!("{repository}:1"));
        let name =
            if at == 100 { format!("{}@{}", registry.name("packed"), digest_of(&registry, "packed")) } else { by_tag };
        // Two at the same time are one.
        let pulls: Vec<_> = std::thread::scope(|scope| {
            let clients = [0, 1].map(|_| scope.spawn(|| berth.berth(&["pull", "-q", &name])));
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        pulls.iter().for_each(|pulled| assert_eq!(pulled.code, 0, "{case}: {pulled:?}"));
        assert!(mirror.spoilt.load(Ordering::Relaxed) > 0, "{case}: nothing was spoilt");
        let log = berth.log();
        let told: Vec<&str> =
            log.lines().filter(|line| line.contains("wrong bytes are thrown away")).skip(named).collect();
        assert!(!told.is_empty() && told.iter().all(|line| line.contains(&mirror.host())), "{case}: {told:?}");
        named += told.len();
        let (file, expected) = if repository == "plain" { ("/x", &content) } else { ("/noise-72", &packed_content) };
        assert!(file_of(&berth, &name, file) == *expected, "{case}: the file is wrong");
        let checked = berth.berth(&["fsck"]);
        assert!(checked.ok().ends_with("all in order"), "{case}: {checked:?}");
        berth.berth(&["rmi", "-f", &name]).ok();
    }
    for (repository, path) in [("plain", "/v2/plain/blobs/"), ("packed", "/v2/packed/blobs/")] {
        let [mirror, last] =
            [0, 1].map(|_| Mirror::of(registry.port, Spoiling { path: path.to_owned(), at: usize::MAX }));
        configure(&hosts, registry.port, &[&mirror], Some(&last));
        let failed = berth.berth(&["pull", "-q", &registry.name(&format!("{repository}:1"))]);
        assert_eq!(failed.code, 125, "{failed:?}");
        let expected = format!(" from {} has digest sha256:", last.host());
        assert!(failed.stderr.contains(&expected), "{repository}: {failed:?} | {expected}");
    }
    assert_eq!(berth.berth(&["images", "-q"]).ok(), "");
}

fn digest_of(registry: &DockerRegistry, repository: &str) -> String {
    let (status, bytes) = super::http(registry.port, "GET", &format!("/v2/{repository}/manifests/1"), "", b"");
    assert_eq!(status, 200);
    digest(&bytes)
}
