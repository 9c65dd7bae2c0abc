//! BatchMeterUsage with 25 records a call, unsigned and signed, and an hour of ten thousand customers.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::Bench;
use crate::figure;
use crate::load::Load;
use crate::pod::{Sidecar, Simulator};

const RECORDS: usize = 25;
/// Calls in turn, each of 25 customers of its own.
const CALLS: usize = 40;
const REPEATS: usize = 3;
const CONNECTIONS: u32 = 16;
const KEY_ID: &str = "BENCH";
const SECRET: &str = "secret-of-the-bench-and-nothing-else";

const CUSTOMERS: usize = 10_000;
const DIMENSIONS: [&str; 5] = ["d0", "d1", "d2", "d3", "d4"];
/// Long enough to report all of it within one.
const HOUR_MS: u32 = 20_000;
const POLL: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_mins(2);

/// Unsigned and signed calls, in turn.
pub fn throughput(bench: &Bench, simulator: &Simulator) {
    let keys = bench.folder.join("clients.toml");
    let text = format!("[[key]]\naccess_key_id = \"{KEY_ID}\"\nsecret_access_key = \"{SECRET}\"\n");
    write_private(&keys, &text);
    let open = bench.sidecar(simulator, "saas", crate::HOUR_MS, &[]);
    let signed = [("TOLLGATE_CLIENT_AUTH_FILE", keys.display().to_string())];
    let closed = bench.sidecar(simulator, "saas-signed", crate::HOUR_MS, &signed);
    let (mut rates, mut shares) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let plain = bench.load(&open, "25 records a call", CONNECTIONS, unsigned_call);
        let checked = bench.load(
            &closed,
            "25 records a signed call",
            CONNECTIONS,
            signed_call,
        );
        rates.push(plain.rate() * 25.0);
        shares.push(checked.rate() / plain.rate());
    }
    let records = crate::median(rates);
    figure(
        "durable records/s in BatchMeterUsage, 16 conn.",
        records,
        ">= 100000",
        |rate| rate >= 100_000.0,
    );
    figure(
        "signed / unsigned calls",
        crate::median(shares),
        "> 0.67",
        |share| share > 0.67,
    );
}

/// An hour of 10,000 customers with five dimensions: requests to AWS, and memory at its largest.
pub fn many_customers(folder: &Path) {
    let mut customers = String::new();
    for customer in 0..CUSTOMERS {
        let account = format!("{customer:012}");
        let license = license(&account);
        // Writing to a string can't fail.
        let _ = write!(
            customers,
            "[[customer]]\nid = \"{account}\"\nproduct_code = \"prod-demo\"\ncustomer_aws_account_id = \"{account}\"\n\
             [[customer.license]]\narn = \"{license}\"\n"
        );
    }
    let simulator = Simulator::start_with(folder, HOUR_MS, &DIMENSIONS, &customers);
    let sidecar = Sidecar::start(&simulator, &folder.join("customers"), HOUR_MS, &[]);
    begin_of_hour();
    let load = Load {
        connections: 4,
        requests: every_customer,
        length: PATIENCE,
        count_max: Some(u32::try_from(CUSTOMERS * DIMENSIONS.len() / RECORDS).unwrap()),
    };
    first_of_hour();
    crate::measure(&sidecar, "every customer and dimension", &load);
    let (begin, mut mib_max) = (Instant::now(), 0.0_f64);
    while sidecar.settled() < CUSTOMERS * DIMENSIONS.len() {
        assert!(begin.elapsed() < PATIENCE, "the hour is never delivered");
        mib_max = mib_max.max(sidecar.resident_mib());
        std::thread::sleep(POLL);
    }
    let calls = simulator.calls("BatchMeterUsage");
    figure(
        "requests for 10,000 customers x 5 dimensions",
        f64::from(calls),
        "= 2000",
        |calls| (calls - 2000.0).abs() < 1.0,
    );
    figure(
        "memory at its largest in that hour, MiB",
        mib_max,
        "< 40",
        |mib| mib < 40.0,
    );
}

fn license(account: &str) -> String {
    format!("arn:aws:license-manager::{account}:license:l-0123456789abcdef")
}

