//! Delivery: attempts, what they came to, and the end of the window.

use super::{Core, Decision, Fact, Gate, Status, Submission};
use crate::usage::{BucketId, Moment};

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// AWS has the record, from this attempt or an identical one before.
    Recorded {
        /// AWS's record id.
        aws_id: String,
    },
    /// `DuplicateRequestException`: the hour has a record of another quantity; this one was not counted.
    Duplicate,
    /// `TimestampOutOfBoundsException`.
    OutOfBounds,
    /// `CustomerNotEntitledException`, `CustomerNotSubscribedException`.
    NotEntitled {
        /// AWS's message.
        message: String,
    },
    /// The payload will never be taken: invalid dimension, tags, allocations, product code, token conflict.
    Refused {
        /// AWS's error code.
        code: String,
        /// AWS's message.
        message: String,
    },
    /// `ThrottlingException`.
    Throttled,
    /// The connection was never made.
    NotSent {
        /// Why.
        why: String,
    },
    /// A modelled 4xx that lies in credentials or set-up: certainly not counted, may pass.
    Denied {
        /// AWS's error code.
        code: String,
        /// AWS's message.
        message: String,
    },
    /// AWS may have counted it: a time-out or a broken connection after the request was sent, any 5xx.
    Doubtful {
        /// Why.
        why: String,
    },
}

/// What a person has found out about a submission in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// AWS has it.
    Delivered,
    /// AWS has it not: it is owed by the open hour.
    NotDelivered,
}

/// A submission that can't be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No such record.
    #[error("there is no record {0}; `tollgate usage` lists them")]
    Unknown(BucketId),
    /// Nothing to decide.
    #[error("record {bucket} is {status}, and only a record in doubt can be resolved")]
    NotInDoubt {
        /// Which.
        bucket: BucketId,
        /// How far it is.
        status: &'static str,
    },
}

impl Core {
    /// An attempt has come to something. An answer to an attempt given up before counts only where it says more than was
    /// known: that AWS has the record.
    pub fn answered(
        &mut self,
        now: Moment,
        bucket: BucketId,
        attempt: u32,
        answer: Answer,
    ) -> Decision<()> {
        if let Some(submission) = self.state.unsettled.get(&bucket) {
            let current = matches!(submission.status, Status::InFlight { .. })
                && submission.attempts == attempt;
            if current || matches!(answer, Answer::Recorded { .. }) {
                let submission = submission.clone();
                self.take_answer(now, &submission, answer);
            }
        }
        self.step(now);
        self.decided(())
    }

    /// A person decides a submission in doubt.
    pub fn resolve(
        &mut self,
        now: Moment,
        bucket: BucketId,
        resolution: Resolution,
    ) -> Result<Decision<()>, ResolveError> {
        let submission = self
            .state
            .unsettled
            .get(&bucket)
            .or_else(|| self.state.finished.get(&bucket));
        let status = match (submission, self.state.open.contains_key(&bucket)) {
            (Some(submission), _) => &submission.status,
            (None, true) => {
                return Err(ResolveError::NotInDoubt {
                    bucket,
                    status: "open",
                });
            }
            (None, false) => return Err(ResolveError::Unknown(bucket)),
        };
        if !matches!(status, Status::InDoubt { .. }) {
            return Err(ResolveError::NotInDoubt {
                bucket,
                status: status.name(),
            });
        }
        match resolution {
            Resolution::Delivered => self.record(Fact::Settled {
                bucket,
                at: now,
                aws_id: None,
            }),
            Resolution::NotDelivered => self.roll_forward(now, bucket, None),
        }
        Ok(self.decided(()))
    }

