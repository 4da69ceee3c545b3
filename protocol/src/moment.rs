//! Moments as texts: RFC 3339 in UTC, to the second.
//!
//! Used by answers, logs of deliveries and messages. Invariant: texts of this
//! century sort as the moments do. Not here: a clock, and local time, which is for
//! people (`ingest::stamp` in the daemon).

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Seconds since 1970 as `2025-11-29T13:01:11Z`; empty beyond the year 9999.
pub fn rfc3339(unix_seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(unix_seconds).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_default()
}

/// Seconds since 1970 of a text in RFC 3339, with any distance from UTC.
pub fn from_rfc3339(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_back() {
        for (seconds, text) in [
            (1_764_421_271, "2025-11-29T13:01:11Z"),
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
            assert_eq!(from_rfc3339(text), Some(seconds));
        }
        assert_eq!(from_rfc3339("2025-11-29T21:01:11.9+08:00"), Some(1_764_421_271));
        assert_eq!(from_rfc3339("yesterday"), None);
        assert_eq!(rfc3339(i64::MAX), "");
    }
}
