//! What BatchMeterUsage's answer says of each record that was sent (API reference, BatchMeterUsageResult).

use serde::Deserialize;
use serde_json::Number;

use crate::marketplace::{self, CallError};
use crate::meter::{Answer, Attempt};
use crate::usage::{Customer, Moment};
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

/// An answer for each of `attempts`. A record that the service does not mention may have been counted.
pub(super) fn answers(attempts: &[Attempt], body: &[u8]) -> Result<Vec<Answer>, CallError> {
    let said: ResultMembers = marketplace::read(body)?;
    let mut answers: Vec<Option<Answer>> = vec![None; attempts.len()];
    let mut note = |echo: &Echo, answer: Answer| {
        let open = |index: &usize| answers[*index].is_none();
        let Some(index) = echo.find(attempts, open) else {
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
    /// The record that is given back, of those that are `open`. Its timestamp is the one that was sent, or that without its
    /// fraction of a second: a customer's records of two hours may lie closer together than that.
    fn find(&self, attempts: &[Attempt], open: impl Fn(&usize) -> bool) -> Option<usize> {
        let given = wire::read_timestamp(self.timestamp.as_ref()?).ok()?;
        let of_its_time = |time: fn(Moment) -> Moment| {
            (0..attempts.len()).filter(&open).find(|index| {
                let attempt = &attempts[*index];
                time(attempt.request.timestamp) == given && self.names(attempt)
            })
        };
        of_its_time(|sent| sent).or_else(|| of_its_time(whole_second))
    }

    fn names(&self, attempt: &Attempt) -> bool {
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
        customer && self.dimension.as_deref() == Some(attempt.request.key.dimension.as_str())
    }
}

fn whole_second(at: Moment) -> Moment {
    at.plus_ms(-at.as_millis().rem_euclid(1000))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::meter::{Request, SeriesKey};
    use crate::usage::{BucketId, CustomerNumber, Quantity};

    /// A minute before an hour ends.
    const SENT_MS: i64 = 1_795_003_140_000;

    fn attempt(customer: Customer, dimension: &str, at_ms: i64) -> Attempt {
        Attempt {
            request: Request {
                bucket: BucketId(1),
                key: SeriesKey {
                    customer: Some(CustomerNumber(0)),
                    dimension: dimension.parse().unwrap(),
                },
                timestamp: Moment::from_millis(at_ms),
                quantity: Quantity::ZERO,
                allocations: Vec::new(),
                token: None,
            },
            number: 1,
            customer: Some(customer),
        }
    }

    fn identifier() -> Customer {
        Customer::new(Some("c-1"), None, None).unwrap()
    }

    fn echo(dimension: &str, seconds: f64) -> Value {
        json!({"CustomerIdentifier": "c-1", "Dimension": dimension, "Timestamp": seconds, "Quantity": 1})
    }

    fn success(echo: &Value, id: &str) -> Value {
        json!({"UsageRecord": echo, "Status": "Success", "MeteringRecordId": id})
    }

    fn answers_to(attempts: &[Attempt], body: &Value) -> Vec<Answer> {
        answers(attempts, body.to_string().as_bytes()).unwrap()
    }

    fn recorded(id: &str) -> Answer {
        Answer::Recorded {
            aws_id: id.to_owned(),
        }
    }

    #[test]
    fn records_of_two_hours_within_a_second_keep_their_own_answers() {
        let attempts = [
            attempt(identifier(), "gb", SENT_MS + 59_700),
            attempt(identifier(), "gb", SENT_MS + 60_200),
        ];
        for (before, after) in [
            (1_795_003_199.7, 1_795_003_200.2),
            (1_795_003_199.0, 1_795_003_200.0),
        ] {
            let body = json!({
                "Results": [success(&echo("gb", after), "second")],
                "UnprocessedRecords": [echo("gb", before)],
            });
            let said = answers_to(&attempts, &body);
            assert!(matches!(said[0], Answer::Doubtful { .. }), "{said:?}");
            assert_eq!(said[1], recorded("second"));
        }
    }

    #[test]
    fn every_status_has_its_meaning_and_silence_is_doubt() {
        let attempts = ["a", "b", "c", "d", "e", "f"]
            .map(|dimension| attempt(identifier(), dimension, SENT_MS));
        let with = |dimension: &str, status: &str| {
            let echo = echo(dimension, 1_795_003_140.0);
            json!({"UsageRecord": echo, "Status": status})
        };
        let body = json!({
            "Results": [
                with("d", "Success"), with("c", "CustomerNotSubscribed"), with("b", "DuplicateRecord"),
                success(&echo("a", 1_795_003_140.0), "id-a"), with("a", "DuplicateRecord"), with("e", "SomethingNew"), with("other", "DuplicateRecord"),
            ],
        });
        let said = answers_to(&attempts, &body);
        assert_eq!(said[0], recorded("id-a"), "what is said first stands");
        assert_eq!(said[1], Answer::Duplicate);
        assert!(matches!(said[2], Answer::NotEntitled { .. }), "{said:?}");
        for unclear in &said[3..] {
            assert!(matches!(unclear, Answer::Doubtful { .. }), "{said:?}");
        }
    }

    #[test]
    fn a_record_is_found_by_all_that_names_its_customer() {
        let arn = |n| format!("arn:aws:license-manager::1:license:l-{n}");
        let named = |account: &str, license: Option<String>| {
            Customer::new(None, Some(account), license.as_deref()).unwrap()
        };
        let attempts = [
            named("1", None),
            named("1", Some(arn(1))),
            named("1", Some(arn(2))),
            named("2", Some(arn(2))),
            identifier(),
        ]
        .map(|customer| attempt(customer, "gb", SENT_MS));
        let of = |names: Value| {
            let mut echo = names;
            echo["Dimension"] = json!("gb");
            echo["Timestamp"] = json!(1_795_003_140);
            echo
        };
        let body = json!({"Results": [
            success(&of(json!({"CustomerIdentifier": "c-1"})), "4"),
            success(&of(json!({"CustomerAWSAccountId": "2", "LicenseArn": arn(2)})), "3"),
            success(&of(json!({"CustomerAWSAccountId": "1", "LicenseArn": arn(2)})), "2"),
            success(&of(json!({"CustomerAWSAccountId": "1", "LicenseArn": arn(1)})), "1"),
            success(&of(json!({"CustomerAWSAccountId": "1"})), "0"),
            success(&of(json!({"CustomerAWSAccountId": "3"})), "nobody"),
        ]});
        let expected = ["0", "1", "2", "3", "4"].map(recorded);
        assert_eq!(answers_to(&attempts, &body), expected);
    }

    #[test]
    fn a_refusal_of_a_shared_request_accuses_no_record() {
        let refused = || Answer::Refused {
            code: "InvalidTagException".to_owned(),
            message: "m".to_owned(),
        };
        assert_eq!(together(refused(), 1), refused());
        assert_eq!(together(Answer::OutOfBounds, 1), Answer::OutOfBounds);
        for answer in [refused(), Answer::OutOfBounds] {
            let shared = together(answer, 2);
            assert!(
                matches!(shared, Answer::RefusedTogether { .. }),
                "{shared:?}"
            );
        }
        assert_eq!(together(Answer::Throttled, 2), Answer::Throttled);
    }
}
