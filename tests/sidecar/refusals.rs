//! Every error of the service: state, advice, exit code and number of calls.

use std::time::{Duration, Instant};

use crate::aws::Aws;
use crate::pod::{PATIENCE, Pod};

/// A refusal ends the process with 77 after one call, and the advice names what to do.
fn is_refused(reason: &str, advice: &str) {
    let aws = Aws::start();
    aws.refuse("RegisterUsage", reason, 100);
    let pod = Pod::new(&aws);
    assert_eq!(pod.start().ends(), 77, "{}", pod.log());
    let status = pod.status().unwrap();
    assert_eq!(status["state"], "denied");
    assert_eq!(status["reason"], reason);
    let shown = status["advice"].as_str().unwrap();
    assert!(shown.contains(advice), "{advice:?} is not in {shown:?}");
    assert_eq!(aws.calls("RegisterUsage").len(), 1);
    assert_eq!(pod.run(&["wait", "--timeout", "5s"]).0, 77);
    assert_eq!(pod.run(&["verify"]).0, 77);
}

#[test]
fn a_buyer_without_subscription_is_denied() {
    is_refused(
        "CustomerNotEntitledException",
        "subscribe on AWS Marketplace",
    );
}

#[test]
fn the_older_name_of_the_same_refusal_is_denied_alike() {
    is_refused(
        "CustomerNotSubscribedException",
        "subscribe on AWS Marketplace",
    );
}

#[test]
fn an_unsupported_platform_is_told_about_irsa() {
    is_refused("PlatformNotSupportedException", "IRSA");
}

#[test]
fn an_unknown_product_code_names_the_setting() {
    is_refused("InvalidProductCodeException", "TOLLGATE_PRODUCT_CODE");
}

#[test]
fn an_unknown_key_version_names_the_setting() {
    is_refused("InvalidPublicKeyVersionException", "TOLLGATE_PUBLIC_KEYS");
}

#[test]
fn a_wrong_region_is_named() {
    is_refused("InvalidRegionException", "us-east-1");
}

#[test]
fn a_disabled_api_is_explained() {
    is_refused("DisabledApiException", "region");
}

#[test]
fn a_role_without_the_action_is_told_which() {
    is_refused("AccessDeniedException", "aws-marketplace:RegisterUsage");
}

#[test]
fn unknown_credentials_are_told_what_works() {
    is_refused("UnrecognizedClientException", "EKS Pod Identity");
}

#[test]
fn expired_credentials_are_told_what_works() {
    is_refused("ExpiredTokenException", "task role");
}

#[test]
fn an_exception_nobody_has_heard_of_is_a_refusal() {
    is_refused("BrandNewException", "API reference");
}

#[test]
fn a_custom_metered_product_is_refused_with_its_own_action() {
    for (reason, advice) in [
        ("CustomerNotEntitledException", "subscribe"),
        ("AccessDeniedException", "aws-marketplace:MeterUsage"),
        (
            "InvalidUsageDimensionException",
            "TOLLGATE_ENTITLEMENT_CHECK",
        ),
    ] {
        let aws = Aws::start();
        aws.refuse("MeterUsage", reason, 100);
        let pod = Pod::new(&aws).with("TOLLGATE_ENTITLEMENT_CHECK", "meter-usage:requests");
        assert_eq!(pod.start().ends(), 77);
        let status = pod.status().unwrap();
        assert_eq!(status["reason"], reason);
        assert!(status["advice"].as_str().unwrap().contains(advice));
    }
}

#[test]
fn no_credentials_at_all_are_a_refusal_at_once() {
    let aws = Aws::start();
    let pod = Pod::new(&aws)
        .without("AWS_ACCESS_KEY_ID")
        .without("AWS_SECRET_ACCESS_KEY");
    assert_eq!(pod.start().ends(), 77);
    let status = pod.status().unwrap();
    assert_eq!(status["reason"], "NoCredentials");
    assert!(status["advice"].as_str().unwrap().contains("IRSA"));
    assert!(aws.all_calls().is_empty());
}

#[test]
fn throttling_is_retried_until_it_ends() {
    let aws = Aws::start();
    aws.refuse("RegisterUsage", "ThrottlingException", 3);
    let pod = Pod::new(&aws);
    pod.start().reaches("entitled");
    assert_eq!(aws.calls("RegisterUsage").len(), 4);
}

#[test]
fn transient_failures_are_retried_until_they_end() {
    for fault in [
        "internal-error",
        "unavailable-page",
        "connection-reset",
        "reply-lost",
        "garbage",
        "truncated",
    ] {
        let aws = Aws::start();
        aws.fault("RegisterUsage", fault, 2);
        let pod = Pod::new(&aws);
        pod.start().reaches("entitled");
        assert_eq!(aws.calls("RegisterUsage").len(), 3, "{fault}");
    }
}

