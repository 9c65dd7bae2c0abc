//! What an app, a broken client or a stranger may send to the metering endpoint: each gets a clear error in its own protocol.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::aws::{Aws, PRODUCT};
use crate::pod::{PATIENCE, Pod, Sidecar, now_seconds, poll};

const TARGET: &str = "x-amz-target: AWSMPMeteringService.MeterUsage\r\n";

fn start(pod: &Pod) -> Sidecar<'_> {
    let mut sidecar = pod.start();
    sidecar.answers("/readyz", 200);
    sidecar
}

/// Nothing is wrong with the sidecar, and it has `units` in its ledger.
fn is_well(pod: &Pod, sidecar: &mut Sidecar<'_>, units: u32) {
    let (code, answer) = pod.report(&json!({"dimension": "requests", "quantity": 1}));
    assert_eq!(code, 200, "{answer}");
    assert_eq!(pod.usage()[0]["quantity"], (units + 1).to_string());
    assert!(
        sidecar.is_running() && !pod.log().contains("panicked"),
        "{}",
        pod.log()
    );
}

/// Sends bytes as they are, and reads what comes until the connection ends.
fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The other side may answer and close before it has read everything.
    let _ = stream.write_all(request);
    read(&mut stream)
}

fn read(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    let code = answer.get(9..12).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no answer of HTTP: {answer:?}"))
}

fn body(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {answer:?}"))
}

fn meter_usage(quantity: u32) -> String {
    json!({"ProductCode": PRODUCT, "UsageDimension": "requests", "UsageQuantity": quantity, "Timestamp": now_seconds()})
        .to_string()
}

/// A request with whole `lines` between request line and body.
fn request(line: &str, lines: &str, body: &str) -> String {
    let length = body.len();
    format!("{line}\r\nconnection: close\r\n{lines}content-length: {length}\r\n\r\n{body}")
}

#[test]
fn bodies_that_make_no_sense_get_awss_own_exceptions() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = start(&pod);
    let with = |member: &str, value: &str| {
        let mut usage = json!({"ProductCode": PRODUCT, "UsageDimension": "requests", "Timestamp": now_seconds()});
        usage[member] = json!("HERE");
        usage.to_string().replace("\"HERE\"", value)
    };
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    for (body, name) in [
        (String::new(), "SerializationException"),
        ("{".to_owned(), "SerializationException"),
        ("[]".to_owned(), "SerializationException"),
        ("null".to_owned(), "SerializationException"),
        ("\u{0}\u{1}\u{2}".to_owned(), "SerializationException"),
        (with("UsageQuantity", "NaN"), "SerializationException"),
        (with("UsageQuantity", "1e999"), "SerializationException"),
        (with("UsageQuantity", "\"7\""), "SerializationException"),
        (with("UsageQuantity", "{}"), "SerializationException"),
        (with("UsageDimension", "7"), "SerializationException"),
        (with("Timestamp", "\"now\""), "SerializationException"),
        (with("Timestamp", "null"), "ValidationException"),
        (with("UsageAllocations", &deep), "SerializationException"),
        (with("UsageQuantity", "-1"), "ValidationException"),
        (with("UsageQuantity", "1.5"), "ValidationException"),
        (with("UsageQuantity", "2147483648"), "ValidationException"),
        (
            with("UsageQuantity", "99999999999999999999999999"),
            "ValidationException",
        ),
        (
            with("UsageQuantityAsDecimal", "\"-1\""),
            "ValidationException",
        ),
        (
            with("UsageQuantityAsDecimal", "\"NaN\""),
            "ValidationException",
        ),
        (
            with("UsageQuantityAsDecimal", "\"1e3\""),
            "ValidationException",
        ),
        (
            with("UsageQuantityAsDecimal", "\"0.0000001\""),
            "ValidationException",
        ),
        (
            with("UsageQuantityAsDecimal", "\"10000000000\""),
            "ValidationException",
        ),
        (with("UsageDimension", "\"\""), "ValidationException"),
        (
            with("ProductCode", "\"prod-other\""),
            "InvalidProductCodeException",
        ),
        (with("Timestamp", "1"), "TimestampOutOfBoundsException"),
        (with("Timestamp", "1e12"), "ValidationException"),
        (
            with("Timestamp", "99999999999"),
            "TimestampOutOfBoundsException",
        ),
        (
            with("UsageAllocations", "[{\"AllocatedUsageQuantity\": 1}]"),
            "InvalidUsageAllocationsException",
        ),
    ] {
        let (code, answer) = pod.post("/", TARGET, &body);
        let shown: String = body.chars().take(150).collect();
        assert_eq!(code, 400, "{shown}: {answer}");
        assert_eq!(
            answer["__type"],
            format!("com.amazonaws.marketplacemetering#{name}"),
            "{shown}: {answer}"
        );
        assert!(
            answer["message"]
                .as_str()
                .is_some_and(|message| message.len() > 10),
            "{answer}"
        );
    }
    assert_eq!(
        pod.post("/", TARGET, &with("Unknown", &deep)).0,
        200,
        "a member of a later model"
    );
    is_well(&pod, &mut sidecar, 0);
}

