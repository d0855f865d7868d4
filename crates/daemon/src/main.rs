//! `berthd`, the daemon: arguments, sockets, wiring. Everything else is in the engine and its faces.

mod embedded;
mod json_log;
mod options;
mod registry_options;
mod registry_serve;
mod run;
mod socket;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let options = options::Options::parse();
    match run::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", berth_types::report(error.as_ref()));
            if let Some(hint) = error.downcast_ref::<run::RunError>().and_then(run::RunError::hint) {
                tracing::error!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}
