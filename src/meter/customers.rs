//! The customers that the ledger has heard of: their numbers, how they were named, whether AWS calls them subscribed.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::hour_set::HourSet;
use crate::usage::{Customer, CustomerNumber, Hour, Moment, Way};

/// What is known of a customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerRow {
    pub(super) customer: Customer,
    /// The account behind a `CustomerIdentifier`, once `ResolveCustomer` has said so.
    pub(super) account: Option<Box<str>>,
    /// The hours that usage was reported for, as far back as AWS takes any.
    pub(super) metered: HourSet,
    /// When AWS last said that the customer is not subscribed; none since it took a record.
    pub(super) unsubscribed_at: Option<Moment>,
}

/// Every customer by number, and what leads to the number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Customers {
    rows: BTreeMap<CustomerNumber, CustomerRow>,
    numbers: HashMap<Customer, CustomerNumber>,
    /// By account: its licenses, the account by itself, identifiers that are known to be its.
    of_account: HashMap<Box<str>, Vec<CustomerNumber>>,
}

impl CustomerRow {
    /// Who it is.
    pub fn customer(&self) -> &Customer {
        &self.customer
    }

    /// When AWS last said that the customer is not subscribed; none since it took a record.
    pub fn unsubscribed_at(&self) -> Option<Moment> {
        self.unsubscribed_at
    }

    pub(super) fn new(customer: Customer) -> Self {
        Self {
            customer,
            account: None,
            metered: HourSet::default(),
            unsubscribed_at: None,
        }
    }

    fn account(&self) -> Option<&str> {
        self.customer.account().or(self.account.as_deref())
    }
}

impl Customers {
    pub(super) fn from_rows(rows: BTreeMap<CustomerNumber, CustomerRow>) -> Self {
        let mut customers = Self::default();
        for (number, row) in rows {
            customers.insert(number, row);
        }
        customers
    }

    pub(super) fn insert(&mut self, number: CustomerNumber, row: CustomerRow) {
        if let Some(account) = row.account() {
            self.of_account
                .entry(account.into())
                .or_default()
                .push(number);
        }
        self.numbers.insert(row.customer.clone(), number);
        self.rows.insert(number, row);
    }

    /// The account behind an identifier has become known.
    pub(super) fn link(&mut self, number: CustomerNumber, account: &str) {
        let Some(row) = self.rows.get_mut(&number) else {
            return;
        };
        if row.account().is_none() {
            row.account = Some(account.into());
            self.of_account
                .entry(account.into())
                .or_default()
                .push(number);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn number_of(&self, customer: &Customer) -> Option<CustomerNumber> {
        self.numbers.get(customer).copied()
    }

    pub(super) fn get(&self, number: CustomerNumber) -> Option<&CustomerRow> {
        self.rows.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: CustomerNumber) -> Option<&mut CustomerRow> {
        self.rows.get_mut(&number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (CustomerNumber, &CustomerRow)> {
        self.rows.iter().map(|(number, row)| (*number, row))
    }

    /// The account that the customer belongs to, as far as it is known.
    pub(super) fn account_of<'a>(&'a self, customer: &'a Customer) -> Option<&'a str> {
        customer.account().or_else(|| {
            let row = self.rows.get(self.numbers.get(customer)?)?;
            row.account()
        })
    }

    /// In which other way usage of that hour was reported for the same buyer; none where this way was used in it, too: the
    /// two were found to be one buyer only afterwards.
    pub(super) fn metered_otherwise(&self, customer: &Customer, hour: Hour) -> Option<Way> {
        let mut ways = self.ways_of_hour(customer, hour);
        let other = ways.find(|way| *way != customer.way());
        other.filter(|_| !self.is_metered(customer, hour))
    }

    /// Whether usage of that hour was reported for the same buyer in the same way.
    pub(super) fn is_metered(&self, customer: &Customer, hour: Hour) -> bool {
        let mut ways = self.ways_of_hour(customer, hour);
        ways.any(|way| way == customer.way())
    }

    fn ways_of_hour<'a>(
        &'a self,
        customer: &'a Customer,
        hour: Hour,
    ) -> impl Iterator<Item = Way> + 'a {
        self.names_of(customer)
            .filter(move |row| row.metered.contains(hour))
            .map(|row| row.customer.way())
    }

    /// Whether the same buyer was named in another way after this customer was last metered.
    pub(super) fn is_superseded(&self, row: &CustomerRow) -> bool {
        self.names_of(&row.customer)
            .filter(|other| other.customer.way() != row.customer.way())
            .any(|other| other.metered.last() > row.metered.last())
    }

    /// Every name of the same buyer, as far as they are known to be one.
    fn names_of<'a>(&'a self, customer: &'a Customer) -> impl Iterator<Item = &'a CustomerRow> {
        let numbers = self
            .account_of(customer)
            .and_then(|account| self.of_account.get(account));
        numbers
            .into_iter()
            .flatten()
            .filter_map(|number| self.rows.get(number))
    }
}
