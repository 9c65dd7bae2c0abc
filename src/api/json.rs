//! `/v1`: plain JSON for programs without an AWS SDK.

use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::{Number, Value, json};

use super::respond;
use crate::ledger::{Record, RecordState};
use crate::meter::{Amount, Report};
use crate::usage::{
    Allocation, Allocations, Customer, Dimension, Moment, Quantity, RecordId, Tag, TagSet, UsageKey,
};
use crate::wire::ApiError;

/// The media type of `/v1`.
pub(super) const CONTENT_TYPE: &str = "application/json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReportMembers {
    dimension: String,
    quantity: Option<Value>,
    key: Option<String>,
    timestamp: Option<Value>,
    allocations: Option<Vec<AllocationMembers>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllocationMembers {
    quantity: Value,
    tags: Option<std::collections::BTreeMap<String, String>>,
}

/// Reads the body of POST /v1/usage. Quantities are numbers or decimal texts, timestamps RFC 3339 or seconds since 1970.
pub(super) fn parse_report(body: &[u8]) -> Result<Report, ApiError> {
    let members: ReportMembers = serde_json::from_slice(body).map_err(|error| {
        let message = format!(
            "the body is not {{\"dimension\",\"quantity\"|\"key\"[,\"timestamp\",\"allocations\"]}}: {error}"
        );
        ApiError::new("SerializationException", message)
    })?;
    let dimension = Dimension::parse(&members.dimension)
        .map_err(|error| ApiError::validation(format!("dimension can't be used: {error}")))?;
    let amount = match (members.quantity, members.key) {
        (Some(quantity), None) => {
            let quantity = read_quantity(&quantity)?;
            let allocations = read_allocations(members.allocations, quantity)?;
            Amount::Quantity {
                quantity,
                allocations,
            }
        }
        (None, Some(key)) if members.allocations.is_none() => Amount::Key(
            UsageKey::new(&key).map_err(|error| ApiError::validation(error.to_string()))?,
        ),
        (None, Some(_)) => {
            return Err(ApiError::validation(
                "allocations divide a quantity, and a key has none",
            ));
        }
        _ => return Err(ApiError::validation("give either quantity or key")),
    };
    let at = members.timestamp.as_ref().map(read_timestamp).transpose()?;
    Ok(Report {
        customer: None,
        dimension,
        amount,
        at,
    })
}

/// The answer to GET /v1/usage/ID.
pub(super) fn record(id: RecordId, record: &Record) -> Response<Full<Bytes>> {
    let aws_record_id = match &record.state {
        RecordState::Settled { aws_id, .. } => aws_id.as_deref(),
        RecordState::Open
        | RecordState::Sealed
        | RecordState::RolledForward { .. }
        | RecordState::InDoubt { .. }
        | RecordState::Rejected { .. } => None,
    };
    let body = json!({
        "id": id.to_string(),
        "state": record.state.name(),
        "customer_identifier": record.customer.as_ref().and_then(Customer::identifier),
        "customer_aws_account_id": record.customer.as_ref().and_then(Customer::account),
        "license_arn": record.customer.as_ref().and_then(Customer::license),
        "dimension": record.dimension.as_str(),
        "hour": record.hour.to_string(),
        "quantity": record.quantity(),
        "aws_record_id": aws_record_id,
        "problem": record.problem,
    });
    respond(StatusCode::OK, CONTENT_TYPE, body.to_string())
}

/// An error outside AWS's protocol.
pub(super) fn error(error: &ApiError) -> Response<Full<Bytes>> {
    let body = json!({"error": {"code": error.name, "message": error.message}});
    respond(error.status, CONTENT_TYPE, body.to_string())
}

fn read_quantity(value: &Value) -> Result<Quantity, ApiError> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => decimal_text(number)?,
        _ => {
            return Err(ApiError::validation(
                "quantity is neither a number nor a decimal text",
            ));
        }
    };
    text.parse()
        .map_err(|error| ApiError::validation(format!("quantity: {error}")))
}

/// A JSON number is a binary fraction here; past fifteen digits it is no longer the one that was written.
fn decimal_text(number: &Number) -> Result<String, ApiError> {
    const EXACT_BELOW: f64 = 1e9;
    if number.is_u64() || number.is_i64() {
        return Ok(number.to_string());
    }
    match number.as_f64() {
        Some(value) if (0.0..EXACT_BELOW).contains(&value) => {
            let text = format!("{value:.6}");
            let exact = text
                .parse::<f64>()
                .is_ok_and(|rounded| rounded.to_bits() == value.to_bits());
            if exact {
                return Ok(text);
            }
            Err(ApiError::validation(
                "quantity has more than six decimals; give it as a text, as in \"0.25\"",
            ))
        }
        _ => Err(ApiError::validation(
            "quantity is negative, or too large for a JSON number with decimals; give it as a text",
        )),
    }
}

fn read_timestamp(value: &Value) -> Result<Moment, ApiError> {
    let invalid = || ApiError::validation("timestamp is neither RFC 3339 nor seconds since 1970");
    match value {
        Value::String(text) => text
            .parse::<jiff::Timestamp>()
            .map(Moment::from)
            .map_err(|_| invalid()),
        Value::Number(seconds) => crate::wire::read_timestamp(seconds).map_err(|_| invalid()),
        _ => Err(invalid()),
    }
}

