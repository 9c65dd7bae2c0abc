//! A dimension over its hours: which have a bucket, which have their record, and the level that holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bucket::{Sample, Sealed};
use crate::usage::{BucketId, Hour};

/// One dimension over its hours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    pub(super) open: BTreeMap<Hour, BucketId>,
    pub(super) sealed: BTreeMap<Hour, (BucketId, Sealed)>,
    /// Sealed hours up to this one have been forgotten.
    pub(super) floor: Option<Hour>,
    /// The latest sample of a `last` dimension.
    pub(super) level: Option<Sample>,
    /// The start-up record under the present identity.
    pub(super) startup: Option<BucketId>,
}

impl Series {
    /// Whether the hour has its record, or may have one.
    pub(super) fn is_sealed(&self, hour: Hour) -> bool {
        self.floor.is_some_and(|floor| hour <= floor) || self.sealed.contains_key(&hour)
    }

    pub(super) fn sealed_through(&self) -> Option<Hour> {
        self.sealed.keys().next_back().copied().max(self.floor)
    }

    /// Forgets sealed hours before `keep_from`; the floor remembers that they are sealed.
    pub(super) fn forget(&mut self, keep_from: Hour) {
        while let Some(entry) = self
            .sealed
            .first_entry()
            .filter(|entry| *entry.key() < keep_from)
        {
            self.floor = self.floor.max(Some(*entry.key()));
            entry.remove();
        }
    }
}
