//! The real binary, as an orchestrator and a buyer's operator meet it, against the simulator.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod answers;
#[allow(
    dead_code,
    reason = "shared with tests/saas, which uses the rest of it"
)]
mod aws;
mod bad_input;
mod callers;
mod endpoint;
mod ledgers;
mod places;
mod pod;
mod proofs;
mod records;
mod refusals;
mod registration;
mod shutdown;
mod signals;
#[path = "../auth/signer.rs"]
mod signer;
mod undecided;
mod volume;
