//! `POST /containers/{id}/resize`

use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;

use crate::error::{ApiError, ApiResult};
use crate::state::Face;

/// Rows and columns of a terminal.
#[derive(Debug, Deserialize)]
pub(in crate::endpoints) struct Size {
    h: Option<String>,
    w: Option<String>,
}

impl Size {
    /// # Errors
    /// `InvalidArgument` when one of them is no number up to 65535.
    pub(in crate::endpoints) fn parse(&self) -> ApiResult<(u16, u16)> {
        let number = |name: &str, text: Option<&str>| {
            text.unwrap_or("").parse::<u16>().map_err(|_| {
                ApiError::invalid(format!("terminal size {name}={:?} is not a number up to 65535", text.unwrap_or("")))
            })
        };
        Ok((number("h", self.h.as_deref())?, number("w", self.w.as_deref())?))
    }
}

pub(super) async fn resize(
    State(face): State<Face>,
    Path(id): Path<String>,
    Query(size): Query<Size>,
) -> ApiResult<StatusCode> {
    let (rows, columns) = size.parse()?;
    face.engine.resize(&id, rows, columns).await?;
    Ok(StatusCode::OK)
}
