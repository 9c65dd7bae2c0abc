//! What the facts about sealed submissions change, up to the final answer.

use super::{Illegal, State};
use crate::meter::bucket::Sealed;
use crate::meter::submission::{Status, Submission};
use crate::usage::{BucketId, Moment, Period};

impl State {
    pub(super) fn start(&mut self, submission: &Submission, period: Period) -> Result<(), Illegal> {
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
            .compared_mut()
            .entry(submission.hour)
            .or_insert_with(|| (id, Sealed::default()));
        series.startup = Some(id);
        self.touched.series.insert(key.clone());
        self.touched.buckets.insert(id);
        self.unsettled.insert(id, submission.clone());
        Ok(())
    }

    pub(super) fn attempt(
        &mut self,
        id: BucketId,
        at: Moment,
        call: BucketId,
    ) -> Result<(), Illegal> {
        let submission = self.pending_mut(id, "an attempt")?;
        let waiting = matches!(submission.status, Status::Waiting { .. });
        if !waiting {
            return Err(self.illegal(id, "an attempt"));
        }
        submission.attempts = submission.attempts.saturating_add(1);
        submission.status = Status::InFlight { since: at, call };
        Ok(())
    }

    pub(super) fn park(&mut self, id: BucketId, at: Moment, problem: &str) -> Result<(), Illegal> {
        let submission = self.pending_mut(id, "parking")?;
        submission.status = Status::InDoubt { at };
        submission.problem = Some(problem.to_owned());
        Ok(())
    }

    pub(super) fn reject(
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

    pub(super) fn hasten(&mut self, at: Moment) {
        for (id, submission) in &mut self.unsettled {
            if let Status::Waiting { due } = &mut submission.status {
                *due = (*due).min(at);
                self.touched.buckets.insert(*id);
            }
        }
    }

    pub(super) fn settle(
        &mut self,
        id: BucketId,
        at: Moment,
        aws_id: Option<String>,
    ) -> Result<(), Illegal> {
        self.root.last_settled_at = self.root.last_settled_at.max(Some(at));
        self.finish(id, Status::Settled { at, aws_id }, "settling")
    }

    pub(super) fn roll_forward(
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

    pub(super) fn pending_mut(
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
}
