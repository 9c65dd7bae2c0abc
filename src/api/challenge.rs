//! `POST /v1/entitlement/challenge`: a fresh RegisterUsage with the app's own nonce.
//!
//! A sidecar that only claims to be one can answer anything, but not with AWS's signature over a nonce that the app has
//! just made up. The app verifies it with its own copy of the public key (docs/proof.md).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{Api, json, respond};
use crate::clock;
use crate::entitlement::nonce::Nonce;
use crate::entitlement::register::{RegisterError, register};
use crate::marketplace::{CallError, Marketplace};
use crate::wire::ApiError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    nonce: String,
}

/// Keeps an app from using up the calls that AWS allows the account.
#[derive(Debug)]
pub(super) struct Limiter {
    bucket: Mutex<(u32, Instant)>,
}

/// Calls at once, after a while without any.
const BURST: u32 = 20;
/// One more call for each of these.
const INTERVAL: Duration = Duration::from_secs(3);

impl Limiter {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            bucket: Mutex::new((BURST, now)),
        }
    }

    /// Refuses a call too many.
    pub(super) fn admit(&self, now: Instant) -> Result<(), ApiError> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = *bucket;
        let earned = now.saturating_duration_since(since).as_millis() / INTERVAL.as_millis();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        let left = left.saturating_add(earned).min(BURST);
        let since = if left == BURST {
            now
        } else {
            since + INTERVAL * earned
        };
        if left == 0 {
            *bucket = (0, since);
            let message = format!(
                "more than {BURST} registrations at once, or one in {INTERVAL:?} after that; wait"
            );
            return Err(ApiError::new("ThrottlingException", message));
        }
        *bucket = (left - 1, since);
        Ok(())
    }
}

impl<M: Marketplace + Clone> Api<M> {
    pub(super) async fn challenge(&self, body: &[u8]) -> Result<Response<Full<Bytes>>, ApiError> {
        let members: Members = serde_json::from_slice(body).map_err(|error| {
            let message = format!("the body is not {{\"nonce\": TEXT}}: {error}");
            ApiError::new("SerializationException", message)
        })?;
        let nonce = Nonce::parse(&members.nonce)
            .map_err(|error| ApiError::validation(format!("nonce: {error}")))?;
        let Some(keys) = &self.shared.setup.keys else {
            return Err(ApiError {
                status: StatusCode::CONFLICT,
                ..ApiError::new(
                    "ProofUnavailable",
                    "TOLLGATE_ENTITLEMENT_CHECK is not register-usage, and only RegisterUsage gives a proof",
                )
            });
        };
        self.shared
            .limiter
            .admit(Instant::now())
            .map_err(|error| ApiError {
                status: StatusCode::TOO_MANY_REQUESTS,
                ..error
            })?;
        let setup = &self.shared.setup;
        let keys = keys.current();
        let nonce = || Ok(nonce.clone());
        match register(&setup.marketplace, &setup.product, &keys, nonce).await {
            Ok(proof) => {
                let rotation = proof.public_key_rotation_at.map(clock::rfc3339);
                let answer = json!({
                    "product_code": setup.product.as_str(),
                    "public_key_version": proof.public_key_version,
                    "nonce": proof.nonce,
                    "signature": proof.signature,
                    "public_key_rotation_at": rotation,
                });
                Ok(respond(
                    StatusCode::OK,
                    json::CONTENT_TYPE,
                    answer.to_string(),
                ))
            }
            Err(error) => Ok(refused(&error)),
        }
    }
}

fn refused(error: &RegisterError) -> Response<Full<Bytes>> {
    let (status, code) = match error {
        RegisterError::Call(CallError::Refused(error)) => {
            (StatusCode::FORBIDDEN, error.code.as_str())
        }
        RegisterError::Call(CallError::Throttled(error)) => {
            (StatusCode::TOO_MANY_REQUESTS, error.code.as_str())
        }
        RegisterError::Unverified(_) => (StatusCode::BAD_GATEWAY, "unverified"),
        RegisterError::Call(CallError::NoCredentials(_)) => {
            (StatusCode::SERVICE_UNAVAILABLE, "NoCredentials")
        }
        RegisterError::Call(
            CallError::NotSent(_) | CallError::Lost(_) | CallError::Failed { .. },
        )
        | RegisterError::Randomness(_) => (StatusCode::SERVICE_UNAVAILABLE, "Unreachable"),
    };
    let body = json!({"error": {"code": code, "message": error.to_string()}});
    respond(status, json::CONTENT_TYPE, body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_admitted_and_then_one_call_in_each_interval() {
        let start = Instant::now();
        let limiter = Limiter::new(start);
        for _ in 0..BURST {
            assert!(limiter.admit(start).is_ok());
        }
        let refused = limiter.admit(start).unwrap_err();
        assert_eq!(refused.name, "ThrottlingException");
        let later = start + INTERVAL;
        assert!(limiter.admit(later).is_ok());
        assert!(limiter.admit(later).is_err());
        let much_later = later + INTERVAL * BURST * 3;
        for _ in 0..BURST {
            assert!(limiter.admit(much_later).is_ok());
        }
        assert!(limiter.admit(much_later).is_err());
    }
}