/// Waits for the begin of an hour, so that all usage falls into it.
fn begin_of_hour() {
    let into_hour = || now_ms() % u64::from(HOUR_MS);
    while into_hour() > 1000 {
        std::thread::sleep(POLL);
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// The timestamp of a run's usage, in seconds.
fn first_of_hour() -> u64 {
    static SECONDS: OnceLock<u64> = OnceLock::new();
    *SECONDS.get_or_init(|| now_ms() / 1000)
}

fn body(records: impl Iterator<Item = (usize, &'static str)>, seconds: u64) -> String {
    let records: Vec<String> = records
        .map(|(customer, dimension)| {
            let account = format!("{customer:012}");
            let license = license(&account);
            format!(
                "{{\"Timestamp\": {seconds}, \"CustomerAWSAccountId\": \"{account}\", \"LicenseArn\": \"{license}\", \
                 \"Dimension\": \"{dimension}\", \"Quantity\": 3}}"
            )
        })
        .collect();
    format!("{{\"UsageRecords\": [{}]}}", records.join(", "))
}

fn every_customer(number: u32, into: &mut Vec<u8>) {
    static FIRST: OnceLock<u32> = OnceLock::new();
    // Calls beyond the count are the first ones again.
    let first = (number - FIRST.get_or_init(|| number)) as usize * RECORDS;
    let first = first % (CUSTOMERS * DIMENSIONS.len());
    let records = (first..first + RECORDS).map(|record| {
        (
            record / DIMENSIONS.len(),
            DIMENSIONS[record % DIMENSIONS.len()],
        )
    });
    write_call(number, "", &body(records, first_of_hour()), into);
}

fn bodies() -> &'static [String] {
    static BODIES: OnceLock<Vec<String>> = OnceLock::new();
    BODIES.get_or_init(|| {
        let seconds = now_ms() / 1000;
        (0..CALLS)
            .map(|call| {
                body(
                    (call * RECORDS..(call + 1) * RECORDS).map(|c| (c, "requests")),
                    seconds,
                )
            })
            .collect()
    })
}

fn unsigned_call(number: u32, into: &mut Vec<u8>) {
    write_call(number, "", &bodies()[number as usize % CALLS], into);
}

fn signed_call(number: u32, into: &mut Vec<u8>) {
    static SIGNED: OnceLock<Vec<String>> = OnceLock::new();
    let signed = SIGNED.get_or_init(|| bodies().iter().map(|body| sign(body)).collect());
    let call = number as usize % CALLS;
    write_call(number, &signed[call], &bodies()[call], into);
}

fn write_call(number: u32, headers: &str, body: &str, into: &mut Vec<u8>) {
    write!(
        into,
        "POST / HTTP/1.1\r\nhost: 127.0.0.1:8421\r\ncontent-type: application/x-amz-json-1.1\r\n\
         x-amz-target: AWSMPMeteringService.BatchMeterUsage\r\n{headers}\
         amz-sdk-invocation-id: {number:08x}-71f4-42e2-b42d-574b28b03aff\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

/// The headers that boto3 adds to sign a call with `body`; good for five minutes.
fn sign(body: &str) -> String {
    let date_time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let date = &date_time[..8];
    let signed_headers = "content-type;host;x-amz-date;x-amz-target";
    let canonical = format!(
        "POST\n/\n\ncontent-type:application/x-amz-json-1.1\nhost:127.0.0.1:8421\nx-amz-date:{date_time}\n\
         x-amz-target:AWSMPMeteringService.BatchMeterUsage\n\n{signed_headers}\n{}",
        hex(&Sha256::digest(body))
    );
    let scope = format!("{date}/us-east-1/aws-marketplace/aws4_request");
    let text = format!(
        "AWS4-HMAC-SHA256\n{date_time}\n{scope}\n{}",
        hex(&Sha256::digest(canonical))
    );
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in scope.split('/') {
        key = mac(&key, part);
    }
    let signature = hex(&mac(&key, &text));
    format!(
        "x-amz-date: {date_time}\r\nauthorization: AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, \
         SignedHeaders={signed_headers}, Signature={signature}\r\n"
    )
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
