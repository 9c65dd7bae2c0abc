//! Amounts of usage, exact to the millionth.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount that one metering record can hold, in millionths: 0 to 9,999,999,999.999999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(u64);

/// A text or number that is no [`Quantity`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Does not follow AWS's grammar.
    #[error(
        "{0:?} is no quantity: write digits without sign, exponent or leading zeros, and at most six decimals, as in 12 or 0.25"
    )]
    Grammar(String),
    /// Below zero.
    #[error("a quantity can't be negative, and {0} is")]
    Negative(i64),
    /// More than one record can hold.
    #[error(
        "the quantity is larger than 9,999,999,999.999999, the most that one metering record can hold"
    )]
    TooLarge,
}

impl Quantity {
    /// Nothing used.
    pub const ZERO: Self = Self(0);
    /// One unit.
    pub const ONE: Self = Self(MILLION);
    /// The most that one record can hold: 9,999,999,999.999999.
    pub const MAX: Self = Self(9_999_999_999_999_999);

    /// Reads a JSON integer.
    pub fn from_integer(value: i64) -> Result<Self, QuantityError> {
        let units = u64::try_from(value).map_err(|_| QuantityError::Negative(value))?;
        Self::from_millionths(units.checked_mul(MILLION).ok_or(QuantityError::TooLarge)?)
    }

    /// So many millionths of a unit.
    pub fn from_millionths(millionths: u64) -> Result<Self, QuantityError> {
        let quantity = Self(millionths);
        if quantity > Self::MAX {
            Err(QuantityError::TooLarge)
        } else {
            Ok(quantity)
        }
    }

    /// The amount in millionths of a unit.
    pub fn millionths(self) -> u64 {
        self.0
    }

    /// The amount as AWS's integer `UsageQuantity` (0..=2147483647), if it is whole and fits.
    pub fn as_integer(self) -> Option<i32> {
        if !self.0.is_multiple_of(MILLION) {
            return None;
        }
        i32::try_from(self.0 / MILLION).ok()
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, if one record can hold it.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0
            .checked_add(other.0)
            .and_then(|sum| Self::from_millionths(sum).ok())
    }

    /// What is left, or zero where nothing is.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// AWS's grammar for decimals: `^(0|[1-9][0-9]{0,9})(\.[0-9]{1,6})?$`.
impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let refuse = || QuantityError::Grammar(text.chars().take(SHOWN_CHARS_MAX).collect());
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (text, None),
        };
        if !digits(whole) || (whole.len() > 1 && whole.starts_with('0')) {
            return Err(refuse());
        }
        if whole.len() > WHOLE_DIGITS_MAX {
            return Err(QuantityError::TooLarge);
        }
        let mut millionths = whole.parse::<u64>().map_err(|_| refuse())? * MILLION;
        if let Some(fraction) = fraction {
            if !digits(fraction) || fraction.len() > FRACTION_DIGITS_MAX {
                return Err(refuse());
            }
            millionths += format!("{fraction:0<6}")
                .parse::<u64>()
                .map_err(|_| refuse())?;
        }
        Self::from_millionths(millionths)
    }
}

/// Exact; without a point where the amount is whole, without trailing zeros elsewhere.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / MILLION, self.0 % MILLION);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        write!(
            f,
            "{whole}.{}",
            format!("{fraction:06}").trim_end_matches('0')
        )
    }
}

/// People read the decimal text; the ledger keeps the millionths.
impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(D::Error::custom)
        } else {
            Self::from_millionths(u64::deserialize(deserializer)?).map_err(D::Error::custom)
        }
    }
}

const MILLION: u64 = 1_000_000;
const WHOLE_DIGITS_MAX: usize = 10;
const FRACTION_DIGITS_MAX: usize = 6;
/// An error message shows this much of the offending text.
const SHOWN_CHARS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_follow_the_grammar_of_aws() {
        for (text, millionths) in [
            ("0", 0),
            ("0.000001", 1),
            ("17", 17_000_000),
            ("17.00", 17_000_000),
            ("9999999999.999999", 9_999_999_999_999_999),
            ("0.5", 500_000),
        ] {
            assert_eq!(
                text.parse::<Quantity>().map(Quantity::millionths),
                Ok(millionths),
                "{text}"
            );
        }
        for bad in [
            "",
            "-1",
            "+1",
            "01",
            "1.",
            ".5",
            "1.0000001",
            "1e3",
            "NaN",
            "inf",
            " 1",
            "1 ",
            "1,5",
            "٣",
            "0x1",
        ] {
            assert!(
                matches!(bad.parse::<Quantity>(), Err(QuantityError::Grammar(_))),
                "{bad}"
            );
        }
        assert_eq!(
            "10000000000".parse::<Quantity>(),
            Err(QuantityError::TooLarge)
        );
        assert_eq!(
            "9".repeat(400).parse::<Quantity>(),
            Err(QuantityError::TooLarge)
        );
    }

    #[test]
    fn quantities_print_as_short_as_they_are_exact() {
        for (millionths, text) in [
            (0, "0"),
            (17_000_000, "17"),
            (500_000, "0.5"),
            (1_000_001, "1.000001"),
        ] {
            let quantity = Quantity::from_millionths(millionths).unwrap();
            assert_eq!(quantity.to_string(), text);
            assert_eq!(text.parse(), Ok(quantity));
        }
    }

    #[test]
    fn only_whole_quantities_within_i32_are_integers() {
        assert_eq!(
            "2147483647".parse::<Quantity>().unwrap().as_integer(),
            Some(i32::MAX)
        );
        assert_eq!("2147483648".parse::<Quantity>().unwrap().as_integer(), None);
        assert_eq!("1.5".parse::<Quantity>().unwrap().as_integer(), None);
        assert_eq!(Quantity::from_integer(-1), Err(QuantityError::Negative(-1)));
        assert_eq!(
            Quantity::from_integer(i64::MAX),
            Err(QuantityError::TooLarge)
        );
    }

    #[test]
    fn sums_stop_at_what_a_record_holds() {
        assert_eq!(
            Quantity::MAX.checked_add(Quantity::ZERO),
            Some(Quantity::MAX)
        );
        assert_eq!(
            Quantity::MAX.checked_add(Quantity::from_millionths(1).unwrap()),
            None
        );
    }
}
