//! `tollgate verify`: judges a status file offline.

use std::path::Path;

use crate::command::{complain, misconfigured};
use crate::config::ProofConfig;
use crate::config::settings::Sources;
use crate::entitlement::proof::{Judgement, Place, judge};
use crate::entitlement::status::Status;
use crate::exit::Exit;

/// Success when the status at `file`, or at the configured place, proves what the configuration demands.
pub fn verify(sources: &Sources, file: Option<&Path>) -> Exit {
    let config = match ProofConfig::read(sources, file) {
        Ok(config) => config,
        Err(errors) => return misconfigured(&errors),
    };
    let status = match Status::read(&config.status_file) {
        Ok(status) => status,
        Err(error) => {
            complain(&error);
            return Exit::Denied;
        }
    };
    match judge(&status, &config, &Place::elsewhere()) {
        Judgement::Positive => {
            println!(
                "valid: {} for product {}",
                status.state.as_str(),
                status.product_code
            );
            Exit::Success
        }
        Judgement::Invalid(error) => {
            complain(&format_args!("not valid: {error}"));
            Exit::Denied
        }
        Judgement::NotYet(why) | Judgement::Denied(why) => {
            complain(&format_args!("not valid: {}: {why}", status.state.as_str()));
            Exit::Denied
        }
    }
}
