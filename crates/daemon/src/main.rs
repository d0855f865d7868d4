//! `berthd`, the daemon: arguments, configuration, sockets, wiring. Everything else is in the engine and its faces.

mod config;
mod embedded;
mod idle;
mod json_log;
mod metrics_listener;
mod options;
mod registry_options;
mod registry_serve;
mod run;
mod socket;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use config::{ConfigError, Resolved};
use options::{Command, ConfigVerb};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let resolved = match config::resolve(&arguments) {
        Ok(resolved) => resolved,
        // Help and version are such errors too.
        Err(error) => error.exit(),
    };
    let done = resolved.map_err(run::Failure::from).and_then(|resolved| match resolved.options.command.clone() {
        Some(Command::Config(verb)) => configuration(&resolved, verb),
        _ => run::run(resolved.options),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = berth_types::report(error.as_ref());
            let hint = error.downcast_ref::<run::RunError>().and_then(run::RunError::hint);
            tracing::error!("{text}");
            if let Some(hint) = hint {
                tracing::error!("hint: {hint}");
            }
            // Before the log is set up, a person is told directly.
            if !tracing::dispatcher::has_been_set() {
                drop(writeln!(std::io::stderr(), "error: {text}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn configuration(resolved: &Resolved, verb: ConfigVerb) -> Result<(), run::Failure> {
    let text = match verb {
        ConfigVerb::Default => config::default_file(),
        ConfigVerb::Reference => config::reference(),
        ConfigVerb::Dump => config::dump(resolved),
        ConfigVerb::Validate { file } => {
            let file = file.or_else(|| resolved.file.clone()).unwrap_or_else(|| config::DEFAULT_PATH.into());
            let entries = config::load(&file)?;
            run::container_defaults(&resolved.options)?;
            run::runtimes(&resolved.options)?;
            format!("{}: {} keys, all valid\n", file.display(), entries.len())
        }
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|source| ConfigError::Write { source })?;
    Ok(())
}
