//! Log lines as engines of the field read them: `{"level":..,"msg":..,"time":..}`, or text. Errors also go to stderr.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use berth_types::{Timestamp, report};
use serde_json::json;

use crate::arguments::LogFormat;

#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    format: LogFormat,
    has_debug: bool,
}

impl Log {
    /// A log file that cannot be opened is reported and done without: it must not keep a container from stopping.
    pub(crate) fn new(path: Option<&Path>, format: LogFormat, has_debug: bool) -> Self {
        let file = path.and_then(|path| match OpenOptions::new().append(true).create(true).open(path) {
            Ok(file) => Some(file),
            Err(error) => {
                stderr(&format!("runb: cannot open log {}: {error}", path.display()));
                None
            }
        });
        Self { file, format, has_debug }
    }

    pub(crate) fn error(&self, error: &(dyn Error + 'static)) {
        let text = report(error);
        self.line("error", &text);
        stderr(&format!("runb: {text}"));
    }

    pub(crate) fn warn(&self, text: &str) {
        self.line("warning", text);
        if self.file.is_none() {
            stderr(&format!("runb: warning: {text}"));
        }
    }

    pub(crate) fn debug(&self, text: &str) {
        if self.has_debug {
            self.line("debug", text);
        }
    }

    fn line(&self, level: &str, text: &str) {
        let Some(mut file) = self.file.as_ref() else { return };
        let time = Timestamp::now().to_string();
        let line = match self.format {
            LogFormat::Json => format!("{}\n", json!({"level": level, "msg": text, "time": time})),
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={text:?}\n"),
        };
        // A full disk under the log is no reason to fail.
        let _written = file.write_all(line.as_bytes());
    }
}

#[expect(clippy::print_stderr, reason = "the command's own error output")]
fn stderr(text: &str) {
    eprintln!("{text}");
}
