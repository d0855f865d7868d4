//! One file per group of verbs; here only which is which.

mod checkpoint;
mod create;
mod describe;
mod events;
mod exec;
mod lifecycle;
mod list;
mod ps;
mod spec;
mod update;

use std::path::PathBuf;

use crate::arguments::{Arguments, Command, Global};
use crate::error::CommandError;
use crate::log::Log;

pub(crate) fn run(arguments: &Arguments, log: &Log) -> Result<u8, CommandError> {
    let global = &arguments.global;
    log.debug(|| format!("{:?}", arguments.command));
    let root = &root(global);
    match &arguments.command {
        Command::Create(options) => create::create(root, options, global, log).map(|()| 0),
        Command::Start { id } => lifecycle::start(root, id, log).map(|()| 0),
        Command::Run(options) => create::run(root, options, global, log),
        Command::Exec(options) => exec::exec(root, options, log).map_err(|error| CommandError::Exec(Box::new(error))),
        Command::Kill { id, signal, all } => lifecycle::kill(root, id, signal, *all).map(|()| 0),
        Command::Delete { id, force } => lifecycle::delete(root, id, *force, log).map(|()| 0),
        Command::State { id } => describe::state(root, id).map(|()| 0),
        Command::List { format, quiet } => list::list(global, root, *format, *quiet, log).map(|()| 0),
        Command::Ps { id, format, options } => ps::processes(root, id, *format, options).map(|()| 0),
        Command::Pause { id } => lifecycle::pause(root, id).map(|()| 0),
        Command::Resume { id } => lifecycle::resume(root, id).map(|()| 0),
        Command::Update(options) => update::update(root, options).map(|()| 0),
        Command::Spec { bundle, rootless } => spec::spec(bundle.as_deref(), *rootless).map(|()| 0),
        Command::Features => describe::features().map(|()| 0),
        Command::Events { id, stats, interval } => events::events(root, id, *stats, *interval).map(|()| 0),
        Command::Checkpoint(options) => checkpoint::checkpoint(root, options, global),
        Command::Restore(options) => checkpoint::restore(root, options, global),
    }
}

/// Where container states are kept: a tmpfs that only their owner may look into.
#[expect(clippy::disallowed_methods, reason = "XDG_RUNTIME_DIR is where a user's own states belong")]
fn root(global: &Global) -> PathBuf {
    if let Some(root) = &global.root {
        return std::path::absolute(root).unwrap_or_else(|_| root.clone());
    }
    let own = std::env::var("XDG_RUNTIME_DIR").ok().filter(|_| !rustix::process::geteuid().is_root());
    own.filter(|own| !own.is_empty()).map_or_else(|| PathBuf::from("/run/runb"), |own| PathBuf::from(own).join("runb"))
}

/// One line on standard output. A reader that went away is no failure of ours.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let _closed = writeln!(std::io::stdout(), "{text}");
}

fn json(value: &impl serde::Serialize) -> Result<String, CommandError> {
    serde_json::to_string(value).map_err(unwritable)
}

fn pretty(value: &impl serde::Serialize) -> Result<String, CommandError> {
    serde_json::to_string_pretty(value).map_err(unwritable)
}

fn unwritable(source: serde_json::Error) -> CommandError {
    CommandError::Json { path: "the answer".to_owned(), source }
}
