//! A place in a set of rotated log files: `path` is the newest, `path.1` the one before, and so on.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use berth_types::Timestamp;

use crate::api::LogLine;

/// More files than any rotation keeps.
const FILES_MAX: usize = 1001;
/// Longest line: 16 KiB of text, each byte escaped, and the frame around it; more is damage.
const LINE_BYTES_MAX: usize = 1 << 20;
const BLOCK: u64 = 64 * 1024;

/// The shim's line.
#[derive(serde::Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

#[derive(Debug)]
pub(super) struct Cursor {
    path: PathBuf,
    inode: u64,
    reader: BufReader<File>,
    /// A line that is not complete yet.
    partial: Vec<u8>,
    /// Of the line that was read last.
    text: Vec<u8>,
    clock: Clock,
}

fn name(path: &Path, index: usize) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let mut text = path.as_os_str().to_owned();
    text.push(format!(".{index}"));
    text.into()
}

fn open_if_there(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Cursor {
    /// At the start of the log, of its last `tail` lines, or of the first file that can hold lines from `since` on.
    pub(super) fn open(path: &Path, tail: Option<usize>, since: Option<Timestamp>) -> io::Result<Option<Self>> {
        let mut missing = tail.unwrap_or(usize::MAX);
        let mut place = None;
        for index in 0..FILES_MAX {
            let Some(file) = open_if_there(&name(path, index))? else { break };
            // A file that was last written before `since` holds nothing that is wanted, nor do older ones.
            let is_too_old = since.is_some_and(|since| modified(&file).is_some_and(|m| m < since));
            if is_too_old && place.is_some() {
                break;
            }
            let (offset, found) = if tail.is_some() { tail_offset(&file, missing)? } else { (0, 0) };
            missing = missing.saturating_sub(found);
            place = Some((file, offset));
            if missing == 0 || is_too_old {
                break;
            }
        }
        let Some((mut file, offset)) = place else { return Ok(None) };
        file.seek(SeekFrom::Start(offset))?;
        Self::at(path, file).map(Some)
    }

    fn at(path: &Path, file: File) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        Ok(Self {
            path: path.to_owned(),
            inode,
            reader: BufReader::with_capacity(64 * 1024, file),
            partial: Vec::new(),
            text: Vec::new(),
            clock: Clock::default(),
        })
    }

    /// The next complete line; `None` at the present end of the newest file.
    pub(super) fn next(&mut self) -> io::Result<Option<LogLine<'_>>> {
        let (is_stderr, time) = loop {
            let limit = u64::try_from(LINE_BYTES_MAX.saturating_sub(self.partial.len())).unwrap_or(0);
            let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.partial)?;
            if self.partial.ends_with(b"\n") {
                self.text.clear();
                let plain = parse_plain(&self.partial, &mut self.clock, &mut self.text);
                let parsed = plain.or_else(|| parse(&self.partial, &mut self.text));
                self.partial.clear();
                match parsed {
                    Some(parsed) => break parsed,
                    None => continue, // A damaged line (a crash of the host) is left out.
                }
            }
            if self.partial.len() >= LINE_BYTES_MAX {
                self.partial.clear();
                continue;
            }
            if read == 0 && !self.next_file()? {
                return Ok(None);
            }
        };
        Ok(Some(LogLine { is_stderr, time, text: &self.text }))
    }

    /// After a rotation: the file that followed the one we have read to its end.
    fn next_file(&mut self) -> io::Result<bool> {
        let mut next = None;
        for index in 0..FILES_MAX {
            let Some(file) = open_if_there(&name(&self.path, index))? else { break };
            if file.metadata()?.ino() == self.inode {
                break;
            }
            next = Some(file);
        }
        // The writer may have added a last line before it rotated.
        let has_more = !self.reader.fill_buf()?.is_empty();
        if has_more {
            return Ok(true);
        }
        let Some(file) = next else { return Ok(false) };
        *self = Self::at(&self.path, file)?;
        Ok(true)
    }
}

