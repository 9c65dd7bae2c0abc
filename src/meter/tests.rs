//! Each rule by an example; `tests/model.rs` has the invariants.

use super::*;
use crate::usage::{Allocation, Allocations, Tag, TagSet, UsageKey};

const HOUR_MS: i64 = 3_600_000;
/// 10:00 on some day.
const TEN: Moment = Moment::from_millis(497_222 * HOUR_MS);

/// A core with everything it decided.
struct Meter {
    core: Core,
    now: Moment,
    sent: Vec<(Request, u32)>,
}

impl Meter {
    fn with(dimensions: &str) -> Self {
        let dimensions = dimensions.split(',').map(|entry| {
            let (name, combine) = entry.split_once(':').unwrap_or((entry, "sum"));
            let combine = match combine {
                "sum" => Combine::Sum,
                "max" => Combine::Max,
                "last" => Combine::Last,
                "distinct" => Combine::Distinct,
                other => panic!("no combination {other}"),
            };
            (name.parse().unwrap(), combine)
        });
        let rules = Rules {
            period: Period::HOUR,
            straggler_wait_ms: 60_000,
            submit_jitter_ms: 0,
            dimensions: Some(dimensions.collect()),
            zero_usage: false,
        };
        let mut meter = Self {
            core: Core::new(rules, State::default(), fastrand::Rng::with_seed(1)),
            now: TEN.plus_ms(600_000),
            sent: Vec::new(),
        };
        meter.start("pod-1");
        meter
    }

    fn run<T>(&mut self, decide: impl FnOnce(&mut Core, Moment) -> Decision<T>) -> T {
        let decision = decide(&mut self.core, self.now);
        self.sent.extend(decision.submit);
        decision.reply
    }

    fn start(&mut self, identity: &str) {
        let identity = identity.parse().unwrap();
        self.run(|core, now| core.open(now, &identity));
        self.run(Core::open_gate);
    }

    /// The process ends and starts again.
    fn restart(&mut self, identity: &str) {
        let rules = self.core.rules.clone();
        let state = self.core.state.clone();
        self.core = Core::new(rules, state, fastrand::Rng::with_seed(2));
        self.start(identity);
    }

    /// So many minutes after 10:00.
    fn at(&mut self, minutes: i64) -> &mut Self {
        self.now = TEN.plus_ms(minutes * 60_000);
        self.run(Core::tick);
        self
    }

    fn try_report(
        &mut self,
        dimension: &str,
        amount: Amount,
        at: Option<Moment>,
    ) -> Result<BucketId, Refusal> {
        let report = Report {
            dimension: dimension.parse().unwrap(),
            amount,
            at,
        };
        let decision = self.core.report(self.now, &report)?;
        Ok(self.run(|_, _| decision))
    }

    fn report(&mut self, dimension: &str, quantity: &str) -> BucketId {
        self.try_report(dimension, plain(quantity), None).unwrap()
    }

    fn report_key(&mut self, dimension: &str, key: &str) -> BucketId {
        self.try_report(dimension, Amount::Key(UsageKey::new(key).unwrap()), None)
            .unwrap()
    }

    fn answer(&mut self, answer: Answer) -> BucketId {
        let (request, attempt) = self.sent.pop().expect("something was sent");
        self.run(|core, now| core.answered(now, request.bucket, attempt, answer));
        request.bucket
    }

    fn recorded(&mut self) -> BucketId {
        self.answer(Answer::Recorded {
            aws_id: "aws-1".to_owned(),
        })
    }

    fn sent_quantities(&self) -> Vec<String> {
        self.sent
            .iter()
            .map(|(request, _)| request.quantity.to_string())
            .collect()
    }

    fn status(&self, bucket: BucketId) -> &'static str {
        let state = self.core.state();
        state
            .unsettled
            .get(&bucket)
            .or_else(|| state.finished.get(&bucket))
            .map_or("open", |s| s.status.name())
    }

    /// What the open buckets would be sealed with, in units.
    fn open_units(&self) -> Vec<u128> {
        self.core
            .state()
            .open
            .values()
            .map(|bucket| bucket.tally().total() / 1_000_000)
            .collect()
    }

    /// Whatever is due goes unanswered by AWS until the window of a record of 10:xx is over.
    fn until_window_ends(&mut self, mut answer: impl FnMut() -> Answer) {
        for minutes in 60..=8 * 60 {
            self.at(minutes);
            while !self.sent.is_empty() {
                self.answer(answer());
            }
        }
    }
}

