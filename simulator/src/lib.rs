//! The AWS Marketplace Metering Service on loopback, with what surrounds it in ECS, EKS and EC2.
//!
//! It speaks the real wire protocol, checks the callers' signatures (SigV4), answers RegisterUsage with real PS256
//! signatures, keeps the hour rules of MeterUsage and BatchMeterUsage, and refuses what it does not model. It shares no code with the sidecar.
//!
//! | module | what lives there |
//! |---|---|
//! | [`config`] | the TOML file |
//! | [`model`] | operations, members, limits and errors as data: validation and `/simulator/model` read the same tables |
//! | [`sigv4`] | who calls, and whether the signature is right |
//! | [`world`] | all state, behind one lock |
//! | `register`, [`meter`], [`batch`], [`customers`] | the operations |
//! | `record` | the rules that MeterUsage and BatchMeterUsage share |
//! | [`token`] | the signed answers, and every way to forge one |
//! | [`fault`] | what goes wrong on purpose |
//! | `surroundings` | ECS agent, ECS credentials, STS, IMDSv2 |
//! | `server`, `admin` | the listener's route tables |

pub mod batch;
pub mod config;
pub mod customers;
pub mod fault;
pub mod meter;
pub mod model;
pub mod quantity;
pub mod sigv4;
pub mod token;
pub mod world;

mod admin;
mod record;
mod register;
mod server;
mod surroundings;
mod wire;

pub use config::Config;
pub use server::{Simulator, StartError};
