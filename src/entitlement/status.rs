//! The status file: what the main container, `tollgate wait` and people read.
//!
//! Schema `tollgate.status/v1`. The file is replaced whole, so a reader that polls it sees a complete status at every
//! instant. Only the file carries nonce and signature; `/status` on the network leaves them out, since another pod
//! could replay them.

use std::fs;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic_file::{self, Durability};

/// The schema that this version writes and reads.
pub const SCHEMA: &str = "tollgate.status/v1";

/// The content of the status file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Where the registration stands.
    pub state: StateName,
    /// The exception or the kind of failure behind the state, such as `CustomerNotEntitledException`.
    pub reason: Option<String>,
    /// What a person can do about it.
    pub advice: Option<String>,
    /// The product it is about.
    pub product_code: String,
    /// `register-usage`, `meter-usage` or `none`.
    pub check: String,
    /// The key version of the signature.
    pub public_key_version: Option<u32>,
    /// The nonce inside the signature.
    pub nonce: Option<String>,
    /// AWS's JWT.
    pub signature: Option<String>,
    /// When AWS answered, RFC 3339.
    pub registered_at: Option<String>,
    /// The region that was asked; empty until it is known.
    pub region: String,
    /// ECS task ARN, pod UID or host name; empty until it is known.
    pub identity: String,
    /// `ecs`, `eks` or `unknown`.
    pub platform: String,
    /// When the key version was or will be replaced, RFC 3339; AWS says so once it has expired.
    pub public_key_rotation_at: Option<String>,
    /// The version of tollgate.
    pub version: String,
}

/// The states as they are spelled in files, probes and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateName {
    /// No answer yet.
    Pending,
    /// AWS said yes, and the proof verifies.
    Entitled,
    /// AWS could not be asked; the seller lets the software run for a while.
    Grace,
    /// AWS said no, or the proof does not verify.
    Denied,
    /// AWS could not be asked before the deadline.
    Unavailable,
}

impl StateName {
    /// Whether the main container may run.
    pub fn is_positive(self) -> bool {
        match self {
            Self::Entitled | Self::Grace => true,
            Self::Pending | Self::Denied | Self::Unavailable => false,
        }
    }

    /// The name in files, probes and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Entitled => "entitled",
            Self::Grace => "grace",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why a status file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// It is not there yet.
    #[error("there is no status file at {}", .0.display())]
    Absent(PathBuf),
    /// It can't be read.
    #[error("the status file {} can't be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("the status file {} is not of schema {SCHEMA}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Statuses have one to three kilobytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const MODE: u32 = 0o644;

impl Status {
    /// Replaces the file at `path`; its folder has to be there.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        // A first status is gone in a moment and needs no sync; one that decides something does.
        let durability = match self.state {
            StateName::Pending => Durability::Readers,
            StateName::Entitled | StateName::Grace | StateName::Denied | StateName::Unavailable => {
                Durability::Content
            }
        };
        atomic_file::replace(path, &text, MODE, durability)
    }

    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, StatusError> {
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => StatusError::Absent(path.to_owned()),
            _ => StatusError::Unreadable {
                path: path.to_owned(),
                source,
            },
        };
        let malformed = |problem: String| StatusError::Malformed {
            path: path.to_owned(),
            problem,
        };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(unreadable)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(malformed(format!(
                "it is longer than {FILE_BYTES_MAX} bytes"
            )));
        }
        let status: Self =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        if status.schema != SCHEMA {
            return Err(malformed(format!("it says {:?}", status.schema)));
        }
        Ok(status)
    }

    /// What `/status` shows: everything but nonce and signature.
    pub fn public(&self) -> serde_json::Value {
        let mut value = serde_json::to_value(self).expect("a status is plain data");
        if let Some(fields) = value.as_object_mut() {
            fields.remove("nonce");
            fields.remove("signature");
        }
        value
    }
}

/// Creates the folder of the status file where it is missing.
pub fn create_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => fs::create_dir_all(folder),
        _ => Ok(()),
    }
}