fn plain(quantity: &str) -> Amount {
    Amount::Quantity {
        quantity: quantity.parse().unwrap(),
        allocations: Allocations::NONE,
    }
}

fn doubtful() -> Answer {
    Answer::Doubtful {
        why: "time-out".to_owned(),
    }
}

fn throttled_id(meter: &Meter) -> BucketId {
    meter.sent.last().expect("something was sent").0.bucket
}

#[test]
fn reports_of_an_hour_make_one_record_after_the_straggler_wait() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "1.5");
    meter.report("gb", "2");
    meter.at(60);
    assert!(meter.sent.is_empty());
    meter.at(61);
    assert_eq!(meter.sent_quantities(), ["3.5"]);
    assert_eq!(
        meter.sent[0].0.timestamp,
        TEN.plus_ms(600_000),
        "the first usage, not the hour's start"
    );
    let bucket = meter.recorded();
    assert_eq!(meter.status(bucket), "settled");
}

#[test]
fn each_dimension_has_its_own_record() {
    let mut meter = Meter::with("gb,users:max,hosts:distinct");
    meter.report("gb", "1");
    meter.report("users", "7");
    meter.report("users", "3");
    meter.report_key("hosts", "a");
    meter.report_key("hosts", "b");
    meter.report_key("hosts", "a");
    meter.at(61);
    assert_eq!(meter.sent_quantities(), ["1", "7", "2"]);
}

#[test]
fn a_level_holds_over_later_hours_until_the_next_sample() {
    let mut meter = Meter::with("seats:last");
    meter.report("seats", "10");
    meter.at(65).recorded();
    meter.at(121);
    assert_eq!(meter.sent_quantities(), ["10"]);
    assert_eq!(
        meter.sent[0].0.timestamp,
        TEN.plus_ms(65 * 60_000),
        "the first tick of the hour"
    );
    meter.recorded();
    meter.report("seats", "4");
    meter.at(181);
    assert_eq!(meter.sent_quantities(), ["4"]);
}

#[test]
fn usage_of_a_sealed_hour_goes_to_the_next() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.at(61).recorded();
    let report = meter
        .try_report("gb", plain("2"), Some(TEN.plus_ms(59 * 60_000)))
        .unwrap();
    meter.at(121);
    assert_eq!(meter.sent[0].0.bucket, report);
    assert_eq!(meter.sent_quantities(), ["2"]);
}

#[test]
fn usage_of_an_earlier_hour_without_record_gets_its_own() {
    let mut meter = Meter::with("gb");
    meter.at(200);
    meter
        .try_report("gb", plain("2"), Some(TEN.plus_ms(59 * 60_000)))
        .unwrap();
    meter
        .try_report("gb", plain("3"), Some(TEN.plus_ms(40 * 60_000)))
        .unwrap();
    meter.at(202);
    assert_eq!(meter.sent_quantities(), ["5"]);
    assert_eq!(meter.sent[0].0.timestamp, TEN.plus_ms(40 * 60_000));
}

#[test]
fn usage_from_before_the_pod_began_counts_from_its_beginning() {
    let mut meter = Meter::with("gb");
    meter
        .try_report("gb", plain("2"), Some(TEN.plus_ms(-60_000)))
        .unwrap();
    meter.at(61);
    assert_eq!(meter.sent[0].0.timestamp, TEN.plus_ms(600_000));
}

#[test]
fn timestamps_outside_the_window_are_refused() {
    let mut meter = Meter::with("gb");
    meter.at(500);
    for minutes in [500 - 361, 506] {
        let at = TEN.plus_ms(minutes * 60_000);
        let refusal = meter.try_report("gb", plain("2"), Some(at)).unwrap_err();
        assert!(
            matches!(refusal, Refusal::TimestampOutOfBounds { .. }),
            "{minutes}"
        );
    }
}

#[test]
fn reports_that_do_not_fit_their_dimension_are_refused() {
    let mut meter = Meter::with("gb,hosts:distinct");
    assert!(matches!(
        meter.try_report("tb", plain("1"), None),
        Err(Refusal::UnknownDimension(_))
    ));
    assert!(matches!(
        meter.try_report("hosts", plain("1"), None),
        Err(Refusal::NeedsKey(_))
    ));
    let key = Amount::Key(UsageKey::new("a").unwrap());
    assert!(matches!(
        meter.try_report("gb", key, None),
        Err(Refusal::NeedsQuantity { .. })
    ));
}

