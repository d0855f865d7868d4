//! Query strings, percent-encoded (RFC 3986).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// A path with a growing query.
#[derive(Debug)]
pub(crate) struct Query {
    text: String,
    is_first: bool,
}

impl Query {
    /// `path` is taken as it is.
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Self { text: path.into(), is_first: true }
    }

    #[must_use]
    pub(crate) fn with(self, name: &str, value: &str) -> Self {
        self.with_bytes(name, value.as_bytes())
    }

    #[must_use]
    pub(crate) fn with_bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.text.push(if self.is_first { '?' } else { '&' });
        self.is_first = false;
        self.text.push_str(name);
        self.text.push('=');
        encode_into(&mut self.text, value, false);
        self
    }

    #[must_use]
    pub(crate) fn flag(self, name: &str, value: bool) -> Self {
        if value { self.with(name, "1") } else { self }
    }

    #[must_use]
    pub(crate) fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Docker's filters: a JSON map of key to values.
    #[must_use]
    pub(crate) fn filters(self, filters: &BTreeMap<String, Vec<String>>) -> Self {
        if filters.is_empty() {
            return self;
        }
        let json =
            Value::Object(filters.iter().map(|(key, values)| (key.clone(), Value::from(values.clone()))).collect());
        self.with("filters", &json.to_string())
    }

    pub(crate) fn build(self) -> String {
        self.text
    }

    /// One path segment or several (image names keep their slashes).
    pub(crate) fn segment(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        encode_into(&mut out, text.as_bytes(), true);
        out
    }
}

fn encode_into(out: &mut String, bytes: &[u8], keep_slashes: bool) {
    for byte in bytes {
        let is_plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~')
            || (keep_slashes && matches!(byte, b'/' | b':' | b'@'));
        if is_plain {
            out.push(char::from(*byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes() {
        let filters = BTreeMap::from([("label".to_owned(), vec!["a=b c".to_owned()])]);
        let path = Query::new("/containers/json").flag("all", true).flag("size", false).filters(&filters).build();
        assert_eq!(path, "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22a%3Db%20c%22%5D%7D");
        assert_eq!(Query::segment("host:5000/a b@sha256:0"), "host:5000/a%20b@sha256:0");
        assert_eq!(Query::segment("../x?y"), "../x%3Fy");
    }
}
