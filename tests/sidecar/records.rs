//! From reports to AWS's records: how many, and what is in them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::Aws;
use crate::pod::{Pod, early_in_the_hour, now_seconds, poll};

/// Starts a pod, reports by `reports`, ends it, and gives back the requests that AWS got.
fn requests_after(aws: &Aws, pod: &Pod, reports: impl FnOnce(&Pod)) -> Vec<Value> {
    early_in_the_hour();
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    reports(pod);
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0, "{}", pod.log());
    let mut requests = aws.requests();
    requests.sort_by_key(|request| request["UsageDimension"].to_string());
    requests
}

fn metered(pod: &Pod, usage: Value) {
    let (code, answer) = pod.meter(usage);
    assert_eq!(code, 200, "{answer}");
}

#[test]
fn any_number_of_reports_makes_one_call_for_each_dimension_and_hour() {
    let aws = Aws::with_hours_of(Duration::from_hours(1), &["requests", "gb"]);
    let pod = Pod::new(&aws);
    let before = now_seconds();
    let requests = requests_after(&aws, &pod, |pod| {
        for report in 0..100 {
            metered(
                pod,
                json!({"UsageDimension": "requests", "UsageQuantity": report}),
            );
            pod.reported(&json!({"dimension": "gb", "quantity": "0.001"}));
        }
    });
    assert_eq!(requests.len(), 2, "{requests:?}");
    let [gb, whole] = &requests[..] else {
        unreachable!()
    };
    assert_eq!(whole["UsageQuantity"], 4950);
    assert!(whole.get("UsageQuantityAsDecimal").is_none());
    assert_eq!(gb["UsageQuantityAsDecimal"], "0.1");
    assert!(gb.get("UsageQuantity").is_none());
    for request in &requests {
        let at = request["Timestamp"].as_f64().unwrap();
        assert!(
            (before - 0.001..=now_seconds()).contains(&at),
            "the pod was not there before: {request}"
        );
        assert!(
            request["ClientToken"]
                .as_str()
                .is_some_and(|token| token.len() <= 64)
        );
        assert!(request.get("UsageAllocations").is_none());
    }
}

#[test]
fn whole_quantities_beyond_an_integer_travel_as_decimals() {
    let aws = Aws::start();
    let requests = requests_after(&aws, &Pod::new(&aws), |pod| {
        for _ in 0..2 {
            metered(
                pod,
                json!({"UsageDimension": "requests", "UsageQuantity": 2_147_483_647}),
            );
        }
    });
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0]["UsageQuantityAsDecimal"], "4294967294");
}

#[test]
fn allocations_with_the_same_tags_are_one() {
    let aws = Aws::start();
    let part = |team: &str, quantity: u32| json!({"AllocatedUsageQuantity": quantity, "Tags": [{"Key": "team", "Value": team}]});
    let requests = requests_after(&aws, &Pod::new(&aws), |pod| {
        metered(
            pod,
            json!({"UsageDimension": "requests", "UsageQuantity": 5, "UsageAllocations": [part("red", 3), part("blue", 2)]}),
        );
        metered(
            pod,
            json!({"UsageDimension": "requests", "UsageQuantity": 7, "UsageAllocations": [part("red", 7)]}),
        );
        metered(
            pod,
            json!({"UsageDimension": "requests", "UsageQuantity": 1}),
        );
    });
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0]["UsageQuantity"], 13);
    let untagged = json!({"AllocatedUsageQuantity": 1});
    assert_eq!(
        requests[0]["UsageAllocations"],
        json!([part("blue", 2), part("red", 10), untagged])
    );
}

#[test]
fn one_fraction_makes_the_whole_record_decimal() {
    let aws = Aws::start();
    let requests = requests_after(&aws, &Pod::new(&aws), |pod| {
        let tags = json!({"team": "red"});
        pod.reported(&json!({"dimension": "requests", "quantity": 2, "allocations": [{"quantity": 2, "tags": tags}]}));
        pod.reported(&json!({"dimension": "requests", "quantity": "0.5"}));
    });
    assert_eq!(requests[0]["UsageQuantityAsDecimal"], "2.5");
    let parts = requests[0]["UsageAllocations"].as_array().unwrap();
    let quantities: Vec<_> = parts
        .iter()
        .map(|part| &part["AllocatedUsageQuantityAsDecimal"])
        .collect();
    assert_eq!(quantities, ["2", "0.5"]);
    assert_eq!(aws.billed("requests"), 2_500_000, "AWS takes it");
}

