//! The page for people: sections of aligned rows, each with a word of explanation.

use std::io::{self, Write};

use crate::json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Coloured,
}

impl Style {
    fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn faint(self, text: &str) -> String {
        self.wrap("2", text)
    }

    fn good(self, text: &str) -> String {
        self.wrap("36", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self == Self::Plain || text.is_empty() { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
    }
}

/// One subject: what people read, and the same for programs.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    /// One line that says what this is about.
    pub(crate) meaning: &'static str,
    pub(crate) rows: Vec<Row>,
    pub(crate) json: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) value: String,
    pub(crate) note: String,
}

impl Row {
    pub(crate) fn new(label: impl Into<String>, value: impl Into<String>, note: impl Into<String>) -> Self {
        Self { label: label.into(), value: value.into(), note: note.into() }
    }
}

/// Values longer than this do not push the notes of the other rows to the right.
const VALUE_WIDTH_MAX: usize = 34;

impl Section {
    pub(crate) fn write(&self, out: &mut impl Write, style: Style) -> io::Result<()> {
        writeln!(out, "\n{}  {}", style.bold(self.title), style.faint(self.meaning))?;
        let label_width = self.rows.iter().map(|row| width(&row.label)).max().unwrap_or_default();
        let value_width = self.rows.iter().map(|row| width(&row.value)).filter(|width| *width <= VALUE_WIDTH_MAX).max();
        for row in &self.rows {
            let label = padded(&row.label, label_width);
            let value = if row.note.is_empty() {
                row.value.clone()
            } else {
                padded(&row.value, value_width.unwrap_or_default())
            };
            let separator = if row.note.is_empty() { "" } else { "  " };
            let line = format!("  {label}  {}{separator}{}", style.good(&value), style.faint(&row.note));
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

pub(crate) fn heading(out: &mut impl Write, style: Style, contained: bool) -> io::Result<()> {
    let (hello, what) = if contained {
        ("Hello from inside a container.", "An ordinary process of this machine's kernel, with a view of its own.")
    } else {
        ("Hello from the host.", "This process sees the machine's own file systems: it is in no container.")
    };
    writeln!(out, "{}", style.bold(hello))?;
    writeln!(out, "{what} All of this was read just now.")
}

pub(crate) fn ending(out: &mut impl Write, style: Style) -> io::Result<()> {
    writeln!(out, "\n{}", style.faint("The same for programs: hello --json. Other words it knows: hello --help."))
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn padded(text: &str, to: usize) -> String {
    let missing = to.saturating_sub(width(text));
    format!("{text}{}", " ".repeat(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_aligned_and_long_values_do_not_widen_them() {
        let section = Section {
            key: "x",
            title: "Title",
            meaning: "meaning",
            rows: vec![
                Row::new("a", "1", "one"),
                Row::new("long", "22", "two"),
                Row::new("b", "v".repeat(50), "far"),
                Row::new("c", "3", ""),
            ],
            json: Value::Null,
        };
        let mut out = Vec::new();
        section.write(&mut out, Style::Plain).unwrap();
        let long = "v".repeat(50);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("\nTitle  meaning\n  a     1   one\n  long  22  two\n  b     {long}  far\n  c     3\n")
        );
    }

    #[test]
    fn colours_only_when_asked_for() {
        assert_eq!(Style::Plain.bold("x"), "x");
        assert_eq!(Style::Coloured.bold("x"), "\x1b[1mx\x1b[0m");
        assert_eq!(Style::Coloured.bold(""), "");
    }
}
