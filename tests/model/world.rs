//! The core, its journal, AWS and the reference, moved by operations.

use std::collections::{BTreeMap, BTreeSet};

use proptest::sample::Index;
use tollgate::meter::{
    Amount, Answer, Attempt, Combine, Core, Decision, Fact, Gate, Report, Request, Resolution,
    Rules, State, Status, Submission,
};
use tollgate::usage::{
    Allocations, BucketId, Dimension, Identity, Moment, Period, Quantity, UsageKey,
};

use crate::aws::Aws;
use crate::reference::{DIMENSIONS, DISTINCT, LAST, Reference, SUM};

/// One step of a case.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Report {
        dimension: usize,
        amount: u64,
        minutes_back: Option<i64>,
    },
    /// More than half of what a record holds, so that a few do not fit into one.
    HugeReport,
    Tick {
        minutes: i64,
    },
    /// AWS answers one of the attempts under way.
    Recorded {
        which: Index,
    },
    /// The answer of one is lost, after AWS has counted it or before.
    ReplyLost {
        which: Index,
        counted: bool,
    },
    /// One is refused without being counted.
    ReplyError {
        which: Index,
        error: u8,
    },
    /// The process dies; each bit says whether AWS gets an attempt that was under way.
    Restart {
        counted: u64,
    },
    /// The process is told to end, and goes on for a while.
    Signal,
    DrainAndRestart {
        counted: u64,
    },
    Identity {
        identity: u8,
        counted: u64,
    },
    /// The local clock is so many hours off from now on.
    ClockJump {
        hours: i64,
    },
    Resolve {
        which: Index,
    },
    Gate {
        open: bool,
    },
    Startup {
        dimension: usize,
    },
    /// Something else has sent a record for an hour.
    TakenAtAws {
        dimension: usize,
        hours: i64,
    },
}

pub(crate) struct World {
    core: Core,
    seed: u64,
    /// Serialized, as the ledger would keep them.
    journal: Vec<Vec<u8>>,
    in_flight: Vec<(Request, u32)>,
    requests: BTreeMap<BucketId, Request>,
    aws: Aws,
    reference: Reference,
    true_time: Moment,
    skew_ms: i64,
    identity: Identity,
    draining: bool,
}

