//! The life cycle of a task as a table: which operation is legal in which phase, and where it leads (S-110).

use berth_types::{Classify, ErrorClass};

/// What a task is, as the kernel and its shim have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its shim runs, but init does not exist yet.
    Starting,
    /// Init exists and waits to execute the program.
    Created,
    Running,
    Paused,
    /// Init has ended; its status is kept by the shim.
    Stopped,
    /// Nothing is left.
    Deleted,
}

/// What may be asked of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Start,
    Exec,
    Kill,
    Pause,
    Resume,
    Update,
    Exit,
    Delete,
}

/// The operation is not legal now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot {} a task that is {}", .operation.verb(), .phase.adjective())]
pub struct TransitionError {
    pub operation: Operation,
    pub phase: Phase,
}

impl Classify for TransitionError {
    fn class(&self) -> ErrorClass {
        ErrorClass::FailedPrecondition
    }

    fn hint(&self) -> Option<String> {
        match (self.operation, self.phase) {
            (Operation::Exec | Operation::Pause, Phase::Paused) => Some("unpause the container first".to_owned()),
            (Operation::Exec, Phase::Created | Phase::Stopped) => Some("start the container first".to_owned()),
            _ => None,
        }
    }
}

impl Phase {
    /// The phase after an operation.
    ///
    /// # Errors
    /// `FailedPrecondition` when the operation is not legal in this phase.
    pub fn after(self, operation: Operation) -> Result<Self, TransitionError> {
        use {Operation as Op, Phase as P};
        let next = match (self, operation) {
            (P::Starting, Op::Create) => P::Created,
            (P::Created, Op::Start) | (P::Paused, Op::Resume) => P::Running,
            (P::Running, Op::Exec | Op::Kill | Op::Update) => P::Running,
            (P::Running, Op::Pause) => P::Paused,
            (P::Paused, Op::Kill | Op::Update) => P::Paused,
            (P::Created, Op::Kill | Op::Update) => P::Created,
            (P::Created | P::Running | P::Paused, Op::Exit) => P::Stopped,
            (P::Starting | P::Created | P::Stopped, Op::Delete) => P::Deleted,
            _ => return Err(TransitionError { operation, phase: self }),
        };
        Ok(next)
    }

    pub const fn adjective(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Created => "created but not started",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Deleted => "deleted",
        }
    }
}

impl Operation {
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Exec => "execute a process in",
            Self::Kill => "signal",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Update => "update",
            Self::Exit => "record the exit of",
            Self::Delete => "delete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation as Op;
    use Phase as P;

    const PHASES: [P; 6] = [P::Starting, P::Created, P::Running, P::Paused, P::Stopped, P::Deleted];
    const OPERATIONS: [Op; 9] =
        [Op::Create, Op::Start, Op::Exec, Op::Kill, Op::Pause, Op::Resume, Op::Update, Op::Exit, Op::Delete];

    /// S-110, S-119: exactly these transitions are legal; every other pair is a typed refusal.
    #[test]
    fn s110_legal_transitions() {
        let legal = [
            (P::Starting, Op::Create, P::Created),
            (P::Starting, Op::Delete, P::Deleted),
            (P::Created, Op::Start, P::Running),
            (P::Created, Op::Kill, P::Created),
            (P::Created, Op::Update, P::Created),
            (P::Created, Op::Exit, P::Stopped),
            (P::Created, Op::Delete, P::Deleted),
            (P::Running, Op::Exec, P::Running),
            (P::Running, Op::Kill, P::Running),
            (P::Running, Op::Update, P::Running),
            (P::Running, Op::Pause, P::Paused),
            (P::Running, Op::Exit, P::Stopped),
            (P::Paused, Op::Resume, P::Running),
            (P::Paused, Op::Kill, P::Paused),
            (P::Paused, Op::Update, P::Paused),
            (P::Paused, Op::Exit, P::Stopped),
            (P::Stopped, Op::Delete, P::Deleted),
        ];
        for phase in PHASES {
            for operation in OPERATIONS {
                let expect = legal.iter().find(|(p, o, _)| (*p, *o) == (phase, operation)).map(|(_, _, next)| *next);
                assert_eq!(phase.after(operation).ok(), expect, "{phase:?} {operation:?}");
            }
        }
    }

    #[test]
    fn refusals_say_what_and_why() {
        let error = P::Paused.after(Op::Exec).unwrap_err();
        assert_eq!(error.to_string(), "cannot execute a process in a task that is paused");
        assert_eq!(error.class(), ErrorClass::FailedPrecondition);
        assert_eq!(error.hint().as_deref(), Some("unpause the container first"));
    }
}
