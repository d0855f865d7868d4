//! What a face gets of a log.

use berth_types::Timestamp;

/// One piece of log; `text` includes its newline if the line had one.
#[derive(Debug, Clone, Copy)]
pub struct LogLine<'a> {
    pub is_stderr: bool,
    pub time: Timestamp,
    pub text: &'a [u8],
}

/// Lines in order, as many as are worth being handed on together.
#[derive(Debug, Default)]
pub struct LogLines {
    text: Vec<u8>,
    /// Of each line its stream, its time, and where its text ends.
    lines: Vec<(bool, Timestamp, usize)>,
}

impl LogLines {
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Bytes of all their texts.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    pub fn push(&mut self, line: LogLine<'_>) {
        self.text.extend_from_slice(line.text);
        self.lines.push((line.is_stderr, line.time, self.text.len()));
    }

    pub fn iter(&self) -> impl Iterator<Item = LogLine<'_>> {
        let mut start = 0;
        self.lines.iter().map(move |(is_stderr, time, end)| {
            let text = self.text.get(start..*end).unwrap_or_default();
            start = *end;
            LogLine { is_stderr: *is_stderr, time: *time, text }
        })
    }
}