const HOUR_MS: i64 = 3_600_000;
const START: Moment = Moment::from_millis(497_222 * HOUR_MS + 600_000);

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            core: Core::new(
                rules(seed),
                State::default(),
                fastrand::Rng::with_seed(seed),
            ),
            seed,
            journal: Vec::new(),
            in_flight: Vec::new(),
            requests: BTreeMap::new(),
            aws: Aws::default(),
            reference: Reference::default(),
            true_time: START,
            skew_ms: 0,
            identity: identity(0),
            draining: false,
        };
        world.start();
        world
    }

    pub(crate) fn run(&mut self, op: &Op) {
        match op {
            Op::Report {
                dimension,
                amount,
                minutes_back,
            } => self.report(*dimension, *amount, *minutes_back),
            Op::HugeReport => self.report(SUM, Quantity::MAX.millionths() / 3 * 2, None),
            Op::Tick { minutes } => {
                self.true_time = self.true_time.plus_ms(minutes * 60_000);
                self.decide(Core::tick);
                self.hour_seen();
            }
            Op::Recorded { which } => self.reply(*which, |aws, now, identity, request| {
                aws.receive(now, identity, request)
            }),
            Op::ReplyLost { which, counted } => {
                self.reply(*which, |aws, now, identity, request| {
                    if *counted {
                        let _ = aws.receive(now, identity, request);
                    }
                    Answer::Doubtful {
                        why: "lost".to_owned(),
                    }
                })
            }
            Op::ReplyError { which, error } => self.reply(*which, |_, _, _, _| refusal(*error)),
            Op::Restart { counted } => self.restart(*counted),
            Op::Signal => self.signal(),
            Op::DrainAndRestart { counted } => {
                self.signal();
                self.restart(*counted);
            }
            Op::Identity {
                identity: to,
                counted,
            } => {
                self.identity = identity(*to);
                self.restart(*counted);
            }
            Op::ClockJump { hours } => self.skew_ms = hours * HOUR_MS,
            Op::Resolve { which } => self.resolve(*which),
            Op::Gate { open: true } => {
                self.decide(Core::open_gate);
                self.hour_seen();
            }
            Op::Gate { open: false } => self.decide(Core::deny_gate),
            Op::Startup { dimension } => self.startup(*dimension),
            Op::TakenAtAws { dimension, hours } => {
                let hour = Period::HOUR.hour_of(self.true_time.plus_ms(-hours * HOUR_MS));
                self.aws
                    .bill
                    .take_hour(self.identity.clone(), name(*dimension), hour);
            }
        }
    }

    pub(crate) fn check(&self) {
        let state = self.core.state();
        for (index, _) in DIMENSIONS.iter().enumerate() {
            let dimension = name(index);
            let open: u128 = state
                .open()
                .values()
                .filter(|bucket| *bucket.dimension() == dimension)
                .map(|bucket| bucket.total())
                .sum();
            let kept: u128 = self
                .submissions()
                .filter(|s| {
                    s.request.key.dimension == dimension
                        && !matches!(s.status, Status::RolledForward { .. })
                })
                .map(|s| u128::from(s.request.quantity.millionths()))
                .sum();
            assert_eq!(
                open + kept,
                self.reference.expected(index),
                "{dimension}: places on the left, reports on the right"
            );
        }
        for ((_, dimension, hour), record) in &self.aws.bill.records {
            let Some(bucket) = record.bucket else {
                continue;
            };
            let submission = self
                .submissions()
                .find(|s| s.request.bucket == bucket)
                .expect("AWS has only what was sealed");
            let fine = match &submission.status {
                Status::Settled { .. } | Status::InFlight { .. } | Status::InDoubt { .. } => true,
                Status::Waiting { .. } => submission.doubtful,
                Status::RolledForward { .. } | Status::Rejected { .. } => false,
            };
            assert!(
                fine,
                "AWS bills {dimension} for {hour}, and the core has it as {submission:?}"
            );
        }
        for submission in self.submissions() {
            if let Status::Settled {
                aws_id: Some(id), ..
            } = &submission.status
            {
                let billed = self
                    .aws
                    .bill
                    .records
                    .values()
                    .find(|record| record.id == *id)
                    .expect("settled means billed");
                assert_eq!(billed.quantity, submission.request.quantity);
            }
        }
    }

    /// Faults stop, time passes, and someone who knows the truth decides what is in doubt.
    pub(crate) fn settle(&mut self) {
        self.skew_ms = 0;
        self.restart(0);
        for _ in 0..60 {
            self.run(&Op::Tick { minutes: 13 });
            while !self.in_flight.is_empty() {
                self.run(&Op::Recorded { which: index(0) });
            }
            while self.doubtful().next().is_some() {
                self.run(&Op::Resolve { which: index(0) });
            }
            self.check();
        }
        let state = self.core.state();
        for (index, _) in DIMENSIONS.iter().enumerate() {
            let dimension = name(index);
            let pending: u128 = state
                .open()
                .values()
                .filter(|bucket| *bucket.dimension() == dimension)
                .map(|bucket| bucket.total())
                .chain(self.waiting(&dimension))
                .sum();
            let rejected: u128 = self
                .submissions()
                .filter(|s| {
                    s.request.key.dimension == dimension
                        && matches!(s.status, Status::Rejected { .. })
                })
                .map(|s| u128::from(s.request.quantity.millionths()))
                .sum();
            let accounted = self.aws.bill.billed(&dimension, |_| true) + pending + rejected;
            assert_eq!(
                accounted,
                self.reference.expected(index),
                "{dimension}: the bill on the left, reports on the right"
            );
        }
    }

    fn now(&self) -> Moment {
        self.true_time.plus_ms(self.skew_ms)
    }

    fn decide<T>(&mut self, decide: impl FnOnce(&mut Core, Moment) -> Decision<T>) -> T {
        let now = self.now();
        let decision = decide(&mut self.core, now);
        self.take(decision)
    }

    fn take<T>(&mut self, decision: Decision<T>) -> T {
        for fact in &decision.facts {
            match fact {
                Fact::Sealed {
                    submission,
                    takes_hour: true,
                    ..
                }
                | Fact::Started { submission } => {
                    let dimension = &submission.request.key.dimension;
                    let index = DIMENSIONS
                        .iter()
                        .position(|name| *name == dimension.as_str())
                        .unwrap();
                    self.reference
                        .sealed(index, submission.hour, submission.request.bucket);
                }
                _ => {}
            }
        }
        self.journal
            .push(postcard::to_stdvec(&decision.facts).unwrap());
        let attempts = decision.submit.into_iter().flat_map(|call| call.attempts);
        for Attempt {
            request, number, ..
        } in attempts
        {
            let first = self
                .requests
                .entry(request.bucket)
                .or_insert_with(|| request.clone());
            assert_eq!(*first, request, "a submission's request never changes");
            self.in_flight.push((request, number));
        }
        decision.reply
    }

    fn start(&mut self) {
        let identity = self.identity.clone();
        if self.core.state().identity() != Some(&identity) {
            let open = self.core.state().open().values();
            let open: BTreeSet<_> = open
                .map(|b| {
                    (
                        DIMENSIONS
                            .iter()
                            .position(|n| *n == b.dimension().as_str())
                            .unwrap(),
                        b.hour(),
                    )
                })
                .collect();
            self.reference
                .identity_changed(&identity, self.now(), &open);
        }
        self.decide(|core, now| core.open(now, &identity));
        self.decide(Core::open_gate);
        self.hour_seen();
    }

    fn signal(&mut self) {
        self.draining = true;
        self.decide(Core::drain);
    }

    fn restart(&mut self, counted: u64) {
        let identity = self.core.state().identity().cloned().unwrap();
        for (bit, (request, _)) in std::mem::take(&mut self.in_flight).into_iter().enumerate() {
            if counted >> (bit % 64) & 1 == 1 {
                let _ = self.aws.receive(self.true_time, &identity, &request);
            }
        }
        let mut state = State::default();
        for frame in &self.journal {
            for fact in postcard::from_bytes::<Vec<Fact>>(frame).unwrap() {
                state.apply(&fact, Period::HOUR).unwrap();
            }
        }
        assert_eq!(state, *self.core.state(), "replay gives the same state");
        self.seed = self.seed.wrapping_add(1);
        self.core = Core::new(rules(self.seed), state, fastrand::Rng::with_seed(self.seed));
        self.draining = false;
        self.start();
    }

    fn report(&mut self, dimension: usize, amount: u64, minutes_back: Option<i64>) {
        let now = self.now();
        // Which of two levels is the later one is the examples' subject.
        let minutes_back = minutes_back.filter(|_| dimension != LAST);
        let (amount, value) = if dimension == DISTINCT {
            let key = amount % 20;
            (Amount::Key(UsageKey::new(&key.to_string()).unwrap()), key)
        } else {
            let quantity = Quantity::from_millionths(amount).unwrap();
            (
                Amount::Quantity {
                    quantity,
                    allocations: Allocations::NONE,
                },
                amount,
            )
        };
        let at = minutes_back.map(|minutes| now.plus_ms(-minutes * 60_000));
        let report = Report {
            customer: None,
            dimension: name(dimension),
            amount,
            at,
        };
        match self.core.report(now, &report) {
            Ok(decision) => {
                let bucket = decision.reply;
                self.reference
                    .report(dimension, at.unwrap_or(now), now, value, bucket);
                self.take(decision);
            }
            Err(refusal) => assert_eq!(self.core.gate(), Gate::Denied, "{refusal}"),
        }
    }

    fn reply(
        &mut self,
        which: Index,
        answer: impl FnOnce(&mut Aws, Moment, &Identity, &Request) -> Answer,
    ) {
        if self.in_flight.is_empty() {
            return;
        }
        let (request, attempt) = self.in_flight.remove(which.index(self.in_flight.len()));
        let identity = self.core.state().identity().cloned().unwrap();
        let answer = answer(&mut self.aws, self.true_time, &identity, &request);
        self.decide(|core, now| core.answered(now, request.bucket, attempt, answer));
        self.hour_seen();
    }

    fn resolve(&mut self, which: Index) {
        let doubtful: Vec<_> = self.doubtful().map(|s| s.request.bucket).collect();
        if doubtful.is_empty() {
            return;
        }
        let bucket = doubtful[which.index(doubtful.len())];
        // Nobody decides while a request may still arrive.
        self.in_flight
            .retain(|(request, _)| request.bucket != bucket);
        let delivered = self
            .aws
            .bill
            .records
            .values()
            .any(|record| record.bucket == Some(bucket));
        let resolution = if delivered {
            Resolution::Delivered
        } else {
            Resolution::NotDelivered
        };
        let now = self.now();
        let decision = self.core.resolve(now, bucket, resolution).unwrap();
        self.take(decision);
    }

    fn startup(&mut self, dimension: usize) {
        if self.core.gate() == Gate::Open {
            self.hour_seen();
            self.decide(|core, now| core.startup(now, &name(dimension)));
            self.hour_seen();
        }
    }

    fn hour_seen(&mut self) {
        if !self.draining && self.core.gate() != Gate::Denied {
            self.reference.hour_seen(self.now());
        }
    }

    fn submissions(&self) -> impl Iterator<Item = &Submission> {
        let state = self.core.state();
        state.unsettled().values().chain(state.finished().values())
    }

    fn doubtful(&self) -> impl Iterator<Item = &Submission> {
        self.submissions()
            .filter(|s| matches!(s.status, Status::InDoubt { .. }))
    }

    fn waiting<'a>(&'a self, dimension: &'a Dimension) -> impl Iterator<Item = u128> + 'a {
        self.submissions()
            .filter(move |s| s.request.key.dimension == *dimension)
            .filter(|s| match s.status {
                Status::Waiting { .. } | Status::InFlight { .. } => !self
                    .aws
                    .bill
                    .records
                    .values()
                    .any(|record| record.bucket == Some(s.request.bucket)),
                Status::Settled { .. }
                | Status::RolledForward { .. }
                | Status::InDoubt { .. }
                | Status::Rejected { .. } => false,
            })
            .map(|s| u128::from(s.request.quantity.millionths()))
    }
}

