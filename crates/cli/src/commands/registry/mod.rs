//! Verbs that speak to registries, through the daemon.

mod login;
mod logout;
mod manifest_inspect;
mod pull;
mod push;
mod serve;

use super::Verb;
use super::verb;

pub(super) use pull::pull_missing;

pub(super) const VERBS: &[Verb] = &[
    verb!(["pull", "image pull"], "Fetch images from a registry", pull::Arguments, pull::run),
    verb!(["push", "image push"], "Send images to a registry", push::Arguments, push::run),
    verb!(["login"], "Log in to a registry", login::Arguments, login::run),
    verb!(["logout"], "Log out from a registry", logout::Arguments, logout::run),
    verb!(
        ["manifest inspect"],
        "Show what a registry has under a name",
        manifest_inspect::Arguments,
        manifest_inspect::run
    ),
    verb!(["registry serve"], "Serve images to other machines", serve::Arguments, serve::run),
];
