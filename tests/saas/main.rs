//! The real binary as the one sidecar of a SaaS product: customers, licenses, registrations.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[allow(dead_code, reason = "shared with tests/sidecar, which uses all of it")]
#[path = "../sidecar/aws.rs"]
mod aws;
mod customers;
#[allow(dead_code, reason = "shared with tests/sidecar, which uses all of it")]
#[path = "../sidecar/pod.rs"]
mod pod;
mod proof;
mod records;
mod scene;
mod statuses;
