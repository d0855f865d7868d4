//! Verbs on containers.

mod attach;
mod attached;
mod cidfile;
pub(super) mod commit;
mod cp;
pub(super) mod create;
mod diff;
mod exec;
mod explain;
mod export;
mod inspect;
mod kill;
pub(super) mod logs;
mod ls;
mod pause;
mod plan;
mod port;
pub(super) mod prune;
mod rename;
mod restart;
mod rm;
mod run;
mod start;
mod stats;
mod stop;
mod top;
mod trace;
mod unpause;
mod update;
mod wait;
mod why;

use super::Verb;
use super::verb;
use crate::request::{REFUSED, REFUSED_UPDATE};

pub(super) const VERBS: &[Verb] = &[
    verb!(["run", "container run"], "Create and start a container", run::Arguments, run::run, REFUSED),
    verb!(
        ["create", "container create"],
        "Create a container without starting it",
        create::Arguments,
        create::run,
        REFUSED
    ),
    verb!(["start", "container start"], "Start containers that are stopped", start::Arguments, start::run),
    verb!(["stop", "container stop"], "Stop containers: a signal, then a kill", stop::Arguments, stop::run),
    verb!(["restart", "container restart"], "Stop and start containers", restart::Arguments, restart::run),
    verb!(["kill", "container kill"], "Send a signal to containers", kill::Arguments, kill::run),
    verb!(["pause", "container pause"], "Freeze all processes of containers", pause::Arguments, pause::run),
    verb!(["unpause", "container unpause"], "Thaw frozen containers", unpause::Arguments, unpause::run),
    verb!(["wait", "container wait"], "Wait until containers stop; print their exit codes", wait::Arguments, wait::run),
    verb!(
        ["explain", "container explain"],
        "Show a container as it is in the kernel, and what has changed",
        explain::Arguments,
        explain::run
    ),
    verb!(["trace", "container trace"], "Show the timeline of a start again", trace::Arguments, trace::run),
    verb!(["why", "container why"], "Tell why a container ended", why::Arguments, why::run),
    verb!(["rm", "container rm", "container remove"], "Remove containers", rm::Arguments, rm::run),
    verb!(["rename", "container rename"], "Give a container another name", rename::Arguments, rename::run),
    verb!(["exec", "container exec"], "Run a command in a running container", exec::Arguments, exec::run),
    verb!(["attach", "container attach"], "Attach to a running container", attach::Arguments, attach::run),
    verb!(["logs", "container logs"], "Show what a container printed", logs::Arguments, logs::run),
    verb!(["ps", "container ls", "container list", "container ps"], "List containers", ls::Arguments, ls::run),
    verb!(["top", "container top"], "List the processes of a container", top::Arguments, top::run),
    verb!(["stats", "container stats"], "Show what containers use, live", stats::Arguments, stats::run),
    verb!(["container inspect"], "Show all that is known of containers", inspect::Arguments, inspect::run),
    verb!(["port", "container port"], "List the published ports of a container", port::Arguments, port::run),
    verb!(["diff", "container diff"], "List files changed in a container", diff::Arguments, diff::run),
    verb!(["commit", "container commit"], "Make an image from a container", commit::Arguments, commit::run),
    verb!(["cp", "container cp"], "Copy files between a container and the host", cp::Arguments, cp::run),
    verb!(
        ["update", "container update"],
        "Change the limits of containers",
        update::Arguments,
        update::run,
        REFUSED_UPDATE
    ),
    verb!(["export", "container export"], "Write a container's files as a tar archive", export::Arguments, export::run),
    verb!(["container prune"], "Remove all stopped containers", prune::Arguments, prune::run),
];
