//! A day in the life of a ledger, and an AWS that keeps the bill.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::mpsc::UnboundedReceiver;
use tollgate::ledger::disk::Disk;
use tollgate::ledger::{
    CallKey, Clock, Filter, KeyKind, Ledger, LedgerError, Opened, Options, ReportError,
};
use tollgate::meter::{Amount, Answer, Call, Combine, Gate, Report, Rules};
use tollgate::usage::{Allocation, Allocations, Hour, Moment, Period, Quantity, Tag, TagSet};

use crate::sim_disk::SimDisk;

/// 10:10 on some day.
const START: Moment = Moment::from_millis(497_222 * 3_600_000 + 600_000);
pub(crate) const REPORTS: usize = 40;

/// The world outside the ledger: it outlives every crash.
pub(crate) struct World {
    clock: Arc<AtomicI64>,
    /// Which reports were acknowledged.
    pub(crate) acknowledged: Vec<bool>,
    bill: BTreeMap<(String, Hour), (String, Quantity)>,
}

/// A process, as long as it lives.
pub(crate) struct Process {
    pub(crate) ledger: Ledger,
    pub(crate) opened: Opened,
    calls: UnboundedReceiver<Call>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            clock: Arc::new(AtomicI64::new(START.as_millis())),
            acknowledged: vec![false; REPORTS],
            bill: BTreeMap::new(),
        }
    }

    pub(crate) fn start(&self, disk: SimDisk) -> Result<Process, LedgerError> {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let (ledger, calls, opened) = Ledger::open_on(disk, &options(), self.clock())?;
        Ok(Process {
            ledger,
            opened,
            calls,
        })
    }

    /// Reports, an hour's end, a checkpoint, lost answers, more reports. Ends early when the ledger does.
    pub(crate) async fn live(&mut self, process: &mut Process) -> Result<(), LedgerError> {
        process.ledger.gate(Gate::Open).await?;
        self.report(process, 0..10).await;
        self.minutes_pass(process, 60).await?;
        self.answer(process, 1).await?;
        process.ledger.checkpoint().await?;
        self.report(process, 10..25).await;
        self.minutes_pass(process, 30).await?;
        self.answer(process, usize::MAX).await?;
        self.report(process, 25..30).await;
        self.minutes_pass(process, 50).await?;
        process.ledger.checkpoint().await?;
        self.report(process, 30..REPORTS).await;
        self.answer(process, 1).await
    }

    /// The app repeats what was not acknowledged under the same key, and everything is delivered.
    pub(crate) async fn finish(&mut self, process: &mut Process) {
        process.ledger.gate(Gate::Open).await.unwrap();
        self.report(process, 0..REPORTS).await;
        assert!(
            self.acknowledged.iter().all(|known| *known),
            "a sound ledger takes every report"
        );
        for _ in 0..40 {
            self.minutes_pass(process, 10).await.unwrap();
            self.answer(process, usize::MAX).await.unwrap();
        }
        for (dimension, expected) in expected() {
            let billed: u64 = self
                .bill
                .iter()
                .filter(|((of, _), _)| *of == dimension)
                .map(|(_, (_, q))| q.millionths())
                .sum();
            assert_eq!(
                billed, expected,
                "{dimension}: the bill on the left, the reports on the right"
            );
        }
        let summary = process.ledger.summary().await.unwrap();
        assert_eq!(
            (
                summary.open,
                summary.sealed,
                summary.in_doubt,
                summary.rejected
            ),
            (0, 0, 0, 0)
        );
    }

    /// What the ledger holds or has delivered, against what was acknowledged.
    pub(crate) async fn check_nothing_is_lost(&self, process: &Process) {
        let records = process.ledger.records(Filter::latest(1000)).await.unwrap();
        for (dimension, _) in expected() {
            let held: u128 = records
                .iter()
                .filter(|record| {
                    record.dimension.as_str() == dimension
                        && record.state.name() != "rolled_forward"
                })
                .map(|record| record.millionths)
                .sum();
            let acknowledged: u64 = (0..REPORTS)
                .filter(|index| self.acknowledged[*index] && dimension_of(*index) == dimension)
                .map(|index| amount_of(index).millionths())
                .sum();
            assert!(
                held >= acknowledged.into(),
                "{dimension}: {held} held, {acknowledged} acknowledged"
            );
        }
    }

    /// Reports what is not acknowledged yet, one after the other, the last few of them at once.
    pub(crate) async fn report(&mut self, process: &Process, range: std::ops::Range<usize>) {
        let unknown: Vec<_> = range.filter(|index| !self.acknowledged[*index]).collect();
        let (alone, together) = unknown.split_at(unknown.len().saturating_sub(4));
        for index in alone {
            let outcome = send(&process.ledger, *index).await;
            self.note(*index, &outcome);
        }
        let ledger = &process.ledger;
        let together = together
            .iter()
            .map(|index| async move { (*index, send(ledger, *index).await) });
        for (index, outcome) in join_all(together).await {
            self.note(index, &outcome);
        }
    }

    fn note(&mut self, index: usize, outcome: &Result<(), ReportError>) {
        match outcome {
            Ok(()) => self.acknowledged[index] = true,
            Err(ReportError::Failed(_)) => {}
            Err(other) => panic!("report {index}: {other}"),
        }
    }

    async fn minutes_pass(&self, process: &Process, minutes: i64) -> Result<(), LedgerError> {
        process.ledger.summary().await?;
        self.clock.fetch_add(minutes * 60_000, Ordering::SeqCst);
        process.ledger.summary().await.map(drop)
    }

    /// AWS gets every attempt made so far. The answers after the first `answered` are lost.
    async fn answer(&mut self, process: &mut Process, answered: usize) -> Result<(), LedgerError> {
        process.ledger.summary().await?;
        let mut count = 0;
        while let Ok(call) = process.calls.try_recv() {
            let (request, number) = (&call.attempts[0].request, call.attempts[0].number);
            let token = request.token.as_ref().unwrap();
            let hour = Period::HOUR.hour_of(request.timestamp);
            let id = format!("aws-{token}");
            let (id, billed) = self
                .bill
                .entry((request.key.dimension.to_string(), hour))
                .or_insert_with(|| (id, request.quantity))
                .clone();
            assert_eq!(id, format!("aws-{token}"), "one submission for each hour");
            assert_eq!(billed, request.quantity, "a submission never changes");
            count += 1;
            let answer = if count <= answered {
                Answer::Recorded { aws_id: id }
            } else {
                Answer::Doubtful {
                    why: "lost".to_owned(),
                }
            };
            process
                .ledger
                .answered(vec![(request.bucket, number, answer)])
                .await?;
        }
        Ok(())
    }

    fn clock(&self) -> Clock {
        let clock = self.clock.clone();
        Arc::new(move || Moment::from_millis(clock.load(Ordering::SeqCst)))
    }
}

