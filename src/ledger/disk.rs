//! The only way from the ledger to files: a seam that tests break at every write and every sync.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;

/// A directory of files.
pub trait Disk: Send + Sync + 'static {
    /// The names in it.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file, and makes an empty one where there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name; durable after [`Disk::sync`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; durable after [`Disk::sync`].
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes a directory inside, for files to be renamed into.
    fn make_dir(&self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync + 'static {
    /// How long it is, in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `out` from `offset` on, or fails.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts it, or lengthens it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes what was written, and the length, durable.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system, locked against other processes for as long as this lives.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    _lock: File,
}

/// Why a directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has it.
    #[error("another tollgate uses the ledger in {0}; give each its own TOLLGATE_STATE_DIR")]
    Locked(PathBuf),
    /// It can't be made, read or locked.
    #[error("the ledger's directory {path} can't be used")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RealDisk {
    /// Makes the directory (0700) where there is none, and locks it.
    pub fn lock(path: &Path) -> Result<Self, DiskError> {
        let fail = |source| DiskError::Io {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(fail)?;
        let lock = private_file().open(path.join(LOCK_NAME)).map_err(fail)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DiskError::Locked(path.to_owned())),
            Err(errno) => Err(fail(errno.into())),
        }
    }
}

impl Disk for RealDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = self
            .path
            .read_dir()?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(
            private_file().open(self.path.join(name))?,
        )))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn make_dir(&self, name: &str) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options
}

const LOCK_NAME: &str = "ledger.lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_gets_a_clear_error() {
        let path = std::env::temp_dir().join(format!("tollgate-lock-{}", std::process::id()));
        let first = RealDisk::lock(&path).unwrap();
        let error = RealDisk::lock(&path).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("another tollgate uses the ledger"),
            "{error}"
        );
        drop(first);
        assert!(RealDisk::lock(&path).is_ok());
        std::fs::remove_dir_all(&path).unwrap();
    }
}