#[test]
fn after_an_early_seal_only_the_excess_is_owed() {
    let mut meter = Meter::with("gb,users:max,seats:last,hosts:distinct");
    for (dimension, quantity) in [("gb", "5"), ("users", "7"), ("seats", "10")] {
        meter.report(dimension, quantity);
    }
    meter.report_key("hosts", "a");
    meter.run(Core::drain);
    assert_eq!(meter.sent.len(), 4);
    while !meter.sent.is_empty() {
        meter.recorded();
    }
    meter.restart("pod-1");
    meter.report("gb", "2");
    meter.report("users", "6");
    assert!(
        meter.report("users", "9") != meter.report("users", "3"),
        "a repeat of less is in the sealed record"
    );
    for sample in ["15", "12"] {
        meter.report("seats", sample);
    }
    meter.report_key("hosts", "a");
    meter.report_key("hosts", "b");
    let owed: Vec<_> = meter
        .core
        .state()
        .open
        .values()
        .map(|b| (b.dimension.to_string(), b.tally().total()))
        .collect();
    let units = |(name, n): (&str, u128)| (name.to_owned(), n * 1_000_000);
    assert_eq!(
        owed,
        [("gb", 2), ("users", 2), ("seats", 2), ("hosts", 1)].map(units)
    );
}

#[test]
fn an_hour_that_never_was_sealed_early_goes_on_after_a_restart() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.restart("pod-1");
    meter.report("gb", "2");
    meter.at(61);
    assert_eq!(meter.sent_quantities(), ["7"]);
}

#[test]
fn a_missed_peak_is_owed_beside_the_next_hours_own_peak() {
    let mut meter = Meter::with("users:max");
    meter.report("users", "10");
    meter.at(61).answer(Answer::Duplicate);
    meter.report("users", "4");
    meter.at(121);
    assert_eq!(meter.sent_quantities(), ["14"]);
}

#[test]
fn an_identical_repeat_settles_a_doubtful_attempt() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.at(61);
    let first = meter.sent[0].0.clone();
    meter.answer(doubtful());
    meter.at(70);
    assert_eq!(meter.sent[0].0, first, "the request never changes");
    let bucket = meter.recorded();
    assert_eq!(meter.status(bucket), "settled");
    assert!(meter.open_units().is_empty());
}

#[test]
fn a_duplicate_is_rolled_forward_even_after_a_doubtful_attempt() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.at(61).answer(doubtful());
    let bucket = meter.at(70).answer(Answer::Duplicate);
    assert_eq!(
        (meter.status(bucket), meter.open_units()),
        ("rolled_forward", vec![5])
    );
}

#[test]
fn out_of_bounds_is_rolled_forward_only_without_doubt() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    let bucket = meter.at(61).answer(Answer::OutOfBounds);
    assert_eq!(
        (meter.status(bucket), meter.open_units()),
        ("rolled_forward", vec![5])
    );

    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.at(61).answer(doubtful());
    let bucket = meter.at(70).answer(Answer::OutOfBounds);
    assert_eq!(
        (meter.status(bucket), meter.open_units()),
        ("in_doubt", vec![])
    );
}

#[test]
fn a_refused_payload_is_kept_as_rejected_or_in_doubt_after_a_doubtful_attempt() {
    let refused = || Answer::Refused {
        code: "InvalidTagException".to_owned(),
        message: "no".to_owned(),
    };
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    let bucket = meter.at(61).answer(refused());
    assert_eq!(
        (meter.status(bucket), meter.open_units()),
        ("rejected", vec![])
    );

    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.at(61).answer(doubtful());
    let bucket = meter.at(70).answer(refused());
    assert_eq!(meter.status(bucket), "in_doubt");
}

#[test]
fn not_entitled_is_retried_slowly_then_rejected_and_never_rolled_forward() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    let mut attempts = 0;
    meter.until_window_ends(|| {
        attempts += 1;
        Answer::NotEntitled {
            message: "no".to_owned(),
        }
    });
    assert_eq!(
        (meter.status(BucketId(0)), meter.open_units()),
        ("rejected", vec![])
    );
    assert!(
        (50..150).contains(&attempts),
        "{attempts} attempts in five hours"
    );
}

#[test]
fn what_was_certainly_not_counted_is_rolled_forward_when_the_window_ends() {
    for answer in [
        Answer::Throttled,
        Answer::NotSent {
            why: "refused".to_owned(),
        },
        Answer::Denied {
            code: "AccessDeniedException".to_owned(),
            message: String::new(),
        },
    ] {
        let mut meter = Meter::with("gb");
        meter.report("gb", "5");
        meter.until_window_ends(|| answer.clone());
        assert_eq!(meter.status(BucketId(0)), "rolled_forward", "{answer:?}");
    }
}

