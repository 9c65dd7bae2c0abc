//! Each rule by an example; `tests/model.rs` has the invariants.

mod customers;
mod delivery;
mod hours;
mod takeover;

use super::*;
use crate::usage::{Allocation, Allocations, Tag, TagSet, UsageKey};

const HOUR_MS: i64 = 3_600_000;
/// 10:00 on some day.
const TEN: Moment = Moment::from_millis(497_222 * HOUR_MS);

/// A core with everything it decided.
struct Meter {
    core: Core,
    now: Moment,
    sent: Vec<(Request, u32)>,
}

impl Meter {
    fn with(dimensions: &str) -> Self {
        let dimensions = dimensions.split(',').map(|entry| {
            let (name, combine) = entry.split_once(':').unwrap_or((entry, "sum"));
            let combine = match combine {
                "sum" => Combine::Sum,
                "max" => Combine::Max,
                "last" => Combine::Last,
                "distinct" => Combine::Distinct,
                other => panic!("no combination {other}"),
            };
            (name.parse().unwrap(), combine)
        });
        let rules = Rules {
            period: Period::HOUR,
            straggler_wait_ms: 60_000,
            submit_jitter_ms: 0,
            dimensions: Some(dimensions.collect()),
            zero_usage: false,
            saas: false,
        };
        let mut meter = Self {
            core: Core::new(rules, State::default(), fastrand::Rng::with_seed(1)),
            now: TEN.plus_ms(600_000),
            sent: Vec::new(),
        };
        meter.start("pod-1");
        meter
    }

    fn run<T>(&mut self, decide: impl FnOnce(&mut Core, Moment) -> Decision<T>) -> T {
        let decision = decide(&mut self.core, self.now);
        let attempts = decision.submit.into_iter().flat_map(|call| call.attempts);
        self.sent
            .extend(attempts.map(|attempt| (attempt.request, attempt.number)));
        decision.reply
    }

    fn start(&mut self, identity: &str) {
        let identity = identity.parse().unwrap();
        self.run(|core, now| core.open(now, &identity));
        self.run(Core::open_gate);
    }

    /// The process ends and starts again.
    fn restart(&mut self, identity: &str) {
        let rules = self.core.rules.clone();
        let state = self.core.state.clone();
        self.core = Core::new(rules, state, fastrand::Rng::with_seed(2));
        self.start(identity);
    }

    /// So many minutes after 10:00.
    fn at(&mut self, minutes: i64) -> &mut Self {
        self.now = TEN.plus_ms(minutes * 60_000);
        self.run(Core::tick);
        self
    }

    fn try_report(
        &mut self,
        dimension: &str,
        amount: Amount,
        at: Option<Moment>,
    ) -> Result<BucketId, Refusal> {
        let report = Report {
            customer: None,
            dimension: dimension.parse().unwrap(),
            amount,
            at,
        };
        let decision = self.core.report(self.now, &report)?;
        Ok(self.run(|_, _| decision))
    }

    fn report(&mut self, dimension: &str, quantity: &str) -> BucketId {
        self.try_report(dimension, plain(quantity), None).unwrap()
    }

    fn report_key(&mut self, dimension: &str, key: &str) -> BucketId {
        self.try_report(dimension, Amount::Key(UsageKey::new(key).unwrap()), None)
            .unwrap()
    }

    fn answer(&mut self, answer: Answer) -> BucketId {
        let (request, attempt) = self.sent.pop().expect("something was sent");
        self.run(|core, now| core.answered(now, request.bucket, attempt, answer));
        request.bucket
    }

    fn recorded(&mut self) -> BucketId {
        self.answer(Answer::Recorded {
            aws_id: "aws-1".to_owned(),
        })
    }

    fn sent_quantities(&self) -> Vec<String> {
        self.sent
            .iter()
            .map(|(request, _)| request.quantity.to_string())
            .collect()
    }

    fn status(&self, bucket: BucketId) -> &'static str {
        let state = self.core.state();
        state
            .unsettled
            .get(&bucket)
            .or_else(|| state.finished.get(&bucket))
            .map_or("open", |s| s.status.name())
    }

    /// What the open buckets would be sealed with, in units.
    fn open_units(&self) -> Vec<u128> {
        self.core
            .state()
            .open
            .values()
            .map(|bucket| bucket.tally().total() / 1_000_000)
            .collect()
    }

    /// Whatever is due goes unanswered by AWS until the window of a record of 10:xx is over.
    fn until_window_ends(&mut self, mut answer: impl FnMut() -> Answer) {
        for minutes in 60..=8 * 60 {
            self.at(minutes);
            while !self.sent.is_empty() {
                self.answer(answer());
            }
        }
    }
}

fn plain(quantity: &str) -> Amount {
    Amount::Quantity {
        quantity: quantity.parse().unwrap(),
        allocations: Allocations::NONE,
    }
}

fn doubtful() -> Answer {
    Answer::Doubtful {
        why: "time-out".to_owned(),
    }
}

fn throttled_id(meter: &Meter) -> BucketId {
    meter.sent.last().expect("something was sent").0.bucket
}
