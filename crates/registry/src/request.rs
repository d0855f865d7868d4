//! One call: authorization where it belongs, redirects within reason, errors in the registry's own words.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;

use crate::challenge::{self, Challenge};
use crate::endpoint::Endpoint;
use crate::retry::{Patience, retry_after};
use crate::session::Session;
use crate::transport::{ERROR_BYTES_MAX, Transport};
use crate::{RegistryError, Result, address};

const REDIRECTS_MAX: usize = 5;

#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// For errors: `fetch`, `push`.
    pub(crate) operation: &'static str,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The scope a token must have.
    pub(crate) scope: String,
    /// How long the head of the answer may take; `None`: the stall time.
    pub(crate) patience: Option<Duration>,
}

/// The head of an answer below 400, and where it came from in the end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) uri: Uri,
    pub(crate) transport: Transport,
}

/// The whole of an answer below 400.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Document {
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Call {
    pub(crate) fn get(operation: &'static str, uri: Uri, scope: String) -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { operation, method: Method::GET, uri, headers, body, scope, patience: None }
    }

    pub(crate) fn accepting(mut self, accept: &'static str) -> Self {
        self.headers.insert(ACCEPT, HeaderValue::from_static(accept));
        self
    }
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(crate) async fn read(self, operation: &'static str, bytes_max: u64) -> Result<Vec<u8>> {
        self.transport.read(operation, &self.uri, self.response, bytes_max).await
    }

    /// Reads what little there is, so that the connection can be used again.
    pub(crate) async fn drain(self, operation: &'static str) {
        drop(self.transport.read(operation, &self.uri, self.response, ERROR_BYTES_MAX).await);
    }
}

/// `{"errors":[{"code":…,"message":…}]}`, or a token server's `{"error":…}` or `{"details":…}`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Spoken {
    errors: Vec<SpokenError>,
    error: String,
    error_description: String,
    details: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SpokenError {
    code: String,
    message: String,
}

impl Session {
    /// Like [`Self::call`], again and again while the failure is a passing one.
    pub(crate) async fn call_patiently(&self, endpoint: &Endpoint, call: Call) -> Result<Answer> {
        let mut patience = Patience::new(&self.registry.options);
        loop {
            match self.call(endpoint, call.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => wait_or_give_up(&mut patience, &call, error).await?,
            }
        }
    }

    /// The same to the end of the answer: one that breaks off in its body is asked for again, too.
    pub(crate) async fn read_patiently(&self, endpoint: &Endpoint, call: Call, bytes_max: u64) -> Result<Document> {
        let mut patience = Patience::new(&self.registry.options);
        loop {
            match self.read(endpoint, &call, bytes_max).await {
                Ok(document) => return Ok(document),
                Err(error) => wait_or_give_up(&mut patience, &call, error).await?,
            }
        }
    }

    async fn read(&self, endpoint: &Endpoint, call: &Call, bytes_max: u64) -> Result<Document> {
        let answer = self.call(endpoint, call.clone()).await?;
        let headers = answer.response.headers().clone();
        Ok(Document { headers, bytes: answer.read(call.operation, bytes_max).await? })
    }

    /// Sends; answers one challenge; follows redirects of reads, and those of writes that say that the same is to be sent elsewhere.
    ///
    /// # Errors
    /// `Status`, `Denied` for answers of 400 and more, and everything below.
    pub(crate) async fn call(&self, endpoint: &Endpoint, call: Call) -> Result<Answer> {
        let mut uri = call.uri.clone();
        let (mut redirects, mut is_proven) = (0, false);
        let is_read = matches!(call.method, Method::GET | Method::HEAD);
        loop {
            let is_own = self.is_home(endpoint, &uri).await;
            let answer = self.send(endpoint, &call, &uri, is_own).await?;
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && is_own {
                let found = challenge::best(answer.response.headers());
                let error = error_of(call.operation, answer).await;
                let Some(found) = found.filter(|_| !is_proven) else { return Err(self.named(error, &call.scope)) };
                self.forget_proof(endpoint, &call.scope);
                self.prove(endpoint, &uri, &call.scope, &found).await?;
                is_proven = true;
            } else if (is_read && is_redirect(status)) || matches!(status.as_u16(), 307 | 308) {
                redirects += 1;
                if redirects > REDIRECTS_MAX {
                    return Err(misbehaves(&call.uri, format!("it redirects more than {REDIRECTS_MAX} times")));
                }
                uri = redirected(&uri, answer.response.headers())?;
                answer.drain(call.operation).await;
            } else if status.as_u16() >= 400 {
                return Err(self.named(error_of(call.operation, answer).await, &call.scope));
            } else if !is_read && !status.is_success() {
                // What was sent was not taken, whatever the browser's rules make of it.
                let why = format!("it answers {} {} with status {status}", call.method, address::shown(&uri));
                return Err(misbehaves(&uri, why));
            } else {
                return Ok(answer);
            }
        }
    }

