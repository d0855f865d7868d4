//! The configuration file: TOML, one key per long flag and of the same name. Flags override the file, the file overrides the defaults.
//!
//! The command line's own parser is the only authority on names, values and defaults: keys of the file are handed to it as flags. So a
//! new flag is a new key, in the reference too, and both are refused in the same words.

mod nearest;
mod reference;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use berth_engine::api::Runtimes;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(crate) use reference::{default_file, dump, reference};

use crate::options::Options;

/// Read when it is there and no other is named.
pub(crate) const DEFAULT_PATH: &str = "/etc/berth/config.toml";
/// Flags that are no keys: where the file is, and clap's own.
const NO_KEYS: [&str; 3] = ["config", "help", "version"];
/// Tables of runtimes, and the flag each stands for.
const RUNTIMES: &str = "runtimes";
const ADD_RUNTIME: &str = "add-runtime";
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write")]
    Write { source: std::io::Error },
    #[error("{}, line {line}: {problem}", .path.display())]
    Line { path: PathBuf, line: usize, problem: String },
}

/// One key of the file as the flags it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: usize,
    flags: Vec<String>,
}

/// Options, and where each came from.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) options: Options,
    pub(crate) matches: ArgMatches,
    pub(crate) file: Option<PathBuf>,
    pub(crate) entries: Vec<Entry>,
    /// Flags given on the command line itself.
    pub(crate) given: Vec<String>,
}

/// Every flag that may stand in the file, in the order of the help page.
pub(crate) fn keys(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && arg.get_long().is_some_and(|long| !NO_KEYS.contains(&long)))
}

fn long(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_default()
}

/// Parses the command line, reads the file it names (or the default one), and parses both together.
///
/// # Errors
/// Inside: what is wrong with the file. Outside: clap's own refusal of the command line, or its help page.
pub(crate) fn resolve(arguments: &[OsString]) -> Result<Result<Resolved, ConfigError>, clap::Error> {
    let matches = Options::command().try_get_matches_from(arguments)?;
    let named = matches.get_one::<PathBuf>("config").cloned();
    let file = named.or_else(|| Some(PathBuf::from(DEFAULT_PATH)).filter(|path| path.exists()));
    let command = Options::command();
    let given: Vec<String> = keys(&command)
        .filter(|arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine))
        .map(|arg| long(arg).to_owned())
        .collect();
    let entries = match file.as_deref().map(load).transpose() {
        Ok(entries) => entries.unwrap_or_default(),
        Err(error) => return Ok(Err(error)),
    };
    let program = arguments.first().cloned().unwrap_or_else(|| "berthd".into());
    let from_file = entries
        .iter()
        .filter(|entry| !given.contains(&entry.key))
        .flat_map(|entry| entry.flags.iter().map(OsString::from));
    let all = std::iter::once(program).chain(from_file).chain(arguments.iter().skip(1).cloned());
    let matches = Options::command().try_get_matches_from(all)?;
    let options = Options::from_arg_matches(&matches)?;
    Ok(Ok(Resolved { options, matches, file, entries, given }))
}

/// Reads and checks a file.
pub(crate) fn load(path: &Path) -> Result<Vec<Entry>, ConfigError> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|(line, problem)| ConfigError::Line { path: path.to_owned(), line, problem })
}

type Problem = (usize, String);

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

fn parse(text: &str) -> Result<Vec<Entry>, Problem> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        (line, error.message().to_owned())
    })?;
    let command = Options::command();
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let line = line_of(text, key.span().start);
        if let (RUNTIMES, DeValue::Table(runtimes)) = (key.get_ref().as_ref(), value.get_ref()) {
            for (name, value) in runtimes {
                let line = line_of(text, name.span().start);
                entries.push(runtime(name.get_ref(), value.get_ref(), line).map_err(|problem| (line, problem))?);
            }
            continue;
        }
        entries.push(entry(&command, key.get_ref(), value, line).map_err(|problem| (line, problem))?);
    }
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn entry(command: &Command, key: &str, value: &Spanned<DeValue<'_>>, line: usize) -> Result<Entry, String> {
    let Some(arg) = keys(command).find(|arg| long(arg) == key) else {
        let names = keys(command).map(|arg| long(arg).to_owned()).collect::<Vec<_>>();
        let hint = nearest::nearest(key, names.iter().map(String::as_str));
        let hint = hint.map_or_else(String::new, |name| format!("; is {name} meant?"));
        return Err(format!("unknown key {key:?}{hint}"));
    };
    let flags = flags(arg, value.get_ref()).map_err(|wanted| format!("{key} is not {wanted}"))?;
    // Each key alone, so that a refusal is about its line.
    let program = std::iter::once("berthd".to_owned());
    if let Err(error) = Options::command().try_get_matches_from(program.chain(flags.iter().cloned())) {
        return Err(first_sentence(&error.to_string()));
    }
    Ok(Entry { key: key.to_owned(), line, flags })
}

/// A table `[runtimes.NAME]` as the flag that says the same.
fn runtime(name: &str, value: &DeValue<'_>, line: usize) -> Result<Entry, String> {
    let DeValue::Table(_) = value else { return Err(format!("{RUNTIMES}.{name} is not a table")) };
    let text =
        format!("{name}={}", json(value).ok_or_else(|| format!("{RUNTIMES}.{name} holds a date or a fraction"))?);
    if let Err(error) = Runtimes::parse(std::slice::from_ref(&text), None) {
        return Err(error.message);
    }
    Ok(Entry { key: ADD_RUNTIME.to_owned(), line, flags: vec![format!("--{ADD_RUNTIME}={text}")] })
}

fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => number.as_str().parse::<i64>().ok()?.into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect::<Option<Vec<_>>>()?.into(),
        DeValue::Table(table) => {
            let fields = table.iter().map(|(key, value)| Some((key.get_ref().to_string(), json(value.get_ref())?)));
            serde_json::Value::Object(fields.collect::<Option<_>>()?)
        }
        DeValue::Float(_) | DeValue::Datetime(_) => return None,
    })
}

/// Clap's words without its frame.
fn first_sentence(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// The value as flags, or what it should have been.
fn flags(arg: &Arg, value: &DeValue<'_>) -> Result<Vec<String>, &'static str> {
    let flag = |text: String| format!("--{}={text}", long(arg));
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, DeValue::Boolean(true)) => Ok(vec![format!("--{}", long(arg))]),
        (ArgAction::SetTrue, DeValue::Boolean(false)) => Ok(Vec::new()),
        (ArgAction::SetTrue, _) => Err("true or false"),
        (ArgAction::Append, DeValue::Array(items)) => {
            items.iter().map(|item| scalar(item.get_ref()).map(flag).ok_or("a list of strings")).collect()
        }
        (ArgAction::Append, _) => Err("a list of strings, as in [\"a\", \"b\"]"),
        (_, value) => scalar(value).map(|text| vec![flag(text)]).ok_or("a string or a number"),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}
