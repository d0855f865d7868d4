use super::*;

fn target(dir: &Path, size_bytes_max: Option<u64>, files_max: u32) -> LogTarget {
    LogTarget { path: dir.join("x-json.log"), size_bytes_max, files_max }
}

/// The `log` fields of a file, each record checked to be one line of JSON.
fn texts(path: &Path) -> Vec<String> {
    let content = std::fs::read_to_string(path).unwrap();
    content
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["log"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn lines_are_joined_across_reads_and_per_stream() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path(), None, 1);
    let mut log = JsonFile::open(target.clone()).unwrap();
    log.write(Stream::Stdout, b"one\ntw");
    log.write(Stream::Stderr, b"err\n");
    log.write(Stream::Stdout, b"o\nprompt> ");
    assert_eq!(texts(&target.path), ["one\n", "err\n", "two\n"]);
    log.end(Stream::Stdout);
    assert_eq!(texts(&target.path), ["one\n", "err\n", "two\n", "prompt> "]);
}

#[test]
fn long_lines_are_split_without_newline_and_between_characters() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path(), None, 1);
    let mut log = JsonFile::open(target.clone()).unwrap();
    let line = format!("x{}\n", "€".repeat(20_000));
    for part in line.as_bytes().chunks(999) {
        log.write(Stream::Stdout, part);
    }
    let pieces = texts(&target.path);
    assert_eq!(pieces.concat(), line);
    assert_eq!(pieces.len(), 4);
    assert!(pieces.iter().all(|piece| piece.len() <= LINE_BYTES_MAX));
    assert_eq!(pieces.iter().filter(|piece| piece.ends_with('\n')).count(), 1);
}

#[test]
fn rotation_keeps_the_newest_files_and_loses_no_line_between_them() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path(), Some(1000), 3);
    let mut log = JsonFile::open(target.clone()).unwrap();
    for number in 0..100 {
        log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
    }
    let mut all = texts(&numbered(&target.path, 2));
    all.extend(texts(&numbered(&target.path, 1)));
    all.extend(texts(&target.path));
    let first: usize = all[0].trim().strip_prefix("line ").unwrap().parse().unwrap();
    let expected: Vec<String> = (first..100).map(|number| format!("line {number}\n")).collect();
    assert_eq!(all, expected);
    assert!(!numbered(&target.path, 3).exists());
    // A file may exceed the limit by one record, not more.
    assert!(std::fs::metadata(numbered(&target.path, 1)).unwrap().len() < 1100);
}

#[test]
fn one_file_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path(), Some(200), 1);
    let mut log = JsonFile::open(target.clone()).unwrap();
    for number in 0..20 {
        log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
    }
    assert_eq!(texts(&target.path).last().unwrap(), "line 19\n");
    assert!(!numbered(&target.path, 1).exists());
}

#[test]
fn an_existing_log_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path(), None, 1);
    JsonFile::open(target.clone()).unwrap().write(Stream::Stdout, b"before\n");
    JsonFile::open(target.clone()).unwrap().write(Stream::Stdout, b"after\n");
    assert_eq!(texts(&target.path), ["before\n", "after\n"]);
}

#[test]
fn a_failing_target_is_survived_and_reported_when_it_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let target = target(dir.path(), None, 1);
    let mut log = JsonFile::open(target.clone()).unwrap();
    log.write(Stream::Stdout, b"kept\n");
    // A full device stands in for the disk that is full.
    log.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
    log.write(Stream::Stdout, b"lost\n");
    log.write(Stream::Stdout, b"lost too\n");
    log.file = None;
    log.write(Stream::Stdout, b"again\n");
    let texts = texts(&target.path);
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert_eq!((texts[0].as_str(), texts[2].as_str()), ("kept\n", "again\n"));
    assert!(texts[1].starts_with("[berth: ") && texts[1].contains("No space left"), "{texts:?}");
}
