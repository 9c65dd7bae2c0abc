//! Sealing: when a bucket's record is fixed, and as what.

use super::bucket::{Bucket, Own};
use super::tally::{Share, Tally};
use super::{Combine, Core, Decision, Fact, Gate, SeriesKey, Status, Submission};
use crate::usage::{
    BucketId, ClientToken, CustomerNumber, Dimension, Hour, Identity, Moment, Quantity,
};

/// How far the start-up record of a custom-metered product is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Startup {
    /// On its way, in this bucket.
    Pending(BucketId),
    /// This identity's has been delivered before.
    Done(BucketId),
    /// The hour has a record already, of real usage; another may be sent from then on.
    HourTaken {
        /// When the next free hour begins.
        until: Moment,
    },
}

impl Core {
    /// Makes the start-up record of a custom-metered product (quantity 0, now), once per identity. Usage that the hour has
    /// already taken is owed by the next.
    pub fn startup(&mut self, now: Moment, dimension: &Dimension) -> Decision<Startup> {
        self.step(now);
        let key = SeriesKey::pod(dimension.clone());
        if let Some(id) = self
            .state
            .series
            .get(&key)
            .and_then(|series| series.startup)
        {
            let status = self
                .state
                .unsettled
                .get(&id)
                .or_else(|| self.state.finished.get(&id))
                .map(|s| &s.status);
            match status {
                Some(Status::Waiting { .. } | Status::InFlight { .. }) => {
                    return self.decided(Startup::Pending(id));
                }
                Some(Status::Settled { .. } | Status::RolledForward { .. }) | None => {
                    return self.decided(Startup::Done(id));
                }
                Some(Status::InDoubt { .. } | Status::Rejected { .. }) => {}
            }
        }
        let hour = self.rules.period.hour_of(now);
        if self.is_sealed(&key, hour) {
            let until = self.unsealed_from(&key, hour).start();
            return self.decided(Startup::HourTaken { until });
        }
        let displaced = self
            .state
            .series
            .get(&key)
            .and_then(|series| series.open_at(hour));
        if let Some(displaced) = displaced {
            self.seal(now, displaced, true);
            self.roll_forward(
                now,
                displaced,
                Some("the start-up record takes its hour".to_owned()),
            );
        }
        let bucket = BucketId(self.state.root.next_bucket);
        let share = Tally::default().into_share();
        let mut submission = self.submission(now, bucket, key, share, now);
        submission.hour = hour;
        submission.startup = true;
        self.record(Fact::Started {
            submission: Box::new(submission),
        });
        self.step(now);
        self.decided(Startup::Pending(bucket))
    }

    /// What an hour has from its beginning on: the level of a `last` dimension, and a bucket to report 0 from.
    pub(super) fn begin_hour(&mut self, now: Moment) {
        if self.draining || self.gate == Gate::Denied {
            return;
        }
        let hour = self.rules.period.hour_of(now);
        self.begin_for(now, None, hour);
        if self.begun.is_some_and(|begun| hour <= begun) {
            return;
        }
        let subscribed: Vec<CustomerNumber> = self
            .state
            .customers
            .iter()
            .filter(|(_, row)| row.unsubscribed_at.is_none())
            .filter(|(_, row)| !self.state.customers.is_superseded(row))
            .map(|(number, _)| number)
            .collect();
        for customer in subscribed {
            self.begin_for(now, Some(customer), hour);
        }
        self.begun = Some(hour);
    }

    fn begin_for(&mut self, now: Moment, customer: Option<CustomerNumber>, hour: Hour) {
        let Some(rules) = &self.rules.dimensions else {
            return;
        };
        let zero = self.reports_zero(customer);
        let wanted: Vec<_> = rules
            .iter()
            .filter_map(|(dimension, combine)| {
                let key = SeriesKey {
                    customer,
                    dimension: dimension.clone(),
                };
                let series = self.state.series.get(&key);
                let level = *combine == Combine::Last
                    && series.is_some_and(|series| series.level.is_some());
                ((zero || level) && !self.is_sealed(&key, hour)).then_some((key, level))
            })
            .collect();
        for (key, level) in wanted {
            let bucket = self.bucket_at(now, &key, hour, now);
            if level && matches!(self.state.open[&bucket].own, Own::Last { sample: None, .. }) {
                self.record(Fact::Held { bucket });
            }
        }
    }

    pub(super) fn next_hour_begin(&self, now: Moment) -> Option<Moment> {
        let dimensions = self.rules.dimensions.as_ref()?;
        let holds = || {
            self.state
                .series
                .values()
                .any(|series| series.level.is_some())
        };
        let zero = || self.rules.zero_usage && self.gate == Gate::Open;
        if self.draining
            || self.gate == Gate::Denied
            || dimensions.is_empty()
            || !(zero() || holds())
        {
            return None;
        }
        Some(self.rules.period.end(self.rules.period.hour_of(now)))
    }

