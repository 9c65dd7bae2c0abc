//! The submitter: sends what the ledger has sealed, and tells the ledger what each attempt came to.
//!
//! It decides nothing. When to send, how often, and what follows an answer is the core's; the ledger has made an attempt
//! durable before it arrives here. How many are under way at once is bounded by the core too.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::ledger::{Attempt, Ledger};
use crate::marketplace::{CallError, Marketplace, ServiceError, meter_usage_body};
use crate::meter::{Answer, Request};
use crate::usage::{BucketId, ProductCode};

/// What AWS has last said, and of which record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The record.
    pub bucket: BucketId,
    /// What the attempt came to.
    pub answer: Answer,
}

/// Sends every attempt that comes, until the ledger is gone. Attempts under way end with the future.
pub async fn run<M: Marketplace>(
    marketplace: Arc<M>,
    product: ProductCode,
    ledger: Ledger,
    mut attempts: mpsc::UnboundedReceiver<Attempt>,
    answers: watch::Sender<Option<Answered>>,
) {
    let mut under_way = tokio::task::JoinSet::new();
    while let Some(Attempt { request, number }) = attempts.recv().await {
        while under_way.try_join_next().is_some() {}
        let (marketplace, ledger, product) =
            (Arc::clone(&marketplace), ledger.clone(), product.clone());
        let answers = answers.clone();
        under_way.spawn(async move {
            let bucket = request.bucket;
            let answer = send(&*marketplace, &product, &request).await;
            log(&request, number, &answer);
            if let Err(error) = ledger.answered(bucket, number, answer.clone()).await {
                tracing::error!(%error, bucket = bucket.0, "what AWS answered can't be kept; a restart asks again");
            }
            answers.send_replace(Some(Answered { bucket, answer }));
        });
    }
}

async fn send<M: Marketplace>(marketplace: &M, product: &ProductCode, request: &Request) -> Answer {
    match marketplace
        .meter_usage(meter_usage_body(product, request))
        .await
    {
        Ok(aws_id) => Answer::Recorded { aws_id },
        Err(error) => answer(error),
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
            | "IdempotencyConflictException"
            | "ValidationException"
            | "SerializationException" => Answer::Refused { code, message },
            _ => Answer::Denied { code, message },
        },
    }
}

fn log(request: &Request, attempt: u32, answer: &Answer) {
    let (bucket, dimension) = (request.bucket.0, request.dimension.as_str());
    let (timestamp, quantity) = (request.timestamp.to_string(), request.quantity.to_string());
    match answer {
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
        | Answer::Throttled
        | Answer::NotSent { .. }
        | Answer::Denied { .. }
        | Answer::Doubtful { .. } => {
            tracing::warn!(
                bucket,
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
