//! The MeterUsage parser under arbitrary bytes, arbitrary members and broken valid requests: it never panics, and what it
//! takes is what AWS would take.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tollgate::marketplace::meter_usage_body;
use tollgate::meter::{Amount, Request, SeriesKey};
use tollgate::usage::{Allocation, BucketId, ProductCode, Quantity, TagSet};
use tollgate::wire::{ApiError, MeterUsage};

const NAMES: [&str; 12] = [
    "ValidationException",
    "SerializationException",
    "InvalidProductCodeException",
    "InvalidTagException",
    "InvalidUsageAllocationsException",
    "InvalidUsageDimensionException",
    "TimestampOutOfBoundsException",
    "IdempotencyConflictException",
    "CustomerNotEntitledException",
    "ThrottlingException",
    "RequestEntityTooLargeException",
    "UnknownOperationException",
];

fn product() -> ProductCode {
    ProductCode::parse("prod-1").unwrap()
}

fn parse(body: &[u8]) -> Result<MeterUsage, ApiError> {
    MeterUsage::parse(body, &product())
}

fn parts(usage: &MeterUsage) -> (Quantity, &[Allocation]) {
    match &usage.report.amount {
        Amount::Quantity {
            quantity,
            allocations,
        } => (*quantity, allocations.parts()),
        Amount::Key(_) => panic!("MeterUsage has no keys"),
    }
}

/// What holds of any answer of the parser, whatever it was given.
fn is_sound(result: &Result<MeterUsage, ApiError>) {
    let usage = match result {
        Ok(usage) => usage,
        Err(error) => {
            assert!(NAMES.contains(&error.name) && error.status.is_client_error());
            assert!(!error.message.is_empty());
            return;
        }
    };
    let (quantity, allocations) = parts(usage);
    assert!(quantity <= Quantity::MAX);
    assert!((1..=255).contains(&usage.report.dimension.as_str().chars().count()));
    let sum: u64 = allocations
        .iter()
        .map(|part| part.quantity.millionths())
        .sum();
    assert!(allocations.is_empty() || sum == quantity.millionths());
    let mut tags: Vec<Option<&TagSet>> =
        allocations.iter().map(|part| part.tags.as_ref()).collect();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), allocations.len(), "no tag set stands twice");
    survives_the_way_to_aws(usage);
}

/// What goes out for a report alone in its hour says the same as what came in.
fn survives_the_way_to_aws(usage: &MeterUsage) {
    let (quantity, allocations) = parts(usage);
    let request = Request {
        bucket: BucketId(1),
        key: SeriesKey::pod(usage.report.dimension.clone()),
        timestamp: usage.report.at.unwrap(),
        quantity,
        allocations: allocations.to_vec(),
        token: Some("token".parse().unwrap()),
    };
    let again = parse(&meter_usage_body(&product(), &request)).unwrap();
    assert_eq!(again.report, usage.report);
    assert!(!again.dry_run);
}

/// A value as a broken client may put it anywhere.
fn odd_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[0-9.e+-]{0,22}".prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((member_name(), inner), 0..4)
                .prop_map(|members| Value::Object(Map::from_iter(members))),
        ]
    })
}

fn member_name() -> impl Strategy<Value = String> {
    let known = [
        "ProductCode",
        "Timestamp",
        "UsageDimension",
        "UsageQuantity",
        "UsageQuantityAsDecimal",
        "UsageAllocations",
        "AllocatedUsageQuantity",
        "AllocatedUsageQuantityAsDecimal",
        "Tags",
        "Key",
        "Value",
        "DryRun",
        "ClientToken",
    ];
    prop_oneof![9 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,8}"]
}

/// A request that AWS takes, with the quantity in millionths and the number of its allocations.
fn valid() -> impl Strategy<Value = (Value, u64, usize)> {
    let parts = prop::collection::vec(0..1_000_000_000_u64, 0..5);
    (parts, 0..10_000_000_u64, any::<bool>(), 1_700_000_000_000..1_900_000_000_000_i64).prop_map(
        |(parts, alone, whole, at_ms)| {
            let unit = if whole { 1_000_000 } else { 1 };
            let alone = alone % 2_000_000;
            let total = unit * if parts.is_empty() { alone } else { parts.iter().map(|part| part % 400_000).sum() };
            let member = |name: &str, millionths: u64| {
                if whole {
                    (name.to_owned(), json!(millionths / 1_000_000))
                } else {
                    let text = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
                    (format!("{name}AsDecimal"), json!(text))
                }
            };
            let allocations = parts.iter().enumerate().map(|(index, part)| {
                let mut allocation = Map::from_iter([member("AllocatedUsageQuantity", unit * (part % 400_000))]);
                if index > 0 {
                    allocation.insert("Tags".to_owned(), json!([{"Key": "part", "Value": index.to_string()}]));
                }
                Value::Object(allocation)
            });
            let allocations: Vec<Value> = allocations.collect();
            let seconds = serde_json::Number::from_f64(f64::from(i32::try_from(at_ms / 1000).unwrap()) + 0.25);
            let mut request = json!({"ProductCode": "prod-1", "UsageDimension": "gb", "Timestamp": seconds, "ClientToken": "t"});
            let (name, quantity) = member("UsageQuantity", total);
            request[name] = quantity;
            if !allocations.is_empty() {
                request["UsageAllocations"] = json!(allocations);
            }
            (request, total, parts.len())
        },
    )
}

/// Changes a text in a few places: bytes replaced, taken out, put in.
fn broken(text: &str, edits: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (place, what, byte) in edits {
        let at = place.index(bytes.len().max(1));
        match what % 3 {
            0 if at < bytes.len() => bytes[at] = *byte,
            1 if at < bytes.len() => {
                bytes.remove(at);
            }
            _ => bytes.insert(at, *byte),
        }
    }
    bytes
}

fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    let byte = prop_oneof![
        prop::sample::select(b"0123456789.-+eE\"{}[],:\\nul ".to_vec()),
        any::<u8>()
    ];
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), byte), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_refused_or_sound(body in any::<Vec<u8>>()) {
        is_sound(&parse(&body));
    }

    #[test]
    fn any_members_are_refused_or_sound(members in prop::collection::vec((member_name(), odd_value()), 0..9)) {
        let mut request = json!({"ProductCode": "prod-1", "UsageDimension": "gb", "Timestamp": 1_795_000_000, "UsageQuantity": 1});
        for (name, value) in members {
            request[name] = value;
        }
        is_sound(&parse(request.to_string().as_bytes()));
    }

    #[test]
    fn a_valid_request_is_taken_for_what_it_says((request, millionths, allocations) in valid()) {
        let result = parse(request.to_string().as_bytes());
        is_sound(&result);
        let usage = result.unwrap();
        let (quantity, parts) = parts(&usage);
        prop_assert_eq!(quantity.millionths(), millionths);
        prop_assert_eq!(parts.len(), allocations);
        let token = usage.client_token.as_ref().unwrap();
        prop_assert_eq!(token.as_str(), "t");
        prop_assert_eq!(usage.report.at.unwrap().as_millis() % 1000, 250);
    }

    #[test]
    fn a_broken_request_is_refused_or_sound((request, ..) in valid(), edits in edits()) {
        is_sound(&parse(&broken(&request.to_string(), &edits)));
    }
}
