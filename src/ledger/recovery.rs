//! Opening a ledger: the checkpoint, what the journal has beyond it, and what to do when either is damaged.

use std::collections::VecDeque;
use std::sync::Arc;

use super::disk::Disk;
use super::frame::{self, FrameError};
use super::journal::{self, Journal, JournalError};
use super::keys::Keys;
use super::store::{Meta, Store, StoreError};
use super::{LedgerError, Options};
use crate::meter::{Core, Decision, Illegal, State};
use crate::usage::{Moment, RecordIdSecret};

/// A ledger as it was left, or a new one.
pub(super) struct Recovered {
    pub(super) store: Store,
    pub(super) journal: Journal,
    pub(super) keys: Keys,
    pub(super) meta: Meta,
    pub(super) core: Core,
    pub(super) opened: Opened,
}

/// What was found on opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// There was no ledger.
    pub new: bool,
    /// Journal blocks beyond the checkpoint: more than none after a crash.
    pub replayed: u64,
    /// The ledger was damaged, and is kept aside.
    pub damaged: Option<Damage>,
}

/// A ledger that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The directory, inside the ledger's, where all of it is now.
    pub moved_to: String,
    /// What was wrong.
    pub why: String,
}

/// Why a ledger can't be recovered.
#[derive(Debug, thiserror::Error)]
enum RecoveryError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("a fact can't follow on the state: {0}")]
    Illegal(#[from] Illegal),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Missing(&'static str),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

pub(super) fn open(
    disk: &Arc<dyn Disk>,
    options: &Options,
    now: Moment,
) -> Result<Recovered, LedgerError> {
    match recover(disk, options, now) {
        Ok(Some(recovered)) => Ok(recovered),
        Ok(None) => create(disk, options, now, None),
        Err(error) => {
            let (prefix, why) = match &error {
                RecoveryError::Ledger(
                    other @ (LedgerError::OtherProduct { .. } | LedgerError::OtherPeriod { .. }),
                ) => (OTHER_PREFIX, other.to_string()),
                _ => match describe_damage(&error) {
                    Some(why) => (DAMAGED_PREFIX, why),
                    None => return Err(into_ledger_error(error)),
                },
            };
            let moved_to = set_aside(&**disk, prefix, now)?;
            create(disk, options, now, Some(Damage { moved_to, why }))
        }
    }
}

fn recover(
    disk: &Arc<dyn Disk>,
    options: &Options,
    now: Moment,
) -> Result<Option<Recovered>, RecoveryError> {
    let names = disk.list().map_err(LedgerError::Io)?;
    if names
        .iter()
        .any(|name| name == STORE_NAME || journal::is_segment(name))
    {
        // Names that an earlier process made, and could not sync, are made durable before anything relies on them.
        disk.sync().map_err(LedgerError::Io)?;
    }
    if !names.iter().any(|name| name == STORE_NAME) {
        let written = journal::has_blocks(&**disk, &names).map_err(LedgerError::Io)?;
        return if written {
            Err(RecoveryError::Missing(
                "there is a journal, and no database",
            ))
        } else {
            Ok(None)
        };
    }
    let store = Store::open(&**disk, STORE_NAME)?;
    let (meta, mut state) = store
        .load()?
        .ok_or(RecoveryError::Missing("the database is empty"))?;
    check_options(&meta, options)?;
    let mut keys = Keys::new();
    let mut replayed = 0;
    let applied = meta.applied_through;
    let journal = Journal::recover(
        disk.clone(),
        options.segment_bytes,
        meta.segments.0..=meta.segments.1,
        |block| {
            let mut noted = VecDeque::new();
            if block.sequence > applied {
                replayed += 1;
                for frame in frame::read(block.payload) {
                    let (key, facts) = frame?;
                    noted.extend(key);
                    facts
                        .iter()
                        .try_for_each(|fact| state.apply(fact, options.rules.period))?;
                }
            } else {
                noted.extend(frame::keys(block.payload));
            }
            if let Some(first) = noted.front() {
                let at = first.id().moment();
                let hashes = noted.iter().map(|entry| entry.key.hash);
                keys.insert(block.place, at, hashes);
            }
            Ok::<(), RecoveryError>(())
        },
    )?;
    if journal.last_sequence() < applied || journal.oldest_sequence() > applied + 1 {
        return Err(RecoveryError::Missing(
            "the journal does not reach the database's checkpoint",
        ));
    }
    let core = Core::new(options.rules.clone(), state, random(options));
    let opened = Opened {
        replayed,
        ..Opened::default()
    };
    let _ = keys.needed_from(now);
    Ok(Some(Recovered {
        store,
        journal,
        keys,
        meta,
        core,
        opened,
    }))
}

/// A new ledger: complete under another name before it takes its own.
fn create(
    disk: &Arc<dyn Disk>,
    options: &Options,
    now: Moment,
    damaged: Option<Damage>,
) -> Result<Recovered, LedgerError> {
    let names = disk.list().map_err(LedgerError::Io)?;
    for name in names
        .iter()
        .filter(|name| journal::is_segment(name) || *name == STORE_NAME_NEW)
    {
        disk.remove(name).map_err(LedgerError::Io)?;
    }
    let mut core = Core::new(options.rules.clone(), State::default(), random(options));
    // Recorded with the first checkpoint, so the facts themselves are not kept.
    let Decision { .. } = core.open(now, &options.identity);
    if names.iter().any(|name| name.starts_with(DAMAGED_PREFIX)) {
        let Decision { .. } = core.distrust_hours(now);
    }
    let journal =
        Journal::create(disk.clone(), options.segment_bytes, 1, 1).map_err(LedgerError::Io)?;
    let mut secret = [0; 16];
    fastrand::Rng::new().fill(&mut secret);
    let meta = Meta {
        format: FORMAT,
        product: options.product.clone(),
        period: options.rules.period,
        secret: RecordIdSecret::new(secret),
        applied_through: 0,
        segments: (journal.active(), journal.active()),
        root: core.state().root().clone(),
    };
    let store = Store::create(&**disk, STORE_NAME_NEW).map_err(LedgerError::from)?;
    store
        .checkpoint(&meta, core.state())
        .map_err(LedgerError::from)?;
    store.publish().map_err(LedgerError::Io)?;
    core.state_mut().checkpointed();
    disk.rename(STORE_NAME_NEW, STORE_NAME)
        .map_err(LedgerError::Io)?;
    disk.sync().map_err(LedgerError::Io)?;
    let opened = Opened {
        new: true,
        replayed: 0,
        damaged,
    };
    Ok(Recovered {
        store,
        journal,
        keys: Keys::new(),
        meta,
        core,
        opened,
    })
}

/// Moves everything that makes a ledger into a directory of its own. Whatever part of it is done when the process ends, the
/// rest is damaged too, and follows at the next start.
fn set_aside(disk: &dyn Disk, prefix: &str, now: Moment) -> Result<String, LedgerError> {
    let names = disk.list().map_err(LedgerError::Io)?;
    let stem = format!("{prefix}{}", now.as_millis());
    let mut directory = stem.clone();
    for attempt in 1..DAMAGED_MAX {
        if !names.contains(&directory) {
            break;
        }
        directory = format!("{stem}-{attempt}");
    }
    disk.make_dir(&directory).map_err(LedgerError::Io)?;
    disk.sync().map_err(LedgerError::Io)?;
    for name in names
        .iter()
        .filter(|name| *name == STORE_NAME || journal::is_segment(name))
    {
        disk.rename(name, &format!("{directory}/{name}"))
            .map_err(LedgerError::Io)?;
    }
    disk.sync().map_err(LedgerError::Io)?;
    Ok(directory)
}

fn check_options(meta: &Meta, options: &Options) -> Result<(), LedgerError> {
    if meta.format != FORMAT {
        return Err(LedgerError::Format {
            found: meta.format,
            known: FORMAT,
        });
    }
    if meta.product != options.product {
        return Err(LedgerError::OtherProduct {
            found: meta.product.clone(),
            configured: options.product.clone(),
        });
    }
    if meta.period != options.rules.period {
        let (found, configured) = (meta.period.as_millis(), options.rules.period.as_millis());
        return Err(LedgerError::OtherPeriod { found, configured });
    }
    Ok(())
}

/// Why the ledger is damaged; `None` where it is only out of reach.
fn describe_damage(error: &RecoveryError) -> Option<String> {
    match error {
        RecoveryError::Store(StoreError::Io(_))
        | RecoveryError::Journal(JournalError::Io(_))
        | RecoveryError::Ledger(_) => None,
        RecoveryError::Store(StoreError::Damaged(_))
        | RecoveryError::Journal(JournalError::Damaged { .. })
        | RecoveryError::Illegal(_)
        | RecoveryError::Frame(_)
        | RecoveryError::Missing(_) => Some(error.to_string()),
    }
}

fn into_ledger_error(error: RecoveryError) -> LedgerError {
    match error {
        RecoveryError::Store(error) => error.into(),
        RecoveryError::Journal(JournalError::Io(error)) => LedgerError::Io(error),
        RecoveryError::Ledger(error) => error,
        RecoveryError::Journal(JournalError::Damaged { .. })
        | RecoveryError::Illegal(_)
        | RecoveryError::Frame(_)
        | RecoveryError::Missing(_) => LedgerError::Failed(error.to_string().into()),
    }
}

fn random(options: &Options) -> fastrand::Rng {
    options
        .seed
        .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed)
}

const FORMAT: u32 = 2;
const STORE_NAME: &str = "ledger.redb";
const STORE_NAME_NEW: &str = "ledger.new";
const DAMAGED_PREFIX: &str = "damaged-";
/// A ledger of another product, or with hours of another length.
const OTHER_PREFIX: &str = "other-";
/// Directories of one millisecond.
const DAMAGED_MAX: u32 = 1000;
