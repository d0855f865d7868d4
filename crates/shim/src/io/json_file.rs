//! Docker's json-file log: lines of both streams in one file, rotated by size (`path`, `path.1`, …).
//!
//! A log that cannot be written never stops the container: what is lost is counted, and a note says how much once writing
//! works again. The file always ends with a whole record: half a record is cut off again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use berth_types::Timestamp;

use super::Stream;
use super::json_line::{append_record, time_text};

/// Longest text of one record; a longer line is split, only its last piece has the newline.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;
/// Formatted bytes that are collected before they are written.
const BATCH_BYTES: usize = 64 * 1024;

/// Where the log is and how it is rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogTarget {
    pub(crate) path: PathBuf,
    /// `None`: never rotated.
    pub(crate) size_bytes_max: Option<u64>,
    /// Files kept, the current one included; at least 1.
    pub(crate) files_max: u32,
}

#[derive(Debug)]
pub(crate) struct JsonFile {
    target: LogTarget,
    file: Option<File>,
    size_bytes: u64,
    batch: Vec<u8>,
    /// The beginning of a line whose end has not come yet, per stream.
    partial: [Vec<u8>; 2],
    lost: Option<Lost>,
}

/// Text that could not be written, and the first reason.
#[derive(Debug)]
struct Lost {
    bytes: u64,
    reason: io::Error,
}

impl JsonFile {
    /// # Errors
    /// When the file cannot be opened now; later failures are survived.
    pub(crate) fn open(target: LogTarget) -> io::Result<Self> {
        let file = open_append(&target.path)?;
        let size_bytes = file.metadata()?.len();
        Ok(Self {
            target,
            file: Some(file),
            size_bytes,
            batch: Vec::new(),
            partial: [Vec::new(), Vec::new()],
            lost: None,
        })
    }

    /// Takes output as it was read; whole lines are written before this returns.
    pub(crate) fn write(&mut self, stream: Stream, mut data: &[u8]) {
        let time = time_text(Timestamp::now());
        while let Some(end) = memchr::memchr(b'\n', data) {
            let (line, rest) = data.split_at(end + 1);
            self.line(stream, line, &time);
            data = rest;
        }
        self.beginning_of_line(stream, data, &time);
        self.flush();
    }

    /// No more output of this stream: a last line without newline is written as it is.
    pub(crate) fn end(&mut self, stream: Stream) {
        let partial = std::mem::take(&mut self.partial[stream.index()]);
        if !partial.is_empty() {
            self.record(stream, &partial, &time_text(Timestamp::now()));
        }
        self.flush();
    }

    fn line(&mut self, stream: Stream, line: &[u8], time: &str) {
        let partial = &mut self.partial[stream.index()];
        if partial.is_empty() {
            self.pieces(stream, line, time);
            return;
        }
        let mut whole = std::mem::take(partial);
        whole.extend_from_slice(line);
        self.pieces(stream, &whole, time);
    }

    /// Keeps less than one piece back.
    fn beginning_of_line(&mut self, stream: Stream, data: &[u8], time: &str) {
        if data.is_empty() {
            return;
        }
        let mut whole = std::mem::take(&mut self.partial[stream.index()]);
        whole.extend_from_slice(data);
        let mut rest = whole.as_slice();
        while rest.len() > LINE_BYTES_MAX {
            let (piece, tail) = rest.split_at(piece_len(rest));
            self.record(stream, piece, time);
            rest = tail;
        }
        self.partial[stream.index()] = rest.to_vec();
    }

    fn pieces(&mut self, stream: Stream, mut line: &[u8], time: &str) {
        while line.len() > LINE_BYTES_MAX {
            let (piece, tail) = line.split_at(piece_len(line));
            self.record(stream, piece, time);
            line = tail;
        }
        self.record(stream, line, time);
    }

    fn record(&mut self, stream: Stream, text: &[u8], time: &str) {
        let pending = u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        let is_full = self.target.size_bytes_max.is_some_and(|max| self.size_bytes.saturating_add(pending) >= max);
        if is_full || self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
        if is_full {
            self.rotate();
        }
        append_record(&mut self.batch, text, stream, time);
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        // Kept only while there is output to write: an idle container holds no buffer.
        let batch = std::mem::take(&mut self.batch);
        if let Err(reason) = self.write_out(&batch) {
            let bytes = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let lost = self.lost.get_or_insert(Lost { bytes: 0, reason });
            lost.bytes = lost.bytes.saturating_add(bytes);
        }
    }

    fn write_out(&mut self, batch: &[u8]) -> io::Result<()> {
        if let Some(lost) = self.lost.take() {
            let note = format!("[berth: {} bytes of log were lost: {}]\n", lost.bytes, lost.reason);
            let mut record = Vec::new();
            append_record(&mut record, note.as_bytes(), Stream::Stderr, &time_text(Timestamp::now()));
            if let Err(reason) = self.append(&record) {
                self.lost = Some(lost);
                return Err(reason);
            }
        }
        self.append(batch)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(open_append(&self.target.path)?),
        };
        match file.write_all(bytes) {
            Ok(()) => {
                self.size_bytes += u64::try_from(bytes.len()).unwrap_or_default();
                Ok(())
            }
            Err(reason) => {
                // Half a record would spoil the next one. When even this fails the reader finds one bad line.
                file.set_len(self.size_bytes).ok();
                Err(reason)
            }
        }
    }

    /// The oldest file goes, the others move up by one. A step that fails is left out: the log goes on in the current file.
    fn rotate(&mut self) {
        let path = &self.target.path;
        self.file = None;
        for number in (1..self.target.files_max).rev() {
            let from = if number == 1 { path.clone() } else { numbered(path, number - 1) };
            std::fs::rename(from, numbered(path, number)).ok();
        }
        if self.target.files_max <= 1 {
            // One file only: it starts anew.
            OpenOptions::new().write(true).truncate(true).open(path).ok();
        }
        self.file = open_append(path).ok();
        self.size_bytes = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
    }
}

/// At most `LINE_BYTES_MAX`, less where that would cut a character in two.
fn piece_len(line: &[u8]) -> usize {
    let is_continuation = |at: usize| line.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (LINE_BYTES_MAX - 3..=LINE_BYTES_MAX).rev().find(|at| !is_continuation(*at)).unwrap_or(LINE_BYTES_MAX)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests;