#[test]
fn one_doubtful_attempt_parks_the_submission_when_the_window_ends() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    let mut answers = vec![doubtful()];
    meter.until_window_ends(|| answers.pop().unwrap_or(Answer::Throttled));
    assert_eq!(
        (meter.status(BucketId(0)), meter.open_units()),
        ("in_doubt", vec![])
    );
}

#[test]
fn a_person_resolves_what_is_in_doubt_and_nothing_else() {
    for (resolution, status, owed) in [
        (Resolution::Delivered, "settled", vec![]),
        (Resolution::NotDelivered, "rolled_forward", vec![5]),
    ] {
        let mut meter = Meter::with("gb");
        let bucket = meter.report("gb", "5");
        let open = meter
            .core
            .resolve(meter.now, bucket, resolution)
            .unwrap_err();
        assert_eq!(
            open,
            ResolveError::NotInDoubt {
                bucket,
                status: "open"
            }
        );
        meter.at(61).answer(doubtful());
        meter.at(70).answer(Answer::OutOfBounds);
        let decision = meter.core.resolve(meter.now, bucket, resolution).unwrap();
        meter.run(|_, _| decision);
        assert_eq!((meter.status(bucket), meter.open_units()), (status, owed));
        assert!(
            meter.core.resolve(meter.now, bucket, resolution).is_err(),
            "only once"
        );
    }
}

#[test]
fn an_attempt_cut_short_by_a_crash_is_doubtful() {
    let mut meter = Meter::with("gb");
    let bucket = meter.report("gb", "5");
    meter.at(61);
    meter.sent.clear();
    meter.restart("pod-1");
    assert_eq!(meter.sent.len(), 1, "the identical request goes out again");
    meter.answer(Answer::OutOfBounds);
    assert_eq!(meter.status(bucket), "in_doubt");
}

#[test]
fn an_attempt_never_answered_is_repeated() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.at(61);
    let first = meter.sent.pop().unwrap();
    meter.at(64).at(65);
    assert_eq!(meter.sent.last().unwrap().0, first.0);
    meter.run(|core, now| core.answered(now, first.0.bucket, first.1, Answer::Duplicate));
    assert_eq!(
        meter.status(first.0.bucket),
        "sealed",
        "an answer to an attempt given up does not decide"
    );
    meter.run(|core, now| {
        core.answered(
            now,
            first.0.bucket,
            first.1,
            Answer::Recorded {
                aws_id: "late".to_owned(),
            },
        )
    });
    assert_eq!(
        meter.status(first.0.bucket),
        "settled",
        "unless AWS has the record"
    );
}

#[test]
fn nothing_is_sent_before_the_gate_is_open_and_all_is_rejected_when_it_is_denied() {
    let mut meter = Meter::with("gb");
    meter.core.gate = Gate::Pending;
    meter.report("gb", "5");
    meter.at(65);
    meter.report("gb", "2");
    assert!(meter.sent.is_empty());
    meter.run(Core::deny_gate);
    assert!(matches!(
        meter.try_report("gb", plain("1"), None),
        Err(Refusal::NotEntitled)
    ));
    assert_eq!(meter.core.state().root.rejected, 2);
    assert!(meter.open_units().is_empty());
}

#[test]
fn another_identity_takes_open_usage_over_and_parks_what_may_be_counted() {
    let mut meter = Meter::with("gb,tb");
    meter.report("gb", "5");
    meter.report("tb", "1");
    meter.at(61);
    meter.sent.sort_by(|a, b| a.0.dimension.cmp(&b.0.dimension));
    let never_counted = meter.answer(Answer::Throttled);
    let maybe_counted = meter.answer(doubtful());
    meter.at(62).sent.clear();
    meter.report("gb", "2");
    meter.restart("pod-2");
    assert_eq!(meter.status(maybe_counted), "in_doubt");
    assert_eq!(
        meter
            .core
            .state()
            .open
            .values()
            .map(|b| b.dimension.as_str())
            .filter(|d| *d == "gb")
            .count(),
        1
    );
    assert!(["rolled_forward", "in_doubt"].contains(&meter.status(never_counted)));
}

#[test]
fn hours_before_another_identity_began_are_owed_by_its_first_hour() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.now = TEN.plus_ms(90 * 60_000);
    meter.restart("pod-2");
    assert_eq!(meter.open_units(), [5]);
    meter.at(121);
    assert_eq!(
        meter.sent[0].0.timestamp,
        TEN.plus_ms(90 * 60_000),
        "never before the pod started"
    );
}

