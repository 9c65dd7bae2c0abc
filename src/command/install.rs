//! `tollgate install PATH`: copies the running binary, for images that have no cp.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::atomic_file::{self, Durability};
use crate::command::complain;
use crate::exit::Exit;

const MODE: u32 = 0o755;

/// Copies this binary to `path`, or into it where it is a folder.
pub fn install(path: &Path) -> Exit {
    let target = target(path);
    match copy(&target) {
        Ok(()) => {
            println!("{}", target.display());
            Exit::Success
        }
        Err(error) => {
            complain(&format_args!(
                "can't copy this binary to {}: {error}",
                target.display()
            ));
            Exit::Configuration
        }
    }
}

fn target(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join("tollgate")
    } else {
        path.to_owned()
    }
}

fn copy(target: &Path) -> io::Result<()> {
    if let Some(folder) = target
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder)?;
    }
    let binary = fs::read("/proc/self/exe")?;
    atomic_file::replace(target, &binary, MODE, Durability::Content)
}
