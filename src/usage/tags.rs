//! Usage allocations: how a record's quantity divides over sets of tags.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Quantity;

/// The most allocations that one record takes (API reference, `MeterUsage`).
pub const ALLOCATIONS_MAX: usize = 2500;

/// One tag: key 1..=100, value 1..=256 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(String, String)", into = "(String, String)")]
pub struct Tag {
    key: Box<str>,
    value: Box<str>,
}

/// One to five tags with different keys; two sets are equal whatever order their tags came in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Tag>")]
pub struct TagSet(Box<[Tag]>);

/// A part of a quantity, and the tags it belongs to, if any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// The tags; `None` is the one allocation without.
    pub tags: Option<TagSet>,
    /// The part.
    pub quantity: Quantity,
}

/// How a quantity divides: none at all, or at most [`ALLOCATIONS_MAX`] parts with different tags whose sum is the quantity.
///
/// Read back only from the ledger, whose frames are checksummed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Allocations(Vec<Allocation>);

/// A tag that AWS would refuse (`InvalidTagException`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// Too short or too long.
    #[error("a tag's {part} has {length} characters; AWS takes 1 to {max}")]
    Length {
        /// Key or value.
        part: &'static str,
        /// How long it is.
        length: usize,
        /// The longest one allowed.
        max: usize,
    },
    /// A character that can't be in it.
    #[error(
        "a tag's {part} holds {found:?}; AWS takes letters, digits, spaces and !\"#$%&'()*+,-./:;<=_@"
    )]
    Character {
        /// Key or value.
        part: &'static str,
        /// The first offending character.
        found: char,
    },
    /// Too many or no tags in one allocation.
    #[error("an allocation has {0} tags; AWS takes 1 to 5, or no Tags at all")]
    Count(usize),
    /// One key with two values.
    #[error("an allocation names the tag {0:?} twice; give each key once")]
    DuplicateKey(String),
}

/// Allocations that AWS would refuse (`InvalidUsageAllocationsException`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationsError {
    /// More than a record takes.
    #[error("{0} allocations; AWS takes at most 2500 in one record")]
    Count(usize),
    /// The same tags twice.
    #[error("two allocations have the same tags; add their quantities up into one")]
    DuplicateTags,
    /// The parts are not the whole.
    #[error(
        "the allocations sum to {allocated}, not to the usage quantity {quantity}; they must be equal"
    )]
    Sum {
        /// What the parts make, as decimal text.
        allocated: String,
        /// The usage quantity.
        quantity: Quantity,
    },
}

