//! From calls to AWS's records: sums, requests, what is counted once.

use std::time::Duration;

use serde_json::json;

use crate::aws::PRODUCT;
use crate::pod::now_seconds;
use crate::scene::{Scene, by_identifier, by_license, ids, license, request};

#[test]
fn usage_is_summed_by_license_dimension_and_hour() {
    let scene = Scene::long();
    scene.buyer("111122223333", 2);
    scene.buyer("444455556666", 1);
    let sidecar = scene.start();
    for _ in 0..3 {
        scene.reported(&[
            by_license("111122223333", 1, "users", 5),
            by_license("111122223333", 1, "gb", 1),
            by_license("111122223333", 2, "users", 7),
            by_license("444455556666", 1, "users", 11),
            by_license("444455556666", 1, "users", 2),
        ]);
    }
    scene.drain(sidecar);
    scene.bills(&[
        (&license("111122223333", 1), "users", 15),
        (&license("111122223333", 1), "gb", 3),
        (&license("111122223333", 2), "users", 21),
        (&license("444455556666", 1), "users", 39),
    ]);
    let calls = scene.aws.calls("BatchMeterUsage");
    assert_eq!(calls.len(), 1, "four records share a request");
    assert!(calls[0].request()["ProductCode"].is_null());
    assert_eq!(scene.aws.saas_records().len(), 4);
}

#[test]
fn the_two_integrations_never_share_a_request() {
    let scene = Scene::long();
    scene.buyer("111122223333", 1);
    scene.legacy_buyer("c-1", "444455556666");
    let sidecar = scene.start();
    scene.reported(&[by_license("111122223333", 1, "users", 5)]);
    scene.reported(&[by_identifier("c-1", "users", 7)]);
    scene.drain(sidecar);
    scene.bills(&[
        (&license("111122223333", 1), "users", 5),
        ("c-1", "users", 7),
    ]);
    let calls = scene.aws.calls("BatchMeterUsage");
    assert_eq!(calls.len(), 2);
    for call in calls {
        let legacy = call.request()["ProductCode"] == PRODUCT;
        for record in call.request()["UsageRecords"].as_array().unwrap() {
            assert_eq!(record["LicenseArn"].is_null(), legacy);
        }
    }
}

#[test]
fn an_hours_records_go_out_in_the_fewest_requests() {
    let scene = Scene::long();
    for customer in 0..60 {
        scene.buyer(&format!("{customer:012}"), 1);
    }
    let sidecar = scene.start();
    let records: Vec<_> = (0..60)
        .flat_map(|customer| {
            let account = format!("{customer:012}");
            ["users", "gb"].map(|dimension| by_license(&account, 1, dimension, 1))
        })
        .collect();
    for chunk in records.chunks(25) {
        scene.reported(chunk);
    }
    scene.drain(sidecar);
    assert_eq!(scene.aws.saas_records().len(), 120);
    assert_eq!(
        scene.aws.count("BatchMeterUsage"),
        5,
        "120 records, 25 a request"
    );
}

#[test]
fn a_call_is_counted_once_through_an_sdks_retries_and_a_restart() {
    let scene = Scene::long();
    scene.buyer("111122223333", 1);
    let records = [
        by_license("111122223333", 1, "users", 5),
        by_license("111122223333", 1, "gb", 2),
    ];
    let invocation = "amz-sdk-invocation-id: 2e7a6c0e-1111-4222-8333-444455556666\r\n";
    let sidecar = scene.start();
    let (_, first) = scene.batch_with(invocation, &request(&records));
    let (_, again) = scene.batch_with(invocation, &request(&records));
    assert_eq!(first, again, "the same ids again");
    drop(sidecar);
    let sidecar = scene.start();
    let (_, after) = scene.batch_with(invocation, &request(&records));
    assert_eq!(ids(&first), ids(&after), "a kill forgets nothing");
    scene.drain(sidecar);
    scene.bills(&[
        (&license("111122223333", 1), "users", 5),
        (&license("111122223333", 1), "gb", 2),
    ]);
}

#[test]
fn equal_calls_of_their_own_are_counted_each_time() {
    let scene = Scene::long();
    scene.buyer("111122223333", 1);
    let sidecar = scene.start();
    let records = [by_license("111122223333", 1, "users", 5)];
    for call in 0..3 {
        let header = format!("amz-sdk-invocation-id: call-{call}\r\n");
        assert_eq!(scene.batch_with(&header, &request(&records)).0, 200);
    }
    scene.reported(&records);
    scene.drain(sidecar);
    scene.bills(&[(&license("111122223333", 1), "users", 20)]);
}

#[test]
fn one_bad_record_refuses_the_whole_call() {
    let scene = Scene::long().with("TOLLGATE_DIMENSIONS", "users,gb");
    scene.buyer("111122223333", 1);
    let sidecar = scene.start();
    let good = || by_license("111122223333", 1, "users", 5);
    let mut late = good();
    late["Timestamp"] = json!(now_seconds() - 25.0 * 3600.0);
    let mut unknown = good();
    unknown["Dimension"] = json!("seats");
    for (bad, error) in [
        (late, "TimestampOutOfBoundsException"),
        (unknown, "InvalidUsageDimensionException"),
    ] {
        let (code, answer) = scene.batch(&[good(), bad, good()]);
        assert_eq!(code, 400);
        assert!(
            answer["__type"].as_str().unwrap().ends_with(error),
            "{answer}"
        );
    }
    scene.reported(&[good()]);
    scene.drain(sidecar);
    scene.bills(&[(&license("111122223333", 1), "users", 5)]);
}

