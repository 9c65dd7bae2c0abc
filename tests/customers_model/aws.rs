//! The part of AWS that bills customers: one unchangeable record per customer, dimension and hour, whoever sends it.

use std::collections::{BTreeMap, BTreeSet};

use tollgate::meter::{Answer, Attempt, Call};
use tollgate::usage::{BucketId, Customer, Dimension, Hour, Moment, Period, Quantity};

/// A record, and the bucket it came from; none for one that something else has sent.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) bucket: Option<BucketId>,
    pub(crate) quantity: Quantity,
    pub(crate) id: String,
}

#[derive(Debug, Default)]
pub(crate) struct Aws {
    pub(crate) records: BTreeMap<(Customer, Dimension, Hour), Record>,
    pub(crate) unsubscribed: BTreeSet<Customer>,
}

impl Aws {
    /// An answer for each of the call's records, or one for all of them.
    pub(crate) fn receive(&mut self, now: Moment, call: &Call) -> Vec<Answer> {
        let late = |attempt: &Attempt| !takes(now, attempt.request.timestamp);
        if call.attempts.iter().any(late) {
            let answer = if call.attempts.len() == 1 {
                Answer::OutOfBounds
            } else {
                Answer::RefusedTogether {
                    code: "TimestampOutOfBoundsException".to_owned(),
                    message: String::new(),
                }
            };
            return vec![answer; call.attempts.len()];
        }
        call.attempts
            .iter()
            .map(|attempt| self.receive_one(attempt))
            .collect()
    }

    pub(crate) fn receive_one(&mut self, attempt: &Attempt) -> Answer {
        let request = &attempt.request;
        let customer = attempt.customer.clone().unwrap();
        let hour = Period::HOUR.hour_of(request.timestamp);
        let key = (customer.clone(), request.key.dimension.clone(), hour);
        let repeated = self
            .records
            .get(&key)
            .is_some_and(|record| record.quantity == request.quantity);
        if self.unsubscribed.contains(&customer) && !repeated {
            return Answer::NotEntitled {
                message: String::new(),
            };
        }
        let id = format!("aws-{}", self.records.len());
        let record = self.records.entry(key).or_insert_with(|| Record {
            bucket: Some(request.bucket),
            quantity: request.quantity,
            id,
        });
        if record.quantity != request.quantity {
            return Answer::Duplicate;
        }
        assert!(
            record.bucket.is_none_or(|bucket| bucket == request.bucket),
            "two submissions for one hour: the second is taken for a repeat of the first, and lost"
        );
        Answer::Recorded {
            aws_id: record.id.clone(),
        }
    }

    pub(crate) fn take_hour(&mut self, customer: Customer, dimension: Dimension, hour: Hour) {
        self.records
            .entry((customer, dimension, hour))
            .or_insert_with(|| Record {
                bucket: None,
                quantity: Quantity::from_millionths(999_999_999_999).unwrap(),
                id: "elsewhere".to_owned(),
            });
    }

    pub(crate) fn billed(&self, customer: &Customer, dimension: &Dimension) -> u128 {
        self.records
            .iter()
            .filter(|((billed, of, _), record)| {
                billed == customer && of == dimension && record.bucket.is_some()
            })
            .map(|(_, record)| u128::from(record.quantity.millionths()))
            .sum()
    }
}

/// A day back, and March until six o'clock on the first of April.
fn takes(now: Moment, timestamp: Moment) -> bool {
    let april: jiff::Timestamp = "2026-04-01T00:00:00Z".parse().unwrap();
    let april = Moment::from(april);
    let age = now.ms_since(timestamp);
    let closed = timestamp < april && now >= april.plus_ms(6 * 3_600_000);
    (-300_000..=24 * 3_600_000).contains(&age) && !closed
}
