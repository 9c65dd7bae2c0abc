//! Usage quantities as AWS reads them, compared by value: 17 is 17.00.

use std::fmt;

use serde::{Serialize, Serializer};

/// Millionths of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millionths(pub u128);

impl Millionths {
    /// A whole quantity: 0 to 2147483647.
    pub fn whole(value: i64) -> Option<Self> {
        let units = u128::try_from(value)
            .ok()
            .filter(|_| value <= i64::from(i32::MAX))?;
        Some(Self(units * 1_000_000))
    }

    /// A decimal: `^(0|[1-9][0-9]{0,9})(\.[0-9]{1,6})?$`.
    pub fn decimal(text: &str) -> Option<Self> {
        let digits = |part: &str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        };
        let (whole, fraction) = text
            .split_once('.')
            .map_or((text, None), |(w, f)| (w, Some(f)));
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if leading_zero || !digits(whole, 10) || !fraction.is_none_or(|f| digits(f, 6)) {
            return None;
        }
        let units: u128 = whole.parse().ok()?;
        let rest: u128 = format!("{:0<6}", fraction.unwrap_or("0")).parse().ok()?;
        Some(Self(units * 1_000_000 + rest))
    }
}

impl fmt::Display for Millionths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Serialize for Millionths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_follow_the_grammar() {
        for (text, shown) in [
            ("0", "0"),
            ("17.00", "17"),
            ("0.000001", "0.000001"),
            ("9999999999.999999", "9999999999.999999"),
        ] {
            assert_eq!(
                Millionths::decimal(text).map(|m| m.to_string()).as_deref(),
                Some(shown)
            );
        }
        for text in [
            "",
            ".",
            "1.",
            ".1",
            "01",
            "-1",
            "1e3",
            "1.0000001",
            "10000000000",
            "NaN",
            " 1",
        ] {
            assert_eq!(Millionths::decimal(text), None, "{text}");
        }
        assert_eq!(Millionths::whole(-1), None);
        assert_eq!(Millionths::whole(2_147_483_648), None);
    }
}
