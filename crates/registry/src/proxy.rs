//! Which proxy a connection goes through. The values come as data: the daemon's `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use http::{HeaderValue, Uri};

use crate::address;
use crate::{RegistryError, Result};

#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<String>,
}

/// An HTTP proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |proxy: &Option<Proxy>| proxy.as_ref().map(|p| format!("{}:{}", p.host, p.port));
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("exceptions", &self.exceptions)
            .finish()
    }
}

impl Proxies {
    /// Empty texts: no proxy. `exceptions` is the comma-separated list of `NO_PROXY`.
    ///
    /// # Errors
    /// `InvalidArgument` for an address that is no `http://[user:password@]host[:port]`.
    pub fn new(http: &str, https: &str, exceptions: &str) -> Result<Self> {
        Ok(Self {
            http: parse("HTTP_PROXY", http)?,
            https: parse("HTTPS_PROXY", https)?,
            exceptions: exceptions
                .split(',')
                .map(|e| e.trim().to_ascii_lowercase())
                .filter(|e| !e.is_empty())
                .collect(),
        })
    }

    /// Loopback is never asked through a proxy.
    pub(crate) fn for_uri(&self, uri: &Uri) -> Option<&Proxy> {
        let proxy = if uri.scheme_str() == Some("https") { &self.https } else { &self.http };
        let host = address::host_of(uri);
        proxy.as_ref().filter(|_| !address::is_loopback(&host) && !self.is_exception(&host))
    }

    fn is_exception(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.exceptions.iter().any(|exception| {
            if exception == "*" {
                return true;
            }
            if let (Ok(ip), Some(is_in)) = (host.parse::<IpAddr>(), address::network(exception)) {
                return is_in.contains(ip);
            }
            let name =
                exception.split(':').next().unwrap_or(exception).trim_start_matches("*.").trim_start_matches('.');
            host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
        })
    }
}

fn parse(option: &'static str, text: &str) -> Result<Option<Proxy>> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    // The value may hold a password: it is not repeated.
    let bad = |why: &str| RegistryError::Option { option, why: why.to_owned() };
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = with_scheme.parse().map_err(|_| bad("it is not a URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(bad("only proxies that are spoken to by http:// are supported"));
    }
    let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
    let user = authority.as_str().rsplit_once('@').map(|(user, _)| address::percent_decoded(user));
    let authorization = user.map(|user| {
        let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user));
        let mut value = HeaderValue::from_str(&text).expect("base64 is a valid header");
        value.set_sensitive(true);
        value
    });
    Ok(Some(Proxy { host: address::host_of(&uri), port: uri.port_u16().unwrap_or(80), authorization }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_through_a_proxy() {
        let proxies =
            Proxies::new("", "http://me:s%40crt@proxy.lan:3128", "corp.example, .internal,10.0.0.0/8,192.168.1.1")
                .unwrap();
        let check = |uri: &str, expect: bool| {
            assert_eq!(proxies.for_uri(&uri.parse().unwrap()).is_some(), expect, "{uri}");
        };
        check("https://registry-1.docker.io/v2/", true);
        check("http://registry-1.docker.io/v2/", false);
        check("https://a.corp.example/v2/", false);
        check("https://corp.example:5000/v2/", false);
        check("https://notcorp.example/v2/", true);
        check("https://x.internal/", false);
        check("https://10.2.3.4/", false);
        check("https://11.2.3.4/", true);
        check("https://192.168.1.1:5000/", false);
        check("https://localhost:5000/", false);
        check("https://127.9.9.9:5000/", false);
        check("https://[::1]:5000/", false);
        let proxy = proxies.https.as_ref().unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.lan", 3128));
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic bWU6c0BjcnQ=");
        assert!(!format!("{proxies:?}").contains("crt"));
        assert!(Proxies::new("socks5://x", "", "").is_err());
    }
}
