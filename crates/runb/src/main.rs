//! `runb`: the OCI runtime as a command line, for engines that know runc. Thin over `berth-runtime`: arguments in, one operation,
//! output and exit code out. One thread.

mod arguments;
mod commands;
mod error;
mod foreground;
mod log;
mod notify;
mod paths;
mod seal;
mod socket;
mod streams;

use std::process::ExitCode;

use arguments::Parsed;
use berth_sys::arena::Arena;

/// A command lives milliseconds; its memory goes with it.
#[global_allocator]
static ARENA: Arena = Arena::new();

fn main() -> ExitCode {
    let words: Result<Vec<String>, _> = std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect();
    let parsed =
        words.map_err(|word| format!("{} is not text in UTF-8", word.to_string_lossy())).and_then(arguments::parse);
    match parsed {
        Ok(Parsed::Print(text)) => {
            commands::print(text.trim_end());
            ExitCode::SUCCESS
        }
        Ok(Parsed::Run(arguments)) => run(&arguments),
        Err(problem) => {
            log::stderr(&format!("runb: {problem}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &arguments::Arguments) -> ExitCode {
    let global = &arguments.global;
    let log = match log::Log::new(global.log.as_deref(), global.log_format, global.debug) {
        Ok(log) => log,
        Err(error) => {
            log::stderr(&format!("runb: {}", berth_types::report(&error)));
            return ExitCode::FAILURE;
        }
    };
    match commands::run(arguments, &log) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
