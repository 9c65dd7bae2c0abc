//! The durable side of the metering core.
//!
//! One thread owns everything. It takes commands off a bounded queue, lets the core decide, writes the facts of the whole
//! batch into the journal with one write and one sync, and only then answers and sends. redb keeps the state of record as of
//! some block of the journal; recovery applies the blocks after that one. docs/ledger.md argues each crash.
//!
//! ```text
//!   report(), resolve(), answered() ... ──queue──► owner ──► core: facts ──► journal, synced ──► replies, attempts
//!                                                   └── every 32 MiB, when idle, at the end ──► checkpoint in redb
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `owner` | the thread: batches, checkpoints |
//! | `queue` | the way to it |
//! | `journal`, `block`, `frame` | the journal, from files down to one transaction |
//! | `store` | redb |
//! | `keys` | callers' keys, for ten minutes |
//! | `recovery` | opening, damage |
//! | `disk` | files, as a seam for tests |
//! | `record`, `notice` | what people see |

mod block;
pub mod disk;
mod frame;
mod journal;
mod keys;
mod notice;
mod owner;
mod queue;
mod record;
mod recovery;
mod store;

pub use keys::{CallKey, KeyKind};
pub use record::{Filter, Record, RecordState, Summary};
pub use recovery::{Damage, Opened};

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::meter::{
    Answer, Call, Core, Gate, Refusal, Report, Resolution, ResolveError, Rules, Startup,
};
use crate::usage::{BucketId, Customer, Dimension, Identity, Moment, ProductCode, RecordId};
use disk::{Disk, DiskError, RealDisk};
use owner::{Command, Owner};
use queue::{Closed, Queue};
use store::StoreError;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// What a ledger needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// A ledger is of one product.
    pub product: ProductCode,
    /// Of this task or pod from now on.
    pub identity: Identity,
    /// How to meter.
    pub rules: Rules,
    /// How large a file of the journal becomes: [`Options::SEGMENT_BYTES`], or less in tests.
    pub segment_bytes: usize,
    /// For tests: the same tokens and jitter each time.
    pub seed: Option<u64>,
}

impl Options {
    /// A file of the journal: large enough that a new one is rare, small enough that one kept for its last keys is no burden.
    pub const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
}

/// The ledger; clones are handles to the same one. When the last is dropped it is checkpointed and let go.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

/// A report that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its id.
    pub id: RecordId,
    /// The same report had been taken before: this is its id.
    pub repeated: bool,
}

/// A report that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The caller can mend it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The key came before, with another report.
    #[error(
        "another report was made under this key within the last ten minutes; give each report its own"
    )]
    Conflict,
    /// The ledger can't be written.
    #[error("the ledger can't be written: {0}")]
    Failed(Arc<str>),
}

/// A ledger that can't be opened, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The directory can't be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The journal or the directory can't be read or written.
    #[error("the ledger can't be read or written")]
    Io(#[source] io::Error),
    /// The database can't be read or written.
    #[error("the ledger's database can't be read or written")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A later version made it.
    #[error(
        "the ledger has format {found}, and this version of tollgate knows {known}; run the version that made it"
    )]
    Format {
        /// The ledger's.
        found: u32,
        /// This version's.
        known: u32,
    },
    /// It belongs to another product.
    #[error("the ledger is of product {found}, and tollgate is configured for {configured}")]
    OtherProduct {
        /// The ledger's.
        found: ProductCode,
        /// The configured one.
        configured: ProductCode,
    },
    /// Its hours are of another length.
    #[error(
        "the ledger's hours have {found} ms, and TOLLGATE_METERING_PERIOD says {configured} ms"
    )]
    OtherPeriod {
        /// The ledger's.
        found: i64,
        /// The configured one.
        configured: i64,
    },
    /// A write failed before: nothing is acknowledged any more.
    #[error("the ledger can't be written: {0}")]
    Failed(Arc<str>),
}

/// A record that can't be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolutionError {
    /// Nothing to decide.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The ledger can't be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("failed", &self.is_failed())
            .finish_non_exhaustive()
    }
}

