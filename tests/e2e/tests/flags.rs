//! No flag of `run` is silently ignored: each that `--help` lists has an effect that is looked at here, or is refused by name; with
//! `berth` and with the stock docker client, whose list is its own.

#[path = "flags/cases.rs"]
mod cases;
#[path = "flags/special.rs"]
mod special;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use berth_testkit::{Instance, Output, instance};
use cases::{CASES, Effect};

/// A command line: the command for words.
type Client<'a> = &'a dyn Fn(&Instance, &[&str]) -> Command;

/// The long flags that a help text lists.
fn listed(help: &str) -> BTreeSet<String> {
    let flags = help.lines().filter_map(|line| {
        let flag = line.split_whitespace().find(|word| word.starts_with('-') && !word.ends_with(','))?;
        let name: String =
            flag.chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-').collect();
        (line.starts_with("  ") && name.starts_with("--")).then_some(name)
    });
    flags.collect()
}

fn every_flag(name: &str, client: Client<'_>) {
    let berth = Instance::with_busybox();
    let directory = berth.directory.join("given");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("env"), "# comment\nFROM_FILE=yes\n").unwrap();
    fs::write(directory.join("labels"), "from=file\n").unwrap();
    let directory = directory.to_str().unwrap();
    berth.sleeper("neighbour", &["-v", &format!("{directory}:/shared")]);
    let flags = listed(&instance::run(client(&berth, &["run", "--help"]), b"").stdout);
    assert!(flags.len() > 60, "{name} lists {flags:?}");
    let mut wrong = Vec::new();
    for flag in &flags {
        let Some((_, words, effect)) = CASES.iter().find(|(case, ..)| case == flag) else {
            wrong.push(format!("{flag} is not looked at"));
            continue;
        };
        let words: Vec<String> = words.iter().map(|word| word.replace("DIR", directory)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Err(problem) = look(&berth, client, &words, effect) {
            wrong.push(format!("{flag}: {problem}"));
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

fn look(berth: &Instance, client: Client<'_>, words: &[&str], effect: &Effect) -> Result<(), String> {
    let run = |words: &[&str]| -> Output { instance::run(client(berth, words), b"from the client\n") };
    match effect {
        Effect::Prints(script, text) => {
            let done = run(&[&["run", "--rm"], words, &["busybox", "sh", "-c", script]].concat());
            let shows = done.stdout.contains(text) || done.stderr.contains(text);
            shows.then_some(()).ok_or_else(|| format!("no {text:?} in {done:?}"))
        }
        Effect::Inspects(template, text) => {
            let made = run(&[&["create"], words, &["busybox", "true"]].concat());
            if made.code != 0 {
                return Err(format!("{made:?}"));
            }
            let id = made.stdout.trim();
            let shown = berth.berth(&["inspect", "--format", template, id]);
            berth.berth(&["rm", "-v", id]).ok();
            shown.stdout.contains(text).then_some(()).ok_or_else(|| format!("no {text:?} in {shown:?}"))
        }
        Effect::Refused(text) => {
            let done = run(&[&["run", "--rm"], words, &["busybox", "true"]].concat());
            let names_it = done.stderr.to_lowercase().contains(&text.to_lowercase());
            (done.code == 125 && names_it).then_some(()).ok_or_else(|| format!("not refused with {text:?}: {done:?}"))
        }
        Effect::Takes(test) => {
            test(berth, client);
            Ok(())
        }
    }
}

#[test]
fn every_flag_of_run_does_something() {
    every_flag("berth", &Instance::berth_command);
}

#[test]
fn every_flag_of_the_stock_client_does_something() {
    every_flag("docker", &Instance::docker_command);
}