impl Tag {
    /// Reads a tag.
    pub fn new(key: &str, value: &str) -> Result<Self, TagError> {
        check("key", key, KEY_CHARS_MAX)?;
        check("value", value, VALUE_CHARS_MAX)?;
        Ok(Self {
            key: key.into(),
            value: value.into(),
        })
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl TagSet {
    /// Reads an allocation's tags.
    pub fn new(mut tags: Vec<Tag>) -> Result<Self, TagError> {
        if tags.is_empty() || tags.len() > TAGS_MAX {
            return Err(TagError::Count(tags.len()));
        }
        tags.sort_unstable();
        if let Some(pair) = tags.windows(2).find(|pair| pair[0].key == pair[1].key) {
            return Err(TagError::DuplicateKey(pair[0].key.clone().into()));
        }
        Ok(Self(tags.into()))
    }

    /// The tags, in the order of their keys.
    pub fn tags(&self) -> &[Tag] {
        &self.0
    }
}

impl Allocations {
    /// No allocations: the quantity belongs to no tags.
    pub const NONE: Self = Self(Vec::new());

    /// Reads the allocations of `quantity`.
    pub fn new(quantity: Quantity, parts: Vec<Allocation>) -> Result<Self, AllocationsError> {
        if parts.len() > ALLOCATIONS_MAX {
            return Err(AllocationsError::Count(parts.len()));
        }
        if parts.is_empty() {
            return Ok(Self::NONE);
        }
        let mut seen = HashSet::with_capacity(parts.len());
        if !parts.iter().all(|part| seen.insert(part.tags.as_ref())) {
            return Err(AllocationsError::DuplicateTags);
        }
        let allocated: u128 = parts
            .iter()
            .map(|part| u128::from(part.quantity.millionths()))
            .sum();
        if allocated != u128::from(quantity.millionths()) {
            return Err(AllocationsError::Sum {
                allocated: show_millionths(allocated),
                quantity,
            });
        }
        Ok(Self(parts))
    }

    /// The parts.
    pub fn parts(&self) -> &[Allocation] {
        &self.0
    }

    /// Whether the quantity is not divided at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Tag> for (String, String) {
    fn from(tag: Tag) -> Self {
        (tag.key.into(), tag.value.into())
    }
}

impl TryFrom<(String, String)> for Tag {
    type Error = TagError;

    fn try_from((key, value): (String, String)) -> Result<Self, TagError> {
        Self::new(&key, &value)
    }
}

impl TryFrom<Vec<Tag>> for TagSet {
    type Error = TagError;

    fn try_from(tags: Vec<Tag>) -> Result<Self, TagError> {
        Self::new(tags)
    }
}

/// AWS's pattern `[a-zA-Z0-9+ -=._:\/@]+`, in which ` -=` is a range from the space to the equals sign.
fn check(part: &'static str, text: &str, max: usize) -> Result<(), TagError> {
    let length = text.chars().count();
    if length == 0 || length > max {
        return Err(TagError::Length { part, length, max });
    }
    let allowed =
        |c: char| c.is_ascii_alphanumeric() || (' '..='=').contains(&c) || c == '_' || c == '@';
    match text.chars().find(|&c| !allowed(c)) {
        Some(found) => Err(TagError::Character { part, found }),
        None => Ok(()),
    }
}

fn show_millionths(sum: u128) -> String {
    let text = format!("{}.{:06}", sum / 1_000_000, sum % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

const KEY_CHARS_MAX: usize = 100;
const VALUE_CHARS_MAX: usize = 256;
const TAGS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tags: &[(&str, &str)]) -> TagSet {
        TagSet::new(tags.iter().map(|(k, v)| Tag::new(k, v).unwrap()).collect()).unwrap()
    }

    fn part(tags: Option<TagSet>, quantity: &str) -> Allocation {
        Allocation {
            tags,
            quantity: quantity.parse().unwrap(),
        }
    }

    #[test]
    fn tag_sets_are_equal_in_any_order() {
        assert_eq!(
            set(&[("a", "1"), ("b", "2")]),
            set(&[("b", "2"), ("a", "1")])
        );
    }

    #[test]
    fn tags_take_the_characters_of_the_service_model() {
        assert!(Tag::new("Cost Center", "a+b-c=d._:/@!").is_ok());
        assert!(matches!(
            Tag::new("a", "b\\"),
            Err(TagError::Character {
                part: "value",
                found: '\\'
            })
        ));
        assert!(matches!(
            Tag::new("", "b"),
            Err(TagError::Length {
                part: "key",
                length: 0,
                ..
            })
        ));
        assert!(matches!(
            Tag::new(&"k".repeat(101), "b"),
            Err(TagError::Length {
                part: "key",
                length: 101,
                ..
            })
        ));
        assert_eq!(TagSet::new(vec![]), Err(TagError::Count(0)));
        let twice = vec![Tag::new("a", "1").unwrap(), Tag::new("a", "2").unwrap()];
        assert_eq!(TagSet::new(twice), Err(TagError::DuplicateKey("a".into())));
    }

    #[test]
    fn allocations_must_make_the_whole() {
        let ten: Quantity = "10".parse().unwrap();
        assert!(
            Allocations::new(
                ten,
                vec![part(Some(set(&[("a", "1")])), "7.5"), part(None, "2.5")]
            )
            .is_ok()
        );
        let short = Allocations::new(ten, vec![part(None, "9.5")]).unwrap_err();
        assert_eq!(
            short.to_string(),
            "the allocations sum to 9.5, not to the usage quantity 10; they must be equal"
        );
        let same = vec![part(None, "5"), part(None, "5")];
        assert_eq!(
            Allocations::new(ten, same),
            Err(AllocationsError::DuplicateTags)
        );
    }
}
