//! Log lines as engines of the field read them: `{"level":..,"msg":..,"time":..}`, or text. Errors also go to stderr.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use berth_types::{Span, Timestamp, report};

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
        // A program that cannot be executed is its user's business, and is told without our name, as runc tells it.
        let failure = error.exec_failure();
        let named = failure.is_none();
        let text = failure.unwrap_or_else(|| report(error));
        if self.file.is_some() || self.format == LogFormat::Json {
            self.line("error", &text);
        }
        if self.file.is_some() || self.format == LogFormat::Text {
            if named {
                stderr(&format!("runb: {text}"))
            } else {
                stderr(&text)
            }
            if let Some(hint) = error.hint() {
                stderr(&format!("hint: {hint}"));
            }
        }
    }

    /// The steps that were done, with the words by which runc's debug log knows them.
    pub(crate) fn steps(&self, spans: &[Span]) {
        for span in spans {
            self.debug(|| {
                let (name, object, time) = (&span.name, &span.object, span.duration_ns / 1000);
                format!("{name} {object}: {time} us{}", words_of_runc(span))
            });
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

fn words_of_runc(span: &Span) -> String {
    let words = match span.name.as_str() {
        "clone-init" => "nsexec container setup, child process in init()".to_owned(),
        "pin-caller" => {
            let cpus = span.object.split(|c: char| !c.is_ascii_digit()).filter_map(|text| text.parse::<u32>().ok());
            let mask = cpus.fold(0_u64, |mask, cpu| mask | 1_u64.checked_shl(cpu).unwrap_or(0));
            format!("nsexec: affinity: {mask:#x}")
        }
        "execute" => "init: closing the pipe to signal completion, setns_init: about to exec".to_owned(),
        _ => return String::new(),
    };
    format!(" (runc: {words})")
}

pub(crate) fn stderr(text: &str) {
    let _closed = writeln!(std::io::stderr(), "{text}");
}
