//! `system df`: whose the bytes are, known without looking at layers, and the same as what `du` finds.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use berth_testkit::{Image, Instance, LayerFile, wait_until};
use serde_json::Value;

use super::three_layers;

/// Blocks of everything below a path, each inode once: what `du` prints.
fn du(path: &Path) -> u64 {
    let mut seen = std::collections::HashSet::new();
    let mut todo = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(path) = todo.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if seen.insert(found.ino()) {
            bytes += found.blocks() * 512;
        }
        if found.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    bytes
}

fn df(berth: &Instance) -> Value {
    let mut stream = std::os::unix::net::UnixStream::connect(berth.socket()).unwrap();
    stream.write_all(b"GET /system/df HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (start, end) = (answer.find('{').unwrap(), answer.rfind('}').unwrap());
    serde_json::from_str(&answer[start..=end]).unwrap()
}

fn owner(df: &Value, kind: &str) -> (u64, u64) {
    let owners = df["Owners"].as_array().unwrap();
    let owner = owners.iter().find(|owner| owner["Kind"] == kind).unwrap_or_else(|| panic!("{kind}: {owners:?}"));
    (owner["Count"].as_u64().unwrap(), owner["Bytes"].as_u64().unwrap())
}

fn all(df: &Value) -> u64 {
    df["Owners"].as_array().unwrap().iter().map(|owner| owner["Bytes"].as_u64().unwrap()).sum()
}

/// `berth_tree_walks_total` of a kind.
fn walks(address: &str, kind: &str) -> u64 {
    metric(address, &format!("berth_tree_walks_total{{kind=\"{kind}\"}}"))
}

/// A number that the daemon tells.
pub(super) fn metric(address: &str, name: &str) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let found = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap().parse().unwrap()
}

/// The sum of the owners is what `du` finds below the data root, but for the directories of the store itself.
#[track_caller]
fn equals_du(berth: &Instance, when: &str) {
    // The trash is on its way out and belongs to nobody; new layers are measured in the background.
    let mut last = (Value::Null, 0);
    let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("df equals du", || {
            last = (df(berth), du(&berth.root()));
            let (told, found) = (all(&last.0), last.1);
            // Directories of the store: some 4 KiB each, however large what is in them.
            let frame = 40 * 4096 + 3 * 4096 * u64::try_from(objects(berth)).unwrap();
            (told <= found && found - told <= frame + found / 100).then_some(())
        })
    }));
    assert!(seen.is_ok(), "{when}: {} is not {}: {}", all(&last.0), last.1, last.0["Owners"]);
}

/// Homes and directories with records of their own.
fn objects(berth: &Instance) -> usize {
    let root = berth.root();
    let snapshots = fs::read_dir(root.join("snapshots")).unwrap().map(|entry| entry.unwrap().path());
    let kinds = snapshots.flat_map(|store| ["layers", "containers", "snapshots"].map(|kind| store.join(kind)));
    let others = ["containers", "volumes"].map(|kind| root.join(kind));
    kinds.chain(others).map(|directory| super::count(&directory)).sum()
}

fn large(name: &str, seed: u8) -> Image {
    let mut image = Image::busybox();
    image.reference = format!("{name}:latest");
    let bytes = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect();
    let mut files = vec![LayerFile::program("large", bytes), LayerFile::directory("many")];
    files.extend((0..300).map(|n| LayerFile::text(&format!("many/{n}"), "small")));
    image.layer(files)
}

