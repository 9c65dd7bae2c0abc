//! Registrations, and the hourly record of 0.

use serde_json::{Value, json};

use crate::aws::PRODUCT;
use crate::scene::{Scene, by_license, license};

const A: &str = "111122223333";

fn resolve(scene: &Scene, token: &str) -> (u16, Value) {
    let target = "x-amz-target: AWSMPMeteringService.ResolveCustomer\r\n";
    let body = json!({"RegistrationToken": token}).to_string();
    scene.pod.post("/", target, &body)
}

#[test]
fn a_registration_is_answered_whole_and_its_token_is_never_written_down() {
    let scene = Scene::long().with("TOLLGATE_LOG", "trace");
    scene.buyer(A, 1);
    let further = json!({"AddedLater": {"a": 1}});
    scene.aws.put_token(
        json!({"token": "secret-registration", "customer": A, "further_members": further}),
    );
    let sidecar = scene.start();
    let (code, answer) = resolve(&scene, "secret-registration");
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["CustomerAWSAccountId"], A);
    assert_eq!(answer["LicenseArn"], license(A, 1));
    assert_eq!(answer["ProductCode"], PRODUCT);
    assert!(answer["Metadata"]["AgreementId"].is_string(), "{answer}");
    assert_eq!(answer["AddedLater"], further["AddedLater"], "{answer}");
    scene.drain(sidecar);
    assert!(!scene.pod.log().contains("secret-registration"));
    for file in std::fs::read_dir(scene.pod.path("state")).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        let found = bytes
            .windows(19)
            .any(|window| window == b"secret-registration");
        assert!(!found, "{}", path.display());
    }
}

#[test]
fn refused_registrations_are_refused_in_awss_words() {
    let scene = Scene::long();
    scene.buyer(A, 1);
    scene
        .aws
        .put_token(json!({"token": "old", "customer": A, "expires_at": "2026-01-01T00:00:00Z"}));
    let sidecar = scene.start();
    for (token, error) in [
        ("unknown", "InvalidTokenException"),
        ("old", "ExpiredTokenException"),
        ("", "ValidationException"),
    ] {
        let (code, answer) = resolve(&scene, token);
        assert_eq!(code, 400, "{answer}");
        assert!(
            answer["__type"].as_str().unwrap().ends_with(error),
            "{answer}"
        );
    }
    scene
        .aws
        .refuse("ResolveCustomer", "ThrottlingException", 1);
    let (code, answer) = resolve(&scene, "old");
    assert_eq!(code, 400);
    assert!(
        answer["__type"]
            .as_str()
            .unwrap()
            .ends_with("ThrottlingException")
    );
    scene.aws.fault("ResolveCustomer", "html-page", 1);
    assert_eq!(
        resolve(&scene, "old").0,
        500,
        "a proxy's page is no answer of AWS"
    );
    scene.drain(sidecar);
}

#[test]
fn every_customer_seen_gets_an_hourly_zero_until_aws_calls_it_unsubscribed() {
    let scene = Scene::short()
        .with("TOLLGATE_DIMENSIONS", "users,gb")
        .with("TOLLGATE_ZERO_USAGE", "report");
    scene.buyer(A, 1);
    scene.buyer("444455556666", 1);
    scene
        .aws
        .put_token(json!({"token": "registration-1", "customer": "444455556666"}));
    let sidecar = scene.start();
    scene.reported(&[by_license(A, 1, "users", 5)]);
    assert_eq!(resolve(&scene, "registration-1").0, 200);
    let hours_of = |account: &str, dimension: &str| {
        let arn = license(account, 1);
        let of = |record: &&marketplace_simulator::batch::SaasRecord| {
            let buyer = serde_json::to_value(&record.buyer).unwrap();
            buyer["license_arn"] == arn && record.dimension == dimension
        };
        scene.aws.saas_records().iter().filter(of).count()
    };
    for (account, dimension) in [
        (A, "users"),
        (A, "gb"),
        ("444455556666", "users"),
        ("444455556666", "gb"),
    ] {
        crate::pod::poll(|| (hours_of(account, dimension) >= 2).then_some(())).unwrap_or_else(
            || {
                panic!(
                    "no zeros for {account}, {dimension}; log:\n{}",
                    scene.pod.log()
                )
            },
        );
    }
    assert_eq!(
        scene.bill()[&(license(A, 1), "users".to_owned())],
        5_000_000
    );
    assert!(
        scene.aws.requests().is_empty(),
        "the pod itself is not billed"
    );
    scene.aws.put_customer(json!({
        "id": A, "product_code": PRODUCT, "customer_aws_account_id": A,
        "license": [{"arn": license(A, 1), "subscribed": false}],
    }));
    let kept = || {
        let records = scene.pod.usage();
        records
            .into_iter()
            .filter(|record| record["customer_aws_account_id"] == A && record["state"] == "sealed")
            .count()
    };
    crate::pod::poll(|| (kept() >= 2).then_some(())).expect("AWS says so");
    let others = hours_of("444455556666", "users");
    let known = scene
        .pod
        .usage()
        .iter()
        .filter(|record| record["customer_aws_account_id"] == A)
        .count();
    crate::pod::poll(|| (hours_of("444455556666", "users") >= others + 3).then_some(())).unwrap();
    let now = scene
        .pod
        .usage()
        .iter()
        .filter(|record| record["customer_aws_account_id"] == A)
        .count();
    assert!(
        now <= known + 4,
        "at most the hour that was open: {known} records, then {now}"
    );
    scene.drain(sidecar);
}