#[test]
fn plain_json_that_makes_no_sense_gets_plain_json_errors() {
    let aws = Aws::start();
    let pod = Pod::new(&aws).with("TOLLGATE_DIMENSIONS", "requests,hosts:distinct");
    let mut sidecar = start(&pod);
    for (body, name) in [
        ("", "SerializationException"),
        (
            "{\"dimension\":\"requests\",\"quantity\":NaN}",
            "SerializationException",
        ),
        (
            "{\"dimension\":\"requests\",\"quantity\":1,\"more\":1}",
            "SerializationException",
        ),
        ("{\"dimension\":7,\"quantity\":1}", "SerializationException"),
        (
            "{\"dimension\":\"requests\",\"quantity\":-1}",
            "ValidationException",
        ),
        (
            "{\"dimension\":\"requests\",\"quantity\":1e300}",
            "ValidationException",
        ),
        (
            "{\"dimension\":\"requests\",\"quantity\":[1]}",
            "ValidationException",
        ),
        (
            "{\"dimension\":\"requests\",\"quantity\":1,\"timestamp\":\"yesterday\"}",
            "ValidationException",
        ),
        (
            "{\"dimension\":\"requests\",\"quantity\":1,\"timestamp\":1}",
            "TimestampOutOfBoundsException",
        ),
        (
            "{\"dimension\":\"other\",\"quantity\":1}",
            "InvalidUsageDimensionException",
        ),
        (
            "{\"dimension\":\"requests\",\"key\":\"a\"}",
            "InvalidUsageDimensionException",
        ),
        (
            "{\"dimension\":\"hosts\",\"quantity\":1}",
            "InvalidUsageDimensionException",
        ),
    ] {
        let (code, answer) = pod.post("/v1/usage", "", body);
        assert_eq!(
            (code, &answer["error"]["code"]),
            (400, &json!(name)),
            "{body}: {answer}"
        );
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|message| message.len() > 10),
            "{answer}"
        );
    }
    is_well(&pod, &mut sidecar, 0);
}

#[test]
fn bodies_that_are_no_utf_8_are_refused() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = start(&pod);
    let head = request(
        "POST / HTTP/1.1",
        &format!("host: 127.0.0.1\r\n{TARGET}"),
        "1234",
    );
    let mut bytes = head.into_bytes();
    bytes.truncate(bytes.len() - 4);
    bytes.extend([0xff, 0xfe, 0x00, 0xc3]);
    let answer = raw(pod.metering, &bytes);
    assert_eq!(status(&answer), 400);
    assert!(answer.contains("SerializationException"), "{answer}");
    is_well(&pod, &mut sidecar, 0);
}

