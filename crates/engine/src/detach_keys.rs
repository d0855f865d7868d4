//! Detach keys as people write them: `ctrl-p,ctrl-q` becomes the bytes a terminal sends (pure).

use crate::error::{EngineError, Result};

const DEFAULT: [u8; 2] = [0x10, 0x11];
const KEYS_MAX: usize = 32;

/// Empty text: no keys. `None`: the default.
pub(crate) fn parse(text: Option<&str>) -> Result<Vec<u8>> {
    let Some(text) = text else { return Ok(DEFAULT.to_vec()) };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let keys = text.split(',').map(key).collect::<Option<Vec<u8>>>().filter(|keys| keys.len() <= KEYS_MAX);
    keys.ok_or_else(|| {
        let shown: String = text.chars().take(60).collect();
        EngineError::invalid(format!("Invalid detach keys ({shown})")).with_hint("as in ctrl-p,ctrl-q or a,b")
    })
}

fn key(text: &str) -> Option<u8> {
    if let [single] = text.as_bytes() {
        return Some(*single).filter(u8::is_ascii);
    }
    match text.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        b"@" => Some(0),
        b"[" => Some(27),
        b"\\" => Some(28),
        b"]" => Some(29),
        b"^" => Some(30),
        b"_" => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert_eq!(parse(None).unwrap(), [0x10, 0x11]);
        assert_eq!(parse(Some("")).unwrap(), [0u8; 0]);
        assert_eq!(parse(Some("ctrl-a,x,ctrl-]")).unwrap(), [1, b'x', 29]);
        for bad in ["ctrl-", "ctrl-1", "ab", "ctrl-p,", "é"] {
            assert!(parse(Some(bad)).is_err(), "{bad}");
        }
    }
}
