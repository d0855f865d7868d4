//! From the process's arguments to one verb: global flags, the verb's own parser, the report of a failure.
//!
//! Only the parser of the verb at hand is built; a tree of all of them costs more than most commands do.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};

use crate::client::{Address, Client};
use crate::commands::{self, GROUPS, Verb};
use crate::context::{Context, Environment};
use crate::failure::{ENGINE_FAILURE, Failure, Outcome};
use crate::output::Output;
use crate::request::Refused;

/// Flags in front of the verb.
#[derive(Debug, Default, PartialEq, Eq)]
struct Globals {
    host: Option<String>,
    is_debug: bool,
}

/// What the words in front ask for.
#[derive(Debug)]
enum Request {
    Verb(&'static Verb, usize),
    /// Help of the program, or of a group.
    Help(Option<&'static str>),
    /// Help of a verb, as `help VERB` asks for it.
    VerbHelp(&'static Verb, String),
    Version,
}

/// Runs one command line; `arguments` without the program's name.
pub(crate) fn run(arguments: Vec<OsString>, environment: Environment) -> ExitCode {
    let mut out = Output::new();
    let failure = match dispatch(arguments, environment, &mut out) {
        Ok(code) => return ExitCode::from(code),
        Err(failure) => failure,
    };
    if !failure.is_quiet {
        out.notice(&failure);
    }
    ExitCode::from(failure.exit_code)
}

fn dispatch(arguments: Vec<OsString>, environment: Environment, out: &mut Output) -> Outcome {
    let (globals, rest) = globals(&arguments)?;
    let words: Vec<&str> = rest.iter().map_while(|word| word.to_str()).collect();
    match find(&words)? {
        Request::Version => {
            out.line(format!("Berth version {}", env!("CARGO_PKG_VERSION")))?;
            out.flush()?;
            Ok(0)
        }
        Request::Help(group) => {
            out.write(overview(group).as_bytes())?;
            out.flush()?;
            Ok(0)
        }
        Request::VerbHelp(verb, words) => {
            out.write(command_of(verb, &words).render_help().to_string().as_bytes())?;
            out.flush()?;
            Ok(0)
        }
        Request::Verb(verb, depth) => {
            let parsed = match parse(verb, &words[..depth], &rest[depth..]) {
                Ok(matches) => matches,
                Err(error) => return explained(verb, &words[..depth], &error, out),
            };
            Refused::check(verb.refused, &parsed)?;
            let (named, source) = match &globals.host {
                Some(host) => (Some(host.as_str()), "-H"),
                None => (environment.get("BERTH_HOST"), "BERTH_HOST"),
            };
            let mut client = Client::new(Address::parse(named, source)?);
            client.set_debug(globals.is_debug);
            let mut context = Context { client, out: Output::new(), environment };
            let code = (verb.run)(&parsed, &mut context)?;
            context.out.flush()?;
            Ok(code)
        }
    }
}

/// Splits off the flags in front of the verb.
fn globals(arguments: &[OsString]) -> Outcome<(Globals, &[OsString])> {
    let mut globals = Globals::default();
    let mut at = 0;
    while let Some(word) = arguments.get(at).and_then(|word| word.to_str()) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word, None),
        };
        at += 1;
        match name {
            "-D" | "--debug" => globals.is_debug = true,
            "-H" | "--host" => {
                let next = || arguments.get(at).and_then(|word| word.to_str()).map(str::to_owned);
                if value.is_none() {
                    globals.host = next();
                    at += 1;
                } else {
                    globals.host = value;
                }
                if globals.host.is_none() {
                    return Err(Failure::new(format!("{name} needs an address")).hint("-H unix:///path/docker.sock"));
                }
            }
            _ if name.starts_with("-H") && !name.starts_with("--") => globals.host = Some(word[2..].to_owned()),
            "-c" | "--context" | "--config" | "-l" | "--log-level" | "--tls" | "--tlscacert" | "--tlscert"
            | "--tlskey" | "--tlsverify" => return Err(Failure::not_yet(format!("the global flag {name}"))),
            _ => return Ok((globals, &arguments[at - 1..])),
        }
    }
    Ok((globals, &arguments[at.min(arguments.len())..]))
}

