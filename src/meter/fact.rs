//! What happened: the only way the state changes.

use serde::{Deserialize, Serialize};

use super::series::SeriesKey;
use super::submission::{Postponement, Submission};
use super::tally::Tally;
use super::{Amount, Combine};
use crate::usage::{BucketId, Customer, CustomerNumber, Hour, Identity, Moment};

/// One change of the state. A fact holds the outcome and not the rule that led to it, so that replaying a journal under a
/// later version of the rules changes nothing that was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// A report joined a bucket.
    Reported {
        /// The bucket.
        bucket: BucketId,
        /// The usage's own time.
        at: Moment,
        /// How much.
        amount: Amount,
        /// No later sample of this dimension is known: it becomes the level.
        newest: bool,
        /// The usage is of this hour, whose record is fixed already: the bucket owes what exceeds it.
        late: Option<Hour>,
    },
    /// A bucket was made.
    Opened {
        /// Its number, one more than the last one's.
        bucket: BucketId,
        /// Its series.
        key: SeriesKey,
        /// Its hour.
        hour: Hour,
        /// How reports combine in it.
        combine: Combine,
        /// By the clock.
        at: Moment,
        /// The usage's own time.
        first_at: Moment,
    },
    /// The level of an earlier hour holds in this bucket's.
    Held {
        /// The bucket.
        bucket: BucketId,
    },
    /// The dimension now combines another way; what the bucket has so far stays owed.
    Recombined {
        /// The bucket.
        bucket: BucketId,
        /// The new way.
        combine: Combine,
    },
    /// A bucket's record is fixed.
    Sealed {
        /// The record.
        submission: Box<Submission>,
        /// Its hour can get no other record. False where the hour was an earlier identity's, and the quantity moves on.
        takes_hour: bool,
        /// What it could not hold, and the bucket that owes it now.
        spill: Option<(BucketId, Tally)>,
    },
    /// A record that has no bucket: the start-up record.
    Started {
        /// The record.
        submission: Box<Submission>,
    },
    /// A request is about to leave.
    AttemptStarted {
        /// Whose.
        bucket: BucketId,
        /// When.
        at: Moment,
        /// The first record of the call: records of customers share one.
        call: BucketId,
    },
    /// An attempt did not settle it.
    Postponed {
        /// Whose.
        bucket: BucketId,
        /// What is known of it now.
        postponement: Postponement,
    },
    /// The process is about to end: everything that waits is due.
    Hastened {
        /// Since when.
        at: Moment,
    },
    /// AWS has it.
    Settled {
        /// Which.
        bucket: BucketId,
        /// Since when that is known.
        at: Moment,
        /// AWS's record id.
        aws_id: Option<String>,
    },
    /// AWS has it not, and its hour can't be had any more: its quantity is owed by another bucket.
    RolledForward {
        /// Which.
        bucket: BucketId,
        /// When.
        at: Moment,
        /// The other bucket; none where the quantity is 0.
        into: Option<BucketId>,
        /// Why.
        problem: Option<String>,
    },
    /// AWS may have it, and can't be asked again.
    Parked {
        /// Which.
        bucket: BucketId,
        /// When.
        at: Moment,
        /// Why.
        problem: String,
    },
    /// It will never be billed.
    Rejected {
        /// Which.
        bucket: BucketId,
        /// When.
        at: Moment,
        /// AWS's error code.
        code: String,
        /// Why.
        problem: String,
    },
    /// The ledger is opened by a task or pod that it does not know, or not as the last one.
    IdentityChanged {
        /// The new one.
        identity: Identity,
        /// When.
        at: Moment,
    },
    /// Hours up to this one may have records that this ledger does not know of.
    Floored {
        /// The hour.
        hour: Hour,
    },
    /// A customer was named for the first time.
    CustomerSeen {
        /// Its number, one more than the last one's.
        number: CustomerNumber,
        /// Who.
        customer: Customer,
    },
    /// The account behind a `CustomerIdentifier` has become known.
    CustomerLinked {
        /// The customer with the identifier.
        number: CustomerNumber,
        /// The account.
        account: Box<str>,
    },
    /// AWS says that the customer is not subscribed; or, without a time, has taken a record since, or resolved it anew.
    CustomerSubscription {
        /// Who.
        number: CustomerNumber,
        /// When AWS said so.
        unsubscribed_at: Option<Moment>,
    },
}
