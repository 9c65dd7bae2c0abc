//! The part of AWS that bills pods, each by its identity.

use tollgate::meter::{Answer, Request};
use tollgate::usage::{Identity, Moment};

use crate::bill::Bill;

#[derive(Debug, Default)]
pub(crate) struct Aws {
    pub(crate) bill: Bill<Identity>,
}

impl Aws {
    pub(crate) fn receive(
        &mut self,
        now: Moment,
        identity: &Identity,
        request: &Request,
    ) -> Answer {
        let age = now.ms_since(request.timestamp);
        if !(-300_000..=6 * 3_600_000).contains(&age) {
            return Answer::OutOfBounds;
        }
        self.bill.take(identity.clone(), request)
    }
}
