//! A listing: named columns, rows, and the four ways to print them: Docker's table, a template, JSON lines, ids only.

use serde_json::{Map, Value};

use super::Output;
use super::table::Tabs;
use super::template::{Data, Template};
use crate::failure::{Failure, Outcome};

/// A column: the field's name in templates and JSON, and its heading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) field: &'static str,
    pub(crate) heading: &'static str,
}

impl Column {
    pub(crate) const fn new(field: &'static str, heading: &'static str) -> Self {
        Self { field, heading }
    }
}

/// One row: every field of the listing, and the labels for `{{.Label "key"}}`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// By name, in any order: there are few.
    fields: Vec<(&'static str, Value)>,
    pub(crate) labels: Map<String, Value>,
}

impl Row {
    pub(crate) fn set(&mut self, field: &'static str, value: impl Into<Value>) {
        self.fields.push((field, value.into()));
    }

    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.fields.iter().find(|(name, _)| *name == field).map(|(_, value)| value)
    }

    /// As templates and JSON have it.
    pub(crate) fn object(&self) -> Value {
        Value::Object(self.fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }
}

/// How to print, as the flags ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Style {
    /// The columns given by the verb.
    #[default]
    Table,
    /// `table TEMPLATE`: headings and columns from the template.
    TableTemplate(String),
    /// A template per row.
    Template(String),
    /// One JSON object per row and line.
    Json,
}

impl Style {
    /// Reads `--format` and `--json`.
    pub(crate) fn parse(format: Option<&str>, json: bool) -> Outcome<Self> {
        match format.map(str::trim) {
            Some(_) if json => Err(Failure::new("--format and --json exclude each other")),
            None | Some("" | "table") if !json => Ok(Self::Table),
            None | Some("json" | "{{json .}}") => Ok(Self::Json),
            Some(text) => Ok(match text.strip_prefix("table") {
                Some(rest) if rest.starts_with([' ', '\t', '\\']) => {
                    Self::TableTemplate(unescaped(rest.trim_start_matches(' ')))
                }
                _ => Self::Template(unescaped(text)),
            }),
        }
    }
}

/// `\t` and `\n` as two characters, the way shells hand them over.
fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// The whole listing.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    /// Every field a template may name, with its heading.
    pub(crate) known: &'a [Column],
    /// The fields of the plain table, in order.
    pub(crate) shown: &'a [&'a str],
    pub(crate) rows: Vec<Row>,
}

impl Listing<'_> {
    pub(crate) fn print(&self, style: &Style, out: &mut Output) -> Outcome<()> {
        let text = self.render(style)?;
        out.write(text.as_bytes())
    }

    pub(crate) fn render(&self, style: &Style) -> Outcome<String> {
        match style {
            Style::Table => Ok(self.table()),
            Style::Json => Ok(self.rows.iter().map(|row| format!("{}\n", row.object())).collect()),
            Style::Template(text) => self.templated(text, false),
            Style::TableTemplate(text) => Ok(Tabs::LISTING.layout(&self.templated(text, true)?)),
        }
    }

    fn heading<'b>(&self, field: &'b str) -> &'b str {
        self.known.iter().find(|column| column.field == field).map_or(field, |column| column.heading)
    }

    fn table(&self) -> String {
        let mut text = self.shown.iter().map(|field| self.heading(field)).collect::<Vec<_>>().join("\t");
        text.push('\n');
        for row in &self.rows {
            for (index, field) in self.shown.iter().enumerate() {
                if index > 0 {
                    text.push('\t');
                }
                match row.get(field) {
                    Some(Value::String(cell)) => push_line(&mut text, cell),
                    Some(value) => push_line(&mut text, &super::template::shown(value)),
                    None => {}
                }
            }
            text.push('\n');
        }
        Tabs::LISTING.layout(&text)
    }

    fn templated(&self, text: &str, headings: bool) -> Outcome<String> {
        let template = Template::parse(text)?;
        let mut out = String::new();
        if headings {
            let fields = self.known.iter().map(|column| (column.field, column.heading.into())).collect();
            let row = Row { fields, labels: Map::new() };
            out.push_str(&template.render_heading(&row)?);
            out.push('\n');
        }
        for row in &self.rows {
            let data = row.object();
            out.push_str(&template.render(&Data { value: &data, labels: Some(&row.labels) })?);
            out.push('\n');
        }
        Ok(out)
    }
}

/// A cell never breaks the table.
fn push_line(text: &mut String, cell: &str) {
    let mut parts = cell.split(['\t', '\n', '\r']);
    text.push_str(parts.next().unwrap_or_default());
    parts.for_each(|part| {
        text.push(' ');
        text.push_str(part);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Column; 3] =
        [Column::new("ID", "CONTAINER ID"), Column::new("Names", "NAMES"), Column::new("Labels", "LABELS")];

    fn listing() -> Listing<'static> {
        let mut row = Row::default();
        row.set("ID", "abc");
        row.set("Names", "web");
        row.set("Labels", "a=b");
        row.labels.insert("a".to_owned(), "b".into());
        Listing { known: &KNOWN, shown: &["ID", "Names"], rows: vec![row] }
    }

    fn check(format: Option<&str>, json: bool, expect: &str) {
        let style = Style::parse(format, json).unwrap();
        assert_eq!(listing().render(&style).unwrap(), expect, "{format:?}");
    }

    #[test]
    fn styles() {
        check(None, false, "CONTAINER ID   NAMES\nabc            web\n");
        check(Some("table"), false, "CONTAINER ID   NAMES\nabc            web\n");
        check(Some("table {{.Names}}\\t{{.ID}}"), false, "NAMES     CONTAINER ID\nweb       abc\n");
        check(Some("{{.ID}}: {{.Label \"a\"}}"), false, "abc: b\n");
        check(Some("table {{.ID}}\t{{.Label \"a\"}}"), false, "CONTAINER ID   a\nabc            b\n");
        check(Some("table {{upper .ID}}"), false, "CONTAINER ID\nABC\n");
        check(None, true, "{\"ID\":\"abc\",\"Labels\":\"a=b\",\"Names\":\"web\"}\n");
        check(Some("json"), false, "{\"ID\":\"abc\",\"Labels\":\"a=b\",\"Names\":\"web\"}\n");
        assert!(Style::parse(Some("json"), true).is_err());
        let style = Style::parse(Some("{{.Nope}}"), false).unwrap();
        let failure = listing().render(&style).unwrap_err();
        assert_eq!(failure.message, "template: no field \"Nope\"; there are: ID, Labels, Names");
    }
}
