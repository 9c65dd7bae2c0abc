//! Sums that may outgrow one record, divided by tags.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::batch::{PARTS_BYTES_MAX, part_bytes_max};
use crate::usage::{ALLOCATIONS_MAX, Allocation, Quantity, TagSet};

/// An exact sum in millionths. It may be larger than one record can hold, and part of it may belong to tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    untagged: u128,
    tagged: BTreeMap<TagSet, u128>,
    folded: u32,
}

/// What one record takes of a [`Tally`].
#[derive(Debug)]
pub(super) struct Share {
    pub(super) quantity: Quantity,
    pub(super) allocations: Vec<Allocation>,
    /// How many tag sets lost their tags because a record takes 2500 allocations at most, and a request under 1 MB.
    pub(super) folded: u32,
    /// What did not fit.
    pub(super) rest: Option<Tally>,
}

impl Tally {
    /// A sum without tags.
    pub fn untagged(quantity: Quantity) -> Self {
        Self {
            untagged: quantity.millionths().into(),
            ..Self::default()
        }
    }

    /// A quantity with its division over tags.
    pub(super) fn of_parts(quantity: Quantity, parts: &[Allocation]) -> Self {
        if parts.is_empty() {
            return Self::untagged(quantity);
        }
        let mut tally = Self::default();
        for part in parts {
            tally.add(part.tags.as_ref(), part.quantity.millionths().into());
        }
        tally
    }

    /// The whole sum in millionths.
    pub fn total(&self) -> u128 {
        self.untagged + self.tagged.values().sum::<u128>()
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.total() == 0
    }

    /// Whether it is nothing, and no tag set lost its tags in it.
    pub(super) fn is_nothing(&self) -> bool {
        self.is_zero() && self.folded == 0
    }

    /// Adds a sum to this one.
    pub fn absorb(&mut self, other: Self) {
        self.untagged += other.untagged;
        self.folded = self.folded.saturating_add(other.folded);
        for (tags, amount) in other.tagged {
            self.add(Some(&tags), amount);
        }
    }

    /// Adds to one tag set; beyond [`ALLOCATIONS_MAX`] different ones the amount is kept and its tags are not.
    fn add(&mut self, tags: Option<&TagSet>, amount: u128) {
        let Some(tags) = tags else {
            self.untagged += amount;
            return;
        };
        if let Some(sum) = self.tagged.get_mut(tags) {
            *sum += amount;
        } else if self.tagged.len() < ALLOCATIONS_MAX {
            if amount > 0 {
                self.tagged.insert(tags.clone(), amount);
            }
        } else {
            self.untagged += amount;
            self.folded = self.folded.saturating_add(1);
        }
    }

    /// Takes as much as one record holds, tagged usage first, so that its tags arrive with the earliest record.
    pub(super) fn into_share(mut self) -> Share {
        self.fold_beyond_request();
        if self.untagged > 0 && self.tagged.len() == ALLOCATIONS_MAX {
            self.fold_smallest();
        }
        let mut room = u128::from(Quantity::MAX.millionths());
        let mut take = |amount: &mut u128| {
            let taken = (*amount).min(room);
            room -= taken;
            *amount -= taken;
            u64::try_from(taken)
                .ok()
                .and_then(|millionths| Quantity::from_millionths(millionths).ok())
                .expect("no more is taken than one record holds")
        };
        let mut allocations = Vec::with_capacity(self.tagged.len());
        for (tags, amount) in &mut self.tagged {
            let quantity = take(amount);
            if !quantity.is_zero() {
                allocations.push(Allocation {
                    tags: Some(tags.clone()),
                    quantity,
                });
            }
        }
        let untagged = take(&mut self.untagged);
        if !allocations.is_empty() && !untagged.is_zero() {
            allocations.push(Allocation {
                tags: None,
                quantity: untagged,
            });
        }
        let folded = std::mem::take(&mut self.folded);
        self.tagged.retain(|_, amount| *amount > 0);
        let quantity = allocations
            .iter()
            .filter(|part| part.tags.is_some())
            .try_fold(untagged, |sum, part| sum.checked_add(part.quantity))
            .expect("no more is taken than one record holds");
        Share {
            quantity,
            allocations,
            folded,
            rest: (!self.is_zero()).then_some(self),
        }
    }

