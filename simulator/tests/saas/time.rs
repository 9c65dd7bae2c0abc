//! 24 hours back, hardly ahead, and the month that closes at 06:00 UTC on the first.

use serde_json::json;

use crate::seller::{
    Failure, NOW, Seller, exception, legacy, licensed, record_id, seconds, statuses,
};

fn out_of_bounds() -> Failure {
    exception("TimestampOutOfBoundsException")
}

#[tokio::test]
async fn usage_is_taken_for_less_than_24_hours() {
    let seller = Seller::start().await;
    // The simulated clock goes on while the test runs, by far less than the margins of a minute.
    for (back, taken) in [
        (23 * 3600 + 59 * 60, true),
        (24 * 3600, false),
        (30 * 3600, false),
    ] {
        let record = legacy(&json!({"Timestamp": seconds(NOW) - back}));
        let answer = seller.meter_legacy(&[record]).await;
        assert_eq!(answer.is_ok(), taken, "{back}");
        assert!(taken || answer == Err(out_of_bounds()));
    }
}

#[tokio::test]
async fn usage_is_hardly_taken_from_the_future() {
    let seller = Seller::start().await;
    for (ahead, taken) in [(4 * 60, true), (6 * 60, false)] {
        let record = licensed(&json!({"Timestamp": seconds(NOW) + ahead}));
        let answer = seller.meter_licensed(&[record]).await;
        assert_eq!(answer.is_ok(), taken, "{ahead}");
        assert!(taken || answer == Err(out_of_bounds()));
    }
}

#[tokio::test]
async fn one_bad_timestamp_fails_the_batch_and_the_rest_can_be_sent_again() {
    let seller = Seller::start().await;
    let good = [legacy(&json!({})), legacy(&json!({"Dimension": "users"}))];
    let late = legacy(&json!({"Timestamp": seconds(NOW) - 25 * 3600}));
    let batch = [good[0].clone(), good[1].clone(), late];
    assert_eq!(seller.meter_legacy(&batch).await, Err(out_of_bounds()));
    assert!(seller.billed().is_empty());
    let answer = seller.meter_legacy(&good).await.unwrap();
    assert_eq!(statuses(&answer), ["Success", "Success"]);
}

#[tokio::test]
async fn a_month_closes_at_six_on_the_first_of_the_next() {
    let seller = Seller::start().await;
    for (clock, at, taken) in [
        ("2026-12-01T05:59:00Z", "2026-11-30T23:00:00Z", true),
        ("2026-12-01T05:59:00Z", "2026-11-30T06:30:00Z", true),
        ("2026-12-01T06:00:00Z", "2026-11-30T22:00:00Z", false),
        ("2026-12-01T06:00:00Z", "2026-12-01T00:00:00Z", true),
        ("2027-01-01T05:59:00Z", "2026-12-31T23:00:00Z", true),
        ("2027-01-01T06:00:00Z", "2026-12-31T22:00:00Z", false),
        ("2028-03-01T06:00:00Z", "2028-02-29T23:59:59Z", false),
        ("2028-02-29T23:00:00Z", "2028-02-29T00:00:00Z", true),
    ] {
        seller.set_clock(clock);
        let record = legacy(&json!({"Timestamp": seconds(at)}));
        let answer = seller.meter_legacy(&[record]).await;
        assert_eq!(answer.is_ok(), taken, "{at} at {clock}");
        assert!(taken || answer == Err(out_of_bounds()));
    }
}

#[tokio::test]
async fn a_short_hour_shortens_the_windows_too() {
    // An hour of a minute: usage is taken for 24 minutes, a month closes after six.
    let seller = Seller::start_with(60_000).await;
    for (clock, at, taken) in [
        (NOW, "2026-11-24T10:07:00Z", true),
        (NOW, "2026-11-24T10:06:00Z", false),
        (NOW, "2026-11-24T10:30:30Z", true),
        (NOW, "2026-11-24T10:32:00Z", false),
        ("2026-12-01T00:05:00Z", "2026-11-30T23:59:00Z", true),
        ("2026-12-01T00:06:00Z", "2026-11-30T23:58:00Z", false),
    ] {
        seller.set_clock(clock);
        let record = legacy(&json!({"Timestamp": seconds(at)}));
        let answer = seller.meter_legacy(&[record]).await;
        assert_eq!(answer.is_ok(), taken, "{at} at {clock}");
        assert!(taken || answer == Err(out_of_bounds()));
    }
    seller.set_clock(NOW);
    let mut ids = Vec::new();
    for at in [
        "2026-11-24T10:28:59Z",
        "2026-11-24T10:29:00Z",
        "2026-11-24T10:29:59Z",
        "2026-11-24T10:30:00Z",
    ] {
        let record = licensed(&json!({"Timestamp": seconds(at), "Dimension": "users"}));
        let answer = seller.meter_licensed(&[record]).await.unwrap();
        ids.push(record_id(&answer, 0).to_owned());
    }
    assert_eq!(ids[1], ids[2], "a minute is one hour");
    assert_ne!(ids[0], ids[1]);
    assert_ne!(ids[2], ids[3]);
}
