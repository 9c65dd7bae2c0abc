//! MeterUsage, with the rules that cost money: one record per hour, dimension and caller, for ever unchangeable.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::model::{
    ALLOCATIONS_MAX, CLIENT_TOKEN, METER_USAGE, PRODUCT_CODE, TAG_KEY, TAG_VALUE, TAGS_MAX,
    USAGE_DIMENSION,
};
use crate::quantity::Millionths;
use crate::register::find_product;
use crate::server::Caller;
use crate::wire::{AwsError, integer, members, required, text};
use crate::world::World;

/// What was metered: the records that AWS bills, and the client tokens seen.
#[derive(Debug, Default)]
pub struct Ledger {
    records: BTreeMap<Slot, Record>,
    tokens: HashMap<(String, String), (Usage, String)>,
}

/// What there is one record for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    identity: String,
    product: String,
    dimension: String,
    hour: i64,
}

/// A record that AWS bills.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Who metered it.
    pub identity: String,
    /// The product.
    pub product_code: String,
    /// The dimension.
    pub dimension: String,
    /// The start of the hour.
    pub hour: Timestamp,
    /// The timestamp as sent.
    pub timestamp: Timestamp,
    /// How much, exactly.
    pub quantity: Millionths,
    /// How it divides.
    pub allocations: Vec<AllocationRecord>,
    /// MeteringRecordId.
    pub record_id: String,
    /// When it was counted.
    pub received_at: Timestamp,
}

/// A part of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AllocationRecord {
    /// The part's tags by key; none for the untagged part.
    pub tags: BTreeMap<String, String>,
    /// How much of it.
    pub quantity: Millionths,
}

/// A request whose members have been checked; equal by value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Usage {
    product: String,
    dimension: String,
    timestamp_ms: i64,
    quantity: Millionths,
    allocations: Vec<AllocationRecord>,
    dry_run: bool,
    client_token: Option<String>,
}

/// AWS takes usage up to six hours back (MeterUsage, API reference).
const WINDOW_HOURS: i32 = 6;
/// And hardly from the future.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);

impl Ledger {
    /// Every record, by caller, product, dimension and hour.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// What is billed in all, by product and dimension.
    pub fn totals(&self) -> BTreeMap<(String, String), Millionths> {
        let mut totals: BTreeMap<(String, String), Millionths> = BTreeMap::new();
        for record in self.records.values() {
            let key = (record.product_code.clone(), record.dimension.clone());
            totals.entry(key).or_default().0 += record.quantity.0;
        }
        totals
    }

    fn meter(
        &mut self,
        caller: &Caller,
        usage: Usage,
        hour: Timestamp,
        now: Timestamp,
    ) -> Result<String, AwsError> {
        let token = usage
            .client_token
            .clone()
            .map(|token| (caller.identity.clone(), token));
        if let Some((before, record_id)) = token.as_ref().and_then(|token| self.tokens.get(token)) {
            if *before == usage {
                return Ok(record_id.clone());
            }
            return Err(AwsError::new(
                "IdempotencyConflictException",
                "the ClientToken was used with other parameters",
            ));
        }
        let slot = Slot {
            identity: caller.identity.clone(),
            product: usage.product.clone(),
            dimension: usage.dimension.clone(),
            hour: hour.as_millisecond(),
        };
        let record_id = match self.records.get(&slot) {
            Some(record)
                if record.quantity == usage.quantity && record.allocations == usage.allocations =>
            {
                record.record_id.clone()
            }
            Some(_) => {
                return Err(AwsError::new(
                    "DuplicateRequestException",
                    "the hour has a record with another quantity or other allocations",
                ));
            }
            None => {
                let record_id = format!("simulated-record-{}", self.records.len() + 1);
                let record = Record {
                    identity: caller.identity.clone(),
                    product_code: usage.product.clone(),
                    dimension: usage.dimension.clone(),
                    hour,
                    timestamp: Timestamp::from_millisecond(usage.timestamp_ms).unwrap_or(hour),
                    quantity: usage.quantity,
                    allocations: usage.allocations.clone(),
                    record_id: record_id.clone(),
                    received_at: now,
                };
                self.records.insert(slot, record);
                record_id
            }
        };
        if let Some(token) = token {
            self.tokens.insert(token, (usage, record_id.clone()));
        }
        Ok(record_id)
    }
}