struct Shared {
    queue: Arc<Queue<Command>>,
    failed: watch::Receiver<Option<Arc<str>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Ledger {
    /// Opens the ledger in a directory, or makes one there. Blocks while it recovers.
    pub fn open(
        directory: &Path,
        options: &Options,
        clock: Clock,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Call>, Opened), LedgerError> {
        Self::open_on(Arc::new(RealDisk::lock(directory)?), options, clock)
    }

    /// Opens the ledger on a disk.
    ///
    /// The receiver gets each call once its start is durable; the core bounds how many are under way. What it comes to goes to
    /// [`Ledger::answered`], whatever it is.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: &Options,
        clock: Clock,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Call>, Opened), LedgerError> {
        let recovered = recovery::open(&disk, options, clock())?;
        let opened = recovered.opened.clone();
        let queue = Arc::new(Queue::new());
        let (calls, calls_to_make) = mpsc::unbounded_channel();
        let (failed_sender, failed) = watch::channel(None);
        let mut owner = Owner::new(recovered, clock, queue.clone(), calls, failed_sender);
        owner.begin(&options.identity)?;
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || {
                owner.run();
                drop(disk);
            })
            .map_err(LedgerError::Io)?;
        let shared = Shared {
            queue,
            failed,
            thread: Some(thread),
        };
        Ok((
            Self {
                shared: Arc::new(shared),
            },
            calls_to_make,
            opened,
        ))
    }

    /// Takes a report; when this returns a receipt, it is durable. With `key`, the same report is counted once.
    pub async fn report(
        &self,
        report: Report,
        key: Option<CallKey>,
    ) -> Result<Receipt, ReportError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Report { report, key, reply };
        let answered = self.ask(command, answer).await;
        answered.unwrap_or_else(|reason| Err(ReportError::Failed(reason)))
    }

    /// Takes reports of customers, all of them or none; when this returns their ids, they are durable. One of a customer that is
    /// not subscribed has none, and was not taken. With `key`, the same call is counted once.
    pub async fn report_all(
        &self,
        reports: Vec<Report>,
        key: Option<CallKey>,
    ) -> Result<Vec<Option<RecordId>>, ReportError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::ReportAll {
            reports,
            key,
            reply,
        };
        let answered = self.ask(command, answer).await;
        answered.unwrap_or_else(|reason| Err(ReportError::Failed(reason)))
    }

    /// `ResolveCustomer` has named a customer; see [`Core::resolved`].
    pub async fn resolved(
        &self,
        name: Customer,
        account: Option<String>,
    ) -> Result<(), LedgerError> {
        self.call(move |owner| {
            owner.decide(|core, now| core.resolved(now, &name, account.as_deref()))
        })
        .await
    }

    /// The record that a report is in; `None` for an id that is not this ledger's, or of a record long forgotten.
    pub async fn lookup(&self, id: RecordId) -> Result<Option<Record>, LedgerError> {
        self.call(move |owner| owner.look_up(id)).await?
    }

    /// A record by its number.
    pub async fn record(&self, id: BucketId) -> Result<Option<Record>, LedgerError> {
        self.call(move |owner| owner.record(id)).await?
    }

    /// The latest records that a filter takes, oldest first.
    pub async fn records(&self, filter: Filter) -> Result<Vec<Record>, LedgerError> {
        self.call(move |owner| owner.records(&filter)).await?
    }

    /// The ledger in figures.
    pub async fn summary(&self) -> Result<Summary, LedgerError> {
        self.call(|owner| owner.summary()).await
    }

    /// What the attempts of a call came to.
    pub async fn answered(&self, answers: Vec<(BucketId, u32, Answer)>) -> Result<(), LedgerError> {
        self.call(move |owner| owner.decide(|core, now| core.answered_all(now, answers)))
            .await
    }

    /// A person decides a record in doubt.
    pub async fn resolve(
        &self,
        bucket: BucketId,
        resolution: Resolution,
    ) -> Result<(), ResolutionError> {
        let resolved = self.call(move |owner| {
            let now = owner.now();
            let decided = owner.core().resolve(now, bucket, resolution);
            let decided = decided.map(|decision| owner.take(decision, None));
            match decided {
                Err(ResolveError::Unknown(_)) => owner.refuse_resolution(bucket),
                other => Ok(other?),
            }
        });
        resolved.await?
    }

    /// The entitlement decision. [`Gate::Pending`] changes nothing.
    pub async fn gate(&self, gate: Gate) -> Result<(), LedgerError> {
        self.call(move |owner| match gate {
            Gate::Pending => {}
            Gate::Open => owner.decide(Core::open_gate),
            Gate::Denied => owner.decide(Core::deny_gate),
        })
        .await
    }

    /// Makes the start-up record of a custom-metered product, once per identity.
    pub async fn startup(&self, dimension: Dimension) -> Result<Startup, LedgerError> {
        self.call(move |owner| owner.decide(|core, now| core.startup(now, &dimension)))
            .await
    }

    /// Seals every hour that has begun and makes every submission due; reports are still taken, for later hours.
    pub async fn drain(&self) -> Result<(), LedgerError> {
        self.call(|owner| owner.decide(Core::drain)).await
    }

    /// Writes the state of record now.
    pub async fn checkpoint(&self) -> Result<(), LedgerError> {
        self.call(Owner::checkpoint_next).await
    }

    /// Whether a write has failed: nothing is acknowledged any more.
    pub fn is_failed(&self) -> bool {
        self.shared.failed.borrow().is_some()
    }

    /// Tells when a write fails, and why.
    pub fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.shared.failed.clone()
    }

    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Owner) -> T + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (sender, answer) = oneshot::channel();
        let command = Command::Call(Box::new(move |owner| {
            let value = call(owner);
            Box::new(move |durable: Result<(), &Arc<str>>| {
                if durable.is_ok() {
                    let _ = sender.send(value);
                }
            })
        }));
        self.ask(command, answer).await.map_err(LedgerError::Failed)
    }

    /// Gives a command to the owner and waits for its answer, or for the reason why none will come.
    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, Arc<str>> {
        let pushed = self.shared.queue.push(command).await;
        pushed.map_err(|Closed| self.reason())?;
        answer.await.map_err(|_| self.reason())
    }

    fn reason(&self) -> Arc<str> {
        self.shared
            .failed
            .borrow()
            .clone()
            .unwrap_or_else(|| "it is closed".into())
    }
}

/// Waits for the last checkpoint.
impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

/// Far more than the owner needs.
const THREAD_STACK_BYTES: usize = 512 * 1024;
