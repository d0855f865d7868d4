//! One file per group of verbs; here only which is which.

mod create;
mod describe;
mod exec;
mod lifecycle;
mod list;
mod update;

use crate::arguments::{Arguments, Command};
use crate::error::CommandError;
use crate::log::Log;

pub(crate) fn run(arguments: &Arguments, log: &Log) -> Result<u8, CommandError> {
    if arguments.systemd_cgroup {
        return Err(CommandError::NotYet("the systemd cgroup driver (--systemd-cgroup)"));
    }
    let root = arguments.root.as_path();
    log.debug(&format!("{:?}", arguments.command));
    match &arguments.command {
        Command::Create(options) => create::create(root, options, log).map(|()| 0),
        Command::Start { id } => lifecycle::start(root, id, log).map(|()| 0),
        Command::Run(options) => create::run(root, options, log),
        Command::Exec(options) => exec::exec(root, options),
        Command::Kill(options) => lifecycle::kill(root, options).map(|()| 0),
        Command::Delete(options) => lifecycle::delete(root, options).map(|()| 0),
        Command::State { id } => describe::state(root, id).map(|()| 0),
        Command::List(options) => list::list(root, options).map(|()| 0),
        Command::Ps(options) => list::processes(root, options).map(|()| 0),
        Command::Pause { id } => lifecycle::pause(root, id).map(|()| 0),
        Command::Resume { id } => lifecycle::resume(root, id).map(|()| 0),
        Command::Update(options) => update::update(root, options).map(|()| 0),
        Command::Spec { bundle } => describe::spec(bundle.as_deref()).map(|()| 0),
        Command::Features => describe::features().map(|()| 0),
        Command::Events(options) => list::events(root, options).map(|()| 0),
        Command::Checkpoint { .. } => Err(CommandError::NotYet("checkpoint")),
        Command::Restore { .. } => Err(CommandError::NotYet("restore")),
    }
}

/// One line on standard output. A reader that went away is no failure of ours.
fn print(text: &str) {
    use std::io::Write;
    let _closed = writeln!(std::io::stdout(), "{text}");
}
