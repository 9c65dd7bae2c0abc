//! tollgate: the sidecar for paid containers on AWS Marketplace.
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`], [`command`] | arguments, and one file per command |
//! | [`config`] | typed configuration, all errors at once |
//! | [`app`] | `tollgate run`: wiring in reading order |
//! | [`entitlement`] | the gate: state machine, signature, grant, status file |
//! | [`marketplace`] | AWS, behind a trait |
//! | [`health`], [`listener`] | probes and status over HTTP |
//! | [`ledger`] | the durable side of the core: journal, checkpoints, group commit |
//! | [`meter`] | the pure core: reports in, facts and submissions out |
//! | [`usage`] | product codes, dimensions, quantities, tags, hours, ids |
//! | [`clock`], [`backoff`], [`shutdown`], [`telemetry`], [`atomic_file`], [`exit`] | one concern each |

pub mod app;
pub mod atomic_file;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod entitlement;
pub mod exit;
pub mod health;
pub mod ledger;
pub mod listener;
pub mod marketplace;
pub mod meter;
pub mod shutdown;
pub mod telemetry;
pub mod usage;
