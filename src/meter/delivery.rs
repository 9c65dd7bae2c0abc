//! Delivery: attempts, what they came to, and the end of the window.

use std::collections::BTreeSet;

use super::batch::{self, Due};
use super::{Attempt, Call, Core, Decision, Fact, Gate, Postponement, Status, Submission};
use crate::usage::{BucketId, CustomerNumber, Moment};

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// AWS has the record, from this attempt or an identical one before.
    Recorded {
        /// AWS's record id.
        aws_id: String,
    },
    /// `DuplicateRequestException`, `DuplicateRecord`: the hour has a record of another quantity; this one was not counted.
    Duplicate,
    /// `TimestampOutOfBoundsException`.
    OutOfBounds,
    /// `CustomerNotEntitledException`, `CustomerNotSubscribedException`; for a customer's record `CustomerNotSubscribed`.
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
    /// A request of several records was refused for one of them: none was counted, and which one is to blame is unknown.
    RefusedTogether {
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
    /// AWS may have counted it: a time-out or a broken connection after the request was sent, any 5xx; a record that comes back
    /// unprocessed.
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
        self.answered_all(now, vec![(bucket, attempt, answer)])
    }

    /// The attempts of one call have come to something. What is to be repeated is due at one moment, to share a call again.
    pub fn answered_all(
        &mut self,
        now: Moment,
        answers: Vec<(BucketId, u32, Answer)>,
    ) -> Decision<()> {
        let draw = self.random.f64();
        for (bucket, attempt, answer) in answers {
            if let Some(submission) = self.state.unsettled.get(&bucket) {
                let current = matches!(submission.status, Status::InFlight { .. })
                    && submission.attempts == attempt;
                if current || matches!(answer, Answer::Recorded { .. }) {
                    let submission = submission.clone();
                    self.note_subscription(now, &submission, &answer);
                    self.take_answer(now, &submission, answer, draw);
                }
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

    /// AWS's answer to one of its records says whether a customer is subscribed.
    fn note_subscription(&mut self, now: Moment, submission: &Submission, answer: &Answer) {
        let Some(number) = submission.request.key.customer else {
            return;
        };
        let before = self
            .state
            .customers
            .get(number)
            .and_then(|row| row.unsubscribed_at);
        let unsubscribed_at = match (answer, before) {
            (Answer::NotEntitled { .. }, None) => Some(now),
            (Answer::NotEntitled { .. }, Some(at))
                if now.ms_since(at) >= self.rules.period.fraction_ms(CAP_DIVISOR) =>
            {
                Some(now)
            }
            (Answer::Recorded { .. }, Some(_)) => None,
            _ => return,
        };
        self.record(Fact::CustomerSubscription {
            number,
            unsubscribed_at,
        });
    }

    fn take_answer(&mut self, now: Moment, submission: &Submission, answer: Answer, draw: f64) {
        let bucket = submission.request.bucket;
        let doubtful = submission.doubtful;
        let attempts = submission.attempts;
        let postpone = |due: i64, doubtful: bool, problem: String| Postponement {
            due: now.plus_ms(due),
            doubtful,
            not_entitled: false,
            alone: false,
            problem,
        };
        match answer {
            Answer::Recorded { aws_id } => self.record(Fact::Settled {
                bucket,
                at: now,
                aws_id: Some(aws_id),
            }),
            // One page of AWS's says so of identical repeats too: then the record that is there may be one of our attempts.
            Answer::Duplicate if doubtful && submission.request.key.customer.is_some() => {
                let problem = "AWS has a record for this hour, of this quantity or another";
                self.park(now, bucket, problem.to_owned());
            }
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
            Answer::RefusedTogether { code, message } => {
                let problem = format!("{code}, for a record of the same request: {message}");
                let postponement = Postponement {
                    alone: true,
                    ..postpone(0, false, problem)
                };
                self.postpone(bucket, postponement);
            }
            Answer::NotEntitled { message } => {
                let code = not_entitled_code(submission.request.key.customer);
                let postponement = Postponement {
                    not_entitled: true,
                    ..postpone(
                        self.slow_backoff_ms(draw),
                        false,
                        format!("{code}: {message}"),
                    )
                };
                self.postpone(bucket, postponement);
            }
            Answer::Throttled => {
                let due = self.backoff_ms(attempts, THROTTLED_BASE_DIVISOR, draw);
                self.postpone(
                    bucket,
                    postpone(due, false, "ThrottlingException".to_owned()),
                );
            }
            Answer::NotSent { why } => {
                let due = self.backoff_ms(attempts, BASE_DIVISOR, draw);
                self.postpone(bucket, postpone(due, false, why));
            }
            Answer::Denied { code, message } => {
                let due = self.backoff_ms(attempts, BASE_DIVISOR, draw);
                self.postpone(bucket, postpone(due, false, format!("{code}: {message}")));
            }
            Answer::Doubtful { why } => {
                let due = self.backoff_ms(attempts, BASE_DIVISOR, draw);
                self.postpone(bucket, postpone(due, true, why));
            }
        }
    }

    /// Expires, gives up on and begins attempts.
    pub(super) fn deliver(&mut self, now: Moment) {
        self.give_up_unanswered(now);
        if self.gate == Gate::Denied {
            self.reject_everything(now);
        }
        let mut pods = Vec::new();
        let mut customers = Vec::new();
        let mut over = Vec::new();
        for (id, submission) in &self.state.unsettled {
            match submission.status {
                Status::Waiting { .. } if submission.deadline(self.rules.period) <= now => {
                    over.push(*id);
                }
                Status::Waiting { due: at } if at <= now && self.may_send(submission) => {
                    match self.customer_of(submission) {
                        None => pods.push((at, *id)),
                        Some(customer) => customers.push(Due::new(at, submission, customer)),
                    }
                }
                Status::Waiting { .. } | Status::InFlight { .. } | Status::InDoubt { .. } => {}
                Status::Settled { .. } | Status::RolledForward { .. } | Status::Rejected { .. } => {
                    unreachable!("final submissions are finished")
                }
            }
        }
        for id in over {
            self.expire(now, id);
        }
        let room = IN_FLIGHT_MAX.saturating_sub(self.calls_in_flight());
        if room == 0 {
            return;
        }
        pods.sort_unstable();
        let mut calls: Vec<_> = pods.into_iter().map(|(_, id)| vec![id]).collect();
        calls.truncate(room);
        calls.extend(batch::divide(customers, room - calls.len()));
        for call in calls {
            self.begin_call(now, &call);
        }
    }

    fn begin_call(&mut self, now: Moment, buckets: &[BucketId]) {
        let mut attempts = Vec::with_capacity(buckets.len());
        for bucket in buckets {
            self.record(Fact::AttemptStarted {
                bucket: *bucket,
                at: now,
                call: buckets[0],
            });
            let submission = &self.state.unsettled[bucket];
            attempts.push(Attempt {
                request: submission.request.clone(),
                number: submission.attempts,
                customer: self.customer_of(submission).cloned(),
            });
        }
        self.submit.push(Call { attempts });
    }

    fn customer_of(&self, submission: &Submission) -> Option<&crate::usage::Customer> {
        let number = submission.request.key.customer?;
        let row = self.state.customers.get(number);
        Some(row.expect("a customer with usage is known").customer())
    }

    fn calls_in_flight(&self) -> usize {
        let calls: BTreeSet<BucketId> = self
            .state
            .unsettled
            .values()
            .filter_map(|s| match s.status {
                Status::InFlight { call, .. } => Some(call),
                _ => None,
            })
            .collect();
        calls.len()
    }

    pub(super) fn next_delivery(&self) -> Option<Moment> {
        let room = self.calls_in_flight() < IN_FLIGHT_MAX;
        let wake = |submission: &Submission| match submission.status {
            Status::Waiting { due } if room && self.may_send(submission) => {
                Some(due.min(submission.deadline(self.rules.period)))
            }
            Status::Waiting { .. } => Some(submission.deadline(self.rules.period)),
            Status::InFlight { since, .. } => Some(since.plus_ms(ANSWER_WAIT_MAX_MS)),
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
        let key = submission.request.key.clone();
        let into = (!submission.request.quantity.is_zero()).then(|| self.heir(now, &key));
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
        let within = submission.request.key.window().in_words();
        let problem = format!("not delivered within {within}; at last: {last}");
        if submission.doubtful {
            self.park(now, bucket, problem);
        } else if submission.not_entitled {
            let code = not_entitled_code(submission.request.key.customer);
            self.record(Fact::Rejected {
                bucket,
                at: now,
                code: code.to_owned(),
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
            .filter(|s| matches!(s.status, Status::InFlight { since, .. } if now.ms_since(since) >= ANSWER_WAIT_MAX_MS))
            .cloned()
            .collect();
        let draw = self.random.f64();
        for submission in overdue {
            let answer = Answer::Doubtful {
                why: "the attempt was never answered".to_owned(),
            };
            self.take_answer(now, &submission, answer, draw);
        }
    }

    fn may_send(&self, submission: &Submission) -> bool {
        match self.gate {
            Gate::Open => true,
            Gate::Pending | Gate::Denied => submission.startup,
        }
    }

    pub(super) fn postpone(&mut self, bucket: BucketId, postponement: Postponement) {
        self.record(Fact::Postponed {
            bucket,
            postponement,
        });
    }

    /// Full jitter, `draw` being the part of it: anything up to the base doubled with each attempt, at most five minutes of an
    /// hour; two seconds while the process is about to end.
    fn backoff_ms(&self, attempts: u32, base_divisor: i64, draw: f64) -> i64 {
        let period = self.rules.period;
        let cap = if self.draining {
            DRAINING_CAP_DIVISOR
        } else {
            CAP_DIVISOR
        };
        let doublings = attempts.saturating_sub(1).min(DOUBLINGS_MAX);
        let limit = (period.fraction_ms(base_divisor) << doublings).min(period.fraction_ms(cap));
        share_of(limit, draw)
    }

    /// The buyer's subscription does not change within seconds.
    fn slow_backoff_ms(&self, draw: f64) -> i64 {
        let limit = self.rules.period.fraction_ms(CAP_DIVISOR);
        limit / 2 + share_of(limit - limit / 2, draw)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "limits are minutes of milliseconds"
)]
fn share_of(limit_ms: i64, draw: f64) -> i64 {
    ((limit_ms + 1) as f64 * draw) as i64
}

fn not_entitled_code(customer: Option<CustomerNumber>) -> &'static str {
    match customer {
        None => NOT_ENTITLED,
        Some(_) => NOT_SUBSCRIBED,
    }
}

/// AWS's code, also where the denial was `RegisterUsage`'s.
const NOT_ENTITLED: &str = "CustomerNotEntitledException";
/// The status of a customer's record.
const NOT_SUBSCRIBED: &str = "CustomerNotSubscribed";
/// Calls at once.
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
