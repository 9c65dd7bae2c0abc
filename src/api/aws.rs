//! `POST /`: the operations of AWSMPMeteringService.
//!
//! | operation | what becomes of it |
//! |---|---|
//! | MeterUsage | joins the ledger; a dry run goes to AWS |
//! | BatchMeterUsage | joins the ledger, all records or none; with `TOLLGATE_SAAS_MODE=passthrough` goes to AWS as it is |
//! | ResolveCustomer | goes to AWS; whom it names is remembered, and the token is not |
//! | RegisterUsage | goes to AWS, rate-limited; its answer is verified |

use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Api, aws_answer, fingerprint, invocation, respond};
use crate::entitlement::keys::PublicKeys;
use crate::entitlement::nonce::Nonce;
use crate::entitlement::signature::{self, Expected};
use crate::ledger::{CallKey, KeyKind};
use crate::marketplace::{self, CallError, Marketplace, Operation, RegisterUsage};
use crate::usage::Customer;
use crate::wire::batch::BatchMeterUsage;
use crate::wire::{self, ApiError, MeterUsage};

const TARGET_PREFIX: &str = "AWSMPMeteringService.";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ResolveMembers {
    registration_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SignatureMembers {
    signature: Option<String>,
}

/// What of ResolveCustomer's answer the ledger wants to know.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ResolvedMembers {
    product_code: Option<String>,
    customer_identifier: Option<String>,
    #[serde(rename = "CustomerAWSAccountId")]
    customer_aws_account_id: Option<String>,
    license_arn: Option<String>,
}

impl<M: Marketplace + Clone> Api<M> {
    pub(super) async fn aws(
        &self,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let target = parts
            .headers
            .get("x-amz-target")
            .and_then(|target| target.to_str().ok());
        match target.and_then(|target| target.strip_prefix(TARGET_PREFIX)) {
            Some("MeterUsage") => self.meter_usage(parts, body).await,
            Some("BatchMeterUsage") => self.batch_meter_usage(parts, body).await,
            Some("ResolveCustomer") => Box::pin(self.resolve_customer(body)).await,
            Some("RegisterUsage") => Box::pin(self.register_usage(body)).await,
            _ => Err(ApiError::new(
                "UnknownOperationException",
                format!(
                    "X-Amz-Target is {:?}; this endpoint serves MeterUsage, BatchMeterUsage, ResolveCustomer and RegisterUsage of \
                     AWSMPMeteringService",
                    target.unwrap_or_default()
                ),
            )),
        }
    }

    async fn meter_usage(
        &self,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let usage = MeterUsage::parse(body, &self.shared.setup.product)?;
        if usage.dry_run {
            // Boxed, so that the future of every report is no larger for it.
            return Box::pin(self.forward(Operation::MeterUsage, body.clone())).await;
        }
        let key = match &usage.client_token {
            Some(token) => Some(CallKey::new(
                KeyKind::ClientToken,
                token.as_str(),
                &fingerprint(&usage.report),
            )),
            None => invocation(parts, body),
        };
        let id = self.take(usage.report, key).await?;
        Ok(respond_json(format!("{{\"MeteringRecordId\":\"{id}\"}}")))
    }

    async fn batch_meter_usage(
        &self,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        if self.shared.setup.passthrough {
            return Box::pin(self.forward(Operation::BatchMeterUsage, body.clone())).await;
        }
        let (batch, reports) = BatchMeterUsage::parse(body, &self.shared.setup.product)?;
        let key = invocation(parts, body);
        let ids = self.take_all(reports, key).await?;
        Ok(respond_json(batch.answer(&ids)))
    }

    async fn resolve_customer(&self, body: &Bytes) -> Result<Response<Full<Bytes>>, ApiError> {
        let members: ResolveMembers = serde_json::from_slice(body).map_err(|_| {
            // The error could quote the token.
            let message = "the body is not {\"RegistrationToken\": TEXT}";
            ApiError::new("SerializationException", message)
        })?;
        if members
            .registration_token
            .is_none_or(|token| token.is_empty())
        {
            return Err(ApiError::validation("RegistrationToken is missing"));
        }
        let marketplace = &self.shared.setup.marketplace;
        match marketplace
            .call(Operation::ResolveCustomer, body.clone())
            .await
        {
            Ok(came) => {
                self.remember(&came).await;
                Ok(respond_json(came))
            }
            Err(error) => Ok(failed(&error)),
        }
    }