fn refusal(error: u8) -> Answer {
    let message = String::new();
    match error {
        0 => Answer::Throttled,
        1 => Answer::NotSent { why: message },
        2 => Answer::Denied {
            code: "AccessDeniedException".to_owned(),
            message,
        },
        3 => Answer::NotEntitled { message },
        4 => Answer::Refused {
            code: "InvalidTagException".to_owned(),
            message,
        },
        _ => Answer::Doubtful {
            why: "500".to_owned(),
        },
    }
}

fn rules(seed: u64) -> Rules {
    let combine = [Combine::Sum, Combine::Max, Combine::Last, Combine::Distinct];
    Rules {
        period: Period::HOUR,
        straggler_wait_ms: 60_000,
        submit_jitter_ms: 300_000,
        dimensions: Some((0..4).map(name).zip(combine).collect()),
        saas: false,
        // A restart may change it.
        zero_usage: seed.is_multiple_of(2),
    }
}

fn name(dimension: usize) -> Dimension {
    DIMENSIONS[dimension].parse().unwrap()
}

fn identity(number: u8) -> Identity {
    format!("pod-{number}").parse().unwrap()
}

fn index(_: usize) -> Index {
    use proptest::strategy::{Strategy, ValueTree};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    proptest::arbitrary::any::<Index>()
        .new_tree(&mut runner)
        .unwrap()
        .current()
}
