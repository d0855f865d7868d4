//! Streams of JSON documents, as events, stats and progress have them.

use std::io::{self, BufRead, BufReader, Read};

use serde_json::Value;

use crate::failure::{Failure, Outcome};

const LINE_BYTES_MAX: u64 = 16 << 20;

/// One JSON document per line; record separators of json-seq are skipped.
#[derive(Debug)]
pub(crate) struct JsonLines<R: Read> {
    reader: BufReader<R>,
}

impl<R: Read> JsonLines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader: BufReader::new(reader) }
    }

    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        Ok((!line.is_empty()).then_some(line))
    }
}

impl<R: Read> Iterator for JsonLines<R> {
    type Item = Outcome<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.next_line() {
                Ok(line) => line?,
                Err(error) => return Some(Err(Failure::new("lost the daemon's stream").because(&error))),
            };
            let text = line.trim_ascii().strip_prefix(b"\x1e").unwrap_or(line.trim_ascii());
            if text.is_empty() {
                continue;
            }
            let parsed = serde_json::from_slice(text)
                .map_err(|error| Failure::new("the daemon's stream is not valid JSON").because(&error));
            return Some(parsed);
        }
    }
}
