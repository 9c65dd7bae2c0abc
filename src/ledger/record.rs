//! What the ledger shows of a record: to `GET /v1/usage/{id}`, `tollgate usage` and `/status`.

use serde::Serialize;

use crate::meter::{Bucket, Status, Submission};
use crate::usage::{Allocation, BucketId, Customer, Dimension, Hour, Identity, Moment};

/// One hour of one dimension, open or on its way or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number, by which a person resolves it.
    pub bucket: BucketId,
    /// Whose; none where the task or pod itself is billed.
    pub customer: Option<Customer>,
    /// Its dimension.
    pub dimension: Dimension,
    /// Its hour.
    pub hour: Hour,
    /// The timestamp that AWS gets; none while it is open.
    pub timestamp: Option<Moment>,
    /// Millionths of a unit. An open bucket can hold more than one record.
    pub millionths: u128,
    /// By tags; empty while it is open.
    pub allocations: Vec<Allocation>,
    /// Under whose credentials; none while it is open.
    pub identity: Option<Identity>,
    /// Attempts begun.
    pub attempts: u32,
    /// What the last attempt came to, if it did not settle.
    pub problem: Option<String>,
    /// How far it is.
    pub state: RecordState,
}

/// How far a record is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RecordState {
    /// Usage still joins.
    Open,
    /// Fixed, on its way.
    Sealed,
    /// Billed.
    Settled {
        /// Since when that is known.
        at: Moment,
        /// AWS's record id; none where a person said that it was delivered.
        aws_id: Option<String>,
    },
    /// Not billed, owed by another.
    RolledForward {
        /// When.
        at: Moment,
        /// Where the quantity is now.
        into: Option<BucketId>,
    },
    /// Perhaps billed: a person decides.
    InDoubt {
        /// Since when.
        at: Moment,
    },
    /// Never billed.
    Rejected {
        /// When.
        at: Moment,
        /// AWS's error code.
        code: String,
    },
}

/// Which records to list.
#[derive(Clone, Debug)]
pub struct Filter {
    /// State names as in [`RecordState::name`]; empty is all.
    pub states: Vec<String>,
    /// The latest so many.
    pub limit: usize,
}

/// The ledger in figures, for `/status` and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Hours that usage still joins.
    pub open: u64,
    /// Records on their way.
    pub sealed: u64,
    /// Records billed, ever.
    pub settled: u64,
    /// Records rolled forward, ever.
    pub rolled_forward: u64,
    /// Records that a person has to decide.
    pub in_doubt: u64,
    /// Records never billed, ever.
    pub rejected: u64,
    /// The timestamp of the oldest record on its way.
    pub oldest_unsettled_at: Option<Moment>,
    /// When AWS last confirmed one.
    pub last_settled_at: Option<Moment>,
    /// Callers' keys forgotten before their ten minutes.
    pub keys_dropped: u64,
    /// Customers that were ever named.
    pub customers: u64,
    /// Those of them that AWS calls not subscribed.
    pub customers_not_subscribed: u64,
}

impl RecordState {
    /// Its name on the wire and in filters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Sealed => "sealed",
            Self::Settled { .. } => "settled",
            Self::RolledForward { .. } => "rolled_forward",
            Self::InDoubt { .. } => "in_doubt",
            Self::Rejected { .. } => "rejected",
        }
    }
}

impl Record {
    /// The quantity, exact, as decimal text.
    pub fn quantity(&self) -> String {
        let text = format!(
            "{}.{:06}",
            self.millionths / 1_000_000,
            self.millionths % 1_000_000
        );
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    pub(super) fn of_bucket(id: BucketId, bucket: &Bucket, customer: Option<Customer>) -> Self {
        Self {
            bucket: id,
            customer,
            dimension: bucket.dimension().clone(),
            hour: bucket.hour(),
            timestamp: None,
            millionths: bucket.total(),
            allocations: Vec::new(),
            identity: None,
            attempts: 0,
            problem: None,
            state: RecordState::Open,
        }
    }

    pub(super) fn of_submission(submission: &Submission, customer: Option<Customer>) -> Self {
        let request = &submission.request;
        Self {
            bucket: request.bucket,
            customer,
            dimension: request.key.dimension.clone(),
            hour: submission.hour,
            timestamp: Some(request.timestamp),
            millionths: request.quantity.millionths().into(),
            allocations: request.allocations.clone(),
            identity: Some(submission.identity.clone()),
            attempts: submission.attempts,
            problem: submission.problem.clone(),
            state: match submission.status.clone() {
                Status::Waiting { .. } | Status::InFlight { .. } => RecordState::Sealed,
                Status::Settled { at, aws_id } => RecordState::Settled { at, aws_id },
                Status::RolledForward { at, into } => RecordState::RolledForward { at, into },
                Status::InDoubt { at } => RecordState::InDoubt { at },
                Status::Rejected { at, code } => RecordState::Rejected { at, code },
            },
        }
    }
}

impl Filter {
    /// Everything, up to `limit`.
    pub fn latest(limit: usize) -> Self {
        Self {
            states: Vec::new(),
            limit,
        }
    }

    pub(super) fn takes(&self, record: &Record) -> bool {
        self.states.is_empty() || self.states.iter().any(|state| state == record.state.name())
    }
}
