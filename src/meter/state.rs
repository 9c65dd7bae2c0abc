//! The state of record, and how each fact changes it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, Own, Sample, Sealed};
use super::fact::Fact;
use super::series::Series;
use super::submission::{Status, Submission};
use super::tally::Tally;
use super::{Amount, Combine};
use crate::usage::{BucketId, Dimension, Hour, Identity, Moment, Period, Quantity};

/// Everything that the meter knows, less what is final and has been taken into the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) root: Root,
    pub(super) series: BTreeMap<Dimension, Series>,
    pub(super) open: BTreeMap<BucketId, Bucket>,
    pub(super) unsettled: BTreeMap<BucketId, Submission>,
    pub(super) finished: BTreeMap<BucketId, Submission>,
    touched: Touched,
}

/// The part of the state that is one small row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    pub(super) identity: Option<Identity>,
    /// When the present identity was first seen.
    pub(super) since: Option<Moment>,
    /// Earlier identities, and the last hour that each has sealed.
    pub(super) past: Vec<(Identity, Option<Hour>)>,
    /// Hours up to this one may have records that this ledger does not know of.
    pub(super) floor: Option<Hour>,
    pub(super) next_bucket: u32,
    pub(super) settled: u64,
    pub(super) rolled_forward: u64,
    pub(super) rejected: u64,
    pub(super) last_settled_at: Option<Moment>,
}

/// A fact that can't follow on the state: the ledger is damaged, or the meter is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bucket {bucket} is {found}, and {fact} can't happen to it")]
pub struct Illegal {
    /// The bucket that the fact names.
    pub bucket: BucketId,
    /// What it is.
    pub found: &'static str,
    /// What should have happened to it.
    pub fact: &'static str,
}

/// The rows that have changed since they were last taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Buckets and submissions, wherever they are now.
    pub buckets: BTreeSet<BucketId>,
    /// Dimensions.
    pub series: BTreeSet<Dimension>,
}

impl State {
    /// Puts a state together from the rows it was stored as.
    pub fn from_rows(
        root: Root,
        series: BTreeMap<Dimension, Series>,
        open: BTreeMap<BucketId, Bucket>,
        unsettled: BTreeMap<BucketId, Submission>,
    ) -> Self {
        Self {
            root,
            series,
            open,
            unsettled,
            finished: BTreeMap::new(),
            touched: Touched::default(),
        }
    }

    /// Whose the ledger is.
    pub fn identity(&self) -> Option<&Identity> {
        self.root.identity.as_ref()
    }

    /// The row of single values.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// A dimension's row.
    pub fn series(&self, dimension: &Dimension) -> Option<&Series> {
        self.series.get(dimension)
    }

    /// The open buckets.
    pub fn open(&self) -> &BTreeMap<BucketId, Bucket> {
        &self.open
    }

    /// Sealed and in-doubt submissions.
    pub fn unsettled(&self) -> &BTreeMap<BucketId, Submission> {
        &self.unsettled
    }

    /// Submissions that are final and not yet taken into the history.
    pub fn finished(&self) -> &BTreeMap<BucketId, Submission> {
        &self.finished
    }

    /// What has changed since this was last called, for a checkpoint that has been made durable.
    pub fn checkpointed(&mut self) {
        self.touched = Touched::default();
        self.finished.clear();
    }

    /// What has changed since the last checkpoint.
    pub fn touched(&self) -> &Touched {
        &self.touched
    }

