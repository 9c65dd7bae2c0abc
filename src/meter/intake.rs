//! Reports: which bucket each joins.

use serde::{Deserialize, Serialize};

use super::window::Window;
use super::{Combine, Core, Decision, Fact, Gate, Series, SeriesKey};
use crate::usage::{
    Allocations, BucketId, Customer, CustomerNumber, Dimension, Hour, Moment, Quantity, UsageKey,
    Way,
};

/// Usage that the app reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of whose; none where the task or pod itself is billed.
    pub customer: Option<Customer>,
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
    /// More customers than one ledger keeps apart.
    #[error(
        "there are {CUSTOMERS_MAX} customers already, the most that one sidecar meters; run another one for further customers"
    )]
    TooManyCustomers,
    /// AWS would bill the hour once for each name.
    #[error(
        "customer {customer} is named by {given} and was named by {before} in the same hour, and AWS would bill both; name a \
         customer in one way, and change over between two hours"
    )]
    NamedTwice {
        /// The customer.
        customer: Customer,
        /// How the report names it.
        given: Way,
        /// How an earlier one did.
        before: Way,
    },
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
    /// Outside the time that AWS takes, or ahead of the clock.
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

/// What became of one report of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in this bucket now.
    In(BucketId),
    /// AWS says that the customer is not subscribed: it was not taken.
    NotSubscribed,
}

impl Core {
    /// Takes a report and names the bucket where it is now.
    pub fn report(&mut self, now: Moment, report: &Report) -> Result<Decision<BucketId>, Refusal> {
        self.check(now, report)?;
        let bucket = self.join(now, report)?;
        Ok(self.decided(bucket))
    }

    /// Takes reports of customers, all of them or none; those of customers that are not subscribed are left out.
    pub fn report_all(
        &mut self,
        now: Moment,
        reports: &[Report],
    ) -> Result<Decision<Vec<Taken>>, Refusal> {
        for (index, report) in reports.iter().enumerate() {
            self.check(now, report)?;
            self.check_names(now, report, &reports[..index])?;
        }
        let mut taken = Vec::with_capacity(reports.len());
        for report in reports {
            taken.push(if self.is_unsubscribed(now, report) {
                Taken::NotSubscribed
            } else {
                Taken::In(self.join(now, report)?)
            });
        }
        Ok(self.decided(taken))
    }

    /// `ResolveCustomer` has named a customer: by `name`, and for an integration from before concurrent agreements with the
    /// account behind it. From now on it is known, and called subscribed.
    pub fn resolved(
        &mut self,
        now: Moment,
        name: &Customer,
        account: Option<&str>,
    ) -> Decision<()> {
        if let Ok(number) = self.customer_number(name) {
            let row = self.state.customers.get(number);
            let (unlinked, unsubscribed) = row.map_or((false, false), |row| {
                (row.account.is_none(), row.unsubscribed_at.is_some())
            });
            if let Some(account) = account.filter(|_| unlinked && name.account().is_none()) {
                self.record(Fact::CustomerLinked {
                    number,
                    account: account.into(),
                });
            }
            if unsubscribed {
                self.record(Fact::CustomerSubscription {
                    number,
                    unsubscribed_at: None,
                });
            }
        }
        self.step(now);
        self.decided(())
    }

    fn check(&self, now: Moment, report: &Report) -> Result<(), Refusal> {
        if self.gate == Gate::Denied {
            return Err(Refusal::NotEntitled);
        }
        let dimension = &report.dimension;
        let combine = self
            .combine_of(dimension)
            .ok_or_else(|| Refusal::UnknownDimension(dimension.clone()))?;
        if self.has_room_for(report).is_none() {
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
            return Ok(());
        };
        let window = if report.customer.is_some() {
            Window::Customer
        } else {
            Window::Pod
        };
        let earliest = window.earliest(now, self.rules.period);
        let latest = now.plus_ms(self.rules.period.fraction_ms(SKEW_DIVISOR));
        if at < earliest || at > latest {
            return Err(Refusal::TimestampOutOfBounds {
                at,
                earliest,
                latest,
            });
        }
        Ok(())
    }

    /// Without TOLLGATE_DIMENSIONS any name is a dimension, up to a bound; `None` is one too many.
    fn has_room_for(&self, report: &Report) -> Option<()> {
        if report.customer.is_some() || self.rules.dimensions.is_some() {
            return Some(());
        }
        let key = SeriesKey::pod(report.dimension.clone());
        let known = self.state.series.contains_key(&key);
        let pods = |(key, _): &(&SeriesKey, &Series)| key.customer.is_none();
        let room = known || self.state.series.iter().take_while(pods).count() < DIMENSIONS_MAX;
        room.then_some(())
    }

