//! The grant: a positive answer kept over restarts, so that AWS is asked once per task or pod and not once per process.
//!
//! A grant read back counts only if it is for the same check, product and identity, its nonce commits to that identity (or is
//! the main container's present one), and its signature still verifies with a key that is configured. Anything else is as if there were none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::nonce::{self, Binding, Nonce};
use super::platform::Host;
use super::signature::{self, Expected};
use crate::atomic_file::{self, Durability};
use crate::config::EntitlementCheck;
use crate::usage::ProductCode;

/// What AWS granted, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    schema: String,
    /// The name of the check that was passed.
    pub check: String,
    /// The product.
    pub product_code: String,
    /// The task, pod or host.
    pub identity: String,
    /// The region that answered.
    pub region: String,
    /// When AWS answered.
    pub registered_at: Timestamp,
    /// The signed proof; products that are checked by MeterUsage have none.
    pub proof: Option<Proof>,
}

/// AWS's signed answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The key version that was asked for.
    pub public_key_version: u32,
    /// The nonce sent.
    pub nonce: String,
    /// The JWT.
    pub signature: String,
    /// When the key version was replaced, if AWS said so.
    pub public_key_rotation_at: Option<Timestamp>,
}

/// What the file holds: the grant, and a digest that shows chance damage and careless edits. It is no protection against
/// somebody who can write the file; the signature and the nonce are.
#[derive(Serialize, Deserialize)]
struct Kept {
    grant: Grant,
    sha256: String,
}

/// What is asked for at this start; a grant has to fit it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The product.
    pub product_code: &'a ProductCode,
    /// The check, with its keys.
    pub check: &'a EntitlementCheck,
    /// The main container's nonce.
    pub nonce: Option<&'a Nonce>,
    /// Where this process runs.
    pub host: &'a Host,
}

/// Why a kept grant does not count.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is not what was written.
    #[error("it is damaged or was edited")]
    Damaged,
    /// It is for something else.
    #[error("its {0} is another one")]
    Other(&'static str),
    /// Its proof does not verify.
    #[error(transparent)]
    Unverified(#[from] signature::SignatureError),
}

const SCHEMA: &str = "tollgate.grant/v1";
const FILE_NAME: &str = "grant.json";
const FILE_BYTES_MAX: u64 = 64 * 1024;
const MODE: u32 = 0o600;

impl Grant {
    /// A grant that AWS has just given.
    pub fn new(wanted: Wanted<'_>, registered_at: Timestamp, proof: Option<Proof>) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            check: wanted.check.name().to_owned(),
            product_code: wanted.product_code.to_string(),
            identity: wanted.host.identity.clone(),
            region: wanted.host.region.clone(),
            registered_at,
            proof,
        }
    }

    /// Keeps the grant in `state_dir`. A power cut may bring the one from before back, which costs one more call.
    pub fn keep(&self, state_dir: &Path) -> io::Result<()> {
        let kept = Kept {
            grant: self.clone(),
            sha256: self.digest(),
        };
        let text = serde_json::to_vec_pretty(&kept)?;
        atomic_file::replace(&path(state_dir), &text, MODE, Durability::Content)
    }

    /// The grant kept in `state_dir`; `None` when there is none.
    pub fn kept(state_dir: &Path, wanted: Wanted<'_>) -> Result<Option<Self>, GrantError> {
        let path = path(state_dir);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Err(GrantError::Damaged),
            Ok(_) => {}
        }
        let kept: Kept =
            serde_json::from_slice(&fs::read(&path)?).map_err(|_| GrantError::Damaged)?;
        if kept.grant.schema != SCHEMA || kept.sha256 != kept.grant.digest() {
            return Err(GrantError::Damaged);
        }
        kept.grant.check_fits(wanted)?;
        Ok(Some(kept.grant))
    }

    fn check_fits(&self, wanted: Wanted<'_>) -> Result<(), GrantError> {
        if self.check != wanted.check.name() {
            return Err(GrantError::Other("entitlement check"));
        }
        if self.product_code != wanted.product_code.as_str() {
            return Err(GrantError::Other("product code"));
        }
        if self.identity != wanted.host.identity {
            return Err(GrantError::Other("identity"));
        }
        let EntitlementCheck::RegisterUsage { keys, .. } = wanted.check else {
            return Ok(());
        };
        let proof = self.proof.as_ref().ok_or(GrantError::Damaged)?;
        match (
            wanted.nonce,
            nonce::binding(&proof.nonce, wanted.product_code, &self.identity),
        ) {
            (Some(nonce), _) if nonce.as_str() == proof.nonce => {}
            (Some(_), _) => return Err(GrantError::Other("nonce")),
            (None, Binding::Bound) => {}
            (None, Binding::Other | Binding::Unbound) => return Err(GrantError::Other("identity")),
        }
        let expected = Expected {
            product_code: wanted.product_code,
            key_version: proof.public_key_version,
            nonce: Some(&proof.nonce),
        };
        Ok(signature::verify(&proof.signature, keys, expected)?)
    }

    fn digest(&self) -> String {
        use std::fmt::Write as _;
        let text = serde_json::to_vec(self).expect("a grant is plain data");
        Sha256::digest(text)
            .iter()
            .fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            })
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}
