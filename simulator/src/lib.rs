//! The AWS Marketplace Metering simulator.