#[test]
fn an_outage_past_the_deadline_is_unavailable_and_never_longer() {
    for (fault, reason) in [
        ("internal-error", "InternalServiceErrorException"),
        ("unavailable-page", "HTTP 503"),
        ("connection-reset", "Unreachable"),
    ] {
        let aws = Aws::start();
        aws.fault("RegisterUsage", fault, 10_000);
        let pod = Pod::new(&aws).with("TOLLGATE_REGISTER_DEADLINE", "2s");
        let started = Instant::now();
        assert_eq!(pod.start().ends(), 75, "{}", pod.log());
        assert!(started.elapsed() >= Duration::from_secs(2));
        let status = pod.status().unwrap();
        assert_eq!(status["state"], "unavailable");
        assert_eq!(status["reason"], reason);
        assert_eq!(pod.run(&["wait", "--timeout", "200ms"]).0, 75);
    }
}

#[test]
fn an_endpoint_that_never_answers_does_not_stretch_the_deadline() {
    let aws = Aws::start();
    aws.delay("RegisterUsage", PATIENCE, 100);
    let pod = Pod::new(&aws).with("TOLLGATE_REGISTER_DEADLINE", "1s");
    assert_eq!(pod.start().ends(), 75);
}

#[test]
fn an_html_page_instead_of_json_names_a_proxy() {
    let aws = Aws::start();
    aws.fault("RegisterUsage", "html-page", 1000);
    let pod = Pod::new(&aws).with("TOLLGATE_REGISTER_DEADLINE", "1s");
    assert_eq!(pod.start().ends(), 75);
    assert!(
        pod.status().unwrap()["advice"]
            .as_str()
            .unwrap()
            .contains("proxy")
    );
}

#[test]
fn grace_lets_the_main_container_run_until_it_ends() {
    let aws = Aws::start();
    aws.fault("RegisterUsage", "internal-error", 10_000);
    let pod = Pod::new(&aws)
        .with("TOLLGATE_REGISTER_DEADLINE", "500ms")
        .with("TOLLGATE_ON_UNAVAILABLE", "grace:1500ms");
    let mut sidecar = pod.start();
    sidecar.reaches("grace");
    sidecar.answers("/readyz", 200);
    sidecar.answers("/startupz", 200);
    assert_eq!(pod.run(&["wait", "--timeout", "5s"]).0, 0);
    assert_eq!(sidecar.ends(), 75);
    assert_eq!(pod.status().unwrap()["state"], "unavailable");
}

#[test]
fn grace_becomes_entitled_when_aws_comes_back() {
    let aws = Aws::start();
    aws.fault("RegisterUsage", "internal-error", 10_000);
    let pod = Pod::new(&aws)
        .with("TOLLGATE_REGISTER_DEADLINE", "500ms")
        .with("TOLLGATE_ON_UNAVAILABLE", "grace:1h");
    let mut sidecar = pod.start();
    sidecar.reaches("grace");
    let strict = pod.run(&["--on-unavailable", "exit", "wait", "--timeout", "300ms"]);
    assert_eq!(strict.0, 75, "{}", strict.1);
    aws.clear_faults();
    sidecar.reaches("entitled");
}

#[test]
fn hold_stays_up_and_not_ready() {
    let aws = Aws::start();
    aws.set_entitled(false);
    let pod = Pod::new(&aws).with("TOLLGATE_ON_DENIED", "hold");
    let mut sidecar = pod.start();
    sidecar.reaches("denied");
    assert!(
        sidecar
            .answers("/readyz", 503)
            .contains("CustomerNotEntitledException")
    );
    sidecar.answers("/startupz", 503);
    sidecar.answers("/livez", 200);
    assert_eq!(pod.run(&["healthcheck"]).0, 1);
    assert!(sidecar.is_running());
    assert_eq!(
        aws.calls("RegisterUsage").len(),
        1,
        "it asks again only after minutes"
    );
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0);
}

#[test]
fn every_signature_attack_is_denied_as_unverified() {
    for attack in crate::aws::SIGNATURE_ATTACKS {
        let aws = Aws::start();
        aws.attack(attack);
        let pod = Pod::new(&aws);
        assert_eq!(pod.start().ends(), 77, "{attack}");
        let status = pod.status().unwrap();
        assert_eq!(
            (&status["state"], &status["reason"]),
            (&"denied".into(), &"unverified".into()),
            "{attack}"
        );
        assert_eq!(aws.calls("RegisterUsage").len(), 1, "{attack}");
    }
}
