//! `POST /berth/fsck`, `GET /berth/path` and `GET /berth/images/{name}/layers`: looking into the store.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use axum::Json;
use axum::extract::{Path, Query, RawQuery, State};
use berth_engine::api::{LayerListing, PathStory};
use serde_json::{Value, json};

use crate::endpoints::is_true;
use crate::error::ApiResult;
use crate::state::Face;

/// `repair=1` also mends.
pub(super) async fn fsck(
    State(face): State<Face>,
    Query(query): Query<HashMap<String, String>>,
) -> ApiResult<Json<Value>> {
    let report = face.engine.fsck(is_true(query.get("repair").map(String::as_str))).await?;
    let problems: Vec<Value> = report
        .problems
        .iter()
        .map(|problem| {
            json!({ "Kind": problem.kind, "Object": problem.object, "Problem": problem.what, "Repair": problem.repair })
        })
        .collect();
    Ok(Json(json!({
        "Images": report.images,
        "Blobs": report.blobs,
        "BlobBytes": report.blob_bytes,
        "Layers": report.layers,
        "Records": report.records,
        "Problems": problems,
        "Open": report.open_problems(),
    })))
}

/// `of` names a container or an image, `path` is absolute in it: bytes, which need not be text.
pub(super) async fn explain_path(State(face): State<Face>, RawQuery(query): RawQuery) -> ApiResult<Json<PathStory>> {
    let query = query.unwrap_or_default();
    let word = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        decoded(pairs.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value))
    };
    let (of, path) = (word("of"), PathBuf::from(OsString::from_vec(word("path"))));
    Ok(Json(face.engine.explain_path(&String::from_utf8_lossy(&of), path).await?))
}

/// The bytes of a query's value (URL standard, "application/x-www-form-urlencoded").
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|hex| *first == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let hex = digits.and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    bytes
}

/// `files=1` also lists what is in them.
pub(super) async fn layers(
    State(face): State<Face>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> ApiResult<Json<Vec<LayerListing>>> {
    Ok(Json(face.engine.image_layers(&name, is_true(query.get("files").map(String::as_str))).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bytes() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("%2Fa%ff+b%2B", b"/a\xff b+"),
            ("100%", b"100%"),
            ("%zz%+f%4", b"%zz% f%4"),
            ("\u{fc}%C3%BC", "\u{fc}\u{fc}".as_bytes()),
        ] {
            assert_eq!(decoded(text), bytes, "{text}");
        }
    }
}
