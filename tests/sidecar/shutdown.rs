//! The end of a pod: late reports, the last flush, and what is said of what could not be sent.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::aws::Aws;
use crate::pod::{Pod, early_in_the_hour, get, poll};

fn usage(quantity: u32) -> Value {
    json!({"dimension": "requests", "quantity": quantity})
}

#[test]
fn late_reports_are_taken_and_billed_before_the_exit() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    pod.reported(&usage(1));
    sidecar.signal("TERM");
    sidecar.answers("/readyz", 503);
    let signalled = Instant::now();
    for _ in 0..5 {
        pod.reported(&usage(10));
    }
    assert_eq!(sidecar.ends(), 0, "{}", pod.log());
    assert!(signalled.elapsed() < Duration::from_secs(25));
    assert_eq!(aws.billed("requests"), 51_000_000);
}

#[test]
fn reports_during_the_last_flush_are_refused_and_everything_before_is_billed() {
    let aws = Aws::start();
    let pod = Pod::new(&aws).with("TOLLGATE_SHUTDOWN_GRACE", "6s");
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    aws.delay("MeterUsage", Duration::from_millis(1200), 1);
    let mut taken = 1;
    pod.reported(&usage(1));
    sidecar.signal("TERM");
    let refusal = poll(|| match pod.report(&usage(1)) {
        (200, _) => {
            taken += 1;
            None
        }
        refusal => Some(refusal),
    });
    let (code, answer) = refusal.expect("the silence ends with 60 % of the grace");
    assert_eq!(code, 503);
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("is shutting down"),
        "{answer}"
    );
    assert_eq!(sidecar.ends(), 0, "{}", pod.log());
    assert_eq!(aws.billed("requests"), taken * 1_000_000);
}

#[test]
fn without_usage_the_end_is_quick() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let signalled = Instant::now();
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0);
    assert!(
        signalled.elapsed() < Duration::from_secs(2),
        "{:?}",
        signalled.elapsed()
    );
}

#[test]
fn what_could_not_be_sent_is_in_the_log_with_all_it_takes_to_bill_it() {
    let aws = Aws::with_hours_of(Duration::from_hours(1), &["requests", "gb"]);
    let pod = Pod::new(&aws).with("TOLLGATE_SHUTDOWN_GRACE", "4s");
    // What Kubernetes mounts into a container.
    let message = pod.write("dev/termination-log", "");
    early_in_the_hour();
    let script = format!(
        "mount --bind '{}' /dev; exec \"$0\" run",
        pod.path("dev").display()
    );
    let mut sidecar = pod.start_by(&script);
    sidecar.answers("/readyz", 200);
    aws.outage();
    pod.reported(&usage(3));
    let tags = json!({"team": "red"});
    pod.reported(&json!({"dimension": "gb", "quantity": "0.25", "allocations": [{"quantity": "0.25", "tags": tags}]}));
    let signalled = Instant::now();
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0, "{}", pod.log());
    assert!(
        signalled.elapsed() < Duration::from_secs(5),
        "{:?}",
        signalled.elapsed()
    );
    let lines = pod.log_lines("not billed at shutdown");
    assert_eq!(lines.len(), 2, "{lines:?}");
    let line = |dimension: &str| {
        let found = lines.iter().find(|line| line["dimension"] == dimension);
        found.unwrap().clone()
    };
    assert_eq!(line("requests")["quantity"], "3");
    let gb = line("gb");
    assert_eq!(
        (&gb["quantity"], &gb["state"]),
        (&json!("0.25"), &json!("sealed"))
    );
    assert!(gb["allocations"].as_str().unwrap().contains("red"), "{gb}");
    for field in ["hour", "timestamp", "problem"] {
        assert!(gb[field].is_string(), "{field} is missing in {gb}");
    }
    let message = std::fs::read_to_string(message).unwrap();
    assert!(
        message.starts_with("tollgate: 2 metering records are not billed"),
        "{message}"
    );
    aws.clear_faults();
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    poll(|| (aws.billed("requests") == 3_000_000).then_some(())).expect("a restart sends it");
    poll(|| (aws.billed("gb") == 250_000).then_some(())).expect("a restart sends it");
}

#[test]
fn a_second_signal_ends_the_flush_at_once() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    aws.outage();
    pod.reported(&usage(3));
    sidecar.signal("TERM");
    let signalled = Instant::now();
    poll(|| (aws.count("MeterUsage") > 0).then_some(())).expect("it flushes");
    assert!(sidecar.is_running());
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 128 + 15);
    assert!(signalled.elapsed() < Duration::from_secs(10));
    aws.clear_faults();
    let _sidecar = pod.start();
    poll(|| (aws.billed("requests") == 3_000_000).then_some(())).expect("a restart sends it");
}

#[test]
fn a_restart_in_the_same_hour_carries_later_usage_into_the_next() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    early_in_the_hour();
    for quantity in [3, 4] {
        let mut sidecar = pod.start();
        sidecar.answers("/readyz", 200);
        pod.reported(&usage(quantity));
        sidecar.signal("TERM");
        assert_eq!(sidecar.ends(), 0, "{}", pod.log());
    }
    assert_eq!(aws.billed("requests"), 3_000_000, "the hour has its record");
    let lines = pod.log_lines("not billed at shutdown");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(
        (&lines[0]["quantity"], &lines[0]["state"]),
        (&json!("4"), &json!("open"))
    );
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let records = pod.usage();
    assert_eq!(records.len(), 2);
    assert!(records[1]["hour"].as_str() > records[0]["hour"].as_str());
    assert_eq!(aws.requests().len(), 1);
}

#[test]
fn quitquitquit_drains_where_it_is_on() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let (code, answer) = pod.post("/quitquitquit", "", "");
    assert_eq!(code, 404);
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("TOLLGATE_QUITQUITQUIT is off")
    );
    assert!(sidecar.is_running());
    drop(sidecar);

    let pod = pod.with("TOLLGATE_QUITQUITQUIT", "on");
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    assert_eq!(get(pod.metering, "/quitquitquit").unwrap().0, 405);
    pod.reported(&usage(3));
    assert_eq!(
        pod.post("/quitquitquit", "", ""),
        (200, json!({"draining": true}))
    );
    assert_eq!(sidecar.ends(), 0, "{}", pod.log());
    assert_eq!(aws.billed("requests"), 3_000_000);
}
