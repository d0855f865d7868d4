//! S-118: the database survives `kill -9` at any instant with every acknowledged write, and no half transaction.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_metadata::{Durability, Metadata, Table, Write};

const DATABASE: &str = "BERTH_TEST_DATABASE";
const POINTS: usize = 100;

fn put(table: Table, key: String) -> Write {
    Write::Put { table, key, value: vec![7; 300] }
}

/// Not a test: the child that is killed. Prints `ack <durability> <key>` after each write returned.
#[test]
#[ignore = "run by s118_kill_at_random_points"]
fn child_writes() {
    let file = PathBuf::from(std::env::var_os(DATABASE).unwrap());
    let metadata = Metadata::open(&file).unwrap();
    let start = metadata.list(Table::Images).unwrap().len();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let metadata = &metadata;
            scope.spawn(move || {
                for i in 0..10_000 {
                    let key = format!("{start}-{thread}-{i}");
                    let both = vec![put(Table::Images, key.clone()), put(Table::Tags, key.clone())];
                    metadata.write(both, Durability::Immediate).unwrap();
                    writeln!(std::io::stdout(), "ack immediate {key}").unwrap();
                    metadata.write(vec![put(Table::Facts, key.clone())], Durability::Eventual).unwrap();
                    writeln!(std::io::stdout(), "ack eventual {key}").unwrap();
                }
            });
        }
    });
}

fn run_and_kill(file: &Path, lines_before_kill: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_writes", "--ignored", "--nocapture", "--test-threads=1"])
        .env(DATABASE, file)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    let mut key_of = |line: String| line.split_once("ack ").map(|(_, key)| acknowledged.push(key.to_owned())).is_some();
    let mut seen = 0;
    while seen < lines_before_kill {
        let line = lines.next().expect("the child ended by itself").unwrap();
        seen += usize::from(key_of(line));
    }
    child.kill().unwrap();
    // What was printed before the kill was acknowledged too; a cut-off last line was not.
    for line in lines.map_while(Result::ok) {
        key_of(line);
    }
    child.wait().unwrap();
    acknowledged
}

#[test]
fn s118_kill_at_random_points() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metadata.redb");
    let mut acknowledged: Vec<String> = Vec::new();
    let mut random = u64::from(std::process::id()) | 1;
    for point in 0..POINTS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let lines_before_kill = usize::try_from(random % 24).unwrap();
        let mut keys = run_and_kill(&file, lines_before_kill);
        // The last line may have been cut in the middle by the kill: it is a prefix of a key that may or may not be there.
        let last_is_whole = keys.last().is_none_or(|key| key.matches('-').count() == 2);
        if !last_is_whole {
            keys.pop();
        }
        let metadata = Metadata::open(&file).unwrap_or_else(|e| panic!("point {point}: {}", berth_types::report(&e)));
        let keys_of = |table| -> Vec<String> { metadata.list(table).unwrap().into_iter().map(|(k, _)| k).collect() };
        let (images, tags, facts) = (keys_of(Table::Images), keys_of(Table::Tags), keys_of(Table::Facts));
        assert_eq!(images, tags, "point {point}: a transaction was torn");
        acknowledged.append(&mut keys);
        for line in &acknowledged {
            let there = match line.split_once(' ') {
                Some(("immediate", key)) => images.binary_search_by(|found| found.as_str().cmp(key)),
                Some(("eventual", key)) => facts.binary_search_by(|found| found.as_str().cmp(key)),
                _ => panic!("{line}"),
            };
            assert!(there.is_ok(), "point {point}: acknowledged {line} is lost");
        }
    }
    assert!(acknowledged.len() > POINTS, "{}", acknowledged.len());
}
