//! The bounded way from many tasks to the one thread that owns the ledger.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

/// Commands that wait for the owner, at most [`QUEUE_MAX`].
pub(super) struct Queue<T> {
    room: Semaphore,
    inner: Mutex<Inner<T>>,
    filled: Condvar,
}

struct Inner<T> {
    waiting: VecDeque<T>,
    owner_sleeps: bool,
    closed: bool,
}

/// Nobody takes commands any more.
#[derive(Debug)]
pub(super) struct Closed;

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            room: Semaphore::new(QUEUE_MAX),
            inner: Mutex::new(Inner {
                waiting: VecDeque::new(),
                owner_sleeps: false,
                closed: false,
            }),
            filled: Condvar::new(),
        }
    }

    /// Waits for room, then leaves the command to the owner.
    pub(super) async fn push(&self, command: T) -> Result<(), Closed> {
        self.room.acquire().await.map_err(|_| Closed)?.forget();
        let mut inner = self.lock();
        if inner.closed {
            return Err(Closed);
        }
        inner.waiting.push_back(command);
        let wake = std::mem::take(&mut inner.owner_sleeps);
        drop(inner);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes everything that waits, or what comes within `timeout`. True while more may come.
    pub(super) fn take(&self, into: &mut VecDeque<T>, timeout: Duration) -> bool {
        let mut inner = self.lock();
        if inner.waiting.is_empty() && !inner.closed {
            inner.owner_sleeps = true;
            let slept = self
                .filled
                .wait_timeout(inner, timeout)
                .unwrap_or_else(PoisonError::into_inner);
            inner = slept.0;
            inner.owner_sleeps = false;
        }
        let taken = inner.waiting.len();
        into.append(&mut inner.waiting);
        let open = !inner.closed;
        drop(inner);
        self.room.add_permits(taken);
        open
    }

    /// No more commands: those that wait are still taken.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beyond it callers wait: several batches, and a fraction of a second of work.
const QUEUE_MAX: usize = 4096;
