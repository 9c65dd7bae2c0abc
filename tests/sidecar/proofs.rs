//! What `tollgate wait` and `tollgate verify`, and the programs under examples/, make of a status file.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::aws::{Aws, PRODUCT};
use crate::pod::{Pod, repository};

/// A pod whose status file says entitled, and that file's content.
fn entitled(aws: &Aws) -> (Pod, Value) {
    let pod = Pod::new(aws);
    let status = pod.start().reaches("entitled");
    (pod, status)
}

fn verdicts(pod: &Pod, status: &Value) -> [i32; 2] {
    pod.write("run/status.json", &status.to_string());
    [
        pod.run(&["wait", "--timeout", "100ms"]).0,
        pod.run(&["verify"]).0,
    ]
}

#[test]
fn a_status_file_that_claims_more_than_it_proves_is_refused() {
    let aws = Aws::start();
    let (pod, genuine) = entitled(&aws);
    assert_eq!(verdicts(&pod, &genuine), [0, 0]);
    let signature = genuine["signature"].as_str().unwrap();
    for (field, value) in [
        ("signature", json!(null)),
        ("signature", json!("")),
        ("signature", json!(format!("{signature}A"))),
        ("signature", json!(&signature[..signature.len() - 4])),
        ("nonce", json!(null)),
        ("nonce", json!("another")),
        ("public_key_version", json!(2)),
        ("public_key_version", json!(null)),
        ("product_code", json!("prod-other")),
        ("check", json!("none")),
        ("check", json!("meter-usage")),
        ("identity", json!("pod-2")),
        ("schema", json!("tollgate.status/v2")),
        ("state", json!("denied")),
    ] {
        let mut forged = genuine.clone();
        forged[field] = value;
        assert_eq!(
            verdicts(&pod, &forged),
            [77, 77],
            "{field}: {}",
            forged[field]
        );
    }
    for state in ["pending", "grace", "unavailable"] {
        let mut other = genuine.clone();
        other["state"] = json!(state);
        assert_eq!(verdicts(&pod, &other), [75, 77], "{state}");
    }
}

#[test]
fn a_replayed_status_file_from_another_instance_is_refused() {
    let aws = Aws::start();
    let (_theirs, status) = entitled(&aws);
    let ours = Pod::new(&aws).with("POD_UID", "pod-2");
    ours.write("run/status.json", &status.to_string());
    let (code, output) = ours.run(&["wait", "--timeout", "100ms"]);
    assert_eq!(code, 77);
    assert!(
        output.contains("pod-1") && output.contains("pod-2"),
        "{output}"
    );
    let mut renamed = status.clone();
    renamed["identity"] = json!("pod-2");
    assert_eq!(
        verdicts(&ours, &renamed),
        [77, 77],
        "the nonce commits to the other identity"
    );
}

