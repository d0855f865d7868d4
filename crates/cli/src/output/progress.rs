//! Progress on stderr: bars on a terminal, plain lines elsewhere.
//!
//! Two kinds: bytes we send or receive, and Docker's stream of JSON messages (`status`, `progressDetail`, `stream`, `error`).

use std::collections::HashMap;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use berth_types::ByteCount;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::Output;
use crate::client::{JsonLines, Response};
use crate::failure::{Failure, Outcome};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Bytes moved so far, of a total when it is known.
#[derive(Debug)]
pub(crate) struct ByteProgress {
    what: String,
    moved: u64,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    last_line: Instant,
    is_silent: bool,
}

impl ByteProgress {
    pub(crate) fn new(out: &Output, what: &str, total: Option<u64>, is_silent: bool) -> Self {
        let bar = (out.is_error_terminal && !is_silent).then(|| new_bar(what, total));
        Self { what: what.to_owned(), moved: 0, total, bar, last_line: Instant::now(), is_silent }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.moved += bytes as u64;
        match &self.bar {
            Some(bar) => bar.set_position(self.moved),
            None if self.is_silent || self.last_line.elapsed() < LINE_EVERY => {}
            None => {
                self.last_line = Instant::now();
                let total = self.total.map(|total| format!(" of {}", ByteCount(total))).unwrap_or_default();
                let line = format!("{}: {}{total}\n", self.what, ByteCount(self.moved));
                Output::error_bytes(line.as_bytes());
            }
        }
    }

    pub(crate) fn moved(&self) -> u64 {
        self.moved
    }
}

impl Drop for ByteProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(what: &str, total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
    let template = match total {
        Some(_) => "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
        None => "{msg} {spinner} {decimal_bytes} {decimal_bytes_per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
    }
    bar.set_message(what.to_owned());
    bar
}

/// A reader that counts what passes.
#[derive(Debug)]
pub(crate) struct ProgressReader<R> {
    pub(crate) inner: R,
    pub(crate) progress: ByteProgress,
}

impl<R: Read> Read for ProgressReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.progress.add(length);
        Ok(length)
    }
}

/// Follows a progress stream to its end. `data` gets what is a result (`stream`, `aux`), everything else goes to stderr.
pub(crate) fn follow_progress(
    response: Response,
    out: &mut Output,
    is_quiet: bool,
    mut data: impl FnMut(&mut Output, &Value) -> Outcome<()>,
) -> Outcome<()> {
    let mut board = Board::new(out, is_quiet);
    for message in JsonLines::new(response) {
        let message = message?;
        if let Some(text) = error_text(&message) {
            board.clear();
            let mut failure = Failure::new(text);
            failure.hint = message["berth"]["hint"].as_str().map(str::to_owned);
            return Err(failure);
        }
        if message["stream"].is_string() || !message["aux"].is_null() {
            board.clear();
            data(out, &message)?;
        } else if message["status"].is_string() {
            board.show(&message);
            data(out, &message)?;
        }
    }
    board.clear();
    Ok(())
}

fn error_text(message: &Value) -> Option<String> {
    let text = message["errorDetail"]["message"].as_str().or_else(|| message["error"].as_str())?;
    Some(text.trim().to_owned())
}

/// One bar per id on a terminal, one line per new status elsewhere.
struct Board {
    bars: Option<MultiProgress>,
    by_id: HashMap<String, ProgressBar>,
    last_status: HashMap<String, String>,
    overall: Overall,
    is_quiet: bool,
}

/// All transfers together: bytes, rate and what is left.
struct Overall {
    /// Moved and whole, by object.
    by_id: HashMap<String, (u64, u64)>,
    bar: Option<ProgressBar>,
    started: Instant,
    /// Bytes that were there when we began to count.
    base: Option<u64>,
    last_line: Instant,
}

impl Overall {
    fn new() -> Self {
        let now = Instant::now();
        Self { by_id: HashMap::new(), bar: None, started: now, base: None, last_line: now }
    }