/// P07, P09: every byte has an owner, layers are not walked for it, and the figures hold after removals and after `kill -9`.
fn ledger_on(snapshotter: &str) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut berth = Instance::start_with(&["--snapshotter", snapshotter, "--metrics-address", &address]);
    for name in ["one", "two", "three"] {
        berth.load(&large(name, name.as_bytes()[1]).docker_archive()).ok();
    }
    berth
        .berth(&["run", "--name", "wrote", "-v", "vol:/vol", "one", "sh", "-c", "cp /large /mine; cp /large /vol/its"])
        .ok();
    equals_du(&berth, "after loads and a run");
    let before = df(&berth);
    assert_eq!(owner(&before, "image layers").0, 4);
    assert!(owner(&before, "containers' files").1 >= 1_000_000 && owner(&before, "volumes").1 >= 1_000_000);
    assert_eq!(owner(&before, "volumes").0, 1);

    // No layer is looked at: what is moved away still counts, and nothing was walked. The container that does not run was walked before.
    let layers = berth.root().join("snapshots").join(snapshotter).join("layers");
    wait_until("the container is cleaned up and its files counted once more", || {
        let counted = walks(&address, "writable");
        df(&berth);
        (walks(&address, "writable") == counted + 1).then_some(())
    });
    let counted = (walks(&address, "layer"), walks(&address, "writable"));
    fs::rename(&layers, berth.directory.join("away")).unwrap();
    fs::create_dir(&layers).unwrap();
    assert_eq!(owner(&df(&berth), "image layers"), owner(&before, "image layers"));
    fs::remove_dir(&layers).unwrap();
    fs::rename(berth.directory.join("away"), &layers).unwrap();
    // The volume, which may be mounted anywhere.
    assert_eq!((walks(&address, "layer"), walks(&address, "writable")), (counted.0, counted.1 + 1));

    // A copy into a container that does not run, and another run of it, are seen.
    let file = berth.directory.join("more");
    fs::write(&file, vec![7; 1_000_000]).unwrap();
    berth.berth(&["cp", file.to_str().unwrap(), "wrote:/more"]).ok();
    equals_du(&berth, "after a copy");
    assert!(owner(&df(&berth), "containers' files").1 >= owner(&before, "containers' files").1 + 1_000_000);
    berth.berth(&["start", "-a", "wrote"]).ok();
    equals_du(&berth, "after another run");

    berth.berth(&["rmi", "two"]).ok();
    equals_du(&berth, "after rmi");
    let after = df(&berth);
    assert!(owner(&before, "image layers").1 - owner(&after, "image layers").1 >= 1_000_000, "{before} {after}");
    assert!(owner(&before, "packed blobs").1 - owner(&after, "packed blobs").1 >= 1_000_000, "{before} {after}");
    berth.kill_daemon();
    berth.spawn();
    equals_du(&berth, "after kill -9");
    assert_eq!(owner(&df(&berth), "image layers"), owner(&after, "image layers"));
    berth.berth(&["system", "prune", "-a", "-f", "--volumes"]).ok();
    equals_du(&berth, "after a prune");
    assert_eq!(owner(&df(&berth), "image layers"), (0, 0));
}

#[test]
fn df_is_du_on_overlay() {
    ledger_on("overlay");
}

#[test]
fn df_is_du_on_erofs() {
    ledger_on("erofs");
}

#[test]
fn df_is_du_on_native() {
    ledger_on("native");
}

/// Killed between the steps of a removal and of a load, the daemon knows what is there when it comes back.
#[test]
fn df_is_du_after_kills_in_the_middle() {
    let mut berth = Instance::start();
    for point in 1..=3_u8 {
        for is_load in [true, false] {
            let archive = large(&format!("n{point}"), point).docker_archive();
            if !is_load {
                berth.load(&archive).ok();
            }
            fs::write(berth.fault_points(), format!("kill {point}")).unwrap();
            let victim = match is_load {
                true => berth.load(&archive),
                false => berth.berth(&["rmi", &format!("n{point}")]),
            };
            // A load has fewer points.
            if fs::remove_file(berth.fault_points()).is_ok() {
                victim.ok();
                berth.kill_daemon();
            } else {
                berth.await_daemon_death();
            }
            berth.spawn();
            equals_du(&berth, &format!("after a kill at point {point}, load {is_load}"));
        }
    }
}

/// Our client's long form names the owners.
#[test]
fn df_v_tells_where_the_bytes_are() {
    let berth = Instance::start();
    berth.load(&three_layers().docker_archive()).ok();
    let told = berth.berth(&["system", "df", "-v"]).ok().to_owned();
    let (_, owners) = told.split_once("Where the bytes are:").unwrap_or_else(|| panic!("{told}"));
    let line = owners.lines().find(|line| line.starts_with("image layers")).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(line.split_whitespace().nth(2), Some("3"), "{told}");
    assert!(owners.lines().any(|line| line.starts_with("all ")), "{told}");
}
