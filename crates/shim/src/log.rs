//! The shim's own log: one JSON object per line (`level`, `msg`, `time`) on stderr, which `daemonize` points at the engine's
//! `log` FIFO or at `shim.log` in the bundle. Never blocks and never fails: a log that cannot be written is given up.

use berth_types::Timestamp;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Warning,
    Error,
}

pub(crate) fn warn(message: &str) {
    write(Level::Warning, message);
}

pub(crate) fn error(message: &str) {
    write(Level::Error, message);
}

/// A line that another shim wrote.
pub(crate) fn line(bytes: &[u8]) {
    rustix::io::write(rustix::stdio::stderr(), bytes).ok();
}

fn write(level: Level, message: &str) {
    let level = match level {
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let line = serde_json::json!({"level": level, "msg": message, "time": Timestamp::now()});
    rustix::io::write(rustix::stdio::stderr(), format!("{line}\n").as_bytes()).ok();
}
