//! From the first question to a main container that may start: once per task or pod.

use serde_json::json;

use crate::aws::{Aws, PRODUCT};
use crate::pod::{Pod, poll};

#[test]
fn an_entitled_buyer_is_registered_with_exactly_one_call() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start();
    let status = sidecar.reaches("entitled");
    sidecar.answers("/readyz", 200);
    sidecar.answers("/startupz", 200);
    assert_eq!(aws.calls("RegisterUsage").len(), 1);
    assert_eq!(status["schema"], "tollgate.status/v1");
    assert_eq!(status["product_code"], PRODUCT);
    assert_eq!(status["check"], "register-usage");
    assert_eq!(status["public_key_version"], 1);
    assert_eq!(status["region"], "us-east-1");
    assert_eq!(status["identity"], "pod-1");
    assert_eq!(status["platform"], "eks");
    assert_eq!(status["reason"], json!(null));
    assert!(status["registered_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(pod.run(&["verify"]).0, 0);
    assert_eq!(pod.run(&["healthcheck"]).0, 0);
}

#[test]
fn the_network_status_leaves_nonce_and_signature_out() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start();
    let file = sidecar.reaches("entitled");
    let body = sidecar.answers("/status", 200);
    let public: serde_json::Value = serde_json::from_str(&body).unwrap();
    for (name, value) in file.as_object().unwrap() {
        match name.as_str() {
            "nonce" | "signature" => {
                assert!(public.get(name).is_none(), "{name} is on the network")
            }
            _ => assert_eq!(public[name], *value),
        }
    }
    for secret in ["nonce", "signature"] {
        assert!(
            !pod.log().contains(file[secret].as_str().unwrap()),
            "{secret} is in the log"
        );
        assert!(
            !sidecar
                .answers("/", 200)
                .contains(file[secret].as_str().unwrap())
        );
    }
}

#[test]
fn a_restart_takes_the_kept_grant_and_makes_no_call() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    for signal in ["KILL", "TERM"] {
        let mut sidecar = pod.start();
        sidecar.reaches("entitled");
        sidecar.answers("/readyz", 200);
        sidecar.signal(signal);
        sidecar.ends();
        std::fs::remove_file(pod.path("run/status.json")).unwrap();
    }
    aws.outage();
    let mut sidecar = pod.start();
    sidecar.reaches("entitled");
    assert_eq!(aws.calls("RegisterUsage").len(), 1);
}

#[test]
fn another_identity_product_or_nonce_asks_again() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut calls = 0;
    let mut expect_a_call = |pod: &Pod| {
        let mut sidecar = pod.start();
        sidecar.answers("/readyz", 200);
        calls += 1;
        assert_eq!(aws.calls("RegisterUsage").len(), calls, "{}", pod.log());
    };
    expect_a_call(&pod);
    let pod = pod.with("POD_UID", "pod-2");
    expect_a_call(&pod);
    let nonce = pod
        .write("nonce", "the-main-container-s-own\n")
        .display()
        .to_string();
    let pod = pod.with("TOLLGATE_NONCE_FILE", &nonce);
    expect_a_call(&pod);
    assert_eq!(pod.status().unwrap()["nonce"], "the-main-container-s-own");
    pod.write("nonce", "another");
    expect_a_call(&pod);
    aws.add_product("prod-other");
    let keys = format!(
        "1={}",
        pod.write("keys/other.pem", &aws.public_key_of("prod-other", 1))
            .display()
    );
    let pod = pod
        .with("TOLLGATE_PRODUCT_CODE", "prod-other")
        .with("TOLLGATE_PUBLIC_KEYS", &keys);
    expect_a_call(&pod);
}

#[test]
fn a_grant_that_was_tampered_with_asks_again() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    pod.start().answers("/readyz", 200);
    let path = pod.path("state/grant.json");
    let genuine = std::fs::read_to_string(&path).unwrap();
    let signature = pod.status().unwrap()["signature"]
        .as_str()
        .unwrap()
        .to_owned();
    let forgeries = [
        genuine.replace("pod-1", "pod-9"),
        genuine.replace(&signature, &signature.replace('A', "B")),
        genuine.replace("us-east-1", "eu-west-1"),
        genuine[..genuine.len() / 2].to_owned(),
        String::new(),
        "{}".to_owned(),
        "x".repeat(100_000),
    ];
    for (calls, forgery) in forgeries.iter().enumerate() {
        std::fs::write(&path, forgery).unwrap();
        pod.start().answers("/readyz", 200);
        assert_eq!(
            aws.calls("RegisterUsage").len(),
            calls + 2,
            "{forgery:.200}"
        );
    }
}

