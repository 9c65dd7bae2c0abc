//! The termination message: a file in which Kubernetes lets a container say why it ended (`kubectl describe`).

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Writes to the file where it is there; elsewhere nothing is lost, the log says the same.
#[derive(Clone, Debug)]
pub struct Termination {
    path: PathBuf,
}

/// Kubernetes shows so much of it.
const BYTES_MAX: usize = 4096;

impl Default for Termination {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/dev/termination-log"),
        }
    }
}

impl Termination {
    /// Replaces the message.
    pub fn write(&self, message: &str) {
        let end = message.floor_char_boundary(BYTES_MAX);
        let written = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(&message.as_bytes()[..end]));
        if let Err(error) = written {
            tracing::debug!(%error, "no termination message");
        }
    }
}
