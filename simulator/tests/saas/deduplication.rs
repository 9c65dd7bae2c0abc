//! One record per region, product's customer or license, dimension and hour.

use std::slice;

use serde_json::{Value, json};

use crate::seller::{
    Credentials, PRODUCT, REPLICA_1, REPLICA_2, SECOND_LICENSE, Seller, customer, legacy, licensed,
    record_id, seconds, statuses,
};

#[tokio::test]
async fn an_equal_repeat_is_honoured_and_billed_once_by_value() {
    let seller = Seller::start().await;
    let first = seller.meter_legacy(&[legacy(&json!({}))]).await.unwrap();
    let again = legacy(&json!({"Quantity": null, "QuantityAsDecimal": "17.00"}));
    let second = seller.meter_legacy(&[again]).await.unwrap();
    assert_eq!(statuses(&second), ["Success"]);
    assert_eq!(record_id(&first, 0), record_id(&second, 0));
    assert_eq!(seller.billed(), ["17"]);
    let world = seller.simulator.world();
    assert_eq!(world.saas.records().next().unwrap().times, 2);
}

#[tokio::test]
async fn another_quantity_is_a_duplicate_and_the_first_stays_billed() {
    let seller = Seller::start().await;
    seller.meter_legacy(&[legacy(&json!({}))]).await.unwrap();
    let sent = legacy(&json!({"Quantity": 18}));
    let answer = seller.meter_legacy(slice::from_ref(&sent)).await.unwrap();
    assert_eq!(
        answer,
        json!({"Results": [{"UsageRecord": sent, "Status": "DuplicateRecord"}], "UnprocessedRecords": []})
    );
    assert_eq!(seller.billed(), ["17"]);
}

#[tokio::test]
async fn other_allocations_are_a_duplicate_and_their_order_is_none() {
    let seller = Seller::start().await;
    let part = |team: &str, quantity: u64| json!({"AllocatedUsageQuantity": quantity, "Tags": [{"Key": "team", "Value": team}]});
    let record = |parts: [Value; 2]| legacy(&json!({"UsageAllocations": parts}));
    let mut ids = Vec::new();
    for parts in [[part("a", 10), part("b", 7)], [part("b", 7), part("a", 10)]] {
        let answer = seller.meter_legacy(&[record(parts)]).await.unwrap();
        assert_eq!(statuses(&answer), ["Success"]);
        ids.push(record_id(&answer, 0).to_owned());
    }
    assert_eq!(ids[0], ids[1]);
    let other = record([part("a", 9), part("b", 8)]);
    let answer = seller.meter_legacy(&[other]).await.unwrap();
    assert_eq!(statuses(&answer), ["DuplicateRecord"]);
}

#[tokio::test]
async fn whoever_calls_the_hour_has_one_record() {
    let seller = Seller::start().await;
    let body = json!({"UsageRecords": [licensed(&json!({}))]}).to_string();
    let mut ids = Vec::new();
    for replica in [REPLICA_1, REPLICA_2] {
        let answer = seller
            .call(replica, "BatchMeterUsage", &body)
            .await
            .unwrap();
        ids.push(record_id(&answer, 0).to_owned());
    }
    assert_eq!(ids[0], ids[1]);
    let more = json!({"UsageRecords": [licensed(&json!({"Quantity": 1}))]}).to_string();
    let answer = seller.call(REPLICA_2, "BatchMeterUsage", &more).await;
    assert_eq!(statuses(&answer.unwrap()), ["DuplicateRecord"]);
    assert_eq!(seller.billed(), ["17"]);
}

#[tokio::test]
async fn within_one_batch_the_first_record_of_an_hour_wins() {
    let seller = Seller::start().await;
    let batch = [
        legacy(&json!({})),
        legacy(&json!({"Quantity": 18})),
        legacy(&json!({})),
    ];
    let answer = seller.meter_legacy(&batch).await.unwrap();
    assert_eq!(statuses(&answer), ["Success", "DuplicateRecord", "Success"]);
    assert_eq!(record_id(&answer, 0), record_id(&answer, 2));
    assert_eq!(seller.billed(), ["17"]);
}

