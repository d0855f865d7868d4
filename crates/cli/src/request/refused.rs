//! Docker's options that the engine cannot honour yet. They are known, so that each is refused by its name, never ignored.

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::failure::{Failure, Outcome};

/// A flag and what is missing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) flag: &'static str,
    pub(crate) takes_value: bool,
    pub(crate) missing: &'static str,
}

const fn value(flag: &'static str, missing: &'static str) -> Refused {
    Refused { flag, takes_value: true, missing }
}

const fn switch(flag: &'static str, missing: &'static str) -> Refused {
    Refused { flag, takes_value: false, missing }
}

const HEALTH: &str = "health checks are not supported";
const NETWORKS: &str = "user-defined networks are not supported";
const WINDOWS: &str = "it exists on Windows only";

/// What `run` and `create` refuse.
pub(crate) const REFUSED: &[Refused] = &[
    value("gpus", "GPU requests are not supported; pass a device with --device"),
    value("health-cmd", HEALTH),
    value("health-interval", HEALTH),
    value("health-retries", HEALTH),
    value("health-start-interval", HEALTH),
    value("health-start-period", HEALTH),
    value("health-timeout", HEALTH),
    value("ip", NETWORKS),
    value("ip6", NETWORKS),
    value("link", NETWORKS),
    value("link-local-ip", NETWORKS),
    value("mac-address", "a chosen MAC address is not supported"),
    value("network-alias", NETWORKS),
    value("net-alias", NETWORKS),
    value("storage-opt", "limits of the writable layer are not supported"),
    switch("use-api-socket", "handing the API socket to a container is not supported"),
    value("cpu-count", WINDOWS),
    value("cpu-percent", WINDOWS),
    value("io-maxbandwidth", WINDOWS),
    value("io-maxiops", WINDOWS),
    value("isolation", WINDOWS),
    value("kernel-memory", "the kernel has no such limit any more"),
];

/// What `update` refuses.
pub(crate) const REFUSED_UPDATE: &[Refused] = &[value("kernel-memory", "the kernel has no such limit any more")];

impl Refused {
    /// Adds the flags, hidden from help.
    pub(crate) fn declare(refused: &[Self], command: Command) -> Command {
        refused.iter().fold(command, |command, refused| {
            let action = if refused.takes_value { ArgAction::Append } else { ArgAction::SetTrue };
            command.arg(Arg::new(refused.flag).long(refused.flag).action(action).hide(true))
        })
    }

    /// Fails for the first of them that was given.
    pub(crate) fn check(refused: &[Self], matches: &ArgMatches) -> Outcome<()> {
        let given = refused.iter().find(|refused| {
            if refused.takes_value { matches.contains_id(refused.flag) } else { matches.get_flag(refused.flag) }
        });
        match given {
            Some(refused) => Err(Failure::not_yet(format!("--{}: {}", refused.flag, refused.missing))),
            None => Ok(()),
        }
    }
}