#[test]
fn each_dimension_combines_its_own_way() {
    let names = ["requests", "users", "seats", "hosts"];
    let aws = Aws::with_hours_of(Duration::from_hours(1), &names);
    let pod = Pod::new(&aws).with(
        "TOLLGATE_DIMENSIONS",
        "requests,users:max,seats:last,hosts:distinct",
    );
    let requests = requests_after(&aws, &pod, |pod| {
        for quantity in [3, 9, 4] {
            for dimension in ["requests", "users", "seats"] {
                pod.reported(&json!({"dimension": dimension, "quantity": quantity}));
            }
        }
        for host in ["a", "b", "a"] {
            pod.reported(&json!({"dimension": "hosts", "key": host}));
        }
    });
    let billed: Vec<_> = requests
        .iter()
        .map(|request| {
            (
                request["UsageDimension"].as_str().unwrap(),
                request["UsageQuantity"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        billed,
        [("hosts", 2), ("requests", 16), ("seats", 4), ("users", 9)]
    );
}

#[test]
fn without_usage_nothing_is_sent() {
    let aws = Aws::start();
    assert!(requests_after(&aws, &Pod::new(&aws), |_| {}).is_empty());
}

#[test]
fn an_idle_hour_is_reported_as_0_where_that_is_asked_for() {
    let period = Duration::from_millis(500);
    let aws = Aws::with_hours_of(period, &["requests", "gb"]);
    let pod = Pod::new(&aws)
        .with_hours_of(period)
        .with("TOLLGATE_DIMENSIONS", "requests,gb")
        .with("TOLLGATE_ZERO_USAGE", "report");
    let sidecar = pod.start();
    let records = aws.bills(6);
    drop(sidecar);
    assert!(records.iter().all(|record| record.quantity.0 == 0));
    let mut hours: Vec<_> = records
        .iter()
        .map(|record| (record.dimension.clone(), record.hour))
        .collect();
    hours.dedup();
    assert_eq!(hours.len(), records.len());
    assert!(hours.iter().any(|(dimension, _)| dimension == "gb"));
    let wire = &aws.requests()[0];
    assert_eq!(wire["UsageQuantity"], 0, "{wire}");
}

#[test]
fn usage_goes_to_its_own_hour_until_that_is_sealed() {
    let period = Duration::from_secs(1);
    let aws = Aws::with_hours_of(period, &["requests"]);
    let pod = Pod::new(&aws).with_hours_of(period);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let start = jiff::Timestamp::now().as_second() + 1;
    let at = |ms: i64| jiff::Timestamp::from_millisecond(start * 1000 + ms).unwrap();
    let report = |quantity: u32, at: jiff::Timestamp| {
        pod.reported(
            &json!({"dimension": "requests", "quantity": quantity, "timestamp": at.to_string()}),
        )
    };
    // An hour without a record, gone by.
    poll(|| (jiff::Timestamp::now() > at(2100)).then_some(())).expect("time passes");
    let early = report(1, at(500));
    pod.finds(&early, "settled");
    let first = aws.bills(1).remove(0);
    assert_eq!(first.hour, at(0));
    assert_eq!(first.timestamp, at(500));
    // The same hour again: it has its record, for ever.
    let late = report(2, at(600));
    assert_ne!(pod.find(&late)["hour"], pod.find(&early)["hour"]);
    pod.finds(&late, "settled");
    let second = aws.bills(2).remove(1);
    assert!(second.hour > first.hour);
    assert_eq!(aws.billed("requests"), 3_000_000);
    assert_eq!(aws.requests().len(), 2);
}

#[test]
fn a_dry_run_goes_to_aws_and_counts_nothing() {
    let aws = Aws::start();
    let requests = requests_after(&aws, &Pod::new(&aws), |pod| {
        let dry = json!({"UsageDimension": "requests", "UsageQuantity": 5, "DryRun": true});
        let (code, answer) = pod.meter(dry.clone());
        assert_eq!(code, 400);
        assert_eq!(
            answer["__type"],
            "com.amazonaws.marketplacemetering#DryRunOperation"
        );
        aws.let_dry_runs_succeed();
        assert_eq!(pod.meter(dry).0, 200);
        assert!(pod.usage().is_empty());
    });
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|request| request["DryRun"] == true));
    assert_eq!(aws.billed("requests"), 0);
}

#[test]
fn a_report_is_counted_once_for_each_key() {
    let aws = Aws::start();
    let usage = |quantity: u32, token: &str| json!({"UsageDimension": "requests", "UsageQuantity": quantity, "ClientToken": token, "Timestamp": 0});
    let pod = Pod::new(&aws);
    requests_after(&aws, &pod, |pod| {
        let at = json!(now_seconds());
        let meter = |mut usage: Value| {
            usage["Timestamp"] = at.clone();
            pod.meter(usage)
        };
        let (_, first) = meter(usage(3, "a"));
        assert_eq!(
            meter(usage(3, "a")),
            (200, first.clone()),
            "the same record id"
        );
        let (code, conflict) = meter(usage(4, "a"));
        assert_eq!(code, 400);
        assert!(
            conflict["__type"]
                .as_str()
                .unwrap()
                .ends_with("#IdempotencyConflictException")
        );
        assert_ne!(meter(usage(3, "b")).1, first);
        let plain = json!({"dimension": "requests", "quantity": 5}).to_string();
        let keyed =
            |key: &str| pod.post("/v1/usage", &format!("idempotency-key: {key}\r\n"), &plain);
        assert_eq!(keyed("k"), keyed("k"));
        assert_ne!(keyed("k"), keyed("l"));
        let body = json!({"ProductCode": crate::aws::PRODUCT, "UsageDimension": "requests", "UsageQuantity": 7, "Timestamp": at}).to_string();
        let called = |id: &str| {
            let headers = format!(
                "x-amz-target: AWSMPMeteringService.MeterUsage\r\namz-sdk-invocation-id: {id}\r\n"
            );
            pod.post("/", &headers, &body)
        };
        assert_eq!(called("1"), called("1"), "an SDK's own retry");
        assert_ne!(called("1"), called("2"), "a second call");
    });
    assert_eq!(aws.billed("requests"), (3 + 3 + 5 + 5 + 7 + 7) * 1_000_000);
}

#[test]
fn an_idempotency_key_that_can_not_be_read_is_refused() {
    let aws = Aws::start();
    let report = r#"{"dimension":"requests","quantity":1}"#;
    let unreadable = [
        "idempotency-key:\r\n",
        "idempotency-key: n\u{fc}mber-1\r\n",
        "idempotency-key: 1\r\nidempotency-key: 1\r\n",
        "idempotency-key: 1\r\nidempotency-key: 2\r\n",
    ];
    requests_after(&aws, &Pod::new(&aws), |pod| {
        for lines in unreadable {
            let (code, answer) = pod.post("/v1/usage", lines, report);
            assert_eq!(code, 400, "{lines}: {answer}");
            assert_eq!(answer["error"]["code"], "ValidationException");
        }
    });
    assert_eq!(aws.billed("requests"), 0);
}

#[test]
fn a_token_with_escapes_in_its_json_reaches_aws() {
    let aws = Aws::start();
    requests_after(&aws, &Pod::new(&aws), |pod| {
        let target = "x-amz-target: AWSMPMeteringService.ResolveCustomer\r\n";
        for token in [r"AAAA\/BBBB", r"AAAA\u003d"] {
            let body = format!("{{\"RegistrationToken\":\"{token}\"}}");
            let (_, answer) = pod.post("/", target, &body);
            assert_eq!(
                answer["__type"], "com.amazonaws.marketplacemetering#InvalidTokenException",
                "AWS knows no such token: {answer}"
            );
        }
    });
    assert_eq!(aws.count("ResolveCustomer"), 2);
}