#[test]
fn a_body_of_more_than_a_megabyte_is_refused_and_the_refusal_arrives() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = start(&pod);
    for bytes in [1024 * 1024 + 1, 6 * 1024 * 1024] {
        let large = " ".repeat(bytes);
        for (path, lines) in [("/", TARGET), ("/v1/usage", "")] {
            let lines = format!("host: 127.0.0.1\r\n{lines}");
            let answer = raw(
                pod.metering,
                request(&format!("POST {path} HTTP/1.1"), &lines, &large).as_bytes(),
            );
            assert_eq!(status(&answer), 413, "{bytes} {path}");
            assert!(
                answer.contains("RequestEntityTooLargeException"),
                "{answer}"
            );
            let chunked = format!(
                "POST {path} HTTP/1.1\r\n{lines}connection: close\r\ntransfer-encoding: chunked\r\n\r\n{bytes:x}\r\n{large}\r\n0\r\n\r\n"
            );
            assert_eq!(
                status(&raw(pod.metering, chunked.as_bytes())),
                413,
                "{bytes} {path} in chunks"
            );
        }
    }
    let mut usage: Value = serde_json::from_str(&meter_usage(2)).unwrap();
    usage["Padding"] = json!("x".repeat(1024 * 1024 - 300));
    assert_eq!(
        pod.post("/", TARGET, &usage.to_string()).0,
        200,
        "a megabyte is allowed"
    );
    is_well(&pod, &mut sidecar, 2);
}

#[test]
fn unknown_operations_targets_paths_and_methods_are_named() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = start(&pod);
    for headers in [
        "",
        "x-amz-target: \r\n",
        "x-amz-target: AWSMPMeteringService.DoMagic\r\n",
        "x-amz-target: Other.MeterUsage\r\n",
    ] {
        let (code, answer) = pod.post("/", headers, &meter_usage(1));
        assert_eq!(code, 400, "{answer}");
        assert_eq!(
            answer["__type"],
            "com.amazonaws.marketplacemetering#UnknownOperationException"
        );
    }
    let ask = |line: &str| {
        raw(
            pod.metering,
            request(line, "host: localhost\r\n", "").as_bytes(),
        )
    };
    for (line, code) in [
        ("GET / HTTP/1.1", 405),
        ("DELETE /v1/usage HTTP/1.1", 405),
        ("GET /quitquitquit HTTP/1.1", 405),
        ("POST /nothing HTTP/1.1", 404),
        ("GET /v1/usage/nonsense HTTP/1.1", 404),
        (
            "GET /v1/usage/01a21058-1ffa-7002-8000-00010c9968a8 HTTP/1.1",
            404,
        ),
        ("GET /v1/usage/ HTTP/1.1", 404),
        ("GET /../../etc/passwd HTTP/1.1", 404),
    ] {
        let answer = ask(line);
        assert_eq!(status(&answer), code, "{line}: {answer}");
        assert!(!body(&answer).is_null());
    }
    is_well(&pod, &mut sidecar, 0);
}

#[test]
fn another_method_is_told_which_one_is_served() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let _sidecar = start(&pod);
    for (line, method) in [
        ("GET / HTTP/1.1", "POST"),
        ("PUT /v1/usage HTTP/1.1", "POST"),
        ("DELETE /v1/usage/01a21058 HTTP/1.1", "GET"),
        ("GET /v1/entitlement/challenge HTTP/1.1", "POST"),
        ("GET /quitquitquit HTTP/1.1", "POST"),
    ] {
        let sent = request(line, "host: localhost\r\n", "");
        let answer = raw(pod.metering, sent.as_bytes());
        assert_eq!(status(&answer), 405, "{line}: {answer}");
        assert!(answer.contains(&format!("allow: {method}\r\n")), "{answer}");
        assert!(
            answer.contains(&format!("only {method} is served here")),
            "{answer}"
        );
    }
}

