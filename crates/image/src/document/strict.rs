//! JSON that every reader understands alike. A key that occurs twice, or twice but for its case, is read differently by different parsers
//! (CVE-2021-41190 is one such mistake), so documents with one are refused. Depth is bounded by the parser; how many values there are, here: parsed, a
//! value of two bytes can take some hundred.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// Values of a document: what bounds the memory that it takes when it is parsed (some 700 bytes for the worst of them). An image of
/// 500 layers has some 3,000.
const VALUES_MAX: u32 = 50_000;

/// Objects whose keys are data of the image's author: `a` and `A` are two keys there.
const FREE_MAPS: [&str; 4] = ["labels", "annotations", "exposedports", "volumes"];

/// The keys of manifests and indexes; another spelling of one of them would be read by some parsers and not by others.
const MANIFEST_KEYS: [&str; 12] = [
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "digest",
    "size",
    "platform",
    "annotations",
    "urls",
    "architecture",
    "os",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Manifests and indexes: known keys only in their own spelling.
    Manifest,
    Any,
}

/// Fails where a document is ambiguous.
pub(super) fn check(bytes: &[u8], spelling: Spelling) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let values = Cell::new(0);
    Unambiguous { spelling, is_free_map: false, values: &values }.deserialize(&mut deserializer)?;
    deserializer.end()
}

#[derive(Clone, Copy)]
struct Unambiguous<'c> {
    spelling: Spelling,
    is_free_map: bool,
    values: &'c Cell<u32>,
}

impl<'de> DeserializeSeed<'de> for Unambiguous<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.values.set(self.values.get() + 1);
        if self.values.get() > VALUES_MAX {
            return Err(D::Error::custom(format_args!("more than {VALUES_MAX} values")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unambiguous<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self { is_free_map: false, ..self })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let folded = key.to_ascii_lowercase();
            let is_misspelt = self.spelling == Spelling::Manifest
                && !self.is_free_map
                && MANIFEST_KEYS.iter().any(|known| known.eq_ignore_ascii_case(&key) && *known != key);
            if is_misspelt {
                return Err(A::Error::custom(format!("ambiguous spelling of the key {:?}", shorten(&key))));
            }
            let is_free_map = FREE_MAPS.contains(&folded.as_str());
            let shown = shorten(&key);
            if !seen.insert(if self.is_free_map { key } else { folded }) {
                return Err(A::Error::custom(format!("duplicate key {shown:?}")));
            }
            map.next_value_seed(Self { is_free_map, ..self })?;
        }
        Ok(())
    }
}

fn shorten(key: &str) -> String {
    key.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_documents_are_refused() {
        for (text, is_good) in [
            (r#"{"a":1,"b":[{"a":null}]}"#, true),
            (r#"{"a":1,"a":1}"#, false),
            (r#"{"x":[{"Layers":1,"layers":2}]}"#, false),
            (r#"{"config":{"Labels":{"a":"1","A":"2"}}}"#, true),
            (r#"{"config":{"Labels":{"a":"1","a":"2"}}}"#, false),
            (r#"{"a":1} {"b":2}"#, false),
            (r#"{"\u0061":1,"a":2}"#, false),
        ] {
            assert_eq!(check(text.as_bytes(), Spelling::Any).is_ok(), is_good, "{text}");
        }
        assert!(check(br#"{"Layers":[]}"#, Spelling::Manifest).is_err());
        assert!(check(br#"{"annotations":{"Layers":""}}"#, Spelling::Manifest).is_ok());
        assert!(check("[".repeat(100_000).as_bytes(), Spelling::Any).is_err());
    }

    #[test]
    fn documents_of_many_values_are_refused() {
        let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
        assert!(check(zeros(49_000).as_bytes(), Spelling::Any).is_ok());
        for text in [zeros(50_000), format!("[{}0]", "{\"a\":0},".repeat(25_000))] {
            let error = check(text.as_bytes(), Spelling::Any).unwrap_err();
            assert!(error.to_string().starts_with("more than 50000 values"), "{error}");
        }
    }
}
