//! What the load generator asks.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes a request into an empty buffer; `number` is no other request's.
pub type Requests = fn(number: u32, into: &mut Vec<u8>);

pub fn livez(_: u32, into: &mut Vec<u8>) {
    into.extend_from_slice(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
}

/// A report from a program without an SDK, under a key of its own.
pub fn usage(number: u32, into: &mut Vec<u8>) {
    write_usage("requests", number, into);
}

/// Reports of three dimensions.
pub fn dimensions(number: u32, into: &mut Vec<u8>) {
    let dimension = ["requests", "gb", "jobs"][number as usize % 3];
    write_usage(dimension, number, into);
}

fn write_usage(dimension: &str, number: u32, into: &mut Vec<u8>) {
    let body = format!("{{\"dimension\":\"{dimension}\",\"quantity\":\"1.500000\"}}");
    write!(
        into,
        "POST /v1/usage HTTP/1.1\r\n\
         host: 127.0.0.1:8421\r\n\
         content-type: application/json\r\n\
         idempotency-key: report-{number}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

/// A report as boto3 sends it.
pub fn meter_usage(number: u32, into: &mut Vec<u8>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let token = format!("{number:08x}-71f4-42e2-b42d-574b28b03aff");
    let body = format!(
        "{{\"ProductCode\": \"prod-demo\", \"Timestamp\": {}.{:06}, \"UsageDimension\": \"requests\", \
         \"UsageQuantity\": 3, \"ClientToken\": \"{token}\"}}",
        now.as_secs(),
        now.subsec_micros()
    );
    write!(
        into,
        "POST / HTTP/1.1\r\n\
         Host: 127.0.0.1:8421\r\n\
         Accept-Encoding: identity\r\n\
         X-Amz-Target: AWSMPMeteringService.MeterUsage\r\n\
         Content-Type: application/x-amz-json-1.1\r\n\
         User-Agent: Boto3/1.44.5 md/Botocore#1.44.8 ua/2.1 os/linux md/arch#x86_64 lang/python#3.11.7 \
         md/pyimpl#CPython cfg/retry-mode#standard Botocore/1.44.8\r\n\
         X-Amz-Date: 20261125T012851Z\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=THEAPPSOWNKEY/20261125/us-east-1/aws-marketplace/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
         Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7\r\n\
         amz-sdk-invocation-id: {token}\r\n\
         amz-sdk-request: attempt=1; max=3\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}
