//! What AWS says of single records, and of requests that hold several.

use serde_json::json;

use crate::aws::PRODUCT;
use crate::scene::{Scene, by_identifier, by_license, license};

const A: &str = "111122223333";
const B: &str = "444455556666";

fn scene() -> Scene {
    let scene = Scene::short();
    scene.buyer(A, 1);
    scene.buyer(B, 1);
    scene
}

#[test]
fn unprocessed_records_are_sent_again() {
    let scene = scene();
    scene
        .aws
        .add_fault(json!({"operation": "BatchMeterUsage", "kind": "unprocessed", "count": 3}));
    let sidecar = scene.start();
    scene.reported(&[by_license(A, 1, "users", 5), by_license(B, 1, "users", 7)]);
    scene.bills(&[(&license(A, 1), "users", 5), (&license(B, 1), "users", 7)]);
    scene.drain(sidecar);
}

#[test]
fn a_duplicate_record_rolls_forward_and_the_others_settle() {
    let scene = scene();
    scene.aws.add_fault(
        json!({"operation": "BatchMeterUsage", "kind": "duplicate-record", "count": 1, "record": 0}),
    );
    let sidecar = scene.start();
    scene.reported(&[by_license(A, 1, "users", 5), by_license(B, 1, "users", 7)]);
    let moved = scene.listed("rolled_forward");
    assert!(moved["rolled_into"].is_u64(), "{moved}");
    scene.bills(&[(&license(A, 1), "users", 5), (&license(B, 1), "users", 7)]);
    scene.drain(sidecar);
}

#[test]
fn a_request_refused_for_one_record_takes_out_that_record_alone() {
    for error in ["TimestampOutOfBoundsException", "InvalidLicenseException"] {
        let scene = scene();
        scene.buyer("777788889999", 1);
        // The first request fails whole; of the records by themselves the first fails again.
        scene.aws.refuse("BatchMeterUsage", error, 2);
        let sidecar = scene.start();
        scene.reported(&[
            by_license(A, 1, "users", 5),
            by_license(B, 1, "users", 7),
            by_license("777788889999", 1, "users", 9),
        ]);
        let state = if error == "InvalidLicenseException" {
            "rejected"
        } else {
            "rolled_forward"
        };
        let out = scene.listed(state);
        crate::pod::poll(|| (scene.aws.saas_records().len() >= 2).then_some(())).unwrap();
        let billed: u128 = scene.bill().values().sum();
        let quantity: u128 = out["quantity"].as_str().unwrap().parse().unwrap();
        if state == "rejected" {
            assert_eq!(billed, (21 - quantity) * 1_000_000);
            assert_eq!(out["code"], error);
        } else {
            scene.bills(&[
                (&license(A, 1), "users", 5),
                (&license(B, 1), "users", 7),
                (&license("777788889999", 1), "users", 9),
            ]);
        }
        scene.drain(sidecar);
    }
}

#[test]
fn a_customer_that_is_not_subscribed_is_kept_shown_and_told_to_the_app() {
    let scene = scene();
    let unsubscribed = json!({
        "id": A, "product_code": PRODUCT, "customer_aws_account_id": A,
        "license": [{"arn": license(A, 1), "subscribed": false}],
    });
    scene.aws.put_customer(unsubscribed);
    let sidecar = scene.start();
    let ids = scene.reported(&[by_license(A, 1, "users", 5), by_license(B, 1, "users", 7)]);
    scene.bills(&[(&license(B, 1), "users", 7)]);
    let kept = scene.listed("sealed");
    assert_eq!(kept["license_arn"], license(A, 1));
    assert!(
        kept["problem"]
            .as_str()
            .unwrap()
            .starts_with("CustomerNotSubscribed"),
        "{kept}"
    );
    let (code, answer) = scene.batch(&[by_license(A, 1, "users", 1), by_license(B, 1, "users", 1)]);
    assert_eq!(code, 200);
    let results = &answer["Results"];
    assert_eq!(results[0]["Status"], "CustomerNotSubscribed", "{answer}");
    assert!(results[0].get("MeteringRecordId").is_none());
    assert_eq!(results[1]["Status"], "Success");
    let metrics = scene.pod.get("/metrics").unwrap().1;
    assert!(
        metrics.contains("tollgate_customers_not_subscribed 1"),
        "{metrics}"
    );
    scene.buyer(A, 1);
    scene.pod.finds(&ids[0], "settled");
    scene.bills(&[(&license(A, 1), "users", 5), (&license(B, 1), "users", 8)]);
    scene.drain(sidecar);
}

#[test]
fn lost_replies_and_failures_settle_once() {
    for kind in [
        "reply-lost",
        "internal-error-after",
        "connection-reset",
        "internal-error",
        "truncated",
    ] {
        let scene = scene();
        scene.aws.fault("BatchMeterUsage", kind, 2);
        let sidecar = scene.start();
        scene.reported(&[by_license(A, 1, "users", 5), by_license(B, 1, "users", 7)]);
        scene.bills(&[(&license(A, 1), "users", 5), (&license(B, 1), "users", 7)]);
        let settled = crate::pod::poll(|| {
            let records = scene.pod.usage();
            let all = records.iter().all(|record| record["state"] == "settled");
            all.then_some(records.len())
        });
        assert_eq!(settled, Some(2), "{kind}");
        scene.drain(sidecar);
    }
}

#[test]
fn throttling_keeps_a_request_together() {
    let scene = scene();
    scene
        .aws
        .refuse("BatchMeterUsage", "ThrottlingException", 3);
    let sidecar = scene.start();
    scene.reported(&[by_license(A, 1, "users", 5), by_license(B, 1, "users", 7)]);
    scene.bills(&[(&license(A, 1), "users", 5), (&license(B, 1), "users", 7)]);
    assert_eq!(
        scene.aws.count("BatchMeterUsage"),
        4,
        "three refusals, and one request of both"
    );
    scene.drain(sidecar);
}

#[test]
fn a_customer_named_in_two_ways_within_an_hour_is_refused_with_the_reason() {
    let scene = Scene::long();
    scene.legacy_buyer("c-1", B);
    scene
        .aws
        .put_token(json!({"token": "registration-1", "customer": "c-1"}));
    let sidecar = scene.start();
    scene.reported(&[by_identifier("c-1", "users", 5)]);
    // Nobody has said yet that they are one buyer.
    let target = "x-amz-target: AWSMPMeteringService.ResolveCustomer\r\n";
    let (code, answer) = scene
        .pod
        .post("/", target, "{\"RegistrationToken\":\"registration-1\"}");
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = scene.batch(&[by_license(B, 1, "users", 7)]);
    assert_eq!(code, 400, "{answer}");
    assert!(
        answer["__type"]
            .as_str()
            .unwrap()
            .ends_with("InvalidCustomerIdentifierException")
    );
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("would bill both"), "{message}");
    scene.drain(sidecar);
    scene.bills(&[("c-1", "users", 5)]);
}
