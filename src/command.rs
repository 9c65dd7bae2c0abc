//! The commands: each reads its part of the configuration, does its work, and says how it ended.

mod healthcheck;
mod install;
mod run;
mod usage;
mod verify;
mod wait;

use std::fmt::Display;

pub use healthcheck::healthcheck;
pub use install::install;
pub use run::run;
pub use usage::{Format, resolve, usage};
pub use verify::verify;
pub use wait::wait;

use crate::config::ConfigErrors;
use crate::exit::Exit;

/// Reports every configuration error, a line each.
pub fn misconfigured(errors: &ConfigErrors) -> Exit {
    for error in &errors.0 {
        complain(error);
    }
    Exit::Configuration
}

/// One line for a person on stderr.
fn complain(problem: &dyn Display) {
    eprintln!("tollgate: {problem}");
}
