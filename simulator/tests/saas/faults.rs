//! What goes wrong on purpose, and what is counted then.

use marketplace_simulator::fault::{Fault, Kind};
use serde_json::{Value, json};

use crate::seller::{Failure, NOW, Seller, exception, legacy, seconds, statuses};

/// Records of so many hours, with a quantity each of their own.
fn hours(count: i64) -> Vec<Value> {
    (0..count)
        .map(|hour| legacy(&json!({"Timestamp": seconds(NOW) - 3600 * hour, "Quantity": hour})))
        .collect()
}

fn unprocessed(answer: &Value) -> &[Value] {
    answer["UnprocessedRecords"].as_array().unwrap()
}

#[tokio::test]
async fn faults_of_the_call_count_all_of_the_batch_or_nothing() {
    let server_error = || Failure::Exception(500, "InternalServiceErrorException".to_owned());
    for (kind, failure, counted) in [
        (Kind::ReplyLost, Failure::NoAnswer, 3),
        (Kind::Truncated, Failure::NoAnswer, 3),
        (Kind::InternalErrorAfter, server_error(), 3),
        (Kind::ConnectionReset, Failure::NoAnswer, 0),
        (Kind::InternalError, server_error(), 0),
    ] {
        let seller = Seller::start().await;
        seller.batch_fault(kind);
        let answer = seller.meter_legacy(&hours(3)).await;
        assert_eq!(answer, Err(failure), "{kind:?}");
        assert_eq!(seller.billed().len(), counted, "{kind:?}");
        // The identical request settles it.
        let answer = seller.meter_legacy(&hours(3)).await.unwrap();
        assert_eq!(statuses(&answer), ["Success"; 3], "{kind:?}");
        assert_eq!(seller.billed().len(), 3, "{kind:?}");
    }
}

#[tokio::test]
async fn throttling_strikes_at_its_rate_and_counts_nothing() {
    let seller = Seller::start().await;
    seller.fault(Fault {
        operation: Some("BatchMeterUsage".to_owned()),
        error: Some("ThrottlingException".to_owned()),
        rate: Some(0.5),
        ..Fault::new(Kind::Error)
    });
    let mut throttled = 0;
    for hour in hours(20) {
        match seller.meter_legacy(&[hour]).await {
            Ok(_) => {}
            Err(failure) => {
                assert_eq!(failure, exception("ThrottlingException"));
                throttled += 1;
            }
        }
    }
    assert!((1..20).contains(&throttled), "{throttled}");
    assert_eq!(seller.billed().len(), 20 - throttled);
}

#[tokio::test]
async fn an_outage_passes_and_a_delay_holds_the_answer_back() {
    let seller = Seller::start().await;
    seller.fault(Fault {
        operation: Some("BatchMeterUsage".to_owned()),
        ..Fault::new(Kind::ConnectionReset)
    });
    for _ in 0..3 {
        let answer = seller.meter_legacy(&hours(1)).await;
        assert_eq!(answer, Err(Failure::NoAnswer));
    }
    seller.simulator.world().faults.clear();
    seller.fault(Fault {
        delay_ms: Some(200),
        ..Fault::new(Kind::Delay)
    });
    let before = std::time::Instant::now();
    seller.meter_legacy(&hours(1)).await.unwrap();
    assert!(before.elapsed().as_millis() >= 200);
    assert_eq!(seller.billed().len(), 1);
}

#[tokio::test]
async fn unprocessed_records_come_back_as_sent_and_count_only_when_sent_again() {
    let seller = Seller::start().await;
    seller.fault(Fault {
        record: Some(1),
        count: Some(1),
        ..Fault::new(Kind::Unprocessed)
    });
    let batch = hours(3);
    let answer = seller.meter_legacy(&batch).await.unwrap();
    assert_eq!(unprocessed(&answer), [batch[1].clone()]);
    assert_eq!(statuses(&answer), ["Success", "Success"]);
    let sent: Vec<_> = (0..2)
        .map(|place| answer["Results"][place]["UsageRecord"].clone())
        .collect();
    assert_eq!(sent, [batch[0].clone(), batch[2].clone()]);
    assert_eq!(seller.billed().len(), 2);
    let answer = seller.meter_legacy(unprocessed(&answer)).await.unwrap();
    assert_eq!(statuses(&answer), ["Success"]);
    assert_eq!(seller.billed().len(), 3);
}

#[tokio::test]
async fn a_whole_batch_can_stay_unprocessed() {
    let seller = Seller::start().await;
    seller.fault(Fault::new(Kind::Unprocessed));
    let batch = hours(24);
    let answer = seller.meter_legacy(&batch).await.unwrap();
    assert_eq!(unprocessed(&answer), batch);
    assert!(statuses(&answer).is_empty());
    assert!(seller.billed().is_empty());
}

#[tokio::test]
async fn records_stay_unprocessed_at_a_rate_the_same_ones_for_the_same_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let seller = Seller::start().await;
        seller.fault(Fault {
            rate: Some(0.25),
            ..Fault::new(Kind::Unprocessed)
        });
        let mut left = Vec::new();
        for _ in 0..10 {
            let answer = seller.meter_legacy(&hours(20)).await.unwrap();
            left.push(unprocessed(&answer).to_vec());
        }
        runs.push(left);
    }
    assert_eq!(runs[0], runs[1]);
    let share: usize = runs[0].iter().map(Vec::len).sum();
    assert!((30..70).contains(&share), "{share} of 200");
}

#[tokio::test]
async fn one_record_of_a_batch_can_fail_with_a_status() {
    for (kind, status) in [
        (Kind::CustomerNotSubscribed, "CustomerNotSubscribed"),
        (Kind::DuplicateRecord, "DuplicateRecord"),
    ] {
        let seller = Seller::start().await;
        seller.fault(Fault {
            count: Some(1),
            ..Fault::new(kind)
        });
        let answer = seller.meter_legacy(&hours(3)).await.unwrap();
        assert_eq!(statuses(&answer), [status, "Success", "Success"]);
        assert!(answer["Results"][0].get("MeteringRecordId").is_none());
        assert_eq!(seller.billed().len(), 2);
        assert!(seller.simulator.world().faults.list().is_empty());
    }
}

#[tokio::test]
async fn the_log_of_calls_has_batches_with_their_outcome() {
    let seller = Seller::start().await;
    seller.meter_legacy(&hours(1)).await.unwrap();
    seller.batch_fault(Kind::ConnectionReset);
    seller.meter_legacy(&hours(2)).await.unwrap_err();
    let world = seller.simulator.world();
    let calls: Vec<_> = world
        .calls()
        .map(|call| {
            let records = call.request["UsageRecords"].as_array().unwrap().len();
            (call.operation.as_str(), call.outcome.as_str(), records)
        })
        .collect();
    assert_eq!(
        calls,
        [
            ("BatchMeterUsage", "Success", 1),
            ("BatchMeterUsage", "ConnectionReset", 2)
        ]
    );
}