    /// Tag sets beyond what a request has room for lose their tags.
    fn fold_beyond_request(&mut self) {
        let mut bytes = part_bytes_max(None);
        let mut untagged = 0;
        let mut folded = 0_u32;
        self.tagged.retain(|tags, amount| {
            let with_it = bytes + part_bytes_max(Some(tags));
            if with_it <= PARTS_BYTES_MAX {
                bytes = with_it;
                return true;
            }
            untagged += *amount;
            folded += 1;
            false
        });
        self.untagged += untagged;
        self.folded = self.folded.saturating_add(folded);
    }

    /// Makes room for the untagged allocation: the smallest tag set loses its tags.
    fn fold_smallest(&mut self) {
        let smallest = self
            .tagged
            .iter()
            .min_by_key(|(_, amount)| **amount)
            .map(|(tags, _)| tags.clone());
        if let Some(amount) = smallest.and_then(|tags| self.tagged.remove(&tags)) {
            self.untagged += amount;
            self.folded = self.folded.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Tag;

    fn tags(name: usize) -> TagSet {
        TagSet::new(vec![Tag::new("name", &name.to_string()).unwrap()]).unwrap()
    }

    fn tagged(name: usize, amount: u64) -> Tally {
        let quantity = Quantity::from_millionths(amount).unwrap();
        Tally::of_parts(
            quantity,
            &[Allocation {
                tags: Some(tags(name)),
                quantity,
            }],
        )
    }

    #[test]
    fn equal_tag_sets_merge_and_the_remainder_is_untagged() {
        let mut tally = tagged(1, 5);
        tally.absorb(tagged(1, 7));
        tally.absorb(Tally::untagged(Quantity::from_millionths(3).unwrap()));
        let share = tally.into_share();
        assert_eq!(share.quantity.millionths(), 15);
        let parts: Vec<_> = share
            .allocations
            .iter()
            .map(|p| (p.tags.clone(), p.quantity.millionths()))
            .collect();
        assert_eq!(parts, [(Some(tags(1)), 12), (None, 3)]);
        assert!(share.rest.is_none());
    }

    #[test]
    fn usage_without_tags_has_no_allocations() {
        assert!(
            Tally::untagged(Quantity::ONE)
                .into_share()
                .allocations
                .is_empty()
        );
    }

    #[test]
    fn what_one_record_cannot_hold_stays_over_with_its_tags() {
        let mut tally = tagged(1, Quantity::MAX.millionths());
        tally.absorb(tagged(2, 7));
        tally.absorb(Tally::untagged(Quantity::ONE));
        let first = tally.into_share();
        assert_eq!(first.quantity, Quantity::MAX);
        let second = first.rest.unwrap().into_share();
        assert_eq!(second.quantity.millionths(), 1_000_007);
        assert_eq!(second.allocations.len(), 2);
        assert!(second.rest.is_none());
    }

    #[test]
    fn more_tag_sets_than_a_record_takes_fold_and_keep_the_total() {
        let mut tally = Tally::default();
        for name in 0..ALLOCATIONS_MAX + 10 {
            tally.absorb(tagged(name, 2));
        }
        let share = tally.into_share();
        assert_eq!(
            share.quantity.millionths(),
            2 * (ALLOCATIONS_MAX as u64 + 10)
        );
        assert_eq!(share.allocations.len(), ALLOCATIONS_MAX);
        assert_eq!(share.folded, 11);
    }

    #[test]
    fn tag_sets_that_no_request_has_room_for_fold_and_keep_the_total() {
        let mut tally = Tally::default();
        let long = "v".repeat(250);
        for name in 0..2000 {
            let tag = |key: &str| Tag::new(&format!("{key}{name}"), &long).unwrap();
            let tags = ["a", "b", "c", "d"].map(tag).to_vec();
            let quantity = Quantity::ONE;
            let tags = Some(TagSet::new(tags).unwrap());
            tally.absorb(Tally::of_parts(quantity, &[Allocation { tags, quantity }]));
        }
        let share = tally.into_share();
        assert_eq!(share.quantity.as_integer(), Some(2000));
        assert!(share.folded > 0 && share.allocations.len() < 1000);
        let bytes: usize = share
            .allocations
            .iter()
            .map(|part| part_bytes_max(part.tags.as_ref()))
            .sum();
        assert!(bytes <= PARTS_BYTES_MAX);
    }

    #[test]
    fn exactly_as_many_tag_sets_as_a_record_takes_keep_their_tags() {
        let mut tally = Tally::default();
        for name in 0..ALLOCATIONS_MAX {
            tally.absorb(tagged(name, 2));
        }
        let share = tally.into_share();
        assert_eq!(
            (share.allocations.len(), share.folded),
            (ALLOCATIONS_MAX, 0)
        );
    }
}
