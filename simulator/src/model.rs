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

/// A structure inside a request or an answer.
#[derive(Debug)]
pub struct Structure {
    /// Its name in AWS's model.
    pub shape: &'static str,
    /// Its members.
    pub members: &'static [&'static str],
    /// Those that have to be there.
    pub required: &'static [&'static str],
}

/// Bounds of a text member: characters, and whether AWS gives a pattern.
#[derive(Debug)]
pub struct TextLimits {
    /// The shape's name in AWS's model.
    pub shape: &'static str,
    /// Fewest characters.
    pub min: usize,
    /// Most characters, where AWS bounds them.
    pub max: Option<usize>,
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

/// BatchMeterUsage.
pub const BATCH_METER_USAGE: Operation = Operation {
    name: "BatchMeterUsage",
    input: &["UsageRecords", "ProductCode"],
    required: &["UsageRecords"],
    output: &["Results", "UnprocessedRecords"],
    errors: &[
        "InternalServiceErrorException",
        "InvalidProductCodeException",
        "InvalidUsageDimensionException",
        "InvalidTagException",
        "InvalidUsageAllocationsException",
        "InvalidCustomerIdentifierException",
        "TimestampOutOfBoundsException",
        "ThrottlingException",
        "DisabledApiException",
        "InvalidLicenseException",
    ],
};

/// ResolveCustomer.
pub const RESOLVE_CUSTOMER: Operation = Operation {
    name: "ResolveCustomer",
    input: &["RegistrationToken"],
    required: &["RegistrationToken"],
    output: &[
        "CustomerIdentifier",
        "ProductCode",
        "CustomerAWSAccountId",
        "LicenseArn",
        "Metadata",
    ],
    errors: &[
        "InvalidTokenException",
        "ExpiredTokenException",
        "ThrottlingException",
        "InternalServiceErrorException",
        "DisabledApiException",
    ],
};

/// The operations that are modelled, which are all there are.
pub const OPERATIONS: [&Operation; 4] = [
    &REGISTER_USAGE,
    &METER_USAGE,
    &BATCH_METER_USAGE,
    &RESOLVE_CUSTOMER,
];

/// UsageRecord, of which BatchMeterUsage takes a list.
pub const USAGE_RECORD: Structure = Structure {
    shape: "UsageRecord",
    members: &[
        "Timestamp",
        "CustomerIdentifier",
        "Dimension",
        "Quantity",
        "QuantityAsDecimal",
        "UsageAllocations",
        "CustomerAWSAccountId",
        "LicenseArn",
    ],
    required: &["Timestamp", "Dimension"],
};
/// UsageAllocation.
pub const USAGE_ALLOCATION: Structure = Structure {
    shape: "UsageAllocation",
    members: &[
        "AllocatedUsageQuantity",
        "AllocatedUsageQuantityAsDecimal",
        "Tags",
    ],
    required: &[],
};
/// Tag.
pub const TAG: Structure = Structure {
    shape: "Tag",
    members: &["Key", "Value"],
    required: &["Key", "Value"],
};
/// UsageRecordResult.
pub const USAGE_RECORD_RESULT: Structure = Structure {
    shape: "UsageRecordResult",
    members: &["UsageRecord", "MeteringRecordId", "Status"],
    required: &[],
};
/// Metadata of ResolveCustomer.
pub const METADATA: Structure = Structure {
    shape: "Metadata",
    members: &["AgreementId"],
    required: &[],
};
const STRUCTURES: [&Structure; 5] = [
    &USAGE_RECORD,
    &USAGE_ALLOCATION,
    &TAG,
    &USAGE_RECORD_RESULT,
    &METADATA,
];

/// ProductCode.
pub const PRODUCT_CODE: TextLimits = TextLimits {
    shape: "ProductCode",
    min: 0,
    max: Some(255),
    pattern: Some("^[-a-zA-Z0-9/=:_.@]*$"),
    allowed: |c| c.is_ascii_alphanumeric() || "-/=:_.@".contains(c),
};
/// UsageDimension.
pub const USAGE_DIMENSION: TextLimits = TextLimits {
    shape: "UsageDimension",
    min: 1,
    max: Some(255),
    pattern: Some("[\\s\\S]+"),
    allowed: |_| true,
};
/// Nonce.
pub const NONCE: TextLimits = TextLimits {
    shape: "Nonce",
    min: 0,
    max: Some(255),
    pattern: Some("[\\s\\S]*"),
    allowed: |_| true,
};
/// ClientToken.
pub const CLIENT_TOKEN: TextLimits = TextLimits {
    shape: "ClientToken",
    min: 1,
    max: Some(64),
    pattern: None,
    allowed: |_| true,
};
/// TagKey.
pub const TAG_KEY: TextLimits = TextLimits {
    shape: "TagKey",
    min: 1,
    max: Some(100),
    pattern: Some("^[a-zA-Z0-9+ -=._:\\/@]+$"),
    allowed: is_tag_character,
};
/// TagValue.
pub const TAG_VALUE: TextLimits = TextLimits {
    shape: "TagValue",
    min: 1,
    max: Some(256),
    pattern: Some("^[a-zA-Z0-9+ -=._:\\/@]+$"),
    allowed: is_tag_character,
};
/// CustomerIdentifier.
pub const CUSTOMER_IDENTIFIER: TextLimits = TextLimits {
    shape: "CustomerIdentifier",
    min: 0,
    max: Some(255),
    pattern: Some("[\\s\\S]*"),
    allowed: |_| true,
};
/// CustomerAWSAccountId.
pub const CUSTOMER_AWS_ACCOUNT_ID: TextLimits = TextLimits {
    shape: "CustomerAWSAccountId",
    min: 1,
    max: Some(255),
    pattern: Some("^[0-9]+$"),
    allowed: |c| c.is_ascii_digit(),
};
/// AgreementId.
pub const AGREEMENT_ID: TextLimits = TextLimits {
    shape: "AgreementId",
    min: 1,
    max: Some(64),
    pattern: Some("[A-Za-z0-9_/-]+"),
    allowed: |c| c.is_ascii_alphanumeric() || "_/-".contains(c),
};
/// LicenseArn, whose form `is_license_arn` checks.
pub const LICENSE_ARN: TextLimits = TextLimits {
    shape: "LicenseArn",
    min: 0,
    max: None,
    pattern: Some(
        "^arn:aws[a-zA-Z-]*:[A-Za-z0-9][A-Za-z0-9_/.-]{0,62}:[A-Za-z0-9_/.-]{0,63}:[A-Za-z0-9_/.-]{0,63}:\
         [A-Za-z0-9][A-Za-z0-9:_/+=,@.-]{0,1023}$",
    ),
    allowed: |_| true,
};
/// Records in a batch.
pub const RECORDS_MAX: usize = 25;
/// A batch is smaller than this (API reference: less than 1 MB).
pub const REQUEST_BYTES_MAX: usize = 1_000_000;
/// What becomes of a record of a batch.
pub const STATUSES: [&str; 3] = ["Success", "CustomerNotSubscribed", "DuplicateRecord"];
/// Allocations in a record.
pub const ALLOCATIONS_MAX: usize = 2500;
/// Tags of an allocation.
pub const TAGS_MAX: usize = 5;

/// In AWS's pattern ` -=` is a range, from the space to the equals sign.
fn is_tag_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || (' '..='=').contains(&c) || "_@".contains(c)
}

