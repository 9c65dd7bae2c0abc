//! BatchMeterUsage and ResolveCustomer over the wire, rule by rule, at a time that the test chooses.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod deduplication;
mod faults;
mod refusals;
mod resolving;
mod seller;
mod subscriptions;
mod time;
