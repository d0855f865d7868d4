//! `registries.conf` (version 2): mirrors, renamed locations, blocked and insecure registries by prefix.
//!
//! # Spec
//! containers-registries.conf(5): `[[registry]]` with `prefix`, `location`, `insecure`, `blocked`, `mirror-by-digest-only`, `[[registry.mirror]]`.

use berth_types::Reference;
use serde::Deserialize;

use super::at_url;
use super::directory::read_bounded;
use crate::endpoint::{Capabilities, Endpoint, Scheme};
use crate::options::RegistryOptions;
use crate::{RegistryError, Result};

#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: String,
}

pub(super) fn read(options: &RegistryOptions, reference: &Reference, own: &Endpoint) -> Result<Option<Vec<Endpoint>>> {
    let Some(file) = &options.registries_conf else { return Ok(None) };
    let Some(text) = read_bounded(file)? else { return Ok(None) };
    let bad = |why: String| RegistryError::Config { path: file.clone(), why };
    let parsed: File = toml::from_str(&text).map_err(|e| bad(e.message().to_owned()))?;
    let name = reference.repository();
    let best =
        parsed.registry.iter().filter_map(|entry| Some((fitting(entry, &name)?, entry))).max_by_key(|(len, _)| *len);
    let Some((length, entry)) = best else { return Ok(None) };
    if entry.blocked {
        return Err(RegistryError::Refused {
            why: format!("registry {} is blocked in {}", own.authority, file.display()),
        });
    }
    let rest = &name[length..];
    let mut found = Vec::new();
    for mirror in &entry.mirror {
        let mut at = renamed(&mirror.location, rest, reference.domain(), mirror.insecure).map_err(bad)?;
        at.on_behalf_of = None;
        at.capabilities = match mirror.pull_from_mirror.as_str() {
            "" | "all" if !entry.mirror_by_digest_only => Capabilities::READ,
            "" | "digest-only" => Capabilities { resolve: false, pull: true, push: false },
            "tag-only" => Capabilities { resolve: true, pull: false, push: false },
            other => return Err(bad(format!("unknown pull-from-mirror {other:?}"))),
        };
        found.push(at);
    }
    let last = if entry.location.is_empty() {
        Endpoint { scheme: if entry.insecure { Scheme::Either } else { own.scheme }, ..own.clone() }
    } else {
        let at = renamed(&entry.location, rest, reference.domain(), entry.insecure).map_err(bad)?;
        Endpoint { capabilities: Capabilities::ALL, on_behalf_of: None, ..at }
    };
    found.push(last);
    Ok(Some(found))
}

/// How much of the name the entry's prefix covers.
fn fitting(entry: &Entry, name: &str) -> Option<usize> {
    let prefix = if entry.prefix.is_empty() { &entry.location } else { &entry.prefix };
    if let Some(suffix) = prefix.strip_prefix('*') {
        let domain = name.split('/').next().unwrap_or_default();
        return domain.ends_with(suffix).then_some(domain.len());
    }
    let rest = name.strip_prefix(prefix.as_str())?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

/// `location` (host and path) in place of the prefix.
fn renamed(location: &str, rest: &str, domain: &str, is_insecure: bool) -> std::result::Result<Endpoint, String> {
    let (authority, path) = location.split_once('/').map_or((location, ""), |(a, p)| (a, p));
    let repository = format!("{path}{rest}");
    let mut at = at_url(authority, domain, repository.trim_matches('/'))?;
    if is_insecure {
        at.scheme = Scheme::Either;
        at.tls.skips_verification = true;
    }
    Ok(at)
}