    pub(super) fn seal_due(&mut self, now: Moment) {
        let (period, wait_ms) = (self.rules.period, self.seal_wait_ms);
        let is_due = |bucket: &Bucket| bucket.seal_due(period, wait_ms) <= now;
        let pods: Vec<BucketId> = self
            .open_of_pod()
            .filter(|(_, bucket)| is_due(bucket))
            .map(|(id, _)| id)
            .collect();
        for id in pods {
            self.seal(now, id, true);
        }
        if self.due_customers.is_empty() {
            self.due_customers = self
                .open_of_customers()
                .filter(|(_, bucket)| is_due(bucket))
                .map(|(id, _)| id)
                .collect();
        }
        if self.due_customers.is_empty() {
            return;
        }
        let mut room = self.sealing_room();
        while room > 0
            && let Some(id) = self.due_customers.pop_front()
        {
            // A clock that was set back since makes nothing less due; a drain may have sealed it.
            if self.state.open.contains_key(&id) {
                self.seal(now, id, true);
                room -= 1;
            }
        }
    }

    /// `now` stands for what waits for room and has it.
    pub(super) fn next_seal(&self, now: Moment) -> Option<Moment> {
        let (period, wait_ms) = (self.rules.period, self.seal_wait_ms);
        let due = |(_, bucket): (BucketId, &Bucket)| bucket.seal_due(period, wait_ms);
        let pods = self.open_of_pod().map(due).min();
        let customers = if self.due_customers.is_empty() {
            self.open_of_customers().map(due).min()
        } else {
            (self.sealing_room() > 0).then_some(now)
        };
        pods.into_iter().chain(customers).min()
    }

    fn open_of_pod(&self) -> impl Iterator<Item = (BucketId, &Bucket)> {
        let series = self.state.series.iter();
        series
            .take_while(|(key, _)| key.customer.is_none())
            .flat_map(|(_, series)| &series.open)
            .map(|(_, id)| (*id, &*self.state.open[id]))
    }

    fn open_of_customers(&self) -> impl Iterator<Item = (BucketId, &Bucket)> {
        let open = self.state.open.iter();
        open.filter(|(_, bucket)| bucket.key.customer.is_some())
            .map(|(id, bucket)| (*id, &**bucket))
    }

    /// How many more records of customers may be sealed now. An hour of ten thousand customers is sealed as it is sent, so that
    /// it is in memory once and not twice.
    fn sealing_room(&self) -> usize {
        let on_their_way = |submission: &&Submission| {
            submission.request.key.customer.is_some()
                && !submission.not_entitled
                && match submission.status {
                    Status::Waiting { .. } | Status::InFlight { .. } => true,
                    Status::InDoubt { .. }
                    | Status::Settled { .. }
                    | Status::RolledForward { .. }
                    | Status::Rejected { .. } => false,
                }
        };
        let sealed = self.state.unsettled.values().filter(on_their_way).count();
        SEALED_AHEAD_MAX.saturating_sub(sealed)
    }

    /// Seals every hour that has begun. What is owed to an hour ahead can't be sent yet.
    pub(super) fn seal_all(&mut self, now: Moment) {
        for id in self.buckets_where(|_, bucket| bucket.hour.start() <= now) {
            self.seal(now, id, true);
        }
    }

    pub(super) fn seal(&mut self, now: Moment, id: BucketId, takes_hour: bool) {
        let bucket = &self.state.open[&id];
        let (key, hour, timestamp) = (bucket.key.clone(), bucket.hour, bucket.timestamp(now));
        let mut share = bucket.tally().into_share();
        let rest = share.rest.take();
        let mut submission = self.submission(now, id, key.clone(), share, timestamp);
        submission.hour = hour;
        let spill = rest.map(|rest| {
            let period = self.rules.period;
            let next = period.next(hour).max(period.hour_of(now));
            let into = self.bucket_at(now, &key, self.unsealed_from(&key, next), now);
            (into, rest)
        });
        self.record(Fact::Sealed {
            submission: Box::new(submission),
            takes_hour,
            spill,
        });
    }

    pub(super) fn buckets_where(&self, wanted: impl Fn(&Self, &Bucket) -> bool) -> Vec<BucketId> {
        self.state
            .open
            .iter()
            .filter(|(_, bucket)| wanted(self, bucket))
            .map(|(id, _)| *id)
            .collect()
    }

    /// A SaaS product reports for its customers, and not for the pod that reports.
    fn reports_zero(&self, customer: Option<CustomerNumber>) -> bool {
        let saas = self.rules.saas || !self.state.customers.is_empty();
        self.rules.zero_usage && self.gate == Gate::Open && saas == customer.is_some()
    }

    fn submission(
        &mut self,
        now: Moment,
        bucket: BucketId,
        key: SeriesKey,
        share: Share,
        timestamp: Moment,
    ) -> Submission {
        let Share {
            quantity,
            allocations,
            folded,
            rest: _,
        } = share;
        debug_assert!(quantity <= Quantity::MAX, "a record holds its quantity");
        let token = key
            .customer
            .is_none()
            .then(|| ClientToken::from_random(self.random.u128(..)));
        Submission {
            request: super::Request {
                bucket,
                key,
                timestamp,
                quantity,
                allocations,
                token,
            },
            hour: self.rules.period.hour_of(timestamp),
            identity: self.identity(),
            startup: false,
            sealed_at: now,
            folded,
            attempts: 0,
            doubtful: false,
            not_entitled: false,
            alone: false,
            problem: None,
            status: Status::Waiting { due: now },
        }
    }

    fn identity(&self) -> Identity {
        self.state
            .root
            .identity
            .clone()
            .expect("a core is opened under an identity before anything else")
    }
}

/// Enough for every call under way and the next, whatever way customers are named in.
const SEALED_AHEAD_MAX: usize = 2000;
