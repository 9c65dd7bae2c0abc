//! The state of record, and how each fact changes it.

mod customers;
mod open;
mod sealed;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::customers::{CustomerRow, Customers};
use super::fact::Fact;
use super::series::{Series, SeriesKey};
use super::submission::Submission;
use crate::usage::{BucketId, CustomerNumber, Dimension, Hour, Identity, Moment, Period};

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
            series.forget_all();
            self.touched.series.insert(key.clone());
        }
        let open = self.open.iter_mut();
        for (id, bucket) in open.filter(|(_, bucket)| bucket.key.customer.is_none()) {
            bucket.first_at = bucket.first_at.max(at);
            bucket.fix_late();
            self.touched.buckets.insert(*id);
        }
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

/// A volume that moves between more pods than this and back again is beyond any set-up known.
const PAST_IDENTITIES_MAX: usize = 64;
