//! The rules that a record keeps, whoever meters it: quantities, allocations, tags, hours.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::{ALLOCATIONS_MAX, TAG, TAG_KEY, TAG_VALUE, TAGS_MAX, USAGE_ALLOCATION};
use crate::quantity::Millionths;
use crate::wire::{AwsError, integer, only_known, required, text};
use crate::world::World;

/// A part of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AllocationRecord {
    /// The part's tags by key; none for the untagged part.
    pub tags: BTreeMap<String, String>,
    /// How much of it.
    pub quantity: Millionths,
}

/// How much, and how it divides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) quantity: Millionths,
    pub(crate) allocations: Vec<AllocationRecord>,
}

/// The present in hours that may be short: what is too late, too early, and of which hour.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hours {
    pub(crate) now_ms: i64,
    pub(crate) period_ms: i64,
}

/// AWS hardly takes usage from the future.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);

/// A record's time was refused.
pub(crate) fn out_of_bounds(why: &str) -> AwsError {
    AwsError::new("TimestampOutOfBoundsException", why)
}

impl Hours {
    pub(crate) fn of(world: &World) -> Self {
        let period_ms = i64::try_from(world.period.as_millis()).unwrap_or(i64::MAX);
        Self {
            now_ms: world.now().as_millisecond(),
            period_ms: period_ms.max(1),
        }
    }

    /// So many hours, in milliseconds.
    pub(crate) fn span_ms(self, hours: i64) -> i64 {
        self.period_ms.saturating_mul(hours)
    }

    /// Refuses what lies in the future.
    pub(crate) fn check_ahead(self, at_ms: i64) -> Result<(), AwsError> {
        let ahead_ms = i64::try_from(AHEAD_MAX.as_millis()).unwrap_or(i64::MAX);
        if at_ms > self.now_ms + ahead_ms.min(self.period_ms) {
            return Err(out_of_bounds("the timestamp is in the future"));
        }
        Ok(())
    }

    /// The start of the hour into which `at_ms` falls.
    pub(crate) fn start(self, at_ms: i64) -> Result<Timestamp, AwsError> {
        Timestamp::from_millisecond(at_ms - at_ms.rem_euclid(self.period_ms))
            .map_err(|_| out_of_bounds("the timestamp is beyond the calendar"))
    }
}

/// Quantity and allocations of `of`, whose quantity is called `whole` or `decimal`.
pub(crate) fn parse_amount(
    of: &Map<String, Value>,
    whole: &str,
    decimal: &str,
) -> Result<Amount, AwsError> {
    let (quantity, as_decimal) = parse_quantity(of, whole, decimal)?;
    let allocations = parse_allocations(of, as_decimal)?;
    let allocated: u128 = allocations.iter().map(|part| part.quantity.0).sum();
    if !allocations.is_empty() && allocated != quantity.0 {
        let message = format!(
            "the allocations sum to {}, not to {quantity}",
            Millionths(allocated)
        );
        return Err(AwsError::new("InvalidUsageAllocationsException", message));
    }
    Ok(Amount {
        quantity,
        allocations,
    })
}

/// Timestamp, in milliseconds since the epoch.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
pub(crate) fn parse_timestamp(request: &Map<String, Value>) -> Result<i64, AwsError> {
    let seconds = required(
        request.get("Timestamp").filter(|value| !value.is_null()),
        "Timestamp",
    )?
    .as_f64()
    .filter(|seconds| seconds.abs() < 1e12)
    .ok_or_else(|| {
        AwsError::new(
            "SerializationException",
            "Timestamp is not a number of seconds since the epoch",
        )
    })?;
    Ok((seconds * 1000.0).round() as i64)
}

