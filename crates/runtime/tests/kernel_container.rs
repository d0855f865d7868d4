//! The runtime against the real kernel. Create and exec want a single-threaded caller, so this binary has no test harness: it runs
//! each test in a child of its own, in a private mount namespace, one after the other.
#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a test, though the harness is its own")]
#![allow(dead_code, reason = "support grows ahead of the tests")]

mod container;
mod support;

use std::process::ExitCode;

fn main() -> ExitCode {
    support::main(container::TESTS)
}
