//! Mistakes, one clear line each, the right exit code, and never entitled.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::aws::Aws;
use crate::pod::{Pod, exchange, poll};
use crate::volume::Volume;

/// The sidecar ends with 78 and one line that names `named`; nothing was asked.
fn is_misconfigured(aws: &Aws, pod: &Pod, named: &str) {
    assert_eq!(pod.start().ends(), 78, "{}", pod.log());
    let complaints: Vec<_> = pod
        .log()
        .lines()
        .filter(|line| !line.contains("\"INFO\"") && !line.contains("\"WARN\""))
        .map(str::to_owned)
        .collect();
    assert_eq!(complaints.len(), 1, "{}", pod.log());
    assert!(
        complaints[0].contains(named),
        "{named:?} is not in {}",
        complaints[0]
    );
    assert!(aws.all_calls().is_empty());
    assert!(
        pod.status()
            .is_none_or(|status| status["state"] == "pending")
    );
}

#[test]
fn wrong_keys_codes_and_nonces_are_named() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let wrong = pod.write(
        "wrong.pem",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    );
    let value = format!("1={}", wrong.display());
    is_misconfigured(&aws, &pod.with("TOLLGATE_PUBLIC_KEYS", &value), "wrong.pem");
    is_misconfigured(
        &aws,
        &Pod::new(&aws).with("TOLLGATE_PUBLIC_KEYS", "1=/nonexistent.pem"),
        "/nonexistent.pem",
    );
    is_misconfigured(
        &aws,
        &Pod::new(&aws).with("TOLLGATE_PRODUCT_CODE", ""),
        "TOLLGATE_PRODUCT_CODE",
    );
    is_misconfigured(
        &aws,
        &Pod::new(&aws).with("TOLLGATE_PRODUCT_CODE", &"x".repeat(256)),
        "255",
    );
    is_misconfigured(
        &aws,
        &Pod::new(&aws).with("TOLLGATE_NONCE_FILE", "/nonexistent"),
        "TOLLGATE_NONCE_FILE",
    );
    is_misconfigured(
        &aws,
        &Pod::new(&aws).with("TOLLGATE_UNKNOWN", "x"),
        "TOLLGATE_UNKNOWN",
    );
}

#[test]
fn a_port_in_use_is_named() {
    let aws = Aws::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    is_misconfigured(
        &aws,
        &Pod::new(&aws).with("TOLLGATE_HEALTH_LISTEN", &address),
        &address,
    );
    is_misconfigured(
        &aws,
        &Pod::new(&aws).with("TOLLGATE_HEALTH_LISTEN", "203.0.113.1:80"),
        "203.0.113.1:80",
    );
}

#[test]
fn folders_that_are_files_are_named() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let file = pod.write("file", "").display().to_string();
    let pod = pod.with("TOLLGATE_STATE_DIR", &file);
    is_misconfigured(&aws, &pod, "TOLLGATE_STATE_DIR");
    let pod = Pod::new(&aws);
    let inside = format!("{}/status.json", pod.write("file", "").display());
    is_misconfigured(
        &aws,
        &pod.with("TOLLGATE_STATUS_FILE", &inside),
        "TOLLGATE_STATUS_FILE",
    );
    let pod = Pod::new(&aws);
    let folder = pod.path("folder");
    std::fs::create_dir(&folder).unwrap();
    is_misconfigured(
        &aws,
        &pod.with("TOLLGATE_STATUS_FILE", &folder.display().to_string()),
        "TOLLGATE_STATUS_FILE",
    );
}

/// /dev/full takes no byte; /proc takes no folder, not even from root.
#[test]
fn folders_that_can_not_be_written_are_named() {
    let aws = Aws::start();
    is_misconfigured(
        &aws,
        &Pod::new(&aws).with("TOLLGATE_STATE_DIR", "/proc/tollgate"),
        "TOLLGATE_STATE_DIR",
    );
    is_misconfigured(
        &aws,
        &Pod::new(&aws).with("TOLLGATE_STATUS_FILE", "/proc/tollgate/status.json"),
        "TOLLGATE_STATUS_FILE",
    );
}

