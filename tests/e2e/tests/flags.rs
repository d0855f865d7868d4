//! No flag of `run`, `exec` and `update` is silently ignored: each that `--help` lists has an effect that is looked at here, or is refused by name; with
//! `berth` and with the stock docker client, whose list is its own.

#[path = "flags/cases.rs"]
mod cases;
#[path = "flags/special.rs"]
mod special;
#[path = "flags/verbs.rs"]
mod verbs;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use berth_testkit::{Instance, Output, instance};
use cases::{CASES, Case, Effect};

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

/// A verb, the table of its flags, and how few `--help` may list.
struct Verb {
    name: &'static str,
    cases: &'static [Case],
    at_least: usize,
}

fn every_flag(name: &str, client: Client<'_>, verb: &Verb) {
    let berth = Instance::with_busybox();
    let directory = berth.directory.join("given");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("env"), "# comment\nFROM_FILE=yes\n").unwrap();
    fs::write(directory.join("labels"), "from=file\n").unwrap();
    let directory = directory.to_str().unwrap();
    berth.sleeper("neighbour", &["-v", &format!("{directory}:/shared")]);
    berth.sleeper("changed", &["-m", "256m", "--memory-swap", "512m"]);
    let flags = listed(&instance::run(client(&berth, &[verb.name, "--help"]), b"").stdout);
    assert!(flags.len() >= verb.at_least, "{name} lists {flags:?}");
    let mut wrong = Vec::new();
    for flag in &flags {
        let Some((_, words, effect)) = verb.cases.iter().find(|(case, ..)| case == flag) else {
            wrong.push(format!("{flag} is not looked at"));
            continue;
        };
        let words: Vec<String> = words.iter().map(|word| word.replace("DIR", directory)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let seen = match verb.name {
            "update" => look_after_update(&berth, client, &words, effect),
            name => look(&berth, client, name, &words, effect),
        };
        if let Err(problem) = seen {
            wrong.push(format!("{flag}: {problem}"));
        }
    }
    assert!(wrong.is_empty(), "{name} {}:\n{}", verb.name, wrong.join("\n"));
}

fn contains(done: &Output, text: &str) -> Result<(), String> {
    let shows = done.stdout.contains(text) || done.stderr.contains(text);
    shows.then_some(()).ok_or_else(|| format!("no {text:?} in {done:?}"))
}

fn is_refused(done: &Output, text: &str) -> Result<(), String> {
    let names_it = done.stderr.to_lowercase().contains(&text.to_lowercase());
    (done.code != 0 && names_it).then_some(()).ok_or_else(|| format!("not refused with {text:?}: {done:?}"))
}

/// One flag of `run` or `exec`.
fn look(berth: &Instance, client: Client<'_>, verb: &str, words: &[&str], effect: &Effect) -> Result<(), String> {
    let run = |words: &[&str]| -> Output { instance::run(client(berth, words), b"from the client\n") };
    let (start, target): (&[&str], &str) =
        if verb == "exec" { (&["exec"], "changed") } else { (&["run", "--rm"], "busybox") };
    match effect {
        Effect::Prints(script, text) => contains(&run(&[start, words, &[target, "sh", "-c", script]].concat()), text),
        Effect::Inspects(template, text) => {
            let made = run(&[&["create"], words, &["busybox", "true"]].concat());
            if made.code != 0 {
                return Err(format!("{made:?}"));
            }
            let id = made.stdout.trim();
            let shown = berth.berth(&["inspect", "--format", template, id]);
            berth.berth(&["rm", "-v", id]).ok();
            contains(&shown, text)
        }
        Effect::Refused(text) => {
            let done = run(&[start, words, &[target, "true"]].concat());
            is_refused(&done, text)?;
            (done.code == 125).then_some(()).ok_or_else(|| format!("{done:?}"))
        }
        Effect::Takes(test) => {
            test(berth, client);
            Ok(())
        }
    }
}

fn look_after_update(berth: &Instance, client: Client<'_>, words: &[&str], effect: &Effect) -> Result<(), String> {
    if let Effect::Takes(test) = effect {
        test(berth, client);
        return Ok(());
    }
    let done = instance::run(client(berth, &[&["update"], words, &["changed"]].concat()), b"");
    match effect {
        Effect::Refused(text) => is_refused(&done, text),
        _ if done.code != 0 => Err(format!("{done:?}")),
        Effect::Prints(script, text) => contains(&berth.berth(&["exec", "changed", "sh", "-c", script]), text),
        Effect::Inspects(template, text) => contains(&berth.berth(&["inspect", "--format", template, "changed"]), text),
        Effect::Takes(_) => unreachable!("it was run before"),
    }
}

const RUN: Verb = Verb { name: "run", cases: CASES, at_least: 60 };
const EXEC: Verb = Verb { name: "exec", cases: verbs::EXEC, at_least: 9 };
const UPDATE: Verb = Verb { name: "update", cases: verbs::UPDATE, at_least: 14 };

#[test]
fn every_flag_of_run_does_something() {
    every_flag("berth", &Instance::berth_command, &RUN);
}

#[test]
fn every_flag_of_the_stock_client_does_something() {
    every_flag("docker", &Instance::docker_command, &RUN);
}

#[test]
fn every_flag_of_exec_and_update_does_something() {
    for verb in [EXEC, UPDATE] {
        every_flag("berth", &Instance::berth_command, &verb);
        every_flag("docker", &Instance::docker_command, &verb);
    }
}