    /// Whom AWS has named is known from now on: an hourly record of 0 may be due, and two names of one buyer are one buyer.
    async fn remember(&self, answer: &[u8]) {
        let Ok(members) = marketplace::read::<ResolvedMembers>(answer) else {
            return;
        };
        let product = self.shared.setup.product.as_str();
        if members
            .product_code
            .as_deref()
            .is_some_and(|code| code != product)
        {
            tracing::warn!(
                product_code = members.product_code,
                "the customer has subscribed to another product than this sidecar meters"
            );
            return;
        }
        let account = members.customer_aws_account_id;
        // Only integrations from before concurrent agreements still get an identifier; they go on using it.
        let name = match &members.customer_identifier {
            Some(identifier) if !identifier.is_empty() => {
                Customer::new(Some(identifier), None, None)
            }
            _ => Customer::new(None, account.as_deref(), members.license_arn.as_deref()),
        };
        let Ok(name) = name else {
            tracing::warn!("AWS's answer names no customer that can be metered");
            return;
        };
        let account = account.filter(|account| Customer::new(None, Some(account), None).is_ok());
        if let Err(error) = self.shared.setup.ledger.resolved(name, account).await {
            tracing::error!(%error, "the customer can't be remembered");
        }
    }

    /// The answer is AWS's own, with the app's nonce in its signature; one that does not verify is not handed on.
    async fn register_usage(&self, body: &Bytes) -> Result<Response<Full<Bytes>>, ApiError> {
        let request = RegisterUsage::parse(body, &self.shared.setup.product)?;
        self.shared.limiter.admit(Instant::now())?;
        let marketplace = &self.shared.setup.marketplace;
        let came = match marketplace
            .call(Operation::RegisterUsage, body.clone())
            .await
        {
            Ok(came) => came,
            Err(error) => return Ok(failed(&error)),
        };
        if let Some(keys) = &self.shared.setup.keys {
            verify(&came, &request, &keys.current())?;
        }
        Ok(respond_json(came))
    }

    /// AWS itself answers, and its answer is handed on as it came.
    async fn forward(
        &self,
        operation: Operation,
        body: Bytes,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let called = self.shared.setup.marketplace.call(operation, body).await;
        Ok(called.map_or_else(|error| failed(&error), respond_json))
    }
}

fn verify(answer: &[u8], request: &RegisterUsage, keys: &PublicKeys) -> Result<(), ApiError> {
    let token: Result<SignatureMembers, CallError> = marketplace::read(answer);
    let token = token
        .ok()
        .and_then(|members| members.signature)
        .unwrap_or_default();
    let expected = Expected {
        product_code: &request.product_code,
        key_version: request.public_key_version,
        nonce: request.nonce.as_ref().map(Nonce::as_str),
    };
    signature::verify(&token, keys, expected).map_err(|error| {
        tracing::error!(%error, "RegisterUsage's answer does not verify; the app is not given it");
        let message = format!("AWS's answer does not verify: {error}");
        ApiError::new("InternalServiceErrorException", message)
    })
}

/// An error of AWS's goes on in its own words.
fn failed(error: &CallError) -> Response<Full<Bytes>> {
    match error {
        CallError::Refused(error) | CallError::Throttled(error) => {
            aws_answer(StatusCode::BAD_REQUEST, &error.code, &error.message)
        }
        CallError::NoCredentials(_)
        | CallError::NotSent(_)
        | CallError::Lost(_)
        | CallError::Failed { .. } => aws_answer(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServiceErrorException",
            &format!("AWS gives no usable answer: {error}"),
        ),
    }
}

fn respond_json(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, wire::CONTENT_TYPE, body)
}
