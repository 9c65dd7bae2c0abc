//! An open bucket: one hour of one series while usage still joins it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::intake::DISTINCT_KEYS_MAX;
use super::tally::Tally;
use super::{Amount, Combine, SeriesKey};
use crate::usage::{Dimension, Hour, Moment, Period, Quantity, UsageKey};

/// One hour of one series that has no record yet.
///
/// Its record will be the hour's own usage, combined the dimension's way, plus what is owed from hours that could not bill it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    pub(super) key: SeriesKey,
    pub(super) hour: Hour,
    /// When the bucket was made, by the clock.
    pub(super) opened_at: Moment,
    /// The first usage that joined, by its own timestamp.
    pub(super) first_at: Moment,
    pub(super) own: Own,
    /// Carried from other hours; never part of the combination. Seldom anything, and there are many buckets.
    pub(super) carried: Option<Box<Carried>>,
}

/// What a bucket bills of other hours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Carried {
    owed: Tally,
    /// For `last` samples of hours sealed early: replaced by each new sample, hence apart from `owed`.
    late: BTreeMap<Hour, Quantity>,
}

/// The usage of the hour itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Own {
    Sum(Tally),
    /// The report with the highest quantity, with that report's tags.
    Max(Option<Box<Sample>>),
    Last {
        sample: Option<Box<Sample>>,
        /// The sample is the level of an earlier hour that still holds.
        held: bool,
    },
    Distinct(BTreeSet<UsageKey>),
}

/// One report of a level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) at: Moment,
    pub(super) quantity: Quantity,
    pub(super) tally: Tally,
}

/// What of a sealed hour later usage of the same hour is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    pub(super) value: Quantity,
    /// When the level that counts was sampled.
    pub(super) at: Option<Moment>,
    pub(super) keys: BTreeSet<UsageKey>,
}

impl Bucket {
    /// Its series.
    pub fn key(&self) -> &SeriesKey {
        &self.key
    }

    /// Its dimension.
    pub fn dimension(&self) -> &Dimension {
        &self.key.dimension
    }

    /// Its hour.
    pub fn hour(&self) -> Hour {
        self.hour
    }

    /// What it would be sealed with at present, in millionths.
    pub fn total(&self) -> u128 {
        self.tally().total()
    }

    pub(super) fn new(
        key: SeriesKey,
        combine: Combine,
        hour: Hour,
        opened_at: Moment,
        first_at: Moment,
    ) -> Self {
        let own = Own::empty(combine);
        Self {
            key,
            hour,
            opened_at,
            first_at,
            own,
            carried: None,
        }
    }

    /// Everything that the bucket's record, or records, will hold.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = self.own.tally();
        if let Some(carried) = &self.carried {
            tally.absorb(carried.owed.clone());
            for quantity in carried.late.values() {
                tally.absorb(Tally::untagged(*quantity));
            }
        }
        tally
    }

    /// Bills `tally` of another hour as well.
    pub(super) fn owe(&mut self, tally: Tally) {
        if !tally.is_nothing() {
            self.carried.get_or_insert_default().owed.absorb(tally);
        }
    }

    /// Bills so much for the latest sample of `hour`, in place of what it billed for an earlier one.
    pub(super) fn owe_late(&mut self, hour: Hour, quantity: Quantity) {
        let carried = self.carried.get_or_insert_default();
        carried.late.insert(hour, quantity);
    }

    /// What is billed for late samples, by their hour.
    pub(super) fn late(&self) -> impl Iterator<Item = (Hour, Quantity)> {
        let late = self.carried.iter().flat_map(|carried| &carried.late);
        late.map(|(hour, quantity)| (*hour, *quantity))
    }

    /// What is billed for late samples can't be replaced any more.
    pub(super) fn fix_late(&mut self) {
        if let Some(carried) = &mut self.carried {
            for quantity in std::mem::take(&mut carried.late).into_values() {
                carried.owed.absorb(Tally::untagged(quantity));
            }
        }
    }

    /// Whether one key more would be too many.
    pub(super) fn is_full_for(&self, key: &UsageKey) -> bool {
        matches!(&self.own, Own::Distinct(keys) if keys.len() >= DISTINCT_KEYS_MAX && !keys.contains(key))
    }

    /// The later of the hour's start and the first usage that joined, but never ahead of the clock.
    pub(super) fn timestamp(&self, now: Moment) -> Moment {
        self.first_at.min(now).max(self.hour.start())
    }

    /// When the bucket is to be sealed: after its hour and `wait_ms`, or as long after it was made for an hour gone by; but
    /// early enough to be sent.
    pub(super) fn seal_due(&self, period: Period, wait_ms: i64) -> Moment {
        let end = period.end(self.hour);
        let patient = end.max(self.opened_at).plus_ms(wait_ms);
        let timestamp = self.first_at.max(self.hour.start());
        let latest = self
            .key
            .window()
            .deadline(timestamp, period)
            .plus_ms(-period.fraction_ms(6));
        patient.min(latest).max(end)
    }
}

