//! One table: error class to HTTP status; and the JSON body every Docker client expects.

use axum::Json;
use axum::response::{IntoResponse, Response};
use berth_engine::api::EngineError;
use berth_types::ErrorClass;
use http::StatusCode;
use serde_json::json;

/// What an endpoint answers when it fails.
#[derive(Debug)]
pub(crate) struct ApiError(EngineError);

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self(EngineError { class, message: message.into(), hint: None, exit_code: 125 })
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::InvalidArgument, message)
    }

    pub(crate) fn unimplemented(what: &str) -> Self {
        Self::new(ErrorClass::Unimplemented, format!("{what} is not supported by berth yet"))
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        Self(error)
    }
}

pub(crate) fn status(class: ErrorClass) -> StatusCode {
    match class {
        ErrorClass::NotFound => StatusCode::NOT_FOUND,
        ErrorClass::AlreadyExists | ErrorClass::FailedPrecondition | ErrorClass::Aborted => StatusCode::CONFLICT,
        ErrorClass::InvalidArgument => StatusCode::BAD_REQUEST,
        ErrorClass::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorClass::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorClass::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorClass::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorClass::ResourceExhausted | ErrorClass::DataLoss | ErrorClass::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(error) = self;
        // The stock CLI decides its exit code from the status and the text: 126 and 127 come with a 400.
        let status = if matches!(error.exit_code, 126 | 127) { StatusCode::BAD_REQUEST } else { status(error.class) };
        let body = json!({
            "message": error.message,
            "berth": { "class": error.class, "hint": error.hint, "exit_code": error.exit_code },
        });
        (status, Json(body)).into_response()
    }
}
