//! Reports, hours, records.

use super::*;

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
        .map(|b| (b.key.dimension.to_string(), b.tally().total()))
        .collect();
    let units = |(name, n): (&str, u128)| (name.to_owned(), n * 1_000_000);
    assert_eq!(
        owed,
        [("gb", 2), ("users", 2), ("seats", 2), ("hosts", 1)].map(units)
    );
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
