//! The state of record, in redb: what the journal up to some block came to.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
    TableDefinition,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::disk::{Disk, DiskFile};
use crate::meter::{CustomerRow, Root, SeriesKey, State, Submission};
use crate::usage::{BucketId, CustomerNumber, Period, ProductCode, RecordIdSecret};

/// The database.
pub(super) struct Store {
    db: Database,
    file: Arc<dyn DiskFile>,
    unpublished: Arc<AtomicBool>,
}

/// What a checkpoint notes beside the state.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub(super) struct Meta {
    pub(super) format: u32,
    pub(super) product: ProductCode,
    pub(super) period: Period,
    pub(super) secret: RecordIdSecret,
    /// The last block of the journal that the state has in it.
    pub(super) applied_through: u64,
    /// The journal's first segment that is needed, for its keys at least, and its last one at the time.
    pub(super) segments: (u32, u32),
    pub(super) root: Root,
}

/// A database that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("the database is damaged: {0}")]
    Damaged(String),
    #[error("the database can't be read or written")]
    Io(#[source] io::Error),
}

impl Store {
    pub(super) fn open(disk: &dyn Disk, name: &str) -> Result<Self, StoreError> {
        Self::open_with(disk, name, false)
    }

    /// A database that nobody relies on before [`Store::publish`]: until then nothing is synced.
    pub(super) fn create(disk: &dyn Disk, name: &str) -> Result<Self, StoreError> {
        Self::open_with(disk, name, true)
    }

    /// Makes everything written so far durable, and every later commit as it happens.
    pub(super) fn publish(&self) -> io::Result<()> {
        self.unpublished.store(false, Ordering::Release);
        self.file.sync()
    }

    fn open_with(disk: &dyn Disk, name: &str, unpublished: bool) -> Result<Self, StoreError> {
        let unpublished = Arc::new(AtomicBool::new(unpublished));
        let file = disk.open(name).map_err(StoreError::Io)?;
        rewrite(&*file).map_err(StoreError::Io)?;
        let mut builder = Builder::new();
        builder
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true);
        let backend = Backend {
            file: file.clone(),
            unpublished: unpublished.clone(),
        };
        Ok(Self {
            db: builder.create_with_backend(backend)?,
            file,
            unpublished,
        })
    }

    /// The state, and what is noted beside it; `None` in a database that has had no checkpoint.
    pub(super) fn load(&self) -> Result<Option<(Meta, State)>, StoreError> {
        let read = self.db.begin_read()?;
        let meta = match read.open_table(META) {
            Ok(table) => table
                .get(())?
                .map(|row| decode::<Meta>("meta", row.value()))
                .transpose()?,
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let Some(meta) = meta else { return Ok(None) };
        let mut series = BTreeMap::new();
        for row in read.open_table(SERIES)?.iter()? {
            let (key, value) = row?;
            let key: SeriesKey = decode("series key", key.value())?;
            series.insert(key, decode("series", value.value())?);
        }
        let mut customers = BTreeMap::new();
        for row in read.open_table(CUSTOMERS)?.iter()? {
            let (number, value) = row?;
            let row: CustomerRow = decode("customer", value.value())?;
            customers.insert(CustomerNumber(number.value()), row);
        }
        let open = load_buckets(&read.open_table(OPEN)?)?;
        let unsettled = load_buckets(&read.open_table(UNSETTLED)?)?;
        let state = State::from_rows(meta.root.clone(), series, customers, open, unsettled);
        Ok(Some((meta, state)))
    }

    /// One transaction: every row that has changed since the last one.
    pub(super) fn checkpoint(&self, meta: &Meta, state: &State) -> Result<(), StoreError> {
        let write = self.db.begin_write()?;
        {
            write
                .open_table(META)?
                .insert((), encode(meta).as_slice())?;
            let mut series = write.open_table(SERIES)?;
            for key in &state.touched().series {
                if let Some(row) = state.series(key) {
                    series.insert(encode(key).as_slice(), encode(row).as_slice())?;
                }
            }
            let mut customers = write.open_table(CUSTOMERS)?;
            for number in &state.touched().customers {
                if let Some(row) = state.customer(*number) {
                    customers.insert(number.0, encode(row).as_slice())?;
                }
            }
            let mut open = write.open_table(OPEN)?;
            let mut unsettled = write.open_table(UNSETTLED)?;
            let mut history = write.open_table(HISTORY)?;
            for id in &state.touched().buckets {
                put(&mut open, *id, state.open().get(id))?;
                put(&mut unsettled, *id, state.unsettled().get(id))?;
                if let Some(finished) = state.finished().get(id) {
                    put(&mut history, *id, Some(finished))?;
                }
            }
            for _ in HISTORY_MAX..history.len()?.max(HISTORY_MAX) {
                history.pop_first()?;
            }
        }
        write.commit()?;
        Ok(())
    }

    /// A finished submission.
    pub(super) fn finished(&self, id: BucketId) -> Result<Option<Submission>, StoreError> {
        let read = self.db.begin_read()?;
        let row = read.open_table(HISTORY)?.get(id.0)?;
        row.map(|row| decode("history", row.value())).transpose()
    }

    /// Finished submissions before `before`, the latest first, until `visit` has had enough.
    pub(super) fn history(
        &self,
        before: BucketId,
        mut visit: impl FnMut(Submission) -> bool,
    ) -> Result<(), StoreError> {
        let read = self.db.begin_read()?;
        for row in read.open_table(HISTORY)?.range(..before.0)?.rev() {
            if !visit(decode("history", row?.1.value())?) {
                break;
            }
        }
        Ok(())
    }
}

