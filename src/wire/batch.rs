//! BatchMeterUsage: requests read into reports, answers in AWS's shape.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Number;
use serde_json::value::RawValue;

use super::{
    AllocationMembers, ApiError, Kind, check_product, read_allocations, read_quantity,
    read_timestamp, required,
};
use crate::meter::{Amount, Report};
use crate::usage::{Customer, CustomerError, Dimension, ProductCode, Quantity, RecordId, Way};

/// The records of a BatchMeterUsage request, as they came.
#[derive(Debug)]
pub struct BatchMeterUsage<'a> {
    records: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Members<'a> {
    product_code: Option<String>,
    #[serde(borrow)]
    usage_records: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RecordMembers {
    timestamp: Option<Number>,
    customer_identifier: Option<String>,
    #[serde(rename = "CustomerAWSAccountId")]
    customer_aws_account_id: Option<String>,
    license_arn: Option<String>,
    dimension: Option<String>,
    quantity: Option<Number>,
    quantity_as_decimal: Option<String>,
    usage_allocations: Option<Vec<AllocationMembers>>,
}

/// API reference, UsageRecordList.
const RECORDS_MAX: usize = 25;

impl<'a> BatchMeterUsage<'a> {
    /// Reads a request for `product`: the records, and the usage that they report. One record that AWS would not take refuses
    /// them all, as it does there; and so do customers that are named in ways which can't share a request.
    pub fn parse(body: &'a [u8], product: &ProductCode) -> Result<(Self, Vec<Report>), ApiError> {
        let members: Members<'a> = serde_json::from_slice(body).map_err(|error| {
            let message = format!("the body is not a BatchMeterUsage request: {error}");
            ApiError::new("SerializationException", message)
        })?;
        let records = required(members.usage_records, "UsageRecords")?;
        if records.len() > RECORDS_MAX {
            let count = records.len();
            let message =
                format!("UsageRecords has {count} records; AWS takes {RECORDS_MAX} at most");
            return Err(ApiError::validation(message));
        }
        let parse = |(index, raw): (usize, &&RawValue)| {
            parse_record(raw.get()).map_err(|error| ApiError {
                message: format!("UsageRecords[{index}]: {}", error.message),
                ..error
            })
        };
        let reports: Vec<Report> = records
            .iter()
            .enumerate()
            .map(parse)
            .collect::<Result<_, _>>()?;
        check_names(&reports, members.product_code.as_deref(), product)?;
        Ok((Self { records }, reports))
    }

    /// The answer: each record as it came, with its id; without one where the customer is not subscribed.
    pub fn answer(&self, ids: &[Option<RecordId>]) -> String {
        let mut results = String::with_capacity(self.records.len() * RESULT_BYTES);
        for (raw, id) in self.records.iter().zip(ids) {
            if !results.is_empty() {
                results.push(',');
            }
            let raw = raw.get();
            // Writing to a string can't fail.
            let _ = match id {
                Some(id) => write!(
                    results,
                    "{{\"UsageRecord\":{raw},\"MeteringRecordId\":\"{id}\",\"Status\":\"Success\"}}"
                ),
                None => write!(
                    results,
                    "{{\"UsageRecord\":{raw},\"Status\":\"CustomerNotSubscribed\"}}"
                ),
            };
        }
        format!("{{\"Results\":[{results}],\"UnprocessedRecords\":[]}}")
    }
}

const RESULT_BYTES: usize = 320;

fn parse_record(text: &str) -> Result<Report, ApiError> {
    let members: RecordMembers = serde_json::from_str(text).map_err(|error| {
        ApiError::new(
            "SerializationException",
            format!("it is no UsageRecord: {error}"),
        )
    })?;
    let timestamp = required(members.timestamp.as_ref(), "Timestamp")?;
    let dimension = required(members.dimension.as_deref(), "Dimension")?;
    let dimension = Dimension::parse(dimension)
        .map_err(|error| ApiError::validation(format!("Dimension can't be used: {error}")))?;
    let customer = Customer::new(
        members.customer_identifier.as_deref(),
        members.customer_aws_account_id.as_deref(),
        members.license_arn.as_deref(),
    )?;
    let (quantity, kind) = read_quantity(
        members.quantity.as_ref(),
        members.quantity_as_decimal.as_deref(),
        ["Quantity", "QuantityAsDecimal"],
    )?
    .unwrap_or((Quantity::ZERO, Kind::Whole));
    let allocations = read_allocations(members.usage_allocations, quantity, kind)?;
    Ok(Report {
        customer: Some(customer),
        dimension,
        amount: Amount::Quantity {
            quantity,
            allocations,
        },
        at: Some(read_timestamp(timestamp)?),
    })
}

/// A ProductCode for customers that are named with one, and none for licenses, which name the product themselves: with both
/// AWS bills twice (API reference, BatchMeterUsage).
fn check_names(
    reports: &[Report],
    product_code: Option<&str>,
    product: &ProductCode,
) -> Result<(), ApiError> {
    if let Some(code) = product_code {
        check_product(code, product)?;
    }
    let mut ways = reports
        .iter()
        .filter_map(|report| report.customer.as_ref())
        .map(|customer| customer.way() == Way::License);
    let Some(by_license) = ways.next() else {
        return Ok(());
    };
    if ways.any(|way| way != by_license) {
        return Err(ApiError::validation(
            "some records name a LicenseArn and some do not; they can't share a request: make two",
        ));
    }
    match (by_license, product_code) {
        (true, Some(_)) => Err(ApiError::new(
            "InvalidProductCodeException",
            "ProductCode and LicenseArn exclude each other: AWS would bill the usage twice. Leave ProductCode out",
        )),
        (false, None) => Err(ApiError::new(
            "InvalidProductCodeException",
            "ProductCode is missing: customers that are named without a LicenseArn need it",
        )),
        (true, None) | (false, Some(_)) => Ok(()),
    }
}

