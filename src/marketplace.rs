//! The AWS Marketplace Metering Service as the rest of tollgate sees it: requests, answers, and errors sorted by what
//! may follow them. [`aws`] is the only module that knows the AWS SDK.

pub mod aws;
mod transport;

use std::future::Future;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

use crate::entitlement::nonce::Nonce;
use crate::meter::{Call, Request};
use crate::usage::{Customer, Moment, ProductCode, Quantity, Way};

/// The service.
pub trait Marketplace: Send + Sync + 'static {
    /// Signs `body`, sends it as `operation`, and answers with the body of a success, as it came.
    fn call(
        &self,
        operation: Operation,
        body: Bytes,
    ) -> impl Future<Output = Result<Bytes, CallError>> + Send;
}

/// An operation of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Entitlement of a paid hourly or monthly container.
    RegisterUsage,
    /// A record of a task or pod.
    MeterUsage,
    /// Records of customers.
    BatchMeterUsage,
    /// A customer's registration.
    ResolveCustomer,
}

/// A RegisterUsage request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterUsage {
    /// The product.
    pub product_code: ProductCode,
    /// The key version that the answer is to be signed with.
    pub public_key_version: u32,
    /// Comes back inside the signature. tollgate always gives one; an app that calls for itself may not.
    pub nonce: Option<Nonce>,
}

/// What RegisterUsage answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The JWT, unverified.
    pub signature: Option<String>,
    /// When the key version was replaced; only there once it has expired.
    pub public_key_rotation_at: Option<Timestamp>,
}

/// Calls RegisterUsage.
pub async fn register_usage(
    marketplace: &impl Marketplace,
    request: &RegisterUsage,
) -> Result<Registered, CallError> {
    let mut body = json!({
        "ProductCode": request.product_code.as_str(),
        "PublicKeyVersion": request.public_key_version,
    });
    if let Some(nonce) = &request.nonce {
        body["Nonce"] = json!(nonce.as_str());
    }
    let answer = marketplace
        .call(Operation::RegisterUsage, Bytes::from(body.to_string()))
        .await?;
    let answer: RegisteredMembers = read(&answer)?;
    Ok(Registered {
        signature: answer.signature,
        public_key_rotation_at: answer
            .public_key_rotation_timestamp
            .and_then(|seconds| crate::wire::read_timestamp(&seconds).ok())
            .map(Timestamp::from),
    })
}

/// Calls MeterUsage with a body that [`meter_usage_body`] has made, or an app's own; answers AWS's record id.
pub async fn meter_usage(marketplace: &impl Marketplace, body: Bytes) -> Result<String, CallError> {
    let answer = marketplace.call(Operation::MeterUsage, body).await?;
    let answer: MeteredMembers = read(&answer)?;
    Ok(answer.metering_record_id)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RegisteredMembers {
    signature: Option<String>,
    public_key_rotation_timestamp: Option<Number>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MeteredMembers {
    metering_record_id: String,
}

/// An answer in its members; one that lacks them may still have been a success.
pub(crate) fn read<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, CallError> {
    serde_json::from_slice(answer)
        .map_err(|error| CallError::Lost(format!("the answer lacks what it must have: {error}")))
}

/// Why a call did not succeed, sorted by what may follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No source of credentials is configured; nothing was sent.
    #[error("no AWS credentials: {0}")]
    NoCredentials(String),
    /// The request certainly did not reach the service.
    #[error("the request was not sent: {0}")]
    NotSent(String),
    /// The request may have reached the service; no usable answer came.
    #[error("no usable answer: {0}")]
    Lost(String),
    /// AWS asks for patience.
    #[error("{0}")]
    Throttled(ServiceError),
    /// AWS refuses: a modelled client error.
    #[error("{0}")]
    Refused(ServiceError),
    /// The service, or something before it, failed.
    #[error("HTTP {status}: {error}")]
    Failed {
        /// The HTTP status.
        status: u16,
        /// What it said.
        error: ServiceError,
    },
}

/// An error as AWS words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ServiceError {
    /// The exception's name, without a namespace.
    pub code: String,
    /// AWS's message.
    pub message: String,
}

