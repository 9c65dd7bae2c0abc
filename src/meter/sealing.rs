//! Sealing: when a bucket's record is fixed, and as what.

use super::bucket::{Bucket, Own};
use super::tally::{Share, Tally};
use super::{Combine, Core, Decision, Fact, Gate, Status, Submission};
use crate::usage::{BucketId, ClientToken, Dimension, Identity, Moment, Quantity};

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
        if let Some(id) = self
            .state
            .series
            .get(dimension)
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
        if self.is_sealed(dimension, hour) {
            let until = self.unsealed_from(dimension, hour).start();
            return self.decided(Startup::HourTaken { until });
        }
        let displaced = self
            .state
            .series
            .get(dimension)
            .and_then(|series| series.open.get(&hour).copied());
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
        let mut submission = self.submission(now, bucket, dimension.clone(), share, now);
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
        let Some(rules) = &self.rules.dimensions else {
            return;
        };
        let wanted: Vec<_> = rules
            .iter()
            .map(|(dimension, combine)| {
                let level = self
                    .state
                    .series
                    .get(dimension)
                    .is_some_and(|series| series.level.is_some());
                (dimension.clone(), *combine == Combine::Last && level)
            })
            .filter(|(dimension, level)| {
                (self.reports_zero() || *level) && !self.is_sealed(dimension, hour)
            })
            .collect();
        for (dimension, level) in wanted {
            let bucket = self.bucket_at(now, &dimension, hour, now);
            if level && matches!(self.state.open[&bucket].own, Own::Last { sample: None, .. }) {
                self.record(Fact::Held { bucket });
            }
        }
    }

    pub(super) fn next_hour_begin(&self, now: Moment) -> Option<Moment> {
        let dimensions = self.rules.dimensions.as_ref()?;
        let holds = self
            .state
            .series
            .values()
            .any(|series| series.level.is_some());
        if self.draining
            || self.gate == Gate::Denied
            || dimensions.is_empty()
            || !(holds || self.reports_zero())
        {
            return None;
        }
        Some(self.rules.period.end(self.rules.period.hour_of(now)))
    }

    pub(super) fn seal_due(&mut self, now: Moment) {
        for id in self.buckets_where(|core, bucket| {
            bucket.seal_due(core.rules.period, core.seal_wait_ms) <= now
        }) {
            self.seal(now, id, true);
        }
    }

    pub(super) fn next_seal(&self) -> Option<Moment> {
        self.state
            .open
            .values()
            .map(|bucket| bucket.seal_due(self.rules.period, self.seal_wait_ms))
            .min()
    }

    /// Seals every hour that has begun. What is owed to an hour ahead can't be sent yet.
    pub(super) fn seal_all(&mut self, now: Moment) {
        for id in self.buckets_where(|_, bucket| bucket.hour.start() <= now) {
            self.seal(now, id, true);
        }
    }

    pub(super) fn seal(&mut self, now: Moment, id: BucketId, takes_hour: bool) {
        let bucket = &self.state.open[&id];
        let (dimension, hour, timestamp) =
            (bucket.dimension.clone(), bucket.hour, bucket.timestamp(now));
        let mut share = bucket.tally().into_share();
        let rest = share.rest.take();
        let mut submission = self.submission(now, id, dimension.clone(), share, timestamp);
        submission.hour = hour;
        let spill = rest.map(|rest| {
            let period = self.rules.period;
            let next = period.next(hour).max(period.hour_of(now));
            let into = self.bucket_at(now, &dimension, self.unsealed_from(&dimension, next), now);
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

    fn reports_zero(&self) -> bool {
        self.rules.zero_usage && self.gate == Gate::Open
    }

    fn submission(
        &mut self,
        now: Moment,
        bucket: BucketId,
        dimension: Dimension,
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
        let token = ClientToken::from_random(self.random.u128(..));
        Submission {
            request: super::Request {
                bucket,
                dimension,
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
