//! Amounts of bytes as people write them: `64m`, `1.5g`, `1024` (binary units, as Docker's flags have them).

use std::fmt;
use std::str::FromStr;

/// An amount of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("size {0:?} is not valid; write a number with an optional unit b, k, m, g, t, as in 64m")]
pub struct SizeError(String);

impl crate::Classify for SizeError {
    fn class(&self) -> crate::ErrorClass {
        crate::ErrorClass::InvalidArgument
    }
}

impl FromStr for ByteCount {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let wrong = || SizeError(text.chars().take(40).collect());
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let power = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
            "" => 0,
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            "p" => 5,
            _ => return Err(wrong()),
        };
        let digits = digits.trim_end();
        let unit = 1u64 << (10 * power);
        if let Ok(whole) = digits.parse::<u64>() {
            return whole.checked_mul(unit).map(ByteCount).ok_or_else(wrong);
        }
        let (whole, fraction) = digits.split_once('.').ok_or_else(wrong)?;
        if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let whole = whole.parse::<u64>().map_err(|_| wrong())?.checked_mul(unit).ok_or_else(wrong)?;
        let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
        let part = fraction.parse::<u128>().map_err(|_| wrong())? * u128::from(unit) / scale;
        let part = u64::try_from(part).map_err(|_| wrong())?;
        whole.checked_add(part).map(ByteCount).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteCount {
    /// Decimal units with up to four significant digits, as Docker prints sizes (`4.86MB`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&scaled(self.0, 1000, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3))
    }
}

impl ByteCount {
    /// Decimal units with up to four digits (`1.984MB`), as Docker prints disk usage.
    pub fn precise(self) -> String {
        scaled(self.0, 1000, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 4)
    }

    /// Binary units (`61.04MiB`), as Docker prints memory.
    pub fn binary(self) -> String {
        scaled(self.0, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown to people with at most four digits")]
fn scaled(bytes: u64, base: u64, units: &[&str], digits: usize) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base as f64 && unit + 1 < units.len() {
        value /= base as f64;
        unit += 1;
    }
    let whole_digits = if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let mut text = format!("{value:.*}", digits.saturating_sub(whole_digits));
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + units[unit]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("1.5g", 3 << 29),
            ("2KiB", 2048),
            ("7 k", 7168),
        ] {
            assert_eq!(text.parse(), Ok(ByteCount(bytes)), "{text}");
        }
        for bad in ["", "m", "1x", "-1", "1.2.3k", "99999999999t", "1e3", ".5g"] {
            assert!(bad.parse::<ByteCount>().is_err(), "{bad}");
        }
    }

    #[test]
    fn display() {
        for (bytes, text) in [(0, "0B"), (999, "999B"), (4_860_000, "4.86MB"), (1_000, "1kB"), (77_800_000, "77.8MB")] {
            assert_eq!(ByteCount(bytes).to_string(), text);
        }
        assert_eq!(ByteCount(64 << 20).binary(), "64MiB");
        assert_eq!(ByteCount(1_983_999).precise(), "1.984MB");
    }
}