    /// Applies one fact. `period` is only used to forget what lies far back.
    pub fn apply(&mut self, fact: &Fact, period: Period) -> Result<(), Illegal> {
        match fact {
            Fact::Reported {
                bucket,
                at,
                amount,
                newest,
                late,
            } => self.report(*bucket, *at, amount, *newest, *late),
            Fact::Opened {
                bucket,
                dimension,
                hour,
                combine,
                at,
                first_at,
            } => self.insert(
                *bucket,
                Bucket::new(dimension.clone(), *combine, *hour, *at, *first_at),
            ),
            Fact::Held { bucket } => self.hold(*bucket),
            Fact::Recombined { bucket, combine } => self.recombine(*bucket, *combine),
            Fact::Sealed {
                submission,
                takes_hour,
                spill,
            } => {
                let kept_from = takes_hour.then(|| period.back(submission.hour, SEALED_HOURS_KEPT));
                self.seal(submission, spill.as_ref(), kept_from)
            }
            Fact::Started { submission } => self.start(submission),
            Fact::AttemptStarted { bucket, at } => self.attempt(*bucket, *at),
            Fact::Postponed {
                bucket,
                due,
                doubtful,
                not_entitled,
                problem,
            } => {
                let submission = self.pending_mut(*bucket, "a postponement")?;
                submission.postpone(*due, *doubtful, *not_entitled, problem);
                Ok(())
            }
            Fact::Hastened { at } => {
                self.hasten(*at);
                Ok(())
            }
            Fact::Settled { bucket, at, aws_id } => self.settle(*bucket, *at, aws_id.clone()),
            Fact::RolledForward {
                bucket,
                at,
                into,
                problem,
            } => self.roll_forward(*bucket, *at, *into, problem.as_ref()),
            Fact::Parked {
                bucket,
                at,
                problem,
            } => self.park(*bucket, *at, problem),
            Fact::Rejected {
                bucket,
                at,
                code,
                problem,
            } => self.reject(*bucket, *at, code, problem),
            Fact::IdentityChanged { identity, at } => {
                self.change_identity(identity, *at);
                Ok(())
            }
            Fact::Floored { hour } => {
                self.root.floor = self.root.floor.max(Some(*hour));
                Ok(())
            }
        }
    }

    fn insert(&mut self, id: BucketId, bucket: Bucket) -> Result<(), Illegal> {
        let series = self.series.entry(bucket.dimension.clone()).or_default();
        let taken = series.open.insert(bucket.hour, id).is_some();
        self.touched.series.insert(bucket.dimension.clone());
        if taken || id.0 != self.root.next_bucket {
            return Err(Illegal {
                bucket: id,
                found: "a second bucket of its hour or out of order",
                fact: "opening",
            });
        }
        self.root.next_bucket += 1;
        self.touched.buckets.insert(id);
        self.open.insert(id, bucket);
        Ok(())
    }

    fn report(
        &mut self,
        id: BucketId,
        at: Moment,
        amount: &Amount,
        newest: bool,
        late: Option<Hour>,
    ) -> Result<(), Illegal> {
        let Some(bucket) = self.open.get_mut(&id) else {
            return Err(self.illegal(id, "a report"));
        };
        if !self.touched.buckets.contains(&id) {
            self.touched.buckets.insert(id);
        }
        let combine = bucket.own.combine();
        let hour = late.unwrap_or(bucket.hour);
        if let Some(hour) = late {
            let series = self.series.entry(bucket.dimension.clone()).or_default();
            self.touched.series.insert(bucket.dimension.clone());
            let (_, sealed) = series
                .sealed
                .entry(hour)
                .or_insert_with(|| (id, Sealed::default()));
            let excess = sealed.excess(combine, amount);
            sealed.join(combine, amount);
            if combine == Combine::Last {
                if newest || sealed.at.is_none_or(|sampled| at >= sampled) {
                    sealed.at = Some(at);
                    let excess = u64::try_from(excess.total()).ok();
                    let excess = excess.and_then(|sum| Quantity::from_millionths(sum).ok());
                    bucket
                        .late
                        .insert(hour, excess.expect("one report's quantity fits one record"));
                }
            } else {
                bucket.owed.absorb(excess);
            }
        } else {
            bucket.first_at = bucket.first_at.min(at);
            if !bucket.own.join(amount, at, newest) {
                return Err(self.illegal(id, "a report of another kind"));
            }
        }
        if combine == Combine::Last && newest {
            let dimension = bucket.dimension.clone();
            self.level(dimension, hour, at, amount);
        }
        Ok(())
    }

    /// A new level replaces the one that later hours hold.
    fn level(&mut self, dimension: Dimension, hour: Hour, at: Moment, amount: &Amount) {
        let Amount::Quantity { quantity, .. } = amount else {
            return;
        };
        let sample = Sample {
            at,
            quantity: *quantity,
            tally: amount.tally(),
        };
        let series = self.series.entry(dimension.clone()).or_default();
        for id in series.open.range(hour..).map(|(_, id)| *id) {
            let Some(bucket) = self.open.get_mut(&id) else {
                continue;
            };
            if let (
                true,
                Own::Last {
                    sample: held_sample,
                    held: true,
                },
            ) = (bucket.hour > hour, &mut bucket.own)
            {
                *held_sample = Some(Sample {
                    at: bucket.hour.start(),
                    ..sample.clone()
                });
                self.touched.buckets.insert(id);
            }
        }
        series.level = Some(sample);
        self.touched.series.insert(dimension);
    }

