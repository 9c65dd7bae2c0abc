//! A sealed bucket on its way to AWS.

use serde::{Deserialize, Serialize};

use super::series::SeriesKey;
use super::tally::Tally;
use crate::usage::{
    Allocation, BucketId, ClientToken, Customer, Hour, Identity, Moment, Period, Quantity,
};

/// What is asked of AWS, the same on every attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The bucket it was made of.
    pub bucket: BucketId,
    /// The customer, if any, and `UsageDimension`.
    pub key: SeriesKey,
    /// `Timestamp`.
    pub timestamp: Moment,
    /// A whole number where it is one, else a decimal.
    pub quantity: Quantity,
    /// `UsageAllocations`; empty is none.
    pub allocations: Vec<Allocation>,
    /// `ClientToken`; records of customers have none, AWS tells them apart by what they say.
    pub token: Option<ClientToken>,
}

/// One record on its way in a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What to ask of AWS.
    pub request: Request,
    /// Which attempt it is.
    pub number: u32,
    /// The customer by name.
    pub customer: Option<Customer>,
}

/// What leaves in one request: one record of the task or pod itself (`MeterUsage`), or up to 25 of customers that are named
/// in ways which may share a request (`BatchMeterUsage`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Never empty.
    pub attempts: Vec<Attempt>,
}

/// A sealed bucket: its request, and how far that has come.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, whatever the others are"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// Fixed at sealing.
    pub request: Request,
    /// The hour whose record it is.
    pub hour: Hour,
    /// Under whose credentials it is sent; AWS's idempotency ends there.
    pub identity: Identity,
    /// The start-up record that proves entitlement: sent before the gate is open.
    pub startup: bool,
    /// When it was sealed.
    pub sealed_at: Moment,
    /// How many tag sets lost their tags to fit into one record.
    pub folded: u32,
    /// Attempts begun.
    pub attempts: u32,
    /// An attempt may have been counted, and no identical repeat has been answered since.
    pub doubtful: bool,
    /// AWS said that the buyer is not entitled; never rolled forward after that.
    pub not_entitled: bool,
    /// A call that it shared was refused whole: it goes by itself from now on, so that AWS says whose fault it was.
    pub alone: bool,
    /// What the last attempt came to, if it did not settle.
    pub problem: Option<String>,
    /// How far it is.
    pub status: Status,
}

/// How far a submission is.
///
/// ```text
///                 ┌────── certainly not counted, or doubtful: again ──────┐
///                 ▼                                                       │
///   sealed ──► Waiting ──due, gate open──► InFlight ──answer──────────────┤
///                 │                                                       ├─ recorded ───────────────► Settled
///                 │                                                       ├─ not counted, hour taken ► RolledForward
///                 │                                                       └─ payload refused ────────► Rejected
///                 └─ window over: not counted ► RolledForward
///                                 not entitled ► Rejected
///                                 doubtful ────► InDoubt ── a person ────► Settled | RolledForward
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// To be sent, not before `due`.
    Waiting {
        /// When the next attempt may begin.
        due: Moment,
    },
    /// An attempt is under way, or was when the process died.
    InFlight {
        /// When it began.
        since: Moment,
        /// The first record of the call.
        call: BucketId,
    },
    /// Billed.
    Settled {
        /// When that became known.
        at: Moment,
        /// AWS's record id; none where a person said that it was delivered.
        aws_id: Option<String>,
    },
    /// Not billed; the quantity has moved to another bucket.
    RolledForward {
        /// When.
        at: Moment,
        /// Where the quantity is now; none where there was none.
        into: Option<BucketId>,
    },
    /// Perhaps billed; waits for a person.
    InDoubt {
        /// Since when.
        at: Moment,
    },
    /// Refused by AWS, or taken before the buyer was found not to be entitled. Kept, never sent again.
    Rejected {
        /// When.
        at: Moment,
        /// AWS's error code.
        code: String,
    },
}

/// What an attempt that settled nothing leaves behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Postponement {
    /// When the next attempt may begin.
    pub due: Moment,
    /// AWS may have counted it.
    pub doubtful: bool,
    /// AWS said that the buyer is not entitled.
    pub not_entitled: bool,
    /// The call that it shared was refused whole.
    pub alone: bool,
    /// Why.
    pub problem: String,
}

impl Submission {
    /// The last moment at which AWS takes it.
    pub fn deadline(&self, period: Period) -> Moment {
        let window = self.request.key.window();
        window.deadline(self.request.timestamp, period)
    }

    pub(super) fn postpone(&mut self, postponement: &Postponement) {
        let Postponement {
            due,
            doubtful,
            not_entitled,
            alone,
            problem,
        } = postponement;
        self.status = Status::Waiting { due: *due };
        self.doubtful |= doubtful;
        self.not_entitled |= not_entitled;
        self.alone |= alone;
        self.problem = Some(problem.clone());
    }

    /// The quantity with its tags, to be owed elsewhere.
    pub(super) fn tally(&self) -> Tally {
        Tally::of_parts(self.request.quantity, &self.request.allocations)
    }
}

impl Status {
    /// Nothing more happens to it.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Settled { .. } | Self::RolledForward { .. } | Self::Rejected { .. } => true,
            Self::Waiting { .. } | Self::InFlight { .. } | Self::InDoubt { .. } => false,
        }
    }

    /// A word for people and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } | Self::InFlight { .. } => "sealed",
            Self::Settled { .. } => "settled",
            Self::RolledForward { .. } => "rolled_forward",
            Self::InDoubt { .. } => "in_doubt",
            Self::Rejected { .. } => "rejected",
        }
    }
}
