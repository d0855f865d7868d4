//! `berth`, the command line for people: Docker's verbs, flags, columns and exit codes over the Docker Engine API.
//!
//! It is a client and nothing else: what a container is, is the daemon's business. It starts one process at most
//! (`berthd`, when nobody answers on the default socket) and keeps no state.

mod cli;
mod client;
mod commands;
mod context;
mod credentials;
mod failure;
mod output;
mod pause;
mod request;
mod session;
mod timeline;

use std::process::ExitCode;

/// musl's own maps every few pages by themselves: half of a listing's time went there.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1).collect();
    let environment = context::Environment::new(std::env::vars_os());
    cli::run(args, environment)
}
