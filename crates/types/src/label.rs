//! Labels of containerd's objects and how an update by field paths changes them.

use std::collections::BTreeMap;

/// Sorted, so that records of the same labels are the same bytes.
pub type Labels = BTreeMap<String, String>;

/// Longest key and value together (containerd, `labels/validate.go`).
const LABEL_BYTES_MAX: usize = 4096;
/// Labels of one object.
const LABELS_MAX: usize = 1024;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LabelError {
    #[error("label {key:?} and its value are longer than {LABEL_BYTES_MAX} bytes")]
    TooLong { key: String },
    #[error("more than {LABELS_MAX} labels")]
    TooMany,
    #[error("field {field:?} cannot be updated; labels and labels.<key> can")]
    Field { field: String },
}

impl crate::Classify for LabelError {
    fn class(&self) -> crate::ErrorClass {
        crate::ErrorClass::InvalidArgument
    }
}

/// # Errors
/// `InvalidArgument` for labels that are too long or too many.
pub fn check(labels: &Labels) -> Result<(), LabelError> {
    if labels.len() > LABELS_MAX {
        return Err(LabelError::TooMany);
    }
    match labels.iter().find(|(key, value)| key.len() + value.len() > LABEL_BYTES_MAX) {
        Some((key, _)) => Err(LabelError::TooLong { key: key.chars().take(64).collect() }),
        None => Ok(()),
    }
}

/// What an update makes of labels: without field paths, or with `labels`, the new ones replace all; with `labels.<key>` only that key is set, or
/// removed when the new ones do not have it or have it empty.
///
/// # Errors
/// `InvalidArgument` for other fields and for labels beyond the limits.
pub fn updated(mut current: Labels, new: &Labels, fields: &[String]) -> Result<Labels, LabelError> {
    if fields.is_empty() {
        current.clone_from(new);
    }
    for field in fields {
        match field.strip_prefix("labels").map(|rest| (rest, rest.strip_prefix('.'))) {
            Some(("", _)) => current.clone_from(new),
            Some((_, Some(key))) => match new.get(key).filter(|value| !value.is_empty()) {
                Some(value) => drop(current.insert(key.to_owned(), value.clone())),
                None => drop(current.remove(key)),
            },
            _ => return Err(LabelError::Field { field: field.chars().take(64).collect() }),
        }
    }
    check(&current)?;
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn updates_by_field() {
        let old = labels(&[("a", "1"), ("b.c", "2")]);
        let new = labels(&[("a", "9"), ("d", "4"), ("e", "")]);
        let update = |fields: &[&str]| {
            updated(old.clone(), &new, &fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(update(&[]).unwrap(), new);
        assert_eq!(update(&["labels"]).unwrap(), new);
        assert_eq!(update(&["labels.d", "labels.b.c"]).unwrap(), labels(&[("a", "1"), ("d", "4")]));
        assert_eq!(update(&["labels.e"]).unwrap(), old);
        assert!(update(&["name"]).is_err() && update(&["labelsx"]).is_err());
        assert!(check(&labels(&[("k", &"v".repeat(4096))])).is_err());
    }
}
