//! Segment files of the event log: append, rotate, cut a torn tail, read back. Not: subscribers.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Event, EventLimits, EventLogError, Origin};

/// Longest line we read back; an event is some hundred bytes, labels make it longer.
const LINE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    limits: EventLimits,
    /// First sequence numbers, oldest first; the last one is being written.
    firsts: VecDeque<u64>,
    current: Option<File>,
    current_bytes: u64,
}

fn file_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.jsonl"))
}

impl Segments {
    /// Opens what is there and returns the last sequence number (0: none).
    pub(super) fn open(dir: &Path, limits: EventLimits) -> Result<(Self, u64), EventLogError> {
        let error = |operation| move |source| EventLogError { operation, path: dir.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(error("create"))?;
        let mut firsts = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(error("list"))? {
            let name = entry.map_err(error("list"))?.file_name();
            let first = name.to_str().and_then(|n| n.strip_suffix(".jsonl")).and_then(|n| n.parse::<u64>().ok());
            firsts.extend(first);
        }
        firsts.sort_unstable();
        let mut segments = Self { dir: dir.to_owned(), limits, firsts: firsts.into(), current: None, current_bytes: 0 };
        let last = segments.recover().map_err(error("read"))?;
        Ok((segments, last))
    }

    /// Finds the last complete line of the newest segment and cuts off what follows it.
    fn recover(&mut self) -> io::Result<u64> {
        let Some(&first) = self.firsts.back() else { return Ok(0) };
        let mut file = OpenOptions::new().read(true).write(true).open(file_of(&self.dir, first))?;
        let mut last_sequence = first.saturating_sub(1);
        let mut good_bytes = 0;
        let mut reader = BufReader::new(&mut file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            match serde_json::from_slice::<Event>(&line) {
                Ok(event) if line.ends_with(b"\n") && event.sequence > last_sequence => last_sequence = event.sequence,
                _ => break,
            }
            good_bytes += u64::try_from(read).unwrap_or(0);
        }
        file.set_len(good_bytes)?;
        file.seek(SeekFrom::End(0))?;
        self.current = Some(file);
        self.current_bytes = good_bytes;
        Ok(last_sequence)
    }

    pub(super) fn append(&mut self, event: &Event) -> Result<(), EventLogError> {
        self.try_append(event).map_err(|source| EventLogError {
            operation: "append to",
            path: self.dir.clone(),
            source,
        })
    }

    fn try_append(&mut self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        if self.current.is_none() || self.current_bytes >= self.limits.segment_bytes {
            self.rotate(event.sequence)?;
        }
        let Some(file) = self.current.as_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = file.write_all(&line) {
            // A full disk may have taken half a line: back to the last complete one, so that later events stay readable.
            file.set_len(self.current_bytes)?;
            file.seek(SeekFrom::Start(self.current_bytes))?;
            return Err(error);
        }
        self.current_bytes += u64::try_from(line.len()).unwrap_or(0);
        Ok(())
    }

    fn rotate(&mut self, first: u64) -> io::Result<()> {
        let path = file_of(&self.dir, first);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        self.current = Some(file);
        self.current_bytes = 0;
        self.firsts.push_back(first);
        while self.firsts.len() > self.limits.segments.max(1) {
            if let Some(oldest) = self.firsts.pop_front() {
                std::fs::remove_file(file_of(&self.dir, oldest))?;
            }
        }
        Ok(())
    }

    pub(super) fn reader(&self, origin: Origin, last_sequence: u64) -> SegmentsReader {
        let mut firsts = self.firsts.clone();
        if let Origin::After(after) = origin {
            while firsts.get(1).is_some_and(|second| *second <= after.saturating_add(1)) {
                firsts.pop_front();
            }
        }
        SegmentsReader { dir: self.dir.clone(), firsts, origin, last_sequence, current: None }
    }
}

/// Reads events from `origin` up to a sequence number, segment after segment.
#[derive(Debug)]
pub(super) struct SegmentsReader {
    dir: PathBuf,
    firsts: VecDeque<u64>,
    origin: Origin,
    last_sequence: u64,
    current: Option<BufReader<File>>,
}

impl SegmentsReader {
    pub(super) fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            let Some(reader) = self.current.as_mut() else {
                let first = self.firsts.pop_front()?;
                // A segment may have been dropped by rotation since: its events are beyond what is kept.
                self.current = File::open(file_of(&self.dir, first)).ok().map(BufReader::new);
                continue;
            };
            let mut line = Vec::new();
            let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).unwrap_or(0);
            if read == 0 {
                self.current = None;
                continue;
            }
            let Ok(event) = serde_json::from_slice::<Event>(&line) else { continue };
            if event.sequence > self.last_sequence {
                return None;
            }
            let is_wanted = match self.origin {
                Origin::Now => false,
                Origin::After(after) => event.sequence > after,
                Origin::Since(since) => event.time >= since,
            };
            if is_wanted {
                return Some(Arc::new(event));
            }
        }
    }
}
