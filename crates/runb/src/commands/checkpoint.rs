//! `checkpoint` and `restore`.

use crate::arguments::{CheckpointArguments, RestoreArguments};
use crate::error::CommandError;

pub(crate) fn checkpoint(_arguments: &CheckpointArguments) -> Result<u8, CommandError> {
    Err(CommandError::NotYet("checkpoint"))
}

pub(crate) fn restore(_arguments: &RestoreArguments) -> Result<u8, CommandError> {
    Err(CommandError::NotYet("restore"))
}