#[test]
fn usage_of_earlier_hours_of_the_day_gets_its_own_records() {
    let scene = Scene::long();
    scene.buyer("111122223333", 1);
    let sidecar = scene.start();
    let hours_back = |hours: f64, quantity: u64| {
        let mut record = by_license("111122223333", 1, "users", quantity);
        record["Timestamp"] = json!(now_seconds() - hours * 3600.0);
        record
    };
    scene.reported(&[hours_back(0.0, 1), hours_back(5.0, 2), hours_back(5.0, 3)]);
    scene.drain(sidecar);
    let mut quantities: Vec<u128> = scene
        .aws
        .saas_records()
        .iter()
        .map(|record| record.quantity.0 / 1_000_000)
        .collect();
    quantities.sort_unstable();
    // In the first hours of a month, and only then, five hours ago may be another month, which is still open.
    assert_eq!(quantities, [1, 5]);
}

#[test]
fn decimals_and_allocations_add_up_to_the_millionth() {
    let scene = Scene::long();
    scene.buyer("111122223333", 1);
    let sidecar = scene.start();
    let part = |quantity: &str, team: &str| json!({"AllocatedUsageQuantityAsDecimal": quantity, "Tags": [{"Key": "team", "Value": team}]});
    for _ in 0..2 {
        let mut record = by_license("111122223333", 1, "gb", 0);
        record.as_object_mut().unwrap().remove("Quantity");
        record["QuantityAsDecimal"] = json!("1.000003");
        record["UsageAllocations"] = json!([part("1.000001", "a"), part("0.000002", "b")]);
        scene.reported(&[record]);
    }
    scene.drain(sidecar);
    let records = scene.aws.saas_records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].quantity.0, 2_000_006);
    let parts: Vec<u128> = records[0]
        .allocations
        .iter()
        .map(|part| part.quantity.0)
        .collect();
    assert_eq!(parts, [2_000_002, 4]);
}

#[test]
fn passthrough_sends_each_call_as_it_is() {
    let scene = Scene::long().with("TOLLGATE_SAAS_MODE", "passthrough");
    scene.buyer("111122223333", 1);
    let sidecar = scene.start();
    let mut record = by_license("111122223333", 1, "users", 5);
    record["Timestamp"] = json!(now_seconds().floor());
    let (code, answer) = scene.batch(&[record.clone()]);
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["Results"][0]["UsageRecord"], record);
    let id = answer["Results"][0]["MeteringRecordId"].as_str().unwrap();
    assert_eq!(
        scene.aws.saas_records()[0].record_id,
        id,
        "AWS's own answer"
    );
    record["Quantity"] = json!(6);
    let (_, answer) = scene.batch(&[record]);
    assert_eq!(answer["Results"][0]["Status"], "DuplicateRecord");
    let (code, answer) = scene.batch(&[json!({"Timestamp": 1})]);
    assert_eq!(code, 400, "{answer}");
    scene.drain(sidecar);
}

#[test]
fn an_hour_ends_by_itself_and_the_next_gets_its_own_record() {
    let scene = Scene::short();
    scene.buyer("111122223333", 1);
    let sidecar = scene.start();
    let id = scene
        .reported(&[by_license("111122223333", 1, "users", 5)])
        .remove(0);
    let found = scene.pod.finds(&id, "settled");
    assert_eq!(found["license_arn"], license("111122223333", 1));
    assert_eq!(found["customer_aws_account_id"], "111122223333");
    scene.reported(&[by_license("111122223333", 1, "users", 7)]);
    scene.bills(&[(&license("111122223333", 1), "users", 12)]);
    assert_eq!(scene.aws.saas_records().len(), 2);
    scene.drain(sidecar);
}

#[test]
fn another_sidecar_on_the_same_volume_sends_what_the_first_left() {
    let scene = Scene::long();
    scene.buyer("111122223333", 1);
    let sidecar = scene.start();
    scene.reported(&[by_license("111122223333", 1, "users", 5)]);
    scene
        .aws
        .add_fault(json!({"operation": "BatchMeterUsage", "kind": "internal-error-after"}));
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0);
    scene.aws.clear_faults();
    let scene = scene.with("POD_UID", "pod-2");
    let sidecar = scene.start();
    scene.bills(&[(&license("111122223333", 1), "users", 5)]);
    scene.drain(sidecar);
    assert!(
        scene.aws.saas_records()[0].times > 1,
        "it was counted by the first"
    );
}

#[test]
fn a_day_of_outage_loses_nothing() {
    let scene = Scene::new(Duration::from_millis(400), &["users"]);
    scene.buyer("111122223333", 1);
    let sidecar = scene.start();
    scene.aws.outage();
    for _ in 0..4 {
        scene.reported(&[by_license("111122223333", 1, "users", 5)]);
        let open = scene.pod.usage().len();
        crate::pod::poll(|| {
            (scene.pod.usage().len() > open || scene.aws.all_calls().len() > 2).then_some(())
        });
    }
    scene.aws.clear_faults();
    scene.bills(&[(&license("111122223333", 1), "users", 20)]);
    scene.drain(sidecar);
}
