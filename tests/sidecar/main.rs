//! The real binary, as an orchestrator and a buyer's operator meet it, against the simulator.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod aws;
mod bad_input;
mod callers;
mod places;
mod pod;
mod proofs;
mod refusals;
mod registration;
mod signals;
#[path = "../auth/signer.rs"]
mod signer;
