//! The AWS Marketplace Metering Service as the rest of tollgate sees it: requests, answers, and errors sorted by what
//! may follow them. [`aws`] is the only module that knows the AWS SDK.

pub mod aws;
mod transport;

use std::future::Future;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::entitlement::nonce::Nonce;
use crate::meter::Request;
use crate::usage::{Moment, ProductCode, Quantity};

/// The calls that tollgate makes on its own account.
pub trait Marketplace: Send + Sync + 'static {
    /// RegisterUsage.
    fn register_usage(
        &self,
        request: &RegisterUsage,
    ) -> impl Future<Output = Result<Registered, CallError>> + Send;

    /// MeterUsage with the body that [`meter_usage_body`] makes; answers AWS's record id.
    fn meter_usage(&self, body: Bytes) -> impl Future<Output = Result<String, CallError>> + Send;
}

/// A RegisterUsage request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterUsage {
    /// The product.
    pub product_code: ProductCode,
    /// The key version that the answer is to be signed with.
    pub public_key_version: u32,
    /// Comes back inside the signature.
    pub nonce: Nonce,
}

/// What RegisterUsage answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The JWT, unverified.
    pub signature: Option<String>,
    /// When the key version was replaced; only there once it has expired.
    pub public_key_rotation_at: Option<Timestamp>,
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
    let whole = request.quantity.as_integer().is_some()
        && request
            .allocations
            .iter()
            .all(|part| part.quantity.as_integer().is_some());
    let mut members = Map::new();
    members.insert("ProductCode".to_owned(), json!(product.as_str()));
    members.insert("Timestamp".to_owned(), seconds(request.timestamp));
    members.insert(
        "UsageDimension".to_owned(),
        json!(request.dimension.as_str()),
    );
    let (name, quantity) = quantity_member(whole, request.quantity, "UsageQuantity");
    members.insert(name, quantity);
    if !request.allocations.is_empty() {
        let parts: Vec<Value> = request
            .allocations
            .iter()
            .map(|part| {
                let (name, quantity) =
                    quantity_member(whole, part.quantity, "AllocatedUsageQuantity");
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
    members.insert("ClientToken".to_owned(), json!(request.token.as_str()));
    Bytes::from(Value::Object(members).to_string())
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