impl Own {
    pub(super) fn empty(combine: Combine) -> Self {
        match combine {
            Combine::Sum => Self::Sum(Tally::default()),
            Combine::Max => Self::Max(None),
            Combine::Last => Self::Last {
                sample: None,
                held: false,
            },
            Combine::Distinct => Self::Distinct(BTreeSet::new()),
        }
    }

    pub(super) fn combine(&self) -> Combine {
        match self {
            Self::Sum(_) => Combine::Sum,
            Self::Max(_) => Combine::Max,
            Self::Last { .. } => Combine::Last,
            Self::Distinct(_) => Combine::Distinct,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        match self {
            Self::Sum(tally) => tally.clone(),
            Self::Max(sample) | Self::Last { sample, .. } => sample
                .as_ref()
                .map(|sample| sample.tally.clone())
                .unwrap_or_default(),
            Self::Distinct(keys) => Tally::untagged(count(keys)),
        }
    }

    /// Takes a report of this hour in. False where the amount is not of this combination's kind.
    pub(super) fn join(&mut self, amount: &Amount, at: Moment, newest: bool) -> bool {
        match (self, amount) {
            (Self::Sum(tally), Amount::Quantity { .. }) => tally.absorb(amount.tally()),
            (Self::Max(peak), Amount::Quantity { quantity, .. }) => {
                if peak.as_ref().is_none_or(|peak| *quantity > peak.quantity) {
                    *peak = Some(Box::new(Sample {
                        at,
                        quantity: *quantity,
                        tally: amount.tally(),
                    }));
                }
            }
            (Self::Last { sample, held }, Amount::Quantity { quantity, .. }) => {
                if newest || sample.as_ref().is_none_or(|sample| at >= sample.at) {
                    *sample = Some(Box::new(Sample {
                        at,
                        quantity: *quantity,
                        tally: amount.tally(),
                    }));
                    *held = false;
                }
            }
            (Self::Distinct(keys), Amount::Key(key)) => {
                keys.insert(*key);
            }
            (Self::Sum(_) | Self::Max(_) | Self::Last { .. }, Amount::Key(_))
            | (Self::Distinct(_), Amount::Quantity { .. }) => return false,
        }
        true
    }

    /// What stays of the hour once its record is fixed.
    pub(super) fn into_sealed(self) -> Sealed {
        match self {
            Self::Sum(_) => Sealed::default(),
            Self::Max(sample) | Self::Last { sample, .. } => {
                sample.map_or_else(Sealed::default, |sample| Sealed {
                    value: sample.quantity,
                    at: Some(sample.at),
                    keys: BTreeSet::new(),
                })
            }
            Self::Distinct(keys) => Sealed {
                keys,
                ..Sealed::default()
            },
        }
    }
}

impl Sealed {
    /// How much a late report is above what its hour was sealed with.
    pub(super) fn excess(&self, combine: Combine, amount: &Amount) -> Tally {
        match (combine, amount) {
            (Combine::Sum, _) => amount.tally(),
            (Combine::Max | Combine::Last, Amount::Quantity { quantity, .. }) => {
                Tally::untagged(quantity.saturating_sub(self.value))
            }
            (Combine::Distinct, Amount::Key(key)) if self.keys.contains(key) => Tally::default(),
            (Combine::Max | Combine::Last, Amount::Key(_)) | (Combine::Distinct, _) => {
                amount.tally()
            }
        }
    }

