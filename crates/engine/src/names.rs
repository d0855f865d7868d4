//! Container names: which are legal, and made-up ones: how it floats and who charted the seas and skies.

use crate::error::{EngineError, Result};

const ADJECTIVES: [&str; 64] = [
    "able", "adrift", "agile", "airy", "amber", "anchored", "apt", "azure", "balmy", "bold", "brave", "breezy",
    "brisk", "buoyant", "calm", "candid", "clear", "coastal", "cosy", "crisp", "deep", "eager", "early", "easy",
    "even", "fair", "fleet", "fluent", "fresh", "gentle", "glad", "golden", "grand", "hale", "hardy", "jolly", "keen",
    "kind", "lively", "lucid", "lunar", "mellow", "merry", "moored", "neat", "nimble", "noble", "patient", "placid",
    "proud", "quick", "quiet", "rapid", "salty", "serene", "silver", "snug", "spry", "stable", "steady", "sunny",
    "swift", "tidal", "wise",
];

const SURNAMES: [&str; 80] = [
    "amundsen",
    "anning",
    "baret",
    "barents",
    "beaufort",
    "bering",
    "bird",
    "bligh",
    "boyd",
    "brahe",
    "cabot",
    "cannon",
    "carpenter",
    "carson",
    "cartier",
    "chapman",
    "coleman",
    "cook",
    "cortes",
    "cousteau",
    "curie",
    "darwin",
    "drake",
    "dufour",
    "earle",
    "erikson",
    "euler",
    "faraday",
    "fitzroy",
    "fleming",
    "flinders",
    "franklin",
    "frobisher",
    "galilei",
    "gama",
    "germain",
    "gray",
    "hadley",
    "halley",
    "harrison",
    "heezen",
    "herschel",
    "hodgkin",
    "hopper",
    "hudson",
    "humboldt",
    "huygens",
    "ibnmajid",
    "johnson",
    "kepler",
    "kingsley",
    "lamarr",
    "laperouse",
    "leavitt",
    "lovelace",
    "magellan",
    "marcet",
    "maury",
    "maxwell",
    "mercator",
    "merian",
    "mitchell",
    "nansen",
    "noether",
    "nordenskiold",
    "payne",
    "piccard",
    "polo",
    "ross",
    "rubin",
    "shackleton",
    "slocum",
    "somerville",
    "tasman",
    "tereshkova",
    "tharp",
    "torricelli",
    "vancouver",
    "wegener",
    "zheng",
];

/// A name that is probably free; `attempt` adds a digit after the first tries, so that it ends.
pub(crate) fn generate(attempt: u32) -> String {
    let pick = |words: &'static [&'static str]| words[rand::random_range(0..words.len())];
    let name = format!("{}_{}", pick(&ADJECTIVES), pick(&SURNAMES));
    if attempt < 3 { name } else { format!("{name}{}", rand::random_range(0..100_000)) }
}

/// Docker's rule: two or more of `[a-zA-Z0-9][a-zA-Z0-9_.-]`.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn check(name: &str) -> Result<()> {
    let bytes = name.as_bytes();
    let is_legal = bytes.len() >= 2
        && bytes.len() <= 255
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if is_legal {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(EngineError::invalid(format!("Invalid container name ({shown}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"))
        .with_hint("a name has 2 to 255 of these characters"))
}

/// A new container's id: 64 random hex digits. Never all digits in the first 12, which could be read as a number.
pub(crate) fn new_id() -> String {
    loop {
        let id = hex::encode(rand::random::<[u8; 32]>());
        if id.bytes().take(12).any(|b| !b.is_ascii_digit()) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_legal() {
        for attempt in 0..6 {
            check(&generate(attempt)).unwrap();
        }
        for words in [&ADJECTIVES[..], &SURNAMES[..]] {
            let mut unique = words.to_vec();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), words.len());
        }
        assert_eq!(new_id().len(), 64);
    }

    #[test]
    fn refusals() {
        for good in ["ab", "web-1", "A.b_c"] {
            check(good).unwrap();
        }
        for bad in ["", "a", "-a", "/a", "a b", "a/b", "é1", &"x".repeat(256)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
