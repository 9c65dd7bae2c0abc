//! Customers: names, subscriptions, hourly zeros, calls of several records.

use super::*;
use crate::usage::{Customer, Way};

/// A SaaS product's core, and its calls to AWS that have no answer yet.
struct Shop {
    core: Core,
    now: Moment,
    calls: Vec<Call>,
}

impl Shop {
    fn new(zero_usage: bool) -> Self {
        let meter = Meter::with("gb,users:max");
        let mut core = meter.core;
        core.rules.zero_usage = zero_usage;
        core.rules.saas = true;
        Self {
            core,
            now: meter.now,
            calls: Vec::new(),
        }
    }

    fn run<T>(&mut self, decide: impl FnOnce(&mut Core, Moment) -> Decision<T>) -> T {
        let decision = decide(&mut self.core, self.now);
        self.calls.extend(decision.submit);
        decision.reply
    }

    /// So many minutes after 10:00.
    fn at(&mut self, minutes: i64) -> &mut Self {
        self.now = TEN.plus_ms(minutes * 60_000);
        self.run(Core::tick);
        self
    }

    fn try_report(&mut self, reports: &[Report]) -> Result<Vec<Taken>, Refusal> {
        let decision = self.core.report_all(self.now, reports)?;
        Ok(self.run(|_, _| decision))
    }

    /// Reports one unit of gb now.
    fn report(&mut self, customer: Customer) -> Taken {
        self.try_report(&[gb(customer, self.now)]).unwrap()[0]
    }

    /// One answer for each record of the oldest call.
    fn answer(&mut self, answer: &Answer) -> Vec<BucketId> {
        let call = self.calls.remove(0);
        let buckets: Vec<_> = call.attempts.iter().map(|a| a.request.bucket).collect();
        let answers = call
            .attempts
            .iter()
            .map(|attempt| (attempt.request.bucket, attempt.number, answer.clone()));
        let answers = answers.collect();
        self.run(|core, now| core.answered_all(now, answers));
        buckets
    }

    fn sizes(&self) -> Vec<usize> {
        self.calls.iter().map(|call| call.attempts.len()).collect()
    }

    fn status(&self, bucket: BucketId) -> &Status {
        let state = self.core.state();
        let submission = state
            .unsettled
            .get(&bucket)
            .or_else(|| state.finished.get(&bucket));
        &submission.expect("it is sealed").status
    }

