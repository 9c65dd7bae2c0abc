//! Restarts, other pods, clocks.

use super::*;

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
fn another_identity_takes_open_usage_over_and_parks_what_may_be_counted() {
    let mut meter = Meter::with("gb,tb");
    meter.report("gb", "5");
    meter.report("tb", "1");
    meter.at(61);
    meter.sent.sort_by(|a, b| a.0.key.cmp(&b.0.key));
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
            .map(|b| b.key.dimension.as_str())
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
fn a_clock_set_back_further_than_is_remembered_reopens_nothing() {
    let mut meter = Meter::with("gb");
    let hours = 11;
    for hour in 0..hours {
        meter.at(hour * 60 + 10);
        meter.report("gb", "1");
        meter.at(hour * 60 + 61).recorded();
    }
    meter.at(15);
    meter.report("gb", "3");
    let open = meter.core.state().open.values();
    let starts: Vec<_> = open.map(|bucket| bucket.hour.start()).collect();
    assert_eq!(starts, [TEN.plus_ms(hours * HOUR_MS)]);
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
                customer: None,
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
