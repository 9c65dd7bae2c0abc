//! The one place that reads a clock.
//!
//! Two kinds of time, never mixed: [`now`] is the wall clock, for what people and AWS read; [`Uptime`] is
//! monotonic and starts with the process, for deadlines and pauses.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// The wall clock.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Monotonic time since the process started.
#[derive(Clone, Copy, Debug)]
pub struct Uptime {
    start: Instant,
}

impl Uptime {
    /// Starts counting.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// How long the process has been up.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Sleeps until the process has been up for `at`.
    pub async fn sleep_until(&self, at: Duration) {
        tokio::time::sleep_until(self.start + at).await;
    }
}

/// `timestamp` as RFC 3339 in UTC, to the second: what status files and logs carry.
pub fn rfc3339(timestamp: Timestamp) -> String {
    timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
