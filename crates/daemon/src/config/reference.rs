//! The reference in three forms, all from the command line's own parser: a file with every default, the values in force, and docs/configuration.md.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, CommandFactory as _};

use super::{DEFAULT_PATH, Resolved, keys, long};
use crate::options::Options;

pub(super) fn help(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default()
}

fn default(arg: &Arg) -> Option<String> {
    match arg.get_action() {
        ArgAction::SetTrue => Some("false".to_owned()),
        ArgAction::Append => Some("[]".to_owned()),
        _ => arg.get_default_values().first().map(|value| quoted(&value.to_string_lossy())),
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// What stands for a value that has no default.
fn placeholder(arg: &Arg) -> String {
    let name = arg.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name.as_str());
    quoted(name)
}

fn choices(arg: &Arg) -> Option<String> {
    let names: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    (!names.is_empty() && !matches!(arg.get_action(), ArgAction::SetTrue)).then(|| names.join(", "))
}

/// A file with every key at its default, each explained.
pub(crate) fn default_file() -> String {
    let mut text = format!(
        "# Configuration of berthd, {DEFAULT_PATH}. Every key is the flag of the same name; a flag given to berthd wins.\n"
    );
    for arg in keys(&Options::command()) {
        text.push_str(&format!("\n# {}\n", help(arg)));
        if let Some(choices) = choices(arg) {
            text.push_str(&format!("# One of: {choices}\n"));
        }
        match default(arg) {
            Some(value) => text.push_str(&format!("{} = {value}\n", long(arg))),
            None => text.push_str(&format!("# {} = {}\n", long(arg), placeholder(arg))),
        }
    }
    text
}

/// Every key with the value in force and where it comes from.
pub(crate) fn dump(resolved: &Resolved) -> String {
    let mut text = String::new();
    for arg in keys(&Options::command()) {
        let name = long(arg);
        let id = arg.get_id().as_str();
        let entry = resolved.entries.iter().find(|entry| entry.key == name);
        let source = match (resolved.given.iter().any(|given| given == name), entry, &resolved.file) {
            (true, _, _) => format!("flag --{name}"),
            (false, Some(entry), Some(file)) => format!("{}, line {}", file.display(), entry.line),
            _ => "default".to_owned(),
        };
        let raw: Vec<String> =
            resolved.matches.get_raw(id).into_iter().flatten().map(|value| quoted(&value.to_string_lossy())).collect();
        let value = match arg.get_action() {
            ArgAction::SetTrue => Some(resolved.matches.get_flag(id).to_string()),
            ArgAction::Append => Some(format!("[{}]", raw.join(", "))),
            _ if resolved.matches.value_source(id) == Some(ValueSource::DefaultValue) => default(arg),
            _ => raw.into_iter().next(),
        };
        match value {
            Some(value) => text.push_str(&format!("{name} = {value} # {source}\n")),
            None => text.push_str(&format!("# {name} is not set\n")),
        }
    }
    text
}

const PREFACE: &str = "\
# Configuration of berthd

`berthd` reads `/etc/berth/config.toml` when it is there, or the file that `--config FILE` names. It is TOML; every key is the long flag of
the same name. A flag on the command line wins over the file, the file over the default. No option is read from the environment. A key
that does not exist, or a value of the wrong kind, is refused with the line and the nearest name, and the daemon does not start.

```
berthd config default              # a file with every key at its default, to begin with
berthd config validate [FILE]      # checks a file, changes nothing
berthd config dump                 # the values in force, and where each comes from
berthd config reference            # this page
```

A change takes effect with the next start of the daemon; containers run on meanwhile.

Runtimes for `--runtime NAME` stand in tables: `[runtimes.NAME]` with `path` (an OCI runtime) and `args`, or with `type` (a shim) and `options`; see
[shims.md](shims.md). Each is what `--add-runtime` says on the command line.

| key | default | meaning |
|---|---|---|
";

/// docs/configuration.md.
pub(crate) fn reference() -> String {
    let mut text = PREFACE.to_owned();
    for arg in keys(&Options::command()) {
        let value = default(arg).map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"));
        let choices = choices(arg).map_or_else(String::new, |choices| format!(" One of: {choices}."));
        text.push_str(&format!("| `{}` | {value} | {}.{choices} |\n", long(arg), help(arg).replace('|', "\\|")));
    }
    text
}
