//! The service's shapes as data: what validation goes by, and what `GET /simulator/model` shows for comparison with AWS's own model.

use serde_json::{Value, json};

use crate::wire::AwsError;

/// An operation that the simulator models.
#[derive(Debug)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// Members of the request.
    pub input: &'static [&'static str],
    /// Those that have to be there.
    pub required: &'static [&'static str],
    /// Members of the answer.
    pub output: &'static [&'static str],
    /// The exceptions that the service model lists.
    pub errors: &'static [&'static str],
}

/// Bounds of a text member: characters, and whether AWS gives a pattern.
#[derive(Debug)]
pub struct TextLimits {
    /// The shape's name in AWS's model.
    pub shape: &'static str,
    /// Fewest characters.
    pub min: usize,
    /// Most characters.
    pub max: usize,
    /// AWS's pattern, as it is written there.
    pub pattern: Option<&'static str>,
    allowed: fn(char) -> bool,
}

/// RegisterUsage.
pub const REGISTER_USAGE: Operation = Operation {
    name: "RegisterUsage",
    input: &["ProductCode", "PublicKeyVersion", "Nonce"],
    required: &["ProductCode", "PublicKeyVersion"],
    output: &["PublicKeyRotationTimestamp", "Signature"],
    errors: &[
        "InvalidProductCodeException",
        "InvalidRegionException",
        "InvalidPublicKeyVersionException",
        "PlatformNotSupportedException",
        "CustomerNotEntitledException",
        "ThrottlingException",
        "InternalServiceErrorException",
        "DisabledApiException",
    ],
};

/// MeterUsage.
pub const METER_USAGE: Operation = Operation {
    name: "MeterUsage",
    input: &[
        "ProductCode",
        "Timestamp",
        "UsageDimension",
        "UsageQuantity",
        "UsageQuantityAsDecimal",
        "DryRun",
        "UsageAllocations",
        "ClientToken",
    ],
    required: &["ProductCode", "Timestamp", "UsageDimension"],
    output: &["MeteringRecordId"],
    errors: &[
        "InternalServiceErrorException",
        "InvalidProductCodeException",
        "InvalidUsageDimensionException",
        "InvalidTagException",
        "InvalidUsageAllocationsException",
        "InvalidEndpointRegionException",
        "TimestampOutOfBoundsException",
        "DuplicateRequestException",
        "ThrottlingException",
        "CustomerNotEntitledException",
        "IdempotencyConflictException",
    ],
};

/// The operations that are modelled; others are refused.
pub const OPERATIONS: [&Operation; 2] = [&REGISTER_USAGE, &METER_USAGE];

/// ProductCode.
pub const PRODUCT_CODE: TextLimits = TextLimits {
    shape: "ProductCode",
    min: 0,
    max: 255,
    pattern: Some("^[-a-zA-Z0-9/=:_.@]*$"),
    allowed: |c| c.is_ascii_alphanumeric() || "-/=:_.@".contains(c),
};
/// UsageDimension.
pub const USAGE_DIMENSION: TextLimits = TextLimits {
    shape: "UsageDimension",
    min: 1,
    max: 255,
    pattern: Some("[\\s\\S]+"),
    allowed: |_| true,
};
/// Nonce.
pub const NONCE: TextLimits = TextLimits {
    shape: "Nonce",
    min: 0,
    max: 255,
    pattern: Some("[\\s\\S]*"),
    allowed: |_| true,
};
/// ClientToken.
pub const CLIENT_TOKEN: TextLimits = TextLimits {
    shape: "ClientToken",
    min: 1,
    max: 64,
    pattern: None,
    allowed: |_| true,
};
/// TagKey.
pub const TAG_KEY: TextLimits = TextLimits {
    shape: "TagKey",
    min: 1,
    max: 100,
    pattern: Some("^[a-zA-Z0-9+ -=._:\\/@]+$"),
    allowed: is_tag_character,
};
/// TagValue.
pub const TAG_VALUE: TextLimits = TextLimits {
    shape: "TagValue",
    min: 1,
    max: 256,
    pattern: Some("^[a-zA-Z0-9+ -=._:\\/@]+$"),
    allowed: is_tag_character,
};
/// Allocations in a record.
pub const ALLOCATIONS_MAX: usize = 2500;
/// Tags of an allocation.
pub const TAGS_MAX: usize = 5;

/// In AWS's pattern ` -=` is a range, from the space to the equals sign.
fn is_tag_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || (' '..='=').contains(&c) || "_@".contains(c)
}

impl TextLimits {
    /// Refuses a text outside the limits.
    pub(crate) fn check(&self, text: &str) -> Result<(), AwsError> {
        let length = text.chars().count();
        if length < self.min || length > self.max {
            return Err(AwsError::validation(format!(
                "{} has {length} characters, not {} to {}",
                self.shape, self.min, self.max
            )));
        }
        match text.chars().find(|c| !(self.allowed)(*c)) {
            Some(c) => Err(AwsError::validation(format!(
                "{} contains {c:?}",
                self.shape
            ))),
            None => Ok(()),
        }
    }
}

/// The model as JSON.
pub(crate) fn to_json() -> Value {
    let operations: Vec<Value> = OPERATIONS
        .iter()
        .map(|operation| {
            json!({
                "name": operation.name, "input": operation.input, "required": operation.required,
                "output": operation.output, "errors": operation.errors,
            })
        })
        .collect();
    let texts: Vec<Value> = [&PRODUCT_CODE, &USAGE_DIMENSION, &NONCE, &CLIENT_TOKEN, &TAG_KEY, &TAG_VALUE]
        .iter()
        .map(|limits| json!({"shape": limits.shape, "min": limits.min, "max": limits.max, "pattern": limits.pattern}))
        .collect();
    json!({
        "operations": operations,
        "texts": texts,
        "allocations_max": ALLOCATIONS_MAX,
        "tags_max": TAGS_MAX,
    })
}
