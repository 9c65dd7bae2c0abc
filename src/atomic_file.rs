//! Files that a reader or a crash never sees half-written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How much of a replacement has to survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// None: a reader sees the old content or the new, and that is all.
    Readers,
    /// The content: after a power cut there is the old file or the new, and it is whole.
    Content,
}

/// Replaces `path` by `content`: a temporary file in the same folder is written and renamed over `path`. `mode` are the
/// permission bits, whatever the umask says.
pub fn replace(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let temporary = temporary_beside(path);
    let written =
        write(&temporary, content, mode, durability).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The original error is the one to report; a left-over temporary file is overwritten next time.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write(path: &Path, content: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    match durability {
        Durability::Readers => Ok(()),
        Durability::Content => file.sync_all(),
    }
}

fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}
