//! `containerd-shim-berth-v1`: arguments and environment in, an answer on stdout, or the life of a shim.

use std::io::Write;
use std::process::ExitCode;

use berth_shim::{Environment, Invocation, ShimError, Side, Verb};

fn main() -> ExitCode {
    let environment = Environment {
        events_address: variable("TTRPC_ADDRESS"),
        namespace: variable("NAMESPACE"),
        shim_version_max: variable("MAX_SHIM_VERSION"),
        events: variable("BERTH_EVENTS"),
        socket_dir: variable("BERTH_SOCKET_DIR"),
        search: std::env::split_paths(&variable("PATH").unwrap_or_default()).collect(),
    };
    match run(std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()), environment) {
        Ok(code) => code,
        Err(error) => {
            // Nobody is left to tell when stderr is gone.
            writeln!(std::io::stderr(), "containerd-shim-berth-v1: {}", berth_types::report(&error)).ok();
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: impl Iterator<Item = String>, environment: Environment) -> Result<ExitCode, ShimError> {
    let invocation = Invocation::parse(arguments, environment)?;
    let output = match invocation.verb {
        Verb::Version => berth_shim::version_text().into_bytes(),
        Verb::Info => berth_shim::info(),
        Verb::Delete => berth_shim::delete(&invocation)?,
        Verb::Start => match berth_shim::start(&invocation)? {
            Side::Parent(answer) => answer,
            Side::Child(server) => return server.serve().map(|()| ExitCode::SUCCESS),
        },
    };
    std::io::stdout().write_all(&output).map_err(|source| ShimError::Answer { source })?;
    Ok(ExitCode::SUCCESS)
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}
