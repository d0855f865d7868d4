//! Fetching a blob: missing ranges in parallel where the host allows it, one stream where it does not, again from where it broke off.
//!
//! One fetch per blob and process, however many pulls wait for it; the bytes go to a [`Partial`], which survives us.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use berth_types::Digest;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use crate::endpoint::Endpoint;
use crate::manifest::passed_over;
use crate::partial::{PIECE_BYTES, Partial, Partials};
use crate::request::{Answer, Call};
use crate::retry::Patience;
use crate::session::Session;
use crate::{RegistryError, Result, address};

/// A fetch under way or done. It is given up when the last holder drops it; what came is kept.
#[derive(Debug)]
pub struct Fetch {
    partial: Arc<Partial>,
    job: AbortHandle,
}

impl Fetch {
    pub fn partial(&self) -> &Arc<Partial> {
        &self.partial
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.job.abort();
        self.partial.settle(Err(RegistryError::GivenUp { digest: self.partial.digest() }));
    }
}

impl Session {
    /// Starts to fetch a blob, or joins a fetch of it that is under way. Needs a runtime.
    ///
    /// # Errors
    /// When the partial file cannot be made. What goes wrong later comes from the [`Partial`].
    pub fn fetch(self: &Arc<Self>, partials: &Partials, digest: &Digest, size: u64) -> Result<Arc<Fetch>> {
        let mut active = partials.active.lock();
        if let Some(known) = active.get(digest).and_then(std::sync::Weak::upgrade) {
            let is_usable = known.partial.is_verified() || !known.job.is_finished();
            if is_usable && known.partial.size_bytes() == size {
                return Ok(known);
            }
        }
        let mut partial = partials.begin(digest, size)?;
        partial.may_come_again = partial.received_bytes() > 0 || self.pull_endpoints().count() > 1;
        let partial = Arc::new(partial);
        let (session, ours) = (Arc::clone(self), Arc::clone(&partial));
        let job = tokio::spawn(async move {
            let outcome = session.run(&ours).await;
            ours.settle(outcome);
            ours.rest();
        });
        let fetch = Arc::new(Fetch { partial, job: job.abort_handle() });
        active.retain(|_, known| known.strong_count() > 0);
        active.insert(*digest, Arc::downgrade(&fetch));
        Ok(fetch)
    }

    async fn run(self: &Arc<Self>, partial: &Arc<Partial>) -> Result<()> {
        // However many layers an image has: few of them are open, and in their order.
        let _turn = self.registry.blobs.acquire().await;
        let mut verifying = None;
        let mut last = None;
        for endpoint in self.pull_endpoints() {
            match self.complete_from(endpoint, partial, &mut verifying).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_for_next_host() => last = Some(passed_over(endpoint, error)),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| self.no_host("pull blobs")))
    }

    fn pull_endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().filter(|endpoint| endpoint.capabilities.pull)
    }

    /// What is missing, from this host; wrong bytes are thrown away. Where some of them had come before, from whomever, it is asked for all of them.
    async fn complete_from(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        partial: &Arc<Partial>,
        verifying: &mut Option<JoinHandle<Result<()>>>,
    ) -> Result<()> {
        loop {
            let is_all_its_own = partial.received_bytes() == 0;
            // It goes on with what the next host brings.
            let verified = verifying.get_or_insert_with(|| {
                let following = Arc::clone(partial);
                tokio::task::spawn_blocking(move || following.verify())
            });
            self.fetch_from(endpoint, partial).await?;
            let outcome = verified.await.unwrap_or(Err(RegistryError::GivenUp { digest: partial.digest() }));
            *verifying = None;
            let Err(RegistryError::WrongDigest { what, expected, found }) = outcome else { return outcome };
            partial.restart()?;
            let what = format!("{what} from {}", endpoint.authority);
            let error = RegistryError::WrongDigest { what, expected, found };
            if is_all_its_own {
                return Err(error);
            }
            tracing::warn!(host = endpoint.authority, "asked once more, for all of it: {error}");
        }
    }

    async fn fetch_from(self: &Arc<Self>, endpoint: &Endpoint, partial: &Arc<Partial>) -> Result<()> {
        let step = self.registry.options.range_bytes.next_multiple_of(PIECE_BYTES);
        let segments: VecDeque<Range<u64>> = partial.missing().into_iter().flat_map(|run| split(run, step)).collect();
        let streams = segments.len().min(self.registry.options.streams_per_blob.max(1));
        let work = Arc::new(Work {
            session: Arc::clone(self),
            endpoint: endpoint.clone(),
            partial: Arc::clone(partial),
            segments: Mutex::new(segments),
            allows_ranges: watch::channel(None).0,
            is_whole_taken: AtomicBool::new(false),
        });
        let mut jobs = JoinSet::new();
        for number in 0..streams {
            let work = Arc::clone(&work);
            jobs.spawn(async move { work.stream(number).await });
        }
        while let Some(joined) = jobs.join_next().await {
            let ended = joined.unwrap_or(Err(RegistryError::GivenUp { digest: partial.digest() }));
            if ended.is_err() {
                // Nothing of this host comes any more when the next one is asked.
                jobs.shutdown().await;
            }
            ended?;
        }
        if partial.is_complete() { Ok(()) } else { Err(RegistryError::GivenUp { digest: partial.digest() }) }
    }
}