    fn take_answer(&mut self, now: Moment, submission: &Submission, answer: Answer) {
        let bucket = submission.request.bucket;
        let doubtful = submission.doubtful;
        match answer {
            Answer::Recorded { aws_id } => self.record(Fact::Settled {
                bucket,
                at: now,
                aws_id: Some(aws_id),
            }),
            // AWS answers an identical repeat with success. So the record that is there is none of our attempts.
            Answer::Duplicate => {
                self.roll_forward(
                    now,
                    bucket,
                    Some("AWS has another quantity for this hour".to_owned()),
                );
            }
            Answer::OutOfBounds if doubtful => {
                self.park(now, bucket, "AWS takes this hour no more".to_owned());
            }
            Answer::OutOfBounds => {
                self.roll_forward(now, bucket, Some("AWS takes this hour no more".to_owned()));
            }
            // Validated before it is looked up: the refusal says nothing of an earlier attempt.
            Answer::Refused { code, message } if doubtful => {
                self.park(now, bucket, format!("{code}: {message}"));
            }
            Answer::Refused { code, message } => {
                self.record(Fact::Rejected {
                    bucket,
                    at: now,
                    code,
                    problem: message,
                });
            }
            Answer::NotEntitled { message } => {
                let due = now.plus_ms(self.slow_backoff_ms());
                let problem = format!("{NOT_ENTITLED}: {message}");
                self.postpone(bucket, due, false, true, problem);
            }
            Answer::Throttled => {
                let due = now.plus_ms(self.backoff_ms(submission.attempts, THROTTLED_BASE_DIVISOR));
                self.postpone(bucket, due, false, false, "ThrottlingException".to_owned());
            }
            Answer::NotSent { why } => self.retry(now, submission, false, why),
            Answer::Denied { code, message } => {
                self.retry(now, submission, false, format!("{code}: {message}"));
            }
            Answer::Doubtful { why } => self.retry(now, submission, true, why),
        }
    }

    /// Expires, gives up on and begins attempts.
    pub(super) fn deliver(&mut self, now: Moment) {
        self.give_up_unanswered(now);
        if self.gate == Gate::Denied {
            self.reject_everything(now);
        }
        let mut in_flight = 0;
        let mut due = Vec::new();
        let mut over = Vec::new();
        for (id, submission) in &self.state.unsettled {
            match submission.status {
                Status::InFlight { .. } => in_flight += 1,
                Status::Waiting { .. } if submission.deadline(self.rules.period) <= now => {
                    over.push(*id);
                }
                Status::Waiting { due: at } if at <= now && self.may_send(submission) => {
                    due.push((at, *id));
                }
                Status::Waiting { .. } | Status::InDoubt { .. } => {}
                Status::Settled { .. } | Status::RolledForward { .. } | Status::Rejected { .. } => {
                    unreachable!("final submissions are finished")
                }
            }
        }
        for id in over {
            self.expire(now, id);
        }
        due.sort_unstable();
        for (_, bucket) in due
            .into_iter()
            .take(IN_FLIGHT_MAX.saturating_sub(in_flight))
        {
            self.record(Fact::AttemptStarted { bucket, at: now });
            let submission = &self.state.unsettled[&bucket];
            self.submit
                .push((submission.request.clone(), submission.attempts));
        }
    }

    pub(super) fn next_delivery(&self) -> Option<Moment> {
        let in_flight = self
            .state
            .unsettled
            .values()
            .filter(|s| matches!(s.status, Status::InFlight { .. }))
            .count();
        let wake = |submission: &Submission| match submission.status {
            Status::Waiting { due } if in_flight < IN_FLIGHT_MAX && self.may_send(submission) => {
                Some(due.min(submission.deadline(self.rules.period)))
            }
            Status::Waiting { .. } => Some(submission.deadline(self.rules.period)),
            Status::InFlight { since } => Some(since.plus_ms(ANSWER_WAIT_MAX_MS)),
            Status::InDoubt { .. }
            | Status::Settled { .. }
            | Status::RolledForward { .. }
            | Status::Rejected { .. } => None,
        };
        self.state.unsettled.values().filter_map(wake).min()
    }

    /// Moves a submission's quantity to the bucket that owes it from now on.
    pub(super) fn roll_forward(&mut self, now: Moment, bucket: BucketId, problem: Option<String>) {
        let submission = &self.state.unsettled[&bucket];
        let dimension = submission.request.dimension.clone();
        let into = (!submission.request.quantity.is_zero()).then(|| self.heir(now, &dimension));
        self.record(Fact::RolledForward {
            bucket,
            at: now,
            into,
            problem,
        });
    }

    pub(super) fn park(&mut self, now: Moment, bucket: BucketId, problem: String) {
        self.record(Fact::Parked {
            bucket,
            at: now,
            problem,
        });
    }

