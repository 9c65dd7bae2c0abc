//! What the clients were told: the bill that follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use marketplace_simulator::meter::Record;

use crate::PERIOD_MS;

/// What was acknowledged, by dimension, the way each combines.
#[derive(Debug, Default)]
pub struct Expected {
    /// Reports that were answered with 200, each once.
    pub acknowledged: u64,
    /// Requests that got no answer, and were repeated.
    pub unanswered: u64,
    /// Reports of an hour that is too long ago; not counted.
    pub refused: u64,
    sums: BTreeMap<String, u128>,
    tags: BTreeMap<String, u128>,
    peaks: BTreeMap<i64, u128>,
    hosts: BTreeMap<i64, BTreeSet<u64>>,
    levels: BTreeMap<i64, u128>,
    /// Levels of hours whose own sample came too late: billed or not.
    uncertain: u128,
}

impl Expected {
    pub fn sum(&mut self, dimension: &str, quantity: u128) {
        *self.sums.entry(dimension.to_owned()).or_default() += quantity;
    }

    pub fn tagged(&mut self, tag: &str, quantity: u128) {
        *self.tags.entry(tag.to_owned()).or_default() += quantity;
    }

    pub fn peak(&mut self, at_ms: i64, quantity: u128) {
        let peak = self.peaks.entry(hour_of(at_ms)).or_default();
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
        self.uncertain += other.uncertain;
        for (dimension, quantity) in other.sums {
            self.sum(&dimension, quantity);
        }
        for (tag, quantity) in other.tags {
            self.tagged(&tag, quantity);
        }
        for (hour, quantity) in other.peaks {
            self.peak(hour, quantity);
        }
        for (hour, hosts) in other.hosts {
            self.hosts.entry(hour).or_default().extend(hosts);
        }
        self.levels.extend(other.levels);
    }

    /// Compares the whole bill.
    pub fn compare(&self, records: &[Record]) {
        let billed = |dimension: &str| -> u128 {
            let of_dimension = records
                .iter()
                .filter(|record| record.dimension == dimension);
            of_dimension.map(|record| record.quantity.0).sum()
        };
        for (dimension, quantity) in &self.sums {
            assert_eq!(billed(dimension), *quantity, "{dimension}");
        }
        assert_eq!(billed("users"), self.peaks.values().sum::<u128>(), "users");
        let hosts: usize = self.hosts.values().map(BTreeSet::len).sum();
        assert_eq!(billed("hosts"), hosts as u128 * 1_000_000, "hosts");
        let levels: u128 = self.levels.values().sum();
        let seats = billed("seats");
        assert!(
            (levels..=levels + self.uncertain).contains(&seats),
            "seats: {seats} is billed, {levels} was sampled, {} is uncertain",
            self.uncertain
        );
        let mut tags: BTreeMap<String, u128> = BTreeMap::new();
        for part in records.iter().flat_map(|record| &record.allocations) {
            // What has no tags is a part only beside tagged ones; the dimension's sum has it either way.
            if let Some(tag) = part.tags.get("team") {
                *tags.entry(tag.clone()).or_default() += part.quantity.0;
            }
        }
        assert_eq!(tags, self.tags, "by tag");
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, hosts) = (self.peaks.len(), self.hosts.len());
        write!(
            f,
            "{} reports acknowledged, {} requests unanswered, {} reports refused as too old, {hours} hours of peaks, {hosts} of \
             hosts, {} of levels, {} millionths of levels uncertain",
            self.acknowledged,
            self.unanswered,
            self.refused,
            self.levels.len(),
            self.uncertain
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
