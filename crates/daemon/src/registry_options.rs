//! How registries are reached, from the command line and from the proxy variables of the environment.

use std::path::PathBuf;
use std::time::Duration;

use berth_engine::api::{EngineError, Proxies, RegistryOptions};

use crate::options::Options;

/// Where registries are configured when nothing is said: ours, then Docker's.
const DIRECTORIES: [&str; 2] = ["/etc/berth/certs.d", "/etc/docker/certs.d"];

pub(crate) fn from(options: &Options) -> Result<RegistryOptions, EngineError> {
    let variable = |names: [&str; 2]| names.iter().find_map(|name| std::env::var_os(name)?.into_string().ok());
    let [http, https, exceptions] =
        [["HTTP_PROXY", "http_proxy"], ["HTTPS_PROXY", "https_proxy"], ["NO_PROXY", "no_proxy"]]
            .map(|names| variable(names).unwrap_or_default());
    let directories = if options.registry_config_dir.is_empty() {
        DIRECTORIES.map(PathBuf::from).to_vec()
    } else {
        options.registry_config_dir.clone()
    };
    Ok(RegistryOptions {
        hosts_directories: directories,
        registries_conf: options.registries_conf.clone(),
        hub_mirrors: options.registry_mirror.clone(),
        insecure: options.insecure_registry.clone(),
        proxies: Proxies::new(&http, &https, &exceptions)?,
        stall: Duration::from_secs(options.registry_timeout.max(1)),
        ..RegistryOptions::default()
    })
}
