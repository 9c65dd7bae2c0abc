//! What should be billed, the obvious way: each report is kept in the list of its hour, and an hour is worth what its list
//! combines to. Where the quantity is at the time does not matter to it.

use std::collections::{BTreeMap, BTreeSet};

use tollgate::usage::{BucketId, Hour, Identity, Moment, Period};

/// The dimensions, in the order in which operations name them.
pub(crate) const DIMENSIONS: [&str; 4] = ["sum", "max", "last", "distinct"];
pub(crate) const SUM: usize = 0;
pub(crate) const MAX: usize = 1;
pub(crate) const LAST: usize = 2;
pub(crate) const DISTINCT: usize = 3;

/// The reports of one hour of one dimension under one identity.
#[derive(Debug, Default)]
struct HourList {
    amounts: Vec<u64>,
    /// The level that came from an earlier hour, until a sample of this hour replaces it.
    held: Option<u64>,
    sealed: bool,
    /// What a sealed record says of the hour: never taken back.
    fixed: u64,
    late_bucket: Option<BucketId>,
}

#[derive(Debug, Default)]
pub(crate) struct Reference {
    lists: BTreeMap<(usize, Hour), HourList>,
    /// The worth of the lists of hours that were another identity's.
    closed: [u128; 4],
    level: Option<u64>,
    sealed_through: BTreeMap<Identity, Hour>,
    floor: Option<Hour>,
    identity: Option<Identity>,
    since: Option<Moment>,
}

impl Reference {
    /// A report was acknowledged; `open_hour` is the hour of the bucket it is in, if that is open.
    pub(crate) fn report(
        &mut self,
        dimension: usize,
        at: Moment,
        now: Moment,
        amount: u64,
        bucket: BucketId,
    ) {
        let at = match self.since {
            Some(since) if since <= now => at.max(since),
            _ => at,
        };
        let hour = Period::HOUR.hour_of(at);
        let below = self.floor.is_some_and(|floor| hour <= floor);
        let list = self.lists.entry((dimension, hour)).or_default();
        if below {
            list.sealed = true;
        }
        list.held = None;
        list.amounts.push(amount);
        if dimension == LAST {
            if list.sealed {
                list.late_bucket = Some(bucket);
            }
            self.level = Some(amount);
            for ((_, later), list) in self.lists.range_mut((LAST, hour)..(DISTINCT, hour)) {
                if *later > hour && list.held.is_some() && !list.sealed {
                    list.held = Some(amount);
                }
            }
        }
    }

    /// The core looked at the clock while the process was up.
    pub(crate) fn hour_seen(&mut self, now: Moment) {
        let hour = Period::HOUR.hour_of(now);
        let Some(level) = self.level else { return };
        if self.floor.is_some_and(|floor| hour <= floor) {
            return;
        }
        let list = self.lists.entry((LAST, hour)).or_default();
        if !list.sealed && list.held.is_none() && list.amounts.is_empty() {
            list.held = Some(level);
        }
    }

    /// A record was fixed: what it says of its hour can't be taken back.
    pub(crate) fn sealed(&mut self, dimension: usize, hour: Hour, bucket: BucketId) {
        let list = self.lists.entry((dimension, hour)).or_default();
        list.fixed = list.fixed.max(level_of(list));
        list.sealed = true;
        for list in self
            .lists
            .values_mut()
            .filter(|list| list.late_bucket == Some(bucket))
        {
            list.fixed = list.fixed.max(level_of(list));
        }
        if let Some(identity) = &self.identity {
            let through = self.sealed_through.entry(identity.clone()).or_insert(hour);
            *through = (*through).max(hour);
        }
    }

    /// Another task or pod has the ledger: it knows nothing of the other's hours, but goes on with the open one.
    pub(crate) fn identity_changed(
        &mut self,
        identity: &Identity,
        now: Moment,
        open: &BTreeSet<(usize, Hour)>,
    ) {
        let present = Period::HOUR.hour_of(now);
        let floor = self.sealed_through.get(identity).copied();
        let goes_on = |hour| hour >= present && floor.is_none_or(|floor| hour > floor);
        for ((dimension, hour), list) in std::mem::take(&mut self.lists) {
            if open.contains(&(dimension, hour)) && !list.sealed && goes_on(hour) {
                self.lists.insert((dimension, hour), list);
            } else {
                self.closed[dimension] += worth(dimension, &list);
            }
        }
        self.level = None;
        self.since = Some(now);
        self.identity = Some(identity.clone());
        self.floor = floor;
    }

    pub(crate) fn expected(&self, dimension: usize) -> u128 {
        let lists = self
            .lists
            .iter()
            .filter(|((listed, _), _)| *listed == dimension);
        self.closed[dimension] + lists.map(|(_, list)| worth(dimension, list)).sum::<u128>()
    }
}

fn worth(dimension: usize, list: &HourList) -> u128 {
    match dimension {
        SUM => list.amounts.iter().map(|amount| u128::from(*amount)).sum(),
        MAX => list.amounts.iter().copied().max().unwrap_or(0).into(),
        LAST => level_of(list).max(list.fixed).into(),
        DISTINCT => list.amounts.iter().collect::<BTreeSet<_>>().len() as u128 * 1_000_000,
        other => unreachable!("no dimension {other}"),
    }
}

fn level_of(list: &HourList) -> u64 {
    list.held.or(list.amounts.last().copied()).unwrap_or(0)
}
