//! `TOLLGATE_ON_METERING_FAILURE`, with a ledger whose clock is set: two hours are the least that it takes, and the clock of
//! another process can't be set from outside.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tollgate::config::EntitlementCheck;
use tollgate::config::metering::{Listen, MeteringConfig, OnMeteringFailure};
use tollgate::entitlement::registrar;
use tollgate::entitlement::status::{StateName, Status};
use tollgate::health::Health;
use tollgate::ledger::{Ledger, Options};
use tollgate::meter::{Amount, Answer, Call, Gate, Report, Rules};
use tollgate::shutdown;
use tollgate::usage::{Allocations, Moment, Period, Quantity};

const HOUR_MS: i64 = 3_600_000;

fn rules() -> Rules {
    Rules {
        period: Period::HOUR,
        straggler_wait_ms: 0,
        submit_jitter_ms: 0,
        dimensions: None,
        zero_usage: false,
        saas: false,
    }
}

/// A ledger with a record that was sealed so long ago and has not been delivered.
async fn undelivered(
    directory: &std::path::Path,
    ago_ms: i64,
) -> (Ledger, UnboundedReceiver<Call>) {
    let options = Options {
        product: "prod".parse().unwrap(),
        identity: "pod-1".parse().unwrap(),
        rules: rules(),
        segment_bytes: Options::SEGMENT_BYTES,
        seed: Some(1),
    };
    let then = Moment::from(jiff::Timestamp::now()).plus_ms(-ago_ms);
    let (ledger, calls, _) = Ledger::open(directory, &options, Arc::new(move || then)).unwrap();
    let amount = Amount::Quantity {
        quantity: Quantity::ONE,
        allocations: Allocations::NONE,
    };
    let dimension = "gb".parse().unwrap();
    let report = Report {
        customer: None,
        dimension,
        amount,
        at: None,
    };
    ledger.report(report, None).await.unwrap();
    ledger.gate(Gate::Open).await.unwrap();
    ledger.drain().await.unwrap();
    (ledger, calls)
}

async fn readiness(health: &Health) -> u16 {
    health
        .answer(&Method::GET, "/readyz")
        .await
        .status()
        .as_u16()
}

/// Health over `ledger`, as it is for an entitled buyer.
fn health(on_failure: OnMeteringFailure, ledger: &Ledger) -> Health {
    let entitled = Status {
        state: StateName::Entitled,
        ..registrar::pending(&"prod".parse().unwrap(), &EntitlementCheck::None)
    };
    let config = MeteringConfig {
        listen: Listen::Tcp("127.0.0.1:8421".parse().unwrap()),
        client_auth: None,
        saas_mode: None,
        rules: rules(),
        on_failure,
        quitquitquit: false,
    };
    let (_, drain) = shutdown::drain();
    let (_, status) = watch::channel(entitled);
    let (_, ledger) = watch::channel(Some(ledger.clone()));
    Health::new(status, ledger, &config, drain)
}

#[tokio::test]
async fn readiness_fails_closed_once_usage_has_waited_too_long_and_recovers_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, mut calls) = undelivered(folder.path(), 5 * HOUR_MS).await;
    let closed = health(OnMeteringFailure::Closed(Duration::from_hours(2)), &ledger);
    let patient = health(OnMeteringFailure::Closed(Duration::from_hours(6)), &ledger);
    let open = health(OnMeteringFailure::Open, &ledger);
    assert_eq!(readiness(&closed).await, 503);
    assert_eq!(readiness(&patient).await, 200);
    assert_eq!(readiness(&open).await, 200);
    let call = calls.recv().await.unwrap();
    let attempt = &call.attempts[0];
    let recorded = Answer::Recorded {
        aws_id: "aws-1".to_owned(),
    };
    let bucket = attempt.request.bucket;
    ledger
        .answered(vec![(bucket, attempt.number, recorded)])
        .await
        .unwrap();
    assert_eq!(readiness(&closed).await, 200);
}

#[tokio::test]
async fn the_waiting_counts_from_the_end_of_the_hour() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Moment::from(jiff::Timestamp::now()).as_millis();
    // A minute after an hour began, which ended 59 minutes later.
    let ago_ms = now_ms % HOUR_MS + 5 * HOUR_MS - 60_000;
    let (ledger, _attempts) = undelivered(folder.path(), ago_ms).await;
    let used_min = ago_ms.unsigned_abs() / 60_000;
    for (allowed, ready) in [
        (Duration::from_mins(used_min - 30), 200),
        (Duration::from_mins(used_min - 90), 503),
    ] {
        let health = health(OnMeteringFailure::Closed(allowed), &ledger);
        assert_eq!(readiness(&health).await, ready, "{allowed:?}");
    }
}
