//! The metering core: usage in, submissions out, nothing lost and nothing twice.
//!
//! Pure: no I/O and no clock of its own. Each entry point of [`Core`] takes `now` and returns a [`Decision`]: the facts to
//! make durable **before** anything else is done, and then the submissions to send. The facts of one decision are one
//! transaction, so that a quantity that moves is never in two places or none. [`State::apply`] is the only way the state
//! changes, live and in replay alike.
//!
//! ```text
//!   Bucket: Open ──seal──► Sealed ──recorded───────► Settled
//!                            │ ├──never counted────► RolledForward (owed by the open hour)
//!                            │ ├──maybe counted────► InDoubt (until a person decides)
//!                            │ └──AWS refuses──────► Rejected (kept)
//! ```
//!
//! | file | decides |
//! |---|---|
//! | `intake` | which bucket a report joins |
//! | `sealing` | when a bucket's record is fixed, and as what |
//! | `batch` | which records of customers share a request |
//! | `delivery` | attempts, answers, windows |
//! | `takeover` | another identity, a process that died |
//! | `state`, `series`, `customers` | nothing: they hold what the facts came to |
//! | `window` | how far back AWS takes usage |

mod batch;
mod bucket;
mod customers;
mod delivery;
mod fact;
mod hour_set;
mod intake;
mod sealing;
mod series;
mod state;
mod submission;
mod takeover;
mod tally;
mod window;

pub use bucket::Bucket;
pub use customers::CustomerRow;
pub use delivery::{Answer, Resolution, ResolveError};
pub use fact::Fact;
pub use intake::{Amount, Refusal, Report, Taken};
pub use sealing::Startup;
pub use series::{Series, SeriesKey};
pub use state::{Illegal, Root, State, Touched};
pub use submission::{Attempt, Call, Postponement, Request, Status, Submission};
pub use tally::Tally;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::usage::{BucketId, Dimension, Hour, Moment, Period};

/// How the reports of one hour make its quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Combine {
    /// Accumulated: they add up.
    #[default]
    Sum,
    /// Concurrent: the peak.
    Max,
    /// Provisioned: the latest sample, which holds in later hours until the next.
    Last,
    /// Concurrent: how many different keys were seen.
    Distinct,
}

/// What the configuration says about metering.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `TOLLGATE_METERING_PERIOD`.
    pub period: Period,
    /// `TOLLGATE_STRAGGLER_WAIT`.
    pub straggler_wait_ms: i64,
    /// `TOLLGATE_SUBMIT_JITTER`: the spread over a fleet, of which each identity takes its own part.
    pub submit_jitter_ms: i64,
    /// `TOLLGATE_DIMENSIONS`; `None` allows any, summed.
    pub dimensions: Option<BTreeMap<Dimension, Combine>>,
    /// `TOLLGATE_ZERO_USAGE=report`.
    pub zero_usage: bool,
    /// `TOLLGATE_SAAS_MODE` is set: customers are billed, and never the task or pod itself.
    pub saas: bool,
}

/// Whether the buyer is entitled, as far as this process knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Not decided: usage is taken, nothing but the start-up record is sent.
    Pending,
    /// Yes.
    Open,
    /// No: nothing is taken, nothing is sent, and what was taken is rejected.
    Denied,
}

/// What is to be done, in this order: make `facts` durable, answer with `reply`, send `submit`.
#[derive(Debug)]
#[must_use]
pub struct Decision<T> {
    /// One transaction.
    pub facts: Vec<Fact>,
    /// For the caller.
    pub reply: T,
    /// What is now in flight.
    pub submit: Vec<Call>,
}

/// The state with the rules that change it.
#[derive(Debug)]
pub struct Core {
    state: State,
    rules: Rules,
    gate: Gate,
    draining: bool,
    /// Straggler wait and this identity's part of the jitter.
    seal_wait_ms: i64,
    random: fastrand::Rng,
    facts: Vec<Fact>,
    submit: Vec<Call>,
    /// The hour that has begun for customers.
    begun: Option<Hour>,
    /// Buckets of customers that are due to be sealed and wait for room: found once, not with every answer.
    due_customers: VecDeque<BucketId>,
    wake: Option<Wake>,
}

/// A cached answer of [`Core::next_wake`].
#[derive(Clone, Copy, Debug)]
struct Wake(Option<Moment>);

impl Core {
    /// Rules over a state; `random` makes tokens and jitter.
    pub fn new(rules: Rules, state: State, random: fastrand::Rng) -> Self {
        let seal_wait_ms = rules.straggler_wait_ms;
        let (facts, submit) = (Vec::new(), Vec::new());
        Self {
            state,
            rules,
            gate: Gate::Pending,
            draining: false,
            seal_wait_ms,
            random,
            facts,
            submit,
            begun: None,
            due_customers: VecDeque::new(),
            wake: None,
        }
    }

