//! `runb`: the OCI runtime as a command line, for engines that know runc's. Thin over `berth-runtime`: arguments in, one operation,
//! output and exit code out. One thread.

mod arguments;
mod commands;
mod console;
mod error;
mod foreground;
mod log;
mod paths;
mod streams;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    let log = log::Log::new(arguments.log.as_deref(), arguments.log_format, arguments.debug);
    match commands::run(&arguments, &log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
