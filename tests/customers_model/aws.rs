//! The part of AWS that bills customers, whoever sends their records.

use std::collections::BTreeSet;

use tollgate::meter::{Answer, Attempt, Call};
use tollgate::usage::{Customer, Moment, Period};

use crate::bill::Bill;

#[derive(Debug, Default)]
pub(crate) struct Aws {
    pub(crate) bill: Bill<Customer>,
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
            .bill
            .records
            .get(&key)
            .is_some_and(|record| record.quantity == request.quantity);
        if self.unsubscribed.contains(&customer) && !repeated {
            return Answer::NotEntitled {
                message: String::new(),
            };
        }
        self.bill.take(customer, request)
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