    fn hold(&mut self, id: BucketId) -> Result<(), Illegal> {
        let dimension = self.bucket_mut(id, "holding a level")?.dimension.clone();
        let level = self
            .series
            .get(&dimension)
            .and_then(|series| series.level.clone());
        let bucket = self.bucket_mut(id, "holding a level")?;
        if let (Own::Last { sample, held }, Some(level)) = (&mut bucket.own, level) {
            *sample = Some(Sample {
                at: bucket.hour.start(),
                ..level
            });
            *held = true;
        }
        Ok(())
    }

    fn seal(
        &mut self,
        sealed: &Submission,
        spill: Option<&(BucketId, Tally)>,
        kept_from: Option<Hour>,
    ) -> Result<(), Illegal> {
        let id = sealed.request.bucket;
        let Some(bucket) = self.open.remove(&id) else {
            return Err(self.illegal(id, "sealing"));
        };
        let series = self.series.entry(bucket.dimension.clone()).or_default();
        series.open.remove(&bucket.hour);
        for (hour, excess) in &bucket.late {
            if let Some((_, sealed)) = series.sealed.get_mut(hour) {
                sealed.value = sealed.value.checked_add(*excess).unwrap_or(Quantity::MAX);
            }
        }
        if let Some(kept_from) = kept_from {
            let record = || (id, bucket.own.into_sealed());
            series.sealed.entry(bucket.hour).or_insert_with(record);
            series.forget(kept_from);
        }
        self.touched.series.insert(bucket.dimension);
        self.touched.buckets.insert(id);
        self.unsettled.insert(id, sealed.clone());
        if let Some((into, rest)) = spill {
            self.bucket_mut(*into, "a spill")?.owed.absorb(rest.clone());
        }
        Ok(())
    }

    fn start(&mut self, submission: &Submission) -> Result<(), Illegal> {
        let id = submission.request.bucket;
        if id.0 != self.root.next_bucket {
            return Err(Illegal {
                bucket: id,
                found: "out of order",
                fact: "a start-up record",
            });
        }
        self.root.next_bucket += 1;
        let series = self
            .series
            .entry(submission.request.dimension.clone())
            .or_default();
        series
            .sealed
            .entry(submission.hour)
            .or_insert_with(|| (id, Sealed::default()));
        series.startup = Some(id);
        self.touched
            .series
            .insert(submission.request.dimension.clone());
        self.touched.buckets.insert(id);
        self.unsettled.insert(id, submission.clone());
        Ok(())
    }

    fn attempt(&mut self, id: BucketId, at: Moment) -> Result<(), Illegal> {
        let submission = self.pending_mut(id, "an attempt")?;
        let waiting = matches!(submission.status, Status::Waiting { .. });
        if !waiting {
            return Err(self.illegal(id, "an attempt"));
        }
        submission.attempts = submission.attempts.saturating_add(1);
        submission.status = Status::InFlight { since: at };
        Ok(())
    }

    fn recombine(&mut self, id: BucketId, combine: Combine) -> Result<(), Illegal> {
        let bucket = self.bucket_mut(id, "a new combination")?;
        bucket.owed.absorb(bucket.own.tally());
        bucket.own = Own::empty(combine);
        Ok(())
    }

    fn park(&mut self, id: BucketId, at: Moment, problem: &str) -> Result<(), Illegal> {
        let submission = self.pending_mut(id, "parking")?;
        submission.status = Status::InDoubt { at };
        submission.problem = Some(problem.to_owned());
        Ok(())
    }

    fn reject(
        &mut self,
        id: BucketId,
        at: Moment,
        code: &str,
        problem: &str,
    ) -> Result<(), Illegal> {
        self.pending_mut(id, "a rejection")?.problem = Some(problem.to_owned());
        self.finish(
            id,
            Status::Rejected {
                at,
                code: code.to_owned(),
            },
            "a rejection",
        )
    }

    fn hasten(&mut self, at: Moment) {
        for (id, submission) in &mut self.unsettled {
            if let Status::Waiting { due } = &mut submission.status {
                *due = (*due).min(at);
                self.touched.buckets.insert(*id);
            }
        }
    }

    fn settle(&mut self, id: BucketId, at: Moment, aws_id: Option<String>) -> Result<(), Illegal> {
        self.root.last_settled_at = self.root.last_settled_at.max(Some(at));
        self.finish(id, Status::Settled { at, aws_id }, "settling")
    }

