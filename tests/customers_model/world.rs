//! The core, its journal, AWS and the reference, moved by operations.

use std::collections::{BTreeMap, BTreeSet};

use proptest::sample::Index;
use tollgate::meter::{
    Amount, Answer, Call, Combine, Core, Decision, Fact, Refusal, Report, Request, Resolution,
    Rules, State, Status, Submission, Taken,
};
use tollgate::usage::{
    Allocations, BucketId, Customer, Dimension, Identity, Moment, Period, Quantity, Way,
};

use crate::aws::Aws;
use crate::reference::{CUSTOMERS, DIMENSIONS, Reference, customer};

/// One record of a call.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) customer: usize,
    pub(crate) dimension: usize,
    pub(crate) amount: u64,
    pub(crate) minutes_back: i64,
}

/// What a request to AWS comes to.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// AWS answers it.
    Answered,
    /// AWS answers, and gives these records back unprocessed.
    Unprocessed {
        records: u32,
    },
    /// The answer is lost, after AWS has counted or before.
    Lost {
        counted: bool,
    },
    Throttled,
    NotSent,
    Denied,
    /// The request is refused for what one of its records says.
    Refused,
}

/// One step of a case.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Report(Vec<Usage>),
    /// So many minutes pass.
    Tick(i64),
    Reply {
        which: Index,
        outcome: Outcome,
    },
    /// The process dies; each bit says whether AWS gets a request that was under way.
    Restart {
        counted: u64,
    },
    /// The process is told to end, and dies before it has sent all.
    Drain {
        counted: u64,
    },
    /// Another pod gets the volume.
    Identity {
        identity: u8,
        counted: u64,
    },
    ClockJump {
        hours: i64,
    },
    Resolve {
        which: Index,
    },
    Subscription {
        customer: usize,
        subscribed: bool,
    },
    /// The customer's registration is resolved.
    Resolved {
        customer: usize,
    },
    /// Something else has sent a record for an hour.
    TakenAtAws {
        customer: usize,
        dimension: usize,
        hours: i64,
    },
}

pub(crate) struct World {
    core: Core,
    seed: u64,
    journal: Vec<Vec<u8>>,
    in_flight: Vec<Call>,
    requests: BTreeMap<BucketId, Request>,
    aws: Aws,
    reference: Reference,
    true_time: Moment,
    skew_ms: i64,
    identity: u8,
}

