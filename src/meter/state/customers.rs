//! What the facts about customers change.

use super::{Illegal, State};
use crate::meter::customers::CustomerRow;
use crate::usage::{BucketId, Customer, CustomerNumber, Hour, Period};

impl State {
    /// Remembers in which hours a customer was metered.
    pub(super) fn note_metered(&mut self, id: BucketId, late: Option<Hour>, period: Period) {
        let Some(bucket) = self.open.get(&id) else {
            return;
        };
        let Some(number) = bucket.key.customer else {
            return;
        };
        let hour = late.unwrap_or(bucket.hour);
        let Some(row) = self.customers.get_mut(number) else {
            return;
        };
        if !row.metered.contains(hour) {
            row.metered.insert(hour, period);
            row.metered
                .remove_before(period.back(hour, CUSTOMER_HOURS_KEPT), period);
            self.touched.customers.insert(number);
        }
    }

    pub(super) fn see(
        &mut self,
        number: CustomerNumber,
        customer: &Customer,
    ) -> Result<(), Illegal> {
        if number != self.next_customer() || self.customers.number_of(customer).is_some() {
            return Err(Illegal {
                bucket: BucketId(number.0),
                found: "no bucket but a customer, known or out of order,",
                fact: "a first naming",
            });
        }
        self.customers
            .insert(number, CustomerRow::new(customer.clone()));
        self.touched.customers.insert(number);
        Ok(())
    }

    pub(in crate::meter) fn next_customer(&self) -> CustomerNumber {
        CustomerNumber(u32::try_from(self.customers.len()).expect("customers are bounded"))
    }
}

/// Longer than AWS takes usage of customers back, so that late usage is compared with what its hour was sealed with.
pub(super) const CUSTOMER_HOURS_KEPT: i64 = 26;
