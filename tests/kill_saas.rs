//! SIGKILL at random moments under a SaaS product's load, while AWS misbehaves: what AWS bills each customer is what was
//! acknowledged for it.
//!
//! As in `kill.rs`, with customers: calls of 1 to 25 records for many customers by license and by identifier, repeated under
//! one invocation id until they are answered. AWS also leaves records unprocessed, finds duplicates where there are none,
//! refuses whole calls for one record's timestamp, and takes customers' subscriptions away for a while. All four operations at
//! once, with the task's or pod's own usage beside the customers', are tried as well, with and without signatures.
//!
//! `KILLS` sets how many processes are killed in the first test, `KILL_SEED` repeats a run's decisions.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[allow(dead_code, reason = "shared with tests/sidecar, which uses all of it")]
#[path = "sidecar/aws.rs"]
mod aws;
#[path = "kill/batches.rs"]
mod batches;
#[allow(dead_code, reason = "shared with tests/kill.rs")]
#[path = "kill/clients.rs"]
mod clients;
#[path = "kill/drains.rs"]
mod drains;
#[allow(dead_code, reason = "shared with tests/kill.rs")]
#[path = "kill/expected.rs"]
mod expected;
#[path = "kill/moments.rs"]
mod moments;
#[allow(dead_code, reason = "shared with tests/sidecar, which uses all of it")]
#[path = "sidecar/pod.rs"]
mod pod;
#[path = "kill/questions.rs"]
mod questions;
#[path = "kill/run.rs"]
mod run;
#[path = "kill/signed.rs"]
mod signed;
#[allow(dead_code, reason = "shared with tests/auth.rs, which uses all of it")]
#[path = "auth/signer.rs"]
mod signer;
#[path = "kill/weather.rs"]
mod weather;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aws::Aws;
use batches::{BATCH_WAYS, DIMENSIONS, put_customers};
use clients::{Load, METERING_WAYS, Write, plain};
use pod::{Pod, poll};
use questions::{QUESTIONS, put_tokens};
use run::{Settings, kill_under_load};
use serde_json::{Value, json};
use weather::{Climate, Weather};

pub(crate) const PERIOD_MS: i64 = 400;
pub(crate) const STRAGGLER_WAIT_MS: i64 = 100;
const KILLS_DEFAULT: u64 = 16;
/// Of each test with all four operations.
const RESTARTS: u64 = 15;
/// Longer than AWS takes a customer's record, which is a day.
const OUTAGE: Duration = Duration::from_millis(25 * PERIOD_MS.unsigned_abs());

#[test]
fn what_aws_bills_each_customer_is_what_was_acknowledged() {
    let settings = Settings::read("customers", KILLS_DEFAULT);
    let aws = aws();
    let pod = pod(&aws)
        .without("TOLLGATE_PUBLIC_KEYS")
        .with("TOLLGATE_ENTITLEMENT_CHECK", "none")
        .with("TOLLGATE_SAAS_MODE", "aggregate")
        .with("TOLLGATE_DIMENSIONS", "requests,gb,tagged,users:max");
    let climate = Climate {
        operations: &["BatchMeterUsage"],
        outage: OUTAGE,
        further: records_faults(),
    };
    let weather = Weather::new(&aws, climate);
    let load = Load::start(pod.metering, settings.seed, &BATCH_WAYS, plain);
    let mut subscriptions = Subscriptions::new(&aws, &pod);
    let outcome = kill_under_load(&pod, &aws, load, weather, settings, |kill, weather| {
        subscriptions.change(kill, weather)
    });
    let enough = settings.kills >= KILLS_DEFAULT;
    assert!(!enough || outcome.doubts > 0, "an outage outlasts a day");
    assert!(
        !enough || outcome.expected.unsubscribed > 0,
        "apps are told who is not subscribed"
    );
}

#[test]
fn all_four_operations_at_once_bill_what_was_acknowledged() {
    let aws = aws();
    let pod = container_pod(&aws);
    all_four_operations("all four", &aws, &pod, plain);
}

#[test]
fn all_four_operations_at_once_bill_what_signed_calls_reported() {
    let aws = aws();
    let pod = container_pod(&aws);
    let keys = pod.write("clients.toml", &signed::keys());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o400);
    std::fs::set_permissions(&keys, mode).unwrap();
    let pod = pod.with("TOLLGATE_CLIENT_AUTH_FILE", &keys.display().to_string());
    all_four_operations("all four, signed", &aws, &pod, signed::signed);
    let aws_before = aws.count("ResolveCustomer");
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    let target = "x-amz-target: AWSMPMeteringService.ResolveCustomer\r\n";
    let (code, answer) = pod.post(
        "/",
        target,
        "{\"RegistrationToken\":\"registration-0-true\"}",
    );
    assert_eq!(code, 400, "signatures are demanded: {answer}");
    assert_eq!(aws.count("ResolveCustomer"), aws_before);
}

