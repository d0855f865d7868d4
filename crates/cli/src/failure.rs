//! What went wrong, as a person sees it on stderr, and the exit code that goes with it.

use std::error::Error;
use std::fmt;
use std::io;

/// Exit code of everything that is the engine's or our own failure, not the container's.
pub(crate) const ENGINE_FAILURE: u8 = 125;

/// One failure: what we tried on which object, the reasons below it, and a way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) because: Vec<String>,
    pub(crate) hint: Option<String>,
    pub(crate) exit_code: u8,
    /// HTTP status when the daemon said it; 0 otherwise.
    pub(crate) status: u16,
    /// The reader of our stdout is gone: nothing is printed.
    pub(crate) is_quiet: bool,
}

pub(crate) type Outcome<T = u8> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { message, because: Vec::new(), hint: None, exit_code: ENGINE_FAILURE, status: 0, is_quiet: false }
    }

    /// A verb, flag or value the engine has no support for yet, named.
    pub(crate) fn not_yet(what: impl fmt::Display) -> Self {
        Self::new(format!("not yet: {what}"))
    }

    /// The reader of our output went away; 141 is what a shell shows for SIGPIPE.
    pub(crate) fn broken_pipe() -> Self {
        Self { exit_code: 141, is_quiet: true, ..Self::new("the reader of the output is gone") }
    }

    /// Ends with this exit code and says nothing more: everything was reported before.
    pub(crate) fn reported(exit_code: u8) -> Self {
        Self { exit_code, is_quiet: true, ..Self::new("reported") }
    }

    #[must_use]
    pub(crate) fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        self.because.push(error.to_string());
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if self.because.last() != Some(&text) {
                self.because.push(text);
            }
            next = cause.source();
        }
        self
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failed write to stdout: quiet when the reader is gone.
    pub(crate) fn writing_stdout(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::broken_pipe();
        }
        Self::new("cannot write to stdout").because(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for reason in &self.because {
            write!(f, "\n  because: {reason}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// Runs `action` for each name, reports each failure, and fails at the end when one of them did.
pub(crate) fn for_each<T: AsRef<str>>(
    names: &[T],
    mut report: impl FnMut(&Failure),
    mut action: impl FnMut(&str) -> Outcome<()>,
) -> Outcome {
    let mut worst = None;
    for name in names {
        match action(name.as_ref()) {
            Ok(()) => {}
            Err(failure) if failure.exit_code == 141 => return Err(failure),
            Err(failure) => {
                report(&failure);
                worst = Some(failure.exit_code);
            }
        }
    }
    match worst {
        Some(code) => Err(Failure::reported(code)),
        None => Ok(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_on_stderr() {
        let cause = io::Error::from_raw_os_error(2);
        let failure = Failure::new("cannot read env file \"x\"").because(&cause).hint("create it");
        let text = failure.to_string();
        assert_eq!(
            text,
            "error: cannot read env file \"x\"\n  because: No such file or directory (os error 2)\nhint: create it"
        );
        assert_eq!(failure.exit_code, 125);
    }

    #[test]
    fn every_name_is_tried() {
        let mut seen = Vec::new();
        let mut reported = 0;
        let outcome = for_each(
            &["a", "b", "c"],
            |_| reported += 1,
            |name| {
                seen.push(name.to_owned());
                if name == "b" { Err(Failure::new("no")) } else { Ok(()) }
            },
        );
        assert_eq!(seen, ["a", "b", "c"]);
        assert_eq!(reported, 1);
        assert_eq!(outcome.unwrap_err().exit_code, 125);
    }
}
