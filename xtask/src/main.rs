//! The project's own commands: `cargo xtask hello-image | tidy | check`.

mod hello_image;
mod tidy;

use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask COMMAND
  hello-image HELLO OUT [--gzip]
                       OCI archive OUT of the image `hello` around the program HELLO
  tidy                 walls between the crates, unsafe only in sys, no stray marks
  check                format, lints, tidy, and the tests that need no root";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    match words {
        ["hello-image", program, out] => hello_image::write(program, out, hello_image::Compression::None),
        ["hello-image", program, out, "--gzip"] => hello_image::write(program, out, hello_image::Compression::Gzip),
        ["tidy"] => tidy::tidy(),
        ["check"] => {
            cargo(&["fmt", "--all", "--check"])?;
            cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
            tidy::tidy()?;
            cargo(&["test", "--quiet", "--workspace", "--lib", "--bins"])
        }
        _ => Err(USAGE.into()),
    }
}

fn cargo(arguments: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let status = Command::new("cargo").args(arguments).status()?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed", arguments.join(" ")).into()) }
}