fn find(words: &[&str]) -> Outcome<Request> {
    let Some(first) = words.first() else { return Ok(Request::Help(None)) };
    match *first {
        "--version" | "-v" => return Ok(Request::Version),
        "--help" | "-h" => return Ok(Request::Help(None)),
        "help" => return help_of(&words[1..]),
        _ => {}
    }
    if let Some((group, _)) = GROUPS.iter().find(|(group, _)| group == first) {
        return match words.get(1) {
            None | Some(&("--help" | "-h")) => Ok(Request::Help(Some(group))),
            Some(second) => match commands::lookup(&format!("{group} {second}")) {
                Some(verb) => Ok(Request::Verb(verb, 2)),
                None => Err(missing(&format!("{group} {second}"), &format!("berth {group} --help"))),
            },
        };
    }
    if let Some(verb) = words.get(1).and_then(|second| commands::lookup(&format!("{first} {second}"))) {
        return Ok(Request::Verb(verb, 2));
    }
    match commands::lookup(first) {
        Some(verb) => Ok(Request::Verb(verb, 1)),
        None => Err(missing(first, "berth --help")),
    }
}

/// `berth help run` is `berth run --help`.
fn help_of(words: &[&str]) -> Outcome<Request> {
    match find(words)? {
        Request::Verb(verb, depth) => Ok(Request::VerbHelp(verb, words[..depth].join(" "))),
        other => Ok(other),
    }
}

/// A verb of Docker's that is not there yet, or no verb at all.
fn missing(words: &str, help: &str) -> Failure {
    if let Some(reason) = commands::not_yet(words) {
        return Failure::not_yet(format!("berth {words}: {reason}"));
    }
    let close = commands::closest(words).map(|name| format!("did you mean \"berth {name}\"? ")).unwrap_or_default();
    Failure::new(format!("unknown command: berth {words}")).hint(format!("{close}see {help}"))
}

/// The parser of one verb, as help and completion show it.
pub(crate) fn command_of(verb: &Verb, words: &str) -> Command {
    let has_hostname_flag = matches!(verb.names[0], "run" | "create");
    let help = Arg::new("help").long("help").action(ArgAction::Help).help("Print this page");
    let help = if has_hostname_flag { help } else { help.short('h') };
    let command = (verb.build)()
        .name(verb.names[0])
        .bin_name(format!("berth {words}"))
        .disable_help_flag(true)
        .disable_version_flag(true);
    command.args_override_self(true).next_help_heading(None::<&str>).arg(help)
}

fn parse(verb: &Verb, words: &[&str], rest: &[OsString]) -> Result<clap::ArgMatches, clap::Error> {
    let command = with_boolean_values(command_of(verb, &words.join(" ")));
    let command = Refused::declare(verb.refused, command).no_binary_name(true);
    command.try_get_matches_from(rest)
}

/// Docker's switches take `=true` and `=false`.
fn with_boolean_values(command: Command) -> Command {
    command.mut_args(|arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        arg.action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(boolean)
    })
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err("it is true or false".to_owned()),
    }
}

