//! Usage and the entitlement decision: taken before it, sent after it, rejected by it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::Aws;
use crate::pod::{Pod, now_seconds, poll};

const PERIOD: Duration = Duration::from_millis(500);

fn usage(quantity: u32) -> Value {
    json!({"dimension": "requests", "quantity": quantity})
}

/// Waits until the present metering hour and the next are over.
fn two_hours_pass() {
    let until = now_seconds() + 2.0 * PERIOD.as_secs_f64();
    poll(|| (now_seconds() > until).then_some(())).expect("time passes");
}

#[test]
fn usage_before_the_decision_is_kept_and_sent_after_it() {
    let aws = Aws::with_hours_of(PERIOD, &["requests"]);
    aws.fault("RegisterUsage", "internal-error", 10_000);
    let pod = Pod::new(&aws).with_hours_of(PERIOD);
    let mut sidecar = pod.start();
    sidecar.reaches("pending");
    let id = pod.reported(&usage(7));
    pod.finds(&id, "sealed");
    two_hours_pass();
    assert_eq!(
        aws.count("MeterUsage"),
        0,
        "nothing is submitted before the decision"
    );
    assert_eq!(pod.find(&id)["state"], "sealed");
    aws.clear_faults();
    sidecar.reaches("entitled");
    poll(|| (aws.billed("requests") == 7_000_000).then_some(())).expect("it is billed");
}

#[test]
fn a_denial_that_is_held_rejects_what_was_taken_and_takes_no_more() {
    let aws = Aws::with_hours_of(PERIOD, &["requests"]);
    aws.fault("RegisterUsage", "internal-error", 10_000);
    let pod = Pod::new(&aws)
        .with_hours_of(PERIOD)
        .with("TOLLGATE_ON_DENIED", "hold");
    let mut sidecar = pod.start();
    sidecar.reaches("pending");
    let id = pod.reported(&usage(7));
    aws.set_entitled(false);
    aws.clear_faults();
    sidecar.reaches("denied");
    pod.finds(&id, "rejected");
    let (code, answer) = pod.meter(json!({"UsageDimension": "requests", "UsageQuantity": 1}));
    assert_eq!(code, 400);
    assert_eq!(
        answer["__type"],
        "com.amazonaws.marketplacemetering#CustomerNotEntitledException"
    );
    let (code, answer) = pod.report(&usage(1));
    assert_eq!(
        (code, &answer["error"]["code"]),
        (400, &json!("CustomerNotEntitledException"))
    );
    let records = pod.usage();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&records[0]["state"], &records[0]["quantity"]),
        (&json!("rejected"), &json!("7"))
    );
    two_hours_pass();
    assert_eq!(aws.count("MeterUsage"), 0);
}

#[test]
fn a_denial_that_ends_the_sidecar_rejects_what_was_taken_for_good() {
    let aws = Aws::with_hours_of(PERIOD, &["requests"]);
    aws.fault("RegisterUsage", "internal-error", 10_000);
    let pod = Pod::new(&aws).with_hours_of(PERIOD);
    let mut sidecar = pod.start();
    sidecar.reaches("pending");
    pod.reported(&usage(7));
    aws.set_entitled(false);
    aws.clear_faults();
    assert_eq!(sidecar.ends(), 77);
    aws.set_entitled(true);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let id = pod.reported(&usage(2));
    pod.finds(&id, "settled");
    let states: Vec<_> = pod
        .usage()
        .into_iter()
        .map(|record| record["state"].clone())
        .collect();
    assert_eq!(states, ["rejected", "settled"]);
    assert_eq!(aws.billed("requests"), 2_000_000);
}

#[test]
fn sigterm_before_the_decision_ends_at_once_and_keeps_the_usage() {
    let aws = Aws::with_hours_of(PERIOD, &["requests"]);
    aws.fault("RegisterUsage", "internal-error", 10_000);
    let pod = Pod::new(&aws).with_hours_of(PERIOD);
    let mut sidecar = pod.start();
    sidecar.reaches("pending");
    pod.reported(&usage(7));
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0);
    assert_eq!(aws.count("MeterUsage"), 0);
    aws.clear_faults();
    let _sidecar = pod.start();
    poll(|| (aws.billed("requests") == 7_000_000).then_some(())).expect("a restart sends it");
}

/// The product is metered by a dimension of its own, and asking for the entitlement is a record of 0.
fn custom(aws: &Aws, period: Duration) -> Pod {
    Pod::new(aws)
        .with_hours_of(period)
        .without("TOLLGATE_PUBLIC_KEYS")
        .with("TOLLGATE_ENTITLEMENT_CHECK", "meter-usage:requests")
}

#[test]
fn the_start_up_record_is_sent_once_for_each_identity() {
    let period = Duration::from_secs(3);
    let aws = Aws::with_hours_of(period, &["requests"]);
    let pod = custom(&aws, period);
    let mut sidecar = pod.start();
    let status = sidecar.reaches("entitled");
    assert_eq!(
        (&status["check"], &status["signature"]),
        (&json!("meter-usage"), &Value::Null)
    );
    let first = aws.bills(1).remove(0);
    assert_eq!(first.quantity.0, 0);
    assert_eq!(aws.requests()[0]["UsageQuantity"], 0);
    let id = pod.reported(&usage(3));
    drop(sidecar);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    pod.finds(&id, "settled");
    let records = aws.bills(2);
    assert_eq!(records.len(), 2, "no second start-up record: {records:?}");
    assert!(
        records[1].hour > first.hour,
        "the start-up record has its hour"
    );
    assert_eq!(aws.billed("requests"), 3_000_000);
    drop(sidecar);
    let (key, secret) = aws.add_caller("task-2");
    let pod = pod
        .with("POD_UID", "pod-2")
        .with("AWS_ACCESS_KEY_ID", &key)
        .with("AWS_SECRET_ACCESS_KEY", &secret);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let records = aws.bills(3);
    let theirs: Vec<_> = records
        .iter()
        .filter(|record| record.identity == "task-2")
        .collect();
    assert_eq!(theirs.len(), 1);
    assert_eq!(theirs[0].quantity.0, 0);
}

#[test]
fn a_start_up_record_that_is_refused_denies() {
    let aws = Aws::start();
    aws.set_entitled(false);
    let pod = custom(&aws, Duration::from_secs(1));
    assert_eq!(pod.start().ends(), 77, "{}", pod.log());
    assert_eq!(
        pod.status().unwrap()["reason"],
        "CustomerNotEntitledException"
    );
    assert!(aws.records().is_empty());
}

#[test]
fn a_start_up_record_whose_answer_is_lost_is_asked_for_again_unchanged() {
    let aws = Aws::with_hours_of(Duration::from_secs(3), &["requests"]);
    aws.fault("MeterUsage", "reply-lost", 2);
    let pod = custom(&aws, Duration::from_secs(3));
    let mut sidecar = pod.start();
    sidecar.reaches("entitled");
    let requests = aws.requests();
    assert!(requests.len() >= 3 && requests.iter().all(|request| *request == requests[0]));
    assert_eq!(aws.records().len(), 1);
}
