//! Fault points: the named places between the steps of every operation, where a test makes the engine fail or die (S-155).
//!
//! Off unless `berthd --fault-points FILE` names a control file. A test writes one line into it, and counts points from then on:
//!
//! ```text
//! record      nothing happens; FILE.seen lists the points
//! fail N      the N-th point is treated as failed after its step was done, the worst moment for a roll-back
//! kill N      the daemon ends at the N-th point, as by kill -9
//! ```
//! The file is gone once the N-th point was reached. Points that cannot fail (nobody is left to report to) are marked `!` in the list;
//! `fail` passes them.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::error::{EngineError, Result};

#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// The control file; one reader at a time.
    control: Option<Mutex<PathBuf>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Record,
    Fail(u64),
    Kill(u64),
}

impl Faults {
    pub(crate) fn new(control: Option<PathBuf>) -> Self {
        Self { control: control.map(Mutex::new) }
    }

    /// The step named has been done and may still fail.
    pub(crate) fn check(&self, step: &str) -> Result<()> {
        match self.reached(step, "") {
            Some(Order::Fail(_)) => Err(EngineError::internal(format!("injected failure after step {step}"))),
            _ => Ok(()),
        }
    }

    /// The step named has been done; there is no way back from it.
    pub(crate) fn pass(&self, step: &str) {
        self.reached(step, "!");
    }

    /// The order that is due at this point, if one is.
    fn reached(&self, step: &str, mark: &str) -> Option<Order> {
        let control = self.control.as_ref()?.lock();
        let order = parse(&std::fs::read_to_string(&*control).ok()?)?;
        note(&control, step, mark);
        let (next, due) = match order {
            Order::Record => return None,
            Order::Fail(1) | Order::Kill(1) => (None, Some(order)),
            Order::Fail(n) => (Some(format!("fail {}", n - 1)), None),
            Order::Kill(n) => (Some(format!("kill {}", n - 1)), None),
        };
        // A control file that cannot be changed would make the same point fail for ever: the test sees that at once.
        let changed = match next {
            Some(text) => std::fs::write(&*control, text),
            None => std::fs::remove_file(&*control),
        };
        if let Err(error) = changed {
            tracing::error!(path = %control.display(), %error, "cannot change the control file of the fault points");
        }
        if matches!(due, Some(Order::Kill(_))) {
            die();
        }
        due
    }
}

fn parse(text: &str) -> Option<Order> {
    let (word, count) = text.trim().split_once(' ').unwrap_or((text.trim(), "0"));
    let count = count.parse().ok()?;
    match word {
        "record" => Some(Order::Record),
        "fail" if count > 0 => Some(Order::Fail(count)),
        "kill" if count > 0 => Some(Order::Kill(count)),
        _ => None,
    }
}

fn note(control: &Path, step: &str, mark: &str) {
    let mut name = control.as_os_str().to_owned();
    name.push(".seen");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(Path::new(&name));
    if let Err(error) = file.and_then(|mut file| writeln!(file, "{step}{mark}")) {
        tracing::error!(%error, "cannot list a fault point");
    }
}

/// As by `kill -9`: nothing is unwound, nothing written.
fn die() {
    let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    tracing::error!(?killed, "the engine was to die here");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_points_and_fails_once() {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("faults");
        let faults = Faults::new(Some(control.clone()));
        faults.check("before").unwrap();
        std::fs::write(&control, "fail 3").unwrap();
        faults.check("a").unwrap();
        faults.pass("b");
        assert_eq!(faults.check("c").unwrap_err().message, "injected failure after step c");
        faults.check("c").unwrap();
        assert!(!control.exists());
        assert_eq!(std::fs::read_to_string(dir.path().join("faults.seen")).unwrap(), "a\nb!\nc\n");
        Faults::default().check("off").unwrap();
    }

    #[test]
    fn orders() {
        assert_eq!(parse("record\n"), Some(Order::Record));
        assert_eq!(parse("kill 7"), Some(Order::Kill(7)));
        for bad in ["", "kill", "kill 0", "fail x", "stop 1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
