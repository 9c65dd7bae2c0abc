//! Reports: which bucket each joins.

use serde::{Deserialize, Serialize};

use super::{Combine, Core, Decision, Fact, Gate};
use crate::usage::{Allocations, BucketId, Dimension, Hour, Moment, Quantity, UsageKey};

/// Usage that the app reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of what.
    pub dimension: Dimension,
    /// How much.
    pub amount: Amount,
    /// When, if the app says so; else on arrival.
    pub at: Option<Moment>,
}

/// How much is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amount {
    /// A quantity and how it divides over tags.
    Quantity {
        /// The quantity.
        quantity: Quantity,
        /// Its parts.
        allocations: Allocations,
    },
    /// One of the things that a `distinct` dimension counts.
    Key(UsageKey),
}

/// A report that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `TOLLGATE_DIMENSIONS` does not name it.
    #[error(
        "dimension {0} is not one of TOLLGATE_DIMENSIONS; report one of those, or add it there"
    )]
    UnknownDimension(Dimension),
    /// Without `TOLLGATE_DIMENSIONS` any name is a dimension, but not any number of them.
    #[error(
        "{0} is one dimension more than {DIMENSIONS_MAX}, the most that are metered; set TOLLGATE_DIMENSIONS"
    )]
    TooManyDimensions(Dimension),
    /// `distinct` counts keys.
    #[error("dimension {0} counts distinct keys: report \"key\" by POST /v1/usage, not a quantity")]
    NeedsKey(Dimension),
    /// `sum`, `max` and `last` combine quantities.
    #[error(
        "dimension {dimension} combines quantities ({combine:?}): report a quantity, not a key"
    )]
    NeedsQuantity {
        /// The dimension.
        dimension: Dimension,
        /// How it combines.
        combine: Combine,
    },
    /// More keys than an hour holds.
    #[error(
        "dimension {0} has {DISTINCT_KEYS_MAX} distinct keys in this hour, the most that are counted"
    )]
    TooManyKeys(Dimension),
    /// Outside the six hours that AWS takes, or ahead of the clock.
    #[error("timestamp {at} is outside {earliest} to {latest}, between which usage is taken")]
    TimestampOutOfBounds {
        /// The one given.
        at: Moment,
        /// The first one taken.
        earliest: Moment,
        /// The last one taken.
        latest: Moment,
    },
    /// The entitlement decision was negative.
    #[error("the buyer is not entitled to the product, and usage is not taken")]
    NotEntitled,
}

impl Core {
    /// Takes a report and names the bucket where it is now.
    pub fn report(&mut self, now: Moment, report: &Report) -> Result<Decision<BucketId>, Refusal> {
        let combine = self.check(now, report)?;
        let at = self.effective_time(now, report.at);
        let hour = self.rules.period.hour_of(at);
        let bucket = if self.is_sealed(&report.dimension, hour) {
            self.join_late(now, report, combine, hour, at)?
        } else {
            self.join_own(now, report, hour, at)?
        };
        Ok(self.decided(bucket))
    }

    fn check(&self, now: Moment, report: &Report) -> Result<Combine, Refusal> {
        if self.gate == Gate::Denied {
            return Err(Refusal::NotEntitled);
        }
        let dimension = &report.dimension;
        let combine = self
            .combine_of(dimension)
            .ok_or_else(|| Refusal::UnknownDimension(dimension.clone()))?;
        if !self.state.series.contains_key(dimension) && self.state.series.len() >= DIMENSIONS_MAX {
            return Err(Refusal::TooManyDimensions(dimension.clone()));
        }
        match (&report.amount, combine) {
            (Amount::Quantity { .. }, Combine::Distinct) => {
                return Err(Refusal::NeedsKey(dimension.clone()));
            }
            (Amount::Key(_), Combine::Sum | Combine::Max | Combine::Last) => {
                return Err(Refusal::NeedsQuantity {
                    dimension: dimension.clone(),
                    combine,
                });
            }
            (Amount::Quantity { .. }, Combine::Sum | Combine::Max | Combine::Last)
            | (Amount::Key(_), Combine::Distinct) => {}
        }
        let Some(at) = report.at else {
            return Ok(combine);
        };
        let earliest = now.plus_ms(-super::window_ms(self.rules.period));
        let latest = now.plus_ms(self.rules.period.fraction_ms(SKEW_DIVISOR));
        if at < earliest || at > latest {
            return Err(Refusal::TimestampOutOfBounds {
                at,
                earliest,
                latest,
            });
        }
        Ok(combine)
    }

    /// The app's time, but not before the task or pod began: AWS takes nothing older. A beginning that lies ahead of the
    /// clock was read off a wrong one.
    fn effective_time(&self, now: Moment, at: Option<Moment>) -> Moment {
        let at = at.unwrap_or(now);
        match self.state.root.since {
            Some(since) if since <= now => at.max(since),
            Some(_) | None => at,
        }
    }

    fn join_own(
        &mut self,
        now: Moment,
        report: &Report,
        hour: Hour,
        at: Moment,
    ) -> Result<BucketId, Refusal> {
        let open = self
            .state
            .series
            .get(&report.dimension)
            .and_then(|series| series.open.get(&hour).copied());
        if let (Some(id), Amount::Key(key)) = (open, &report.amount)
            && self.state.open[&id].is_full_for(key)
        {
            return Err(Refusal::TooManyKeys(report.dimension.clone()));
        }
        let bucket = self.bucket_at(now, &report.dimension, hour, at);
        if at < self.state.open[&bucket].first_at {
            self.wake = None;
        }
        let newest = self.is_newest(now, report);
        self.record(Fact::Reported {
            bucket,
            at,
            amount: report.amount.clone(),
            newest,
            late: None,
        });
        Ok(bucket)
    }

    /// The hour has its record: only what exceeds it is owed, by the first hour that has none.
    fn join_late(
        &mut self,
        now: Moment,
        report: &Report,
        combine: Combine,
        hour: Hour,
        at: Moment,
    ) -> Result<BucketId, Refusal> {
        let sealed = self
            .state
            .series
            .get(&report.dimension)
            .and_then(|series| series.sealed.get(&hour));
        if let (Some((id, sealed)), Combine::Max | Combine::Distinct) = (sealed, combine) {
            if sealed.excess(combine, &report.amount).is_zero() {
                return Ok(*id);
            }
            if sealed.keys.len() >= DISTINCT_KEYS_MAX {
                return Err(Refusal::TooManyKeys(report.dimension.clone()));
            }
        }
        let bucket = self.heir(now, &report.dimension);
        let newest = self.is_newest(now, report);
        self.record(Fact::Reported {
            bucket,
            at,
            amount: report.amount.clone(),
            newest,
            late: Some(hour),
        });
        Ok(bucket)
    }

    /// A sample without a time of its own is the newest on arrival. One with an older time than the level's is not, unless
    /// the level's lies ahead of the clock, which was then wrong.
    fn is_newest(&self, now: Moment, report: &Report) -> bool {
        let level = self
            .state
            .series
            .get(&report.dimension)
            .and_then(|series| series.level.as_ref());
        match (report.at, level) {
            (Some(at), Some(level)) => at >= level.at || level.at > now,
            (None, _) | (_, None) => true,
        }
    }
}

/// Usage may be this share of the period ahead of the clock: five minutes of an hour.
const SKEW_DIVISOR: i64 = 12;
/// Ten times what AWS allows a product.
pub(super) const DIMENSIONS_MAX: usize = 256;
/// Some 40 MB of memory; far beyond the users or hosts that one pod serves in an hour.
pub(super) const DISTINCT_KEYS_MAX: usize = 1_000_000;