#[test]
fn an_identity_that_returns_does_not_reuse_its_hours() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.run(Core::drain);
    meter.recorded();
    meter.restart("pod-2");
    meter.restart("pod-1");
    meter.report("gb", "5");
    assert!(
        meter
            .core
            .state()
            .open
            .values()
            .all(|bucket| bucket.hour.start() > meter.now)
    );
}

#[test]
fn a_clock_set_back_reopens_nothing() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.at(61).recorded();
    meter.at(10);
    meter.report("gb", "3");
    assert!(
        meter
            .core
            .state()
            .open
            .values()
            .all(|bucket| bucket.hour.start() > meter.now)
    );
    meter.at(121);
    assert_eq!(meter.sent_quantities(), ["3"]);
}

#[test]
fn a_clock_set_forward_and_back_by_a_year_loses_nothing() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    let year = 365 * 24 * 60;
    meter.at(year);
    assert!(
        meter.sent.is_empty(),
        "ten o'clock lies a year back now: it is owed"
    );
    meter.at(year + 61).recorded();
    meter.at(20);
    meter.report("gb", "3");
    meter.at(121);
    assert_eq!(meter.sent_quantities(), ["3"]);
}

#[test]
fn the_turn_of_a_month_is_an_hour_like_any_other() {
    let mut meter = Meter::with("gb");
    let eve: jiff::Timestamp = "2026-11-30T23:59:59Z".parse().unwrap();
    meter.now = eve.into();
    meter.report("gb", "5");
    meter.now = meter.now.plus_ms(2_000);
    meter.report("gb", "7");
    meter.now = meter.now.plus_ms(62_000);
    meter.run(Core::tick);
    assert_eq!(meter.sent_quantities(), ["5"]);
    assert_eq!(meter.open_units(), [7]);
}

#[test]
fn more_than_a_record_holds_is_spread_over_the_following_hours() {
    let mut meter = Meter::with("gb");
    for _ in 0..3 {
        meter.report("gb", "9999999999.999999");
    }
    let mut billed = Vec::new();
    for hour in 1..=3 {
        meter.at(hour * 60 + 1);
        billed.extend(meter.sent_quantities());
        meter.recorded();
    }
    assert_eq!(billed, ["9999999999.999999"; 3]);
}

#[test]
fn rolled_forward_allocations_keep_their_tags() {
    let mut meter = Meter::with("gb");
    let quantity = "4".parse().unwrap();
    let tags = Some(TagSet::new(vec![Tag::new("team", "a").unwrap()]).unwrap());
    let parts = vec![Allocation {
        tags: tags.clone(),
        quantity,
    }];
    let allocations = Allocations::new(quantity, parts).unwrap();
    meter
        .try_report(
            "gb",
            Amount::Quantity {
                quantity,
                allocations,
            },
            None,
        )
        .unwrap();
    meter.at(61).answer(Answer::Duplicate);
    meter.report("gb", "3");
    meter.at(121);
    let parts = &meter.sent[0].0.allocations;
    assert_eq!(parts[0], Allocation { tags, quantity });
    assert_eq!(
        parts[1],
        Allocation {
            tags: None,
            quantity: "3".parse().unwrap()
        }
    );
}

#[test]
fn an_idle_hour_is_reported_as_zero_where_that_is_asked_for() {
    let mut meter = Meter::with("gb");
    meter.core.rules.zero_usage = true;
    meter.at(20).at(61);
    assert_eq!(meter.sent_quantities(), ["0"]);
    let idle = meter.answer(Answer::Duplicate);
    assert_eq!(meter.status(idle), "rolled_forward", "and owes nothing");
    assert_eq!(meter.open_units(), [0]);
}

#[test]
fn the_start_up_record_goes_out_before_the_gate_is_open_and_once_per_identity() {
    let mut meter = Meter::with("gb");
    meter.core.gate = Gate::Pending;
    let gb: Dimension = "gb".parse().unwrap();
    meter.report("gb", "5");
    let Startup::Pending(bucket) = meter.run(|core, now| core.startup(now, &gb)) else {
        panic!("made")
    };
    assert_eq!(meter.sent_quantities(), ["0"]);
    assert_eq!(
        meter.run(|core, now| core.startup(now, &gb)),
        Startup::Pending(bucket)
    );
    meter.recorded();
    assert_eq!(
        meter.run(|core, now| core.startup(now, &gb)),
        Startup::Done(bucket)
    );
    meter.report("gb", "2");
    assert!(
        meter
            .core
            .state()
            .open
            .values()
            .all(|b| b.hour.start() > meter.now),
        "the hour is taken"
    );
    assert_eq!(meter.open_units(), [7]);
    meter.restart("pod-1");
    assert_eq!(
        meter.run(|core, now| core.startup(now, &gb)),
        Startup::Done(bucket)
    );
    meter.restart("pod-2");
    assert!(matches!(
        meter.run(|core, now| core.startup(now, &gb)),
        Startup::Pending(_)
    ));
}

