//! What a container sees from inside: the payload of the image `hello`.
//!
//! Everything is read from the kernel at the moment of asking, mostly from `/proc/self`; what cannot be read is said to be
//! unreadable, never guessed. A few sub-commands make the image useful where it has no shell.

mod cgroups;
mod command;
mod json;
mod mounts;
mod namespaces;
mod network;
mod page;
mod privileges;
mod process;
mod unit;

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use crate::json::Value;
use crate::page::{Section, Style};

const USAGE: &str = "\
usage: hello [--json]          what this process sees: namespaces, mounts, limits, privileges, network
       hello true              do nothing, successfully
       hello exit N            end with exit status N
       hello echo [WORD...]    print the words
       hello cat               copy standard input to standard output
       hello sleep SECONDS     wait (a number such as 0.5, or infinity)
";

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(code) => code,
        // The reader has gone; nobody is left to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&error.to_string(), 1),
    }
}

fn run(words: &[&str]) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match words {
        [] => show(&mut out)?,
        ["--json"] => writeln!(out, "{}", document(&sections()))?,
        ["true"] => {}
        ["exit", code] => return Ok(code.parse::<u8>().map_or_else(|_| usage(), ExitCode::from)),
        ["echo", words @ ..] => writeln!(out, "{}", words.join(" "))?,
        ["cat"] => command::cat(&mut out)?,
        ["sleep", seconds] => match command::duration(seconds) {
            Some(wait) => command::sleep(wait)?,
            None => return Ok(usage()),
        },
        ["--help" | "-h" | "help"] => out.write_all(USAGE.as_bytes())?,
        _ => return Ok(usage()),
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn show(out: &mut impl Write) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a program with no configuration but its environment")]
    let plain = std::env::var("NO_COLOR").is_ok_and(|value| !value.is_empty());
    let style = if io::stdout().is_terminal() && !plain { Style::Coloured } else { Style::Plain };
    page::heading(out, style, namespaces::contained())?;
    for section in sections() {
        section.write(out, style)?;
    }
    page::ending(out, style)
}

fn sections() -> Vec<Section> {
    let mounts = mounts::read();
    vec![
        process::section(),
        namespaces::section(),
        mounts::section(&mounts),
        cgroups::section(&mounts),
        privileges::section(),
        network::section(),
    ]
}

fn document(sections: &[Section]) -> Value {
    Value::object(sections.iter().map(|section| (section.key, section.json.clone())))
}

fn usage() -> ExitCode {
    complain(USAGE.trim_end(), 2)
}

fn complain(text: &str, code: u8) -> ExitCode {
    // Standard error is the last resort: when it fails, the exit status still tells.
    drop(writeln!(io::stderr(), "{text}"));
    ExitCode::from(code)
}
