//! What hostile archives and images may cost: 64 MiB of the daemon's memory, whichever way they come.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use berth_testkit::bombs::{self, Bomb, Fate};
use berth_testkit::dice::number;
use berth_testkit::growth::Growth;
use berth_testkit::registry::DockerRegistry;
use berth_testkit::{Image, Instance, Output};

use super::hostile::nothing_is_left;

/// What one import may add to the daemon's memory.
const GROWTH_MIB_MAX: u64 = 64;

/// A daemon that was warmed up: threads, buffers and code that every load needs once are there.
struct Measured {
    berth: Instance,
}

impl Measured {
    fn start(options: &[&str]) -> Self {
        let berth = Instance::start_with(options);
        berth.load(&Image::busybox().docker_archive()).ok();
        berth.berth(&["rmi", "busybox"]).ok();
        Self { berth }
    }

    #[track_caller]
    fn import(&self, what: &str, import: impl FnOnce() -> Output) -> Output {
        let begun = std::time::Instant::now();
        let growth = Growth::begin(self.berth.daemon_pid());
        let done = import();
        let grown = growth.mib();
        println!("{what}: {grown} MiB, {} ms", begun.elapsed().as_millis());
        assert!(grown <= GROWTH_MIB_MAX, "{what}: {grown} MiB");
        done
    }

    /// It comes in every way and goes again.
    fn layer(&self, bomb: &Bomb) {
        let file = self.berth.directory.join("bomb");
        let path = file.to_str().unwrap();
        let (berth, what) = (&self.berth, bomb.what);
        fs::write(&file, &bomb.packed).unwrap();
        judge(bomb, &self.import(&format!("import of {what}"), || berth.berth(&["import", path, "hostile"])));
        berth.berth(&["rmi", "-f", "hostile"]);
        fs::write(&file, bomb.docker_archive()).unwrap();
        judge(bomb, &self.import(&format!("load of {what}"), || berth.berth(&["load", "-q", "-i", path])));
        if bomb.fate == Fate::Taken {
            let made = berth.berth(&["create", "--name", "cc", "hostile"]);
            made.ok();
            assert_eq!(berth.berth(&["cp", "cc:/f", "-"]).code, 0, "{what}");
            berth.berth(&["rm", "cc"]).ok();
        }
        berth.berth(&["rmi", "-f", "hostile"]);
        nothing_is_left(berth, what);
    }
}

#[track_caller]
fn judge(bomb: &Bomb, done: &Output) {
    match bomb.fate {
        Fate::Taken => assert_eq!(done.code, 0, "{}: {done:?}", bomb.what),
        Fate::Refused(words) => {
            assert!(done.code != 0 && done.stderr.contains(words), "{}: {done:?}", bomb.what);
        }
    }
}

/// More entries, for a long run.
fn scale() -> usize {
    usize::try_from(number("BERTH_BOMBS_SCALE").unwrap_or(1)).unwrap()
}

/// CVE-2017-14992, CVE-2025-58183, CVE-2026-32766: what a layer's headers claim allocates nothing; what is refused leaves nothing.
#[test]
fn no_header_costs_more_than_64_mib() {
    let measured = Measured::start(&[]);
    bombs::headers().iter().for_each(|bomb| measured.layer(bomb));
}

/// Names and attributes of very many entries do not wait in memory, whatever keeps the layer.
#[test]
fn no_layer_costs_more_than_64_mib() {
    for options in [&["--snapshotter", "erofs"][..], &["--snapshotter", "overlay"]] {
        let measured = Measured::start(options);
        bombs::entries(scale()).iter().for_each(|bomb| measured.layer(bomb));
    }
}

/// CVE-2023-25153, CVE-2017-11468: documents and members of an archive, for `load` and through containerd's API.
#[test]
fn no_document_costs_more_than_64_mib() {
    let measured = Measured::start(&[]);
    let berth = &measured.berth;
    let file = berth.directory.join("bomb.tar");
    let path = file.to_str().unwrap();
    for (what, archive, words) in bombs::archives() {
        fs::write(&file, archive).unwrap();
        let done = measured.import(&format!("load of {what}"), || berth.berth(&["load", "-q", "-i", path]));
        assert!(done.code != 0 && done.stderr.contains(words), "{what}: {done:?}");
        nothing_is_left(berth, what);
        is_empty(&berth.root().join("content/ingest"), what);
    }
    fs::write(&file, bombs::wide_windows()).unwrap();
    measured.import("two windows of 32 MiB", || berth.berth(&["load", "-q", "-i", path])).ok();
}

