//! What is metered: product codes and dimensions, parsed once and valid for ever.

use std::fmt;

/// A product code as AWS Marketplace assigns it: `[-a-zA-Z0-9/=:_.@]`, 1 to 255 characters (service model, `ProductCode`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProductCode(String);

/// The name of a pricing dimension, 1 to 255 characters (service model, `UsageDimension`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dimension(String);

/// Why a text is not a product code or a dimension.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("it is empty")]
    Empty,
    /// Longer than AWS takes.
    #[error("it has {0} characters; AWS takes 255 at most")]
    TooLong(usize),
    /// A character outside AWS's pattern.
    #[error("it contains {0:?}; AWS takes letters, digits and -/=:_.@ only")]
    Character(char),
}

const NAME_CHARS_MAX: usize = 255;

impl ProductCode {
    /// Checks `text` against AWS's pattern.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length(text)?;
        match text
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || "-/=:_.@".contains(*c)))
        {
            Some(character) => Err(NameError::Character(character)),
            None => Ok(Self(text.to_owned())),
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
        check_length(text)?;
        Ok(Self(text.to_owned()))
    }

    /// The name as the product's listing spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProductCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_length(text: &str) -> Result<(), NameError> {
    match text.chars().count() {
        0 => Err(NameError::Empty),
        n if n > NAME_CHARS_MAX => Err(NameError::TooLong(n)),
        _ => Ok(()),
    }
}
