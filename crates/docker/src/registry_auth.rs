//! `X-Registry-Auth`: the credentials a client sends along, for one registry.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use berth_engine::api::Credentials;
use http::HeaderMap;
use serde::Deserialize;

use crate::error::{ApiError, ApiResult};

const HEADER_BYTES_MAX: usize = 64 << 10;

/// Docker's `AuthConfig`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct AuthConfig {
    username: String,
    password: String,
    auth: String,
    #[serde(rename = "serveraddress")]
    pub(crate) server_address: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
    #[serde(rename = "registrytoken")]
    registry_token: String,
}

impl AuthConfig {
    /// The strongest proof it holds.
    pub(crate) fn credentials(&self) -> ApiResult<Credentials> {
        if !self.identity_token.is_empty() {
            return Ok(Credentials::IdentityToken { token: self.identity_token.clone() });
        }
        if !self.registry_token.is_empty() {
            return Ok(Credentials::RegistryToken { token: self.registry_token.clone() });
        }
        let (user, password) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            let bad = || ApiError::invalid("the auth field of the registry credentials is not base64 of user:password");
            let text =
                STANDARD.decode(&self.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(bad)?;
            let (user, password) = text.split_once(':').ok_or_else(bad)?;
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        };
        if user.is_empty() && password.is_empty() {
            return Ok(Credentials::Anonymous);
        }
        Ok(Credentials::Basic { user, password })
    }

    /// The registry as references name it.
    pub(crate) fn domain(&self) -> String {
        domain_of(&self.server_address)
    }
}

/// `https://index.docker.io/v1/` is `docker.io`; of a URL the host counts.
pub(crate) fn domain_of(address: &str) -> String {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" | "docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

/// Credentials for the registry of this image. Those that name another registry are not used: they are not for this one.
pub(crate) fn from_headers(headers: &HeaderMap, image: &str) -> ApiResult<Credentials> {
    let Some(value) = headers.get("x-registry-auth") else { return Ok(Credentials::Anonymous) };
    let config = decode(value.as_bytes())?;
    if !config.server_address.is_empty() {
        let domain = image.parse::<berth_types::Reference>().map(|reference| reference.domain().to_owned());
        if domain.is_ok_and(|domain| domain != config.domain()) {
            tracing::debug!(image, "the client's credentials are for another registry and are not used");
            return Ok(Credentials::Anonymous);
        }
    }
    config.credentials()
}

fn decode(value: &[u8]) -> ApiResult<AuthConfig> {
    let bad = || ApiError::invalid("X-Registry-Auth is not base64 of a JSON document");
    if value.is_empty() || value == b"null" {
        return Ok(AuthConfig::default());
    }
    if value.len() > HEADER_BYTES_MAX {
        return Err(ApiError::invalid("X-Registry-Auth is too long"));
    }
    let decoded = [&URL_SAFE, &URL_SAFE_NO_PAD, &STANDARD, &STANDARD_NO_PAD].iter().find_map(|e| e.decode(value).ok());
    let bytes = decoded.ok_or_else(bad)?;
    let config: Option<AuthConfig> = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    Ok(config.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, image: &str, expect: &Credentials) {
        let mut headers = HeaderMap::new();
        headers.insert("x-registry-auth", URL_SAFE.encode(json).parse().unwrap());
        assert_eq!(&from_headers(&headers, image).unwrap(), expect, "{json}");
    }

    #[test]
    fn what_clients_send() {
        let basic = Credentials::Basic { user: "u".into(), password: "p:w".into() };
        check(r#"{"username":"u","password":"p:w"}"#, "reg:5000/x", &basic);
        check(&format!(r#"{{"auth":"{}"}}"#, STANDARD.encode("u:p:w")), "reg:5000/x", &basic);
        check(r#"{"username":"u","password":"p:w","serveraddress":"reg:5000"}"#, "reg:5000/x", &basic);
        check(r#"{"username":"u","password":"p:w","serveraddress":"https://index.docker.io/v1/"}"#, "busybox", &basic);
        // CVE-2021-41092 and its like: credentials of one registry are nothing to another.
        check(
            r#"{"username":"u","password":"p:w","serveraddress":"reg:5000"}"#,
            "evil:5000/x",
            &Credentials::Anonymous,
        );
        check(r#"{"username":"u","password":"p:w","serveraddress":"docker.io"}"#, "reg/x:1", &basic);
        check(r#"{"identitytoken":"t","username":"u"}"#, "x/y", &Credentials::IdentityToken { token: "t".into() });
        check("{}", "x", &Credentials::Anonymous);
        check("null", "x", &Credentials::Anonymous);
        let mut headers = HeaderMap::new();
        headers.insert("x-registry-auth", "%%%".parse().unwrap());
        assert!(from_headers(&headers, "x").is_err());
    }
}
