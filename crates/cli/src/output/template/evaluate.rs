//! Walks the tree over the data.

use serde_json::{Map, Value};

use super::Data;
use super::function::{self, is_true, shown};
use super::parser::{Base, Command, Node, Operand, Pipeline};

/// A template's output is for a person or a script's line, not for filling a disk.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// More fields than this are not all named in an error.
const SUGGESTIONS_MAX: usize = 16;

type Evaluated<T> = Result<T, String>;

/// What is looked up: a value, or a field that is not there (printed: an error; tested: false).
enum Found {
    Value(Value),
    Missing(String),
}

impl Found {
    fn printed(self) -> Evaluated<Value> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Missing(error) => Err(error),
        }
    }

    fn tested(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Missing(_) => Value::Null,
        }
    }
}

struct Evaluator<'a> {
    labels: Option<&'a Map<String, Value>>,
    root: &'a Value,
    variables: Vec<(String, Value)>,
    out: String,
    is_heading: bool,
}

/// With `is_heading` the data are column headings: functions pass their last argument through.
pub(super) fn render(nodes: &[Node], data: &Data<'_>, is_heading: bool) -> Evaluated<String> {
    let mut evaluator =
        Evaluator { labels: data.labels, root: data.value, variables: Vec::new(), out: String::new(), is_heading };
    evaluator.nodes(nodes, data.value)?;
    Ok(evaluator.out)
}

impl Evaluator<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Evaluated<()> {
        let scope = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
            if self.out.len() > OUTPUT_BYTES_MAX {
                return Err("the output is too long".to_owned());
            }
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Evaluated<()> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?.printed()?;
                if pipeline.variables.is_empty() {
                    self.out.push_str(&shown(&value));
                }
            }
            Node::If { branches, otherwise } => {
                for (condition, body) in branches {
                    if is_true(&self.pipeline(condition, dot)?.tested()) {
                        return self.nodes(body, dot);
                    }
                }
                self.nodes(otherwise, dot)?;
            }
            Node::With { pipeline, body, otherwise } => {
                let value = self.pipeline(pipeline, dot)?.tested();
                if is_true(&value) {
                    self.nodes(body, &value)?;
                } else {
                    self.nodes(otherwise, dot)?;
                }
            }
            Node::Range { pipeline, body, otherwise } => self.range(pipeline, body, otherwise, dot)?,
        }
        Ok(())
    }

    fn range(&mut self, pipeline: &Pipeline, body: &[Node], otherwise: &[Node], dot: &Value) -> Evaluated<()> {
        let scope = self.variables.len();
        let bare = Pipeline { variables: Vec::new(), ..pipeline.clone() };
        let items: Vec<(Value, Value)> = match self.pipeline(&bare, dot)?.tested() {
            Value::Array(items) => items.into_iter().enumerate().map(|(i, item)| (i.into(), item)).collect(),
            Value::Object(map) => map.into_iter().map(|(key, item)| (key.into(), item)).collect(),
            Value::Null => Vec::new(),
            other => return Err(format!("range cannot iterate over {}", shown(&other))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            match pipeline.variables.as_slice() {
                [value] => self.variables.push((value.clone(), item.clone())),
                [index, value] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((value.clone(), item.clone()));
                }
                _ => {}
            }
            self.nodes(body, &item)?;
            self.variables.truncate(scope);
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Evaluated<Found> {
        let mut last: Option<Found> = None;
        for command in &pipeline.commands {
            let piped = last.take().map(Found::printed).transpose()?;
            last = Some(self.command(command, dot, piped)?);
        }
        let found = last.unwrap_or(Found::Value(Value::Null));
        if let Some(name) = pipeline.variables.first() {
            let value = found.tested();
            let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
            match known {
                Some((_, old)) if !pipeline.is_declaration => *old = value.clone(),
                _ => self.variables.push((name.clone(), value.clone())),
            }
            return Ok(Found::Value(value));
        }
        Ok(found)
    }

    fn command(&mut self, command: &Command, dot: &Value, piped: Option<Value>) -> Evaluated<Found> {
        let Some((first, rest)) = command.operands.split_first() else {
            return Err("missing value".to_owned());
        };
        if let Base::Function(name) = &first.base {
            let is_test = matches!(name.as_str(), "and" | "or" | "not" | "index" | "len");
            let mut arguments = Vec::with_capacity(rest.len() + 1);
            for operand in rest {
                let found = self.operand(operand, dot)?;
                arguments.push(if is_test { found.tested() } else { found.printed()? });
            }
            arguments.extend(piped);
            if self.is_heading {
                let heading = arguments.into_iter().rfind(Value::is_string);
                return Ok(Found::Value(heading.unwrap_or(Value::Null)));
            }
            let value = function::call(name, &arguments)?;
            return Ok(fields(value, &first.fields));
        }
        let is_label = matches!(first.base, Base::Dot) && first.fields == ["Label"];
        if is_label && (!rest.is_empty() || piped.is_some()) {
            let argument = match rest.first() {
                Some(operand) => self.operand(operand, dot)?.printed()?,
                None => piped.unwrap_or_default(),
            };
            let key = shown(&argument);
            if self.is_heading {
                return Ok(Found::Value(key.into()));
            }
            let label = self.labels.and_then(|labels| labels.get(&key)).cloned();
            return Ok(Found::Value(label.unwrap_or_else(|| "".into())));
        }
        if !rest.is_empty() || piped.is_some() {
            return Err("a value cannot take arguments; only functions can".to_owned());
        }
        self.operand(first, dot)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Evaluated<Found> {
        let value = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Variable(name) if name.is_empty() => self.root.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| format!("undefined variable ${name}"))?
            }
            Base::Function(name) => function::call(name, &[])?,
            Base::Text(text) => text.clone().into(),
            Base::Integer(number) => (*number).into(),
            Base::Float(number) => (*number).into(),
            Base::Truth(truth) => (*truth).into(),
            Base::Nil => Value::Null,
            Base::Nested(pipeline) => match self.pipeline(pipeline, dot)? {
                Found::Value(value) => value,
                missing @ Found::Missing(_) => return Ok(missing),
            },
        };
        Ok(fields(value, &operand.fields))
    }
}

fn fields(mut value: Value, fields: &[String]) -> Found {
    for field in fields {
        value = match value {
            Value::Object(mut map) => match take_field(&mut map, field) {
                Some(inner) => inner,
                None => return Found::Missing(no_field(field, &map)),
            },
            Value::Null => return Found::Missing(format!("no field {field:?}: there is nothing to look in")),
            other => return Found::Missing(format!("no field {field:?} in {}", shown(&other))),
        };
    }
    Found::Value(value)
}

fn no_field(field: &str, map: &Map<String, Value>) -> String {
    let mut known: Vec<&str> = map.keys().map(String::as_str).collect();
    if known.len() > SUGGESTIONS_MAX {
        known.retain(|key| key.chars().next().is_some_and(|c| field.starts_with([c, c.to_ascii_lowercase()])));
        known.truncate(SUGGESTIONS_MAX);
        known.push("...");
    }
    let known = known.join(", ");
    format!("no field {field:?}; there are: {known}")
}

/// The field by its name, else by Go's spelling of it (`ID` for `Id`).
fn take_field(map: &mut Map<String, Value>, field: &str) -> Option<Value> {
    if let Some(value) = map.remove(field) {
        return Some(value);
    }
    let key = map.keys().find(|key| key.eq_ignore_ascii_case(field))?.clone();
    map.remove(&key)
}
