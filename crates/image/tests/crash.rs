//! S-118, S-117, S-087: `kill -9` at random points of load, commit, tag and removal leaves a store that opens, verifies, and has every image that
//! was acknowledged. `BERTH_CRASH_POINTS` asks for more points than the short form's.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in its fixtures")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use berth_image::tar_stream::{Entry, EntryKind, TarWriter};
use berth_image::{CommitOptions, ImageStore, ImageUse, Uses};
use berth_metadata::Metadata;

const ROOT: &str = "BERTH_TEST_STORE";
const POINTS: u32 = 12;

fn open(root: &Path) -> ImageStore {
    ImageStore::open(root, Arc::new(Metadata::open(&root.join("metadata.redb")).unwrap())).unwrap()
}

fn layer(seed: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut tar = TarWriter::new(&mut bytes);
    for file in 0..40 {
        let data = format!("{seed}-{file} ").repeat(50 + file);
        let path = format!("dir-{}/file-{file}", file % 5).into_bytes();
        let size = data.len() as u64;
        tar.start(&Entry { kind: EntryKind::File, path, mode: 0o644, size, ..Entry::default() }).unwrap();
        tar.data(data.as_bytes()).unwrap();
    }
    tar.finish().unwrap();
    bytes
}

fn named(name: &str) -> CommitOptions {
    CommitOptions { reference: Some(name.parse().unwrap()), ..CommitOptions::default() }
}

fn say(line: &str) {
    // Not println: what is said is said when this returns.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).unwrap();
}

/// Not a test: the child that is killed. After each operation it prints what is true from then on: `has NAME ID` or `lost NAME`; before a
/// removal begins, `maybe NAME`.
#[test]
#[ignore = "run by s118_kill_at_random_points"]
fn child_works() {
    let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
    let store = open(&root);
    let unused = |_: &berth_types::Digest| ImageUse::Unused;
    let start = store.list().unwrap().len() as u64 + u64::from(std::process::id()) * 1000;
    for round in start..start + 1000 {
        let base = format!("base-{round}:1");
        let id = store.import(&mut &layer(round)[..], &named(&base), &|_, _, _, _| {}).unwrap();
        say(&format!("has {base} {id}"));
        let mut archive = Vec::new();
        store.save(std::slice::from_ref(&base), &mut archive, &|_, _, _, _| {}).unwrap();
        let tag = format!("tag-{round}:1");
        store.tag(&base, &tag.parse().unwrap()).unwrap();
        say(&format!("has {tag} {id}"));
        let image = store.get(&base).unwrap();
        let rootfs = store.prepare(&format!("c{round}"), &image, false).unwrap();
        let mount = rootfs.mount_detached().unwrap();
        let at = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        fs::write(at.join("changed"), round.to_string()).unwrap();
        fs::remove_file(at.join("dir-1/file-1")).unwrap();
        drop(mount);
        let next = format!("next-{round}:1");
        let id = store.commit(&image, &rootfs, &named(&next)).unwrap();
        say(&format!("has {next} {id}"));
        store.discard(&format!("c{round}")).unwrap();
        for name in [&next, &base] {
            say(&format!("maybe {name}"));
            store.remove(name, false, &unused).unwrap();
            say(&format!("lost {name}"));
        }
        store.load(&mut &archive[..], &|_, _, _, _| {}).unwrap();
        say(&format!("has {base} {}", image.id));
        say(&format!("maybe {tag}"));
        store.remove(&tag, false, &unused).unwrap();
        say(&format!("lost {tag}"));
    }
}

/// What must be true: name to id; names whose removal had begun may be there or not.
#[derive(Default)]
struct Truth {
    has: BTreeMap<String, String>,
    maybe: HashSet<String>,
}

impl Truth {
    fn learn(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["has", name, id] => {
                self.maybe.remove(*name);
                self.has.insert((*name).to_owned(), (*id).to_owned());
            }
            ["maybe", name] => drop(self.maybe.insert((*name).to_owned())),
            ["lost", name] => {
                self.has.remove(*name);
                self.maybe.remove(*name);
            }
            _ => {}
        }
    }
}

/// Lets a child work until it has said `lines` things, and a little longer.
fn run_and_kill(root: &Path, lines: u32, longer_us: u64, truth: &mut Truth) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_works", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ROOT, root)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = 0;
    while said < lines {
        let line = output.next().expect("the child ended by itself").unwrap();
        // The harness prints something in front of the first.
        let line = line.rsplit("... ").next().unwrap_or_default().to_owned();
        said += u32::from(["has ", "maybe ", "lost "].iter().any(|word| line.starts_with(word)));
        truth.learn(&line);
    }
    let until = std::time::Instant::now() + std::time::Duration::from_micros(longer_us);
    while std::time::Instant::now() < until {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    // What was printed before the kill was acknowledged too; a cut-off last line was not.
    for line in output.map_while(Result::ok) {
        truth.learn(&line);
    }
    child.wait().unwrap();
}

fn check(root: &Path, truth: &mut Truth, point: u32) {
    let store = open(root);
    let containers: HashSet<String> = store.prepared().unwrap().into_iter().collect();
    let uses = Uses {
        is_container: &|id| containers.contains(id),
        of_image: &|_| ImageUse::Unused,
        of_snapshot: &|_, _| None,
    };
    let report = store.fsck(false, uses).unwrap();
    assert_eq!(report.problems, [], "point {point}");
    for (name, id) in &truth.has {
        match store.get(name) {
            Ok(image) => {
                assert_eq!(&image.id.to_string(), id, "point {point}: {name}");
                for layer in &image.layers {
                    assert!(layer.directory.join("dir-0").is_dir() || layer.directory.join("changed").is_file());
                }
            }
            Err(error) => assert!(truth.maybe.contains(name), "point {point}: {name} was acknowledged: {error}"),
        }
    }
    // Known for sure from here on; what was not acknowledged may be there.
    truth.maybe.clear();
    truth.has = BTreeMap::new();
    for image in store.list().unwrap() {
        truth.has.extend(image.references.iter().map(|name| (name.familiar(), image.id.to_string())));
    }
    for container in containers {
        store.discard(&container).unwrap();
    }
    assert_eq!(fs::read_dir(root.join("content/ingest")).unwrap().count(), 0, "point {point}");
    assert_eq!(fs::read_dir(root.join("snapshots/overlay/pending")).unwrap().count(), 0, "point {point}");
}

#[test]
fn s118_s117_s087_kill_at_random_points() {
    let points = std::env::var_os("BERTH_CRASH_POINTS").and_then(|text| text.to_str()?.parse().ok()).unwrap_or(POINTS);
    let dir = tempfile::tempdir().unwrap();
    let mut truth = Truth::default();
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for point in 0..points {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        run_and_kill(dir.path(), u32::try_from(random % 12).unwrap(), (random >> 20) % 20_000, &mut truth);
        check(dir.path(), &mut truth, point);
        if truth.has.len() > 12 {
            let store = open(dir.path());
            for name in std::mem::take(&mut truth.has).into_keys() {
                store.remove(&name, false, &|_| ImageUse::Unused).unwrap();
            }
        }
    }
}