/// A main container of Kubernetes has KUBERNETES_SERVICE_HOST, and POD_UID only where its manifest says so.
#[test]
fn a_main_container_without_pod_uid_takes_the_status_of_a_sidecar_with_one() {
    let aws = Aws::start();
    let sidecar = Pod::new(&aws)
        .with("POD_UID", "0f7c3e7a-54a4-4c39-8a9e-3a3f1f0f6d11")
        .with("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let status = sidecar.start().reaches("entitled");
    let main = sidecar.without("POD_UID");
    assert_eq!(verdicts(&main, &status), [0, 0]);
}

#[test]
fn host_names_are_compared_where_neither_side_knows_its_pod_uid() {
    let aws = Aws::start();
    let pod = Pod::new(&aws)
        .without("POD_UID")
        .with("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        .with("TOLLGATE_ENTITLEMENT_CHECK", "none");
    let status = pod.start().reaches("entitled");
    assert_eq!(verdicts(&pod, &status), [0, 0]);
    let mut replayed = status.clone();
    replayed["identity"] = json!("another-pods-host-name");
    assert_eq!(
        verdicts(&pod, &replayed),
        [77, 0],
        "only `wait` knows where it is"
    );
}

#[test]
fn a_main_container_with_a_nonce_of_its_own_takes_no_other() {
    let aws = Aws::start();
    let (_theirs, replayed) = entitled(&aws);
    let pod = Pod::new(&aws);
    let nonce = pod
        .write("nonce", "chosen-by-the-main-container")
        .display()
        .to_string();
    let pod = pod.with("TOLLGATE_NONCE_FILE", &nonce);
    let genuine = pod.start().reaches("entitled");
    assert_eq!(verdicts(&pod, &genuine), [0, 0]);
    assert_eq!(verdicts(&pod, &replayed), [77, 77]);
}

#[test]
fn a_status_file_that_is_no_status_is_refused() {
    let pod = Pod::new(&Aws::start());
    for content in [
        "",
        "{",
        "null",
        "[1,2]",
        "{\"state\":\"entitled\"}",
        &"x".repeat(3_000_000),
    ] {
        pod.write("run/status.json", content);
        assert_eq!(
            pod.run(&["wait", "--timeout", "100ms"]).0,
            77,
            "{content:.40}"
        );
        assert_eq!(pod.run(&["verify"]).0, 77, "{content:.40}");
    }
    std::fs::remove_file(pod.path("run/status.json")).unwrap();
    assert_eq!(pod.run(&["verify"]).0, 77);
    assert_eq!(pod.run(&["verify", "/nonexistent/status.json"]).0, 77);
}

#[test]
fn without_a_key_there_is_nothing_to_verify_with() {
    let aws = Aws::start();
    let (pod, _) = entitled(&aws);
    let pod = pod.without("TOLLGATE_PUBLIC_KEYS");
    for command in ["wait", "verify"] {
        let (code, output) = pod.run(&[command]);
        assert_eq!(code, 78);
        assert!(output.contains("TOLLGATE_PUBLIC_KEYS"), "{output}");
    }
}

#[test]
fn the_example_programs_tell_a_genuine_status_from_a_forged_one() {
    let aws = Aws::start();
    let (pod, genuine) = entitled(&aws);
    let signature = genuine["signature"].as_str().unwrap().to_owned();
    let forged = |field: &str, value: Value| {
        let mut forged = genuine.clone();
        forged[field] = value;
        forged
    };
    let cases = [
        (genuine.clone(), "pod-1", true),
        (genuine.clone(), "pod-2", false),
        (forged("state", json!("denied")), "pod-1", false),
        (
            forged("signature", json!(altered(&signature))),
            "pod-1",
            false,
        ),
        (
            forged("signature", json!(format!("{signature}="))),
            "pod-1",
            false,
        ),
        (forged("signature", json!("a.b.c")), "pod-1", false),
        (forged("signature", json!(null)), "pod-1", false),
    ];
    let key = format!("1={}", pod.path("keys/1.pem").display());
    for (program, arguments) in [
        (python(), vec!["examples/python/entitlement.py"]),
        ("node".to_owned(), vec!["examples/node/entitlement.mjs"]),
    ] {
        for (status, identity, expected) in &cases {
            let file = pod.write("copied.json", &status.to_string());
            let output = Command::new(&program)
                .args(&arguments)
                .args(["--product", PRODUCT, "--key", &key, "--identity", identity])
                .arg(&file)
                .current_dir(repository("."))
                .output()
                .unwrap_or_else(|error| {
                    panic!("{program}: {error}; tests/compat/setup installs it")
                });
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(
                output.status.success(),
                *expected,
                "{program} {identity}: {said}\n{status}"
            );
            assert!(*expected || said.starts_with("not entitled: "), "{said}");
        }
        let nonce = pod.write("own-nonce", genuine["nonce"].as_str().unwrap());
        let file = pod.write("copied.json", &genuine.to_string());
        let checked = Command::new(&program)
            .args(&arguments)
            .args(["--product", PRODUCT, "--key", &key, "--nonce-file"])
            .args([nonce, file])
            .current_dir(repository("."))
            .status()
            .unwrap();
        assert!(checked.success());
    }
}

/// The token with another first character of its signature.
fn altered(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { "B" } else { "A" };
    format!("{signed}.{other}{}", &signature[1..])
}

/// The interpreter with the packages that `tests/compat/setup` installs.
fn python() -> String {
    let python = repository("target/compat/venv/bin/python");
    assert!(
        Path::new(&python).exists(),
        "run tests/compat/setup first, as `make test` does"
    );
    python.display().to_string()
}
