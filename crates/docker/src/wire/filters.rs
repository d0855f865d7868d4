//! The `filters` query: a JSON map of lists, or of sets as clients before 1.22 wrote them.

use std::collections::BTreeMap;

use berth_engine::api::Filters;
use serde::Deserialize;

use crate::error::{ApiError, ApiResult};

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum WireFilters {
    Lists(Filters),
    Sets(BTreeMap<String, BTreeMap<String, bool>>),
}

/// # Errors
/// `InvalidArgument` when it is neither form.
pub(crate) fn from_wire(text: Option<&str>) -> ApiResult<Filters> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(Filters::default()) };
    match serde_json::from_str(text) {
        Ok(WireFilters::Lists(lists)) => Ok(lists),
        Ok(WireFilters::Sets(sets)) => Ok(sets
            .into_iter()
            .map(|(key, values)| (key, values.into_iter().filter(|(_, on)| *on).map(|(v, _)| v).collect()))
            .collect()),
        Err(_) => Err(ApiError::invalid(format!("filters {text:?} are not a JSON map of lists of strings"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let lists = from_wire(Some(r#"{"name":["a","b"]}"#)).unwrap();
        assert_eq!(lists["name"], ["a", "b"]);
        let sets = from_wire(Some(r#"{"name":{"a":true,"b":false}}"#)).unwrap();
        assert_eq!(sets["name"], ["a"]);
        assert!(from_wire(None).unwrap().is_empty());
        assert!(from_wire(Some("[1]")).is_err());
    }
}