fn read_allocations(
    parts: Option<Vec<AllocationMembers>>,
    quantity: Quantity,
) -> Result<Allocations, ApiError> {
    let parts = parts.unwrap_or_default();
    let parts = parts
        .into_iter()
        .map(|part| {
            Ok(Allocation {
                quantity: read_quantity(&part.quantity)?,
                tags: read_tags(part.tags)?,
            })
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    Ok(Allocations::new(quantity, parts)?)
}

fn read_tags(
    tags: Option<std::collections::BTreeMap<String, String>>,
) -> Result<Option<TagSet>, ApiError> {
    let Some(tags) = tags else { return Ok(None) };
    let tags = tags
        .iter()
        .map(|(key, value)| Ok(Tag::new(key, value)?))
        .collect::<Result<Vec<_>, ApiError>>()?;
    Ok(Some(TagSet::new(tags)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantity(text: &str) -> Result<String, &'static str> {
        let body = format!("{{\"dimension\":\"gb\",\"quantity\":{text}}}");
        match parse_report(body.as_bytes())
            .map_err(|error| error.name)?
            .amount
        {
            Amount::Quantity { quantity, .. } => Ok(quantity.to_string()),
            Amount::Key(_) => panic!("it is a quantity"),
        }
    }

    #[test]
    fn numbers_and_decimal_texts_are_quantities() {
        for (given, read) in [
            ("3", "3"),
            ("0.25", "0.25"),
            ("\"0.000001\"", "0.000001"),
            ("1.0", "1"),
            ("0.1", "0.1"),
            ("9999999999", "9999999999"),
        ] {
            assert_eq!(quantity(given).as_deref(), Ok(read));
        }
        for given in [
            "-1",
            "-0.5",
            "1e10",
            "0.0000001",
            "\"1e3\"",
            "true",
            "null",
            "[]",
            "99999999999",
            "\"\"",
        ] {
            assert_eq!(quantity(given), Err("ValidationException"), "{given}");
        }
        assert_eq!(quantity("NaN"), Err("SerializationException"));
    }

    #[test]
    fn a_key_or_a_quantity_but_not_both() {
        let parse = |body: &str| parse_report(body.as_bytes()).map_err(|error| error.name);
        assert!(parse(r#"{"dimension":"hosts","key":"host-1"}"#).is_ok());
        for body in [
            r#"{"dimension":"hosts"}"#,
            r#"{"dimension":"hosts","key":"a","quantity":1}"#,
            r#"{"dimension":"hosts","key":""}"#,
            r#"{"dimension":"","quantity":1}"#,
            r#"{"dimension":"gb","quantity":1,"timestamp":"yesterday"}"#,
            r#"{"dimension":"hosts","key":"a","allocations":[]}"#,
        ] {
            assert_eq!(parse(body), Err("ValidationException"), "{body}");
        }
        assert_eq!(
            parse(r#"{"dimension":"gb","quantity":1,"unknown":1}"#),
            Err("SerializationException")
        );
    }

    /// What holds of any answer of the parser, whatever it was given.
    fn is_sound(body: &[u8]) {
        match parse_report(body) {
            Err(error) => assert!(error.status.is_client_error() && !error.message.is_empty()),
            Ok(Report {
                amount:
                    Amount::Quantity {
                        quantity,
                        allocations,
                    },
                ..
            }) => {
                let parts = allocations.parts().iter();
                let sum: u64 = parts.map(|part| part.quantity.millionths()).sum();
                assert!(allocations.is_empty() || sum == quantity.millionths());
            }
            Ok(_) => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_bytes_are_refused_or_sound(body in any::<Vec<u8>>()) {
            is_sound(&body);
        }

        #[test]
        fn any_values_are_refused_or_sound(
            quantity in "-?[0-9]{0,12}(\\.[0-9]{0,8})?(e[0-9]{1,3})?|\"[0-9.e-]{0,14}\"|null|\\[\\]",
            part in "[0-9]{1,3}(\\.[0-9]{1,7})?",
            timestamp in "-?[0-9]{0,14}(\\.[0-9]{0,4})?|\"[0-9TZ:.-]{0,24}\"|true",
            key in ".{0,6}",
        ) {
            let allocations = format!("[{{\"quantity\":{part},\"tags\":{{{}:\"x\"}}}}]", json!(key));
            for more in ["", &format!(",\"timestamp\":{timestamp}"), &format!(",\"allocations\":{allocations}"), &format!(",\"key\":{}", json!(key))] {
                is_sound(format!("{{\"dimension\":\"gb\",\"quantity\":{quantity}{more}}}").as_bytes());
                is_sound(format!("{{\"dimension\":\"gb\",\"quantity\":{part}{more}}}").as_bytes());
            }
        }

        #[test]
        fn a_quantity_is_read_as_it_was_written(millionths in 0..=Quantity::MAX.millionths()) {
            let written = Quantity::from_millionths(millionths).unwrap().to_string();
            prop_assert_eq!(quantity(&format!("\"{written}\"")), Ok(written.clone()));
            // A number is exact, or it is refused; it is never a little less or more.
            if let Ok(read) = quantity(&written) {
                prop_assert_eq!(read, written);
            }
        }
    }

    #[test]
    fn timestamps_are_rfc_3339_or_seconds() {
        for timestamp in ["\"2026-11-24T10:00:00.5Z\"", "1795514400.5"] {
            let body = format!("{{\"dimension\":\"gb\",\"quantity\":1,\"timestamp\":{timestamp}}}");
            let report = parse_report(body.as_bytes()).unwrap();
            assert_eq!(report.at.unwrap().as_millis(), 1_795_514_400_500);
        }
    }
}
