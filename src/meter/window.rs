//! How far back AWS takes usage.
//!
//! | call | window | source |
//! |---|---|---|
//! | MeterUsage | six hours | API reference, MeterUsage |
//! | BatchMeterUsage | twenty-four hours; usage of a month until 06:00 UTC on the first of the next | API reference, BatchMeterUsage |

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::usage::{Moment, Period};

/// Which window applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// The task's or pod's own usage.
    Pod,
    /// Usage of a customer.
    Customer,
}

const POD_HOURS: i64 = 6;
const CUSTOMER_HOURS: i64 = 24;
/// A month is closed so long after it has ended.
const MONTH_GRACE_MS: i64 = 6 * 3_600_000;

impl Window {
    /// The last moment at which AWS takes a record of `timestamp`.
    pub(super) fn deadline(self, timestamp: Moment, period: Period) -> Moment {
        let hours = timestamp.plus_ms(period.as_millis() * self.hours());
        match self {
            Self::Pod => hours,
            Self::Customer => hours.min(month_close(timestamp)),
        }
    }

    /// The oldest timestamp that AWS takes at `now`.
    pub(super) fn earliest(self, now: Moment, period: Period) -> Moment {
        let hours = now.plus_ms(-period.as_millis() * self.hours());
        match self {
            Self::Pod => hours,
            Self::Customer => hours.max(open_since(now)),
        }
    }

    /// For people.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::Pod => "six hours",
            Self::Customer => "a day, or before its month was closed",
        }
    }

    fn hours(self) -> i64 {
        match self {
            Self::Pod => POD_HOURS,
            Self::Customer => CUSTOMER_HOURS,
        }
    }
}

/// When the month of `timestamp` is closed.
fn month_close(timestamp: Moment) -> Moment {
    let month = month_of(timestamp);
    month
        .checked_add(1.month())
        .map_or(Moment::from(Timestamp::MAX), |next| {
            start_of(next).plus_ms(MONTH_GRACE_MS)
        })
}

/// The beginning of the oldest month that is still open at `now`.
fn open_since(now: Moment) -> Moment {
    start_of(month_of(now.plus_ms(-MONTH_GRACE_MS)))
}

fn month_of(at: Moment) -> Date {
    TimeZone::UTC
        .to_datetime(at.to_timestamp())
        .date()
        .first_of_month()
}

fn start_of(date: Date) -> Moment {
    TimeZone::UTC
        .to_timestamp(date.at(0, 0, 0, 0))
        .map_or(Moment::from(Timestamp::MIN), Moment::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Moment {
        text.parse::<Timestamp>().unwrap().into()
    }

    #[test]
    fn a_month_closes_at_six_on_the_first_of_the_next() {
        for (timestamp, deadline) in [
            ("2026-03-31T23:59:59Z", "2026-04-01T06:00:00Z"),
            ("2026-03-31T10:00:00Z", "2026-04-01T06:00:00Z"),
            ("2026-03-31T05:00:00Z", "2026-04-01T05:00:00Z"),
            ("2026-04-01T00:00:00Z", "2026-04-02T00:00:00Z"),
            ("2026-12-31T22:00:00Z", "2027-01-01T06:00:00Z"),
        ] {
            assert_eq!(
                Window::Customer.deadline(at(timestamp), Period::HOUR),
                at(deadline),
                "{timestamp}"
            );
        }
        assert_eq!(
            Window::Pod.deadline(at("2026-03-31T23:00:00Z"), Period::HOUR),
            at("2026-04-01T05:00:00Z")
        );
    }

    #[test]
    fn what_is_taken_is_what_can_still_be_sent() {
        for (now, earliest) in [
            ("2026-04-01T05:59:59Z", "2026-03-31T05:59:59Z"),
            ("2026-04-01T06:00:00Z", "2026-04-01T00:00:00Z"),
            ("2026-04-01T23:00:00Z", "2026-04-01T00:00:00Z"),
            ("2026-04-02T12:00:00Z", "2026-04-01T12:00:00Z"),
            ("2027-01-01T07:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(
                Window::Customer.earliest(at(now), Period::HOUR),
                at(earliest),
                "{now}"
            );
        }
    }
}
