//! The state of record, and how each fact changes it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, Own, Sample, Sealed};
use super::customers::{CustomerRow, Customers};
use super::fact::Fact;
use super::series::{Series, SeriesKey};
use super::submission::{Status, Submission};
use super::tally::Tally;
use super::{Amount, Combine};
use crate::usage::{
    BucketId, Customer, CustomerNumber, Dimension, Hour, Identity, Moment, Period, Quantity,
};

/// Everything that the meter knows, less what is final and has been taken into the history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) root: Root,
    /// Boxed, as the buckets are: a node of the tree has room for eleven, and half of it is empty.
    pub(super) series: BTreeMap<SeriesKey, Box<Series>>,
    /// One of each name, for all series to share.
    dimensions: BTreeSet<Dimension>,
    pub(super) customers: Customers,
    pub(super) open: BTreeMap<BucketId, Box<Bucket>>,
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
    /// Hours up to this one may have records of this identity that this ledger does not know of.
    pub(super) floor: Option<Hour>,
    /// The same for records of customers, whoever sent them.
    pub(super) customer_floor: Option<Hour>,
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
    /// Series.
    pub series: BTreeSet<SeriesKey>,
    /// Customers.
    pub customers: BTreeSet<CustomerNumber>,
}

impl State {
    /// Puts a state together from the rows it was stored as.
    pub fn from_rows(
        root: Root,
        series: BTreeMap<SeriesKey, Box<Series>>,
        customers: BTreeMap<CustomerNumber, CustomerRow>,
        open: BTreeMap<BucketId, Box<Bucket>>,
        unsettled: BTreeMap<BucketId, Submission>,
    ) -> Self {
        let mut state = Self {
            root,
            customers: Customers::from_rows(customers),
            unsettled,
            ..Self::default()
        };
        for (mut key, series) in series {
            state.share_name(&mut key);
            state.series.insert(key, series);
        }
        for (id, mut bucket) in open {
            state.share_name(&mut bucket.key);
            state.open.insert(id, bucket);
        }
        state
    }

    /// Whose the ledger is.
    pub fn identity(&self) -> Option<&Identity> {
        self.root.identity.as_ref()
    }

    /// The row of single values.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// A series' row.
    pub fn series(&self, key: &SeriesKey) -> Option<&Series> {
        self.series.get(key).map(Box::as_ref)
    }

    /// A customer's row.
    pub fn customer(&self, number: CustomerNumber) -> Option<&CustomerRow> {
        self.customers.get(number)
    }

    /// Every customer that was ever named.
    pub fn customers(&self) -> impl Iterator<Item = (CustomerNumber, &CustomerRow)> {
        self.customers.iter()
    }

    /// How many customers were ever named.
    pub fn customer_count(&self) -> usize {
        self.customers.len()
    }

