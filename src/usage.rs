//! What is metered: product, dimension, quantity, tags, hours and the ids that name them.
//!
//! Every type here is parsed once, at the edge, and valid for ever after. An error says what was wrong, with which rule of
//! AWS it disagrees, and what to write instead.
//!
//! | type | rule | source |
//! |---|---|---|
//! | [`ProductCode`] | 1..=255 of `[-a-zA-Z0-9/=:_.@]` | API reference, MeterUsage |
//! | [`Dimension`] | 1..=255 characters | API reference, MeterUsage |
//! | [`Quantity`] | 0..=9,999,999,999.999999 in millionths | service model of 2026-10-20 |
//! | [`TagSet`], [`Allocations`] | 1..=5 tags, 1..=2500 allocations that sum to the quantity | API reference, UsageAllocation |
//! | [`ClientToken`] | 1..=64 characters | API reference, MeterUsage |
//! | [`Customer`] | an identifier, an account's digits, a license's ARN | API reference, UsageRecord |

mod customer;
mod ids;
mod quantity;
mod tags;
mod time;

pub use customer::{Customer, CustomerError, CustomerNumber, Way, checked_account};
pub use ids::{
    BucketId, ClientToken, RecordId, RecordIdSecret, TokenError, UsageKey, UsageKeyError,
};
pub use quantity::{Quantity, QuantityError};
pub use tags::{ALLOCATIONS_MAX, Allocation, Allocations, AllocationsError, Tag, TagError, TagSet};
pub use time::{Hour, Moment, Period};

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The product code that AWS Marketplace gave the product.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProductCode(Arc<str>);

/// A metered dimension of the product, by its API name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Dimension(Arc<str>);

/// Who meters, as AWS tells it: an ECS task's ARN, a pod's UID or a host name. AWS keeps one record per hour and dimension
/// for each of these.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity(Arc<str>);

/// Why a text is not a product code, a dimension or an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("it is empty")]
    Empty,
    /// Longer than AWS takes.
    #[error("it has {length} characters; AWS takes {max} at most")]
    TooLong {
        /// How long it is.
        length: usize,
        /// The longest one taken.
        max: usize,
    },
    /// A character outside AWS's pattern.
    #[error("it contains {0:?}; AWS takes letters, digits and -/=:_.@ only")]
    Character(char),
}

impl ProductCode {
    /// Checks `text` against AWS's pattern.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text, NAME_CHARS_MAX)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-/=:_.@".contains(c);
        match text.chars().find(|&c| !allowed(c)) {
            Some(character) => Err(NameError::Character(character)),
            None => Ok(Self(text.into())),
        }
    }

    /// The code as AWS writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Dimension {
    /// Checks the length of `text`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text, NAME_CHARS_MAX)?;
        Ok(Self(text.into()))
    }

    /// The name as the product's listing spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Identity {
    /// Checks the length of `text`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text, IDENTITY_CHARS_MAX)?;
        Ok(Self(text.into()))
    }

    /// The identity as the platform spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_length(text: &str, max: usize) -> Result<(), NameError> {
    match text.chars().count() {
        0 => Err(NameError::Empty),
        length if length > max => Err(NameError::TooLong { length, max }),
        _ => Ok(()),
    }
}

/// The conversions that every checked string has: out as text, in through the parser.
macro_rules! checked_text {
    ($name:ty, $error:ty) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.as_ref().to_owned()
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                Self::parse(&text)
            }
        }
    };
}
use checked_text;

checked_text!(ProductCode, NameError);
checked_text!(Dimension, NameError);
checked_text!(Identity, NameError);

const NAME_CHARS_MAX: usize = 255;
/// ECS task ARNs stay far below it.
const IDENTITY_CHARS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_codes_take_what_aws_takes() {
        for good in ["a1b2c3", "prod/x=y:z_1.2@v-3"] {
            assert_eq!(ProductCode::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(ProductCode::parse(""), Err(NameError::Empty));
        assert_eq!(ProductCode::parse("a b"), Err(NameError::Character(' ')));
        let long = "x".repeat(256);
        assert_eq!(
            ProductCode::parse(&long),
            Err(NameError::TooLong {
                length: 256,
                max: 255
            })
        );
    }
}
