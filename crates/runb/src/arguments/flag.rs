//! Flags as runc's command line has them: `-f VALUE`, `-f=VALUE`, `--flag VALUE`, `--flag=VALUE`, long names with one dash, too; the
//! first word that is no flag ends them, except where flags may follow words. Text in, plain data out.

/// What follows a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// One value; the last one counts.
    Value,
    /// One value each time it is given.
    List,
}

/// One row of a command's table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) long: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
}

pub(crate) const fn switch(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, kind: Kind::Switch, help }
}

pub(crate) const fn value(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, kind: Kind::Value, help }
}

pub(crate) const fn list(long: &'static str, help: &'static str) -> Flag {
    Flag { long, short: None, kind: Kind::List, help }
}

impl Flag {
    pub(crate) const fn or(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    fn is_named(&self, name: &str) -> bool {
        name == self.long || self.short.is_some_and(|short| name.chars().eq([short]))
    }
}

/// What was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    values: Vec<(&'static str, String)>,
    /// The words after the flags.
    pub(crate) words: Vec<String>,
    pub(crate) wants_help: bool,
}

impl Given {
    /// Sorts words by a table; the first word that is no flag ends the flags, unless `interspersed`.
    ///
    /// # Errors
    /// What is wrong, for the user.
    pub(crate) fn parse(
        words: impl IntoIterator<Item = String>,
        table: &[Flag],
        interspersed: bool,
    ) -> Result<Self, String> {
        let mut given = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(name) = flag_name(&word) else {
                // `--` ends the flags and is no word itself.
                let is_end = word == "--";
                given.words.extend((!is_end).then_some(word));
                if interspersed && !is_end {
                    continue;
                }
                given.words.extend(words);
                return Ok(given);
            };
            let (name, attached) = match name.split_once('=') {
                Some((name, text)) => (name, Some(text.to_owned())),
                None => (name, None),
            };
            if name == "help" || name == "h" {
                given.wants_help = true;
                continue;
            }
            let flag = table.iter().find(|flag| flag.is_named(name));
            let flag = flag.ok_or_else(|| format!("flag provided but not defined: -{name}"))?;
            let text = match (flag.kind, attached) {
                (Kind::Switch, attached) => switch_text(name, attached)?,
                (_, Some(text)) => text,
                (_, None) => words.next().ok_or_else(|| format!("flag needs an argument: -{name}"))?,
            };
            given.values.push((flag.long, text));
        }
        Ok(given)
    }

    pub(crate) fn is_on(&self, long: &str) -> bool {
        self.last(long) == Some("true")
    }

    /// The value given last.
    pub(crate) fn last(&self, long: &str) -> Option<&str> {
        self.values.iter().rev().find(|(name, _)| *name == long).map(|(_, text)| text.as_str())
    }

    pub(crate) fn all(&self, long: &str) -> Vec<String> {
        self.values.iter().filter(|(name, _)| *name == long).map(|(_, text)| text.clone()).collect()
    }

    /// A value that must be of a type; an empty one counts as not given, as in runc.
    ///
    /// # Errors
    /// For the user.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, long: &str) -> Result<Option<T>, String> {
        let text = self.last(long).filter(|text| !text.is_empty());
        text.map(|text| text.parse().map_err(|_| format!("invalid value {text:?} for flag -{long}"))).transpose()
    }
}

fn flag_name(word: &str) -> Option<&str> {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    (!name.is_empty()).then_some(name)
}

fn switch_text(name: &str, attached: Option<String>) -> Result<String, String> {
    match attached.as_deref() {
        None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok("true".to_owned()),
        Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok("false".to_owned()),
        Some(other) => Err(format!("invalid boolean value {other:?} for -{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Flag] = &[switch("all", "").or('a'), value("bundle", "").or('b'), list("env", "").or('e')];

    fn given(text: &str) -> Result<Given, String> {
        Given::parse(text.split(' ').map(str::to_owned), TABLE, false)
    }

    #[test]
    fn flags_may_follow_words_where_a_command_takes_them() {
        let given = |text: &str| Given::parse(text.split(' ').map(str::to_owned), TABLE, true).unwrap();
        let after = given("id --bundle x -a other -- -b");
        assert_eq!((after.last("bundle"), after.is_on("all")), (Some("x"), true));
        assert_eq!(after.words, ["id", "other", "-b"]);
    }

    #[test]
    fn every_way_to_write_a_flag() {
        for text in ["--bundle x id", "-bundle x id", "-b x id", "-b=x id", "--bundle=x id", "-b y -b x id"] {
            let given = given(text).unwrap();
            assert_eq!(
                (given.last("bundle"), given.words.as_slice()),
                (Some("x"), ["id".to_owned()].as_slice()),
                "{text}"
            );
        }
        assert!(given("-a id").unwrap().is_on("all") && given("--all=true id").unwrap().is_on("all"));
        assert!(!given("-a --all=false id").unwrap().is_on("all"));
        assert_eq!(given("-e A=b -e C= id").unwrap().all("env"), ["A=b", "C="]);
        assert!(given("--help").unwrap().wants_help);
    }

    #[test]
    fn words_end_the_flags() {
        let words = |text: &str| given(text).unwrap().words;
        assert_eq!(words("id ls -a --env x"), ["id", "ls", "-a", "--env", "x"]);
        assert_eq!(words("-a -- -id x"), ["-id", "x"]);
        assert_eq!(words("- x"), ["-", "x"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |text: &str, expected: &str| assert_eq!(given(text).unwrap_err(), expected);
        check("--what id", "flag provided but not defined: -what");
        check("-b", "flag needs an argument: -b");
        check("--all=maybe id", "invalid boolean value \"maybe\" for -all");
        assert!(given("-b x id").unwrap().parsed::<u32>("bundle").is_err());
    }
}
