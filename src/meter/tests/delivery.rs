//! Attempts, answers, the gate.

use super::*;

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
fn a_drain_leaves_what_is_owed_to_an_hour_ahead() {
    let mut meter = Meter::with("gb");
    meter.report("gb", "5");
    meter.run(Core::drain);
    meter.recorded();
    meter.restart("pod-1");
    meter.report("gb", "2");
    meter.run(Core::drain);
    assert!(meter.sent.is_empty(), "AWS takes nothing from the future");
    assert_eq!(meter.open_units(), [2]);
}

#[test]
fn no_more_attempts_are_under_way_than_the_bound() {
    let names: Vec<_> = (0..20).map(|n| format!("d{n}")).collect();
    let mut meter = Meter::with(&names.join(","));
    for name in &names {
        meter.report(name, "1");
    }
    meter.at(61);
    assert_eq!(meter.sent.len(), crate::meter::delivery::IN_FLIGHT_MAX);
    meter.at(62);
    assert_eq!(
        meter.sent.len(),
        crate::meter::delivery::IN_FLIGHT_MAX,
        "those under way count"
    );
    for _ in 0..names.len() {
        meter.recorded();
    }
    assert_eq!(meter.core.state().root.settled, 20);
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
