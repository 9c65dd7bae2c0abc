//! The entitlement gate: from the first question to AWS to a main container that may start.
//!
//! [`Gate`] is the state machine: pure, told the time, asked what to do next. [`registrar`] is its shell: it makes the calls,
//! verifies the answers, keeps the grant and publishes the status. What the rest reads is the status alone.

pub mod advice;
pub mod grant;
pub mod keys;
pub mod nonce;
pub mod platform;
pub mod proof;
pub mod register;
pub mod registrar;
pub mod signature;
pub mod status;

use std::time::Duration;

use crate::backoff::{Backoff, jittered};
use crate::config::{OnDenied, OnUnavailable};
use crate::exit::Exit;
use status::StateName;

/// The registration state machine. Times are uptimes: durations since the process started.
///
/// ```text
///            ┌──── retry, backoff ────┐
///            ▼                        │
///         Pending ────────────────────┘
///            │ ├── granted ────────────────────────────► Entitled
///            │ ├── refused, or a proof that is bad ────► Denied ── hold: asked again ──► Entitled
///            │ └── deadline ──┬────────────────────────► Unavailable ──► exit 75
///            │                └── grace:DURATION ──► Grace ── granted ──► Entitled
///            │                                         ├── refused ────► Denied
///            │                                         └── it is over ─► Unavailable
///            └── (Denied with exit ──► exit 77)
/// ```
#[derive(Debug)]
pub struct Gate {
    policy: Policy,
    random: fastrand::Rng,
    state: State,
}

/// How the gate deals with failures and refusals.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Transient failures are retried up to this uptime.
    pub deadline: Duration,
    /// Pauses between retries.
    pub backoff: Backoff,
    /// What a refusal leads to.
    pub on_denied: OnDenied,
    /// What the deadline leads to.
    pub on_unavailable: OnUnavailable,
    /// The pause before a held refusal is questioned again.
    pub hold: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pending(Retrying),
    Entitled,
    Grace { until: Duration, retrying: Retrying },
    Denied { ask_at: Option<Duration> },
    Unavailable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Retrying {
    failures: u32,
    ask_at: Duration,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// AWS said yes, and the proof was verified and kept.
    Granted,
    /// AWS said no, or its proof does not verify.
    Refused,
    /// No answer that decides anything.
    Undecided,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask AWS now, and give up at this uptime.
    Ask {
        /// The uptime at which the state changes without an answer; `None` if it does not.
        give_up_at: Option<Duration>,
    },
    /// Come back at this uptime.
    WaitUntil(Duration),
    /// Nothing more will happen.
    Rest,
    /// End the process.
    End(Exit),
}

impl Gate {
    /// A gate that asks at once.
    pub fn new(policy: Policy, random: fastrand::Rng) -> Self {
        let retrying = Retrying {
            failures: 0,
            ask_at: Duration::ZERO,
        };
        Self {
            policy,
            random,
            state: State::Pending(retrying),
        }
    }

    /// A gate that a kept grant, or the lack of any check, opens without a question.
    pub fn open(policy: Policy, random: fastrand::Rng) -> Self {
        Self {
            policy,
            random,
            state: State::Entitled,
        }
    }

    /// The state's name.
    pub fn state(&self) -> StateName {
        match self.state {
            State::Pending(_) => StateName::Pending,
            State::Entitled => StateName::Entitled,
            State::Grace { .. } => StateName::Grace,
            State::Denied { .. } => StateName::Denied,
            State::Unavailable => StateName::Unavailable,
        }
    }

    /// Lets time pass and says what to do next.
    pub fn next(&mut self, uptime: Duration) -> Step {
        self.pass_deadlines(uptime);
        match self.state {
            State::Pending(retrying) => {
                ask_or_wait(retrying.ask_at, uptime, Some(self.policy.deadline))
            }
            State::Grace { until, retrying } => ask_or_wait(retrying.ask_at, uptime, Some(until)),
            State::Denied { ask_at: Some(at) } => ask_or_wait(at, uptime, None),
            State::Denied { ask_at: None } => Step::End(Exit::Denied),
            State::Unavailable => Step::End(Exit::Unavailable),
            State::Entitled => Step::Rest,
        }
    }

    /// Takes in what an attempt came to.
    pub fn answer(&mut self, uptime: Duration, verdict: Verdict) {
        self.state = match (verdict, self.state) {
            (_, State::Entitled | State::Unavailable | State::Denied { ask_at: None }) => {
                unreachable!("nothing is asked in a final state")
            }
            (Verdict::Granted, _) => State::Entitled,
            (Verdict::Refused, _) | (Verdict::Undecided, State::Denied { .. }) => {
                self.denied(uptime)
            }
            (Verdict::Undecided, State::Pending(retrying)) => {
                State::Pending(self.later(uptime, retrying))
            }
            (Verdict::Undecided, State::Grace { until, retrying }) => State::Grace {
                until,
                retrying: self.later(uptime, retrying),
            },
        };
        self.pass_deadlines(uptime);
    }

    /// Asks at once where an answer is still wanted: the keys have changed.
    pub fn ask_now(&mut self, uptime: Duration) {
        match &mut self.state {
            State::Pending(retrying) | State::Grace { retrying, .. } => retrying.ask_at = uptime,
            State::Denied { ask_at: Some(at) } => *at = uptime,
            State::Denied { ask_at: None } | State::Entitled | State::Unavailable => {}
        }
    }

    fn pass_deadlines(&mut self, uptime: Duration) {
        if let State::Pending(retrying) = self.state
            && uptime >= self.policy.deadline
        {
            self.state = match self.policy.on_unavailable {
                OnUnavailable::Exit => State::Unavailable,
                OnUnavailable::Grace(length) => State::Grace {
                    until: self.policy.deadline.saturating_add(length),
                    retrying,
                },
            };
        }
        if let State::Grace { until, .. } = self.state
            && uptime >= until
        {
            self.state = State::Unavailable;
        }
    }

    fn denied(&mut self, uptime: Duration) -> State {
        State::Denied {
            ask_at: match self.policy.on_denied {
                OnDenied::Exit => None,
                OnDenied::Hold => Some(uptime + jittered(self.policy.hold, &mut self.random)),
            },
        }
    }

    fn later(&mut self, uptime: Duration, retrying: Retrying) -> Retrying {
        let failures = retrying.failures.saturating_add(1);
        let pause = self.policy.backoff.pause(failures, &mut self.random);
        Retrying {
            failures,
            ask_at: uptime + pause,
        }
    }
}

fn ask_or_wait(ask_at: Duration, uptime: Duration, state_ends_at: Option<Duration>) -> Step {
    if uptime >= ask_at {
        return Step::Ask {
            give_up_at: state_ends_at,
        };
    }
    Step::WaitUntil(state_ends_at.map_or(ask_at, |end| end.min(ask_at)))
}