    /// Remembers what a late report has added.
    pub(super) fn join(&mut self, combine: Combine, amount: &Amount) {
        match (combine, amount) {
            (Combine::Max, Amount::Quantity { quantity, .. }) => {
                self.value = self.value.max(*quantity);
            }
            (Combine::Distinct, Amount::Key(key)) => {
                self.keys.insert(*key);
            }
            (Combine::Sum | Combine::Last | Combine::Max, _)
            | (Combine::Distinct, Amount::Quantity { .. }) => {}
        }
    }
}

impl Amount {
    pub(super) fn tally(&self) -> Tally {
        match self {
            Self::Quantity {
                quantity,
                allocations,
            } => Tally::of_parts(*quantity, allocations.parts()),
            Self::Key(_) => Tally::untagged(Quantity::ONE),
        }
    }
}

fn count(keys: &BTreeSet<UsageKey>) -> Quantity {
    i64::try_from(keys.len())
        .ok()
        .and_then(|keys| Quantity::from_integer(keys).ok())
        .expect("a bucket holds at most DISTINCT_KEYS_MAX keys")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Allocations;

    const AT: Moment = Moment::from_millis(1000);

    fn quantity(units: i64) -> Amount {
        Amount::Quantity {
            quantity: Quantity::from_integer(units).unwrap(),
            allocations: Allocations::NONE,
        }
    }

    fn joined(combine: Combine, amounts: &[(Amount, i64)]) -> u128 {
        let mut own = Own::empty(combine);
        for (amount, at) in amounts {
            assert!(own.join(amount, AT.plus_ms(*at), false));
        }
        own.tally().total() / 1_000_000
    }

    #[test]
    fn sum_adds_up() {
        assert_eq!(
            joined(
                Combine::Sum,
                &[(quantity(3), 0), (quantity(4), 1), (quantity(3), 2)]
            ),
            10
        );
    }

    #[test]
    fn max_keeps_the_peak() {
        assert_eq!(
            joined(
                Combine::Max,
                &[(quantity(3), 0), (quantity(9), 1), (quantity(4), 2)]
            ),
            9
        );
    }

    #[test]
    fn last_keeps_the_latest_sample_whatever_order_they_come_in() {
        assert_eq!(
            joined(
                Combine::Last,
                &[(quantity(9), 0), (quantity(4), 2), (quantity(7), 1)]
            ),
            4
        );
    }

    #[test]
    fn distinct_counts_each_key_once() {
        let key = |name| Amount::Key(UsageKey::new(name).unwrap());
        assert_eq!(
            joined(
                Combine::Distinct,
                &[(key("a"), 0), (key("b"), 1), (key("a"), 2)]
            ),
            2
        );
    }

    #[test]
    fn amounts_of_the_wrong_kind_do_not_join() {
        let key = Amount::Key(UsageKey::new("a").unwrap());
        for combine in [Combine::Sum, Combine::Max, Combine::Last] {
            assert!(!Own::empty(combine).join(&key, AT, true));
        }
        assert!(!Own::empty(Combine::Distinct).join(&quantity(1), AT, true));
    }

    #[test]
    fn a_bucket_for_an_hour_gone_by_waits_for_stragglers_too() {
        let hour = Period::HOUR.hour_of(Moment::from_millis(0));
        let made = Moment::from_millis(3 * 3_600_000);
        let bucket = Bucket::new(
            SeriesKey::pod("gb".parse().unwrap()),
            Combine::Sum,
            hour,
            made,
            hour.start(),
        );
        assert_eq!(bucket.seal_due(Period::HOUR, 60_000), made.plus_ms(60_000));
    }

    #[test]
    fn a_bucket_is_sealed_while_it_can_still_be_sent() {
        let hour = Period::HOUR.hour_of(Moment::from_millis(0));
        let made = Moment::from_millis(6 * 3_600_000 - 1);
        let bucket = Bucket::new(
            SeriesKey::pod("gb".parse().unwrap()),
            Combine::Sum,
            hour,
            made,
            hour.start(),
        );
        assert!(bucket.seal_due(Period::HOUR, 60_000) < made);
    }
}
