//! BatchMeterUsage: one record per hour, dimension and customer of a product, or of a license, whoever calls.
//!
//! Either a request's integration is legacy (ProductCode, and a CustomerIdentifier in each record) or it is one for
//! concurrent agreements (no ProductCode, and CustomerAWSAccountId and LicenseArn in each record). What is metered for a
//! customer in both ways is billed twice, as AWS says; one request can't be both.
//!
//! | what is wrong | what comes of it |
//! |---|---|
//! | a member, the integration, the product, the dimension, a license, a quantity, a tag, a timestamp | the call fails, nothing of the batch counts |
//! | the customer has no subscription | that record's status is CustomerNotSubscribed |
//! | the hour has a record with another quantity | that record's status is DuplicateRecord |
//! | the service did not get to it (a fault) | the record is among UnprocessedRecords |

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::Offset;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::config::{Customer, License};
use crate::fault::Kind;
use crate::model::{
    BATCH_METER_USAGE, CUSTOMER_AWS_ACCOUNT_ID, CUSTOMER_IDENTIFIER, PRODUCT_CODE, RECORDS_MAX,
    REQUEST_BYTES_MAX, USAGE_DIMENSION, USAGE_RECORD,
};
use crate::quantity::Millionths;
use crate::record::{
    AllocationRecord, Amount, Hours, out_of_bounds, parse_amount, parse_timestamp,
};
use crate::register::{check_dimension, find_product};
use crate::server::Caller;
use crate::wire::{AwsError, members, only_known, required, text};
use crate::world::World;

/// What was metered for customers of SaaS products: the records that AWS bills.
#[derive(Debug, Default)]
pub struct SaasLedger {
    records: BTreeMap<Slot, SaasRecord>,
}

/// What there is one record for. AWS looks for duplicates within a region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    region: String,
    product_code: String,
    buyer: Buyer,
    dimension: String,
    hour_ms: i64,
}

/// How a record says who is billed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Buyer {
    /// A legacy integration: the product code stands in the request.
    Identifier {
        /// CustomerIdentifier.
        customer_identifier: String,
    },
    /// An integration for concurrent agreements.
    License {
        /// CustomerAWSAccountId.
        customer_aws_account_id: String,
        /// LicenseArn.
        license_arn: String,
    },
}

/// A record that AWS bills.
#[derive(Clone, Debug, Serialize)]
pub struct SaasRecord {
    /// The customer's id in the simulator's set-up, the same for both ways of metering.
    pub customer: String,
    /// The product, which in license-based metering the license tells.
    pub product_code: String,
    /// How the record said who is billed.
    #[serde(flatten)]
    pub buyer: Buyer,
    /// The region that was called.
    pub region: String,
    /// The dimension.
    pub dimension: String,
    /// The start of the hour.
    pub hour: Timestamp,
    /// The timestamp as sent first.
    pub timestamp: Timestamp,
    /// How much, exactly.
    pub quantity: Millionths,
    /// How it divides.
    pub allocations: Vec<AllocationRecord>,
    /// MeteringRecordId.
    pub record_id: String,
    /// When it was counted.
    pub received_at: Timestamp,
    /// How often it was sent and honoured; it is billed once.
    pub times: u64,
}

/// What is billed to a customer in all, in both ways of metering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SaasTotal {
    /// The customer's id in the simulator's set-up.
    pub customer: String,
    /// The product.
    pub product_code: String,
    /// The dimension.
    pub dimension: String,
    /// How much.
    pub quantity: Millionths,
}

/// A record of a request whose members have been checked.
#[derive(Debug)]
struct Usage {
    buyer: Buyer,
    dimension: String,
    timestamp_ms: i64,
    amount: Amount,
}

/// A usage that may be counted, unless its hour has a record already.
#[derive(Debug)]
struct Admitted {
    slot: Slot,
    /// The customer's id, if its subscription takes usage.
    customer: Option<String>,
    hour: Timestamp,
    timestamp: Timestamp,
    amount: Amount,
}

/// AWS does not take usage 24 hours or more after the event (API reference, BatchMeterUsage).
const WINDOW_HOURS: i64 = 24;
/// A month's usage is taken until 06:00 UTC on the first day of the next (API reference, BatchMeterUsage).
const MONTH_GRACE_HOURS: i64 = 6;
/// After the end of a subscription the rest of the usage is taken for an hour (seller guide).
const UNSUBSCRIBED_HOURS: i64 = 1;