    /// The state of record.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// For the checkpoint to take rows from.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Whether the buyer is entitled.
    pub fn gate(&self) -> Gate {
        self.gate
    }

    /// The entitlement decision is positive: submissions may go out.
    pub fn open_gate(&mut self, now: Moment) -> Decision<()> {
        self.gate = Gate::Open;
        self.begun = None;
        self.step(now);
        self.decided(())
    }

    /// The entitlement decision is negative: what was taken is rejected, what was perhaps counted is parked.
    pub fn deny_gate(&mut self, now: Moment) -> Decision<()> {
        self.gate = Gate::Denied;
        self.reject_everything(now);
        self.decided(())
    }

    /// The process is about to end: seals what is open and makes everything due. Later reports go to later hours.
    pub fn drain(&mut self, now: Moment) -> Decision<()> {
        self.draining = true;
        self.seal_all(now);
        self.record(Fact::Hastened { at: now });
        self.step(now);
        self.decided(())
    }

    /// Time has passed: hours begin and end, attempts come due, windows close.
    pub fn tick(&mut self, now: Moment) -> Decision<()> {
        self.step(now);
        self.decided(())
    }

    /// When [`Core::tick`] has something to do next, by the clock; `None` is not before something else happens.
    pub fn next_wake(&mut self, now: Moment) -> Option<Moment> {
        if self.wake.is_none() {
            let wakes = [
                self.next_hour_begin(now),
                self.next_seal(now),
                self.next_delivery(),
            ];
            self.wake = Some(Wake(wakes.into_iter().flatten().min()));
        }
        self.wake.and_then(|wake| wake.0)
    }

    fn step(&mut self, now: Moment) {
        self.wake = None;
        self.begin_hour(now);
        self.seal_due(now);
        self.deliver(now);
    }

    fn decided<T>(&mut self, reply: T) -> Decision<T> {
        Decision {
            facts: std::mem::take(&mut self.facts),
            reply,
            submit: std::mem::take(&mut self.submit),
        }
    }

    fn record(&mut self, fact: Fact) {
        self.state
            .apply(&fact, self.rules.period)
            .expect("the meter decides only what can follow on its state");
        match (&fact, &mut self.wake) {
            (
                Fact::Reported { .. } | Fact::CustomerSeen { .. } | Fact::CustomerLinked { .. },
                _,
            ) => {}
            (Fact::Opened { bucket, .. }, Some(Wake(wake))) => {
                let due = self.state.open[bucket].seal_due(self.rules.period, self.seal_wait_ms);
                *wake = Some(wake.map_or(due, |wake| wake.min(due)));
            }
            _ => self.wake = None,
        }
        self.facts.push(fact);
    }

    fn combine_of(&self, dimension: &Dimension) -> Option<Combine> {
        match &self.rules.dimensions {
            None => Some(Combine::Sum),
            Some(allowed) => allowed.get(dimension).copied(),
        }
    }

    fn is_sealed(&self, key: &SeriesKey, hour: Hour) -> bool {
        self.floor_of(key).is_some_and(|floor| hour <= floor)
            || self
                .state
                .series
                .get(key)
                .is_some_and(|series| series.is_sealed(hour))
    }

    /// Hours up to this one may have records that the ledger does not know of.
    fn floor_of(&self, key: &SeriesKey) -> Option<Hour> {
        match key.customer {
            None => self.state.root.floor,
            Some(_) => self.state.root.customer_floor,
        }
    }

    /// The first hour from `hour` on that can still get a record.
    fn unsealed_from(&self, key: &SeriesKey, hour: Hour) -> Hour {
        let series = self.state.series.get(key);
        let above = self
            .floor_of(key)
            .max(series.and_then(|series| series.floor))
            .map(|floor| self.rules.period.next(floor));
        let hour = above.map_or(hour, |above| above.max(hour));
        let taken_through = series.and_then(|series| series.sealed.range_end(hour));
        taken_through.map_or(hour, |last| self.rules.period.next(last))
    }

    /// The open bucket of that hour, made if need be.
    fn bucket_at(
        &mut self,
        now: Moment,
        key: &SeriesKey,
        hour: Hour,
        first_at: Moment,
    ) -> BucketId {
        if let Some(id) = self
            .state
            .series
            .get(key)
            .and_then(|series| series.open_at(hour))
        {
            return id;
        }
        let bucket = BucketId(self.state.root.next_bucket);
        let combine = self.combine_of(&key.dimension).unwrap_or_default();
        self.record(Fact::Opened {
            bucket,
            key: key.clone(),
            hour,
            combine,
            at: now,
            first_at,
        });
        bucket
    }

    /// The bucket that takes over what another hour could not bill.
    fn heir(&mut self, now: Moment, key: &SeriesKey) -> BucketId {
        let hour = self.unsealed_from(key, self.rules.period.hour_of(now));
        self.bucket_at(now, key, hour, now)
    }
}

#[cfg(test)]
mod tests;
