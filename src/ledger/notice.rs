//! What the log says of a fact.

use crate::meter::Fact;

/// Logs what a person should know.
pub(super) fn of(fact: &Fact) {
    match fact {
        Fact::Sealed {
            submission, spill, ..
        } => {
            let request = &submission.request;
            tracing::debug!(record = %request.bucket, dimension = %request.key.dimension, hour = %submission.hour,
                quantity = %request.quantity, "sealed");
            if submission.folded > 0 {
                tracing::warn!(record = %request.bucket, dimension = %request.key.dimension, tag_sets = submission.folded,
                    "a record takes 2500 allocations; the usage of further tag sets is counted without tags");
            }
            if let Some((into, _)) = spill {
                tracing::warn!(record = %request.bucket, dimension = %request.key.dimension, %into,
                    "more usage than one record holds; the rest waits for the next hour");
            }
        }
        Fact::Settled { bucket, aws_id, .. } => {
            tracing::debug!(record = %bucket, aws_record_id = aws_id.as_deref(), "settled");
        }
        Fact::Postponed {
            bucket,
            postponement,
        } => {
            let (due, doubtful, problem) = (
                postponement.due,
                postponement.doubtful,
                &postponement.problem,
            );
            tracing::warn!(record = %bucket, %due, doubtful, %problem, "not delivered yet");
        }
        Fact::RolledForward {
            bucket,
            into,
            problem,
            ..
        } => {
            tracing::warn!(record = %bucket, into = into.map(tracing::field::display), problem = problem.as_deref(),
                "not counted by AWS; rolled forward");
        }
        Fact::Parked {
            bucket, problem, ..
        } => {
            tracing::error!(record = %bucket, %problem,
                "AWS may have counted this record; decide it with `tollgate usage resolve`");
        }
        Fact::Rejected {
            bucket,
            code,
            problem,
            ..
        } => {
            tracing::error!(record = %bucket, %code, %problem, "rejected; this usage will not be billed");
        }
        Fact::IdentityChanged { identity, .. } => {
            tracing::info!(%identity, "the ledger is now this identity's");
        }
        Fact::Floored { hour } => {
            tracing::warn!(%hour, "records up to this hour may exist unseen; usage goes to the next");
        }
        Fact::Recombined { bucket, combine } => {
            tracing::warn!(record = %bucket, ?combine, "the dimension combines another way from now on");
        }
        Fact::CustomerSeen { number, customer } => {
            tracing::info!(customer = number.0, name = %customer, "a customer was named for the first time");
        }
        Fact::CustomerSubscription {
            number,
            unsubscribed_at: Some(_),
        } => {
            tracing::warn!(
                customer = number.0,
                "AWS says that the customer is not subscribed; its usage is not taken for an hour"
            );
        }
        Fact::CustomerSubscription {
            number,
            unsubscribed_at: None,
        } => {
            tracing::info!(customer = number.0, "the customer is subscribed again");
        }
        Fact::CustomerLinked { .. }
        | Fact::Reported { .. }
        | Fact::Opened { .. }
        | Fact::Held { .. }
        | Fact::Started { .. }
        | Fact::AttemptStarted { .. }
        | Fact::Hastened { .. } => {}
    }
}