/// Help goes to stdout; a wrong flag is a failure in our form.
fn explained(verb: &Verb, words: &[&str], error: &clap::Error, out: &mut Output) -> Outcome {
    let words = words.join(" ");
    if error.kind() == ErrorKind::DisplayHelp {
        let mut command = command_of(verb, &words);
        let help = command.render_help().to_string();
        out.write(help.as_bytes())?;
        out.flush()?;
        return Ok(0);
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // clap adds usage and tips behind the first paragraph; the hint says where to find them.
    let first: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let mut message = first.join(" ");
    if let Some(tip) =
        text.lines().find_map(|line| line.trim().strip_prefix("tip: ").filter(|tip| tip.contains("similar")))
    {
        message = format!("{message} ({tip})");
    }
    Err(Failure { exit_code: ENGINE_FAILURE, ..Failure::new(message) }.hint(format!("see berth {words} --help")))
}

/// The page of `berth --help`, or of `berth container --help`.
fn overview(group: Option<&str>) -> String {
    match group {
        None => program_overview(),
        Some(group) => {
            let about = GROUPS.iter().find(|(name, _)| *name == group).map_or("", |(_, about)| about);
            let verbs = commands::all().filter_map(|verb| {
                let name = verb.names.iter().find_map(|name| name.strip_prefix(group)?.strip_prefix(' '))?;
                Some((name.to_owned(), verb))
            });
            format!(
                "{about}\n\nUsage: berth {group} COMMAND\n\nCommands:\n{}\nRun 'berth {group} COMMAND --help' for more on a command.\n",
                verb_lines(verbs)
            )
        }
    }
}

fn program_overview() -> String {
    let common = commands::all().filter_map(|verb| {
        let name = verb.names.iter().find(|name| !name.contains(' '))?;
        Some(((*name).to_owned(), verb))
    });
    let mut lines: Vec<(String, &Verb)> = common.collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    let groups: String = GROUPS.iter().map(|(name, about)| format!("  {name:<12} {about}\n")).collect();
    format!(
        "A container engine for Linux: every process its own berth.\n\n\
         Usage: berth [OPTIONS] COMMAND\n\n\
         Commands:\n{}\nGroups:\n{groups}\n\
         Options:\n\
         \x20 -H, --host ADDRESS   Daemon to speak to: unix:///path/docker.sock [env: BERTH_HOST]\n\
         \x20 -D, --debug          Print each request to the daemon on stderr\n\
         \x20 -v, --version        Print the version\n\
         \x20     --help           Print this page\n\n\
         Examples:\n\
         \x20 berth load -i image.tar\n\
         \x20 berth run --rm -it busybox sh\n\
         \x20 berth run --rm --trace busybox true\n\n\
         Run 'berth COMMAND --help' for more on a command.\n",
        verb_lines(lines.into_iter())
    )
}

fn verb_lines<'a>(verbs: impl Iterator<Item = (String, &'a Verb)>) -> String {
    verbs.map(|(name, verb)| format!("  {name:<12} {}\n", verb.about)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(words: &[&str]) -> Outcome<(Globals, usize)> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let total = words.len();
        globals(&words).map(|(globals, rest)| (globals, total - rest.len()))
    }

    #[test]
    fn flags_in_front() {
        let host = |text: &str| Globals { host: Some(text.to_owned()), is_debug: false };
        assert_eq!(split(&["-H", "unix:///a", "ps"]).unwrap(), (host("unix:///a"), 2));
        assert_eq!(split(&["--host=unix:///a", "ps", "-a"]).unwrap(), (host("unix:///a"), 1));
        assert_eq!(split(&["-Hunix:///a", "ps"]).unwrap(), (host("unix:///a"), 1));
        assert_eq!(split(&["-D", "ps"]).unwrap(), (Globals { host: None, is_debug: true }, 1));
        assert_eq!(split(&["--help"]).unwrap(), (Globals::default(), 0));
        assert!(split(&["-H"]).is_err());
        assert_eq!(split(&["--tls", "ps"]).unwrap_err().message, "not yet: the global flag --tls");
    }

    #[test]
    fn every_parser_is_sound() {
        for verb in commands::all() {
            command_of(verb, verb.names[0]).debug_assert();
            Refused::declare(verb.refused, with_boolean_values(command_of(verb, verb.names[0]))).debug_assert();
        }
    }

    #[test]
    fn switches_take_values() {
        let verb = commands::lookup("run").unwrap();
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let matches =
            parse(verb, &["run"], &words(&["-it", "--rm=false", "--init", "img", "-c", "--rm=true"])).unwrap();
        assert!(matches.get_flag("interactive") && matches.get_flag("tty") && matches.get_flag("init"));
        assert!(!matches.get_flag("rm"));
        let rest: Vec<&String> = matches.get_many("words").unwrap().collect();
        assert_eq!(rest, ["img", "-c", "--rm=true"]);
        assert!(parse(verb, &["run"], &words(&["--rm=maybe", "img"])).is_err());
        assert!(parse(verb, &["run"], &words(&["--bogus", "img"])).is_err());
    }
}
