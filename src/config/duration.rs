//! Durations as people write them: a whole number and a unit.

use std::time::Duration;

/// What a duration looks like, for error messages.
pub const EXPECTED: &str = "a whole number and a unit: 500ms, 25s, 30m or 2h";

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Parses `500ms`, `25s`, `30m` or `2h`; zero is a duration here, where it makes no sense the caller refuses it.
/// `None` for anything else, a number past 64 bits of milliseconds included.
pub fn parse(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let count: u64 = number.parse().ok()?;
    count.checked_mul(*millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_with_a_unit_are_durations() {
        assert_eq!(parse("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse("25s"), Some(Duration::from_secs(25)));
        assert_eq!(parse("30m"), Some(Duration::from_mins(30)));
        assert_eq!(parse("2h"), Some(Duration::from_hours(2)));
        assert_eq!(parse("0s"), Some(Duration::ZERO));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            " 1s",
            "1s ",
            "1 s",
            "1d",
            "1S",
            "1m30s",
            "+1s",
            "99999999999999999999s",
            "9999999999999999999h",
            "١s",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
