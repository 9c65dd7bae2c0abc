//! The submitter: sends what the ledger has sealed, and tells the ledger what each attempt came to.
//!
//! It decides nothing. When to send, how often, and what follows an answer is the core's; the ledger has made an attempt
//! durable before it arrives here. How many are under way at once is bounded by the core too.

mod batch;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::ledger::Ledger;
use crate::marketplace::{
    self, CallError, Marketplace, Operation, ServiceError, batch_meter_usage_body, meter_usage_body,
};
use crate::meter::{Answer, Attempt, Call};
use crate::usage::{BucketId, ProductCode};

/// What AWS has last said, and of which record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The record.
    pub bucket: BucketId,
    /// What the attempt came to.
    pub answer: Answer,
}

/// Makes every call that comes, until the ledger is gone. Calls under way end with the future.
pub async fn run<M: Marketplace>(
    marketplace: Arc<M>,
    product: ProductCode,
    ledger: Ledger,
    mut calls: mpsc::UnboundedReceiver<Call>,
    answers: watch::Sender<Option<Answered>>,
) {
    let mut under_way = tokio::task::JoinSet::new();
    while let Some(call) = calls.recv().await {
        while under_way.try_join_next().is_some() {}
        let (marketplace, ledger, product) =
            (Arc::clone(&marketplace), ledger.clone(), product.clone());
        let answers = answers.clone();
        under_way.spawn(async move {
            let came = send(&*marketplace, &product, &call).await;
            for (attempt, answer) in call.attempts.iter().zip(&came) {
                log(attempt, answer);
            }
            let told =
                call.attempts.iter().zip(&came).map(|(attempt, answer)| {
                    (attempt.request.bucket, attempt.number, answer.clone())
                });
            if let Err(error) = ledger.answered(told.collect()).await {
                tracing::error!(%error, "what AWS answered can't be kept; a restart asks again");
            }
            for (attempt, answer) in call.attempts.iter().zip(came) {
                let bucket = attempt.request.bucket;
                answers.send_replace(Some(Answered { bucket, answer }));
            }
        });
    }
}

/// An answer for each of the call's attempts.
async fn send<M: Marketplace>(marketplace: &M, product: &ProductCode, call: &Call) -> Vec<Answer> {
    match &call.attempts[..] {
        [attempt] if attempt.customer.is_none() => {
            let body = meter_usage_body(product, &attempt.request);
            vec![match marketplace::meter_usage(marketplace, body).await {
                Ok(aws_id) => Answer::Recorded { aws_id },
                Err(error) => answer(error),
            }]
        }
        attempts => {
            let body = batch_meter_usage_body(product, call);
            let came = marketplace.call(Operation::BatchMeterUsage, body).await;
            match came.and_then(|body| batch::answers(attempts, &body)) {
                Ok(answers) => answers,
                Err(error) => {
                    let answer = batch::together(answer(error), attempts.len());
                    vec![answer; attempts.len()]
                }
            }
        }
    }
}

/// What a failed call means for the record (aws-metering rules: only a refusal in the service's own words, or a
/// connection that was never made, is certainly not counted).
fn answer(error: CallError) -> Answer {
    match error {
        CallError::NoCredentials(_) | CallError::NotSent(_) => Answer::NotSent {
            why: error.to_string(),
        },
        CallError::Throttled(_) => Answer::Throttled,
        CallError::Lost(_) | CallError::Failed { .. } => Answer::Doubtful {
            why: error.to_string(),
        },
        CallError::Refused(ServiceError { code, message }) => match code.as_str() {
            "DuplicateRequestException" => Answer::Duplicate,
            "TimestampOutOfBoundsException" => Answer::OutOfBounds,
            "CustomerNotEntitledException" | "CustomerNotSubscribedException" => {
                Answer::NotEntitled { message }
            }
            "InvalidProductCodeException"
            | "InvalidUsageDimensionException"
            | "InvalidUsageAllocationsException"
            | "InvalidTagException"
            | "InvalidCustomerIdentifierException"
            | "InvalidLicenseException"
            | "IdempotencyConflictException"
            | "ValidationException"
            | "SerializationException" => Answer::Refused { code, message },
            _ => Answer::Denied { code, message },
        },
    }
}

fn log(attempt: &Attempt, answer: &Answer) {
    let request = &attempt.request;
    let (bucket, dimension) = (request.bucket.0, request.key.dimension.as_str());
    let (timestamp, quantity) = (request.timestamp.to_string(), request.quantity.to_string());
    let customer = attempt.customer.as_ref().map(ToString::to_string);
    let attempt = attempt.number;
    match answer {
        Answer::Recorded { aws_id } if customer.is_some() => {
            tracing::debug!(
                bucket,
                customer,
                dimension,
                timestamp,
                quantity,
                attempt,
                aws_record_id = aws_id,
                "metered"
            );
        }
        Answer::Recorded { aws_id } => {
            tracing::info!(
                bucket,
                dimension,
                timestamp,
                quantity,
                attempt,
                aws_record_id = aws_id,
                "metered"
            );
        }
        Answer::Refused { .. } | Answer::NotEntitled { .. } => {
            tracing::error!(
                bucket,
                customer,
                dimension,
                timestamp,
                quantity,
                attempt,
                ?answer,
                "AWS refuses this record"
            );
        }
        Answer::Duplicate
        | Answer::OutOfBounds
        | Answer::RefusedTogether { .. }
        | Answer::Throttled
        | Answer::NotSent { .. }
        | Answer::Denied { .. }
        | Answer::Doubtful { .. } => {
            tracing::warn!(
                bucket,
                customer,
                dimension,
                timestamp,
                quantity,
                attempt,
                ?answer,
                "not settled by this attempt"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> Answer {
        answer(CallError::Refused(ServiceError {
            code: code.to_owned(),
            message: "m".to_owned(),
        }))
    }

    #[test]
    fn only_a_refusal_or_a_connection_never_made_is_certainly_not_counted() {
        let error = ServiceError {
            code: "c".to_owned(),
            message: "m".to_owned(),
        };
        for doubtful in [
            CallError::Lost("timeout".to_owned()),
            CallError::Failed {
                status: 500,
                error: error.clone(),
            },
            CallError::Failed { status: 403, error },
        ] {
            assert!(matches!(answer(doubtful), Answer::Doubtful { .. }));
        }
        assert!(matches!(
            answer(CallError::NotSent("refused".to_owned())),
            Answer::NotSent { .. }
        ));
        assert_eq!(refused("DuplicateRequestException"), Answer::Duplicate);
        assert_eq!(
            refused("TimestampOutOfBoundsException"),
            Answer::OutOfBounds
        );
        assert!(matches!(
            refused("CustomerNotSubscribedException"),
            Answer::NotEntitled { .. }
        ));
        assert!(matches!(
            refused("InvalidTagException"),
            Answer::Refused { .. }
        ));
        assert!(matches!(
            refused("AccessDeniedException"),
            Answer::Denied { .. }
        ));
        assert!(matches!(
            refused("NeverHeardOfException"),
            Answer::Denied { .. }
        ));
    }
}
