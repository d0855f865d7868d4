//! A subset of Go's text/template, as `--format` uses it: fields, pipelines, `if`, `range`, `with`, variables and the
//! functions people know from Docker. No user-defined templates, no method calls but `.Label`.
//!
//! The data is JSON. A field that is not there is an error when it is printed and false when it is tested.

mod evaluate;
mod function;
mod lexer;
mod parser;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::listing::Row;
use crate::failure::{Failure, Outcome};
use parser::Node;

pub(crate) use function::shown;

/// A template ready to be applied.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

/// What a template is applied to: the dot, and labels for `{{.Label "key"}}`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Data<'a> {
    pub(crate) value: &'a Value,
    pub(crate) labels: Option<&'a Map<String, Value>>,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        let nodes = parser::parse(text).map_err(|error| {
            Failure::new(format!("template {text:?}: {error}")).hint("for example: --format '{{.ID}} {{json .Labels}}'")
        })?;
        Ok(Self { nodes })
    }

    pub(crate) fn render(&self, data: &Data<'_>) -> Outcome<String> {
        evaluate::render(&self.nodes, data, false).map_err(|error| Failure::new(format!("template: {error}")))
    }

    /// The heading line of a table: functions are left out, `.Label "x"` is `x`.
    pub(super) fn render_heading(&self, row: &Row) -> Outcome<String> {
        let value = row.object();
        let data = Data { value: &value, labels: None };
        evaluate::render(&self.nodes, &data, true).map_err(|error| Failure::new(format!("template: {error}")))
    }
}