impl SaasLedger {
    /// Every record.
    pub fn records(&self) -> impl Iterator<Item = &SaasRecord> {
        self.records.values()
    }

    /// What is billed in all, by customer, product and dimension.
    pub fn totals(&self) -> Vec<SaasTotal> {
        let mut totals: BTreeMap<(&str, &str, &str), u128> = BTreeMap::new();
        for record in self.records.values() {
            let key = (
                record.customer.as_str(),
                record.product_code.as_str(),
                record.dimension.as_str(),
            );
            *totals.entry(key).or_default() += record.quantity.0;
        }
        totals
            .into_iter()
            .map(
                |((customer, product_code, dimension), quantity)| SaasTotal {
                    customer: customer.to_owned(),
                    product_code: product_code.to_owned(),
                    dimension: dimension.to_owned(),
                    quantity: Millionths(quantity),
                },
            )
            .collect()
    }

    /// Counts a usage, or finds the equal one that was counted before: also after the subscription's end, since the API is
    /// idempotent. The status, and the id where it is honoured.
    fn count(&mut self, usage: Admitted, now: Timestamp) -> (&'static str, Option<String>) {
        let count = self.records.len();
        if let Some(record) = self.records.get_mut(&usage.slot)
            && record.quantity == usage.amount.quantity
            && record.allocations == usage.amount.allocations
        {
            record.times += 1;
            return ("Success", Some(record.record_id.clone()));
        }
        let Some(customer) = usage.customer else {
            return ("CustomerNotSubscribed", None);
        };
        if self.records.contains_key(&usage.slot) {
            return ("DuplicateRecord", None);
        }
        let record = SaasRecord {
            customer,
            product_code: usage.slot.product_code.clone(),
            buyer: usage.slot.buyer.clone(),
            region: usage.slot.region.clone(),
            dimension: usage.slot.dimension.clone(),
            hour: usage.hour,
            timestamp: usage.timestamp,
            quantity: usage.amount.quantity,
            allocations: usage.amount.allocations,
            record_id: format!("simulated-saas-record-{}", count + 1),
            received_at: now,
            times: 1,
        };
        let record_id = record.record_id.clone();
        self.records.insert(usage.slot, record);
        ("Success", Some(record_id))
    }
}

/// Answers BatchMeterUsage. Nothing is counted before every record of the batch has been found good.
pub(crate) fn batch_meter_usage(
    world: &mut World,
    caller: &Caller,
    body: &[u8],
) -> Result<Value, AwsError> {
    if body.len() >= REQUEST_BYTES_MAX {
        let message = format!("the request has {} bytes, not less than 1 MB", body.len());
        return Err(AwsError::new("RequestEntityTooLargeException", message));
    }
    let request = members(body, BATCH_METER_USAGE.input)?;
    let product = text(&request, "ProductCode")?;
    product.map_or(Ok(()), |product| PRODUCT_CODE.check(product))?;
    let sent = record_list(&request)?;
    let usages = sent
        .iter()
        .map(|record| parse(record, product.is_some()))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(product) = product {
        find_product(world, product, caller)?;
    }
    let admitted = usages
        .into_iter()
        .map(|usage| admit(world, caller, product, usage))
        .collect::<Result<Vec<_>, _>>()?;
    check_one_product(&admitted)?;

    let now = world.now();
    let (mut results, mut unprocessed) = (Vec::new(), Vec::new());
    for (place, (usage, sent)) in admitted.into_iter().zip(sent).enumerate() {
        let (status, record_id) = match world.faults.strike_record(place) {
            Some(Kind::Unprocessed) => {
                unprocessed.push(sent);
                continue;
            }
            Some(Kind::CustomerNotSubscribed) => ("CustomerNotSubscribed", None),
            Some(Kind::DuplicateRecord) => ("DuplicateRecord", None),
            _ => world.saas.count(usage, now),
        };
        let mut result = json!({"UsageRecord": sent, "Status": status});
        if let Some(record_id) = record_id {
            result["MeteringRecordId"] = json!(record_id);
        }
        results.push(result);
    }
    Ok(json!({"Results": results, "UnprocessedRecords": unprocessed}))
}

