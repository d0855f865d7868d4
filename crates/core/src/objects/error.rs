//! What can be wrong with an object.

use berth_metadata::MetadataError;
use berth_types::{Classify, ErrorClass};

use super::Object;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    #[error("{kind} {name:?}: not found")]
    NotFound { kind: &'static str, name: String },
    #[error("{kind} {name:?}: already exists")]
    Exists { kind: &'static str, name: String },
    #[error("{what} {value:?} is not valid: {rule}")]
    Invalid { what: &'static str, value: String, rule: &'static str },
    #[error("{kind} {name:?} cannot be changed: {why}")]
    Precondition { kind: &'static str, name: String, why: String },
    #[error("the record of {kind} {key:?} is damaged: {detail}")]
    Damaged { kind: &'static str, key: String, detail: String },
    #[error(transparent)]
    Label(#[from] berth_types::label::LabelError),
    #[error("the object's record cannot be read or written")]
    Metadata(#[from] MetadataError),
}

impl ObjectError {
    pub fn not_found<T: Object>(name: &str) -> Self {
        Self::NotFound { kind: T::KIND, name: name.to_owned() }
    }

    pub fn exists<T: Object>(name: &str) -> Self {
        Self::Exists { kind: T::KIND, name: name.to_owned() }
    }

    pub fn invalid(what: &'static str, value: impl Into<String>, rule: &'static str) -> Self {
        Self::Invalid { what, value: value.into(), rule }
    }
}

impl Classify for ObjectError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::Exists { .. } => ErrorClass::AlreadyExists,
            Self::Invalid { .. } | Self::Label(_) => ErrorClass::InvalidArgument,
            Self::Precondition { .. } => ErrorClass::FailedPrecondition,
            Self::Damaged { .. } => ErrorClass::DataLoss,
            Self::Metadata(source) => source.class(),
        }
    }
}
