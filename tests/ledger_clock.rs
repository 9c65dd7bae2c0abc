//! The wall clock jumps under a running ledger: an hour back, an hour forward, over the end of a month.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::mpsc::UnboundedReceiver;
use tollgate::ledger::{Filter, Ledger, Options};
use tollgate::meter::{Amount, Answer, Call, Gate, Report, Rules};
use tollgate::usage::{Allocations, Moment, Period, Quantity};

/// A ledger on a real folder, AWS that counts everything, and a clock that can be set.
struct Scene {
    ledger: Ledger,
    calls: UnboundedReceiver<Call>,
    clock: Arc<AtomicI64>,
    reported: u64,
    /// The hours that AWS has a record for, and what is billed in all.
    hours: BTreeSet<i64>,
    billed: u64,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn at(time: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(millis(time)));
        let options = Options {
            product: "prod".parse().unwrap(),
            identity: "pod-1".parse().unwrap(),
            rules: Rules {
                period: Period::HOUR,
                straggler_wait_ms: 60_000,
                submit_jitter_ms: 0,
                dimensions: None,
                zero_usage: false,
                saas: false,
            },
            segment_bytes: Options::SEGMENT_BYTES,
            seed: Some(1),
        };
        let read = Arc::clone(&clock);
        let now = Arc::new(move || Moment::from_millis(read.load(Ordering::SeqCst)));
        let (ledger, calls, _) = Ledger::open(folder.path(), &options, now).unwrap();
        ledger.gate(Gate::Open).await.unwrap();
        Self {
            ledger,
            calls,
            clock,
            reported: 0,
            hours: BTreeSet::new(),
            billed: 0,
            _folder: folder,
        }
    }

    /// Sets the clock, reports one unit, and answers what is sent.
    async fn report_at(&mut self, time: &str) {
        self.set(time).await;
        let report = Report {
            customer: None,
            dimension: "gb".parse().unwrap(),
            amount: Amount::Quantity {
                quantity: Quantity::ONE,
                allocations: Allocations::NONE,
            },
            at: None,
        };
        self.ledger.report(report, None).await.unwrap();
        self.reported += 1;
        self.set(time).await;
    }

    async fn set(&mut self, time: &str) {
        self.clock.store(millis(time), Ordering::SeqCst);
        // The owner looks at the clock before it answers, and sends after it: the second answer comes after that.
        self.ledger.summary().await.unwrap();
        self.ledger.summary().await.unwrap();
        while let Ok(call) = self.calls.try_recv() {
            let (request, number) = (&call.attempts[0].request, call.attempts[0].number);
            let hour = Period::HOUR.hour_of(request.timestamp).start().as_millis();
            assert!(self.hours.insert(hour), "{hour} gets a second record");
            self.billed += request.quantity.millionths();
            let recorded = Answer::Recorded {
                aws_id: "aws".to_owned(),
            };
            self.ledger
                .answered(vec![(request.bucket, number, recorded)])
                .await
                .unwrap();
        }
    }

    /// What AWS has and what is still open is what was reported.
    async fn is_balanced(&self) {
        let records = self.ledger.records(Filter::latest(100)).await.unwrap();
        let open = records
            .iter()
            .filter(|record| record.state.name() == "open");
        let open: u128 = open.map(|record| record.millionths).sum();
        assert_eq!(
            u128::from(self.billed) + open,
            u128::from(self.reported) * 1_000_000
        );
    }
}

fn millis(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

#[tokio::test]
async fn a_clock_set_back_an_hour_reopens_no_hour() {
    let mut scene = Scene::at("2026-11-24T10:10:00Z").await;
    scene.report_at("2026-11-24T10:10:00Z").await;
    scene.report_at("2026-11-24T11:10:00Z").await;
    assert_eq!(scene.billed, 1_000_000);
    scene.report_at("2026-11-24T10:15:00Z").await;
    scene.is_balanced().await;
    scene.report_at("2026-11-24T11:20:00Z").await;
    scene.set("2026-11-24T12:10:00Z").await;
    scene.is_balanced().await;
    assert_eq!((scene.hours.len(), scene.billed), (2, 4_000_000));
}

#[tokio::test]
async fn a_clock_set_forward_and_back_loses_nothing() {
    let mut scene = Scene::at("2026-11-24T10:10:00Z").await;
    scene.report_at("2026-11-24T10:10:00Z").await;
    for time in [
        "2026-11-24T12:10:00Z",
        "2026-11-24T10:20:00Z",
        "2026-11-24T11:20:00Z",
        "2026-11-24T13:20:00Z",
    ] {
        scene.report_at(time).await;
        scene.is_balanced().await;
    }
    scene.set("2026-11-24T15:00:00Z").await;
    scene.is_balanced().await;
    assert_eq!(scene.billed, 5_000_000);
}

#[tokio::test]
async fn the_end_of_a_month_is_an_hour_like_any_other_in_both_directions() {
    let mut scene = Scene::at("2026-11-30T23:50:00Z").await;
    for time in [
        "2026-11-30T23:50:00Z",
        "2026-12-01T00:10:00Z",
        "2026-11-30T23:55:00Z",
        "2026-12-01T00:20:00Z",
    ] {
        scene.report_at(time).await;
        scene.is_balanced().await;
    }
    scene.set("2026-12-01T02:10:00Z").await;
    scene.is_balanced().await;
    assert_eq!((scene.hours.len(), scene.billed), (2, 4_000_000));
}
