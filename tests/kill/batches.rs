//! A SaaS product's calls: BatchMeterUsage for many customers, each named in one way.

use serde_json::{Value, json};

use crate::aws::{Aws, PRODUCT};
use crate::clients::{Client, Way, allocations, aws_call, seconds};
use crate::expected::decimal;

/// Customers of either integration.
pub const CUSTOMERS: u64 = 12;
pub const DIMENSIONS: [&str; 4] = ["requests", "gb", "tagged", "users"];
pub const BATCH_WAYS: [Way; 4] = [Client::report_batch; 4];

/// A record of a call, and what it adds to the bill once it is taken.
struct Entry {
    who: String,
    record: Value,
    usage: Usage,
}

enum Usage {
    Sum(&'static str, u128),
    Tagged(Vec<(&'static str, u128)>),
    Peak(i64, u128),
}

/// The members that name customer `n` in the one way that is its own.
fn names(n: u64, by_license: bool) -> (String, Value) {
    if by_license {
        let (account, arn) = (account(n), license(n));
        let names = json!({"CustomerAWSAccountId": account, "LicenseArn": arn});
        (arn, names)
    } else {
        let identifier = identifier(n);
        let names = json!({"CustomerIdentifier": identifier});
        (identifier, names)
    }
}

/// Two licenses each.
pub fn account(n: u64) -> String {
    format!("{:012}", 100 + n / 2)
}

pub fn license(n: u64) -> String {
    format!("arn:aws:license-manager::{}:license:l-{n}", account(n))
}

pub fn identifier(n: u64) -> String {
    format!("c-{n}")
}

/// Makes every customer known to AWS; those of the first `unsubscribed` accounts and identifiers without a subscription.
pub fn put_customers(aws: &Aws, unsubscribed: u64) {
    for n in (0..CUSTOMERS).step_by(2) {
        let subscribed = n >= unsubscribed;
        aws.put_customer(json!({
            "id": account(n), "product_code": PRODUCT, "customer_aws_account_id": account(n), "subscribed": subscribed,
            "license": [{"arn": license(n)}, {"arn": license(n + 1)}],
        }));
    }
    for n in 0..CUSTOMERS {
        let subscribed = n >= unsubscribed;
        aws.put_customer(json!({
            "id": identifier(n), "product_code": PRODUCT, "customer_identifier": identifier(n),
            "customer_aws_account_id": format!("{:012}", 900 + n), "subscribed": subscribed,
        }));
    }
}

impl Client {
    /// 1 to 25 records, under one invocation id through all repeats.
    fn report_batch(&mut self) {
        let by_license = self.random.bool();
        let entries: Vec<Entry> = (0..self.random.u64(1..=25))
            .map(|_| self.entry(by_license))
            .collect();
        let records: Vec<&Value> = entries.iter().map(|entry| &entry.record).collect();
        let mut request = json!({"UsageRecords": records});
        if !by_license {
            request["ProductCode"] = json!(PRODUCT);
        }
        let invocation = Some(self.key());
        let Some(answer) = self.deliver(aws_call("BatchMeterUsage", invocation, &request)) else {
            return;
        };
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let results = answer["Results"].as_array().unwrap();
        assert_eq!(results.len(), entries.len(), "{answer}");
        assert_eq!(answer["UnprocessedRecords"], json!([]));
        for (entry, result) in entries.into_iter().zip(results) {
            assert_eq!(result["UsageRecord"], entry.record);
            if result["Status"] == "CustomerNotSubscribed" {
                assert!(result["MeteringRecordId"].is_null(), "{result}");
                self.told.unsubscribed += 1;
                continue;
            }
            assert_eq!(result["Status"], "Success", "{result}");
            match entry.usage {
                Usage::Sum(dimension, quantity) => {
                    self.told.sum(&entry.who, dimension, quantity);
                }
                Usage::Tagged(parts) => self.told.tagged(&entry.who, &parts),
                Usage::Peak(at, quantity) => self.told.peak(&entry.who, at, quantity),
            }
        }
    }

    fn entry(&mut self, by_license: bool) -> Entry {
        let (who, mut record) = names(self.random.u64(0..CUSTOMERS), by_license);
        let at = self.some_time();
        record["Timestamp"] = json!(seconds(at));
        let usage = match self.random.u8(0..4) {
            0 => {
                let units = self.random.u64(0..1000);
                record["Quantity"] = json!(units);
                Usage::Sum("requests", u128::from(units) * 1_000_000)
            }
            1 => {
                let quantity = u128::from(self.random.u64(0..3_000_000));
                record["QuantityAsDecimal"] = json!(decimal(quantity));
                Usage::Sum("gb", quantity)
            }
            2 => {
                let parts = self.some_parts();
                let total = parts.iter().map(|(_, quantity)| quantity).sum();
                record["QuantityAsDecimal"] = json!(decimal(total));
                record["UsageAllocations"] = allocations(&parts);
                Usage::Tagged(parts)
            }
            _ => {
                let quantity = u128::from(self.random.u64(1..50_000_000));
                record["QuantityAsDecimal"] = json!(decimal(quantity));
                Usage::Peak(at, quantity)
            }
        };
        record["Dimension"] = json!(match &usage {
            Usage::Sum(dimension, _) => dimension,
            Usage::Tagged(_) => "tagged",
            Usage::Peak(..) => "users",
        });
        Entry { who, record, usage }
    }
}