#[test]
fn requests_of_web_pages_and_proxies_are_refused() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = start(&pod);
    let usage = meter_usage(1);
    for (line, lines, code) in [
        ("POST / HTTP/1.1", "host: evil.example\r\n", 403),
        ("POST / HTTP/1.1", "host: evil.example:8421\r\n", 403),
        ("POST / HTTP/1.1", "host: 10.0.0.1\r\n", 403),
        ("POST / HTTP/1.1", "host: 127.0.0.1.evil.example\r\n", 403),
        (
            "POST / HTTP/1.1",
            "host: 127.0.0.1\r\nhost: evil.example\r\n",
            403,
        ),
        (
            "POST / HTTP/1.1",
            "host: 127.0.0.1\r\nx-forwarded-for: 10.0.0.1\r\n",
            403,
        ),
        (
            "POST / HTTP/1.1",
            "host: 127.0.0.1\r\nforwarded: for=10.0.0.1\r\n",
            403,
        ),
        (
            "POST / HTTP/1.1",
            "host: 127.0.0.1\r\norigin: https://evil.example\r\n",
            403,
        ),
        (
            "POST http://evil.example/ HTTP/1.1",
            "host: 127.0.0.1\r\n",
            403,
        ),
        ("POST / HTTP/1.1", "", 400),
        ("POST / HTTP/1.1", "host: \r\n", 400),
    ] {
        let lines = format!("{lines}{TARGET}");
        let answer = raw(pod.metering, request(line, &lines, &usage).as_bytes());
        assert_eq!(status(&answer), code, "{line} {lines}: {answer}");
        let name = if code == 403 {
            "AccessDeniedException"
        } else {
            "ValidationException"
        };
        assert_eq!(
            body(&answer)["__type"],
            format!("com.amazonaws.marketplacemetering#{name}")
        );
    }
    let refused = raw(
        pod.metering,
        request("POST /quitquitquit HTTP/1.1", "host: evil.example\r\n", "").as_bytes(),
    );
    assert_eq!(status(&refused), 403);
    is_well(&pod, &mut sidecar, 0);
}

#[test]
fn every_way_to_write_a_request_is_understood() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = start(&pod);
    let usage = meter_usage(1);
    let host = format!("host: {}\r\n{TARGET}", pod.metering);
    let absolute = format!("POST http://{}/ HTTP/1.1", pod.metering);
    for line in [
        "POST / HTTP/1.1",
        "POST / HTTP/1.0",
        absolute.as_str(),
        "POST /?query=ignored HTTP/1.1",
    ] {
        let answer = raw(pod.metering, request(line, &host, &usage).as_bytes());
        assert_eq!(status(&answer), 200, "{line}: {answer}");
    }
    let (first, rest) = usage.split_at(10);
    let chunked = format!(
        "POST / HTTP/1.1\r\n{host}connection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x};extension=1\r\n{rest}\r\n0\r\ntrailer: 1\r\n\r\n",
        first.len(),
        rest.len()
    );
    assert_eq!(status(&raw(pod.metering, chunked.as_bytes())), 200);
    let kept = request("POST / HTTP/1.1", &host, &usage).replace("connection: close\r\n", "");
    let pipelined = format!("{kept}{kept}{}", request("POST / HTTP/1.1", &host, &usage));
    let answers = raw(pod.metering, pipelined.as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    is_well(&pod, &mut sidecar, 8);
}

#[test]
fn what_is_no_http_is_refused() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = start(&pod);
    let host = format!("host: 127.0.0.1\r\n{TARGET}");
    let usage = meter_usage(1);
    for (bytes, code) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/9.9\r\n\r\n".to_owned(), 400),
        (
            format!("POST / HTTP/1.1\r\n{host}content-length: many\r\n\r\n{usage}"),
            400,
        ),
        (
            format!(
                "POST / HTTP/1.1\r\n{host}content-length: 3\r\ncontent-length: 4\r\n\r\n{usage}"
            ),
            400,
        ),
        (
            format!("POST / HTTP/1.1\r\n{host}transfer-encoding: chunked\r\n\r\nnonsense\r\n"),
            400,
        ),
        (
            format!("POST / HTTP/1.1\r\n{host}connection: close\r\n\r\n"),
            400,
        ),
        (
            format!(
                "POST / HTTP/1.1\r\n{host}long: {}\r\n\r\n",
                "x".repeat(60_000)
            ),
            431,
        ),
        (
            format!("POST /{} HTTP/1.1\r\n{host}\r\n", "x".repeat(60_000)),
            431,
        ),
    ] {
        let answer = raw(pod.metering, bytes.as_bytes());
        assert_eq!(
            status(&answer),
            code,
            "{}: {answer}",
            bytes.chars().take(200).collect::<String>()
        );
    }
    // A TLS client's first words.
    let hello = [
        0x16, 0x03, 0x01, 0x00, 0x05, 0x01, 0x00, 0x00, 0x01, 0x00, b'\r', b'\n', b'\r', b'\n',
    ];
    assert_eq!(status(&raw(pod.metering, &hello)), 400);
    is_well(&pod, &mut sidecar, 0);
}

