//! The places that surround the sidecar: ECS, EKS with IRSA, EC2; region and identity found in each.

use crate::aws::{Aws, PRODUCT, REGION};
use crate::pod::Pod;

/// No static keys and no region: the place has to give both.
fn stranger(aws: &Aws) -> Pod {
    Pod::new(aws)
        .without("AWS_ACCESS_KEY_ID")
        .without("AWS_SECRET_ACCESS_KEY")
        .without("AWS_REGION")
        .without("POD_UID")
}

#[test]
fn an_ecs_task_gives_identity_region_and_credentials() {
    let aws = Aws::start();
    let task = aws.add_task("0a1b2c3d");
    let pod = stranger(&aws)
        .with("ECS_CONTAINER_METADATA_URI_V4", &task.metadata_uri)
        .with("AWS_CONTAINER_CREDENTIALS_FULL_URI", &task.credentials_uri);
    let status = pod.start().reaches("entitled");
    assert_eq!(status["platform"], "ecs");
    assert_eq!(status["identity"], task.arn);
    assert_eq!(status["region"], REGION);
    assert_eq!(aws.calls("RegisterUsage")[0].identity(), task.arn);
    assert_eq!(
        pod.run(&["wait", "--timeout", "1s"]).0,
        0,
        "the main container of the same task"
    );
}

#[test]
fn a_pod_with_irsa_gives_credentials() {
    let aws = Aws::start();
    let irsa = aws.add_pod("3f1c-uid");
    let pod = stranger(&aws);
    let token = pod.write("token", &irsa.token).display().to_string();
    let pod = pod
        .with("AWS_WEB_IDENTITY_TOKEN_FILE", &token)
        .with("AWS_ROLE_ARN", &irsa.role_arn)
        .with("AWS_ENDPOINT_URL_STS", &aws.url())
        .with("AWS_REGION", REGION)
        .with("POD_UID", "3f1c-uid");
    let status = pod.start().reaches("entitled");
    assert_eq!(status["platform"], "eks");
    assert_eq!(status["identity"], "3f1c-uid");
    assert_eq!(aws.calls("RegisterUsage")[0].identity(), "3f1c-uid");
}

#[test]
fn the_region_comes_from_imds_where_nothing_else_names_it() {
    let aws = Aws::start();
    let pod = Pod::new(&aws)
        .without("AWS_REGION")
        .without("AWS_EC2_METADATA_DISABLED")
        .with("AWS_EC2_METADATA_SERVICE_ENDPOINT", &aws.url());
    assert_eq!(pod.start().reaches("entitled")["region"], REGION);
}

#[test]
fn the_default_region_variable_counts_too() {
    let aws = Aws::start();
    let pod = Pod::new(&aws)
        .without("AWS_REGION")
        .with("AWS_DEFAULT_REGION", REGION);
    assert_eq!(pod.start().reaches("entitled")["region"], REGION);
}

#[test]
fn without_any_region_the_setting_is_named() {
    let aws = Aws::start();
    let pod = Pod::new(&aws).without("AWS_REGION");
    assert_eq!(pod.start().ends(), 78);
    assert!(pod.log().contains("set AWS_REGION"), "{}", pod.log());
    for region in ["", "us-east-1/../evil", "mars"] {
        let pod = Pod::new(&aws).with("AWS_REGION", region);
        assert_eq!(pod.start().ends(), 78, "{region:?}");
    }
}

#[test]
fn malformed_ecs_metadata_is_named_and_never_entitled() {
    for fault in [
        "bad-json",
        "no-task-arn",
        "wrong-arn",
        "error",
        "html",
        "huge",
    ] {
        let aws = Aws::start();
        let task = aws.add_task("0a1b2c3d");
        aws.break_task_metadata(fault);
        let pod = Pod::new(&aws).with("ECS_CONTAINER_METADATA_URI_V4", &task.metadata_uri);
        assert_eq!(pod.start().ends(), 78, "{fault}: {}", pod.log());
        let complaint = pod
            .log()
            .lines()
            .filter(|line| line.contains("\"ERROR\""))
            .count();
        assert_eq!(complaint, 1, "{fault}: {}", pod.log());
        assert!(
            pod.log().contains("ECS_CONTAINER_METADATA_URI_V4"),
            "{}",
            pod.log()
        );
        assert_eq!(pod.status().unwrap()["state"], "pending");
        assert!(aws.all_calls().is_empty());
    }
    for uri in [
        "nonsense",
        "https://127.0.0.1/x",
        "http://127.0.0.1:1/v4/x",
        "",
    ] {
        let pod = Pod::new(&Aws::start()).with("ECS_CONTAINER_METADATA_URI_V4", uri);
        assert_eq!(pod.start().ends(), 78, "{uri}");
    }
}

#[test]
fn the_node_role_is_refused_with_advice() {
    let aws = Aws::start();
    let pod = stranger(&aws)
        .without("AWS_EC2_METADATA_DISABLED")
        .with("AWS_EC2_METADATA_SERVICE_ENDPOINT", &aws.url())
        .with("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    assert_eq!(pod.start().ends(), 77, "{}", pod.log());
    let status = pod.status().unwrap();
    assert_eq!(status["reason"], "PlatformNotSupportedException");
    assert!(status["advice"].as_str().unwrap().contains("IRSA"));
}

#[test]
fn a_token_that_sts_does_not_take_is_retried_to_the_deadline_with_advice() {
    let aws = Aws::start();
    let irsa = aws.add_pod("3f1c-uid");
    let pod = stranger(&aws);
    let token = pod.write("token", "not-a-token").display().to_string();
    let pod = pod
        .with("AWS_WEB_IDENTITY_TOKEN_FILE", &token)
        .with("AWS_ROLE_ARN", &irsa.role_arn)
        .with("AWS_ENDPOINT_URL_STS", &aws.url())
        .with("AWS_REGION", REGION)
        .with("TOLLGATE_REGISTER_DEADLINE", "1s");
    assert_eq!(pod.start().ends(), 75);
    assert!(aws.calls("RegisterUsage").is_empty());
}

#[test]
fn an_unsubscribed_buyer_who_restarts_within_the_task_stays_entitled() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    pod.start().answers("/readyz", 200);
    aws.set_entitled(false);
    pod.start().answers("/readyz", 200);
    std::fs::remove_dir_all(pod.path("state")).unwrap();
    pod.start().answers("/readyz", 200);
    assert_eq!(
        aws.calls("RegisterUsage").len(),
        2,
        "the same task may register again"
    );
    assert_eq!(pod.status().unwrap()["product_code"], PRODUCT);
}
