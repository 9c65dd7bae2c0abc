//! A dimension over its hours: which have a bucket, which have their record, and the level that holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bucket::{Sample, Sealed};
use super::hour_set::HourSet;
use super::window::Window;
use crate::usage::{BucketId, CustomerNumber, Dimension, Hour, Period};

/// What AWS keeps one record per hour for: a dimension of the task or pod itself, or of a customer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    /// The customer; none where the task or pod itself is billed (`MeterUsage`).
    pub customer: Option<CustomerNumber>,
    /// The dimension.
    pub dimension: Dimension,
}

/// One dimension over its hours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// By hour; seldom more than two.
    pub(super) open: Vec<(Hour, BucketId)>,
    pub(super) sealed: HourSet,
    /// What late usage of a sealed hour is compared with; a sum needs nothing to be compared with.
    pub(super) compared: BTreeMap<Hour, (BucketId, Sealed)>,
    /// Sealed hours up to this one have been forgotten.
    pub(super) floor: Option<Hour>,
    /// The latest sample of a `last` dimension.
    pub(super) level: Option<Box<Sample>>,
    /// The start-up record under the present identity.
    pub(super) startup: Option<BucketId>,
}

impl SeriesKey {
    /// A dimension of the task or pod itself.
    pub fn pod(dimension: Dimension) -> Self {
        Self {
            customer: None,
            dimension,
        }
    }

    pub(super) fn window(&self) -> Window {
        if self.customer.is_some() {
            Window::Customer
        } else {
            Window::Pod
        }
    }
}

impl Series {
    pub(super) fn open_at(&self, hour: Hour) -> Option<BucketId> {
        self.open
            .iter()
            .find(|(of, _)| *of == hour)
            .map(|(_, id)| *id)
    }

    /// False where the hour has a bucket already.
    pub(super) fn open(&mut self, hour: Hour, id: BucketId) -> bool {
        let free = self.open_at(hour).is_none();
        self.open.reserve_exact(1);
        self.open.push((hour, id));
        free
    }

    /// Whether the hour has its record, or may have one.
    pub(super) fn is_sealed(&self, hour: Hour) -> bool {
        self.floor.is_some_and(|floor| hour <= floor) || self.sealed.contains(hour)
    }

    pub(super) fn sealed_through(&self) -> Option<Hour> {
        self.sealed.last().max(self.floor)
    }

    /// Forgets sealed hours before `keep_from`; the floor remembers that they are sealed.
    pub(super) fn forget(&mut self, keep_from: Hour, period: Period) {
        self.floor = self.floor.max(self.sealed.remove_before(keep_from, period));
        self.compared.retain(|hour, _| *hour >= keep_from);
    }
}
