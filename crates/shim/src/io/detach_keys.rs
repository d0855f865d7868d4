//! The key sequence by which a client with a terminal leaves (Docker's default: ctrl-p, ctrl-q).
//!
//! Keys that may begin the sequence are held back until the next key decides; they reach the process when it does not match.

#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

/// What became of a piece of input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Bytes for the process, perhaps none yet.
    Forward(Vec<u8>),
    /// The sequence is complete: bytes for the process that came before it, then the client leaves.
    Detach(Vec<u8>),
}

impl DetachKeys {
    /// No keys: nothing ever detaches.
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    pub(crate) fn filter(&mut self, input: &[u8]) -> Input {
        if self.keys.is_empty() {
            return Input::Forward(input.to_vec());
        }
        let mut out = Vec::with_capacity(input.len());
        for &byte in input {
            if self.keys.get(self.matched) != Some(&byte) {
                // What was held back was no sequence; this key may begin one.
                out.extend_from_slice(self.keys.get(..self.matched).unwrap_or_default());
                self.matched = 0;
            }
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
            } else {
                out.push(byte);
            }
            if self.matched == self.keys.len() {
                self.matched = 0;
                return Input::Detach(out);
            }
        }
        Input::Forward(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences() {
        let mut keys = DetachKeys::new(vec![16, 17]);
        assert_eq!(keys.filter(b"ab\x10"), Input::Forward(b"ab".to_vec()));
        assert_eq!(keys.filter(b"c"), Input::Forward(b"\x10c".to_vec()));
        assert_eq!(keys.filter(b"\x10\x10"), Input::Forward(b"\x10".to_vec()));
        assert_eq!(keys.filter(b"\x11rest"), Input::Detach(Vec::new()));
        assert_eq!(keys.filter(b"x\x10\x11y"), Input::Detach(b"x".to_vec()));
    }

    #[test]
    fn without_keys_nothing_is_held_back() {
        assert_eq!(DetachKeys::new(Vec::new()).filter(b"\x10\x11"), Input::Forward(b"\x10\x11".to_vec()));
    }
}
