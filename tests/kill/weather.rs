//! How AWS is: unreliable, and now and then away for longer than it takes a record.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::aws::Aws;
use crate::moments::Moment;

pub struct Weather<'a> {
    aws: &'a Aws,
    climate: Climate,
    outage_begun: Option<Instant>,
}

/// What there is to go wrong.
pub struct Climate {
    pub operations: &'static [&'static str],
    /// Longer than AWS takes a record.
    pub outage: Duration,
    /// Faults besides those that strike every operation.
    pub further: Vec<Value>,
}

impl<'a> Weather<'a> {
    pub fn new(aws: &'a Aws, climate: Climate) -> Self {
        let weather = Self {
            aws,
            climate,
            outage_begun: None,
        };
        weather.misbehave();
        weather
    }

    pub fn is_outage(&self) -> bool {
        self.outage_begun.is_some()
    }

    /// Lets an outage begin with some of the kills, and end in its time. Where it says so, the process has to be killed
    /// while AWS has counted a record and not answered yet.
    pub fn change(&mut self, kill: u64) -> Option<Moment> {
        if let Some(begun) = self.outage_begun {
            if begun.elapsed() > self.climate.outage {
                self.outage_begun = None;
                self.misbehave();
            }
            return None;
        }
        let (fault, moment) = match kill % 60 {
            // What is counted here is throttled to the end of its window below: nothing but doubt tells it from what is not.
            13 => (
                json!({"kind": "delay", "delay_ms": 2000}),
                Some(Moment::Call),
            ),
            14 => (
                json!({"kind": "error", "error": "ThrottlingException"}),
                None,
            ),
            30 => (json!({"kind": "connection-reset"}), None),
            46 => (json!({"kind": "reply-lost"}), None),
            _ => return None,
        };
        self.aws.replace_faults(&self.of_each_operation(&fault));
        self.outage_begun = moment.is_none().then(Instant::now);
        moment
    }

    /// Each kind of trouble strikes some of the calls.
    pub fn misbehave(&self) {
        let troubles = [
            json!({"kind": "reply-lost", "rate": 0.06}),
            json!({"kind": "connection-reset", "rate": 0.06}),
            json!({"kind": "internal-error", "rate": 0.06}),
            json!({"kind": "internal-error-after", "rate": 0.06}),
            json!({"kind": "truncated", "rate": 0.04}),
            json!({"kind": "unavailable-page", "rate": 0.03}),
            json!({"kind": "html-page", "rate": 0.03}),
            json!({"kind": "error", "error": "ThrottlingException", "rate": 0.08}),
            json!({"kind": "delay", "delay_ms": 120, "rate": 0.2}),
        ];
        let mut faults: Vec<Value> = troubles
            .iter()
            .flat_map(|fault| self.of_each_operation(fault))
            .collect();
        faults.extend(self.climate.further.iter().cloned());
        self.aws.replace_faults(&faults);
    }

    fn of_each_operation(&self, fault: &Value) -> Vec<Value> {
        let of = |operation: &&str| {
            let mut fault = fault.clone();
            fault["operation"] = json!(operation);
            fault
        };
        self.climate.operations.iter().map(of).collect()
    }
}
