//! Moments, and the hours they fall into.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A point in time, to the millisecond: compact in the ledger, and finer than anything AWS looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(i64);

/// How long a metering hour is: one hour, or less where a development set-up shortens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Period(i64);

/// A metering hour, by its start. Hours begin at multiples of the [`Period`] since the epoch, as AWS's do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hour(i64);

impl Moment {
    /// So many milliseconds after the epoch.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The moment as a calendar timestamp; the ends of the calendar stand for what lies beyond them.
    pub fn to_timestamp(self) -> Timestamp {
        let end = if self.0 < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        };
        Timestamp::from_millisecond(self.0).unwrap_or(end)
    }

    /// The moment so many milliseconds later, or earlier where `ms` is negative.
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this.
    pub const fn ms_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Period {
    /// The real one.
    pub const HOUR: Self = Self(3_600_000);

    /// A period of so many milliseconds; `None` outside 1 ms ..= 1 h.
    pub const fn from_millis(ms: i64) -> Option<Self> {
        if ms >= 1 && ms <= Self::HOUR.0 {
            Some(Self(ms))
        } else {
            None
        }
    }

    /// Its length in milliseconds.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The hour that `moment` falls into.
    pub const fn hour_of(self, moment: Moment) -> Hour {
        Hour(moment.0 - moment.0.rem_euclid(self.0))
    }

    /// The hour that follows.
    pub const fn next(self, hour: Hour) -> Hour {
        Hour(hour.0.saturating_add(self.0))
    }

    /// The hour so many hours earlier.
    pub const fn back(self, hour: Hour, count: i64) -> Hour {
        Hour(hour.0.saturating_sub(self.0.saturating_mul(count)))
    }

    /// When the hour is over.
    pub const fn end(self, hour: Hour) -> Moment {
        Moment(hour.0.saturating_add(self.0))
    }

    /// A share of the period in milliseconds, at least one.
    pub const fn fraction_ms(self, divisor: i64) -> i64 {
        let ms = self.0 / divisor;
        if ms < 1 { 1 } else { ms }
    }
}

impl Hour {
    /// When the hour begins.
    pub const fn start(self) -> Moment {
        Moment(self.0)
    }
}

impl From<Timestamp> for Moment {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp.as_millisecond())
    }
}

impl From<Moment> for Timestamp {
    fn from(moment: Moment) -> Self {
        moment.to_timestamp()
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_timestamp().fmt(f)
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.start().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_begin_at_multiples_of_the_period() {
        let at: Timestamp = "2026-11-24T10:40:07.250Z".parse().unwrap();
        let hour = Period::HOUR.hour_of(at.into());
        assert_eq!(hour.to_string(), "2026-11-24T10:00:00Z");
        assert_eq!(Period::HOUR.next(hour).to_string(), "2026-11-24T11:00:00Z");
        assert_eq!(Period::HOUR.end(hour), Period::HOUR.next(hour).start());
    }

    #[test]
    fn hours_before_the_epoch_round_down_too() {
        assert_eq!(
            Period::HOUR
                .hour_of(Moment::from_millis(-1))
                .start()
                .as_millis(),
            -3_600_000
        );
    }
}
