//! AWS JSON 1.1 as the metering endpoint speaks it: requests read into valid types, errors in AWS's own shape.
//!
//! The members are those of the service model that botocore ships; the AWS SDK for Rust lacks the decimal ones.

pub mod batch;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Number, Value};

use crate::entitlement::nonce::Nonce;
use crate::ledger::ReportError;
use crate::marketplace::RegisterUsage;
use crate::meter::{Amount, Refusal, Report};
use crate::usage::{
    Allocation, Allocations, AllocationsError, ClientToken, Dimension, Moment, ProductCode,
    Quantity, QuantityError, Tag, TagError, TagSet,
};

/// A MeterUsage request that AWS would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterUsage {
    /// What is reported.
    pub report: Report,
    /// The caller's idempotency token.
    pub client_token: Option<ClientToken>,
    /// Goes to AWS, and counts nothing.
    pub dry_run: bool,
}

/// An error as AWS answers it: HTTP status, exception name, message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The exception's name, without a namespace.
    pub name: &'static str,
    /// For the caller.
    pub message: String,
}

/// The media type of the protocol.
pub const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MeterUsageMembers {
    product_code: Option<String>,
    timestamp: Option<Number>,
    usage_dimension: Option<String>,
    usage_quantity: Option<Number>,
    usage_quantity_as_decimal: Option<String>,
    usage_allocations: Option<Vec<AllocationMembers>>,
    dry_run: Option<bool>,
    client_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AllocationMembers {
    allocated_usage_quantity: Option<Number>,
    allocated_usage_quantity_as_decimal: Option<String>,
    tags: Option<Vec<TagMembers>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagMembers {
    key: Option<String>,
    value: Option<String>,
}

impl MeterUsage {
    /// Reads a request for `product`; a request for another product is refused as AWS refuses an unknown one.
    pub fn parse(body: &[u8], product: &ProductCode) -> Result<Self, ApiError> {
        let members: MeterUsageMembers = serde_json::from_slice(body).map_err(|error| {
            ApiError::new(
                "SerializationException",
                format!("the body is not a MeterUsage request: {error}"),
            )
        })?;
        check_product(
            required(members.product_code.as_deref(), "ProductCode")?,
            product,
        )?;
        let timestamp = required(members.timestamp.as_ref(), "Timestamp")?;
        let dimension = required(members.usage_dimension.as_deref(), "UsageDimension")?;
        let dimension = Dimension::parse(dimension).map_err(|error| {
            ApiError::validation(format!("UsageDimension can't be used: {error}"))
        })?;
        let client_token = members
            .client_token
            .map(|token| token.parse::<ClientToken>())
            .transpose();
        let (quantity, kind) = read_quantity(
            members.usage_quantity.as_ref(),
            members.usage_quantity_as_decimal.as_deref(),
            ["UsageQuantity", "UsageQuantityAsDecimal"],
        )?
        .unwrap_or((Quantity::ZERO, Kind::Whole));
        let allocations = read_allocations(members.usage_allocations, quantity, kind)?;
        Ok(Self {
            report: Report {
                customer: None,
                dimension,
                amount: Amount::Quantity {
                    quantity,
                    allocations,
                },
                at: Some(read_timestamp(timestamp)?),
            },
            client_token: client_token.map_err(|error| ApiError::validation(error.to_string()))?,
            dry_run: members.dry_run.unwrap_or(false),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RegisterUsageMembers {
    product_code: Option<String>,
    public_key_version: Option<Number>,
    nonce: Option<String>,
}

impl RegisterUsage {
    /// Reads an app's own request for `product`.
    pub fn parse(body: &[u8], product: &ProductCode) -> Result<Self, ApiError> {
        let members: RegisterUsageMembers = serde_json::from_slice(body).map_err(|error| {
            let message = format!("the body is not a RegisterUsage request: {error}");
            ApiError::new("SerializationException", message)
        })?;
        check_product(
            required(members.product_code.as_deref(), "ProductCode")?,
            product,
        )?;
        let version = required(members.public_key_version, "PublicKeyVersion")?;
        let public_key_version = version
            .as_u64()
            .and_then(|version| u32::try_from(version).ok())
            .filter(|version| *version >= 1)
            .ok_or_else(|| {
                ApiError::validation(format!(
                    "PublicKeyVersion is {version}, not a whole number from 1 on"
                ))
            })?;
        let nonce = members.nonce.map(|nonce| Nonce::parse(&nonce)).transpose();
        Ok(Self {
            product_code: product.clone(),
            public_key_version,
            nonce: nonce.map_err(|error| ApiError::validation(format!("Nonce: {error}")))?,
        })
    }
}

impl ApiError {
    /// A client error; `name` decides the status.
    pub fn new(name: &'static str, message: impl Into<String>) -> Self {
        let status = match name {
            "InternalServiceErrorException" => StatusCode::INTERNAL_SERVER_ERROR,
            "RequestEntityTooLargeException" => StatusCode::PAYLOAD_TOO_LARGE,
            "AccessDeniedException" => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            status,
            name,
            message: message.into(),
        }
    }

    /// A member that breaks the service model's constraints.
    pub fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    /// The body of the answer.
    pub fn to_json(&self) -> Value {
        serde_json::json!({
            "__type": format!("com.amazonaws.marketplacemetering#{}", self.name),
            "message": self.message,
        })
    }
}

/// A report that the ledger does not take, under AWS's own name for it.
impl From<&Refusal> for ApiError {
    fn from(refusal: &Refusal) -> Self {
        let name = match refusal {
            Refusal::UnknownDimension(_)
            | Refusal::TooManyDimensions(_)
            | Refusal::NeedsKey(_)
            | Refusal::NeedsQuantity { .. } => "InvalidUsageDimensionException",
            Refusal::TooManyKeys(_) | Refusal::TooManyCustomers => "ThrottlingException",
            Refusal::NamedTwice { .. } => "InvalidCustomerIdentifierException",
            Refusal::TimestampOutOfBounds { .. } => "TimestampOutOfBoundsException",
            Refusal::NotEntitled => "CustomerNotEntitledException",
        };
        Self::new(name, refusal.to_string())
    }
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        let name = match &error {
            ReportError::Refused(refusal) => return Self::from(refusal),
            ReportError::Conflict => "IdempotencyConflictException",
            ReportError::Failed(_) => "InternalServiceErrorException",
        };
        Self::new(name, error.to_string())
    }
}

impl From<TagError> for ApiError {
    fn from(error: TagError) -> Self {
        Self::new("InvalidTagException", error.to_string())
    }
}

impl From<AllocationsError> for ApiError {
    fn from(error: AllocationsError) -> Self {
        let name = match error {
            AllocationsError::Count(_) => "ValidationException",
            AllocationsError::DuplicateTags | AllocationsError::Sum { .. } => {
                "InvalidUsageAllocationsException"
            }
        };
        Self::new(name, error.to_string())
    }
}

/// Whole and decimal quantities can't be mixed in one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    Decimal,
}

fn check_product(code: &str, product: &ProductCode) -> Result<(), ApiError> {
    if code == product.as_str() {
        return Ok(());
    }
    let message = format!("ProductCode is {code:?}, and this sidecar meters {product}");
    Err(ApiError::new("InvalidProductCodeException", message))
}

fn required<T>(value: Option<T>, name: &str) -> Result<T, ApiError> {
    value.ok_or_else(|| ApiError::validation(format!("{name} is missing")))
}

/// Seconds since the epoch, with fractions.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
pub(crate) fn read_timestamp(seconds: &Number) -> Result<Moment, ApiError> {
    const SECONDS_MAX: f64 = 1e11;
    match seconds.as_f64() {
        Some(seconds) if seconds.abs() <= SECONDS_MAX => {
            Ok(Moment::from_millis((seconds * 1000.0).round() as i64))
        }
        _ => Err(ApiError::validation(
            "Timestamp is not a number of seconds since 1970",
        )),
    }
}

fn read_quantity(
    whole: Option<&Number>,
    decimal: Option<&str>,
    names: [&str; 2],
) -> Result<Option<(Quantity, Kind)>, ApiError> {
    let invalid =
        |name: &str, error: QuantityError| ApiError::validation(format!("{name}: {error}"));
    match (whole, decimal) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(ApiError::validation(format!(
            "{} and {} exclude each other",
            names[0], names[1]
        ))),
        (Some(whole), None) => {
            let value = whole
                .as_i64()
                .filter(|value| *value <= i64::from(i32::MAX))
                .ok_or_else(|| {
                    ApiError::validation(format!(
                        "{} is {whole}, not a whole number from 0 to 2147483647",
                        names[0]
                    ))
                })?;
            let quantity =
                Quantity::from_integer(value).map_err(|error| invalid(names[0], error))?;
            Ok(Some((quantity, Kind::Whole)))
        }
        (None, Some(decimal)) => {
            let quantity = decimal.parse().map_err(|error| invalid(names[1], error))?;
            Ok(Some((quantity, Kind::Decimal)))
        }
    }
}

fn read_allocations(
    parts: Option<Vec<AllocationMembers>>,
    quantity: Quantity,
    kind: Kind,
) -> Result<Allocations, ApiError> {
    const NAMES: [&str; 2] = ["AllocatedUsageQuantity", "AllocatedUsageQuantityAsDecimal"];
    let Some(parts) = parts else {
        return Ok(Allocations::NONE);
    };
    if parts.is_empty() {
        return Err(ApiError::validation(
            "UsageAllocations is empty; leave it out, or give 1 to 2500",
        ));
    }
    let mut allocations = Vec::with_capacity(parts.len());
    for part in parts {
        let allocated = read_quantity(
            part.allocated_usage_quantity.as_ref(),
            part.allocated_usage_quantity_as_decimal.as_deref(),
            NAMES,
        )?;
        let (quantity, part_kind) = required(allocated, NAMES[0])?;
        if part_kind != kind {
            let message = "whole and decimal quantities can't be mixed in one record";
            return Err(ApiError::new("InvalidUsageAllocationsException", message));
        }
        let tags = part.tags.map(read_tags).transpose()?;
        allocations.push(Allocation { tags, quantity });
    }
    Ok(Allocations::new(quantity, allocations)?)
}

fn read_tags(tags: Vec<TagMembers>) -> Result<TagSet, ApiError> {
    let tags = tags
        .into_iter()
        .map(|tag| {
            Ok(Tag::new(
                &required(tag.key, "Key")?,
                &required(tag.value, "Value")?,
            )?)
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    Ok(TagSet::new(tags)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(change: &Value) -> Result<MeterUsage, &'static str> {
        let mut request = json!({
            "ProductCode": "prod-1", "Timestamp": 1_795_000_000.25, "UsageDimension": "requests", "UsageQuantity": 17,
        });
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => request.as_object_mut().unwrap().remove(name),
                _ => request
                    .as_object_mut()
                    .unwrap()
                    .insert(name.clone(), value.clone()),
            };
        }
        let product = ProductCode::parse("prod-1").unwrap();
        MeterUsage::parse(request.to_string().as_bytes(), &product).map_err(|error| error.name)
    }

    fn quantity(usage: &MeterUsage) -> String {
        match &usage.report.amount {
            Amount::Quantity { quantity, .. } => quantity.to_string(),
            Amount::Key(_) => panic!("MeterUsage has no keys"),
        }
    }

    #[test]
    fn whole_and_decimal_quantities_are_read_by_value() {
        assert_eq!(quantity(&parse(&json!({})).unwrap()), "17");
        let decimal = json!({"UsageQuantity": null, "UsageQuantityAsDecimal": "17.00"});
        assert_eq!(quantity(&parse(&decimal).unwrap()), "17");
        assert_eq!(
            quantity(&parse(&json!({"UsageQuantity": null})).unwrap()),
            "0"
        );
        let at = parse(&json!({})).unwrap().report.at.unwrap();
        assert_eq!(at.as_millis(), 1_795_000_000_250);
    }

    #[test]
    fn every_mistake_has_the_name_that_aws_gives_it() {
        let tags = |tags: Value| json!({"UsageAllocations": [{"AllocatedUsageQuantity": 17, "Tags": tags}]});
        for (change, name) in [
            (json!({"ProductCode": null}), "ValidationException"),
            (
                json!({"ProductCode": "prod-2"}),
                "InvalidProductCodeException",
            ),
            (json!({"ProductCode": 7}), "SerializationException"),
            (json!({"Timestamp": null}), "ValidationException"),
            (json!({"Timestamp": "now"}), "SerializationException"),
            (json!({"Timestamp": 1e300}), "ValidationException"),
            (json!({"UsageDimension": null}), "ValidationException"),
            (json!({"UsageDimension": ""}), "ValidationException"),
            (
                json!({"UsageDimension": "x".repeat(256)}),
                "ValidationException",
            ),
            (json!({"UsageQuantity": -1}), "ValidationException"),
            (
                json!({"UsageQuantity": 2_147_483_648_i64}),
                "ValidationException",
            ),
            (json!({"UsageQuantity": u64::MAX}), "ValidationException"),
            (json!({"UsageQuantity": 1.5}), "ValidationException"),
            (json!({"UsageQuantity": "17"}), "SerializationException"),
            (
                json!({"UsageQuantityAsDecimal": "1"}),
                "ValidationException",
            ),
            (
                json!({"UsageQuantity": null, "UsageQuantityAsDecimal": "1e3"}),
                "ValidationException",
            ),
            (
                json!({"UsageQuantity": null, "UsageQuantityAsDecimal": "NaN"}),
                "ValidationException",
            ),
            (
                json!({"UsageQuantity": null, "UsageQuantityAsDecimal": "10000000000"}),
                "ValidationException",
            ),
            (json!({"ClientToken": ""}), "ValidationException"),
            (
                json!({"ClientToken": "x".repeat(65)}),
                "ValidationException",
            ),
            (json!({"DryRun": "yes"}), "SerializationException"),
            (json!({"UsageAllocations": []}), "ValidationException"),
            (
                json!({"UsageAllocations": [{"Tags": []}]}),
                "ValidationException",
            ),
            (
                json!({"UsageAllocations": [{"AllocatedUsageQuantity": 16}]}),
                "InvalidUsageAllocationsException",
            ),
            (
                json!({"UsageAllocations": [{"AllocatedUsageQuantityAsDecimal": "17"}]}),
                "InvalidUsageAllocationsException",
            ),
            (
                json!({"UsageAllocations": [{"AllocatedUsageQuantity": 16}, {"AllocatedUsageQuantity": 1}]}),
                "InvalidUsageAllocationsException",
            ),
            (tags(json!([])), "InvalidTagException"),
            (tags(json!([{"Key": "a"}])), "ValidationException"),
            (
                tags(json!([{"Key": "", "Value": "x"}])),
                "InvalidTagException",
            ),
            (
                tags(json!([{"Key": "ä", "Value": "x"}])),
                "InvalidTagException",
            ),
            (
                tags(json!([{"Key": "a", "Value": "x"}, {"Key": "a", "Value": "y"}])),
                "InvalidTagException",
            ),
        ] {
            assert_eq!(parse(&change), Err(name), "{change}");
        }
    }

    #[test]
    fn what_is_no_json_object_is_a_serialization_exception() {
        let product = ProductCode::parse("prod-1").unwrap();
        for body in [
            "",
            "{",
            "[]",
            "null",
            "{\"UsageQuantity\":NaN}",
            "{\"UsageQuantity\":1e999}",
            "\u{feff}{}",
        ] {
            let error = MeterUsage::parse(body.as_bytes(), &product).unwrap_err();
            assert_eq!(
                (error.status, error.name),
                (StatusCode::BAD_REQUEST, "SerializationException"),
                "{body}"
            );
        }
    }

    #[test]
    fn members_of_later_service_models_are_no_errors() {
        assert!(parse(&json!({"SomethingNew": {"a": 1}})).is_ok());
    }
}