/// The body of a MeterUsage request. It is tollgate's own and not the SDK's, which can't say decimal quantities.
///
/// The quantity and its parts travel as whole numbers where all of them are whole and fit, else all as decimals.
pub fn meter_usage_body(product: &ProductCode, request: &Request) -> Bytes {
    let mut members = Map::new();
    members.insert("ProductCode".to_owned(), json!(product.as_str()));
    members.insert("Timestamp".to_owned(), seconds(request.timestamp));
    members.insert(
        "UsageDimension".to_owned(),
        json!(request.key.dimension.as_str()),
    );
    insert_quantities(&mut members, request, "UsageQuantity");
    if let Some(token) = &request.token {
        members.insert("ClientToken".to_owned(), json!(token.as_str()));
    }
    Bytes::from(Value::Object(members).to_string())
}

/// The body of a BatchMeterUsage request. The ProductCode is there where the customers are named with one: for customers that
/// are named by license AWS would bill it as a second product.
pub fn batch_meter_usage_body(product: &ProductCode, call: &Call) -> Bytes {
    let customers = || {
        let attempts = call.attempts.iter();
        attempts.filter_map(|attempt| Some((attempt, attempt.customer.as_ref()?)))
    };
    let records: Vec<Value> = customers()
        .map(|(attempt, customer)| usage_record(&attempt.request, customer))
        .collect();
    let mut members = Map::new();
    members.insert("UsageRecords".to_owned(), Value::Array(records));
    if customers().any(|(_, customer)| customer.way() != Way::License) {
        members.insert("ProductCode".to_owned(), json!(product.as_str()));
    }
    Bytes::from(Value::Object(members).to_string())
}

fn usage_record(request: &Request, customer: &Customer) -> Value {
    let mut members = Map::new();
    members.insert("Timestamp".to_owned(), seconds(request.timestamp));
    for (name, value) in [
        ("CustomerIdentifier", customer.identifier()),
        ("CustomerAWSAccountId", customer.account()),
        ("LicenseArn", customer.license()),
    ] {
        if let Some(value) = value {
            members.insert(name.to_owned(), json!(value));
        }
    }
    members.insert(
        "Dimension".to_owned(),
        json!(request.key.dimension.as_str()),
    );
    insert_quantities(&mut members, request, "Quantity");
    Value::Object(members)
}

/// The quantity under `name` and the allocations, all whole or all decimal.
fn insert_quantities(members: &mut Map<String, Value>, request: &Request, name: &str) {
    let whole = request.quantity.as_integer().is_some()
        && request
            .allocations
            .iter()
            .all(|part| part.quantity.as_integer().is_some());
    let (name, quantity) = quantity_member(whole, request.quantity, name);
    members.insert(name, quantity);
    if request.allocations.is_empty() {
        return;
    }
    let parts: Vec<Value> = request
        .allocations
        .iter()
        .map(|part| {
            let (name, quantity) = quantity_member(whole, part.quantity, "AllocatedUsageQuantity");
            let mut members = Map::from_iter([(name, quantity)]);
            if let Some(tags) = &part.tags {
                let tags: Vec<Value> = tags
                    .tags()
                    .iter()
                    .map(|tag| json!({"Key": tag.key(), "Value": tag.value()}))
                    .collect();
                members.insert("Tags".to_owned(), Value::Array(tags));
            }
            Value::Object(members)
        })
        .collect();
    members.insert("UsageAllocations".to_owned(), Value::Array(parts));
}

fn quantity_member(whole: bool, quantity: Quantity, name: &str) -> (String, Value) {
    match quantity.as_integer().filter(|_| whole) {
        Some(integer) => (name.to_owned(), json!(integer)),
        None => (format!("{name}AsDecimal"), json!(quantity.to_string())),
    }
}

/// Seconds since the epoch, without a fraction where there is none.
fn seconds(at: Moment) -> Value {
    let ms = at.as_millis();
    if ms % 1000 == 0 {
        json!(ms / 1000)
    } else {
        json!(to_seconds(ms))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits hold the milliseconds of 280,000 years"
)]
fn to_seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}