    /// Whether this URL is the endpoint's own host, who may see what is meant for it.
    async fn is_home(&self, endpoint: &Endpoint, uri: &Uri) -> bool {
        let home = endpoint.base_uri(self.registry.speaks_tls(endpoint).await);
        home.is_ok_and(|home| address::is_same_origin(&home, uri))
    }

    async fn send(&self, endpoint: &Endpoint, call: &Call, uri: &Uri, is_own: bool) -> Result<Answer> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.extend(call.headers.clone());
        if let Ok(agent) = HeaderValue::from_str(&self.registry.options.user_agent) {
            headers.insert(USER_AGENT, agent);
        }
        let transport = if is_own {
            headers.extend(endpoint.headers.clone());
            if let Some(proof) = self.proof(endpoint, &call.scope) {
                headers.insert(AUTHORIZATION, proof);
            }
            self.registry.transport(&endpoint.tls)
        } else {
            self.registry.transport_elsewhere(uri)
        };
        let sent = transport.send(call.operation, request, call.patience.unwrap_or(transport.stall())).await;
        if matches!(sent, Err(RegistryError::Connect { .. } | RegistryError::Broken { .. })) {
            self.registry.forget_scheme(endpoint);
        }
        Ok(Answer { response: sent?, uri: uri.clone(), transport })
    }

    /// Refusals in Docker's words.
    fn named(&self, error: RegistryError, scope: &str) -> RegistryError {
        match error {
            RegistryError::Status { status: 401 | 403, code, message, .. } => {
                let text = if message.is_empty() { code } else { message };
                self.denied(scope, &text)
            }
            other => other,
        }
    }

    /// What a URL asks of somebody who proves nothing.
    pub(crate) async fn challenge(&self, endpoint: &Endpoint, uri: &Uri) -> Result<Option<Challenge>> {
        let call = Call::get("log in to", uri.clone(), String::new());
        let answer = self.send(endpoint, &call, uri, true).await?;
        match answer.status().as_u16() {
            401 => {
                let found = challenge::best(answer.response.headers());
                answer.drain("log in to").await;
                found.map(Some).ok_or_else(|| misbehaves(uri, "it wants a proof of a kind we do not know"))
            }
            400.. => Err(error_of("log in to", answer).await),
            _ => Ok(None),
        }
    }
}

/// Waits before the next attempt, where there is to be one.
async fn wait_or_give_up(patience: &mut Patience, call: &Call, error: RegistryError) -> Result<()> {
    // A host that cannot be reached at all is asked less often: another one may be next.
    let is_hopeless = matches!(&error, RegistryError::Connect { source, .. } if is_final(source));
    if is_hopeless || !error.is_passing() || !patience.wait(error.retry_after()).await {
        return Err(error);
    }
    tracing::debug!(url = %address::shown(&call.uri), "trying again: {}", berth_types::report(&error));
    Ok(())
}

fn is_final(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, InvalidData, NetworkUnreachable, NotFound};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | InvalidData | NetworkUnreachable | NotFound)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn misbehaves(uri: &Uri, why: impl Into<String>) -> RegistryError {
    RegistryError::misbehaves(uri.authority().map_or("", |authority| authority.as_str()), why)
}

/// Where a redirect leads, when that is somewhere we go.
pub(crate) fn redirected(from: &Uri, headers: &HeaderMap) -> Result<Uri> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| misbehaves(from, "it redirects to nowhere"))?;
    let shown: String = location.split('?').next().unwrap_or_default().chars().take(200).collect();
    let to = address::resolve(from, location);
    let to = to.ok_or_else(|| misbehaves(from, format!("it redirects to {shown:?}, which is no web address")))?;
    check_lead(from, &to, "redirects")?;
    Ok(to)
}

/// A host may not lead us from TLS to none, nor from the network to this machine.
pub(crate) fn check_lead(from: &Uri, to: &Uri, verb: &str) -> Result<()> {
    let shown = address::shown(to);
    let host = from.authority().map_or("", |authority| authority.as_str());
    if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
        return Err(RegistryError::Refused { why: format!("{host} {verb} to {shown}, from TLS to none") });
    }
    if !address::is_loopback(&address::host_of(from)) && address::is_loopback(&address::host_of(to)) {
        return Err(RegistryError::Refused { why: format!("{host} {verb} to {shown}, which is this machine") });
    }
    Ok(())
}

pub(crate) async fn error_of(operation: &'static str, answer: Answer) -> RegistryError {
    let (status, url) = (answer.status().as_u16(), address::shown(&answer.uri));
    let retry_after = retry_after(answer.response.headers());
    let body = answer.read(operation, ERROR_BYTES_MAX).await.unwrap_or_default();
    let spoken: Spoken = serde_json::from_slice(&body).unwrap_or_default();
    let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(300).collect::<String>();
    let (code, message) = match spoken.errors.first() {
        Some(first) => (short(&first.code.to_lowercase()), short(&first.message)),
        None if !spoken.error.is_empty() => (short(&spoken.error), short(&spoken.error_description)),
        None => (String::new(), short(&spoken.details)),
    };
    RegistryError::Status { operation, url, status, code, message, retry_after }
}
