//! Credentials for registries: Docker's `config.json` and its credential helpers. They go to the daemon with the one request that needs them.
//!
//! A helper that is configured and cannot be run is an error: falling back would send somebody's password where it was not to go
//! (CVE-2021-41092). Secrets are never printed.

mod config_file;
mod helper;

use base64::Engine as _;
use serde_json::{Value, json};

pub(crate) use config_file::ConfigFile;

use crate::context::Environment;
use crate::failure::{Failure, Outcome};

/// Docker Hub's name in `config.json`.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What is known for one registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Secret {
    Password { user: String, password: String },
    IdentityToken { user: String, token: String },
}

impl Secret {
    pub(crate) fn user(&self) -> &str {
        match self {
            Self::Password { user, .. } | Self::IdentityToken { user, .. } => user,
        }
    }
}

/// The registry an image name belongs to (`docker.io` when it names none).
pub(crate) fn registry_of(image: &str) -> String {
    match image.parse::<berth_types::Reference>() {
        Ok(reference) => reference.domain().to_owned(),
        Err(_) => "docker.io".to_owned(),
    }
}

/// The registry of an address somebody wrote (`https://reg:5000/`, `docker.io`).
pub(crate) fn registry_of_address(address: &str) -> String {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    match host.split('/').next().unwrap_or(host) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

/// The key of a registry in `config.json`.
pub(crate) fn key_of(registry: &str) -> &str {
    if registry == "docker.io" { HUB_KEY } else { registry }
}

/// The value of `X-Registry-Auth` for an image; `None` when nothing is known for its registry.
pub(crate) fn header_for(image: &str, environment: &Environment) -> Outcome<Option<String>> {
    let registry = registry_of(image);
    let secret = ConfigFile::find(environment)?.get(&registry)?;
    Ok(secret.map(|secret| header(&registry, &secret)))
}

fn header(registry: &str, secret: &Secret) -> String {
    let document = document(registry, secret);
    base64::engine::general_purpose::URL_SAFE.encode(document.to_string())
}

/// Docker's `AuthConfig`.
pub(crate) fn document(registry: &str, secret: &Secret) -> Value {
    let address = key_of(registry);
    match secret {
        Secret::Password { user, password } => {
            json!({ "username": user, "password": password, "serveraddress": address })
        }
        Secret::IdentityToken { user, token } => {
            json!({ "username": user, "identitytoken": token, "serveraddress": address })
        }
    }
}

fn failed(what: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{what}"))
}
