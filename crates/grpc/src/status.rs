//! The one table between our error classes and gRPC's status codes.

use berth_engine::api::EngineError;
use berth_types::{Classify, ErrorClass};
use tonic::{Code, Status};

pub(crate) const fn code_of(class: ErrorClass) -> Code {
    match class {
        ErrorClass::NotFound => Code::NotFound,
        ErrorClass::AlreadyExists => Code::AlreadyExists,
        ErrorClass::InvalidArgument => Code::InvalidArgument,
        ErrorClass::FailedPrecondition => Code::FailedPrecondition,
        ErrorClass::PermissionDenied => Code::PermissionDenied,
        ErrorClass::ResourceExhausted => Code::ResourceExhausted,
        ErrorClass::Unavailable => Code::Unavailable,
        ErrorClass::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorClass::Unimplemented => Code::Unimplemented,
        ErrorClass::Aborted => Code::Aborted,
        ErrorClass::DataLoss => Code::DataLoss,
        ErrorClass::Internal => Code::Internal,
    }
}

/// Our errors as a client sees them: the class, and the whole chain on one line.
pub(crate) trait IntoStatus {
    fn into_status(self) -> Status;
}

impl<E: Classify + std::error::Error + 'static> IntoStatus for E {
    fn into_status(self) -> Status {
        Status::new(code_of(self.class()), berth_types::report(&self))
    }
}

pub(crate) fn engine_status(error: EngineError) -> Status {
    Status::new(code_of(error.class), error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_told_apart() {
        let error = berth_core::objects::ObjectError::NotFound { kind: "image", name: "x".to_owned() };
        let status = error.into_status();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "image \"x\": not found"));
    }
}
