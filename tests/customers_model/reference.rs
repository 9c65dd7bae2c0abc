//! What should be billed to whom, the obvious way: each report is kept in the list of its customer and hour.

use std::collections::{BTreeMap, BTreeSet};

use tollgate::usage::{Customer, Hour, Way};

/// How many customers there are.
pub(crate) const CUSTOMERS: usize = 6;
/// The dimensions: one sums up, one keeps the peak.
pub(crate) const DIMENSIONS: [&str; 2] = ["sum", "max"];

/// Buyer 1 by identifier, by account and by two licenses; buyer 2 by a license; buyer 3 by an identifier that nobody resolves.
pub(crate) fn customer(index: usize) -> Customer {
    let license =
        |account: &str, n: u32| format!("arn:aws:license-manager::{account}:license:l-{n}");
    let named = |identifier, account, license: Option<String>| {
        Customer::new(identifier, account, license.as_deref()).unwrap()
    };
    match index {
        0 => named(Some("c-1"), None, None),
        1 => named(None, Some("1"), None),
        2 => named(None, Some("1"), Some(license("1", 1))),
        3 => named(None, Some("1"), Some(license("1", 2))),
        4 => named(None, Some("2"), Some(license("2", 1))),
        _ => named(Some("c-3"), None, None),
    }
}

#[derive(Debug, Default)]
pub(crate) struct Reference {
    reports: BTreeMap<(usize, usize, Hour), Vec<u64>>,
    /// It is known that customer 0 is buyer 1.
    pub(crate) resolved: bool,
    /// In which ways each buyer was named in an hour.
    ways: BTreeMap<(usize, Hour), BTreeSet<Way>>,
}

impl Reference {
    /// Whether a call may be taken, as far as names go: `(customer, hour)` of each of its records. A way that an hour has seen
    /// is fine; another one is not.
    pub(crate) fn names_agree(&self, records: &[(usize, Hour)]) -> bool {
        let mut ways = self.ways.clone();
        records.iter().all(|(index, hour)| {
            let Some(buyer) = self.buyer(*index) else {
                return true;
            };
            let way = customer(*index).way();
            let seen = ways.entry((buyer, *hour)).or_default();
            seen.is_empty() && seen.insert(way) || seen.contains(&way)
        })
    }

    pub(crate) fn report(&mut self, index: usize, dimension: usize, hour: Hour, amount: u64) {
        self.reports
            .entry((index, dimension, hour))
            .or_default()
            .push(amount);
        if let Some(buyer) = self.buyer(index) {
            self.ways
                .entry((buyer, hour))
                .or_default()
                .insert(customer(index).way());
        }
    }

    /// It becomes known who customer 0 is.
    pub(crate) fn resolve(&mut self) {
        self.resolved = true;
        let hours = self.reports.keys().filter(|(index, _, _)| *index == 0);
        for (_, _, hour) in hours.copied().collect::<Vec<_>>() {
            self.ways
                .entry((1, hour))
                .or_default()
                .insert(Way::Identifier);
        }
    }

    pub(crate) fn expected(&self, index: usize, dimension: usize) -> u128 {
        self.reports
            .iter()
            .filter(|((customer, of, _), _)| *customer == index && *of == dimension)
            .map(|(_, amounts)| match dimension {
                0 => amounts.iter().map(|amount| u128::from(*amount)).sum(),
                _ => u128::from(amounts.iter().copied().max().unwrap_or(0)),
            })
            .sum()
    }

    fn buyer(&self, index: usize) -> Option<usize> {
        match index {
            0 => self.resolved.then_some(1),
            1..=3 => Some(1),
            4 => Some(2),
            _ => None,
        }
    }
}