#[test]
fn a_client_that_hangs_up_is_no_trouble_and_half_a_report_is_none() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = start(&pod);
    let whole = request(
        "POST / HTTP/1.1",
        &format!("host: 127.0.0.1\r\n{TARGET}"),
        &meter_usage(5),
    );
    for length in [1, 20, whole.len() - 80, whole.len() - 1] {
        let mut stream = TcpStream::connect(pod.metering).unwrap();
        stream.write_all(&whole.as_bytes()[..length]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        // Whatever is said, the connection ends.
        read(&mut stream);
    }
    is_well(&pod, &mut sidecar, 0);
}

/// Slow headers and slow bodies hold a connection for ten seconds, and nobody else back.
#[test]
fn slow_clients_are_ended_and_hold_nobody_back() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = start(&pod);
    let head = format!("POST / HTTP/1.1\r\nhost: 127.0.0.1\r\n{TARGET}");
    let begun = Instant::now();
    let mut slow_header = connect(&pod, &head);
    let mut slow_body = connect(&pod, &format!("{head}content-length: 300\r\n\r\n{{"));
    let mut silent = connect(&pod, "");
    let asked = Instant::now();
    assert_eq!(pod.post("/", TARGET, &meter_usage(1)).0, 200);
    assert!(asked.elapsed() < Duration::from_secs(5));
    let answer = read(&mut slow_body);
    assert_eq!(status(&answer), 408, "{answer}");
    assert!(answer.contains("the body did not come within"), "{answer}");
    for stream in [&mut slow_header, &mut silent] {
        read(stream);
    }
    assert!(
        (9..20).contains(&begun.elapsed().as_secs()),
        "{:?}",
        begun.elapsed()
    );
    is_well(&pod, &mut sidecar, 1);
}

fn connect(pod: &Pod, sent: &str) -> TcpStream {
    let mut stream = TcpStream::connect(pod.metering).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(sent.as_bytes()).unwrap();
    stream
}

/// The usual soft limit of file descriptors is 1024.
#[test]
fn more_than_a_thousand_idle_connections_do_not_keep_the_app_out() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start_by("ulimit -S -n 1024; exec \"$0\" run");
    sidecar.answers("/readyz", 200);
    let mut idle: Vec<_> = (0..1300).map(|_| connect(&pod, "")).collect();
    // The hard limit allows them all: none had to make room.
    let lines = format!("host: 127.0.0.1\r\n{TARGET}");
    let first_words = request("POST / HTTP/1.1", &lines, &meter_usage(1));
    idle[0].write_all(first_words.as_bytes()).unwrap();
    assert_eq!(status(&read(&mut idle[0])), 200);
    let asked = Instant::now();
    for _ in 0..20 {
        pod.reported(&json!({"dimension": "requests", "quantity": 1}));
    }
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    assert!(!pod.log().contains("can't accept"), "{}", pod.log());
    drop(idle);
    is_well(&pod, &mut sidecar, 21);
}

/// Where no more descriptors are to be had, connections wait; the ledger's files and the calls to AWS do not.
#[test]
fn more_connections_than_descriptors_do_not_harm_the_ledger() {
    let aws = Aws::start();
    let pod = Pod::new(&aws);
    let mut sidecar = pod.start_by("ulimit -n 256; exec \"$0\" run");
    sidecar.answers("/readyz", 200);
    let idle: Vec<_> = (0..400).map(|_| connect(&pod, "")).collect();
    let asked = Instant::now();
    pod.reported(&json!({"dimension": "requests", "quantity": 1}));
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    assert!(!pod.log().contains("can't accept"), "{}", pod.log());
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), 0, "{}", pod.log());
    drop(idle);
    poll(|| (aws.billed("requests") == 1_000_000).then_some(())).expect("it is billed");
}
