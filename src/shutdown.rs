//! Signals: the only module that sees them.
//!
//! | signal | first | second |
//! |---|---|---|
//! | SIGTERM, SIGINT | drain, then exit 0 | exit at once |
//! | SIGHUP | read public keys and client keys again | the same |
//!
//! Handlers are installed explicitly, so they work for PID 1 too, which the kernel gives no default action.

use std::fmt;

use futures_util::StreamExt as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio::sync::watch;

/// The process's signals, caught from the moment this exists.
pub struct SignalStream {
    signals: Signals,
}

/// Tells when to drain. Every part that has something to finish holds one.
#[derive(Clone, Debug)]
pub struct Drain {
    begun: watch::Receiver<bool>,
}

/// Begins the drain.
#[derive(Clone, Debug)]
pub struct DrainTrigger {
    begun: watch::Sender<bool>,
}

/// A drain and its trigger.
pub fn drain() -> (DrainTrigger, Drain) {
    let (sender, receiver) = watch::channel(false);
    (DrainTrigger { begun: sender }, Drain { begun: receiver })
}

impl DrainTrigger {
    /// Tells every [`Drain`].
    pub fn begin(&self) {
        self.begun.send_replace(true);
    }
}

impl Drain {
    /// Whether the drain has begun.
    pub fn has_begun(&self) -> bool {
        *self.begun.borrow()
    }

    /// Resolves when the drain begins.
    pub async fn begun(&mut self) {
        // A trigger that is gone can't begin anything: then this never resolves.
        if self.begun.wait_for(|begun| *begun).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for SignalStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignalStream")
    }
}

impl SignalStream {
    /// Catches SIGTERM, SIGINT and SIGHUP from now on. Needs a running tokio runtime.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            signals: Signals::new([SIGTERM, SIGINT, SIGHUP])?,
        })
    }

    /// Begins the drain on the first SIGTERM or SIGINT, ends the process on the second, and calls `reload` on SIGHUP.
    pub async fn serve(mut self, trigger: DrainTrigger, mut reload: impl FnMut()) {
        let mut draining = false;
        while let Some(signal) = self.signals.next().await {
            if signal == SIGHUP {
                reload();
                continue;
            }
            if draining {
                tracing::warn!(signal, "second signal; ending at once");
                std::process::exit(128 + signal);
            }
            tracing::info!(signal, "draining");
            draining = true;
            trigger.begin();
        }
    }
}