fn all_four_operations(name: &str, aws: &Aws, pod: &Pod, write: Write) {
    let settings = Settings {
        kills: RESTARTS,
        ..Settings::read(name, RESTARTS)
    };
    put_tokens(aws);
    // The sidecar's own registration and the beginning of the pod come first.
    let mut first = pod.start();
    first.answers("/readyz", 200);
    let ways = [&METERING_WAYS[..], &BATCH_WAYS[..2], &QUESTIONS].concat();
    let load = Load::start(pod.metering, settings.seed, &ways, write);
    drop(first);
    let mut further = records_faults();
    for attack in ["other-nonce", "missing"] {
        further.push(
            json!({"operation": "RegisterUsage", "kind": "attack", "attack": attack, "rate": 0.1}),
        );
    }
    let climate = Climate {
        operations: &[
            "MeterUsage",
            "BatchMeterUsage",
            "ResolveCustomer",
            "RegisterUsage",
        ],
        outage: OUTAGE,
        further,
    };
    let weather = Weather::new(aws, climate);
    let outcome = kill_under_load(pod, aws, load, weather, settings, |_, _| false);
    for what in ["ResolveCustomer", "RegisterUsage", "challenge"] {
        assert!(outcome.expected.answered.contains_key(what), "{what}");
    }
}

fn aws() -> Aws {
    let period = Duration::from_millis(PERIOD_MS.unsigned_abs());
    let aws = Aws::with_hours_of(period, &[&DIMENSIONS[..], &["hosts"]].concat());
    put_customers(&aws, 0);
    aws
}

fn pod(aws: &Aws) -> Pod {
    Pod::new(aws)
        .with("TOLLGATE_METERING_PERIOD", &format!("{PERIOD_MS}ms"))
        .with("TOLLGATE_STRAGGLER_WAIT", &format!("{STRAGGLER_WAIT_MS}ms"))
        .with("TOLLGATE_SUBMIT_JITTER", "50ms")
        .with("TOLLGATE_LOG", "error")
}

/// A container product whose program meters customers, too.
fn container_pod(aws: &Aws) -> Pod {
    pod(aws).with(
        "TOLLGATE_DIMENSIONS",
        "requests,gb,tagged,users:max,hosts:distinct",
    )
}

/// Records that AWS does not count, and says so each in its own way.
fn records_faults() -> Vec<Value> {
    let batch = "BatchMeterUsage";
    vec![
        json!({"operation": batch, "kind": "unprocessed", "rate": 0.05}),
        json!({"operation": batch, "kind": "duplicate-record", "rate": 0.01}),
        json!({"operation": batch, "kind": "error", "error": "TimestampOutOfBoundsException", "rate": 0.02}),
    ]
}

/// Customers whose subscriptions AWS does not see for a few hours, once in sixty kills.
struct Subscriptions<'a> {
    aws: &'a Aws,
    pod: &'a Pod,
    next: u64,
    lost: Option<Instant>,
}

impl<'a> Subscriptions<'a> {
    /// Far less than a day: what is refused for longer is rejected, and not billed.
    const GAP: Duration = Duration::from_millis(5 * PERIOD_MS.unsigned_abs());

    fn new(aws: &'a Aws, pod: &'a Pod) -> Self {
        Self {
            aws,
            pod,
            next: 2,
            lost: None,
        }
    }

    fn change(&mut self, kill: u64, weather: &Weather<'_>) -> bool {
        match self.lost {
            None if kill >= self.next => {
                self.next = kill + 60;
                self.lost = Some(Instant::now());
                put_customers(self.aws, 4);
                self.aws.add_fault(
                    json!({"operation": "BatchMeterUsage", "kind": "customer-not-subscribed", "rate": 0.1}),
                );
            }
            Some(lost) if lost.elapsed() > Self::GAP => {
                self.lost = None;
                put_customers(self.aws, 0);
                weather.misbehave();
                self.wait_for_records();
            }
            None | Some(_) => {}
        }
        self.lost.is_some()
    }

    /// What was refused so far has to be taken before an outage that has it expire as refused.
    fn wait_for_records(&self) {
        let mut sidecar = self.pod.start();
        sidecar.answers("/readyz", 200);
        let sealed = || -> BTreeSet<u64> {
            let records = self.pod.usage();
            let sealed = records.iter().filter(|record| record["state"] == "sealed");
            sealed
                .map(|record| record["id"].as_u64().unwrap())
                .collect()
        };
        let refused = sealed();
        poll(|| sealed().is_disjoint(&refused).then_some(()))
            .expect("AWS takes what it has refused");
    }
}
