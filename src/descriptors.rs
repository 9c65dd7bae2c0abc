//! File descriptors: as many as the process may have, and how many of them callers' connections may take.
//!
//! A connection that can't be accepted waits. A file of the ledger that can't be opened ends the process. So connections get
//! what the rest does not need.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Ledger, calls to AWS, probes, control socket, and what a process has anyway.
const RESERVED: u64 = 200;
const CONNECTIONS_MIN: usize = 16;

/// Raises the soft limit, often 1024, to the hard one.
pub fn claim() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// How many connections there may be at once.
pub fn for_connections() -> usize {
    match getrlimit(Resource::Nofile).current {
        None => usize::MAX,
        Some(limit) => usize::try_from(limit.saturating_sub(RESERVED))
            .unwrap_or(usize::MAX)
            .max(CONNECTIONS_MIN),
    }
}