const HOUR_MS: i64 = 3_600_000;

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let evening: jiff::Timestamp = "2026-03-31T18:10:00Z".parse().unwrap();
        let mut world = Self {
            core: core(State::default(), seed),
            seed,
            journal: Vec::new(),
            in_flight: Vec::new(),
            requests: BTreeMap::new(),
            aws: Aws::default(),
            reference: Reference::default(),
            true_time: evening.into(),
            skew_ms: 0,
            identity: 0,
        };
        world.start();
        world
    }

    pub(crate) fn run(&mut self, op: &Op) {
        match op {
            Op::Report(usages) => self.report(usages),
            Op::Tick(minutes) => {
                self.true_time = self.true_time.plus_ms(minutes * 60_000);
                self.decide(Core::tick);
            }
            Op::Reply { which, outcome } => self.reply(*which, outcome),
            Op::Restart { counted } => self.restart(*counted),
            Op::Drain { counted } => {
                self.decide(Core::drain);
                self.restart(*counted);
            }
            Op::Identity { identity, counted } => {
                self.identity = *identity;
                self.restart(*counted);
            }
            Op::ClockJump { hours } => self.skew_ms = hours * HOUR_MS,
            Op::Resolve { which } => self.resolve(*which),
            Op::Subscription {
                customer: index,
                subscribed,
            } => {
                if *subscribed {
                    self.aws.unsubscribed.remove(&customer(*index));
                } else {
                    self.aws.unsubscribed.insert(customer(*index));
                }
            }
            Op::Resolved { customer: index } => {
                let account = (*index == 0).then_some("1");
                self.decide(|core, now| core.resolved(now, &customer(*index), account));
                if *index == 0 {
                    self.reference.resolve();
                }
            }
            Op::TakenAtAws {
                customer: index,
                dimension,
                hours,
            } => {
                let hour = Period::HOUR.hour_of(self.true_time.plus_ms(-hours * HOUR_MS));
                self.aws
                    .bill
                    .take_hour(customer(*index), name(*dimension), hour);
            }
        }
    }

    pub(crate) fn check(&self) {
        let state = self.core.state();
        for index in 0..CUSTOMERS {
            for (dimension, label) in DIMENSIONS.iter().enumerate() {
                let number = state
                    .customers()
                    .find(|(_, row)| *row.customer() == customer(index))
                    .map(|(number, _)| number);
                let is_its = |key: &tollgate::meter::SeriesKey| {
                    number.is_some() && key.customer == number && key.dimension == name(dimension)
                };
                let open = state.open().values().filter(|bucket| is_its(bucket.key()));
                let open: u128 = open.map(|bucket| bucket.total()).sum();
                let kept = self.submissions().filter(|s| {
                    is_its(&s.request.key) && !matches!(s.status, Status::RolledForward { .. })
                });
                let kept: u128 = kept
                    .map(|s| u128::from(s.request.quantity.millionths()))
                    .sum();
                assert_eq!(
                    open + kept,
                    self.reference.expected(index, dimension),
                    "customer {index}, {label}: places on the left, reports on the right"
                );
            }
        }
        self.check_aws();
        self.check_calls();
    }

    fn check_aws(&self) {
        for ((customer, dimension, hour), record) in &self.aws.bill.records {
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
                "AWS bills {dimension} to {customer} for {hour}, and the core has it as {submission:?}"
            );
        }
    }

    fn check_calls(&self) {
        let calls: BTreeSet<BucketId> = self
            .submissions()
            .filter_map(|s| match s.status {
                Status::InFlight { call, .. } => Some(call),
                _ => None,
            })
            .collect();
        assert!(calls.len() <= 8, "no more than eight calls at once");
        for call in &self.in_flight {
            assert!((1..=25).contains(&call.attempts.len()));
            let by_license = |customer: &Option<Customer>| {
                customer
                    .as_ref()
                    .map(|customer| customer.way() == Way::License)
            };
            let ways: BTreeSet<_> = call
                .attempts
                .iter()
                .map(|attempt| by_license(&attempt.customer))
                .collect();
            assert_eq!(ways.len(), 1, "integrations never share a request");
        }
    }

    /// Faults stop, time passes, and someone who knows the truth decides what is in doubt.
    pub(crate) fn settle(&mut self) {
        self.skew_ms = 0;
        self.aws.unsubscribed.clear();
        self.restart(0);
        for _ in 0..160 {
            self.run(&Op::Tick(13));
            while !self.in_flight.is_empty() {
                let outcome = Outcome::Answered;
                self.reply_to(0, &outcome);
            }
            while let Some(bucket) = self.doubtful().first().copied() {
                self.resolve_one(bucket);
            }
            self.check();
        }
        for index in 0..CUSTOMERS {
            for (dimension, label) in DIMENSIONS.iter().enumerate() {
                let state = self.core.state();
                let is_its = |key: &tollgate::meter::SeriesKey| {
                    let row = key.customer.and_then(|number| state.customer(number));
                    row.is_some_and(|row| *row.customer() == customer(index))
                        && key.dimension == name(dimension)
                };
                let open = state.open().values().filter(|bucket| is_its(bucket.key()));
                let pending: u128 = open.map(|bucket| bucket.total()).sum();
                let rejected = self.submissions().filter(|s| {
                    is_its(&s.request.key) && matches!(s.status, Status::Rejected { .. })
                });
                let rejected: u128 = rejected
                    .map(|s| u128::from(s.request.quantity.millionths()))
                    .sum();
                let billed = self
                    .aws
                    .bill
                    .billed(&name(dimension), |billed| *billed == customer(index));
                assert_eq!(
                    billed + pending + rejected,
                    self.reference.expected(index, dimension),
                    "customer {index}, {label}: the bill on the left, reports on the right"
                );
            }
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
        self.journal
            .push(postcard::to_stdvec(&decision.facts).unwrap());
        for call in decision.submit {
            for attempt in &call.attempts {
                let request = &attempt.request;
                let first = self
                    .requests
                    .entry(request.bucket)
                    .or_insert_with(|| request.clone());
                assert_eq!(first, request, "a submission's request never changes");
            }
            self.in_flight.push(call);
        }
        decision.reply
    }

    fn start(&mut self) {
        let identity: Identity = format!("pod-{}", self.identity).parse().unwrap();
        self.decide(|core, now| core.open(now, &identity));
        self.decide(Core::open_gate);
    }

    fn restart(&mut self, counted: u64) {
        for (bit, call) in std::mem::take(&mut self.in_flight).into_iter().enumerate() {
            if counted >> (bit % 64) & 1 == 1 {
                let _ = self.aws.receive(self.true_time, &call);
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
        self.core = core(state, self.seed);
        self.start();
    }

    fn report(&mut self, usages: &[Usage]) {
        let now = self.now();
        let reports: Vec<Report> = usages
            .iter()
            .map(|usage| Report {
                customer: Some(customer(usage.customer)),
                dimension: name(usage.dimension),
                amount: Amount::Quantity {
                    quantity: Quantity::from_millionths(usage.amount).unwrap(),
                    allocations: Allocations::NONE,
                },
                at: Some(now.plus_ms(-usage.minutes_back * 60_000)),
            })
            .collect();
        let hours: Vec<_> = usages
            .iter()
            .zip(&reports)
            .map(|(usage, report)| (usage.customer, Period::HOUR.hour_of(report.at.unwrap())))
            .collect();
        match self.core.report_all(now, &reports) {
            Ok(decision) => {
                assert!(
                    self.reference.names_agree(&hours),
                    "a buyer was named in two ways"
                );
                let taken = self.take(decision);
                for ((usage, taken), (_, hour)) in usages.iter().zip(taken).zip(hours) {
                    if let Taken::In(_) = taken {
                        self.reference
                            .report(usage.customer, usage.dimension, hour, usage.amount);
                    }
                }
            }
            Err(Refusal::NamedTwice { .. }) => assert!(!self.reference.names_agree(&hours)),
            Err(Refusal::TimestampOutOfBounds { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn reply(&mut self, which: Index, outcome: &Outcome) {
        if !self.in_flight.is_empty() {
            self.reply_to(which.index(self.in_flight.len()), outcome);
        }
    }

    fn reply_to(&mut self, index: usize, outcome: &Outcome) {
        let call = self.in_flight.remove(index);
        let count = call.attempts.len();
        let lost = Answer::Doubtful {
            why: "lost".to_owned(),
        };
        let message = String::new();
        let answers = match outcome {
            Outcome::Answered => self.aws.receive(self.true_time, &call),
            Outcome::Unprocessed { records } => {
                let mut processed = call.clone();
                let mut bit = 0;
                processed.attempts.retain(|_| {
                    bit += 1;
                    records >> (bit % 32) & 1 == 0
                });
                let mut came = self.aws.receive(self.true_time, &processed).into_iter();
                (1..=count)
                    .map(|bit| {
                        if records >> (bit % 32) & 1 == 0 {
                            came.next().unwrap()
                        } else {
                            lost.clone()
                        }
                    })
                    .collect()
            }
            Outcome::Lost { counted } => {
                if *counted {
                    let _ = self.aws.receive(self.true_time, &call);
                }
                vec![lost; count]
            }
            Outcome::Throttled => vec![Answer::Throttled; count],
            Outcome::NotSent => vec![Answer::NotSent { why: message }; count],
            Outcome::Denied => {
                let code = "AccessDeniedException".to_owned();
                vec![Answer::Denied { code, message }; count]
            }
            Outcome::Refused => {
                let code = "InvalidTagException".to_owned();
                if count == 1 {
                    vec![Answer::Refused { code, message }]
                } else {
                    vec![Answer::RefusedTogether { code, message }; count]
                }
            }
        };
        let answers = call
            .attempts
            .iter()
            .zip(answers)
            .map(|(attempt, answer)| (attempt.request.bucket, attempt.number, answer))
            .collect();
        self.decide(|core, now| core.answered_all(now, answers));
    }

    fn resolve(&mut self, which: Index) {
        let doubtful = self.doubtful();
        if !doubtful.is_empty() {
            self.resolve_one(doubtful[which.index(doubtful.len())]);
        }
    }

    fn resolve_one(&mut self, bucket: BucketId) {
        // Nobody decides while a request may still arrive.
        self.in_flight.retain(|call| {
            call.attempts
                .iter()
                .all(|attempt| attempt.request.bucket != bucket)
        });
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

    fn submissions(&self) -> impl Iterator<Item = &Submission> {
        let state = self.core.state();
        state.unsettled().values().chain(state.finished().values())
    }

    fn doubtful(&self) -> Vec<BucketId> {
        self.submissions()
            .filter(|s| matches!(s.status, Status::InDoubt { .. }))
            .map(|s| s.request.bucket)
            .collect()
    }
}

fn core(state: State, seed: u64) -> Core {
    let rules = Rules {
        period: Period::HOUR,
        straggler_wait_ms: 60_000,
        submit_jitter_ms: 300_000,
        dimensions: Some([(name(0), Combine::Sum), (name(1), Combine::Max)].into()),
        // A restart may change it.
        zero_usage: seed.is_multiple_of(2),
        saas: true,
    };
    Core::new(rules, state, fastrand::Rng::with_seed(seed))
}

fn name(dimension: usize) -> Dimension {
    DIMENSIONS[dimension].parse().unwrap()
}
