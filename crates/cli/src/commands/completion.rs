//! `berth completion SHELL`: the only verb that builds the whole tree of parsers.

use clap::{Arg, ArgAction, Command, Parser, ValueEnum};
use clap_complete::{Shell, generate};

use super::{GROUPS, all};
use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    berth completion bash > /etc/bash_completion.d/berth\n  \
    berth completion zsh > ~/.zfunc/_berth\n  \
    berth completion fish > ~/.config/fish/completions/berth.fish")]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Script,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Script {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(arguments: Arguments, cx: &mut Context) -> Outcome {
    let shell = match arguments.shell {
        Script::Bash => Shell::Bash,
        Script::Zsh => Shell::Zsh,
        Script::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut tree(), "berth", &mut script);
    cx.out.write(&script)?;
    Ok(0)
}

fn tree() -> Command {
    let host = Arg::new("host").short('H').long("host").value_name("ADDRESS").help("Daemon to speak to");
    let debug = Arg::new("debug").short('D').long("debug").action(ArgAction::SetTrue).help("Print each request");
    let mut root = Command::new("berth").arg(host).arg(debug).disable_help_subcommand(true);
    for verb in all() {
        for name in verb.names.iter().filter(|name| !name.contains(' ')) {
            root = root.subcommand(leaf(verb, name, name));
        }
    }
    for (group, about) in GROUPS {
        let mut branch = Command::new(*group).about(*about).disable_help_subcommand(true);
        for verb in all() {
            for name in verb.names {
                if let Some(last) = name.strip_prefix(group).and_then(|rest| rest.strip_prefix(' ')) {
                    branch = branch.subcommand(leaf(verb, name, last));
                }
            }
        }
        root = root.subcommand(branch);
    }
    root
}

fn leaf(verb: &super::Verb, words: &str, name: &'static str) -> Command {
    crate::cli::command_of(verb, words).name(name).bin_name(format!("berth {words}"))
}
