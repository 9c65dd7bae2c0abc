//! MeterUsage, with the rules that cost money: one record per hour, dimension and caller, for ever unchangeable.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::model::{CLIENT_TOKEN, METER_USAGE, PRODUCT_CODE, USAGE_DIMENSION};
use crate::quantity::Millionths;
pub use crate::record::AllocationRecord;
use crate::record::{Amount, Hours, out_of_bounds, parse_amount, parse_timestamp};
use crate::register::{check_dimension, find_product};
use crate::server::Caller;
use crate::wire::{AwsError, members, required, text};
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

/// A request whose members have been checked; equal by value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Usage {
    product: String,
    dimension: String,
    timestamp_ms: i64,
    amount: Amount,
    dry_run: bool,
    client_token: Option<String>,
}

/// AWS takes usage up to six hours back (MeterUsage, API reference).
const WINDOW_HOURS: i64 = 6;

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
                if record.quantity == usage.amount.quantity
                    && record.allocations == usage.amount.allocations =>
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
                    quantity: usage.amount.quantity,
                    allocations: usage.amount.allocations.clone(),
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
    check_dimension(product, &usage.dimension)?;
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
    let hours = Hours::of(world);
    let at = usage.timestamp_ms;
    if at < hours.now_ms - hours.span_ms(WINDOW_HOURS) {
        return Err(out_of_bounds("the timestamp is more than six hours back"));
    }
    hours.check_ahead(at)?;
    // Timestamps travel in seconds, often without fractions.
    if caller
        .started_at
        .is_some_and(|started| at / 1000 < started.as_second())
    {
        return Err(out_of_bounds(
            "the timestamp lies before the start of the task or pod",
        ));
    }
    hours.start(at)
}

fn parse(body: &[u8]) -> Result<Usage, AwsError> {
    let request = members(body, METER_USAGE.input)?;
    let product = required(text(&request, "ProductCode")?, "ProductCode")?;
    PRODUCT_CODE.check(product)?;
    let dimension = required(text(&request, "UsageDimension")?, "UsageDimension")?;
    USAGE_DIMENSION.check(dimension)?;
    let client_token = text(&request, "ClientToken")?;
    client_token.map_or(Ok(()), |token| CLIENT_TOKEN.check(token))?;
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
    Ok(Usage {
        product: product.to_owned(),
        dimension: dimension.to_owned(),
        timestamp_ms: parse_timestamp(&request)?,
        amount: parse_amount(&request, "UsageQuantity", "UsageQuantityAsDecimal")?,
        dry_run,
        client_token: client_token.map(str::to_owned),
    })
}
