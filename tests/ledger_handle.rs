//! The ledger as its callers see it, on a real directory.

#![allow(clippy::unwrap_used, reason = "a test stops where its set-up fails")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::mpsc::UnboundedReceiver;
use tollgate::ledger::{
    CallKey, Clock, Filter, KeyKind, Ledger, LedgerError, Opened, Options, Receipt, RecordState,
    ReportError, ResolutionError,
};
use tollgate::meter::{
    Amount, Answer, Call, Combine, Gate, Report, Resolution, ResolveError, Rules,
};
use tollgate::usage::{Allocations, BucketId, Moment, Period, RecordId};

struct Sidecar {
    ledger: Ledger,
    calls: UnboundedReceiver<Call>,
    opened: Opened,
    clock: Arc<AtomicI64>,
}

fn options() -> Options {
    Options {
        product: "prod".parse().unwrap(),
        identity: "pod-1".parse().unwrap(),
        rules: Rules {
            period: Period::HOUR,
            straggler_wait_ms: 0,
            submit_jitter_ms: 0,
            dimensions: Some([("gb".parse().unwrap(), Combine::Sum)].into()),
            zero_usage: false,
            saas: false,
        },
        segment_bytes: Options::SEGMENT_BYTES,
        seed: Some(1),
    }
}

fn start_with(
    directory: &Path,
    options: &Options,
    clock: Arc<AtomicI64>,
) -> Result<Sidecar, LedgerError> {
    let read = clock.clone();
    let now: Clock = Arc::new(move || Moment::from_millis(read.load(Ordering::SeqCst)));
    let (ledger, calls, opened) = Ledger::open(directory, options, now)?;
    Ok(Sidecar {
        ledger,
        calls,
        opened,
        clock,
    })
}

fn start(directory: &Path, clock: &Arc<AtomicI64>) -> Sidecar {
    start_with(directory, &options(), clock.clone()).unwrap()
}

/// 10:10 on some day.
fn clock() -> Arc<AtomicI64> {
    Arc::new(AtomicI64::new(497_222 * 3_600_000 + 600_000))
}

fn usage(quantity: &str) -> Report {
    let quantity = quantity.parse().unwrap();
    let amount = Amount::Quantity {
        quantity,
        allocations: Allocations::NONE,
    };
    Report {
        customer: None,
        dimension: "gb".parse().unwrap(),
        amount,
        at: None,
    }
}

fn token(text: &str, body: &str) -> CallKey {
    CallKey::new(KeyKind::ClientToken, text, body.as_bytes())
}

impl Sidecar {
    async fn report(&self, quantity: &str, key: Option<CallKey>) -> Result<Receipt, ReportError> {
        self.ledger.report(usage(quantity), key).await
    }

    async fn minutes_pass(&self, minutes: i64) {
        self.clock.fetch_add(minutes * 60_000, Ordering::SeqCst);
        self.ledger.summary().await.unwrap();
    }

    async fn answer(&mut self, answer: Answer) -> BucketId {
        self.ledger.summary().await.unwrap();
        let call = self.calls.try_recv().expect("something was sent");
        let attempt = &call.attempts[0];
        let bucket = attempt.request.bucket;
        self.ledger
            .answered(vec![(bucket, attempt.number, answer)])
            .await
            .unwrap();
        bucket
    }

    async fn state_of(&self, id: RecordId) -> RecordState {
        self.ledger
            .lookup(id)
            .await
            .unwrap()
            .expect("a record")
            .state
    }
}

