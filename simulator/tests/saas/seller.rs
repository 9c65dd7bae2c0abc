//! A seller's account: a simulated AWS at a fixed time, with customers, and calls signed by hand, so that a test can send
//! what no SDK would.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use marketplace_simulator::Simulator;
use marketplace_simulator::config::{Caller, Config, Customer, Key, License, Product, Token};
use marketplace_simulator::fault::{Fault, Kind};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const PRODUCT: &str = "prod-saas";
pub const OTHER_PRODUCT: &str = "prod-other";
pub const NOW: &str = "2026-11-24T10:30:00Z";
pub const ACCOUNT: &str = "222233334444";
pub const OTHER_ACCOUNT: &str = "555566667777";

/// Licenses of ACCOUNT: two agreements on PRODUCT. One of OTHER_ACCOUNT's on OTHER_PRODUCT.
pub const LICENSE: &str = "arn:aws:license-manager::222233334444:license:l-1";
pub const SECOND_LICENSE: &str = "arn:aws:license-manager::222233334444:license:l-2";
pub const OTHER_LICENSE: &str = "arn:aws:license-manager::555566667777:license:l-3";

pub struct Seller {
    pub simulator: Simulator,
}

/// How one calls.
#[derive(Clone, Copy)]
pub struct Credentials {
    pub access_key_id: &'static str,
    pub region: &'static str,
}

/// An answer that is an exception, or none at all.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    Exception(u16, String),
    /// The connection closed, or broke off in the middle of the answer.
    NoAnswer,
}

pub const REPLICA_1: Credentials = Credentials {
    access_key_id: "REPLICA1",
    region: "us-east-1",
};
pub const REPLICA_2: Credentials = Credentials {
    access_key_id: "REPLICA2",
    region: "us-east-1",
};
/// May resolve customers, and nothing else.
pub const WEB_SITE: Credentials = Credentials {
    access_key_id: "WEBSITE",
    region: "us-east-1",
};
const SECRET: &str = "secret";

pub fn customer(id: &str) -> Customer {
    Customer {
        id: id.to_owned(),
        product_code: PRODUCT.to_owned(),
        customer_identifier: Some(format!("identifier-of-{id}")),
        customer_aws_account_id: None,
        licenses: Vec::new(),
        subscribed: true,
        unsubscribed_at: None,
    }
}

pub fn license(arn: &str) -> License {
    License {
        arn: arn.to_owned(),
        agreement_id: None,
        subscribed: true,
        unsubscribed_at: None,
        starts_at: None,
        ends_at: None,
    }
}

pub fn token(token: &str, customer: &str) -> Token {
    Token {
        token: token.to_owned(),
        customer: customer.to_owned(),
        license_arn: None,
        expires_at: None,
        further_members: Map::new(),
    }
}

/// A usage record of the legacy integration's customer "buyer".
pub fn legacy(changes: &Value) -> Value {
    changed(
        json!({"CustomerIdentifier": "identifier-of-buyer", "Dimension": "requests", "Quantity": 17}),
        changes,
    )
}

/// A usage record under a license of the same customer.
pub fn licensed(changes: &Value) -> Value {
    changed(
        json!({"CustomerAWSAccountId": ACCOUNT, "LicenseArn": LICENSE, "Dimension": "requests", "Quantity": 17}),
        changes,
    )
}

/// Null takes a member out.
fn changed(mut record: Value, changes: &Value) -> Value {
    record["Timestamp"] = json!(seconds(NOW));
    for (name, value) in changes.as_object().unwrap() {
        record[name] = value.clone();
    }
    let members = record.as_object_mut().unwrap();
    members.retain(|_, value| !value.is_null());
    record
}

pub fn seconds(time: &str) -> i64 {
    time.parse::<Timestamp>().unwrap().as_second()
}

impl Seller {
    pub async fn start() -> Self {
        Self::start_with(3_600_000).await
    }

    pub async fn start_with(period_ms: u64) -> Self {
        let product = |code| Product {
            dimensions: vec!["requests".to_owned(), "users".to_owned()],
            keys: vec![Key {
                version: 1,
                bits: 1024,
                private_key_file: None,
                rotated_at: None,
            }],
            ..Product::new(code)
        };
        let caller = |credentials: Credentials, actions: &[&str]| Caller {
            access_key_id: credentials.access_key_id.to_owned(),
            secret_access_key: SECRET.to_owned(),
            identity: credentials.access_key_id.to_owned(),
            platform: marketplace_simulator::config::Platform::Instance,
            started_at: None,
            actions: actions.iter().map(ToString::to_string).collect(),
        };
        let config = Config {
            listen: "127.0.0.1:0".to_owned(),
            period_ms,
            products: vec![product(PRODUCT), product(OTHER_PRODUCT)],
            callers: vec![
                caller(REPLICA_1, &[]),
                caller(REPLICA_2, &[]),
                caller(WEB_SITE, &["ResolveCustomer"]),
            ],
            customers: vec![
                Customer {
                    customer_aws_account_id: Some(ACCOUNT.to_owned()),
                    licenses: vec![license(LICENSE), license(SECOND_LICENSE)],
                    ..customer("buyer")
                },
                Customer {
                    product_code: OTHER_PRODUCT.to_owned(),
                    customer_aws_account_id: Some(OTHER_ACCOUNT.to_owned()),
                    licenses: vec![license(OTHER_LICENSE)],
                    ..customer("stranger")
                },
            ],
            ..Config::default()
        };
        let simulator = Simulator::start(&config).await.unwrap();
        let seller = Self { simulator };
        seller.set_clock(NOW);
        seller
    }

