//! A SaaS product with customers of both kinds, and its sidecar.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::{self, Aws};
use crate::pod::{Pod, Sidecar, now_seconds, poll};

/// An hour of the tests that wait for hours to end.
pub const SHORT_HOUR: Duration = Duration::from_millis(800);

pub struct Scene {
    pub aws: Aws,
    pub pod: Pod,
}

/// The ARN of a customer's license number `n`.
pub fn license(account: &str, n: u32) -> String {
    format!("arn:aws:license-manager::{account}:license:l-{n}")
}

impl Scene {
    /// A product with hours of `period` and these dimensions.
    pub fn new(period: Duration, dimensions: &[&str]) -> Self {
        let aws = Aws::with_hours_of(period, dimensions);
        let period = format!("{}ms", period.as_millis());
        let pod = Pod::new(&aws)
            .without("TOLLGATE_PUBLIC_KEYS")
            .with("TOLLGATE_ENTITLEMENT_CHECK", "none")
            .with("TOLLGATE_SAAS_MODE", "aggregate")
            .with("TOLLGATE_METERING_PERIOD", &period)
            .with("TOLLGATE_STRAGGLER_WAIT", "0s")
            .with("TOLLGATE_SUBMIT_JITTER", "0s");
        Self { aws, pod }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.pod = self.pod.with(name, value);
        self
    }

    /// Hours that end soon.
    pub fn short() -> Self {
        Self::new(SHORT_HOUR, &["users", "gb"])
    }

    /// The real hour: everything is sealed at the end of the process.
    pub fn long() -> Self {
        Self::new(Duration::from_hours(1), &["users", "gb"])
    }

    pub fn start(&self) -> Sidecar<'_> {
        let mut sidecar = self.pod.start();
        sidecar.answers("/readyz", 200);
        sidecar
    }

    /// Ends the process as an orchestrator does.
    pub fn drain(&self, sidecar: Sidecar<'_>) {
        sidecar.signal("TERM");
        assert_eq!(sidecar.ends(), 0, "{}", self.pod.log());
    }

    /// A buyer whose integration names licenses, with as many of them as `licenses` says.
    pub fn buyer(&self, account: &str, licenses: u32) {
        let licenses: Vec<Value> = (1..=licenses)
            .map(|n| json!({"arn": license(account, n), "agreement_id": format!("agmt-{n}")}))
            .collect();
        self.aws.put_customer(json!({
            "id": account, "product_code": aws::PRODUCT, "customer_aws_account_id": account, "license": licenses,
        }));
    }

    /// A buyer from before concurrent agreements, who has a license as well.
    pub fn legacy_buyer(&self, identifier: &str, account: &str) {
        self.aws.put_customer(json!({
            "id": identifier, "product_code": aws::PRODUCT, "customer_identifier": identifier,
            "customer_aws_account_id": account, "license": [{"arn": license(account, 1)}],
        }));
    }

    /// BatchMeterUsage: HTTP status and body. `headers` are whole lines.
    pub fn batch_with(&self, headers: &str, request: &Value) -> (u16, Value) {
        let headers = format!("x-amz-target: AWSMPMeteringService.BatchMeterUsage\r\n{headers}");
        self.pod.post("/", &headers, &request.to_string())
    }

    pub fn batch(&self, records: &[Value]) -> (u16, Value) {
        self.batch_with("", &request(records))
    }

    /// BatchMeterUsage of which every record is taken; their ids.
    pub fn reported(&self, records: &[Value]) -> Vec<String> {
        let (code, answer) = self.batch(records);
        assert_eq!(code, 200, "{answer}");
        ids(&answer)
    }

    /// What is billed by customer, dimension and way of naming, in millionths.
    pub fn bill(&self) -> BTreeMap<(String, String), u128> {
        let mut bill = BTreeMap::new();
        for record in self.aws.saas_records() {
            let buyer = serde_json::to_value(&record.buyer).unwrap();
            let name = ["customer_identifier", "license_arn"]
                .iter()
                .find_map(|name| buyer[*name].as_str())
                .unwrap()
                .to_owned();
            *bill.entry((name, record.dimension)).or_default() += record.quantity.0;
        }
        bill
    }

    /// Polls until the bill is this, in units by name and dimension.
    pub fn bills(&self, expected: &[(&str, &str, u128)]) {
        let expected: BTreeMap<(String, String), u128> = expected
            .iter()
            .map(|(name, dimension, units)| {
                (
                    ((*name).to_owned(), (*dimension).to_owned()),
                    units * 1_000_000,
                )
            })
            .collect();
        poll(|| (self.bill() == expected).then_some(())).unwrap_or_else(|| {
            panic!(
                "the bill is {:?} and not {expected:?}; log:\n{}",
                self.bill(),
                self.pod.log()
            )
        });
    }

    /// The record of `state` that `tollgate usage` lists, once there is one.
    pub fn listed(&self, state: &str) -> Value {
        poll(|| {
            self.pod
                .usage()
                .into_iter()
                .find(|record| record["state"] == state)
        })
        .unwrap_or_else(|| panic!("no record is {state}: {:?}", self.pod.usage()))
    }
}

/// A UsageRecord of now.
pub fn by_license(account: &str, n: u32, dimension: &str, quantity: u64) -> Value {
    json!({
        "Timestamp": now_seconds(), "CustomerAWSAccountId": account, "LicenseArn": license(account, n),
        "Dimension": dimension, "Quantity": quantity,
    })
}

/// A UsageRecord of now.
pub fn by_identifier(identifier: &str, dimension: &str, quantity: u64) -> Value {
    json!({
        "Timestamp": now_seconds(), "CustomerIdentifier": identifier, "Dimension": dimension, "Quantity": quantity,
    })
}

/// A request with a ProductCode where its records need one.
pub fn request(records: &[Value]) -> Value {
    let mut request = json!({"UsageRecords": records});
    if records.iter().any(|record| record["LicenseArn"].is_null()) {
        request["ProductCode"] = json!(aws::PRODUCT);
    }
    request
}

/// The ids of an answer in which every record was taken.
pub fn ids(answer: &Value) -> Vec<String> {
    let results = answer["Results"].as_array().unwrap();
    results
        .iter()
        .map(|result| {
            assert_eq!(result["Status"], "Success", "{answer}");
            result["MeteringRecordId"].as_str().unwrap().to_owned()
        })
        .collect()
}