#[tokio::test]
async fn an_id_leads_to_its_record_from_report_to_history() {
    let directory = tempfile::tempdir().unwrap();
    let mut sidecar = start(directory.path(), &clock());
    sidecar.ledger.gate(Gate::Open).await.unwrap();
    let id = sidecar.report("1.5", None).await.unwrap().id;
    assert_eq!(sidecar.state_of(id).await, RecordState::Open);
    sidecar.minutes_pass(50).await;
    assert_eq!(sidecar.state_of(id).await, RecordState::Sealed);
    let bucket = sidecar
        .answer(Answer::Recorded {
            aws_id: "aws-1".to_owned(),
        })
        .await;
    sidecar.ledger.checkpoint().await.unwrap();
    let RecordState::Settled { aws_id, .. } = sidecar.state_of(id).await else {
        panic!("settled")
    };
    assert_eq!(aws_id.as_deref(), Some("aws-1"));
    let records = sidecar.ledger.records(Filter::latest(10)).await.unwrap();
    assert_eq!(
        records
            .iter()
            .map(|r| (r.bucket, r.quantity()))
            .collect::<Vec<_>>(),
        [(bucket, "1.5".to_owned())]
    );
    let foreign: RecordId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
    assert_eq!(sidecar.ledger.lookup(foreign).await.unwrap(), None);
}

#[tokio::test]
async fn the_same_key_counts_once_even_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let sidecar = start(directory.path(), &clock);
    let first = sidecar.report("2", Some(token("t", "body"))).await.unwrap();
    let again = sidecar.report("2", Some(token("t", "body"))).await.unwrap();
    assert_eq!(
        again,
        Receipt {
            repeated: true,
            ..first
        }
    );
    assert!(matches!(
        sidecar.report("3", Some(token("t", "other"))).await,
        Err(ReportError::Conflict)
    ));
    drop(sidecar);
    let sidecar = start(directory.path(), &clock);
    assert_eq!(
        sidecar.opened,
        Opened::default(),
        "a clean end leaves nothing to replay"
    );
    assert_eq!(
        sidecar.report("2", Some(token("t", "body"))).await.unwrap(),
        again
    );
    sidecar.minutes_pass(10).await;
    assert!(
        !sidecar
            .report("2", Some(token("t", "body")))
            .await
            .unwrap()
            .repeated
    );
    assert_eq!(
        sidecar.ledger.records(Filter::latest(9)).await.unwrap()[0].quantity(),
        "4"
    );
}

#[tokio::test]
async fn equal_keys_within_one_batch_count_once() {
    let directory = tempfile::tempdir().unwrap();
    let sidecar = start(directory.path(), &clock());
    let (one, other) = tokio::join!(
        sidecar.report("2", Some(token("t", "body"))),
        sidecar.report("2", Some(token("t", "body")))
    );
    assert_eq!(one.unwrap().id, other.unwrap().id);
    assert_eq!(
        sidecar.ledger.records(Filter::latest(9)).await.unwrap()[0].quantity(),
        "2"
    );
}

#[tokio::test]
async fn a_report_that_is_refused_does_not_use_its_key_up() {
    let directory = tempfile::tempdir().unwrap();
    let sidecar = start(directory.path(), &clock());
    let mut unknown = usage("1");
    unknown.dimension = "tb".parse().unwrap();
    assert!(matches!(
        sidecar
            .ledger
            .report(unknown, Some(token("t", "body")))
            .await,
        Err(ReportError::Refused(_))
    ));
    assert!(
        !sidecar
            .report("1", Some(token("t", "body")))
            .await
            .unwrap()
            .repeated
    );
}

