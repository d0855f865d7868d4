//! A directory per registry: containerd's `hosts.toml`, else Docker's `*.crt` (authorities) and `*.cert` with `*.key` (client certificate).
//!
//! ```text
//! <hosts directory>/registry.example:5000/hosts.toml
//! <hosts directory>/registry.example_5000_/…            for file systems without colons
//! <hosts directory>/_default/hosts.toml                 for every other registry
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use toml::Value;

use super::at_url;
use crate::endpoint::{Capabilities, Endpoint};
use crate::options::RegistryOptions;
use crate::tls::TlsSettings;
use crate::{RegistryError, Result};

const FILE_BYTES_MAX: u64 = 1 << 20;

/// `hosts.toml`, and each `[host."URL"]` in it.
#[derive(Debug, Default, Deserialize)]
struct Host {
    #[serde(default)]
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    ca: Option<Value>,
    #[serde(default)]
    client: Option<Value>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: toml::Table,
}

pub(super) fn read(
    options: &RegistryOptions,
    domain: &str,
    path: &str,
    own: &Endpoint,
) -> Result<Option<Vec<Endpoint>>> {
    for names in [vec![domain.to_owned(), underscored(domain)], vec!["_default".to_owned()]] {
        for directory in options.hosts_directories.iter().flat_map(|d| names.iter().map(|name| d.join(name))) {
            if !directory.is_dir() {
                continue;
            }
            let file = directory.join("hosts.toml");
            return match read_bounded(&file)? {
                Some(text) => hosts_toml(&file, &text, domain, path, own).map(Some),
                None => {
                    let tls = certificates(&directory)?;
                    Ok(Some(vec![Endpoint { tls, ..own.clone() }]))
                }
            };
        }
    }
    Ok(None)
}

/// `host:5000` as `host_5000_`.
fn underscored(domain: &str) -> String {
    domain.split_once(':').map_or_else(|| domain.to_owned(), |(host, port)| format!("{host}_{port}_"))
}

pub(super) fn read_bounded(file: &Path) -> Result<Option<String>> {
    use std::io::Read as _;
    let failed = |e| RegistryError::io("read", file, e);
    let opened = match fs::File::open(file) {
        Ok(opened) => opened,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut text = String::new();
    opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(RegistryError::TooLarge { what: file.display().to_string(), bytes_max: FILE_BYTES_MAX });
    }
    Ok(Some(text))
}

fn hosts_toml(file: &Path, text: &str, domain: &str, path: &str, own: &Endpoint) -> Result<Vec<Endpoint>> {
    let bad = |why: String| RegistryError::Config { path: file.to_owned(), why };
    let mut root: toml::Table = text.parse().map_err(|e: toml::de::Error| bad(e.message().to_owned()))?;
    let hosts = match root.remove("host") {
        None => toml::Table::new(),
        Some(Value::Table(hosts)) => hosts,
        Some(_) => return Err(bad("host is not a table".to_owned())),
    };
    let server = match root.remove("server") {
        None => None,
        Some(Value::String(url)) => Some(url),
        Some(_) => return Err(bad("server is not a string".to_owned())),
    };
    let directory = file.parent().unwrap_or(Path::new("/"));
    let mut found = Vec::new();
    for (url, table) in hosts {
        let host: Host =
            table.try_into().map_err(|e: toml::de::Error| bad(format!("host {url:?}: {}", e.message())))?;
        let at = at_url(&url, domain, path).map_err(bad)?;
        found.push(apply(at, &url, host, directory).map_err(|why| bad(format!("host {url:?}: {why}")))?);
    }
    let host: Host = Value::Table(root).try_into().map_err(|e: toml::de::Error| bad(e.message().to_owned()))?;
    let last = match &server {
        Some(url) => Endpoint { capabilities: Capabilities::ALL, ..at_url(url, domain, path).map_err(bad)? },
        None => own.clone(),
    };
    found.push(apply(last, server.as_deref().unwrap_or_default(), host, directory).map_err(bad)?);
    Ok(found)
}

fn apply(mut at: Endpoint, url: &str, host: Host, directory: &Path) -> std::result::Result<Endpoint, String> {
    if let Some(names) = &host.capabilities {
        at.capabilities = Capabilities { resolve: false, pull: false, push: false };
        for name in names {
            match name.as_str() {
                "resolve" => at.capabilities.resolve = true,
                "pull" => at.capabilities.pull = true,
                "push" => at.capabilities.push = true,
                other => return Err(format!("unknown capability {other:?}")),
            }
        }
    }
    if host.override_path {
        let uri: http::Uri = url.parse().map_err(|_| "override_path needs a URL".to_owned())?;
        uri.path().trim_end_matches('/').clone_into(&mut at.prefix);
    }
    at.tls = TlsSettings {
        authorities: files(host.ca.as_ref(), directory)?,
        client: pairs(host.client.as_ref(), directory)?,
        skips_verification: host.skip_verify,
    };
    for (name, value) in &host.header {
        let name: HeaderName = name.parse().map_err(|_| format!("bad header name {name:?}"))?;
        for text in texts(value)? {
            let mut value = HeaderValue::from_str(&text).map_err(|_| format!("bad value of header {name}"))?;
            value.set_sensitive(true);
            at.headers.append(name.clone(), value);
        }
    }
    Ok(at)
}

fn texts(value: &Value) -> std::result::Result<Vec<String>, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| format!("{value} is not a string"));
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

fn files(value: Option<&Value>, directory: &Path) -> std::result::Result<Vec<PathBuf>, String> {
    Ok(value.map(texts).transpose()?.unwrap_or_default().iter().map(|name| directory.join(name)).collect())
}

/// A file with both, several of them, or pairs of certificate and key.
fn pairs(value: Option<&Value>, directory: &Path) -> std::result::Result<Vec<(PathBuf, PathBuf)>, String> {
    let both = |name: &str| (directory.join(name), directory.join(name));
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| match item {
                Value::Array(pair) => match &texts(item)?[..] {
                    [certificate, key] => Ok((directory.join(certificate), directory.join(key))),
                    [one] => Ok(both(one)),
                    _ => Err(format!("client has a pair of {} files", pair.len())),
                },
                one => texts(one).map(|names| both(&names[0])),
            })
            .collect(),
        Some(one) => Ok(texts(one)?.iter().map(|name| both(name)).collect()),
    }
}

/// Docker's form of the directory.
fn certificates(directory: &Path) -> Result<TlsSettings> {
    let mut settings = TlsSettings::default();
    let failed = |e| RegistryError::io("list", directory, e);
    let mut names: Vec<PathBuf> = fs::read_dir(directory)
        .map_err(failed)?
        .map(|entry| entry.map(|e| e.path()).map_err(failed))
        .collect::<Result<_>>()?;
    names.sort();
    for path in names {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => settings.authorities.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                if !key.is_file() {
                    let why = format!("it has no key beside it ({})", key.display());
                    return Err(RegistryError::Config { path, why });
                }
                settings.client.push((path, key));
            }
            _ => {}
        }
    }
    Ok(settings)
}
