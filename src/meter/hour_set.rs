//! A set of hours as ranges: most of them follow one on another, so that a day costs as much memory as an hour.

use serde::{Deserialize, Serialize};

use crate::usage::{Hour, Period};

/// Hours, kept as ranges from the first to the last one of each, in order and never adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct HourSet(Vec<(Hour, Hour)>);

impl HourSet {
    pub(super) fn contains(&self, hour: Hour) -> bool {
        self.range_of(hour).is_some()
    }

    pub(super) fn insert(&mut self, hour: Hour, period: Period) {
        if self.contains(hour) {
            return;
        }
        let at = self.0.partition_point(|(first, _)| *first < hour);
        let joins_before = at > 0 && period.next(self.0[at - 1].1) == hour;
        let joins_after = self
            .0
            .get(at)
            .is_some_and(|(first, _)| *first == period.next(hour));
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = hour,
            (false, true) => self.0[at].0 = hour,
            (false, false) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (hour, hour));
            }
        }
    }

    /// The last hour of the range that `hour` is in.
    pub(super) fn range_end(&self, hour: Hour) -> Option<Hour> {
        self.range_of(hour).map(|(_, last)| last)
    }

    pub(super) fn last(&self) -> Option<Hour> {
        self.0.last().map(|(_, last)| *last)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes the hours before `hour` and says which was the last of them.
    pub(super) fn remove_before(&mut self, hour: Hour, period: Period) -> Option<Hour> {
        let whole = self.0.partition_point(|(_, last)| *last < hour);
        let mut removed = self.0.drain(..whole).next_back().map(|(_, last)| last);
        if let Some((first, _)) = self.0.first_mut().filter(|(first, _)| *first < hour) {
            *first = hour;
            removed = Some(period.back(hour, 1));
        }
        removed
    }

    fn range_of(&self, hour: Hour) -> Option<(Hour, Hour)> {
        let at = self.0.partition_point(|(_, last)| *last < hour);
        self.0
            .get(at)
            .copied()
            .filter(|(first, last)| *first <= hour && hour <= *last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::usage::Moment;

    fn hour(number: i64) -> Hour {
        Period::HOUR.hour_of(Moment::from_millis(number * Period::HOUR.as_millis()))
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_set_holds(inserted in prop::collection::vec(0_i64..40, 0..60), cut in 0_i64..45) {
            let mut set = HourSet::default();
            let mut plain = BTreeSet::new();
            for number in inserted {
                set.insert(hour(number), Period::HOUR);
                plain.insert(number);
            }
            let removed = set.remove_before(hour(cut), Period::HOUR);
            prop_assert_eq!(removed, plain.range(..cut).next_back().map(|number| hour(*number)));
            plain.retain(|number| *number >= cut);
            for number in -1..46 {
                prop_assert_eq!(set.contains(hour(number)), plain.contains(&number));
            }
            prop_assert_eq!(set.last(), plain.last().map(|number| hour(*number)));
            for pair in set.0.windows(2) {
                prop_assert!(Period::HOUR.next(pair[0].1) < pair[1].0, "ranges are apart");
            }
        }
    }

    #[test]
    fn hours_in_a_row_are_one_range() {
        let mut set = HourSet::default();
        for number in [3, 1, 2, 7] {
            set.insert(hour(number), Period::HOUR);
        }
        assert_eq!(set.0, [(hour(1), hour(3)), (hour(7), hour(7))]);
        assert_eq!(set.range_end(hour(2)), Some(hour(3)));
        assert_eq!(set.range_end(hour(4)), None);
    }
}