#[tokio::test]
async fn a_record_in_doubt_is_resolved_while_the_sidecar_runs() {
    let directory = tempfile::tempdir().unwrap();
    let mut sidecar = start(directory.path(), &clock());
    sidecar.ledger.gate(Gate::Open).await.unwrap();
    let id = sidecar.report("5", None).await.unwrap().id;
    sidecar.minutes_pass(50).await;
    let bucket = sidecar
        .answer(Answer::Doubtful {
            why: "time-out".to_owned(),
        })
        .await;
    let early = sidecar.ledger.resolve(bucket, Resolution::Delivered).await;
    assert!(matches!(
        early,
        Err(ResolutionError::Resolve(ResolveError::NotInDoubt {
            status: "sealed",
            ..
        }))
    ));
    sidecar.minutes_pass(6 * 60).await;
    assert_eq!(sidecar.ledger.summary().await.unwrap().in_doubt, 1);
    sidecar
        .ledger
        .resolve(bucket, Resolution::Delivered)
        .await
        .unwrap();
    assert!(matches!(
        sidecar.state_of(id).await,
        RecordState::Settled { aws_id: None, .. }
    ));
    sidecar.ledger.checkpoint().await.unwrap();
    let late = sidecar.ledger.resolve(bucket, Resolution::Delivered).await;
    assert!(matches!(
        late,
        Err(ResolutionError::Resolve(ResolveError::NotInDoubt {
            status: "settled",
            ..
        }))
    ));
    let unknown = sidecar
        .ledger
        .resolve(BucketId(999), Resolution::Delivered)
        .await;
    assert!(matches!(
        unknown,
        Err(ResolutionError::Resolve(ResolveError::Unknown(_)))
    ));
}

#[tokio::test]
async fn a_ledger_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let _sidecar = start(directory.path(), &clock);
    let locked = start_with(directory.path(), &options(), clock.clone())
        .err()
        .unwrap();
    assert!(
        locked
            .to_string()
            .contains("another tollgate uses the ledger"),
        "{locked}"
    );
}

#[tokio::test]
async fn a_ledger_of_another_product_or_period_is_kept_aside_and_a_new_one_begins() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let sidecar = start(directory.path(), &clock);
    sidecar.report("5", None).await.unwrap();
    drop(sidecar);
    let product = Options {
        product: "other".parse().unwrap(),
        ..options()
    };
    let mut period = product.clone();
    period.rules.period = Period::from_millis(2000).unwrap();
    for other in [product, period] {
        let sidecar = start_with(directory.path(), &other, clock.clone()).unwrap();
        let aside = sidecar
            .opened
            .damaged
            .clone()
            .expect("it says what was there");
        assert!(
            directory
                .path()
                .join(&aside.moved_to)
                .join("ledger.redb")
                .exists()
        );
        assert_eq!(sidecar.ledger.summary().await.unwrap().open, 0);
    }
}

#[tokio::test]
async fn the_owner_wakes_by_itself_when_an_hour_ends() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let mut sidecar = start(directory.path(), &clock);
    sidecar.ledger.gate(Gate::Open).await.unwrap();
    sidecar.report("5", None).await.unwrap();
    clock.fetch_add(50 * 60_000, Ordering::SeqCst);
    let bound = std::time::Duration::from_secs(10);
    let call = tokio::time::timeout(bound, sidecar.calls.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(call.attempts[0].request.quantity.to_string(), "5");
}

#[tokio::test]
async fn keys_and_usage_outlive_segments_and_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let small = Options {
        segment_bytes: 4096,
        ..options()
    };
    let sidecar = start_with(directory.path(), &small, clock.clone()).unwrap();
    for number in 0..300 {
        sidecar
            .report("1", Some(token(&number.to_string(), "body")))
            .await
            .unwrap();
        if number % 100 == 50 {
            sidecar.ledger.checkpoint().await.unwrap();
        }
    }
    drop(sidecar);
    let sidecar = start_with(directory.path(), &small, clock).unwrap();
    for number in 0..300 {
        let receipt = sidecar
            .report("1", Some(token(&number.to_string(), "body")))
            .await
            .unwrap();
        assert!(receipt.repeated, "{number}");
    }
    let segments = || std::fs::read_dir(directory.path()).unwrap().count() - 2;
    assert!(segments() > 5, "{} segments", segments());
    sidecar.minutes_pass(10).await;
    sidecar.report("1", None).await.unwrap();
    sidecar.ledger.checkpoint().await.unwrap();
    let held = sidecar.ledger.records(Filter::latest(9)).await.unwrap()[0].quantity();
    assert_eq!(held, "301");
    assert!(
        segments() <= 4,
        "{} segments once the keys are old",
        segments()
    );
}