    /// Whose usage is open, by name and dimension.
    fn open(&self) -> Vec<(String, String)> {
        let state = self.core.state();
        let names = state.open().values().map(|bucket| {
            let customer = bucket
                .key()
                .customer
                .and_then(|number| state.customer(number));
            let name = customer.map_or("the pod".to_owned(), |row| row.customer().to_string());
            (name, bucket.key().dimension.to_string())
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

fn gb(customer: Customer, at: Moment) -> Report {
    Report {
        customer: Some(customer),
        dimension: "gb".parse().unwrap(),
        amount: plain("1"),
        at: Some(at),
    }
}

fn licensed(account: usize) -> Customer {
    let license = format!("arn:aws:license-manager::{account}:license:l-1");
    Customer::new(None, Some(&account.to_string()), Some(&license)).unwrap()
}

fn legacy() -> Customer {
    Customer::new(Some("c-1"), None, None).unwrap()
}

fn unsubscribed() -> Answer {
    Answer::NotEntitled {
        message: "m".to_owned(),
    }
}

fn recorded() -> Answer {
    Answer::Recorded {
        aws_id: "aws-1".to_owned(),
    }
}

#[test]
fn an_unsubscribed_customers_usage_is_not_taken_for_an_hour_and_then_asked_anew() {
    let mut shop = Shop::new(false);
    shop.report(licensed(1));
    shop.at(61).answer(&unsubscribed());
    assert_eq!(shop.report(licensed(1)), Taken::NotSubscribed);
    assert!(matches!(shop.report(licensed(2)), Taken::In(_)));
    shop.calls.clear();
    // Nothing more is heard of AWS.
    shop.now = TEN.plus_ms(120 * 60_000);
    assert_eq!(shop.report(licensed(1)), Taken::NotSubscribed);
    shop.now = TEN.plus_ms(122 * 60_000);
    assert!(matches!(shop.report(licensed(1)), Taken::In(_)));
}

#[test]
fn each_refusal_renews_the_hour_in_which_nothing_is_taken() {
    let mut shop = Shop::new(false);
    shop.report(licensed(1));
    shop.at(61).answer(&unsubscribed());
    shop.at(110).answer(&unsubscribed());
    shop.now = TEN.plus_ms(150 * 60_000);
    assert_eq!(shop.report(licensed(1)), Taken::NotSubscribed);
}

#[test]
fn a_record_that_aws_takes_or_a_registration_ends_the_refusals() {
    for registered in [false, true] {
        let mut shop = Shop::new(false);
        shop.report(licensed(1));
        shop.at(61).answer(&unsubscribed());
        if registered {
            shop.run(|core, now| core.resolved(now, &licensed(1), None));
        } else {
            shop.at(80).answer(&recorded());
        }
        assert!(matches!(shop.report(licensed(1)), Taken::In(_)));
    }
}

#[test]
fn a_refused_subscription_is_rejected_at_the_end_and_billed_in_no_later_hour() {
    let mut shop = Shop::new(false);
    let Taken::In(bucket) = shop.report(licensed(1)) else {
        panic!("nobody is unsubscribed yet");
    };
    shop.at(61).answer(&unsubscribed());
    shop.calls.clear();
    for minutes in 62..25 * 60 {
        shop.at(minutes);
        while !shop.calls.is_empty() {
            shop.answer(&unsubscribed());
        }
    }
    let status = shop.status(bucket);
    assert!(
        matches!(status, Status::Rejected { code, .. } if code == "CustomerNotSubscribed"),
        "{status:?}"
    );
    assert_eq!(shop.open(), []);
}

#[test]
fn every_subscribed_customer_has_an_hour_to_report_0_from_and_the_pod_has_none() {
    let mut shop = Shop::new(true);
    shop.at(10);
    assert_eq!(shop.open(), [], "no customers");
    shop.report(licensed(1));
    shop.at(11);
    let names = |accounts: &[usize]| -> Vec<_> {
        let mut names: Vec<_> = accounts
            .iter()
            .flat_map(|account| {
                ["gb", "users"].map(|of| (licensed(*account).to_string(), of.to_owned()))
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(shop.open(), names(&[1]), "in the hour it was first seen");
    shop.run(|core, now| core.resolved(now, &licensed(2), None));
    assert_eq!(shop.open(), names(&[1, 2]));
    shop.at(61);
    for call in std::mem::take(&mut shop.calls) {
        for attempt in call.attempts {
            let answer = if attempt.customer == Some(licensed(1)) {
                unsubscribed()
            } else {
                recorded()
            };
            let (bucket, number) = (attempt.request.bucket, attempt.number);
            shop.run(|core, now| core.answered(now, bucket, number, answer));
        }
    }
    shop.calls.clear();
    shop.at(122);
    assert_eq!(shop.open(), names(&[2]), "unsubscribed ones have none");
}

#[test]
fn a_name_that_another_one_has_replaced_has_no_more_zeros() {
    let mut shop = Shop::new(true);
    shop.report(legacy());
    shop.run(|core, now| core.resolved(now, &legacy(), Some("1")));
    shop.at(62);
    shop.report(licensed(1));
    shop.at(122);
    let names: Vec<_> = shop.open().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, vec![licensed(1).to_string(); 2]);
}

#[test]
fn a_ledger_that_is_read_again_knows_who_an_identifier_is() {
    let mut shop = Shop::new(false);
    shop.report(legacy());
    shop.run(|core, now| core.resolved(now, &legacy(), Some("1")));
    let state = shop.core.state().clone();
    let customers = state.customers().map(|(number, row)| (number, row.clone()));
    let again = State::from_rows(
        state.root.clone(),
        state.series.clone(),
        customers.collect(),
        state.open.clone(),
        state.unsettled.clone(),
    );
    shop.core.state = again;
    let refused = shop.try_report(&[gb(licensed(1), shop.now)]);
    assert!(
        matches!(
            refused,
            Err(Refusal::NamedTwice {
                before: Way::Identifier,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn a_day_back_is_taken_into_its_own_hour_and_one_record_too_old_refuses_them_all() {
    let mut shop = Shop::new(false);
    let hours_back = |shop: &Shop, hours: i64| gb(licensed(1), shop.now.plus_ms(-hours * HOUR_MS));
    let (old, older) = (hours_back(&shop, 20), hours_back(&shop, 25));
    let refused = shop.try_report(&[old.clone(), older]);
    assert!(matches!(refused, Err(Refusal::TimestampOutOfBounds { .. })));
    assert_eq!(shop.open(), []);
    shop.try_report(std::slice::from_ref(&old)).unwrap();
    let open: Vec<_> = shop.core.state().open().values().map(|b| b.hour).collect();
    assert_eq!(open, [Period::HOUR.hour_of(old.at.unwrap())]);
}

/// A shop with a call of three records under way, at 11:01.
fn three_under_way() -> Shop {
    let mut shop = Shop::new(false);
    for account in 1..=3 {
        shop.report(licensed(account));
    }
    shop.at(61);
    assert_eq!(shop.sizes(), [3]);
    shop
}

#[test]
fn records_that_are_repeated_share_a_call_again() {
    for answer in [Answer::Throttled, doubtful(), unsubscribed()] {
        let mut shop = three_under_way();
        shop.answer(&answer);
        while shop.calls.is_empty() {
            shop.now = shop.core.next_wake(shop.now).unwrap();
            shop.run(Core::tick);
        }
        assert_eq!(shop.sizes(), [3], "{answer:?}");
    }
}

#[test]
fn records_refused_together_go_alone_and_are_in_no_doubt() {
    let mut shop = three_under_way();
    shop.answer(&Answer::RefusedTogether {
        code: "TimestampOutOfBoundsException".to_owned(),
        message: "m".to_owned(),
    });
    assert_eq!(shop.sizes(), [1, 1, 1]);
    for answer in [Answer::OutOfBounds, Answer::Duplicate, recorded()] {
        let bucket = shop.answer(&answer)[0];
        let status = shop.status(bucket).name();
        let expected = if answer == recorded() {
            "settled"
        } else {
            "rolled_forward"
        };
        assert_eq!(status, expected, "{answer:?}");
    }
}

#[test]
fn a_duplicate_after_doubt_waits_for_a_person() {
    let mut shop = three_under_way();
    shop.answer(&doubtful());
    shop.at(90);
    for bucket in shop.answer(&Answer::Duplicate) {
        assert_eq!(shop.status(bucket).name(), "in_doubt");
    }
}

#[test]
fn a_call_of_many_records_is_one_of_eight() {
    let mut shop = Shop::new(false);
    for account in 1..=25 {
        shop.report(licensed(account));
    }
    shop.at(61);
    assert_eq!(shop.sizes(), [25]);
    let earlier = gb(licensed(26), shop.now.plus_ms(-HOUR_MS));
    shop.try_report(&[earlier]).unwrap();
    shop.at(62);
    assert_eq!(shop.sizes(), [25, 1]);
}

#[test]
fn pods_and_customers_records_share_the_eight_calls() {
    let mut shop = Shop::new(false);
    shop.core.rules.dimensions = None;
    for dimension in 0..8 {
        let report = Report {
            customer: None,
            dimension: format!("d{dimension}").parse().unwrap(),
            amount: plain("1"),
            at: None,
        };
        shop.run(|core, now| core.report(now, &report).unwrap());
    }
    shop.report(licensed(1));
    shop.at(61);
    assert_eq!(shop.sizes(), [1; 8]);
}

#[test]
fn an_hour_of_very_many_customers_is_sealed_as_it_is_sent() {
    let mut shop = Shop::new(false);
    for first in (0..2100).step_by(25) {
        let reports: Vec<_> = (first..first + 25)
            .map(|account| gb(licensed(account), shop.now))
            .collect();
        shop.try_report(&reports).unwrap();
    }
    shop.at(61);
    assert_eq!(shop.core.state().unsettled().len(), 2000);
    assert_eq!(shop.sizes(), [25; 8]);
    let wake = shop.core.next_wake(shop.now).unwrap();
    assert!(wake > shop.now, "nothing can be done before an answer");
    shop.answer(&recorded());
    assert_eq!(shop.core.state().unsettled().len(), 2000);
    // What AWS refuses for its customers' subscriptions holds nobody up.
    for _ in 0..4 {
        shop.answer(&unsubscribed());
    }
    assert_eq!(shop.core.state().unsettled().len(), 2075);
}