#[test]
fn a_grant_copied_from_another_pod_asks_again() {
    let aws = Aws::start();
    let (theirs, ours) = (Pod::new(&aws), Pod::new(&aws).with("POD_UID", "pod-2"));
    theirs.start().answers("/readyz", 200);
    std::fs::create_dir_all(ours.path("state")).unwrap();
    std::fs::copy(
        theirs.path("state/grant.json"),
        ours.path("state/grant.json"),
    )
    .unwrap();
    ours.start().answers("/readyz", 200);
    assert_eq!(aws.calls("RegisterUsage").len(), 2);
}

#[test]
fn the_highest_key_version_is_tried_first_and_the_next_one_after_a_refusal() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let one = pod.path("keys/1.pem").display().to_string();
    let pod = pod.with("TOLLGATE_PUBLIC_KEYS", &format!("1={one},3={one},2={one}"));
    let status = pod.start().reaches("entitled");
    assert_eq!(status["public_key_version"], 1);
    let versions: Vec<_> = aws
        .calls("RegisterUsage")
        .iter()
        .map(crate::aws::Logged::public_key_version)
        .collect();
    assert_eq!(versions, [3, 2, 1]);
}

#[test]
fn a_rotated_key_is_shown_and_logged() {
    let aws = Aws::start();
    aws.rotate_key(1, "2026-12-01T00:00:00Z");
    let pod = Pod::new(&aws);
    let status = pod.start().reaches("entitled");
    assert_eq!(status["public_key_rotation_at"], "2026-12-01T00:00:00Z");
    assert!(pod.log().contains("public_key_rotation_at"));
}

#[test]
fn both_spellings_of_the_claims_verify() {
    for spelling in ["camel", "pascal"] {
        for version_as_text in [false, true] {
            let aws = Aws::start();
            aws.spell_claims(spelling, version_as_text);
            let pod = Pod::new(&aws);
            pod.start().reaches("entitled");
        }
    }
}

#[test]
fn a_custom_metered_product_is_checked_by_a_record_of_zero() {
    let aws = Aws::start();
    let pod = Pod::new(&aws)
        .without("TOLLGATE_PUBLIC_KEYS")
        .with("TOLLGATE_ENTITLEMENT_CHECK", "meter-usage:requests");
    let status = pod.start().reaches("entitled");
    assert_eq!(status["check"], "meter-usage");
    assert_eq!(status["signature"], json!(null));
    assert_eq!(aws.calls("MeterUsage").len(), 1);
    assert_eq!(aws.calls("RegisterUsage").len(), 0);
    pod.start().answers("/readyz", 200);
    assert_eq!(aws.calls("MeterUsage").len(), 1, "once per identity");
    assert_eq!(pod.run(&["wait", "--timeout", "1s"]).0, 0);
    let signed = pod
        .write("keys/1.pem", &aws.public_key(1))
        .display()
        .to_string();
    let stricter = pod
        .with("TOLLGATE_ENTITLEMENT_CHECK", "register-usage")
        .with("TOLLGATE_PUBLIC_KEYS", &format!("1={signed}"));
    assert_eq!(stricter.run(&["wait", "--timeout", "1s"]).0, 77);
}

#[test]
fn no_check_makes_no_call() {
    let aws = Aws::start();
    let pod = Pod::new(&aws).with("TOLLGATE_ENTITLEMENT_CHECK", "none");
    let status = pod.start().reaches("entitled");
    assert_eq!(status["check"], "none");
    assert!(aws.all_calls().is_empty());
    assert_eq!(pod.run(&["wait", "--timeout", "1s"]).0, 0);
    assert_eq!(
        pod.with("TOLLGATE_ENTITLEMENT_CHECK", "register-usage")
            .run(&["wait", "--timeout", "1s"])
            .0,
        77
    );
}

#[test]
fn folders_are_created_and_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    pod.start().reaches("entitled");
    let mode = |name: &str| {
        std::fs::metadata(pod.path(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("state"), 0o700);
    assert_eq!(mode("state/grant.json"), 0o600);
    assert_eq!(mode("run/status.json"), 0o644);
}

#[test]
fn new_public_keys_are_read_on_sighup() {
    let aws = Aws::start();
    aws.refuse("RegisterUsage", "InvalidPublicKeyVersionException", 1);
    let pod = Pod::new(&aws).with("TOLLGATE_ON_DENIED", "hold");
    let mut sidecar = pod.start();
    sidecar.reaches("denied");
    pod.write("keys/1.pem", "not a key");
    sidecar.signal("HUP");
    assert!(
        poll(|| pod
            .log()
            .contains("the ones from before stay in force")
            .then_some(()))
        .is_some()
    );
    pod.write("keys/1.pem", &aws.public_key(1));
    sidecar.signal("HUP");
    sidecar.reaches("entitled");
    assert_eq!(aws.calls("RegisterUsage").len(), 2);
}
