//! `-e`, `--env-file`, `-l`, `--label-file`: pairs from flags and from files of lines.

use std::collections::BTreeMap;
use std::io::Read;

use crate::context::Environment;
use crate::failure::{Failure, Outcome};

const FILE_BYTES_MAX: u64 = 4 << 20;

/// What a line without `=` means.
#[derive(Clone, Copy)]
pub(crate) enum Pairs<'a> {
    /// The value comes from our own environment; unset there: left out.
    Environment(&'a Environment),
    /// The value is empty.
    Labels,
}

impl Pairs<'_> {
    fn flag(self) -> &'static str {
        match self {
            Self::Environment(_) => "--env-file",
            Self::Labels => "--label-file",
        }
    }

    fn expand(self, text: &str) -> Option<String> {
        match self {
            _ if text.contains('=') => Some(text.to_owned()),
            Self::Environment(environment) => environment.get(text).map(|value| format!("{text}={value}")),
            Self::Labels => Some(format!("{text}=")),
        }
    }
}

/// Files first, then flags, as `KEY=VALUE`; a later one wins where the reader looks for the last.
pub(crate) fn key_values(kind: Pairs<'_>, files: &[String], flags: &[String]) -> Outcome<Vec<String>> {
    let mut pairs = Vec::new();
    for path in files {
        let text = read_file(kind, path)?;
        parse_lines(kind, path, &text, &mut pairs)?;
    }
    for text in flags {
        let key = text.split('=').next().unwrap_or_default();
        if key.is_empty() {
            let what = if matches!(kind, Pairs::Labels) { "label" } else { "environment variable" };
            return Err(Failure::new(format!("invalid {what} {text:?}: the name is empty")));
        }
        pairs.extend(kind.expand(text));
    }
    Ok(pairs)
}

fn read_file(kind: Pairs<'_>, path: &str) -> Outcome<String> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot read {} {path:?}", kind.flag())).because(&error);
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::new(format!("{} {path:?} is longer than {FILE_BYTES_MAX} bytes", kind.flag())));
    }
    String::from_utf8(text).map_err(|_| Failure::new(format!("{} {path:?} is not UTF-8 text", kind.flag())))
}

fn parse_lines(kind: Pairs<'_>, path: &str, text: &str, pairs: &mut Vec<String>) -> Outcome<()> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        let wrong = |why: &str| Failure::new(format!("{} {path:?}, line {}: {why}", kind.flag(), number + 1));
        if name.is_empty() {
            return Err(wrong("the name is empty"));
        }
        if name.contains(char::is_whitespace) {
            return Err(wrong(&format!("the name {name:?} contains a blank")));
        }
        pairs.extend(kind.expand(line));
    }
    Ok(())
}

/// Pairs as a map, the last one of a key winning.
pub(super) fn as_map(pairs: &[String]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

/// `--label` flags as the API's map.
pub(crate) fn parse_labels(flags: &[String]) -> Outcome<BTreeMap<String, String>> {
    Ok(as_map(&key_values(Pairs::Labels, &[], flags)?))
}

/// `KEY=VALUE` flags as a map.
pub(crate) fn options_map(flag: &str, flags: &[String]) -> Outcome<BTreeMap<String, String>> {
    flags
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::new(format!("invalid {flag} {text:?}")).hint("write KEY=VALUE")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment::new([("HOME".into(), "/root".into())])
    }

    fn file(text: &str) -> (tempfile::NamedTempFile, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().display().to_string();
        (file, path)
    }

    #[test]
    fn files_then_flags() {
        let (_keep, path) = file("\u{feff}# comment\n\n  A=1 2 # no comment\nHOME\nUNSET\nB=\n");
        let flags = ["A=3".to_owned(), "HOME".to_owned(), "UNSET".to_owned(), "E=".to_owned()];
        let environment = environment();
        let pairs = key_values(Pairs::Environment(&environment), &[path], &flags).unwrap();
        assert_eq!(pairs, ["A=1 2 # no comment", "HOME=/root", "B=", "A=3", "HOME=/root", "E="]);
        assert_eq!(as_map(&pairs)["A"], "3");
    }

    #[test]
    fn labels() {
        let (_keep, path) = file("a=b\nc\n");
        assert_eq!(key_values(Pairs::Labels, &[path], &["x".to_owned()]).unwrap(), ["a=b", "c=", "x="]);
    }

    #[test]
    fn refusals() {
        let environment = environment();
        let kind = Pairs::Environment(&environment);
        let failure = key_values(kind, &["/nonexistent/env".to_owned()], &[]).unwrap_err();
        assert_eq!(failure.message, "cannot read --env-file \"/nonexistent/env\"");
        assert_eq!(failure.because, ["No such file or directory (os error 2)"]);
        let failure = key_values(kind, &[], &["=x".to_owned()]).unwrap_err();
        assert_eq!(failure.message, "invalid environment variable \"=x\": the name is empty");
        let (_keep, path) = file("ok=1\na b=2\n");
        let failure = key_values(kind, std::slice::from_ref(&path), &[]).unwrap_err();
        assert_eq!(failure.message, format!("--env-file {path:?}, line 2: the name \"a b\" contains a blank"));
        let binary = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(binary.path(), b"A=\xff\n").unwrap();
        let path = binary.path().display().to_string();
        let failure = key_values(kind, std::slice::from_ref(&path), &[]).unwrap_err();
        assert_eq!(failure.message, format!("--env-file {path:?} is not UTF-8 text"));
    }
}
