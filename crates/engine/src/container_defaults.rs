//! What a container gets that does not say otherwise: log driver, log options, resource limits. Chosen by the operator, applied at create,
//! so that a later change of the configuration changes no container that exists.

use std::collections::BTreeMap;

use crate::config::{HostConfig, Ulimit};
use crate::error::{EngineError, Result};
use crate::request::LogSettings;

/// The operator's choice, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerDefaults {
    log_driver: String,
    log_options: BTreeMap<String, String>,
    ulimits: Vec<Ulimit>,
}

impl ContainerDefaults {
    /// `log_options`: `max-size=10m`; `ulimits`: `nofile=1024:2048`.
    ///
    /// # Errors
    /// `InvalidArgument` for what no container could be made with.
    pub fn parse(log_driver: &str, log_options: &[String], ulimits: &[String]) -> Result<Self> {
        let pair = |text: &String| {
            let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
            let pair = pair.map(|(key, value)| (key.to_owned(), value.to_owned()));
            pair.ok_or_else(|| EngineError::invalid(format!("log option {text:?} is not of the form KEY=VALUE")))
        };
        let defaults = Self {
            log_driver: log_driver.to_owned(),
            log_options: log_options.iter().map(pair).collect::<Result<_>>()?,
            ulimits: ulimits.iter().map(|text| ulimit(text)).collect::<Result<_>>()?,
        };
        LogSettings::parse(&HostConfig { log_options: defaults.log_options.clone(), ..HostConfig::default() })?;
        Ok(defaults)
    }

    /// Fills in what the wish leaves open. Options of a log driver that was asked for by name are its own.
    pub(crate) fn apply(&self, mut host: HostConfig) -> HostConfig {
        if host.log_driver.is_empty() {
            host.log_driver.clone_from(&self.log_driver);
        }
        if host.log_driver != "none" {
            for (key, value) in &self.log_options {
                host.log_options.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        for limit in &self.ulimits {
            if !host.ulimits.iter().any(|own| own.name == limit.name) {
                host.ulimits.push(limit.clone());
            }
        }
        host
    }
}

fn ulimit(text: &str) -> Result<Ulimit> {
    let wrong = || {
        EngineError::invalid(format!("ulimit {text:?} is not of the form NAME=SOFT[:HARD]"))
            .with_hint("as in nofile=1024:2048; -1 is unlimited")
    };
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let is_known = crate::host::LIMITS.iter().any(|(known, _)| *known == name);
    if !is_known {
        let names: Vec<&str> = crate::host::LIMITS.iter().map(|(known, _)| *known).collect();
        return Err(EngineError::invalid(format!("ulimit {name:?} does not exist"))
            .with_hint(format!("known are {}", names.join(", "))));
    }
    let number = |text: &str| text.parse::<i64>().map_err(|_| wrong());
    Ok(Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str], ulimits: &[&str]) -> Result<ContainerDefaults> {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        ContainerDefaults::parse("json-file", &own(options), &own(ulimits))
    }

    #[test]
    fn what_is_asked_wins() {
        let defaults = parse(&["max-size=1m", "max-file=2"], &["nofile=10:20", "nproc=5"]).unwrap();
        let mut asked = HostConfig::default();
        asked.log_options.insert("max-file".to_owned(), "7".to_owned());
        asked.ulimits.push(Ulimit { name: "nofile".to_owned(), soft: 1, hard: 1 });
        let host = defaults.apply(asked);
        assert_eq!((host.log_options["max-size"].as_str(), host.log_options["max-file"].as_str()), ("1m", "7"));
        let limits: Vec<_> = host.ulimits.iter().map(|l| (l.name.as_str(), l.soft, l.hard)).collect();
        assert_eq!(limits, [("nofile", 1, 1), ("nproc", 5, 5)]);
        let silent = defaults.apply(HostConfig { log_driver: "none".to_owned(), ..HostConfig::default() });
        assert!(silent.log_options.is_empty());
    }

    #[test]
    fn refusals() {
        for (options, ulimits) in [
            (&["max-size"][..], &[][..]),
            (&["max-size=1"], &[]),
            (&["colour=red"], &[]),
            (&[], &["nofile"]),
            (&[], &["nofiles=1"]),
            (&[], &["nofile=x"]),
        ] {
            assert!(parse(options, ulimits).is_err(), "{options:?} {ulimits:?}");
        }
    }
}
