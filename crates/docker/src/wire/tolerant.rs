//! Reading what Docker clients really send: `null` for absent, strings for lists, and fields we do not know.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};

/// Parses a JSON body; an empty body is an empty object. `null` members count as absent everywhere.
///
/// # Errors
/// `InvalidArgument` with the parser's position when the body is not the document `what`.
pub(crate) fn parse<T: DeserializeOwned>(what: &str, body: &[u8]) -> ApiResult<T> {
    let text: &[u8] = if body.iter().all(u8::is_ascii_whitespace) { b"{}" } else { body };
    let mut value: Value = serde_json::from_slice(text)
        .map_err(|error| ApiError::invalid(format!("invalid JSON in the {what} request: {error}")))?;
    drop_nulls(&mut value);
    serde_json::from_value(value).map_err(|error| ApiError::invalid(format!("invalid {what} request: {error}")))
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// A field that says nothing: zero, false, empty, or made only of such.
pub(crate) fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.iter().all(is_default),
        Value::Object(map) => map.values().all(is_default),
    }
}

/// Refuses every field left over that asks for something, by name; `harmless` are known to need no action.
///
/// # Errors
/// `Unimplemented` naming the field.
pub(crate) fn refuse_unknown(object: &str, fields: &Map<String, Value>, harmless: &[&str]) -> ApiResult<()> {
    for (name, value) in fields {
        if !is_default(value) && !harmless.contains(&name.as_str()) {
            return Err(ApiError::unimplemented(&format!("{object}.{name} ({value})")));
        }
    }
    Ok(())
}

/// One string or a list of them (`Cmd`, `Entrypoint` of old clients).
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    Many(Vec<String>),
    One(String),
}

impl From<OneOrMany> for Vec<String> {
    fn from(value: OneOrMany) -> Self {
        match value {
            OneOrMany::Many(items) => items,
            OneOrMany::One(item) => vec![item],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_that_ask_for_something_are_refused_by_name() {
        let fields = json!({"Empty": [], "Zero": 0, "Nested": {"A": ""}, "Links": ["a:b"]});
        let error = refuse_unknown("HostConfig", fields.as_object().unwrap(), &[]).unwrap_err();
        assert_eq!(error.message(), "HostConfig.Links ([\"a:b\"]) is not supported by berth yet");
        assert!(refuse_unknown("HostConfig", fields.as_object().unwrap(), &["Links"]).is_ok());
    }

    #[test]
    fn empty_and_null_bodies() {
        let value: Value = parse("exec start", b"").unwrap();
        assert_eq!(value, json!({}));
        let value: Value = parse("x", b"{\"a\":null,\"b\":{\"c\":null}}").unwrap();
        assert_eq!(value, json!({"b": {}}));
        assert!(parse::<Value>("x", b"{").unwrap_err().message().starts_with("invalid JSON in the x request"));
    }
}
