//! What the clients were told, and what AWS bills.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use marketplace_simulator::batch::Buyer;
use marketplace_simulator::meter::AllocationRecord;

use crate::PERIOD_MS;
use crate::aws::Aws;

/// Who is billed for the task's or pod's own usage; customers are called by their identifier or license.
pub const POD: &str = "";

/// What was acknowledged, by who is billed and dimension, the way each combines.
#[derive(Debug, Default)]
pub struct Expected {
    /// Calls that were answered with 200, each once.
    pub acknowledged: u64,
    /// Requests that got no answer, and were repeated.
    pub unanswered: u64,
    /// Calls with an hour that is too long ago; not counted.
    pub refused: u64,
    /// Records of customers that AWS does not call subscribed; not counted.
    pub unsubscribed: u64,
    /// Questions to AWS that were answered, by what was asked.
    pub answered: BTreeMap<&'static str, u64>,
    sums: BTreeMap<(String, String), u128>,
    tags: BTreeMap<(String, String), u128>,
    peaks: BTreeMap<(String, i64), u128>,
    hosts: BTreeMap<i64, BTreeSet<u64>>,
    levels: BTreeMap<i64, u128>,
    /// Levels of hours whose own sample came too late: billed or not.
    uncertain: u128,
}

/// A record that AWS bills.
pub struct Billed {
    pub who: String,
    pub dimension: String,
    pub hour: jiff::Timestamp,
    pub quantity: u128,
    pub allocations: Vec<AllocationRecord>,
}

/// Everything that AWS bills.
pub fn bill(aws: &Aws) -> Vec<Billed> {
    let own = aws.records().into_iter().map(|record| Billed {
        who: POD.to_owned(),
        dimension: record.dimension,
        hour: record.hour,
        quantity: record.quantity.0,
        allocations: record.allocations,
    });
    let customers = aws.saas_records().into_iter().map(|record| Billed {
        who: match record.buyer {
            Buyer::Identifier {
                customer_identifier,
            } => customer_identifier,
            Buyer::License { license_arn, .. } => license_arn,
        },
        dimension: record.dimension,
        hour: record.hour,
        quantity: record.quantity.0,
        allocations: record.allocations,
    });
    own.chain(customers).collect()
}

impl Expected {
    pub fn sum(&mut self, who: &str, dimension: &str, quantity: u128) {
        let key = (who.to_owned(), dimension.to_owned());
        *self.sums.entry(key).or_default() += quantity;
    }

    /// Usage of the dimension `tagged`.
    pub fn tagged(&mut self, who: &str, parts: &[(&str, u128)]) {
        for (tag, quantity) in parts {
            self.sum(who, "tagged", *quantity);
            let key = (who.to_owned(), (*tag).to_owned());
            *self.tags.entry(key).or_default() += quantity;
        }
    }

    /// Usage of the dimension `users`.
    pub fn peak(&mut self, who: &str, at_ms: i64, quantity: u128) {
        let key = (who.to_owned(), hour_of(at_ms));
        let peak = self.peaks.entry(key).or_default();
        *peak = quantity.max(*peak);
    }

    pub fn host(&mut self, at_ms: i64, host: u64) {
        self.hosts.entry(hour_of(at_ms)).or_default().insert(host);
    }

    pub fn level(&mut self, at_ms: i64, quantity: u128) {
        self.levels.insert(hour_of(at_ms), quantity);
    }

    pub fn uncertain_level(&mut self, quantity: u128) {
        self.uncertain += quantity;
    }

    pub fn join(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unanswered += other.unanswered;
        self.refused += other.refused;
        self.unsubscribed += other.unsubscribed;
        self.uncertain += other.uncertain;
        for (what, count) in other.answered {
            *self.answered.entry(what).or_default() += count;
        }
        for (key, quantity) in other.sums {
            *self.sums.entry(key).or_default() += quantity;
        }
        for (key, quantity) in other.tags {
            *self.tags.entry(key).or_default() += quantity;
        }
        for ((who, hour), quantity) in other.peaks {
            self.peak(&who, hour, quantity);
        }
        for (hour, hosts) in other.hosts {
            self.hosts.entry(hour).or_default().extend(hosts);
        }
        self.levels.extend(other.levels);
    }

    /// Compares the whole bill.
    pub fn compare(&self, bill: &[Billed]) {
        let mut sums: BTreeMap<(String, String), u128> = self.sums.clone();
        for ((who, _), quantity) in &self.peaks {
            *sums.entry((who.clone(), "users".to_owned())).or_default() += quantity;
        }
        let hosts: usize = self.hosts.values().map(BTreeSet::len).sum();
        sums.insert(
            (POD.to_owned(), "hosts".to_owned()),
            hosts as u128 * 1_000_000,
        );
        let mut billed: BTreeMap<(String, String), u128> = BTreeMap::new();
        for record in bill {
            let key = (record.who.clone(), record.dimension.clone());
            *billed.entry(key).or_default() += record.quantity;
        }
        let seats = billed
            .remove(&(POD.to_owned(), "seats".to_owned()))
            .unwrap_or_default();
        sums.retain(|_, quantity| *quantity > 0);
        billed.retain(|_, quantity| *quantity > 0);
        assert_equal(&billed, &sums);
        let levels: u128 = self.levels.values().sum();
        assert!(
            (levels..=levels + self.uncertain).contains(&seats),
            "seats: {seats} is billed, {levels} was sampled, {} is uncertain",
            self.uncertain
        );
        let mut tags: BTreeMap<(String, String), u128> = BTreeMap::new();
        for record in bill.iter().filter(|record| record.dimension == "tagged") {
            let mut add = |tag: &str, quantity| {
                let key = (record.who.clone(), tag.to_owned());
                *tags.entry(key).or_default() += quantity;
            };
            let mut rest = record.quantity;
            for part in &record.allocations {
                if let Some(team) = part.tags.get("team") {
                    add(team, part.quantity.0);
                    rest -= part.quantity.0;
                }
            }
            // A record of which no part has tags has no parts.
            add("", rest);
        }
        tags.retain(|_, quantity| *quantity > 0);
        assert_equal(&tags, &self.tags);
    }
}

/// Says only where they differ.
fn assert_equal(
    billed: &BTreeMap<(String, String), u128>,
    told: &BTreeMap<(String, String), u128>,
) {
    let keys = billed.keys().chain(told.keys());
    let wrong: BTreeMap<_, _> = keys
        .filter(|key| billed.get(key) != told.get(key))
        .map(|key| (key, (billed.get(key), told.get(key))))
        .collect();
    assert!(
        wrong.is_empty(),
        "the bill, and what was acknowledged: {wrong:?}"
    );
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, hosts) = (self.peaks.len(), self.hosts.len());
        write!(
            f,
            "{} reports acknowledged, {} requests unanswered, {} reports refused as too old, {} records of customers that are \
             not subscribed, {hours} hours of peaks, {hosts} of hosts, {} of levels, {} millionths of levels uncertain, answers \
             of AWS {:?}",
            self.acknowledged,
            self.unanswered,
            self.refused,
            self.unsubscribed,
            self.levels.len(),
            self.uncertain,
            self.answered
        )
    }
}

pub fn hour_of(at_ms: i64) -> i64 {
    at_ms - at_ms.rem_euclid(PERIOD_MS)
}

/// Decimal text in millionths.
pub fn millionths(text: &str) -> u128 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<6}").parse().unwrap()
}

/// Millionths as decimal text.
pub fn decimal(millionths: u128) -> String {
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}