/// A run of missing bytes in requests of `step`, cut at multiples of it.
fn split(run: Range<u64>, step: u64) -> Vec<Range<u64>> {
    let mut segments = Vec::new();
    let mut start = run.start;
    while start < run.end {
        let end = ((start / step + 1) * step).min(run.end);
        segments.push(start..end);
        start = end;
    }
    segments
}

/// What the streams of one blob share.
struct Work {
    session: Arc<Session>,
    endpoint: Endpoint,
    partial: Arc<Partial>,
    segments: Mutex<VecDeque<Range<u64>>>,
    /// Known with the first answer; the other streams wait for it.
    allows_ranges: watch::Sender<Option<bool>>,
    is_whole_taken: AtomicBool,
}

/// How an answer continues.
enum Body {
    /// The bytes that were asked for.
    Asked(Answer),
    /// All bytes from the first: the host does not do ranges.
    Whole(Answer),
}

impl Work {
    async fn stream(&self, number: usize) -> Result<()> {
        if number > 0 {
            let mut allowed = self.allows_ranges.subscribe();
            let known = allowed.wait_for(Option::is_some).await;
            if !known.is_ok_and(|allowed| *allowed == Some(true)) {
                return Ok(());
            }
        }
        loop {
            let segment = self.segments.lock().pop_front();
            let Some(segment) = segment else { return Ok(()) };
            self.segment(segment).await?;
            if self.is_whole_taken.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// One segment, however often it breaks off, as long as something comes.
    async fn segment(&self, mut segment: Range<u64>) -> Result<()> {
        let mut patience = Patience::new(&self.session.registry.options);
        let mut at = segment.start;
        loop {
            let before = at;
            let permit = self.session.registry.streams.acquire().await;
            let tried = self.attempt(&mut segment, &mut at).await;
            drop(permit);
            let error = match tried {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if at.saturating_sub(before) >= PIECE_BYTES {
                patience.progressed();
            }
            if !error.is_passing() || !patience.wait(error.retry_after()).await {
                return Err(error);
            }
            tracing::debug!(digest = %self.partial.digest(), at, "trying again: {}", berth_types::report(&error));
        }
    }

    async fn attempt(&self, segment: &mut Range<u64>, at: &mut u64) -> Result<()> {
        let answer = match self.ask(segment, *at).await? {
            Body::Asked(answer) => answer,
            Body::Whole(answer) => {
                if self.is_whole_taken.swap(true, Ordering::Relaxed) && *segment != (0..self.partial.size_bytes()) {
                    return Ok(()); // another stream has it
                }
                *segment = 0..self.partial.size_bytes();
                *at = 0;
                answer
            }
        };
        self.receive(answer, segment, at).await
    }

    /// Asks for the rest of a segment and looks at the head of the answer.
    async fn ask(&self, segment: &Range<u64>, at: u64) -> Result<Body> {
        let size = self.partial.size_bytes();
        let is_all = at == 0 && segment.end == size;
        let rest = format!("blobs/{}", self.partial.digest());
        let uri = self.session.uri(&self.endpoint, &rest).await?;
        let mut call = Call::get("fetch", uri, Session::scope(&self.endpoint, "pull"));
        if !is_all {
            let range = format!("bytes={at}-{}", segment.end - 1);
            call.headers.insert(RANGE, HeaderValue::from_str(&range).expect("digits are a valid header"));
        }
        let answer = self.session.call(&self.endpoint, call).await?;
        let host = answer.uri.authority().map_or("", |authority| authority.as_str()).to_owned();
        let length: Option<u64> = answer.header(CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let wrong = |why: String| Err(RegistryError::misbehaves(&host, why));
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if !is_all => {
                let text = answer.header(CONTENT_RANGE).unwrap_or_default().to_owned();
                if !is_range(&text, at, segment.end, size) {
                    return wrong(format!("asked for bytes {at}-{} of {size} it gives {text:?}", segment.end - 1));
                }
                if length.is_some_and(|length| length != segment.end - at) {
                    return wrong(format!("asked for {} bytes it gives {length:?}", segment.end - at));
                }
                self.allows_ranges.send_replace(Some(true));
                Ok(Body::Asked(answer))
            }
            StatusCode::OK => {
                if length.is_some_and(|length| length != size) {
                    return wrong(format!(
                        "blob {} has {size} bytes, it gives {length:?}",
                        self.partial.digest().short()
                    ));
                }
                self.allows_ranges.send_replace(Some(false));
                Ok(if is_all { Body::Asked(answer) } else { Body::Whole(answer) })
            }
            status => wrong(format!("it answers a request for bytes with status {status}")),
        }
    }

    async fn receive(&self, answer: Answer, segment: &Range<u64>, at: &mut u64) -> Result<()> {
        let Answer { response, uri, transport } = answer;
        let mut body = response.into_body();
        while let Some(bytes) = transport.next("fetch", &uri, &mut body).await? {
            let end = *at + bytes.len() as u64;
            if end > segment.end {
                let host = uri.authority().map_or("", |authority| authority.as_str());
                let why = format!("blob {} does not end where it should", self.partial.digest().short());
                return Err(RegistryError::misbehaves(host, why));
            }
            self.partial.write(*at, &bytes)?;
            *at = end;
        }
        if *at == segment.end {
            return Ok(());
        }
        let why = format!("it ended after {} of {} bytes", *at - segment.start, segment.end - segment.start);
        let source = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, why);
        Err(RegistryError::Broken { operation: "fetch", url: address::shown(&uri), source: Box::new(source) })
    }
}

/// `bytes <at>-<end-1>/<size>`; the size may be `*`.
fn is_range(text: &str, at: u64, end: u64, size: u64) -> bool {
    let Some((range, total)) = text.trim().strip_prefix("bytes ").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    range == format!("{at}-{}", end - 1) && (total == "*" || total == size.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments() {
        assert_eq!(split(0..10, 4), [0..4, 4..8, 8..10]);
        assert_eq!(split(6..10, 4), [6..8, 8..10]);
        assert!(split(5..5, 4).is_empty());
    }

    #[test]
    fn ranges() {
        assert!(is_range("bytes 4-9/20", 4, 10, 20) && is_range("bytes 4-9/*", 4, 10, 20));
        for wrong in ["bytes 0-9/20", "bytes 4-10/20", "bytes 4-9/21", "4-9/20", "bytes 4-9", ""] {
            assert!(!is_range(wrong, 4, 10, 20), "{wrong}");
        }
    }
}
