//! Help pages, from the tables.

use std::fmt::Write as _;

use super::flag::{Flag, Kind};
use super::table::{COMMANDS, CommandRow, GLOBAL};

pub(crate) fn overview() -> String {
    let mut text = "NAME:\n   runb - Open Container Initiative runtime, as runc - Open Container Initiative runtime\n\nUSAGE:\n   \
                    runb [global options] command [command options] [arguments...]\n\nCOMMANDS:\n"
        .to_owned();
    for command in COMMANDS {
        // Writing to a String cannot fail.
        let _done = writeln!(text, "   {:<11} {}", command.name, command.about);
    }
    text.push_str("   help        this page, or that of a command\n\nGLOBAL OPTIONS:\n");
    options(GLOBAL, &mut text);
    text
}

pub(crate) fn page(command: &CommandRow) -> String {
    let (name, about, words) = (command.name, command.about, command.words);
    let mut text = format!("NAME:\n   runb {name} - {about}\n\nUSAGE:\n   runb {name} ");
    if !command.flags.is_empty() {
        text.push_str("[command options] ");
    }
    let _done = writeln!(text, "{words}\n\nOPTIONS:");
    options(command.flags, &mut text);
    text
}

fn options(flags: &[Flag], text: &mut String) {
    let name = |flag: &Flag| {
        let value = if flag.kind == Kind::Switch { "" } else { " value" };
        let short = flag.short.map(|short| format!(", -{short}{value}")).unwrap_or_default();
        format!("--{}{value}{short}", flag.long)
    };
    let width = flags.iter().map(|flag| name(flag).len()).max().unwrap_or(0).max("--help, -h".len());
    for flag in flags {
        let _done = writeln!(text, "   {:<width$}  {}", name(flag), flag.help);
    }
    let _done = writeln!(text, "   {:<width$}  show help", "--help, -h");
}
