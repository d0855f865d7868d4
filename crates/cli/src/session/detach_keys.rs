//! The key sequence that detaches (`ctrl-p,ctrl-q`). The shim acts on it; we watch for it, to know why a stream closed.

use crate::failure::{Failure, Outcome};

const KEYS_MAX: usize = 16;

/// A sequence of bytes and how much of it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    sequence: Vec<u8>,
    matched: usize,
    text: Option<String>,
}

impl DetachKeys {
    /// Docker's notation: keys separated by commas, each a character or `ctrl-` and one of `a-z@^[\]_`.
    pub(crate) fn parse(text: Option<&str>) -> Outcome<Self> {
        let notation = text.unwrap_or("ctrl-p,ctrl-q");
        let wrong = || {
            Failure::new(format!("invalid --detach-keys {notation:?}"))
                .hint("write keys separated by commas, as in ctrl-p,ctrl-q or ctrl-a,d")
        };
        let sequence = notation.split(',').map(key).collect::<Option<Vec<u8>>>().ok_or_else(wrong)?;
        if sequence.len() > KEYS_MAX {
            return Err(wrong());
        }
        Ok(Self { sequence, matched: 0, text: text.map(str::to_owned) })
    }

    /// What the daemon is told; nothing for the default.
    pub(crate) fn notation(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// True when the last key of the sequence is among `bytes`.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            if self.sequence.get(self.matched) == Some(byte) {
                self.matched += 1;
            } else {
                self.matched = usize::from(self.sequence.first() == Some(byte));
            }
            if self.matched == self.sequence.len() {
                self.matched = 0;
                return true;
            }
        }
        false
    }
}

fn key(text: &str) -> Option<u8> {
    let single = |text: &str| match text.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        _ => None,
    };
    match text.strip_prefix("ctrl-") {
        None => single(text),
        Some(rest) => match single(&rest.to_ascii_lowercase())? {
            letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
            b'@' => Some(0),
            b'[' => Some(27),
            b'\\' => Some(28),
            b']' => Some(29),
            b'^' => Some(30),
            b'_' => Some(31),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notation() {
        assert_eq!(DetachKeys::parse(None).unwrap().sequence, [16, 17]);
        assert_eq!(DetachKeys::parse(Some("ctrl-A,d")).unwrap().sequence, [1, b'd']);
        assert_eq!(DetachKeys::parse(Some("ctrl-\\,ctrl-]")).unwrap().sequence, [28, 29]);
        for bad in ["", "ctrl-", "ctrl-1", "abc", "a,,b", "ctrl-ab"] {
            assert!(DetachKeys::parse(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn matching() {
        let mut keys = DetachKeys::parse(None).unwrap();
        assert!(!keys.feed(b"abc\x10"));
        assert!(!keys.feed(b"x\x11"));
        assert!(!keys.feed(b"\x10\x10"));
        assert!(keys.feed(b"\x11"));
    }
}
