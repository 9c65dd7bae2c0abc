//! `tollgate wait`: the main container's entry point. It holds until the proof verifies, then becomes the main program,
//! so that exit code and signals are the program's own.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command::{complain, misconfigured};
use crate::config::ProofConfig;
use crate::config::settings::Sources;
use crate::entitlement::proof::{Judgement, Place, judge};
use crate::entitlement::status::{Status, StatusError};
use crate::exit::Exit;

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Waits up to `timeout`, then runs `main` in this process's place; without `main` it only says how the waiting ended.
pub fn wait(sources: &Sources, timeout: Duration, main: &[OsString]) -> Exit {
    let config = match ProofConfig::read(sources, None) {
        Ok(config) => config,
        Err(errors) => return misconfigured(&errors),
    };
    match wait_until_positive(&config, sources, timeout) {
        Exit::Success => become_main(main),
        exit => exit,
    }
}

fn wait_until_positive(config: &ProofConfig, sources: &Sources, timeout: Duration) -> Exit {
    let place = match place(sources) {
        Ok(place) => place,
        Err(error) => {
            complain(&format_args!("can't start: {error}"));
            return Exit::Internal;
        }
    };
    let started = Instant::now();
    loop {
        let why = match Status::read(&config.status_file) {
            Ok(status) => match judge(&status, config, &place) {
                Judgement::Positive => return Exit::Success,
                Judgement::NotYet(why) => why,
                Judgement::Denied(why) => {
                    complain(&format_args!("denied: {why}"));
                    return Exit::Denied;
                }
                Judgement::Invalid(error) => {
                    complain(&format_args!("the proof is not valid: {error}"));
                    return Exit::Denied;
                }
            },
            Err(error @ (StatusError::Absent(_) | StatusError::Unreadable { .. })) => {
                error.to_string()
            }
            Err(error @ StatusError::Malformed { .. }) => {
                complain(&error);
                return Exit::Denied;
            }
        };
        if started.elapsed() >= timeout {
            complain(&format_args!("gave up after {timeout:?}: {why}"));
            return Exit::Unavailable;
        }
        std::thread::sleep(POLL_INTERVAL.min(timeout.saturating_sub(started.elapsed())));
    }
}

fn place(sources: &Sources) -> io::Result<Place> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(Place::here(&sources.environment)))
}

fn become_main(main: &[OsString]) -> Exit {
    let Some((program, arguments)) = main.split_first() else {
        return Exit::Success;
    };
    let error = Command::new(program).args(arguments).exec();
    complain(&format_args!("can't run {}: {error}", program.display()));
    Exit::Configuration
}
