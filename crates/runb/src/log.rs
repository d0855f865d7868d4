//! Log lines as engines of the field read them: `{"level":..,"msg":..,"time":..}`, or text. Errors also go to stderr.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use berth_types::{Timestamp, report};

use crate::arguments::LogFormat;
use crate::error::CommandError;

#[derive(Debug)]
pub(crate) struct Log {
    file: Option<File>,
    format: LogFormat,
    has_debug: bool,
}

/// One line, in the order that people read it in.
#[derive(serde::Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: String,
}

impl Log {
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn new(path: Option<&Path>, format: LogFormat, has_debug: bool) -> Result<Self, CommandError> {
        let open = |path: &Path| OpenOptions::new().append(true).create(true).open(path);
        let file = path.map(|path| open(path).map_err(crate::paths::file("open log", path))).transpose()?;
        Ok(Self { file, format, has_debug })
    }

    /// To the log and to stderr: a caller may read only one of them.
    pub(crate) fn error(&self, error: &CommandError) {
        let text = report(error);
        if self.file.is_some() || self.format == LogFormat::Json {
            self.line("error", &text);
        }
        if self.file.is_some() || self.format == LogFormat::Text {
            stderr(&format!("runb: {text}"));
            if let Some(hint) = error.hint() {
                stderr(&format!("hint: {hint}"));
            }
        }
    }

    pub(crate) fn warn(&self, text: &str) {
        if self.file.is_some() || self.format == LogFormat::Json {
            self.line("warning", text);
        } else {
            stderr(&format!("runb: warning: {text}"));
        }
    }

    pub(crate) fn debug(&self, text: impl FnOnce() -> String) {
        if self.has_debug {
            self.line("debug", &text());
        }
    }

    fn line(&self, level: &str, text: &str) {
        let time = Timestamp::now().to_string();
        let line = match self.format {
            LogFormat::Json => serde_json::to_string(&Line { level, msg: text, time }).unwrap_or_default(),
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={text:?}"),
        };
        // A full disk under the log is no reason to fail.
        match self.file.as_ref() {
            Some(mut file) => {
                let _written = file.write_all(format!("{line}\n").as_bytes());
            }
            None => stderr(&line),
        }
    }
}

pub(crate) fn stderr(text: &str) {
    let _closed = writeln!(std::io::stderr(), "{text}");
}