/// Whether `text` matches the pattern of [`LICENSE_ARN`].
pub(crate) fn is_license_arn(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let mut part = || parts.next().unwrap_or_default();
    let (arn, partition, service) = (part(), part(), part());
    let (region, account, resource) = (part(), part(), part());
    let name = |c: char| c.is_ascii_alphanumeric() || "_/.-".contains(c);
    let begins = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric());
    arn == "arn"
        && partition
            .strip_prefix("aws")
            .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_alphabetic() || c == '-'))
        && begins(service)
        && [service, region, account]
            .iter()
            .all(|part| part.len() <= 63 && part.chars().all(name))
        && begins(resource)
        && resource.len() <= 1024
        && resource.chars().all(|c| name(c) || ":+=,@".contains(c))
}

impl TextLimits {
    /// Refuses a text outside the limits.
    pub(crate) fn check(&self, text: &str) -> Result<(), AwsError> {
        let length = text.chars().count();
        if length < self.min {
            return Err(AwsError::validation(format!(
                "{} has {length} characters, fewer than {}",
                self.shape, self.min
            )));
        }
        if let Some(max) = self.max.filter(|max| length > *max) {
            return Err(AwsError::validation(format!(
                "{} has {length} characters, more than {max}",
                self.shape
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
    let structures: Vec<Value> = STRUCTURES
        .iter()
        .map(|structure| {
            json!({
                "shape": structure.shape, "members": structure.members, "required": structure.required,
            })
        })
        .collect();
    let texts: Vec<Value> = [
        &PRODUCT_CODE, &USAGE_DIMENSION, &NONCE, &CLIENT_TOKEN, &TAG_KEY, &TAG_VALUE,
        &CUSTOMER_IDENTIFIER, &CUSTOMER_AWS_ACCOUNT_ID, &AGREEMENT_ID, &LICENSE_ARN,
    ]
        .iter()
        .map(|limits| json!({"shape": limits.shape, "min": limits.min, "max": limits.max, "pattern": limits.pattern}))
        .collect();
    json!({
        "operations": operations,
        "structures": structures,
        "texts": texts,
        "statuses": STATUSES,
        "records_max": RECORDS_MAX,
        "allocations_max": ALLOCATIONS_MAX,
        "tags_max": TAGS_MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::is_license_arn;

    #[test]
    fn a_license_arn_has_the_form_of_the_model() {
        let service = "s".repeat(63);
        let resource = "r".repeat(1024);
        for good in [
            "arn:aws:license-manager::222233334444:license:l-0123456789abcdef",
            "arn:aws-us-gov:license-manager:us-east-1:1:l",
            "arn:aws:l:::r",
            "arn:aws:l:::license/lic+a=b,c@d.e_f-g:h",
            &format!("arn:aws:{service}:{service}:{service}:{resource}"),
        ] {
            assert!(is_license_arn(good), "{good}");
        }
        for bad in [
            "",
            "arn:aws:l::r",
            "arn:aws:l:::",
            "arn:aws::::r",
            "arn:aws1:l:::r",
            "arn:xaws:l:::r",
            "xarn:aws:l:::r",
            "arn:aws:-l:::r",
            "arn:aws:l:::-r",
            "arn:aws:l:::r s",
            "arn:aws:l:::ä",
            "arn:aws:l::a+b:r",
            &format!("arn:aws:{service}s:::r"),
            &format!("arn:aws:l:{service}s::r"),
            &format!("arn:aws:l:::{resource}r"),
        ] {
            assert!(!is_license_arn(bad), "{bad}");
        }
    }
}