async fn send(ledger: &Ledger, index: usize) -> Result<(), ReportError> {
    let quantity = amount_of(index);
    // Every fifth report is larger than a sector.
    let allocations = if index.is_multiple_of(5) && dimension_of(index) == "sum" {
        divided(quantity)
    } else {
        Allocations::NONE
    };
    let report = Report {
        customer: None,
        dimension: dimension_of(index).parse().unwrap(),
        amount: Amount::Quantity {
            quantity,
            allocations,
        },
        at: None,
    };
    let key = CallKey::new(KeyKind::ClientToken, &format!("token-{index}"), b"body");
    ledger.report(report, Some(key)).await.map(drop)
}

fn divided(quantity: Quantity) -> Allocations {
    let part = Quantity::from_millionths(quantity.millionths() / 20).unwrap();
    let parts = (0..20).map(|number| {
        let tags = TagSet::new(vec![
            Tag::new("cost-center", &format!("{number:0>200}")).unwrap(),
        ])
        .unwrap();
        Allocation {
            tags: Some(tags),
            quantity: part,
        }
    });
    Allocations::new(quantity, parts.collect()).unwrap()
}

fn dimension_of(index: usize) -> &'static str {
    if index.is_multiple_of(3) {
        "other"
    } else {
        "sum"
    }
}

fn amount_of(index: usize) -> Quantity {
    Quantity::from_millionths((index as u64 + 1) * 20_000_020).unwrap()
}

fn expected() -> Vec<(&'static str, u64)> {
    ["sum", "other"]
        .into_iter()
        .map(|dimension| {
            let of = (0..REPORTS).filter(|index| dimension_of(*index) == dimension);
            (
                dimension,
                of.map(|index| amount_of(index).millionths()).sum(),
            )
        })
        .collect()
}

fn options() -> Options {
    let dimensions = [
        ("sum".parse().unwrap(), Combine::Sum),
        ("other".parse().unwrap(), Combine::Sum),
    ];
    Options {
        product: "prod".parse().unwrap(),
        identity: "pod-1".parse().unwrap(),
        rules: Rules {
            period: Period::HOUR,
            straggler_wait_ms: 0,
            submit_jitter_ms: 0,
            dimensions: Some(dimensions.into()),
            saas: false,
            zero_usage: false,
        },
        segment_bytes: 16 * 1024,
        seed: Some(7),
    }
}

/// Polls all of them together, so that they make one batch.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(move |context| {
        let mut pending = false;
        for (future, output) in &mut running {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(
            running
                .iter_mut()
                .filter_map(|(_, output)| output.take())
                .collect(),
        )
    })
    .await
}