fn record_list(request: &Map<String, Value>) -> Result<&[Value], AwsError> {
    let list = request.get("UsageRecords").filter(|list| !list.is_null());
    let list = required(list, "UsageRecords")?
        .as_array()
        .ok_or_else(|| AwsError::new("SerializationException", "UsageRecords is not a list"))?;
    if list.len() > RECORDS_MAX {
        return Err(AwsError::validation(format!(
            "there are {} usage records, more than {RECORDS_MAX}",
            list.len()
        )));
    }
    Ok(list)
}

fn parse(record: &Value, legacy: bool) -> Result<Usage, AwsError> {
    let record = record.as_object().ok_or_else(|| {
        AwsError::new("SerializationException", "a usage record is not an object")
    })?;
    only_known(record, USAGE_RECORD.members)?;
    let dimension = required(text(record, "Dimension")?, "Dimension")?;
    USAGE_DIMENSION.check(dimension)?;
    Ok(Usage {
        buyer: parse_buyer(record, legacy)?,
        dimension: dimension.to_owned(),
        timestamp_ms: parse_timestamp(record)?,
        amount: parse_amount(record, "Quantity", "QuantityAsDecimal")?,
    })
}

/// Who is billed, by the integration that ProductCode makes it.
///
/// AWS writes that the two ways must not be mixed, not which exception it answers then. Each mistake gets the one exception
/// of the operation's service model that is about the member that has to change: ProductCode where it has to go or is
/// missing, CustomerIdentifier where it can't stand (beside CustomerAWSAccountId or LicenseArn) or is missing, LicenseArn
/// where it is missing. All of them fail the whole call.
fn parse_buyer(record: &Map<String, Value>, legacy: bool) -> Result<Buyer, AwsError> {
    let identifier = text(record, "CustomerIdentifier")?;
    let account = text(record, "CustomerAWSAccountId")?;
    let license = text(record, "LicenseArn")?;
    identifier.map_or(Ok(()), |identifier| CUSTOMER_IDENTIFIER.check(identifier))?;
    account.map_or(Ok(()), |account| CUSTOMER_AWS_ACCOUNT_ID.check(account))?;
    let product = |message: &str| Err(AwsError::new("InvalidProductCodeException", message));
    let customer =
        |message: &str| Err(AwsError::new("InvalidCustomerIdentifierException", message));
    match (legacy, identifier, account, license) {
        (_, Some(_), Some(_), _) => {
            customer("CustomerIdentifier and CustomerAWSAccountId exclude each other")
        }
        (_, Some(_), None, Some(_)) => {
            customer("a LicenseArn goes with CustomerAWSAccountId, not with CustomerIdentifier")
        }
        (true, None, Some(_), _) | (true, None, None, Some(_)) => product(
            "CustomerAWSAccountId and LicenseArn are metered without ProductCode: leave it out",
        ),
        (false, Some(_), None, None) => {
            product("CustomerIdentifier is metered with ProductCode in the request")
        }
        (_, None, None, _) => customer(
            "a usage record needs CustomerAWSAccountId and LicenseArn, or CustomerIdentifier",
        ),
        (false, None, Some(_), None) => Err(AwsError::new(
            "InvalidLicenseException",
            "a usage record with CustomerAWSAccountId needs LicenseArn",
        )),
        (true, Some(identifier), None, None) => Ok(Buyer::Identifier {
            customer_identifier: identifier.to_owned(),
        }),
        (false, None, Some(account), Some(license)) => Ok(Buyer::License {
            customer_aws_account_id: account.to_owned(),
            license_arn: license.to_owned(),
        }),
    }
}

/// What the usage would count as; an error where AWS refuses the whole batch.
fn admit(
    world: &World,
    caller: &Caller,
    product: Option<&str>,
    usage: Usage,
) -> Result<Admitted, AwsError> {
    let hours = Hours::of(world);
    let at = usage.timestamp_ms;
    let (customer, license, product_code) = match &usage.buyer {
        Buyer::Identifier {
            customer_identifier,
        } => {
            let product = product.unwrap_or_default();
            let customer = find_identifier(world, product, customer_identifier)?;
            (customer, None, product)
        }
        Buyer::License {
            customer_aws_account_id,
            license_arn,
        } => {
            let (customer, license) = find_license(world, license_arn, customer_aws_account_id)?;
            check_activation(license, at)?;
            (
                Some(customer),
                Some(license),
                customer.product_code.as_str(),
            )
        }
    };
    let state = find_product(world, product_code, caller)?;
    check_dimension(&state.config, &usage.dimension)?;
    check_time(hours, at)?;
    let hour = hours.start(at)?;
    Ok(Admitted {
        slot: Slot {
            region: caller.region.clone(),
            product_code: product_code.to_owned(),
            buyer: usage.buyer,
            dimension: usage.dimension,
            hour_ms: hour.as_millisecond(),
        },
        customer: customer
            .filter(|customer| takes_usage(customer, license, hours))
            .map(|customer| customer.id.clone()),
        hour,
        timestamp: Timestamp::from_millisecond(at).unwrap_or(hour),
        amount: usage.amount,
    })
}