    /// The open buckets.
    pub fn open(&self) -> &BTreeMap<BucketId, Box<Bucket>> {
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

    /// Applies one fact. `period` says which hours follow one on another.
    pub fn apply(&mut self, fact: &Fact, period: Period) -> Result<(), Illegal> {
        match fact {
            Fact::Reported {
                bucket,
                at,
                amount,
                newest,
                late,
            } => {
                self.report(*bucket, *at, amount, *newest, *late)?;
                self.note_metered(*bucket, *late, period);
                Ok(())
            }
            Fact::Opened {
                bucket,
                key,
                hour,
                combine,
                at,
                first_at,
            } => self.insert(
                *bucket,
                Bucket::new(key.clone(), *combine, *hour, *at, *first_at),
            ),
            Fact::Held { bucket } => self.hold(*bucket),
            Fact::Recombined { bucket, combine } => self.recombine(*bucket, *combine),
            Fact::Sealed {
                submission,
                takes_hour,
                spill,
            } => self.seal(submission, spill.as_ref(), *takes_hour, period),
            Fact::Started { submission } => self.start(submission, period),
            Fact::AttemptStarted { bucket, at, call } => self.attempt(*bucket, *at, *call),
            Fact::Postponed {
                bucket,
                postponement,
            } => {
                let submission = self.pending_mut(*bucket, "a postponement")?;
                submission.postpone(postponement);
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
                self.root.customer_floor = self.root.customer_floor.max(Some(*hour));
                Ok(())
            }
            Fact::CustomerSeen { number, customer } => self.see(*number, customer),
            Fact::CustomerLinked { number, account } => {
                self.customers.link(*number, account);
                self.touched.customers.insert(*number);
                Ok(())
            }
            Fact::CustomerSubscription {
                number,
                unsubscribed_at,
            } => {
                if let Some(row) = self.customers.get_mut(*number) {
                    row.unsubscribed_at = *unsubscribed_at;
                }
                self.touched.customers.insert(*number);
                Ok(())
            }
        }
    }

    fn insert(&mut self, id: BucketId, mut bucket: Bucket) -> Result<(), Illegal> {
        self.share_name(&mut bucket.key);
        let series = self.series.entry(bucket.key.clone()).or_default();
        let free = series.open(bucket.hour, id);
        self.touched.series.insert(bucket.key.clone());
        if !free || id.0 != self.root.next_bucket {
            return Err(Illegal {
                bucket: id,
                found: "a second bucket of its hour or out of order",
                fact: "opening",
            });
        }
        self.root.next_bucket += 1;
        self.touched.buckets.insert(id);
        self.open.insert(id, Box::new(bucket));
        Ok(())
    }

    /// Puts the name that is here already in the place of an equal one.
    fn share_name(&mut self, key: &mut SeriesKey) {
        match self.dimensions.get(&key.dimension) {
            Some(known) => key.dimension = known.clone(),
            None => {
                self.dimensions.insert(key.dimension.clone());
            }
        }
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
            if combine == Combine::Sum {
                bucket.owe(amount.tally());
                return Ok(());
            }
            let series = self.series.entry(bucket.key.clone()).or_default();
            self.touched.series.insert(bucket.key.clone());
            let (_, sealed) = series
                .compared
                .entry(hour)
                .or_insert_with(|| (id, Sealed::default()));
            let excess = sealed.excess(combine, amount);
            sealed.join(combine, amount);
            if combine == Combine::Last {
                if newest || sealed.at.is_none_or(|sampled| at >= sampled) {
                    sealed.at = Some(at);
                    let excess = u64::try_from(excess.total()).ok();
                    let excess = excess.and_then(|sum| Quantity::from_millionths(sum).ok());
                    let excess = excess.expect("one report's quantity fits one record");
                    bucket.owe_late(hour, excess);
                }
            } else {
                bucket.owe(excess);
            }
        } else {
            bucket.first_at = bucket.first_at.min(at);
            if !bucket.own.join(amount, at, newest) {
                return Err(self.illegal(id, "a report of another kind"));
            }
        }
        if combine == Combine::Last && newest {
            let key = bucket.key.clone();
            self.level(key, hour, at, amount);
        }
        Ok(())
    }

    /// Remembers in which hours a customer was metered.
    fn note_metered(&mut self, id: BucketId, late: Option<Hour>, period: Period) {
        let Some(bucket) = self.open.get(&id) else {
            return;
        };
        let Some(number) = bucket.key.customer else {
            return;
        };
        let hour = late.unwrap_or(bucket.hour);
        let Some(row) = self.customers.get_mut(number) else {
            return;
        };
        if !row.metered.contains(hour) {
            row.metered.insert(hour, period);
            row.metered
                .remove_before(period.back(hour, CUSTOMER_HOURS_KEPT), period);
            self.touched.customers.insert(number);
        }
    }

    fn see(&mut self, number: CustomerNumber, customer: &Customer) -> Result<(), Illegal> {
        if number != self.next_customer() || self.customers.number_of(customer).is_some() {
            return Err(Illegal {
                bucket: BucketId(number.0),
                found: "no bucket but a customer, known or out of order,",
                fact: "a first naming",
            });
        }
        self.customers
            .insert(number, CustomerRow::new(customer.clone()));
        self.touched.customers.insert(number);
        Ok(())
    }

    pub(super) fn next_customer(&self) -> CustomerNumber {
        CustomerNumber(u32::try_from(self.customers.len()).expect("customers are bounded"))
    }

