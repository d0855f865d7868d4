//! The one table between our error classes and the status codes of ttrpc.

use berth_types::ErrorClass;
use ttrpc::Code;

/// The status code that carries a class over ttrpc.
pub const fn code_of(class: ErrorClass) -> Code {
    match class {
        ErrorClass::NotFound => Code::NOT_FOUND,
        ErrorClass::AlreadyExists => Code::ALREADY_EXISTS,
        ErrorClass::InvalidArgument => Code::INVALID_ARGUMENT,
        ErrorClass::FailedPrecondition => Code::FAILED_PRECONDITION,
        ErrorClass::PermissionDenied => Code::PERMISSION_DENIED,
        ErrorClass::ResourceExhausted => Code::RESOURCE_EXHAUSTED,
        ErrorClass::Unavailable => Code::UNAVAILABLE,
        ErrorClass::DeadlineExceeded => Code::DEADLINE_EXCEEDED,
        ErrorClass::Unimplemented => Code::UNIMPLEMENTED,
        ErrorClass::Aborted => Code::ABORTED,
        ErrorClass::DataLoss => Code::DATA_LOSS,
        ErrorClass::Internal => Code::INTERNAL,
    }
}

/// The class of a status code; what has no class of its own is `Internal`.
pub const fn class_of(code: Code) -> ErrorClass {
    match code {
        Code::NOT_FOUND => ErrorClass::NotFound,
        Code::ALREADY_EXISTS => ErrorClass::AlreadyExists,
        Code::INVALID_ARGUMENT | Code::OUT_OF_RANGE => ErrorClass::InvalidArgument,
        Code::FAILED_PRECONDITION => ErrorClass::FailedPrecondition,
        Code::PERMISSION_DENIED | Code::UNAUTHENTICATED => ErrorClass::PermissionDenied,
        Code::RESOURCE_EXHAUSTED => ErrorClass::ResourceExhausted,
        Code::UNAVAILABLE => ErrorClass::Unavailable,
        Code::DEADLINE_EXCEEDED => ErrorClass::DeadlineExceeded,
        Code::UNIMPLEMENTED => ErrorClass::Unimplemented,
        Code::ABORTED | Code::CANCELLED => ErrorClass::Aborted,
        Code::DATA_LOSS => ErrorClass::DataLoss,
        _ => ErrorClass::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_survive_the_wire() {
        for class in [
            ErrorClass::NotFound,
            ErrorClass::AlreadyExists,
            ErrorClass::InvalidArgument,
            ErrorClass::FailedPrecondition,
            ErrorClass::PermissionDenied,
            ErrorClass::ResourceExhausted,
            ErrorClass::Unavailable,
            ErrorClass::DeadlineExceeded,
            ErrorClass::Unimplemented,
            ErrorClass::Aborted,
            ErrorClass::DataLoss,
            ErrorClass::Internal,
        ] {
            assert_eq!(class_of(code_of(class)), class);
        }
        assert_eq!(class_of(Code::UNKNOWN), ErrorClass::Internal);
    }
}
