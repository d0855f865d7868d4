//! Wall-clock instants as the field writes them: RFC 3339 in UTC with nanoseconds.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Nanoseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("time {0:?} is not valid; write RFC 3339 (2026-11-23T15:04:05Z), a Unix time, or a duration such as 10m")]
pub struct TimestampError(String);

impl crate::Classify for TimestampError {
    fn class(&self) -> crate::ErrorClass {
        crate::ErrorClass::InvalidArgument
    }
}

impl Timestamp {
    /// `0001-01-01T00:00:00Z`, what Docker reports for "never".
    pub const NEVER_TEXT: &'static str = "0001-01-01T00:00:00Z";

    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Parses what `--since` and `--until` accept: RFC 3339, Unix seconds with an optional fraction,
    /// or a duration before `now` (`10m`, `1h30m`).
    ///
    /// # Errors
    /// `InvalidArgument` when it is none of them.
    pub fn parse_relative(text: &str, now: Self) -> Result<Self, TimestampError> {
        let wrong = || TimestampError(text.chars().take(60).collect());
        if let Some(ago) = parse_duration(text).filter(|_| !text.is_empty()) {
            let nanos = i64::try_from(ago.as_nanos()).map_err(|_| wrong())?;
            return Ok(Self(now.0.saturating_sub(nanos)));
        }
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        if let Ok(seconds) = seconds.parse::<i64>() {
            if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong());
            }
            let nanos = format!("{fraction:0<9}").parse::<i64>().map_err(|_| wrong())?;
            return seconds.checked_mul(1_000_000_000).and_then(|s| s.checked_add(nanos)).map(Self).ok_or_else(wrong);
        }
        text.parse()
            .or_else(|_| format!("{text}Z").parse())
            .or_else(|_| format!("{text}T00:00:00Z").parse())
            .map_err(|_: TimestampError| wrong())
    }
}

/// Parses a Go-style duration: `300ms`, `1h30m`, `1.5s`. `None` when it is not one.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let value = rest.get(..digits)?.parse::<f64>().ok()?;
        rest = &rest[digits..];
        let unit_len = rest.len() - rest.trim_start_matches(|c: char| c.is_alphabetic()).len();
        let scale = match &rest[..unit_len] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += value * scale;
        rest = &rest[unit_len..];
    }
    Duration::try_from_secs_f64(total).ok()
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0)).map_err(|_| fmt::Error)?;
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.nanosecond()
        )
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let wrong = || TimestampError(text.chars().take(60).collect());
        let parsed = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
        i64::try_from(parsed.unix_timestamp_nanos()).map(Self).map_err(|_| wrong())
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        let text = "2026-11-23T15:04:05.000000123Z";
        assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
    }

    #[test]
    fn relative() {
        let now = Timestamp(1_000_000_000_000);
        assert_eq!(Timestamp::parse_relative("10s", now), Ok(Timestamp(990_000_000_000)));
        assert_eq!(Timestamp::parse_relative("5.25", now), Ok(Timestamp(5_250_000_000)));
        assert_eq!(Timestamp::parse_relative("1970-01-01", now), Ok(Timestamp(0)));
        assert!(Timestamp::parse_relative("yesterday", now).is_err());
        assert!(Timestamp::parse_relative("", now).is_err());
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
    }
}