#[test]
fn a_start_up_record_asks_again_while_the_buyer_is_not_entitled() {
    let mut meter = Meter::with("gb");
    meter.core.gate = Gate::Pending;
    let gb: Dimension = "gb".parse().unwrap();
    meter.run(|core, now| core.startup(now, &gb));
    meter.answer(Answer::NotEntitled {
        message: "no".to_owned(),
    });
    meter.run(Core::deny_gate);
    meter.at(16);
    assert_eq!(meter.sent_quantities(), ["0"]);
}

#[test]
fn a_drain_seals_what_has_begun_and_hurries() {
    let mut meter = Meter::with("gb,tb");
    meter.report("gb", "5");
    meter.at(61);
    let throttled = throttled_id(&meter);
    meter.answer(Answer::Throttled);
    meter.report("gb", "2");
    meter.run(Core::drain);
    assert_eq!(
        meter.sent.len(),
        2,
        "the postponed one and the one just sealed"
    );
    assert!(
        meter
            .sent
            .iter()
            .any(|(request, _)| request.bucket == throttled)
    );
}

#[test]
fn no_more_attempts_are_under_way_than_the_bound() {
    let names: Vec<_> = (0..20).map(|n| format!("d{n}")).collect();
    let mut meter = Meter::with(&names.join(","));
    for name in &names {
        meter.report(name, "1");
    }
    meter.at(61);
    assert_eq!(meter.sent.len(), delivery::IN_FLIGHT_MAX);
    for _ in 0..names.len() {
        meter.recorded();
    }
    assert_eq!(meter.core.state().root.settled, 20);
}

#[test]
fn a_dimension_that_now_combines_another_way_owes_what_it_had() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.core.rules.dimensions = Some([("gb".parse().unwrap(), Combine::Max)].into());
    meter.restart("pod-1");
    meter.report("gb", "3");
    meter.report("gb", "4");
    meter.at(61);
    assert_eq!(meter.sent_quantities(), ["9"]);
}

#[test]
fn after_a_damaged_ledger_the_present_hour_is_left_alone() {
    let mut meter = Meter::with("gb");
    meter.run(Core::distrust_hours);
    meter.report("gb", "5");
    meter.at(61);
    assert!(meter.sent.is_empty());
    meter.at(121);
    assert_eq!(meter.sent_quantities(), ["5"]);
}

#[test]
fn the_next_wake_is_when_something_is_due() {
    let mut meter = Meter::with("gb");
    assert_eq!(meter.core.next_wake(meter.now), None);
    meter.report("gb", "5");
    let wake = meter.core.next_wake(meter.now).unwrap();
    assert_eq!(wake, TEN.plus_ms(61 * 60_000));
    meter.now = wake;
    meter.run(Core::tick);
    assert_eq!(meter.sent.len(), 1);
}

#[test]
fn replaying_the_facts_makes_the_same_state() {
    let mut meter = Meter::with("gb,users:max,seats:last,hosts:distinct");
    let mut facts = Vec::new();
    let mut replayed = State::default();
    let before = meter.core.state.clone();
    for minutes in (10..600).step_by(7) {
        meter.now = TEN.plus_ms(minutes * 60_000);
        facts.extend(meter.core.tick(meter.now).facts);
        for (dimension, quantity) in [("gb", "1.25"), ("users", "7"), ("seats", "3")] {
            let report = Report {
                dimension: dimension.parse().unwrap(),
                amount: plain(quantity),
                at: None,
            };
            facts.extend(meter.core.report(meter.now, &report).unwrap().facts);
        }
    }
    replayed.clone_from(&before);
    for fact in &facts {
        let bytes = postcard::to_stdvec(fact).unwrap();
        replayed
            .apply(&postcard::from_bytes(&bytes).unwrap(), Period::HOUR)
            .unwrap();
    }
    assert_eq!(replayed, meter.core.state);
}