    /// A new level replaces the one that later hours hold.
    fn level(&mut self, key: SeriesKey, hour: Hour, at: Moment, amount: &Amount) {
        let Amount::Quantity { quantity, .. } = amount else {
            return;
        };
        let sample = Sample {
            at,
            quantity: *quantity,
            tally: amount.tally(),
        };
        let series = self.series.entry(key.clone()).or_default();
        for (_, id) in &series.open {
            let id = *id;
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
                *held_sample = Some(Box::new(Sample {
                    at: bucket.hour.start(),
                    ..sample.clone()
                }));
                self.touched.buckets.insert(id);
            }
        }
        series.level = Some(Box::new(sample));
        self.touched.series.insert(key);
    }

    fn hold(&mut self, id: BucketId) -> Result<(), Illegal> {
        let key = self.bucket_mut(id, "holding a level")?.key.clone();
        let level = self
            .series
            .get(&key)
            .and_then(|series| series.level.clone());
        let bucket = self.bucket_mut(id, "holding a level")?;
        if let (Own::Last { sample, held }, Some(level)) = (&mut bucket.own, level) {
            *sample = Some(Box::new(Sample {
                at: bucket.hour.start(),
                ..*level
            }));
            *held = true;
        }
        Ok(())
    }

    fn seal(
        &mut self,
        sealed: &Submission,
        spill: Option<&(BucketId, Tally)>,
        takes_hour: bool,
        period: Period,
    ) -> Result<(), Illegal> {
        let id = sealed.request.bucket;
        let Some(bucket) = self.open.remove(&id).map(|bucket| *bucket) else {
            return Err(self.illegal(id, "sealing"));
        };
        let series = self.series.entry(bucket.key.clone()).or_default();
        series.open.retain(|(_, open)| *open != id);
        for (hour, excess) in bucket.late() {
            if let Some((_, sealed)) = series.compared.get_mut(&hour) {
                sealed.value = sealed.value.checked_add(excess).unwrap_or(Quantity::MAX);
            }
        }
        if takes_hour {
            series.sealed.insert(bucket.hour, period);
            if bucket.own.combine() != Combine::Sum {
                let record = || (id, bucket.own.into_sealed());
                series.compared.entry(bucket.hour).or_insert_with(record);
            }
            let kept = if bucket.key.customer.is_some() {
                CUSTOMER_HOURS_KEPT
            } else {
                POD_HOURS_KEPT
            };
            series.forget(period.back(sealed.hour, kept), period);
        }
        self.touched.series.insert(bucket.key);
        self.touched.buckets.insert(id);
        self.unsettled.insert(id, sealed.clone());
        if let Some((into, rest)) = spill {
            self.bucket_mut(*into, "a spill")?.owe(rest.clone());
        }
        Ok(())
    }

    fn start(&mut self, submission: &Submission, period: Period) -> Result<(), Illegal> {
        let id = submission.request.bucket;
        if id.0 != self.root.next_bucket {
            return Err(Illegal {
                bucket: id,
                found: "out of order",
                fact: "a start-up record",
            });
        }
        self.root.next_bucket += 1;
        let key = &submission.request.key;
        let series = self.series.entry(key.clone()).or_default();
        series.sealed.insert(submission.hour, period);
        series
            .compared
            .entry(submission.hour)
            .or_insert_with(|| (id, Sealed::default()));
        series.startup = Some(id);
        self.touched.series.insert(key.clone());
        self.touched.buckets.insert(id);
        self.unsettled.insert(id, submission.clone());
        Ok(())
    }

    fn attempt(&mut self, id: BucketId, at: Moment, call: BucketId) -> Result<(), Illegal> {
        let submission = self.pending_mut(id, "an attempt")?;
        let waiting = matches!(submission.status, Status::Waiting { .. });
        if !waiting {
            return Err(self.illegal(id, "an attempt"));
        }
        submission.attempts = submission.attempts.saturating_add(1);
        submission.status = Status::InFlight { since: at, call };
        Ok(())
    }

    fn recombine(&mut self, id: BucketId, combine: Combine) -> Result<(), Illegal> {
        let bucket = self.bucket_mut(id, "a new combination")?;
        bucket.owe(bucket.own.tally());
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
            Some(into) => self.bucket_mut(into, "taking usage over")?.owe(tally),
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
            let key = submission.request.key.clone();
            self.series.entry(key.clone()).or_default().startup = None;
            self.touched.series.insert(key);
        }
        submission.status = status;
        self.touched.buckets.insert(id);
        self.finished.insert(id, submission);
        Ok(())
    }

    /// Only what AWS tells apart by identity: its records of customers are the same, whoever sends them.
    fn change_identity(&mut self, identity: &Identity, at: Moment) {
        let sealed_through = self
            .series
            .iter()
            .filter(|(key, _)| key.customer.is_none())
            .filter_map(|(_, series)| series.sealed_through())
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
        let pods = |(key, _): &(&SeriesKey, &mut Box<Series>)| key.customer.is_none();
        for (key, series) in self.series.iter_mut().filter(pods) {
            series.sealed.clear();
            series.compared.clear();
            series.floor = None;
            series.level = None;
            series.startup = None;
            self.touched.series.insert(key.clone());
        }
        let open = self.open.iter_mut();
        for (id, bucket) in open.filter(|(_, bucket)| bucket.key.customer.is_none()) {
            bucket.first_at = bucket.first_at.max(at);
            bucket.fix_late();
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
const POD_HOURS_KEPT: i64 = 8;
/// The same for usage of customers.
const CUSTOMER_HOURS_KEPT: i64 = 26;
/// A volume that moves between more pods than this and back again is beyond any set-up known.
const PAST_IDENTITIES_MAX: usize = 64;
