//! tollgate: the sidecar for paid containers on AWS Marketplace.
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`], [`command`] | arguments, and one file per command |
//! | [`config`] | typed configuration, all errors at once |
//! | [`app`] | `tollgate run`: wiring in reading order |
//! | [`entitlement`] | the gate: state machine, signature, grant, status file |
//! | [`marketplace`] | AWS, behind a trait |
//! | [`api`], [`wire`] | the metering endpoint, and AWS JSON 1.1 |
//! | [`auth`] | callers of the metering endpoint, proven by SigV4 |
//! | [`ledger`] | the durable side of the core |
//! | [`submitter`] | from the ledger to AWS and back |
//! | [`control`] | `tollgate usage` and the running sidecar |
//! | [`health`], [`metrics`], [`listener`] | probes and status over HTTP |
//! | [`meter`] | the pure core: reports in, facts and submissions out |
//! | [`usage`] | product codes, dimensions, quantities, tags, hours, ids |
//! | [`clock`], [`backoff`], [`descriptors`], [`shutdown`], [`telemetry`], [`atomic_file`], [`termination`], [`exit`] | one concern each |

pub mod api;
pub mod app;
pub mod atomic_file;
pub mod auth;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod control;
pub mod descriptors;
pub mod entitlement;
pub mod exit;
pub mod health;
pub mod ledger;
pub mod listener;
pub mod marketplace;
pub mod meter;
pub mod metrics;
pub mod shutdown;
pub mod submitter;
pub mod telemetry;
pub mod termination;
pub mod usage;
pub mod wire;
