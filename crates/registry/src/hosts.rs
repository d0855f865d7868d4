//! Which hosts are asked for a repository, in which order: mirrors of the operator's, then the registry itself.
//!
//! Sources, first match wins: a directory for the registry below one of the hosts directories (containerd's `hosts.toml`, or Docker's
//! certificates alone), `registries.conf`, the list of Docker Hub mirrors, the defaults.

mod directory;
mod registries_conf;

use std::net::IpAddr;

use berth_types::Reference;
use http::{HeaderMap, Uri};

use crate::endpoint::{Capabilities, Endpoint, Scheme};
use crate::options::RegistryOptions;
use crate::tls::TlsSettings;
use crate::{RegistryError, Result, address};

pub(crate) const HUB: &str = "docker.io";
const HUB_HOST: &str = "registry-1.docker.io";

/// All hosts for a repository, the one to ask first in front.
///
/// # Errors
/// `InvalidArgument` when a configuration file cannot be understood.
pub(crate) fn endpoints(options: &RegistryOptions, reference: &Reference) -> Result<Vec<Endpoint>> {
    let (domain, path) = (reference.domain(), reference.path());
    let own = origin(domain, path);
    let mut found = match directory::read(options, domain, path, &own)? {
        Some(found) => found,
        None => match registries_conf::read(options, reference, &own)? {
            Some(found) => found,
            None => with_hub_mirrors(options, domain, path, own)?,
        },
    };
    for endpoint in &mut found {
        soften(options, endpoint);
    }
    Ok(found)
}

/// The registry itself, as its name says.
fn origin(domain: &str, path: &str) -> Endpoint {
    Endpoint {
        scheme: Scheme::Https,
        authority: if domain == HUB { HUB_HOST.to_owned() } else { domain.to_owned() },
        prefix: "/v2".to_owned(),
        repository: path.to_owned(),
        capabilities: Capabilities::ALL,
        headers: HeaderMap::new(),
        tls: TlsSettings::default(),
        on_behalf_of: None,
        is_origin: true,
    }
}

/// A host named by a URL or `host[:port][/path]`.
fn at_url(text: &str, domain: &str, path: &str) -> std::result::Result<Endpoint, String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let uri: Uri = with_scheme.parse().map_err(|_| format!("{text:?} is not a URL"))?;
    let scheme = match uri.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return Err(format!("{text:?} is neither http nor https")),
    };
    let authority = uri.authority().filter(|a| !a.as_str().contains('@'));
    let authority = authority.ok_or_else(|| format!("{text:?} names no host"))?.to_string();
    let root = uri.path().trim_end_matches('/').to_owned();
    let prefix = if root.ends_with("/v2") { root } else { format!("{root}/v2") };
    let own = if domain == HUB { HUB_HOST } else { domain };
    Ok(Endpoint {
        scheme,
        is_origin: authority == own,
        on_behalf_of: (authority != own).then(|| domain.to_owned()),
        authority,
        prefix,
        repository: path.to_owned(),
        capabilities: Capabilities::READ,
        headers: HeaderMap::new(),
        tls: TlsSettings::default(),
    })
}

fn with_hub_mirrors(options: &RegistryOptions, domain: &str, path: &str, own: Endpoint) -> Result<Vec<Endpoint>> {
    let mut found = Vec::new();
    if domain == HUB {
        for mirror in &options.hub_mirrors {
            let bad = |why| RegistryError::Option { option: "registry-mirror", why };
            found.push(Endpoint { on_behalf_of: None, ..at_url(mirror, domain, path).map_err(bad)? });
        }
    }
    found.push(own);
    Ok(found)
}

/// Loopback and what the operator calls insecure may speak plain HTTP and show any certificate.
fn soften(options: &RegistryOptions, endpoint: &mut Endpoint) {
    let host = address::host_of_authority(&endpoint.authority);
    if endpoint.scheme == Scheme::Https && is_insecure(&options.insecure, &endpoint.authority, host) {
        endpoint.scheme = Scheme::Either;
        if endpoint.tls.authorities.is_empty() {
            endpoint.tls.skips_verification = true;
        }
    }
}

/// For a host that a registry leads to.
pub(crate) fn tls_elsewhere(options: &RegistryOptions, authority: &str) -> TlsSettings {
    let host = address::host_of_authority(authority);
    TlsSettings { skips_verification: is_insecure(&options.insecure, authority, host), ..TlsSettings::default() }
}

fn is_insecure(insecure: &[String], authority: &str, host: &str) -> bool {
    let ip = host.parse::<IpAddr>().ok();
    address::is_loopback(host)
        || insecure.iter().any(|entry| {
            entry == authority
                || entry == host
                || ip.is_some_and(|ip| address::network(entry).is_some_and(|net| net.contains(ip)))
        })
}

#[cfg(test)]
mod tests;