/// Whole or decimal, not both; neither means 0 (API reference, UsageQuantity).
fn parse_quantity(
    of: &Map<String, Value>,
    whole: &str,
    decimal: &str,
) -> Result<(Millionths, bool), AwsError> {
    match (integer(of, whole)?, text(of, decimal)?) {
        (Some(_), Some(_)) => Err(AwsError::validation(format!(
            "{whole} and {decimal} exclude each other"
        ))),
        (Some(value), None) => Millionths::whole(value)
            .map(|quantity| (quantity, false))
            .ok_or_else(|| {
                AwsError::validation(format!("{whole} is {value}, not 0 to 2147483647"))
            }),
        (None, Some(value)) => Millionths::decimal(value)
            .map(|quantity| (quantity, true))
            .ok_or_else(|| {
                AwsError::validation(format!(
                    "{decimal} is {value:?}, not a decimal of up to 10 and 6 digits"
                ))
            }),
        (None, None) => Ok((Millionths(0), false)),
    }
}

fn parse_allocations(
    request: &Map<String, Value>,
    decimal: bool,
) -> Result<Vec<AllocationRecord>, AwsError> {
    let refuse = |message: String| AwsError::new("InvalidUsageAllocationsException", message);
    let parts = match request.get("UsageAllocations") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(parts)) => parts,
        Some(_) => {
            return Err(AwsError::new(
                "SerializationException",
                "UsageAllocations is not a list",
            ));
        }
    };
    if parts.is_empty() || parts.len() > ALLOCATIONS_MAX {
        return Err(AwsError::validation(format!(
            "there are {} allocations, not 1 to {ALLOCATIONS_MAX}",
            parts.len()
        )));
    }
    let mut allocations: Vec<AllocationRecord> = Vec::with_capacity(parts.len());
    for part in parts {
        let part = part.as_object().ok_or_else(|| {
            AwsError::new("SerializationException", "an allocation is not an object")
        })?;
        only_known(part, USAGE_ALLOCATION.members)?;
        let quantity_given = part.contains_key("AllocatedUsageQuantity")
            || part.contains_key("AllocatedUsageQuantityAsDecimal");
        if !quantity_given {
            return Err(AwsError::validation("AllocatedUsageQuantity is required"));
        }
        let (quantity, as_decimal) = parse_quantity(
            part,
            "AllocatedUsageQuantity",
            "AllocatedUsageQuantityAsDecimal",
        )?;
        if as_decimal != decimal {
            return Err(refuse(
                "whole and decimal quantities can't be mixed in one record".to_owned(),
            ));
        }
        allocations.push(AllocationRecord {
            tags: parse_tags(part)?,
            quantity,
        });
    }
    allocations.sort_by(|a, b| a.tags.cmp(&b.tags));
    if allocations
        .windows(2)
        .any(|pair| pair[0].tags == pair[1].tags)
    {
        return Err(refuse("two allocations have the same tags".to_owned()));
    }
    Ok(allocations)
}

fn parse_tags(part: &Map<String, Value>) -> Result<BTreeMap<String, String>, AwsError> {
    let invalid = |error: AwsError| AwsError::new("InvalidTagException", error.message);
    let list = match part.get("Tags") {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Array(list)) => list,
        Some(_) => {
            return Err(AwsError::new(
                "SerializationException",
                "Tags is not a list",
            ));
        }
    };
    if list.is_empty() {
        return Err(AwsError::validation("Tags is empty"));
    }
    if list.len() > TAGS_MAX {
        return Err(AwsError::new(
            "InvalidTagException",
            format!("there are {} tags, more than {TAGS_MAX}", list.len()),
        ));
    }
    let mut tags = BTreeMap::new();
    for tag in list {
        let tag = tag
            .as_object()
            .ok_or_else(|| AwsError::new("SerializationException", "a tag is not an object"))?;
        only_known(tag, TAG.members)?;
        let key = required(text(tag, "Key")?, "Key")?;
        let value = required(text(tag, "Value")?, "Value")?;
        TAG_KEY.check(key).map_err(invalid)?;
        TAG_VALUE.check(value).map_err(invalid)?;
        if tags.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(AwsError::new(
                "InvalidTagException",
                format!("the tag {key:?} stands twice"),
            ));
        }
    }
    Ok(tags)
}
