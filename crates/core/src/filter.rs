//! containerd's filter language: which objects of a list somebody wants.
//!
//! ```text
//! filter   := selector ("," selector)*                   all of them must hold; of several filters one is enough
//! selector := field ("." field)* [ operator value ]      without an operator: the field is there
//! operator := "==" | "!=" | "~="                         "~=" takes a regular expression, not anchored
//! field    := [A-Za-z0-9_]+ | quoted
//! value    := anything up to a comma or space | quoted   quoted: "…" with Go's escapes; after "~=" also /…/ and |…|
//! ```
//! Pure: no object is known here; each says what its fields hold by [`Fields`].
//!
//! # Spec
//! containerd `pkg/filters`, package documentation.

mod scanner;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use berth_types::{Classify, ErrorClass};
use regex::Regex;

use scanner::{Scanner, Token};

/// What an object answers to a field's path.
pub trait Fields {
    /// `None`: there is no such field, or it is empty.
    fn field(&self, path: &[&str]) -> Option<String>;
}

/// The rest of a path names a key that may itself hold dots.
pub fn map_field(path: &[&str], map: &BTreeMap<String, String>) -> Option<String> {
    map.get(&path.join(".")).cloned()
}

/// A field that counts as missing when it is empty.
pub fn text_field(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("filter {input:?} is not valid at byte {position}: {problem}")]
pub struct FilterError {
    pub input: String,
    pub position: usize,
    pub problem: &'static str,
}

impl Classify for FilterError {
    fn class(&self) -> ErrorClass {
        ErrorClass::InvalidArgument
    }
}

/// Several filters of which one must match; none at all match everything.
#[derive(Debug, Default)]
pub struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// # Errors
    /// `InvalidArgument` with the place where the filter is wrong.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, FilterError> {
        texts.iter().map(|text| parse(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    pub fn matches(&self, object: &impl Fields) -> bool {
        self.0.is_empty() || self.0.iter().any(|selectors| selectors.iter().all(|selector| selector.holds(object)))
    }
}

impl Selector {
    fn holds(&self, object: &impl Fields) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let found = object.field(&path);
        match &self.test {
            Test::Present => found.is_some(),
            Test::Equal(value) => found.as_ref() == Some(value),
            Test::NotEqual(value) => found.unwrap_or_default() != *value,
            Test::Matches(expression) => found.is_some_and(|text| expression.is_match(&text)),
        }
    }
}

/// An empty filter matches everything: a selector list without a selector.
fn parse(text: &str) -> Result<Vec<Selector>, FilterError> {
    let mut scanner = Scanner::new(text);
    let mut selectors = Vec::new();
    if text.is_empty() {
        return Ok(selectors);
    }
    loop {
        selectors.push(selector(&mut scanner)?);
        match scanner.next()? {
            None => return Ok(selectors),
            Some(Token::Comma) => {}
            Some(_) => return Err(scanner.error("a comma or the end is expected")),
        }
    }
}

fn selector(scanner: &mut Scanner<'_>) -> Result<Selector, FilterError> {
    let mut path = vec![field(scanner)?];
    while scanner.take_if(&Token::Dot)? {
        path.push(field(scanner)?);
    }
    let Some(operator) = scanner.operator()? else { return Ok(Selector { path, test: Test::Present }) };
    let value = scanner.value(operator == "~=")?;
    let test = match operator {
        "==" => Test::Equal(value),
        "!=" => Test::NotEqual(value),
        _ => Test::Matches(Regex::new(&value).map_err(|_| scanner.error("the regular expression cannot be compiled"))?),
    };
    Ok(Selector { path, test })
}

fn field(scanner: &mut Scanner<'_>) -> Result<String, FilterError> {
    match scanner.next()? {
        Some(Token::Field(name)) => Ok(name),
        _ => Err(scanner.error("a field's name is expected")),
    }
}
