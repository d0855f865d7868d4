//! Bearer tokens: fetched at the realm a registry names, by GET with a password or by OAuth2 POST with an identity token.
//!
//! # Spec
//! Docker "Token Authentication Specification" and "Token Authentication via OAuth2".

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use serde::Deserialize;

use crate::credentials::Credentials;
use crate::request::{Answer, check_lead, error_of};
use crate::session::Registry;
use crate::{RegistryError, Result, address};

const TOKEN_BYTES_MAX: u64 = 256 << 10;
/// A token is valid so long when nothing is said.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// Not used in the last moments of its life.
const MARGIN: Duration = Duration::from_secs(5);
const CLIENT_ID: &str = "berth";

pub(crate) struct TokenRequest<'r> {
    pub(crate) realm: Uri,
    pub(crate) service: &'r str,
    pub(crate) scope: &'r str,
    pub(crate) credentials: &'r Credentials,
    pub(crate) wants_refresh_token: bool,
}

pub(crate) struct Token {
    pub(crate) value: String,
    pub(crate) expires: Instant,
    pub(crate) refresh: Option<String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires", &self.expires).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Wire {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
    refresh_token: Option<String>,
}

/// The realm, when it may see credentials: TLS, or the plain-HTTP registry's own host.
pub(crate) fn checked_realm(registry: &Uri, realm: &str) -> Result<Uri> {
    let host = registry.authority().map_or("", |authority| authority.as_str());
    let shown: String = realm.chars().take(200).collect();
    let bad = || RegistryError::misbehaves(host, format!("its token realm {shown:?} is no web address"));
    if !realm.contains("://") {
        return Err(bad());
    }
    let uri = address::resolve(registry, realm).ok_or_else(bad)?;
    check_lead(registry, &uri, "has its token realm at")?;
    let (ours, theirs) = (address::host_of(registry), address::host_of(&uri));
    let is_local = address::is_loopback(&ours) && address::is_loopback(&theirs);
    if uri.scheme_str() != Some("https") && !ours.eq_ignore_ascii_case(&theirs) && !is_local {
        let why = format!("{host} has its token realm at {}, another host without TLS", address::shown(&uri));
        return Err(RegistryError::Refused { why });
    }
    Ok(uri)
}

/// A redirect of the realm is not followed: it would take the credentials along.
pub(crate) async fn fetch(registry: &Registry, asked: &TokenRequest<'_>) -> Result<Token> {
    let mut request = match asked.credentials {
        Credentials::IdentityToken { token } => {
            post(asked, &[("grant_type", "refresh_token"), ("refresh_token", token)])
        }
        _ => get(asked),
    };
    if let Ok(agent) = HeaderValue::from_str(&registry.options.user_agent) {
        request.headers_mut().insert(USER_AGENT, agent);
    }
    let transport = registry.transport_elsewhere(&asked.realm);
    let patience = transport.stall();
    let response = transport.send("fetch a token from", request, patience).await?;
    let answer = Answer { response, uri: asked.realm.clone(), transport };
    if !answer.status().is_success() {
        return Err(error_of("fetch a token from", answer).await);
    }
    let host = asked.realm.authority().map_or("", |authority| authority.as_str()).to_owned();
    let bytes = answer.read("fetch a token from", TOKEN_BYTES_MAX).await?;
    let wire: Wire = serde_json::from_slice(&bytes)
        .map_err(|_| RegistryError::misbehaves(&host, "what it gives as a token is not valid JSON"))?;
    let value = wire.token.or(wire.access_token).filter(|token| !token.is_empty());
    let value = value.ok_or_else(|| RegistryError::misbehaves(&host, "it gives no token"))?;
    let lifetime = wire
        .expires_in
        .filter(|s| s.is_finite() && *s > 0.0)
        .map_or(DEFAULT_LIFETIME, |seconds| Duration::from_secs_f64(seconds.min(86_400.0)).max(DEFAULT_LIFETIME));
    let refresh = wire.refresh_token.filter(|token| !token.is_empty());
    Ok(Token { value, expires: Instant::now() + lifetime.saturating_sub(MARGIN), refresh })
}

fn get(asked: &TokenRequest<'_>) -> Request<Full<Bytes>> {
    let mut uri = asked.realm.clone();
    // A mount needs two scopes: each is a parameter of its own.
    let scopes = asked.scope.split(' ').map(|scope| ("scope", scope));
    for (name, value) in
        std::iter::once(("service", asked.service)).chain(scopes).filter(|(_, value)| !value.is_empty())
    {
        uri = address::with_query(&uri, name, value);
    }
    let mut request = Request::new(Full::default());
    if let Credentials::Basic { user, password } = asked.credentials {
        uri = address::with_query(&uri, "account", user);
        if asked.wants_refresh_token {
            uri = address::with_query(&address::with_query(&uri, "client_id", CLIENT_ID), "offline_token", "true");
        }
        request.headers_mut().insert(AUTHORIZATION, basic(user, password));
    }
    *request.uri_mut() = uri;
    request
}

fn post(asked: &TokenRequest<'_>, grant: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let common = [("service", asked.service), ("scope", asked.scope), ("client_id", CLIENT_ID)];
    let pairs = grant.iter().chain(&common).filter(|(_, value)| !value.is_empty());
    let form: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", address::percent_encoded(value))).collect();
    let mut request = Request::new(Full::from(form.join("&")));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = asked.realm.clone();
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    request
}

pub(crate) fn basic(user: &str, password: &str) -> HeaderValue {
    let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")));
    let mut value = HeaderValue::from_str(&text).expect("base64 is a valid header");
    value.set_sensitive(true);
    value
}

pub(crate) fn bearer(token: &str, host: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| RegistryError::misbehaves(host, "its token has characters no token may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_is_a_parameter() {
        let asked = TokenRequest {
            realm: "https://auth.example/token?x=1".parse().unwrap(),
            service: "reg",
            scope: "repository:a:pull,push repository:b:pull",
            credentials: &Credentials::Anonymous,
            wants_refresh_token: false,
        };
        assert_eq!(
            get(&asked).uri().to_string(),
            "https://auth.example/token?x=1&service=reg&scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Ab%3Apull"
        );
    }

    /// CVE-2019-10214, CVE-2026-33540: a realm sees credentials only by TLS, or on the plain-HTTP registry's own host.
    #[test]
    fn realms() {
        for (registry, realm, is_good) in [
            ("https://reg.example/v2/", "https://auth.example/token", true),
            ("https://reg.example/v2/", "http://reg.example/token", false),
            ("http://reg.example/v2/", "http://reg.example:8080/token", true),
            ("http://reg.example/v2/", "http://auth.example/token", false),
            ("http://reg.example/v2/", "https://auth.example/token", true),
            ("http://127.0.0.1:5000/v2/", "http://localhost:5001/token", true),
            ("https://reg.example/v2/", "https://127.0.0.1/token", false),
            ("http://127.0.0.1:5000/v2/", "http://evil.example/token", false),
            ("https://reg.example/v2/", "file:///etc/passwd", false),
            ("https://reg.example/v2/", "/token", false),
            ("https://reg.example/v2/", "https://u:p@auth.example/token", false),
        ] {
            assert_eq!(checked_realm(&registry.parse().unwrap(), realm).is_ok(), is_good, "{registry} {realm}");
        }
    }
}