    /// Nobody may be named in two ways within an hour, neither by this call nor with what came before.
    fn check_names(&self, now: Moment, report: &Report, earlier: &[Report]) -> Result<(), Refusal> {
        let Some(customer) = &report.customer else {
            return Ok(());
        };
        let customers = &self.state.customers;
        if customers.number_of(customer).is_none()
            && customers.len() + earlier.len() >= CUSTOMERS_MAX
        {
            return Err(Refusal::TooManyCustomers);
        }
        let hour_of = |report: &Report| self.rules.period.hour_of(report.at.unwrap_or(now));
        let account = customers.account_of(customer);
        let within = earlier
            .iter()
            .filter(|other| hour_of(other) == hour_of(report))
            .filter_map(|other| other.customer.as_ref())
            .find(|other| {
                other.way() != customer.way()
                    && account.is_some()
                    && customers.account_of(other) == account
            })
            .map(Customer::way);
        let before = customers.metered_otherwise(customer, hour_of(report));
        let known = customers.is_metered(customer, hour_of(report));
        match before.or(within.filter(|_| !known)) {
            None => Ok(()),
            Some(before) => Err(Refusal::NamedTwice {
                customer: customer.clone(),
                given: customer.way(),
                before,
            }),
        }
    }

    /// For a while after AWS has said so; then usage is taken again, and its record asks AWS anew.
    fn is_unsubscribed(&self, now: Moment, report: &Report) -> bool {
        report
            .customer
            .as_ref()
            .and_then(|customer| self.state.customers.number_of(customer))
            .and_then(|number| self.state.customers.get(number)?.unsubscribed_at)
            .is_some_and(|at| now.ms_since(at) < self.rules.period.as_millis())
    }

    /// The customer's number, given now if need be.
    fn customer_number(&mut self, customer: &Customer) -> Result<CustomerNumber, Refusal> {
        if let Some(number) = self.state.customers.number_of(customer) {
            return Ok(number);
        }
        if self.state.customers.len() >= CUSTOMERS_MAX {
            return Err(Refusal::TooManyCustomers);
        }
        let number = self.state.next_customer();
        self.record(Fact::CustomerSeen {
            number,
            customer: customer.clone(),
        });
        self.begun = None;
        Ok(number)
    }

    /// Which bucket a report that was checked joins, after it has.
    fn join(&mut self, now: Moment, report: &Report) -> Result<BucketId, Refusal> {
        let customer = match &report.customer {
            Some(customer) => Some(self.customer_number(customer)?),
            None => None,
        };
        let key = SeriesKey {
            customer,
            dimension: report.dimension.clone(),
        };
        let at = self.effective_time(now, report);
        let hour = self.rules.period.hour_of(at);
        if self.is_sealed(&key, hour) {
            self.join_late(now, report, &key, hour, at)
        } else {
            self.join_own(now, report, &key, hour, at)
        }
    }

    /// The app's time; for a task's or pod's own usage not before it began: AWS takes nothing older. A beginning that lies
    /// ahead of the clock was read off a wrong one.
    fn effective_time(&self, now: Moment, report: &Report) -> Moment {
        let at = report.at.unwrap_or(now);
        match self.state.root.since {
            Some(since) if since <= now && report.customer.is_none() => at.max(since),
            Some(_) | None => at,
        }
    }

    fn join_own(
        &mut self,
        now: Moment,
        report: &Report,
        key: &SeriesKey,
        hour: Hour,
        at: Moment,
    ) -> Result<BucketId, Refusal> {
        let open = self
            .state
            .series
            .get(key)
            .and_then(|series| series.open_at(hour));
        if let (Some(id), Amount::Key(name)) = (open, &report.amount)
            && self.state.open[&id].is_full_for(name)
        {
            return Err(Refusal::TooManyKeys(report.dimension.clone()));
        }
        let bucket = match open {
            Some(id) => id,
            None => self.bucket_at(now, key, hour, at),
        };
        if at < self.state.open[&bucket].first_at {
            self.wake = None;
        }
        let newest = self.is_newest(now, report, key);
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
        key: &SeriesKey,
        hour: Hour,
        at: Moment,
    ) -> Result<BucketId, Refusal> {
        let combine = self.combine_of(&key.dimension).unwrap_or_default();
        let sealed = self
            .state
            .series
            .get(key)
            .and_then(|series| series.compared.get(&hour));
        if let (Some((id, sealed)), Combine::Max | Combine::Distinct) = (sealed, combine) {
            if sealed.excess(combine, &report.amount).is_zero() {
                return Ok(*id);
            }
            if sealed.keys.len() >= DISTINCT_KEYS_MAX {
                return Err(Refusal::TooManyKeys(report.dimension.clone()));
            }
        }
        let bucket = self.heir(now, key);
        let newest = self.is_newest(now, report, key);
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
    fn is_newest(&self, now: Moment, report: &Report, key: &SeriesKey) -> bool {
        let level = self
            .state
            .series
            .get(key)
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
/// Some 100 MB of memory with a few dimensions each.
const CUSTOMERS_MAX: usize = 100_000;
/// Some 40 MB of memory; far beyond the users or hosts that one pod serves in an hour.
pub(super) const DISTINCT_KEYS_MAX: usize = 1_000_000;
