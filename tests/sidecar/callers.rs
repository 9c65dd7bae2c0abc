//! Who may call the metering endpoint, and where it is: signed calls from anywhere, unsigned ones from this host alone.

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::aws::Aws;
use crate::pod::{PATIENCE, Pod, exchange, exchange_on, free_address, poll};
use crate::signer::{ACCESS_KEY_ID, Call, SECRET, Signer};

const REPORT: &str = "{\"dimension\":\"requests\",\"quantity\":1}";

fn key(id: &str, secret: &str) -> String {
    format!("[[key]]\naccess_key_id = \"{id}\"\nsecret_access_key = \"{secret}\"\n")
}

/// Writes the pod's file of keys as Kubernetes does: whole, in the place of the one before.
fn write_keys(pod: &Pod, text: &str, mode: u32) -> String {
    let fresh = pod.write("fresh-keys", text);
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode)).unwrap();
    let path = pod.path("keys.toml");
    std::fs::rename(fresh, &path).unwrap();
    path.display().to_string()
}

/// A pod whose callers sign, listening on every address.
fn signed_pod(aws: &Aws) -> (Pod, SocketAddr) {
    let pod = Pod::new(aws);
    let file = write_keys(&pod, &key(ACCESS_KEY_ID, SECRET), 0o440);
    let address = free_address();
    let everywhere = format!("0.0.0.0:{}", address.port());
    let pod = pod
        .with("TOLLGATE_CLIENT_AUTH_FILE", &file)
        .with("TOLLGATE_LISTEN", &everywhere);
    (pod, address)
}

fn signer() -> Signer {
    let now = jiff::Timestamp::now();
    Signer::at(&now.strftime("%Y%m%dT%H%M%SZ").to_string())
}

fn text(call: &Call) -> String {
    let headers: Vec<_> = call
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!(
        "{} {} HTTP/1.1\r\n{}connection: close\r\ncontent-length: {}\r\n\r\n{}",
        call.method,
        call.target,
        headers.concat(),
        call.body.len(),
        String::from_utf8(call.body.clone()).unwrap()
    )
}

fn send(address: SocketAddr, call: &Call) -> (u16, Value) {
    let (code, body) = exchange(address, &text(call)).expect("the endpoint answers");
    (code, serde_json::from_str(&body).unwrap())
}

fn report() -> Call {
    Call::new("POST", "/v1/usage", REPORT)
}

#[test]
fn every_route_asks_for_a_signature_and_answers_in_its_own_shape() {
    let aws = Aws::start();
    let (pod, address) = signed_pod(&aws);
    let pod = pod.with("TOLLGATE_QUITQUITQUIT", "on");
    let mut sidecar = pod.start();
    sidecar.reaches("entitled");
    let (code, body) = send(address, &Call::new("POST", "/", "{}"));
    assert_eq!(code, 400);
    let kind = body["__type"].as_str().unwrap();
    assert!(
        kind.ends_with("#MissingAuthenticationTokenException"),
        "{body}"
    );
    for (method, target) in [
        ("POST", "/v1/usage"),
        ("GET", "/v1/usage/019ab6a4-3c1e-7d52-9f5c-2f1d2b8f7a10"),
        ("POST", "/quitquitquit"),
        ("GET", "/nothing"),
    ] {
        let (code, body) = send(address, &Call::new(method, target, ""));
        assert_eq!(
            (code, &body["error"]["code"]),
            (403, &"MissingAuthenticationTokenException".into()),
            "{target}"
        );
    }
    assert!(sidecar.is_running());
    let (code, body) = send(address, &signer().sign(report()));
    assert_eq!(code, 200, "{body}");
    let route = format!("/v1/usage/{}", body["id"].as_str().unwrap());
    let (code, record) = send(address, &signer().sign(Call::new("GET", &route, "")));
    assert_eq!((code, &record["quantity"]), (200, &"1".into()), "{record}");
    let (_, metrics) = pod.get("/metrics").unwrap();
    assert!(
        metrics.contains("tollgate_refused_calls_total 5\n"),
        "{metrics}"
    );
    let (code, _) = send(
        address,
        &signer().sign(Call::new("POST", "/quitquitquit", "")),
    );
    assert_eq!(code, 200);
    assert_eq!(sidecar.ends(), 0);
    assert!(pod.log().contains("MissingAuthenticationTokenException"));
    assert!(!pod.log().contains(SECRET), "{}", pod.log());
}

#[test]
fn a_signature_takes_the_place_of_the_host_and_proxy_checks() {
    let aws = Aws::start();
    let (pod, address) = signed_pod(&aws);
    let mut sidecar = pod.start();
    sidecar.reaches("entitled");
    let call = report()
        .replace("host", "tollgate.metering.svc:8421")
        .with("x-forwarded-for", "10.0.0.1");
    let (code, body) = send(address, &signer().sign(call.clone()));
    assert_eq!(code, 200, "{body}");
    let elsewhere = signer().sign(call).replace("host", "evil.example:8421");
    let (code, body) = send(address, &elsewhere);
    assert_eq!(
        (code, &body["error"]["code"]),
        (403, &"InvalidSignatureException".into())
    );
}