impl From<CustomerError> for ApiError {
    fn from(error: CustomerError) -> Self {
        let name = match error {
            CustomerError::Identifier(_) => "InvalidCustomerIdentifierException",
            CustomerError::License(_) | CustomerError::LicenseWithoutAccount => {
                "InvalidLicenseException"
            }
            CustomerError::Missing | CustomerError::Both | CustomerError::Account(_) => {
                "ValidationException"
            }
        };
        Self::new(name, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ARN: &str = "arn:aws:license-manager::123456789012:license:l-1";

    fn record(change: &Value) -> Value {
        let mut record = json!({"Timestamp": 1_795_000_000, "Dimension": "users", "Quantity": 3});
        for (name, value) in change.as_object().unwrap() {
            record[name] = value.clone();
        }
        record
    }

    fn license() -> Value {
        record(&json!({"CustomerAWSAccountId": "123456789012", "LicenseArn": ARN}))
    }

    fn legacy() -> Value {
        record(&json!({"CustomerIdentifier": "c-1"}))
    }

    fn parse(request: &Value) -> Result<Vec<Report>, &'static str> {
        let product = ProductCode::parse("prod-1").unwrap();
        let body = request.to_string();
        BatchMeterUsage::parse(body.as_bytes(), &product)
            .map(|(_, reports)| reports)
            .map_err(|error| error.name)
    }

    #[test]
    fn customers_are_named_by_license_without_a_product_code_or_with_one() {
        let reports = parse(&json!({"UsageRecords": [license()]})).unwrap();
        assert_eq!(reports[0].customer.as_ref().unwrap().license(), Some(ARN));
        let request = json!({"UsageRecords": [legacy()], "ProductCode": "prod-1"});
        let reports = parse(&request).unwrap();
        assert_eq!(
            reports[0].customer.as_ref().unwrap().identifier(),
            Some("c-1")
        );
        assert_eq!(parse(&json!({"UsageRecords": []})).unwrap(), []);
    }

    #[test]
    fn every_mistake_has_the_name_that_aws_gives_it() {
        let with_code = |records: Value| json!({"UsageRecords": records, "ProductCode": "prod-1"});
        for (request, name) in [
            (json!({}), "ValidationException"),
            (json!({"UsageRecords": 1}), "SerializationException"),
            (json!({"UsageRecords": [1]}), "SerializationException"),
            (
                json!({"UsageRecords": [legacy()]}),
                "InvalidProductCodeException",
            ),
            (with_code(json!([license()])), "InvalidProductCodeException"),
            (
                json!({"UsageRecords": [license(), legacy()]}),
                "ValidationException",
            ),
            (
                json!({"UsageRecords": [legacy()], "ProductCode": "prod-2"}),
                "InvalidProductCodeException",
            ),
            (with_code(json!(vec![legacy(); 26])), "ValidationException"),
            (
                with_code(json!([record(&json!({}))])),
                "ValidationException",
            ),
            (
                with_code(json!([record(&json!({"CustomerIdentifier": ""}))])),
                "InvalidCustomerIdentifierException",
            ),
            (
                with_code(json!([record(
                    &json!({"CustomerIdentifier": "c", "CustomerAWSAccountId": "1"})
                )])),
                "ValidationException",
            ),
            (
                json!({"UsageRecords": [record(&json!({"CustomerAWSAccountId": "1", "LicenseArn": "l-1"}))]}),
                "InvalidLicenseException",
            ),
            (
                with_code(json!([record(
                    &json!({"CustomerIdentifier": "c", "Quantity": -1})
                )])),
                "ValidationException",
            ),
            (
                with_code(json!([record(
                    &json!({"CustomerIdentifier": "c", "QuantityAsDecimal": "1"})
                )])),
                "ValidationException",
            ),
            (
                with_code(json!([{"CustomerIdentifier": "c", "Dimension": "users"}])),
                "ValidationException",
            ),
            (
                with_code(json!([{"CustomerIdentifier": "c", "Timestamp": 1}])),
                "ValidationException",
            ),
        ] {
            assert_eq!(parse(&request), Err(name), "{request}");
        }
    }

    #[test]
    fn an_error_says_which_record_it_is_about() {
        let body = json!({"UsageRecords": [legacy(), record(&json!({}))], "ProductCode": "prod-1"})
            .to_string();
        let product = ProductCode::parse("prod-1").unwrap();
        let error = BatchMeterUsage::parse(body.as_bytes(), &product).unwrap_err();
        assert!(error.message.starts_with("UsageRecords[1]: "), "{error}");
    }

    #[test]
    fn the_answer_gives_each_record_back_as_it_came() {
        let unusual = record(&json!({"CustomerIdentifier": "c-1", "SomethingNew": {"a": [1.50]}}));
        let body =
            json!({"UsageRecords": [unusual, legacy()], "ProductCode": "prod-1"}).to_string();
        let product = ProductCode::parse("prod-1").unwrap();
        let (batch, _) = BatchMeterUsage::parse(body.as_bytes(), &product).unwrap();
        let id = RecordId::from_bytes([7; 16]);
        let answer: Value = serde_json::from_str(&batch.answer(&[Some(id), None])).unwrap();
        assert_eq!(
            answer,
            json!({
                "Results": [
                    {"UsageRecord": unusual, "MeteringRecordId": id.to_string(), "Status": "Success"},
                    {"UsageRecord": legacy(), "Status": "CustomerNotSubscribed"},
                ],
                "UnprocessedRecords": [],
            })
        );
    }
}
