//! Whose usage is taken, and for how long after the end.

use std::slice;

use serde_json::json;

use crate::seller::{
    NOW, SECOND_LICENSE, Seller, customer, legacy, licensed, record_id, seconds, statuses,
};

#[tokio::test]
async fn usage_of_an_unsubscribed_customer_is_answered_record_by_record() {
    let seller = Seller::start().await;
    seller
        .simulator
        .world()
        .put_customer(customer("second"))
        .unwrap();
    seller.change("buyer", |customer| customer.subscribed = false);
    let sent = legacy(&json!({}));
    let batch = [
        sent.clone(),
        legacy(&json!({"CustomerIdentifier": "identifier-of-second", "Quantity": 5})),
    ];
    let answer = seller.meter_legacy(&batch).await.unwrap();
    assert_eq!(statuses(&answer), ["CustomerNotSubscribed", "Success"]);
    assert_eq!(
        answer["Results"][0],
        json!({"UsageRecord": sent, "Status": "CustomerNotSubscribed"})
    );
    assert_eq!(seller.billed(), ["5"]);
    // A suspended account's licenses are worth nothing either.
    let answer = seller
        .meter_licensed(&[licensed(&json!({}))])
        .await
        .unwrap();
    assert_eq!(statuses(&answer), ["CustomerNotSubscribed"]);
    seller.change("buyer", |customer| customer.subscribed = true);
    let answer = seller.meter_legacy(&batch).await.unwrap();
    assert_eq!(statuses(&answer), ["Success", "Success"]);
}

#[tokio::test]
async fn one_agreement_ends_and_the_other_goes_on() {
    let seller = Seller::start().await;
    seller.change("buyer", |customer| customer.licenses[0].subscribed = false);
    let batch = [
        licensed(&json!({})),
        licensed(&json!({"LicenseArn": SECOND_LICENSE})),
    ];
    let answer = seller.meter_licensed(&batch).await.unwrap();
    assert_eq!(statuses(&answer), ["CustomerNotSubscribed", "Success"]);
}

#[tokio::test]
async fn after_the_end_the_rest_is_taken_for_an_hour() {
    let seller = Seller::start().await;
    seller.change("buyer", |customer| {
        customer.unsubscribed_at = Some("2026-11-24T09:40:00Z".parse().unwrap());
        customer.licenses[1].unsubscribed_at = Some(NOW.parse().unwrap());
    });
    let record = |hours_back: i64| {
        legacy(&json!({"Timestamp": seconds("2026-11-24T09:00:00Z") - hours_back * 3600}))
    };
    for (clock, hours_back, status) in [
        ("2026-11-24T10:39:00Z", 1, "Success"),
        ("2026-11-24T10:40:00Z", 2, "CustomerNotSubscribed"),
    ] {
        seller.set_clock(clock);
        let answer = seller.meter_legacy(&[record(hours_back)]).await.unwrap();
        assert_eq!(statuses(&answer), [status], "{clock}");
    }
    // The license ended later than the customer: the earlier end counts.
    let answer = seller
        .meter_licensed(&[licensed(&json!({"LicenseArn": SECOND_LICENSE}))])
        .await
        .unwrap();
    assert_eq!(statuses(&answer), ["CustomerNotSubscribed"]);
    seller.change("buyer", |customer| customer.unsubscribed_at = None);
    for (clock, hours_back, status) in [
        ("2026-11-24T11:29:00Z", 3, "Success"),
        ("2026-11-24T11:30:00Z", 4, "CustomerNotSubscribed"),
    ] {
        seller.set_clock(clock);
        let at = seconds(NOW) - hours_back * 3600;
        let record = licensed(&json!({"LicenseArn": SECOND_LICENSE, "Timestamp": at}));
        let answer = seller.meter_licensed(&[record]).await.unwrap();
        assert_eq!(statuses(&answer), [status], "{clock}");
    }
}

#[tokio::test]
async fn a_repeat_of_what_was_counted_is_honoured_after_the_end() {
    let seller = Seller::start().await;
    let record = legacy(&json!({}));
    let first = seller.meter_legacy(slice::from_ref(&record)).await.unwrap();
    seller.change("buyer", |customer| customer.subscribed = false);
    let second = seller.meter_legacy(&[record]).await.unwrap();
    assert_eq!(record_id(&first, 0), record_id(&second, 0));
    let changed = legacy(&json!({"Quantity": 18}));
    let answer = seller.meter_legacy(&[changed]).await.unwrap();
    assert_eq!(statuses(&answer), ["CustomerNotSubscribed"]);
}