    fn roll_forward(
        &mut self,
        id: BucketId,
        at: Moment,
        into: Option<BucketId>,
        problem: Option<&String>,
    ) -> Result<(), Illegal> {
        let Some(submission) = self.unsettled.get_mut(&id) else {
            return Err(self.illegal(id, "rolling forward"));
        };
        if let Some(problem) = problem {
            submission.problem = Some(problem.clone());
        }
        let tally = submission.tally();
        match into {
            Some(into) => self
                .bucket_mut(into, "taking usage over")?
                .owed
                .absorb(tally),
            None if tally.is_zero() => {}
            None => return Err(self.illegal(id, "rolling forward to nowhere")),
        }
        self.finish(id, Status::RolledForward { at, into }, "rolling forward")
    }

    fn finish(&mut self, id: BucketId, status: Status, fact: &'static str) -> Result<(), Illegal> {
        let Some(mut submission) = self.unsettled.remove(&id) else {
            return Err(self.illegal(id, fact));
        };
        let counter = match status {
            Status::Settled { .. } => &mut self.root.settled,
            Status::RolledForward { .. } => &mut self.root.rolled_forward,
            Status::Rejected { .. } => &mut self.root.rejected,
            Status::Waiting { .. } | Status::InFlight { .. } | Status::InDoubt { .. } => {
                unreachable!("only a final status finishes")
            }
        };
        *counter += 1;
        if submission.startup && matches!(status, Status::Rejected { .. }) {
            let dimension = submission.request.dimension.clone();
            self.series.entry(dimension.clone()).or_default().startup = None;
            self.touched.series.insert(dimension);
        }
        submission.status = status;
        self.touched.buckets.insert(id);
        self.finished.insert(id, submission);
        Ok(())
    }

    fn change_identity(&mut self, identity: &Identity, at: Moment) {
        let sealed_through = self
            .series
            .values()
            .filter_map(Series::sealed_through)
            .max();
        if let Some(old) = self.root.identity.replace(identity.clone()) {
            self.root.past.retain(|(past, _)| *past != old);
            self.root
                .past
                .push((old, sealed_through.max(self.root.floor)));
            let excess = self.root.past.len().saturating_sub(PAST_IDENTITIES_MAX);
            self.root.past.drain(..excess);
        }
        self.root.since = Some(at);
        self.root.floor = self
            .root
            .past
            .iter()
            .find(|(past, _)| past == identity)
            .and_then(|(_, through)| *through);
        for (dimension, series) in &mut self.series {
            series.sealed.clear();
            series.floor = None;
            series.level = None;
            series.startup = None;
            self.touched.series.insert(dimension.clone());
        }
        for (id, bucket) in &mut self.open {
            bucket.first_at = bucket.first_at.max(at);
            bucket.late.retain(|_, quantity| {
                bucket.owed.absorb(Tally::untagged(*quantity));
                false
            });
            self.touched.buckets.insert(*id);
        }
    }

    fn bucket_mut(&mut self, id: BucketId, fact: &'static str) -> Result<&mut Bucket, Illegal> {
        if !self.open.contains_key(&id) {
            return Err(self.illegal(id, fact));
        }
        self.touched.buckets.insert(id);
        Ok(self.open.get_mut(&id).expect("looked up above"))
    }

    fn pending_mut(
        &mut self,
        id: BucketId,
        fact: &'static str,
    ) -> Result<&mut Submission, Illegal> {
        if !self.unsettled.contains_key(&id) {
            return Err(self.illegal(id, fact));
        }
        self.touched.buckets.insert(id);
        Ok(self.unsettled.get_mut(&id).expect("looked up above"))
    }

    fn illegal(&self, bucket: BucketId, fact: &'static str) -> Illegal {
        let found = if self.open.contains_key(&bucket) {
            "open"
        } else if let Some(submission) = self
            .unsettled
            .get(&bucket)
            .or_else(|| self.finished.get(&bucket))
        {
            submission.status.name()
        } else {
            "unknown"
        };
        Illegal {
            bucket,
            found,
            fact,
        }
    }
}

impl Root {
    /// Records billed, ever.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Records rolled forward, ever.
    pub fn rolled_forward(&self) -> u64 {
        self.rolled_forward
    }

    /// Records rejected, ever.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// When AWS last confirmed one.
    pub fn last_settled_at(&self) -> Option<Moment> {
        self.last_settled_at
    }
}

/// Longer than AWS takes usage back, so that late usage is compared with what its hour was sealed with.
const SEALED_HOURS_KEPT: i64 = 8;
/// A volume that moves between more pods than this and back again is beyond any set-up known.
const PAST_IDENTITIES_MAX: usize = 64;
