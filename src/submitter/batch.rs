//! What BatchMeterUsage's answer says of each record that was sent (API reference, BatchMeterUsageResult).

use serde::Deserialize;
use serde_json::Number;

use crate::marketplace::{self, CallError};
use crate::meter::{Answer, Attempt};
use crate::usage::Customer;
use crate::wire;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ResultMembers {
    #[serde(default)]
    results: Vec<RecordResult>,
    #[serde(default)]
    unprocessed_records: Vec<Echo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RecordResult {
    usage_record: Echo,
    metering_record_id: Option<String>,
    status: Option<String>,
}

/// A record as AWS gives it back.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Echo {
    timestamp: Option<Number>,
    customer_identifier: Option<String>,
    #[serde(rename = "CustomerAWSAccountId")]
    customer_aws_account_id: Option<String>,
    license_arn: Option<String>,
    dimension: Option<String>,
}

/// A record's timestamp may come back without its fraction of a second.
const TIMESTAMP_TOLERANCE_MS: u64 = 1000;

/// An answer for each of `attempts`. A record that the service does not mention may have been counted.
pub(super) fn answers(attempts: &[Attempt], body: &[u8]) -> Result<Vec<Answer>, CallError> {
    let said: ResultMembers = marketplace::read(body)?;
    let mut answers: Vec<Option<Answer>> = vec![None; attempts.len()];
    let mut note = |echo: &Echo, answer: Answer| {
        let found = attempts
            .iter()
            .enumerate()
            .find(|(index, attempt)| answers[*index].is_none() && echo.is_of(attempt));
        let Some((index, _)) = found else {
            tracing::warn!("AWS answers for a record that was not sent");
            return;
        };
        answers[index] = Some(answer);
    };
    for result in said.results {
        let answer = result.answer();
        note(&result.usage_record, answer);
    }
    for record in said.unprocessed_records {
        let why = "AWS returned the record unprocessed".to_owned();
        note(&record, Answer::Doubtful { why });
    }
    let unmentioned = || Answer::Doubtful {
        why: "AWS's answer does not mention the record".to_owned(),
    };
    Ok(answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(unmentioned))
        .collect())
}

/// What one answer to a request of `records` means for each of them: a refusal is for one of them, and does not say which.
pub(super) fn together(answer: Answer, records: usize) -> Answer {
    match answer {
        answer if records == 1 => answer,
        Answer::Refused { code, message } => Answer::RefusedTogether { code, message },
        Answer::OutOfBounds => Answer::RefusedTogether {
            code: "TimestampOutOfBoundsException".to_owned(),
            message: "AWS refuses the whole request for one record's timestamp".to_owned(),
        },
        answer => answer,
    }
}

impl RecordResult {
    fn answer(&self) -> Answer {
        match (self.status.as_deref(), &self.metering_record_id) {
            (Some("Success"), Some(id)) => Answer::Recorded { aws_id: id.clone() },
            (Some("DuplicateRecord"), _) => Answer::Duplicate,
            (Some("CustomerNotSubscribed"), _) => Answer::NotEntitled {
                message: "the customer has no subscription to the product".to_owned(),
            },
            (status, _) => Answer::Doubtful {
                why: format!(
                    "AWS gives the record the status {:?}, and no record id with it",
                    status.unwrap_or_default()
                ),
            },
        }
    }
}

impl Echo {
    fn is_of(&self, attempt: &Attempt) -> bool {
        let request = &attempt.request;
        let customer = match &attempt.customer {
            None => false,
            Some(Customer::Identifier(identifier)) => {
                self.customer_identifier.as_deref() == Some(identifier)
            }
            Some(Customer::Account(account)) => {
                self.customer_aws_account_id.as_deref() == Some(account)
                    && self.license_arn.is_none()
            }
            Some(Customer::License { account, license }) => {
                self.customer_aws_account_id.as_deref() == Some(account)
                    && self.license_arn.as_deref() == Some(license)
            }
        };
        let timestamp = self
            .timestamp
            .as_ref()
            .and_then(|seconds| wire::read_timestamp(seconds).ok());
        customer
            && self.dimension.as_deref() == Some(request.key.dimension.as_str())
            && timestamp.is_some_and(|at| {
                at.ms_since(request.timestamp).unsigned_abs() < TIMESTAMP_TOLERANCE_MS
            })
    }
}