#[test]
fn a_refused_call_with_a_long_body_leaves_the_connection_usable() {
    let aws = Aws::start();
    let (pod, address) = signed_pod(&aws);
    let mut sidecar = pod.start();
    sidecar.reaches("entitled");
    let mut stranger = signer();
    stranger.access_key_id = "AKIDNOBODY".to_owned();
    let body = " ".repeat(1024 * 1024 - 1);
    let refused = text(&stranger.sign(Call::new("POST", "/", &body)));
    let refused = refused.replace("connection: close\r\n", "");
    let both = refused + &text(&signer().sign(report()));
    let (code, answers) = exchange(address, &both).expect("the endpoint answers");
    assert_eq!(code, 400);
    assert!(
        answers.contains("#UnrecognizedClientException"),
        "{answers}"
    );
    assert!(answers.contains("HTTP/1.1 200 OK"), "{answers}");
}

#[test]
fn sighup_changes_the_keys_and_a_bad_file_does_not() {
    let aws = Aws::start();
    let (pod, address) = signed_pod(&aws);
    let mut sidecar = pod.start();
    sidecar.reaches("entitled");
    let code = |secret: &str| {
        let mut signer = signer();
        secret.clone_into(&mut signer.secret);
        send(address, &signer.sign(report())).0
    };
    assert_eq!(code(SECRET), 200);
    for (text, mode) in [
        (String::new(), 0o400),
        (key("A", "b-secret-of-some-length"), 0o644),
    ] {
        write_keys(&pod, &text, mode);
        let complaints = || pod.log().matches("stay in force").count();
        let before = complaints();
        sidecar.signal("HUP");
        poll(|| (complaints() > before).then_some(())).expect("it complains");
        assert_eq!(code(SECRET), 200);
    }
    let rotated = "rotated-secret-of-some-length";
    write_keys(&pod, &key(ACCESS_KEY_ID, rotated), 0o400);
    sidecar.signal("HUP");
    poll(|| (code(rotated) == 200).then_some(())).expect("the new secret counts");
    assert_eq!(code(SECRET), 403, "the old one no more");
    assert!(!pod.log().contains(rotated) && !pod.log().contains(SECRET));
}

#[test]
fn unsigned_calls_from_other_hosts_are_a_configuration_error() {
    let aws = Aws::start();
    let pod = Pod::new(&aws).with("TOLLGATE_LISTEN", "0.0.0.0:8421");
    assert_eq!(pod.start().ends(), 78);
    assert!(
        pod.log().contains("TOLLGATE_CLIENT_AUTH_FILE"),
        "{}",
        pod.log()
    );
    let (pod, _) = signed_pod(&aws);
    write_keys(&pod, &key(ACCESS_KEY_ID, SECRET), 0o644);
    assert_eq!(pod.start().ends(), 78);
    assert!(pod.log().contains("0644") && !pod.log().contains(SECRET));
}

/// A pod whose endpoint is a socket in a folder that is not there yet.
fn socket_pod(aws: &Aws) -> (Pod, std::path::PathBuf) {
    let pod = Pod::new(aws);
    let path = pod.path("shared/metering.sock");
    let listen = format!("unix:{}", path.display());
    (pod.with("TOLLGATE_LISTEN", &listen), path)
}

fn send_on(path: &Path, call: &Call) -> Option<u16> {
    let stream = UnixStream::connect(path).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(exchange_on(stream, &text(call))?.0)
}

#[test]
fn a_unix_socket_is_for_its_group_and_goes_with_the_process() {
    let aws = Aws::start();
    let (pod, path) = socket_pod(&aws);
    let mut sidecar = pod.start();
    sidecar.reaches("entitled");
    let metadata = std::fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    assert_eq!(send_on(&path, &report()), Some(200));
    let foreign = report().replace("host", "example.com");
    assert_eq!(send_on(&path, &foreign), Some(403));
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0);
    assert!(!path.exists(), "{}", pod.log());
}

#[test]
fn a_socket_that_a_killed_process_left_is_replaced() {
    let aws = Aws::start();
    let (pod, path) = socket_pod(&aws);
    let mut killed = pod.start();
    killed.reaches("entitled");
    drop(killed);
    assert!(path.exists() && UnixStream::connect(&path).is_err());
    let _sidecar = pod.start();
    poll(|| send_on(&path, &report()).filter(|code| *code == 200)).expect("it meters again");
}

#[test]
fn a_socket_in_use_and_a_file_are_left_alone() {
    let aws = Aws::start();
    let (pod, path) = socket_pod(&aws);
    let mut first = pod.start();
    first.reaches("entitled");
    let listen = format!("unix:{}", path.display());
    let second = Pod::new(&aws).with("TOLLGATE_LISTEN", &listen);
    assert_eq!(second.start().ends(), 78);
    assert!(
        second.log().contains("another process listens there"),
        "{}",
        second.log()
    );
    assert_eq!(
        send_on(&path, &report()),
        Some(200),
        "the first one goes on"
    );
    let third = Pod::new(&aws);
    let file = third.write("plain", "kept").display().to_string();
    let third = third.with("TOLLGATE_LISTEN", &format!("unix:{file}"));
    assert_eq!(third.start().ends(), 78);
    assert!(third.log().contains("no socket"), "{}", third.log());
    assert_eq!(std::fs::read_to_string(file).unwrap(), "kept");
    let fourth = Pod::new(&aws).with("TOLLGATE_LISTEN", "unix:/proc/none/metering.sock");
    assert_eq!(fourth.start().ends(), 78);
    assert!(fourth.log().contains("TOLLGATE_LISTEN"), "{}", fourth.log());
}