    /// Whether the sums changed.
    fn note(&mut self, id: &str, status: &str, current: Option<u64>, total: Option<u64>) -> bool {
        match (status, current, total) {
            ("Downloading" | "Pushing", Some(current), Some(total)) => {
                self.by_id.insert(id.to_owned(), (current, total));
                true
            }
            ("Verifying Checksum" | "Download complete" | "Extracting" | "Pull complete" | "Pushed", ..) => {
                let Some(known) = self.by_id.get_mut(id) else { return false };
                let is_change = known.0 != known.1;
                known.0 = known.1;
                is_change
            }
            _ => false,
        }
    }

    fn sums(&self) -> (u64, u64) {
        self.by_id.values().fold((0, 0), |(moved, whole), (current, total)| (moved + current, whole + total))
    }

    /// `12MB of 40MB, 3MB/s, 9 s left`
    fn line(&mut self) -> String {
        let (moved, whole) = self.sums();
        let base = *self.base.get_or_insert(moved);
        let seconds = self.started.elapsed().as_secs().max(1);
        let rate = moved.saturating_sub(base) / seconds;
        let left = whole.saturating_sub(moved).checked_div(rate).map(|s| format!(", {s} s left")).unwrap_or_default();
        format!("total: {} of {}, {}/s{left}", ByteCount(moved), ByteCount(whole), ByteCount(rate))
    }
}

impl Board {
    fn new(out: &Output, is_quiet: bool) -> Self {
        let bars = (out.is_error_terminal && !is_quiet)
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        Self { bars, by_id: HashMap::new(), last_status: HashMap::new(), overall: Overall::new(), is_quiet }
    }

    fn show(&mut self, message: &Value) {
        let id = message["id"].as_str().unwrap_or_default();
        let status = message["status"].as_str().unwrap_or_default();
        if self.is_quiet || id.is_empty() {
            return;
        }
        let detail = &message["progressDetail"];
        let is_moved = self.overall.note(id, status, detail["current"].as_u64(), detail["total"].as_u64());
        let Some(bars) = &self.bars else {
            if is_moved && self.overall.last_line.elapsed() >= LINE_EVERY {
                self.overall.last_line = Instant::now();
                Output::error_bytes(format!("{}\n", self.overall.line()).as_bytes());
            }
            let is_new = self.last_status.insert(id.to_owned(), status.to_owned()).is_none_or(|last| last != status);
            if is_new {
                Output::error_bytes(format!("{id}: {status}\n").as_bytes());
            }
            return;
        };
        let bar = self.by_id.entry(id.to_owned()).or_insert_with(|| bars.add(new_bar(id, Some(0))));
        bar.set_message(format!("{id}: {status}"));
        if let Some(total) = detail["total"].as_u64() {
            bar.set_length(total);
        }
        if let Some(current) = detail["current"].as_u64() {
            bar.set_position(current);
        }
        if is_moved {
            let (moved, whole) = self.overall.sums();
            let total = self.overall.bar.get_or_insert_with(|| bars.add(new_bar("total", Some(whole))));
            total.set_length(whole);
            total.set_position(moved);
        }
    }

    fn clear(&mut self) {
        self.by_id.clear();
        self.overall.bar = None;
        if let Some(bars) = &self.bars {
            // A terminal that went away needs no clearing.
            drop(bars.clear());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_transfers_together() {
        let mut overall = Overall::new();
        assert!(overall.note("a", "Downloading", Some(1_000_000), Some(4_000_000)));
        assert!(overall.note("b", "Downloading", Some(500_000), Some(1_000_000)));
        assert!(!overall.note("c", "Already exists", None, None));
        assert!(overall.note("b", "Download complete", None, None));
        assert!(!overall.note("b", "Extracting", Some(10), Some(1_000_000)));
        assert_eq!(overall.sums(), (2_000_000, 5_000_000));
        assert_eq!(overall.line(), "total: 2MB of 5MB, 0B/s");
        overall.note("a", "Downloading", Some(3_000_000), Some(4_000_000));
        assert_eq!(overall.line(), "total: 4MB of 5MB, 2MB/s, 0 s left");
    }
}
