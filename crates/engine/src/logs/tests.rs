use std::io::Write;

use super::file::{Clock, Cursor, parse, parse_plain};
use super::*;

fn line(n: usize, stream: &str) -> String {
    format!(
        "{{\"log\":\"line {n}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-11-23T10:00:{:02}.000000000Z\"}}\n",
        n % 60
    )
}

fn append(path: &Path, range: std::ops::Range<usize>) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    for n in range {
        file.write_all(line(n, "stdout").as_bytes()).unwrap();
    }
}

fn rotate(path: &Path) {
    let name = |n: usize| Path::new(&format!("{}.{n}", path.display())).to_owned();
    for n in (1..9).rev().filter(|n| name(*n).exists()) {
        std::fs::rename(name(n), name(n + 1)).unwrap();
    }
    std::fs::rename(path, name(1)).unwrap();
}

fn rest(cursor: &mut Cursor) -> Vec<usize> {
    let number =
        |line: LogLine<'_>| str::from_utf8(line.text).unwrap().trim_start_matches("line ").trim().parse().unwrap();
    std::iter::from_fn(|| cursor.next().unwrap().map(number)).collect()
}

#[test]
fn tail_counts_over_rotated_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c-json.log");
    append(&path, 0..5);
    rotate(&path);
    append(&path, 5..8);
    for tail in 0..12 {
        let mut cursor = Cursor::open(&path, Some(tail), None).unwrap().unwrap();
        assert_eq!(rest(&mut cursor), (8usize.saturating_sub(tail)..8).collect::<Vec<_>>(), "tail {tail}");
    }
    let mut all = Cursor::open(&path, None, None).unwrap().unwrap();
    assert_eq!(rest(&mut all), (0..8).collect::<Vec<_>>());
    assert!(Cursor::open(&dir.path().join("none"), None, None).unwrap().is_none());
}

#[test]
fn tail_over_many_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c-json.log");
    append(&path, 0..5000);
    let mut cursor = Cursor::open(&path, Some(3000), None).unwrap().unwrap();
    assert_eq!(rest(&mut cursor).len(), 3000);
}

/// A follower loses and doubles nothing, also when the files move on twice between its reads.
#[test]
fn follows_across_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c-json.log");
    append(&path, 0..2);
    let mut cursor = Cursor::open(&path, None, None).unwrap().unwrap();
    assert_eq!(rest(&mut cursor), [0, 1]);
    append(&path, 2..4);
    rotate(&path);
    append(&path, 4..6);
    rotate(&path);
    append(&path, 6..7);
    assert_eq!(rest(&mut cursor), [2, 3, 4, 5, 6]);
    append(&path, 7..8);
    assert_eq!(rest(&mut cursor), [7]);
}

#[test]
fn incomplete_and_damaged_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c-json.log");
    append(&path, 0..1);
    let whole = line(1, "stderr");
    let (first, second) = whole.split_at(20);
    let write = |text: &str| {
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
    };
    write("garbage\n");
    write(first);
    let mut cursor = Cursor::open(&path, None, None).unwrap().unwrap();
    assert_eq!(rest(&mut cursor), [0]);
    write(second);
    let line = cursor.next().unwrap().unwrap();
    assert!(line.is_stderr);
    assert_eq!(line.text, b"line 1\n");
}

#[test]
fn filters_by_stream_and_time() {
    let at = |text: &str| Some(format!("2026-11-23T10:00:{text}Z").parse().unwrap());
    let log_line = |is_stderr| LogLine { is_stderr, time: at("30").unwrap(), text: b"" };
    let options = LogOptions { stdout: true, since: at("30"), until: at("30"), ..LogOptions::default() };
    assert!(matches!(wanted(log_line(false), &options), Wanted::Yes));
    assert!(matches!(wanted(log_line(true), &options), Wanted::No));
    let later = LogOptions { since: at("31"), until: None, ..options.clone() };
    assert!(matches!(wanted(log_line(false), &later), Wanted::No));
    let earlier = LogOptions { until: at("29"), ..options };
    assert!(matches!(wanted(log_line(false), &earlier), Wanted::End));
}

/// Lines that are read the fast way say what they say the other way; all others are left to that.
#[test]
fn plain_lines() {
    let mut clock = Clock::default();
    let line = |text: &str, stream: &str, time: &str| {
        format!("{{\"log\":\"{text}\",\"stream\":\"{stream}\",\"time\":\"{time}\"}}\n").into_bytes()
    };
    let time = "2026-11-23T10:00:59.000000007Z";
    for (line, is_plain) in [
        (line("hello\\n", "stdout", time), true),
        (line("h\u{f6}llo", "stderr", "2026-11-23T10:01:00.999999999Z"), true),
        (line("", "stdout", time), true),
        (line("\\n", "stdout", "1969-12-31T23:59:59.500000000Z"), true),
        (line("\\n", "stdout", "1969-12-31T23:59:59.5Z"), false),
        (line("a\\tb\\n", "stdout", time), false),
        (line("a\tb\\n", "stdout", time), false),
        (line("a\\\\n", "stdout", time), false),
        (line("a\\\\", "stdout", time), false),
        (line("a\",\"b\":\"", "stdout", time), false),
        (line("a", "stdfoo", time), false),
        (line("a", "stdout", "2026-11-23T10:00:59.00000000xZ"), false),
        (line("a", "stdout", "2026-13-23T10:00:59.000000000Z"), false),
        (line("a\",\"stream\":\"stderr\",\"attrs\":\"", "stdout", time), false),
        (b"{\"log\":\"\"}\n".to_vec(), false),
        (b"\n".to_vec(), false),
    ] {
        let (mut fast, mut slow) = (Vec::new(), Vec::new());
        let found = parse_plain(&line, &mut clock, &mut fast);
        let shown = String::from_utf8_lossy(&line);
        assert_eq!(found.is_some(), is_plain, "{shown}");
        let other = parse(&line, &mut slow);
        assert!(fast.is_empty() || (found, &fast) == (other, &slow), "{shown}");
        assert!(!is_plain || (found, &fast) == (other, &slow), "{shown}");
    }
}

#[test]
fn pieces_have_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c-json.log");
    append(&path, 0..10_000);
    let mut cursor = Cursor::open(&path, None, None).unwrap().unwrap();
    let options = LogOptions { stdout: true, ..LogOptions::default() };
    let mut sizes = Vec::new();
    let mut number = 0;
    loop {
        let (lines, state) = piece(&mut cursor, &options).unwrap();
        sizes.push(lines.len());
        for line in lines.iter() {
            assert_eq!(line.text, format!("line {number}\n").as_bytes());
            number += 1;
        }
        if state == State::NoMoreYet {
            break;
        }
    }
    assert_eq!((sizes, number), (vec![4096, 4096, 1808], 10_000));
}
