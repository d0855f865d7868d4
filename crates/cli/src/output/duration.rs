//! Spans of time as Docker says them (`About an hour`), and instants as its listings print them.

use berth_types::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A rounded span: `Less than a second`, `7 seconds`, `About a minute`, `3 weeks`.
fn human_duration(seconds: i64) -> String {
    let hours = (seconds + HOUR / 2) / HOUR;
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..MINUTE => format!("{seconds} seconds"),
        _ if seconds < 2 * MINUTE => "About a minute".to_owned(),
        _ if seconds < HOUR => format!("{} minutes", seconds / MINUTE),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / DAY / 365),
    }
}

/// `3 minutes ago`; empty for the zero time.
pub(crate) fn ago(unix_seconds: i64, now: Timestamp) -> String {
    if unix_seconds <= 0 {
        return "N/A".to_owned();
    }
    format!("{} ago", human_duration(now.unix_seconds() - unix_seconds))
}

/// `2026-11-23 15:04:05 +0000 UTC`, the way Go prints a time; always UTC.
pub(crate) fn shown_time(unix_seconds: i64) -> String {
    let text = Timestamp(unix_seconds.saturating_mul(1_000_000_000)).to_string();
    match (text.get(..10), text.get(11..19)) {
        (Some(date), Some(time)) => format!("{date} {time} +0000 UTC"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounded_as_docker_does() {
        for (seconds, text) in [
            (-5, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (180, "3 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn instants() {
        assert_eq!(shown_time(1_700_000_000), "2023-11-14 22:13:20 +0000 UTC");
        assert_eq!(ago(940, Timestamp(1_000_000_000_000)), "About a minute ago");
        assert_eq!(ago(0, Timestamp(1)), "N/A");
    }
}