/// Makes what can be read permanent. After a failed sync the page cache may show what the disk does not have, and no later
/// sync writes it; writing the same bytes again does.
fn rewrite(file: &dyn DiskFile) -> io::Result<()> {
    let len = file.size()?;
    let mut chunk = vec![0; REWRITE_BYTES];
    let mut at = 0;
    while at < len {
        let size = usize::try_from(len - at)
            .unwrap_or(REWRITE_BYTES)
            .min(REWRITE_BYTES);
        file.read_at(&mut chunk[..size], at)?;
        file.write_at(&chunk[..size], at)?;
        at += size as u64;
    }
    if len > 0 { file.sync() } else { Ok(()) }
}

type Rows<'txn> = redb::Table<'txn, u32, &'static [u8]>;

fn put<T: Serialize>(
    table: &mut Rows<'_>,
    id: BucketId,
    row: Option<&T>,
) -> Result<(), StoreError> {
    match row {
        Some(row) => table.insert(id.0, encode(row).as_slice())?,
        None => table.remove(id.0)?,
    };
    Ok(())
}

fn load_buckets<T: DeserializeOwned>(
    table: &impl ReadableTable<u32, &'static [u8]>,
) -> Result<BTreeMap<BucketId, T>, StoreError> {
    let mut rows = BTreeMap::new();
    for row in table.iter()? {
        let (id, value) = row?;
        rows.insert(BucketId(id.value()), decode("bucket", value.value())?);
    }
    Ok(rows)
}

fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    postcard::to_stdvec(row).expect("rows serialize into memory")
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StoreError> {
    postcard::from_bytes(bytes)
        .map_err(|error| StoreError::Damaged(format!("a {what} row: {error}")))
}

/// redb on the seam.
struct Backend {
    file: Arc<dyn DiskFile>,
    /// Syncs are left to [`Store::publish`].
    unpublished: Arc<AtomicBool>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.unpublished.load(Ordering::Acquire) {
            return Ok(());
        }
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(data, offset)
    }
}

/// Everything that is not the disk's own error is damage: this process makes no other mistakes with redb.
impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(source)
                if !matches!(
                    source.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Self::Io(source)
            }
            redb::Error::PreviousIo => Self::Io(io::Error::other("an earlier write failed")),
            other => Self::Damaged(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

const META: TableDefinition<'_, (), &[u8]> = TableDefinition::new("meta");
const SERIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("series");
const CUSTOMERS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("customers");
const OPEN: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("open");
const UNSETTLED: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("unsettled");
const HISTORY: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("history");
/// What a checkpoint touches is small; the page cache of the system has the rest.
const CACHE_BYTES: usize = 1024 * 1024;
const REWRITE_BYTES: usize = 256 * 1024;
/// Some four years of four dimensions; about 20 MB.
const HISTORY_MAX: u64 = 140_000;