    pub fn set_clock(&self, time: &str) {
        let time: Timestamp = time.parse().unwrap();
        self.simulator.world().clock_offset = time.duration_since(Timestamp::now());
    }

    /// Changes a customer while the simulator runs.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Customer)) {
        let mut world = self.simulator.world();
        let mut customer = world.customer(id).unwrap().clone();
        change(&mut customer);
        world.put_customer(customer).unwrap();
    }

    pub fn put_token(&self, token: Token) {
        self.simulator.world().put_token(token).unwrap();
    }

    pub fn fault(&self, fault: Fault) {
        self.simulator.world().faults.add(fault).unwrap();
    }

    pub fn batch_fault(&self, kind: Kind) {
        self.fault(Fault {
            operation: Some("BatchMeterUsage".to_owned()),
            count: Some(1),
            ..Fault::new(kind)
        });
    }

    /// The quantities of all SaaS records, in the account's order.
    pub fn billed(&self) -> Vec<String> {
        self.simulator
            .world()
            .saas
            .records()
            .map(|record| record.quantity.to_string())
            .collect()
    }

    /// BatchMeterUsage for the legacy integration's product.
    pub async fn meter_legacy(&self, records: &[Value]) -> Result<Value, Failure> {
        self.meter(json!({"ProductCode": PRODUCT, "UsageRecords": records}))
            .await
    }

    /// BatchMeterUsage under licenses.
    pub async fn meter_licensed(&self, records: &[Value]) -> Result<Value, Failure> {
        self.meter(json!({"UsageRecords": records})).await
    }

    pub async fn meter(&self, request: Value) -> Result<Value, Failure> {
        self.call(REPLICA_1, "BatchMeterUsage", &request.to_string())
            .await
    }

    pub async fn resolve(&self, token: &str) -> Result<Value, Failure> {
        let request = json!({"RegistrationToken": token}).to_string();
        self.call(WEB_SITE, "ResolveCustomer", &request).await
    }

    /// A signed call.
    pub async fn call(
        &self,
        credentials: Credentials,
        operation: &str,
        body: &str,
    ) -> Result<Value, Failure> {
        let at = self.simulator.world().now();
        let request = signed(credentials, operation, body, at);
        let mut stream = TcpStream::connect(self.simulator.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        if stream.read_to_string(&mut answer).await.is_err() {
            return Err(Failure::NoAnswer);
        }
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            return Err(Failure::NoAnswer);
        };
        let length = format!("content-length: {}", body.len());
        if !head.to_ascii_lowercase().contains(&length) {
            return Err(Failure::NoAnswer);
        }
        let status: u16 = head[9..12].parse().unwrap();
        let answer: Value = serde_json::from_str(body).unwrap();
        if status == 200 {
            return Ok(answer);
        }
        let name = answer["__type"].as_str().unwrap();
        let name = name.rsplit_once('#').unwrap().1.to_owned();
        Err(Failure::Exception(status, name))
    }
}

/// The statuses of an answer's results, in order.
pub fn statuses(answer: &Value) -> Vec<&str> {
    let results = answer["Results"].as_array().unwrap();
    results
        .iter()
        .map(|result| result["Status"].as_str().unwrap())
        .collect()
}

/// MeteringRecordId of the result at `place`.
pub fn record_id(answer: &Value, place: usize) -> &str {
    answer["Results"][place]["MeteringRecordId"]
        .as_str()
        .unwrap()
}

pub fn exception(name: &str) -> Failure {
    Failure::Exception(400, name.to_owned())
}

fn signed(credentials: Credentials, operation: &str, body: &str, at: Timestamp) -> String {
    let (date, day) = (
        at.strftime("%Y%m%dT%H%M%SZ").to_string(),
        at.strftime("%Y%m%d").to_string(),
    );
    let target = format!("AWSMPMeteringService.{operation}");
    let headers = format!("host:x\nx-amz-date:{date}\nx-amz-target:{target}\n");
    let names = "host;x-amz-date;x-amz-target";
    let canonical = format!(
        "POST\n/\n\n{headers}\n{names}\n{}",
        hex(&Sha256::digest(body))
    );
    let region = credentials.region;
    let scope = format!("{day}/{region}/aws-marketplace/aws4_request");
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hex(&Sha256::digest(canonical))
    );
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in [&day, region, "aws-marketplace", "aws4_request", &to_sign] {
        key = hmac(&key, part);
    }
    format!(
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-amz-date: {date}\r\nx-amz-target: {target}\r\n\
         authorization: AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}\r\n\
         content-length: {}\r\n\r\n{body}",
        credentials.access_key_id,
        hex(&key),
        body.len()
    )
}

fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