fn modified(file: &File) -> Option<Timestamp> {
    let metadata = file.metadata().ok()?;
    Some(Timestamp(metadata.mtime().checked_mul(1_000_000_000)?.checked_add(metadata.mtime_nsec())?))
}

/// Stream and time of any line of Docker's format; its text goes to `text`.
pub(super) fn parse(line: &[u8], text: &mut Vec<u8>) -> Option<(bool, Timestamp)> {
    let entry: Entry<'_> = serde_json::from_slice(line).ok()?;
    let time = entry.time.parse().ok()?;
    text.extend_from_slice(entry.log.as_bytes());
    Some((entry.stream == "stderr", time))
}

/// The same for the lines that are nearly all: as the shim writes them, with nothing escaped but the newline at the end. They are read several
/// times as fast. `None`: [`parse`] is to say what it is.
pub(super) fn parse_plain(line: &[u8], clock: &mut Clock, text: &mut Vec<u8>) -> Option<(bool, Timestamp)> {
    let rest = line.strip_prefix(b"{\"log\":\"")?.strip_suffix(b"\"}\n")?;
    let (rest, time) = rest.split_at_checked(rest.len().checked_sub(Clock::TEXT_BYTES)?)?;
    let rest = rest.strip_suffix(b"\",\"time\":\"")?;
    let (log, is_stderr) = match rest.strip_suffix(b"\",\"stream\":\"stdout") {
        Some(log) => (log, false),
        None => (rest.strip_suffix(b"\",\"stream\":\"stderr")?, true),
    };
    let (log, newline): (_, &[u8]) = log.strip_suffix(b"\\n").map_or((log, b""), |log| (log, b"\n"));
    // Everything else that a text of JSON must escape, control characters and bytes that are no text are for the other one.
    if log.iter().any(|byte| matches!(byte, b'\\' | b'"' | 0..0x20)) || std::str::from_utf8(log).is_err() {
        return None;
    }
    let time = clock.read(time)?;
    text.extend_from_slice(log);
    text.extend_from_slice(newline);
    Some((is_stderr, time))
}

/// Reads times as the shim writes them; lines that follow each other are mostly of one second.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// `2026-11-23T10:00:00`, and the same in nanoseconds.
    second: [u8; 19],
    nanoseconds: i64,
}

impl Clock {
    /// `2026-11-23T10:00:00.000000000Z`
    const TEXT_BYTES: usize = 30;

    fn read(&mut self, text: &[u8]) -> Option<Timestamp> {
        let (second, rest) = text.split_first_chunk::<19>()?;
        let fraction = rest.strip_prefix(b".")?.strip_suffix(b"Z").filter(|digits| digits.len() == 9)?;
        let digit = |sum: i64, digit: &u8| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'));
        let fraction = fraction.iter().try_fold(0, digit)?;
        if *second != self.second {
            let whole = format!("{}Z", std::str::from_utf8(second).ok()?);
            self.nanoseconds = whole.parse::<Timestamp>().ok()?.0;
            self.second = *second;
        }
        self.nanoseconds.checked_add(fraction).map(Timestamp)
    }
}

/// Where the last `wanted` lines of a file begin, and how many there are. Reads blocks from the end.
fn tail_offset(file: &File, wanted: usize) -> io::Result<(u64, usize)> {
    use std::os::unix::fs::FileExt as _;
    let length = file.metadata()?.len();
    if wanted == 0 {
        return Ok((length, 0));
    }
    let mut found = 0;
    let mut end = length;
    let mut block = vec![0; usize::try_from(BLOCK).unwrap_or(0)];
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let part = &mut block[..usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(part, start)?;
        for (index, _) in part.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = start + u64::try_from(index).unwrap_or(0) + 1;
            if after == length {
                continue; // The newline that ends the last line.
            }
            found += 1;
            if found == wanted {
                return Ok((after, found));
            }
        }
        end = start;
    }
    Ok((0, if length > 0 { found + 1 } else { 0 }))
}
