//! One record of Docker's json-file log, written by hand: `{"log":"..\n","stream":"stdout","time":".."}`.
//!
//! Escaping is that of Go's encoder as Docker uses it: `<`, `>`, `&`, U+2028 and U+2029 as `\uXXXX`, control characters too
//! (but `\n` and `\r` short), each invalid UTF-8 sequence as `\ufffd`.

use berth_types::Timestamp;

use super::Stream;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends one record for `text`, which holds its own newline if it has one.
pub(crate) fn append_record(out: &mut Vec<u8>, text: &[u8], stream: Stream, time: &str) {
    out.extend_from_slice(b"{\"log\":\"");
    append_escaped(out, text);
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// RFC 3339 with as many fraction digits as needed (Go's RFC3339Nano).
pub(crate) fn time_text(at: Timestamp) -> String {
    let mut text = at.to_string();
    if let Some(digits) = text.strip_suffix('Z') {
        let short = digits.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(short);
        text.push('Z');
    }
    text
}

fn append_escaped(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        append_valid(out, chunk.valid());
        // One replacement per invalid byte, as Go's decoder steps.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn append_valid(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    // The bytes that may need an escape are rare: everything before the next one goes over in one piece.
    while let Some(at) = rest.iter().position(|&byte| MAY_ESCAPE[usize::from(byte)]) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        // U+2028 and U+2029 are E2 80 A8 and E2 80 A9; every other character that begins with E2 is plain.
        let taken = match special {
            [0xe2, 0x80, last @ (0xa8 | 0xa9), ..] => {
                out.extend_from_slice(&[b'\\', b'u', b'2', b'0', b'2', last - 0xa8 + b'8']);
                3
            }
            [lead @ 0xe2, ..] => {
                out.push(*lead);
                1
            }
            [byte, ..] => {
                append_special(out, *byte);
                1
            }
            [] => return,
        };
        rest = special.get(taken..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

const MAY_ESCAPE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte, 0..0x20 | 0xe2)
            || byte == b'"' as usize
            || byte == b'\\' as usize
            || byte == b'<' as usize
            || byte == b'>' as usize
            || byte == b'&' as usize;
        byte += 1;
    }
    table
};

fn append_special(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &[u8]) -> String {
        let mut out = Vec::new();
        append_record(&mut out, text, Stream::Stderr, "T");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_as_docker_does() {
        for (text, log) in [
            (&b"plain\n"[..], r"plain\n"),
            (b"\r\t\x00\x1f", r"\r\u0009\u0000\u001f"),
            (br#"a"b\c"#, r#"a\"b\\c"#),
            (b"<a&b>", r"\u003ca\u0026b\u003e"),
            ("é€😀".as_bytes(), "é€😀"),
            ("x\u{2028}y\u{2029}z".as_bytes(), r"x\u2028y\u2029z"),
            ("\u{2027}".as_bytes(), "\u{2027}"),
            (b"a\xffb\xe2\x82", r"a\ufffdb\ufffd\ufffd"),
            (b"\x7f", "\x7f"),
            (b"", ""),
        ] {
            assert_eq!(record(text), format!("{{\"log\":\"{log}\",\"stream\":\"stderr\",\"time\":\"T\"}}\n"));
        }
    }

    /// Whatever the bytes, the record is JSON and valid text comes back unchanged.
    #[test]
    fn is_json_and_reversible() {
        let mut text = String::new();
        for code in (0..0x3000).filter_map(char::from_u32) {
            text.push(code);
        }
        let value: serde_json::Value = serde_json::from_str(&record(text.as_bytes())).unwrap();
        assert_eq!(value["log"], text);
        let noise: Vec<u8> = (0..=255).cycle().step_by(7).take(5000).collect();
        let value: serde_json::Value = serde_json::from_str(&record(&noise)).unwrap();
        assert_eq!(
            value["log"].as_str().unwrap(),
            noise.utf8_chunks().fold(String::new(), |mut all, chunk| {
                all.push_str(chunk.valid());
                all.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
                all
            })
        );
    }

    #[test]
    fn times_lose_trailing_zeros() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_500_000_000, "1970-01-01T00:00:01.5Z"),
            (10_000_000_001, "1970-01-01T00:00:10.000000001Z"),
        ] {
            assert_eq!(time_text(Timestamp(nanos)), text);
        }
    }
}