fn is_empty(directory: &Path, what: &str) {
    assert_eq!(super::count(directory), 0, "{what}: {}", directory.display());
}

/// The same layers through containerd's client, whose blobs the diff service applies, and pulled from a registry.
#[test]
fn no_pull_costs_more_than_64_mib() {
    let measured = Measured::start(&[]);
    let berth = &measured.berth;
    let registry = DockerRegistry::start();
    let file = berth.directory.join("bomb.tar");
    for (n, bomb) in bombs::headers().into_iter().chain(bombs::entries(1)).enumerate().filter(|(n, _)| n % 2 == 1) {
        let what = bomb.what;
        let name = format!("hostile:{n}");
        registry.put(&bomb.oci_archive(), &name);
        let done = measured.import(&format!("pull of {what}"), || berth.berth(&["pull", "-q", &registry.name(&name)]));
        judge(&bomb, &done);
        berth.berth(&["rmi", "-f", &registry.name(&name)]);
        fs::write(&file, bomb.oci_archive()).unwrap();
        let done = measured
            .import(&format!("ctr import of {what}"), || berth.ctr(&["images", "import", file.to_str().unwrap()]));
        assert_eq!(done.code == 0, bomb.fate == Fate::Taken, "{what}: {done:?}");
        berth.ctr(&["images", "rm", "--sync", "docker.io/library/hostile:latest"]);
    }
}

/// CVE-2026-35469 and its kin: a head that says it has very many fields, or has no end, is given up, on each socket; nothing is kept of it.
#[test]
fn cve_2026_35469_no_head_costs_memory() {
    // A frame of HTTP/2 (RFC 9113): its length, type, flags and stream.
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
    };
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat();
    // Literal fields that are not indexed, each `name: value`; HEADERS without END_HEADERS, and CONTINUATION frames without an end.
    let fields = [&[0, 4][..], b"name", &[100], &[b'v'; 100]].concat().repeat(150);
    let flood = frame(9, 0, 1, &fields);
    let lines: Vec<u8> = (0..1000).flat_map(|n| format!("x-field-{n}: value\r\n").into_bytes()).collect();
    let measured = Measured::start(&[]);
    let (docker, containerd) = (measured.berth.socket(), measured.berth.containerd_socket());
    for (what, socket, head, piece) in [
        ("fields of HTTP/1", &docker, b"GET /_ping HTTP/1.1\r\nHost: d\r\n".to_vec(), lines),
        ("one field of HTTP/1", &docker, b"GET /_ping HTTP/1.1\r\nHost: d\r\nx: ".to_vec(), vec![b'v'; 16 << 10]),
        ("a target without an end", &docker, b"GET /".to_vec(), vec![b'v'; 16 << 10]),
        ("continued fields of HTTP/2", &containerd, [preface.clone(), frame(1, 0, 1, &fields)].concat(), flood),
        ("streams of HTTP/2", &containerd, preface.clone(), Vec::new()),
    ] {
        measured.import(what, || {
            let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
            stream.set_write_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
            let begun = std::time::Instant::now();
            let mut sent = stream.write_all(&head);
            let mut bytes = 0;
            let mut number = 1;
            while sent.is_ok() && bytes < 80 << 20 {
                let mut streams = || {
                    number += 2;
                    frame(1, 4, number, &fields)
                };
                let piece = if piece.is_empty() { streams() } else { piece.clone() };
                sent = stream.write_all(&piece);
                bytes += piece.len();
            }
            // Streams that are no requests are refused one by one; of a head without an end it is the daemon that hangs up, not we who give up.
            if !piece.is_empty() {
                let ended = sent.expect_err(what);
                let is_gone = matches!(ended.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
                assert!(is_gone && bytes < 16 << 20, "{what}: {ended} after {bytes} bytes, {:?}", begun.elapsed());
            }
            measured.berth.berth(&["version"])
        });
    }
}
