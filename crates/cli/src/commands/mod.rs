//! The verbs: one table, one file per verb. A verb has all its names here (`run`, `container run`).

mod closest;
mod completion;
mod confirm;
mod container;
mod image;
mod inspect;
mod network;
mod objects;
mod registry;
mod shim;
mod system;
mod volume;

use clap::{ArgMatches, Command};

pub(crate) use closest::closest;

use crate::context::Context;
use crate::failure::Outcome;
use crate::request::Refused;

/// One verb of the command line.
#[derive(Debug)]
pub(crate) struct Verb {
    /// All spellings; the first is the one errors use.
    pub(crate) names: &'static [&'static str],
    /// One line for the overview and the verb's own page.
    pub(crate) about: &'static str,
    pub(crate) build: fn() -> Command,
    pub(crate) run: fn(&ArgMatches, &mut Context) -> Outcome,
    /// Known flags that cannot be honoured yet.
    pub(crate) refused: &'static [Refused],
}

/// Declares a verb from its argument struct and its function.
macro_rules! verb {
    ($names:expr, $about:literal, $arguments:ty, $run:path) => {
        $crate::commands::verb!($names, $about, $arguments, $run, &[])
    };
    ($names:expr, $about:literal, $arguments:ty, $run:path, $refused:expr) => {
        $crate::commands::Verb {
            names: &$names,
            about: $about,
            build: || <$arguments as clap::CommandFactory>::command().about($about),
            run: |matches, context| {
                let arguments = <$arguments as clap::FromArgMatches>::from_arg_matches(matches)
                    .map_err(|error| $crate::failure::Failure::new(error.to_string()))?;
                $run(arguments, context)
            },
            refused: $refused,
        }
    };
}
pub(crate) use verb;

/// The groups and what they are about.
pub(crate) const GROUPS: &[(&str, &str)] = &[
    ("container", "Work with containers"),
    ("image", "Work with images"),
    ("manifest", "Look at manifests in registries"),
    ("network", "Look at networks"),
    ("registry", "Be a registry"),
    ("system", "Work with the engine itself"),
    ("volume", "Work with volumes"),
];

const OTHER: &[Verb] = &[
    verb!(
        ["inspect"],
        "Show all that is known of containers, images, networks and volumes",
        inspect::Arguments,
        inspect::run
    ),
    verb!(["completion"], "Print a completion script for a shell", completion::Arguments, completion::run),
];

/// Docker's verbs that this engine does not have yet, and why.
const NOT_YET: &[(&str, &str)] = &[
    ("search", "registries have no search of their own; Docker Hub's is a web page"),
    ("manifest annotate", MANIFESTS),
    ("manifest create", MANIFESTS),
    ("manifest push", MANIFESTS),
    ("manifest rm", MANIFESTS),
    ("trust", "content trust is not supported"),
    ("build", "building images is not supported"),
    ("builder", "building images is not supported"),
    ("buildx", "building images is not supported"),
    ("bake", "building images is not supported"),
    ("image build", "building images is not supported"),
    ("compose", "Compose files are not supported"),
    ("network create", NETWORKS),
    ("network connect", NETWORKS),
    ("network disconnect", NETWORKS),
    ("network rm", NETWORKS),
    ("network remove", NETWORKS),
    ("network prune", NETWORKS),
    ("checkpoint", "checkpoints are not supported"),
    ("context", "contexts are not supported; use -H or BERTH_HOST"),
    ("plugin", "plugins are not supported"),
    ("system dial-stdio", "it is not supported"),
    ("swarm", SWARM),
    ("node", SWARM),
    ("service", SWARM),
    ("stack", SWARM),
    ("secret", SWARM),
    ("config", SWARM),
];
const MANIFESTS: &str = "manifest lists cannot be made yet";
const NETWORKS: &str = "user-defined networks are not supported; there are bridge, host and none";
const SWARM: &str = "clusters are out of scope";

pub(crate) fn all() -> impl Iterator<Item = &'static Verb> {
    [container::VERBS, image::VERBS, network::VERBS, registry::VERBS, shim::VERBS, system::VERBS, volume::VERBS, OTHER]
        .into_iter()
        .flatten()
}

/// The verb with this spelling.
pub(crate) fn lookup(words: &str) -> Option<&'static Verb> {
    all().find(|verb| verb.names.contains(&words))
}

/// Why a verb of Docker's is missing.
pub(crate) fn not_yet(words: &str) -> Option<&'static str> {
    NOT_YET.iter().find(|(name, _)| *name == words).map(|(_, missing)| *missing)
}
