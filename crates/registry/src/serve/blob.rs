//! Reading blobs, whole or a range of them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use berth_types::Digest;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, RANGE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::sync::mpsc;

use super::RegistryServer;
use super::answer::{self, Answer, Refusal, not_found, with_header};

const PIECE_BYTES: u64 = 256 << 10;
/// Pieces under way per request.
const PIECES: usize = 2;

impl RegistryServer {
    pub(super) fn get_blob(&self, name: &str, digest: &Digest, headers: &HeaderMap, is_head: bool) -> Answer {
        if !self.shelf.has_blob(name, digest) {
            return Err(not_found("BLOB_UNKNOWN", format!("there is no blob {digest} in {name}")));
        }
        let (file, size) = (self.shelf.content.reader(digest)?, self.shelf.content.size(digest)?);
        let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
        let (start, end, status) = match range.map(|text| parse_range(text, size)) {
            None | Some(Asked::Everything) => (0, size, StatusCode::OK),
            Some(Asked::Part(start, end)) => (start, end, StatusCode::PARTIAL_CONTENT),
            Some(Asked::Nothing) => {
                let message = format!("blob {digest} has {size} bytes");
                return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", message));
            }
        };
        let mut response = if is_head { answer::empty(status) } else { Response::new(read(file, start, end)) };
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(end - start));
        let mut response = with_header(response, "docker-content-digest", &digest.to_string());
        response = with_header(response, "content-type", "application/octet-stream");
        response = with_header(response, "accept-ranges", "bytes");
        if status == StatusCode::PARTIAL_CONTENT {
            response = with_header(response, "content-range", &format!("bytes {start}-{}/{size}", end - 1));
        }
        Ok(response)
    }
}

/// A thread reads; it stops when the client is gone.
fn read(file: File, start: u64, end: u64) -> answer::Body {
    let (sender, pieces) = mpsc::channel(PIECES);
    drop(tokio::task::spawn_blocking(move || {
        let mut at = start;
        while at < end {
            let mut piece = vec![0; usize::try_from(PIECE_BYTES.min(end - at)).unwrap_or(0)];
            let read = file.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece));
            let is_last = read.is_err();
            at += PIECE_BYTES;
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    }));
    answer::streamed(pieces)
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Everything,
    Part(u64, u64),
    Nothing,
}

/// One range (RFC 9110 section 14.1.2); several, or what is not understood, mean everything.
fn parse_range(text: &str, size: u64) -> Asked {
    let Some(range) = text.trim().strip_prefix("bytes=").filter(|range| !range.contains(',')) else {
        return Asked::Everything;
    };
    let Some((first, last)) = range.split_once('-') else { return Asked::Everything };
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(start), Ok(last)) if start <= last => (start, last.saturating_add(1).min(size)),
        (Ok(start), Err(_)) if last.is_empty() => (start, size),
        (Err(_), Ok(length)) if first.is_empty() => (size.saturating_sub(length), size),
        _ => return Asked::Everything,
    };
    if start >= end { Asked::Nothing } else { Asked::Part(start, end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, expect) in [
            ("bytes=0-9", Asked::Part(0, 10)),
            ("bytes=5-", Asked::Part(5, 100)),
            ("bytes=-10", Asked::Part(90, 100)),
            ("bytes=90-1000", Asked::Part(90, 100)),
            ("bytes=-1000", Asked::Part(0, 100)),
            ("bytes=100-", Asked::Nothing),
            ("bytes=9-5", Asked::Everything),
            ("bytes=0-1,4-5", Asked::Everything),
            ("pages=1-2", Asked::Everything),
            ("bytes=x-y", Asked::Everything),
        ] {
            assert_eq!(parse_range(text, 100), expect, "{text}");
        }
    }
}
