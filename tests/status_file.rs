//! The status file as a reader sees it while it is being rewritten.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

use tollgate::entitlement::status::{SCHEMA, StateName, Status, StatusError};

const REWRITES: usize = 1000;

fn status(advice_chars: usize) -> Status {
    Status {
        schema: SCHEMA.to_owned(),
        state: StateName::Denied,
        reason: Some("CustomerNotEntitledException".to_owned()),
        advice: Some("x".repeat(advice_chars)),
        product_code: "prod-1".to_owned(),
        check: "register-usage".to_owned(),
        public_key_version: None,
        nonce: Some("nonce".to_owned()),
        signature: Some("signature".to_owned()),
        registered_at: None,
        region: "us-east-1".to_owned(),
        identity: "task-1".to_owned(),
        platform: "ecs".to_owned(),
        public_key_rotation_at: None,
        version: "0.1.0".to_owned(),
    }
}

#[test]
fn a_reader_that_polls_a_thousand_rewrites_never_sees_a_partial_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("status.json");
    let sizes = [10, 9_000];
    status(sizes[0]).write(&path).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = [0_u32; 2];
            while !done.load(Ordering::Acquire) {
                let read = Status::read(&path).expect("a complete status at every instant");
                let size = read.advice.map_or(0, |advice| advice.len());
                let which = sizes
                    .iter()
                    .position(|s| *s == size)
                    .expect("one of the two that were written");
                seen[which] += 1;
            }
            seen
        });
        for round in 0..REWRITES {
            status(sizes[round % 2]).write(&path).unwrap();
        }
        done.store(true, Ordering::Release);
        let seen = reader.join().unwrap();
        assert!(
            seen.iter().all(|count| *count > 0),
            "the reader saw both: {seen:?}"
        );
    });
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["status.json"], "no temporary file is left");
}

#[test]
fn everybody_may_read_it_whatever_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("status.json");
    status(1).write(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o644
    );
}

#[test]
fn the_network_sees_neither_nonce_nor_signature() {
    let public = status(1).public();
    let fields = public.as_object().unwrap();
    assert!(!fields.contains_key("nonce") && !fields.contains_key("signature"));
    assert_eq!(fields["state"], "denied");
    assert_eq!(fields.len(), 13);
}

#[test]
fn what_is_no_status_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("status.json");
    assert!(matches!(Status::read(&path), Err(StatusError::Absent(_))));
    for content in [
        "",
        "{",
        "[]",
        "{\"schema\":\"tollgate.status/v2\"}",
        &"x".repeat(100_000),
    ] {
        std::fs::write(&path, content).unwrap();
        assert!(
            matches!(Status::read(&path), Err(StatusError::Malformed { .. })),
            "{content:.20}"
        );
    }
    let other = serde_json::to_string(&Status {
        schema: "tollgate.status/v2".to_owned(),
        ..status(1)
    })
    .unwrap();
    std::fs::write(&path, other).unwrap();
    assert!(matches!(
        Status::read(&path),
        Err(StatusError::Malformed { .. })
    ));
}
