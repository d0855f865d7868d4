//! The journal of an ingest: which ranges of its data are known to be there, and which of them survive a crash of the host. Its lines are in the
//! parent's drawing.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;

use berth_types::Timestamp;

use super::{Ranges, ResumableIngest, State, open_file, read_small};
use crate::{ContentError, Result};

/// What a crash of the process can cost of one ingest: written bytes are noted when there are so many.
const NOTE_BYTES: u64 = 64 << 10;
/// Notes after which the journal is written anew with merged ranges.
const NOTES_MAX: u32 = 100_000;
const JOURNAL_BYTES_MAX: u64 = 16 << 20;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl State {
    pub(super) fn note(&mut self) -> io::Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let unnoted = std::mem::take(&mut self.unnoted);
        self.notes += u32::try_from(unnoted.0.len()).unwrap_or(u32::MAX);
        journal.write_all(unnoted.lines("").as_bytes())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Not noted: these bytes are fetched again.
        drop(self.note());
    }
}

impl ResumableIngest {
    pub(super) fn journal<'s>(&self, state: &'s mut State) -> Result<&'s mut File> {
        let journal = match state.journal.take() {
            Some(open) => open,
            None => open_file(&self.home.join("journal"), true)?,
        };
        Ok(state.journal.insert(journal))
    }

    pub(super) fn note_written(&self, state: &mut State, range: Range<u64>) -> Result<()> {
        self.journal(state)?;
        state.updated = Timestamp::now();
        state.unsynced += range.end - range.start;
        state.ranges.add(range.clone());
        state.unnoted.add(range);
        if state.unnoted.bytes() >= NOTE_BYTES {
            state.note().map_err(|e| self.journal_error(e))?;
        }
        if state.notes >= NOTES_MAX {
            self.rewrite_journal(state)?;
        }
        Ok(())
    }

    /// One line per range instead of one per write, for this boot.
    pub(super) fn rewrite_journal(&self, state: &mut State) -> Result<()> {
        let text = format!("boot {}\n{}", boot_id(), state.ranges.lines(""));
        let (path, draft) = (self.home.join("journal"), self.home.join("journal-new"));
        fs::write(&draft, text).map_err(|e| ContentError::io("write", &draft, e))?;
        fs::rename(&draft, &path).map_err(|e| ContentError::io("name", &path, e))?;
        state.journal = Some(open_file(&path, true)?);
        state.unnoted = Ranges::default();
        state.notes = u32::try_from(state.ranges.0.len()).unwrap_or(u32::MAX);
        state.unsynced = state.ranges.bytes();
        Ok(())
    }

    pub(super) fn journal_error(&self, source: io::Error) -> ContentError {
        ContentError::io("write", &self.home.join("journal"), source)
    }
}

/// Which ranges of the data are known to be there, and when the last was written.
pub(super) fn trusted(home: &Path, data: &File) -> Result<(Ranges, Timestamp)> {
    let found = data.metadata().map_err(|e| ContentError::io("stat", &home.join("data"), e))?;
    let modified = found.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let updated = Timestamp(modified.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0));
    let journal = read_small(&home.join("journal"), JOURNAL_BYTES_MAX)?.unwrap_or_default();
    Ok((replay(&String::from_utf8_lossy(&journal), &boot_id(), found.len()), updated))
}

/// Ranges the journal vouches for. `length` is that of the data, which in the same boot counts even where nothing was noted after it.
pub(super) fn replay(journal: &str, boot: &str, length: u64) -> Ranges {
    let mut lines = journal.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let is_this_boot = lines.next().and_then(|line| line.strip_prefix("boot ")) == Some(boot);
    let (mut noted, mut synced) = (Ranges::default(), Ranges::default());
    for line in lines {
        let (list, range) = match line.strip_prefix("synced ") {
            Some(range) => (&mut synced, range),
            None if line == "synced" => {
                synced = noted.clone();
                continue;
            }
            None => (&mut noted, line),
        };
        if let Some((start, end)) = range.split_once(' ')
            && let (Ok(start), Ok(end)) = (start.parse::<u64>(), end.parse::<u64>())
            && end <= length
        {
            list.add(start..end);
        }
    }
    if is_this_boot { noted } else { synced }
}

fn boot_id() -> String {
    fs::read_to_string(BOOT_ID).map(|text| text.trim_end().to_owned()).unwrap_or_default()
}
