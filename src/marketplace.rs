//! The AWS Marketplace Metering Service as the rest of tollgate sees it: requests, answers, and errors sorted by what
//! may follow them. [`aws`] is the only module that knows the AWS SDK.

pub mod aws;
mod transport;

use std::future::Future;

use jiff::Timestamp;

use crate::entitlement::nonce::Nonce;
use crate::usage::{Dimension, ProductCode};

/// The calls that tollgate makes on its own account.
pub trait Marketplace: Send + Sync + 'static {
    /// RegisterUsage.
    fn register_usage(
        &self,
        request: &RegisterUsage,
    ) -> impl Future<Output = Result<Registered, CallError>> + Send;

    /// MeterUsage with a quantity of 0: the entitlement check of custom-metered products.
    fn meter_zero(&self, request: &MeterZero)
    -> impl Future<Output = Result<(), CallError>> + Send;
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

/// A MeterUsage request of quantity 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterZero {
    /// The product.
    pub product_code: ProductCode,
    /// The dimension that the record is for.
    pub dimension: Dimension,
    /// Now: AWS rounds it down to the hour.
    pub timestamp: Timestamp,
    /// The same for every repeat of this request.
    pub client_token: String,
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