#[tokio::test]
async fn hour_dimension_customer_license_and_region_each_have_a_record() {
    let seller = Seller::start().await;
    seller
        .simulator
        .world()
        .put_customer(customer("second"))
        .unwrap();
    let batch = [
        legacy(&json!({})),
        legacy(&json!({"Timestamp": seconds("2026-11-24T09:59:59Z")})),
        legacy(&json!({"Dimension": "users"})),
        legacy(&json!({"CustomerIdentifier": "identifier-of-second"})),
    ];
    let answer = seller.meter_legacy(&batch).await.unwrap();
    assert_eq!(statuses(&answer), ["Success"; 4]);
    let batch = [
        licensed(&json!({})),
        licensed(&json!({"LicenseArn": SECOND_LICENSE})),
    ];
    let answer = seller.meter_licensed(&batch).await.unwrap();
    assert_eq!(statuses(&answer), ["Success"; 2]);
    let elsewhere = Credentials {
        region: "eu-west-1",
        ..REPLICA_1
    };
    let body = json!({"UsageRecords": batch}).to_string();
    let answer = seller.call(elsewhere, "BatchMeterUsage", &body).await;
    assert_eq!(statuses(&answer.unwrap()), ["Success"; 2]);
    assert_eq!(seller.billed().len(), 8);
}

#[tokio::test]
async fn the_same_hour_at_another_minute_is_the_same_record() {
    let seller = Seller::start().await;
    for (at, status) in [
        ("2026-11-24T10:00:00Z", "Success"),
        ("2026-11-24T10:29:59Z", "Success"),
    ] {
        let record = legacy(&json!({"Timestamp": seconds(at)}));
        let answer = seller.meter_legacy(&[record]).await.unwrap();
        assert_eq!(statuses(&answer), [status], "{at}");
    }
    assert_eq!(seller.billed(), ["17"]);
}

#[tokio::test]
async fn a_customer_metered_both_ways_is_billed_twice() {
    let seller = Seller::start().await;
    seller.meter_legacy(&[legacy(&json!({}))]).await.unwrap();
    let answer = seller
        .meter_licensed(&[licensed(&json!({}))])
        .await
        .unwrap();
    assert_eq!(statuses(&answer), ["Success"]);
    assert_eq!(seller.billed(), ["17", "17"]);
    let world = seller.simulator.world();
    let account = json!({
        "records": world.saas.records().collect::<Vec<_>>(),
        "totals": world.saas.totals(),
    });
    let records = account["records"].as_array().unwrap();
    assert_eq!(records[0]["customer_identifier"], "identifier-of-buyer");
    assert!(records[0].get("license_arn").is_none());
    assert_eq!(records[1]["customer_aws_account_id"], "222233334444");
    assert!(records[1].get("customer_identifier").is_none());
    assert_eq!(
        account["totals"],
        json!([{"customer": "buyer", "product_code": PRODUCT, "dimension": "requests", "quantity": "34"}])
    );
}

#[tokio::test]
async fn decimals_and_allocations_are_kept_exactly() {
    let seller = Seller::start().await;
    let record = licensed(&json!({
        "Quantity": null,
        "QuantityAsDecimal": "9999999999.999999",
        "UsageAllocations": [
            {"AllocatedUsageQuantityAsDecimal": "9999999999"},
            {"AllocatedUsageQuantityAsDecimal": "0.999999", "Tags": [{"Key": "k", "Value": "v"}]},
        ],
    }));
    seller.meter_licensed(&[record]).await.unwrap();
    let world = seller.simulator.world();
    let record = json!(world.saas.records().next().unwrap());
    assert_eq!(record["quantity"], "9999999999.999999");
    assert_eq!(
        record["allocations"],
        json!([{"tags": {}, "quantity": "9999999999"}, {"tags": {"k": "v"}, "quantity": "0.999999"}])
    );
    assert_eq!(record["hour"], "2026-11-24T10:00:00Z");
    assert_eq!(record["timestamp"], "2026-11-24T10:30:00Z");
}

#[tokio::test]
async fn a_record_without_a_quantity_is_of_zero() {
    let seller = Seller::start().await;
    let record = legacy(&json!({"Quantity": null}));
    let answer = seller.meter_legacy(&[record]).await.unwrap();
    assert_eq!(statuses(&answer), ["Success"]);
    assert_eq!(seller.billed(), ["0"]);
}