#[test]
fn a_full_volume_is_named_and_never_entitled() {
    let aws = Aws::start();
    for (setting, folder) in [
        ("TOLLGATE_STATE_DIR", "full"),
        ("TOLLGATE_STATUS_FILE", "full/status.json"),
    ] {
        let pod = Pod::new(&aws);
        let volume = Volume::mount(&pod.path("full"), "4k");
        volume.fill();
        let pod = pod.with(
            setting,
            &volume
                .path()
                .join(folder.trim_start_matches("full").trim_start_matches('/'))
                .display()
                .to_string(),
        );
        is_misconfigured(&aws, &pod, setting);
    }
}

#[test]
fn a_status_folder_that_fills_up_later_never_says_entitled() {
    let aws = Aws::start();
    aws.fault("RegisterUsage", "internal-error", 2);
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start();
    sidecar.reaches("pending");
    // The file becomes a folder that can't be replaced: stands for any volume that stops taking writes.
    let path = pod.path("run/status.json");
    let _ = std::fs::remove_file(&path);
    std::fs::create_dir_all(path.join("in-the-way")).unwrap();
    assert_eq!(sidecar.ends(), 78, "{}", pod.log());
    assert!(pod.log().contains("TOLLGATE_STATUS_FILE"));
}

#[test]
fn a_signature_of_three_megabytes_is_unverified() {
    let aws = Aws::start();
    aws.attack("huge");
    let pod = Pod::new(&aws);
    assert_eq!(pod.start().ends(), 77);
    assert!(
        pod.status().unwrap()["advice"]
            .as_str()
            .unwrap()
            .contains("characters long")
    );
}

#[test]
fn a_ca_bundle_that_is_none_is_named() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let file = pod.write("bundle.pem", "nothing").display().to_string();
    is_misconfigured(&aws, &pod.with("AWS_CA_BUNDLE", &file), "AWS_CA_BUNDLE");
    is_misconfigured(
        &aws,
        &Pod::new(&aws).with("AWS_CA_BUNDLE", "/nonexistent"),
        "AWS_CA_BUNDLE",
    );
}

#[test]
fn command_lines_that_make_no_sense_exit_with_2() {
    let pod = Pod::bare();
    for arguments in [
        &["runn"][..],
        &["run", "--nonsense"],
        &["wait", "--timeout", "5"],
        &["install"],
        &["run", "extra"],
    ] {
        let (code, output) = pod.run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {output}");
        assert!(!output.is_empty());
    }
    for arguments in [&["--help"][..], &["--version"], &["help", "wait"]] {
        assert_eq!(pod.run(arguments).0, 0);
    }
}

#[test]
fn healthcheck_without_a_sidecar_is_not_ready() {
    let (code, output) = Pod::bare().run(&["healthcheck"]);
    assert_eq!(code, 1);
    assert!(output.contains("no sidecar answers"), "{output}");
}

#[test]
fn install_copies_a_binary_that_runs() {
    let pod = Pod::bare();
    for target in [pod.path("bin/tollgate"), pod.path("bin")] {
        let (code, output) = pod.run(&["install", &target.display().to_string()]);
        assert_eq!(code, 0, "{output}");
        let copy = pod.path("bin/tollgate");
        assert_eq!(
            std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
            0o755
        );
        let ran = std::process::Command::new(&copy)
            .arg("--version")
            .output()
            .unwrap();
        assert!(ran.status.success());
    }
    assert_eq!(pod.run(&["install", "/proc/tollgate"]).0, 78);
}

#[test]
fn the_health_listener_answers_only_what_it_knows() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start();
    sidecar.answers("/livez", 200);
    let ask = |request: &str| exchange(pod.health, request).map(|(code, _)| code);
    let end = "HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(ask(&format!("GET /nothing {end}")), Some(404));
    assert_eq!(ask(&format!("POST /readyz {end}")), Some(405));
    assert_eq!(ask(&format!("DELETE / {end}")), Some(405));
    assert_eq!(ask("nonsense\r\n\r\n"), Some(400));
    assert_eq!(
        ask(&format!("GET /{} {end}", "x".repeat(60_000))),
        Some(431)
    );
    assert!(poll(|| pod.get("/livez")).is_some());
    sidecar.reaches("entitled");
}