/// The product's customer; none for another product's, which has no subscription to this one. One that AWS never gave out
/// fails the call.
fn find_identifier<'a>(
    world: &'a World,
    product: &str,
    identifier: &str,
) -> Result<Option<&'a Customer>, AwsError> {
    let found = world.customers.by_identifier(product, identifier);
    if found.is_none() && !world.customers.knows_identifier(identifier) {
        return Err(AwsError::new(
            "InvalidCustomerIdentifierException",
            format!("there is no customer {identifier:?}"),
        ));
    }
    Ok(found)
}

/// A bad LicenseArn fails the call, whatever is bad about it.
fn find_license<'a>(
    world: &'a World,
    arn: &str,
    account: &str,
) -> Result<(&'a Customer, &'a License), AwsError> {
    let invalid = |message: String| AwsError::new("InvalidLicenseException", message);
    let (customer, license) = world
        .customers
        .by_license(arn)
        .ok_or_else(|| invalid(format!("there is no license {arn:?}")))?;
    if customer.customer_aws_account_id.as_deref() != Some(account) {
        return Err(invalid(format!(
            "license {arn:?} is not account {account}'s"
        )));
    }
    Ok((customer, license))
}

fn check_activation(license: &License, at_ms: i64) -> Result<(), AwsError> {
    let early = license
        .starts_at
        .is_some_and(|start| at_ms < start.as_millisecond());
    let late = license
        .ends_at
        .is_some_and(|end| at_ms >= end.as_millisecond());
    if early || late {
        return Err(AwsError::new(
            "InvalidLicenseException",
            "the usage lies outside the license's activation period",
        ));
    }
    Ok(())
}

/// Whether usage is taken: while customer and license are subscribed, and for the hour after.
fn takes_usage(customer: &Customer, license: Option<&License>, hours: Hours) -> bool {
    let within = |subscribed: bool, end: Option<Timestamp>| {
        subscribed
            && end.is_none_or(|end| {
                hours.now_ms < end.as_millisecond() + hours.span_ms(UNSUBSCRIBED_HOURS)
            })
    };
    within(customer.subscribed, customer.unsubscribed_at)
        && license.is_none_or(|license| within(license.subscribed, license.unsubscribed_at))
}

fn check_time(hours: Hours, at_ms: i64) -> Result<(), AwsError> {
    if at_ms <= hours.now_ms - hours.span_ms(WINDOW_HOURS) {
        return Err(out_of_bounds("the timestamp is 24 hours back or more"));
    }
    hours.check_ahead(at_ms)?;
    if hours.now_ms >= month_end_ms(at_ms)? + hours.span_ms(MONTH_GRACE_HOURS) {
        return Err(out_of_bounds(
            "the timestamp's month closed at 06:00 UTC on the first day of the next",
        ));
    }
    Ok(())
}

/// The first moment (UTC) of the month after the one in which `at_ms` lies.
fn month_end_ms(at_ms: i64) -> Result<i64, AwsError> {
    let beyond = |_| out_of_bounds("the timestamp is beyond the calendar");
    let at = Timestamp::from_millisecond(at_ms).map_err(beyond)?;
    let next = Offset::UTC
        .to_datetime(at)
        .date()
        .last_of_month()
        .tomorrow()
        .and_then(|first| Offset::UTC.to_timestamp(first.to_datetime(Time::midnight())))
        .map_err(beyond)?;
    Ok(next.as_millisecond())
}

/// "Each BatchMeterUsage request is for only one product" (API reference).
fn check_one_product(batch: &[Admitted]) -> Result<(), AwsError> {
    let mut products = batch.iter().map(|usage| &usage.slot.product_code);
    let first = products.next();
    match products.find(|product| Some(*product) != first) {
        Some(other) => Err(AwsError::new(
            "InvalidLicenseException",
            format!("the licenses are of different products, {other:?} among them"),
        )),
        None => Ok(()),
    }
}
