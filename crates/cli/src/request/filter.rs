//! `--filter key=value`, several of one key allowed.

use std::collections::BTreeMap;

use crate::failure::{Failure, Outcome};

pub(crate) type Filters = BTreeMap<String, Vec<String>>;

pub(crate) fn parse_filters(given: &[String]) -> Outcome<Filters> {
    let mut filters = Filters::new();
    for text in given {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("invalid filter {text:?}")).hint("write it as key=value"))?;
        filters.entry(key.trim().to_ascii_lowercase()).or_default().push(value.trim().to_owned());
    }
    Ok(filters)
}