/// Answers MeterUsage.
pub(crate) fn meter_usage(
    world: &mut World,
    caller: &Caller,
    body: &[u8],
) -> Result<Value, AwsError> {
    let usage = parse(body)?;
    if caller.region != world.region {
        let message = format!(
            "the call came to {}, the caller runs in {}",
            caller.region, world.region
        );
        return Err(AwsError::new("InvalidEndpointRegionException", message));
    }
    let product = &find_product(world, &usage.product, caller)?.config;
    if !product.dimensions.contains(&usage.dimension) {
        let message = format!("the product has no dimension {:?}", usage.dimension);
        return Err(AwsError::new("InvalidUsageDimensionException", message));
    }
    if usage.dry_run {
        return if product.dry_run_succeeds {
            Ok(json!({"MeteringRecordId": "dry-run"}))
        } else {
            Err(AwsError::new(
                "DryRunOperation",
                "the request would have succeeded, but the DryRun flag is set",
            ))
        };
    }
    if !product.entitled {
        return Err(AwsError::new(
            "CustomerNotEntitledException",
            "the buyer has no subscription to the product",
        ));
    }
    let hour = check_time(world, caller, &usage)?;
    let now = world.now();
    let record_id = world.ledger.meter(caller, usage, hour, now)?;
    Ok(json!({"MeteringRecordId": record_id}))
}

/// The hour that the usage falls into, if AWS still takes it.
fn check_time(world: &World, caller: &Caller, usage: &Usage) -> Result<Timestamp, AwsError> {
    let out = |why: &str| AwsError::new("TimestampOutOfBoundsException", why);
    let period_ms = i64::try_from(world.period.as_millis())
        .unwrap_or(i64::MAX)
        .max(1);
    let now_ms = world.now().as_millisecond();
    let at = usage.timestamp_ms;
    if at < now_ms - i64::from(WINDOW_HOURS) * period_ms {
        return Err(out("the timestamp is more than six hours back"));
    }
    let ahead_ms = i64::try_from(AHEAD_MAX.as_millis())
        .unwrap_or(i64::MAX)
        .min(period_ms);
    if at > now_ms + ahead_ms {
        return Err(out("the timestamp is in the future"));
    }
    // Timestamps travel in seconds, often without fractions.
    if caller
        .started_at
        .is_some_and(|started| at / 1000 < started.as_second())
    {
        return Err(out(
            "the timestamp lies before the start of the task or pod",
        ));
    }
    let hour = at - at.rem_euclid(period_ms);
    Timestamp::from_millisecond(hour).map_err(|_| out("the timestamp is beyond the calendar"))
}

fn parse(body: &[u8]) -> Result<Usage, AwsError> {
    let request = members(body, METER_USAGE.input)?;
    let product = required(text(&request, "ProductCode")?, "ProductCode")?;
    PRODUCT_CODE.check(product)?;
    let dimension = required(text(&request, "UsageDimension")?, "UsageDimension")?;
    USAGE_DIMENSION.check(dimension)?;
    let client_token = text(&request, "ClientToken")?;
    client_token.map_or(Ok(()), |token| CLIENT_TOKEN.check(token))?;
    let (quantity, decimal) = parse_quantity(&request, "UsageQuantity", "UsageQuantityAsDecimal")?;
    let dry_run = match request.get("DryRun") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(dry_run)) => *dry_run,
        Some(_) => {
            return Err(AwsError::new(
                "SerializationException",
                "DryRun is not a boolean",
            ));
        }
    };
    let usage = Usage {
        product: product.to_owned(),
        dimension: dimension.to_owned(),
        timestamp_ms: parse_timestamp(&request)?,
        quantity,
        allocations: parse_allocations(&request, decimal)?,
        dry_run,
        client_token: client_token.map(str::to_owned),
    };
    let allocated: u128 = usage.allocations.iter().map(|part| part.quantity.0).sum();
    if !usage.allocations.is_empty() && allocated != quantity.0 {
        let message = format!(
            "the allocations sum to {}, not to {quantity}",
            Millionths(allocated)
        );
        return Err(AwsError::new("InvalidUsageAllocationsException", message));
    }
    Ok(usage)
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn parse_timestamp(request: &Map<String, Value>) -> Result<i64, AwsError> {
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
    if list.is_empty() || list.len() > TAGS_MAX {
        return Err(AwsError::validation(format!(
            "there are {} tags, not 1 to {TAGS_MAX}",
            list.len()
        )));
    }
    let mut tags = BTreeMap::new();
    for tag in list {
        let tag = tag
            .as_object()
            .ok_or_else(|| AwsError::new("SerializationException", "a tag is not an object"))?;
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
