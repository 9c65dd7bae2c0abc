//! An app that asks for a proof with its own nonce.

use serde_json::{Value, json};

use crate::aws::{self, Aws};
use crate::pod::{Pod, Sidecar};

fn start(pod: &Pod) -> Sidecar<'_> {
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    sidecar
}

fn register(pod: &Pod, request: &Value) -> (u16, Value) {
    let target = "x-amz-target: AWSMPMeteringService.RegisterUsage\r\n";
    pod.post("/", target, &request.to_string())
}

fn challenge(pod: &Pod, nonce: &str) -> (u16, Value) {
    let body = json!({"nonce": nonce}).to_string();
    pod.post("/v1/entitlement/challenge", "", &body)
}

/// The claims of a JWT, unverified.
fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn a_challenge_is_answered_with_a_fresh_signature_over_the_apps_nonce() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let _sidecar = start(&pod);
    for nonce in ["n-1", "n-2"] {
        let (code, answer) = challenge(&pod, nonce);
        assert_eq!(code, 200, "{answer}");
        assert_eq!(answer["nonce"], nonce);
        assert_eq!(answer["product_code"], aws::PRODUCT);
        assert_eq!(answer["public_key_version"], 1);
        let signed = claims(answer["signature"].as_str().unwrap()).to_string();
        assert!(signed.contains(nonce), "{signed}");
    }
    assert_eq!(
        aws.count("RegisterUsage"),
        3,
        "one of the sidecar's own, two of the app's"
    );
}

#[test]
fn an_apps_own_register_usage_gets_awss_answer_as_it_is() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let _sidecar = start(&pod);
    let request = json!({"ProductCode": aws::PRODUCT, "PublicKeyVersion": 1, "Nonce": "app-nonce"});
    let (code, answer) = register(&pod, &request);
    assert_eq!(code, 200, "{answer}");
    assert!(
        claims(answer["Signature"].as_str().unwrap())
            .to_string()
            .contains("app-nonce")
    );
    let without = json!({"ProductCode": aws::PRODUCT, "PublicKeyVersion": 1});
    assert_eq!(register(&pod, &without).0, 200);
    for (change, error) in [
        (
            json!({"ProductCode": "another"}),
            "InvalidProductCodeException",
        ),
        (json!({"PublicKeyVersion": 0}), "ValidationException"),
        (
            json!({"PublicKeyVersion": 7}),
            "InvalidPublicKeyVersionException",
        ),
        (json!({"Nonce": "x".repeat(256)}), "ValidationException"),
    ] {
        let mut request = request.clone();
        for (name, value) in change.as_object().unwrap() {
            request[name] = value.clone();
        }
        let (code, answer) = register(&pod, &request);
        assert_eq!(code, 400, "{answer}");
        assert!(
            answer["__type"].as_str().unwrap().ends_with(error),
            "{answer}"
        );
    }
}

#[test]
fn an_answer_that_does_not_verify_is_not_handed_on() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let _sidecar = start(&pod);
    for attack in [
        "other-key",
        "alg-none",
        "other-nonce",
        "other-product",
        "missing",
    ] {
        aws.clear_faults();
        aws.attack(attack);
        let (code, answer) = challenge(&pod, "n-1");
        assert_eq!(
            (code, &answer["error"]["code"]),
            (502, &json!("unverified")),
            "{attack}: {answer}"
        );
        let request = json!({"ProductCode": aws::PRODUCT, "PublicKeyVersion": 1, "Nonce": "n-1"});
        let (code, answer) = register(&pod, &request);
        assert_eq!(code, 500, "{attack}: {answer}");
        assert!(answer.get("Signature").is_none());
    }
}

#[test]
fn challenges_are_limited_so_that_an_app_cannot_use_up_the_accounts_calls() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let _sidecar = start(&pod);
    let codes: Vec<u16> = (0..30)
        .map(|call| challenge(&pod, &format!("n-{call}")).0)
        .collect();
    let passed = codes.iter().filter(|code| **code == 200).count();
    assert!((20..=25).contains(&passed), "{codes:?}");
    assert_eq!(
        codes.iter().filter(|code| **code == 429).count(),
        30 - passed
    );
    assert_eq!(aws.count("RegisterUsage"), passed + 1);
}

#[test]
fn refusals_and_outages_are_told_apart() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let _sidecar = start(&pod);
    for (error, code, name) in [
        (
            "CustomerNotEntitledException",
            403,
            "CustomerNotEntitledException",
        ),
        ("ThrottlingException", 429, "ThrottlingException"),
        ("InternalServiceErrorException", 503, "Unreachable"),
    ] {
        aws.refuse("RegisterUsage", error, 1);
        let (found, answer) = challenge(&pod, "n-1");
        assert_eq!(
            (found, &answer["error"]["code"]),
            (code, &json!(name)),
            "{answer}"
        );
    }
    for body in [
        "",
        "{",
        "{}",
        "{\"nonce\":\"\"}",
        "{\"nonce\":1}",
        "{\"nonce\":\"a\",\"more\":1}",
    ] {
        let (code, answer) = pod.post("/v1/entitlement/challenge", "", body);
        assert_eq!(code, 400, "{body}: {answer}");
    }
}

#[test]
fn a_product_without_register_usage_has_no_proof_to_give() {
    let aws = Aws::start();
    let pod = Pod::new(&aws).with("TOLLGATE_ENTITLEMENT_CHECK", "none");
    let _sidecar = start(&pod);
    let (code, answer) = challenge(&pod, "n-1");
    assert_eq!(
        (code, &answer["error"]["code"]),
        (409, &json!("ProofUnavailable"))
    );
}