    /// A denial: what was never counted is rejected and what may have been is parked. The start-up record goes on asking.
    pub(super) fn reject_everything(&mut self, now: Moment) {
        while !self.state.open.is_empty() {
            for id in self.buckets_where(|_, _| true) {
                self.seal(now, id, true);
            }
        }
        let refused: Vec<_> = self
            .state
            .unsettled
            .iter()
            .filter(|(_, s)| matches!(s.status, Status::Waiting { .. }) && !s.startup)
            .map(|(id, s)| (*id, s.doubtful))
            .collect();
        for (bucket, doubtful) in refused {
            let problem = "the buyer is not entitled to the product".to_owned();
            if doubtful {
                self.park(now, bucket, problem);
            } else {
                self.record(Fact::Rejected {
                    bucket,
                    at: now,
                    code: NOT_ENTITLED.to_owned(),
                    problem,
                });
            }
        }
    }

    /// The window is over, and nothing has settled it.
    fn expire(&mut self, now: Moment, bucket: BucketId) {
        let submission = &self.state.unsettled[&bucket];
        let last = submission
            .problem
            .clone()
            .unwrap_or_else(|| "it was never sent".to_owned());
        let problem = format!("not delivered within six hours; at last: {last}");
        if submission.doubtful {
            self.park(now, bucket, problem);
        } else if submission.not_entitled {
            self.record(Fact::Rejected {
                bucket,
                at: now,
                code: NOT_ENTITLED.to_owned(),
                problem,
            });
        } else {
            self.roll_forward(now, bucket, Some(problem));
        }
    }

    /// A sender that never answers is treated as one that lost the answer.
    fn give_up_unanswered(&mut self, now: Moment) {
        let overdue: Vec<_> = self
            .state
            .unsettled
            .values()
            .filter(|s| matches!(s.status, Status::InFlight { since } if now.ms_since(since) >= ANSWER_WAIT_MAX_MS))
            .cloned()
            .collect();
        for submission in overdue {
            self.retry(
                now,
                &submission,
                true,
                "the attempt was never answered".to_owned(),
            );
        }
    }

    fn may_send(&self, submission: &Submission) -> bool {
        match self.gate {
            Gate::Open => true,
            Gate::Pending | Gate::Denied => submission.startup,
        }
    }

    fn retry(&mut self, now: Moment, submission: &Submission, doubtful: bool, problem: String) {
        let due = now.plus_ms(self.backoff_ms(submission.attempts, BASE_DIVISOR));
        self.postpone(submission.request.bucket, due, doubtful, false, problem);
    }

    pub(super) fn postpone(
        &mut self,
        bucket: BucketId,
        due: Moment,
        doubtful: bool,
        not_entitled: bool,
        problem: String,
    ) {
        self.record(Fact::Postponed {
            bucket,
            due,
            doubtful,
            not_entitled,
            problem,
        });
    }

    /// Full jitter: anything up to the base doubled with each attempt, at most five minutes of an hour; two seconds while
    /// the process is about to end.
    fn backoff_ms(&mut self, attempts: u32, base_divisor: i64) -> i64 {
        let period = self.rules.period;
        let cap = if self.draining {
            DRAINING_CAP_DIVISOR
        } else {
            CAP_DIVISOR
        };
        let doublings = attempts.saturating_sub(1).min(DOUBLINGS_MAX);
        let limit = (period.fraction_ms(base_divisor) << doublings).min(period.fraction_ms(cap));
        self.random.i64(0..=limit)
    }

    /// The buyer's subscription does not change within seconds.
    fn slow_backoff_ms(&mut self) -> i64 {
        let limit = self.rules.period.fraction_ms(CAP_DIVISOR);
        self.random.i64(limit / 2..=limit)
    }
}

/// AWS's code, also where the denial was `RegisterUsage`'s.
const NOT_ENTITLED: &str = "CustomerNotEntitledException";
/// Attempts at once.
pub(super) const IN_FLIGHT_MAX: usize = 8;
/// Longer than any attempt's own time-outs.
const ANSWER_WAIT_MAX_MS: i64 = 120_000;
/// One second of an hour.
const BASE_DIVISOR: i64 = 3600;
/// Five seconds of an hour.
const THROTTLED_BASE_DIVISOR: i64 = 720;
/// Five minutes of an hour.
const CAP_DIVISOR: i64 = 12;
/// Two seconds of an hour.
const DRAINING_CAP_DIVISOR: i64 = 1800;
const DOUBLINGS_MAX: u32 = 20;
