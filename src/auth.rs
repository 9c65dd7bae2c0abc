//! Client authentication: callers of the metering endpoint prove by AWS Signature Version 4 that they hold a key of
//! `TOLLGATE_CLIENT_AUTH_FILE`.
//!
//! | what is wrong | exception |
//! |---|---|
//! | no Authorization header, or a presigned URL | MissingAuthenticationTokenException |
//! | a header that can't be read, stands twice or is not signed | IncompleteSignatureException |
//! | an unknown access key id, a session token | UnrecognizedClientException |
//! | the scope, the time, the payload, the signature | InvalidSignatureException |
//!
//! Every rule and its reason: docs/client-authentication.md.

mod canonical;
mod claim;
mod keys;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use http::request::Parts;
use jiff::Timestamp;
use tokio::time::Instant;

pub use claim::Claim;
pub use keys::{FileProblem, Keys};

/// The keys in force, and where they are read again. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct ClientAuth {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    keys: RwLock<Arc<Keys>>,
    refused: AtomicU64,
    logged: Mutex<Option<Instant>>,
}

/// Who signed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller<'k> {
    /// The key that fits.
    pub access_key_id: &'k str,
}

/// Why a request does not count as signed; the text is for the caller, in AWS's words where AWS has some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Nothing is signed.
    #[error(
        "Missing Authentication Token: this endpoint takes requests signed with AWS Signature Version 4 in the Authorization header"
    )]
    Missing,
    /// Signed in the query string.
    #[error(
        "Missing Authentication Token: presigned URLs are not taken here; sign in the Authorization header"
    )]
    Presigned,
    /// What is there can't be judged.
    #[error("{0}")]
    Incomplete(String),
    /// No key of the file has this id.
    #[error(
        "The security token included in the request is invalid: no key of TOLLGATE_CLIENT_AUTH_FILE has the access key id {0:?}"
    )]
    UnknownKey(String),
    /// Temporary credentials.
    #[error(
        "The security token included in the request is invalid: the keys of TOLLGATE_CLIENT_AUTH_FILE have no session token; \
         unset AWS_SESSION_TOKEN beside AWS_ACCESS_KEY_ID"
    )]
    SessionToken,
    /// A credential scope of another service, date or kind.
    #[error("{0}")]
    Scope(String),
    /// Signed too long ago, or in the future.
    #[error("{0}")]
    Skewed(String),
    /// `x-amz-content-sha256` is not the body's hash.
    #[error("{0}")]
    Payload(&'static str),
    /// The signature is another one.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing \
         method: the secret differs from the one in TOLLGATE_CLIENT_AUTH_FILE, or something changed the request on its way"
    )]
    Mismatch,
}

/// Refusals are logged one by one up to this often; the next line says how many there were.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Checks one request, whole: pure but for the signing keys that `keys` remembers.
pub fn verify<'k>(
    parts: &Parts,
    body: &[u8],
    keys: &'k Keys,
    now: Timestamp,
) -> Result<Caller<'k>, AuthError> {
    Claim::read(parts, keys, now)?.verify(body)
}

impl AuthError {
    /// The exception that AWS answers in this case.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing | Self::Presigned => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::UnknownKey(_) | Self::SessionToken => "UnrecognizedClientException",
            Self::Scope(_) | Self::Skewed(_) | Self::Payload(_) | Self::Mismatch => {
                "InvalidSignatureException"
            }
        }
    }
}

impl ClientAuth {
    /// Reads the keys from `path`.
    pub fn load(path: &Path) -> Result<Self, FileProblem> {
        let keys = Keys::read(path)?;
        let shared = Shared {
            path: path.to_owned(),
            keys: RwLock::new(Arc::new(keys)),
            refused: AtomicU64::new(0),
            logged: Mutex::new(None),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Reads the file again; one that can't be used leaves the keys from before in force.
    pub fn reload(&self) -> Result<(), FileProblem> {
        let keys = Keys::read(&self.shared.path)?;
        *self
            .shared
            .keys
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(())
    }

    /// The keys in force now.
    pub fn keys(&self) -> Arc<Keys> {
        let keys = self
            .shared
            .keys
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }

    /// How many requests were refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Counts a refused request and, unless many come, logs why.
    pub fn note_refusal(&self, error: &AuthError) {
        let refused = self.shared.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let mut logged = self
            .shared
            .logged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if logged.is_some_and(|at| at.elapsed() < LOG_INTERVAL) {
            return;
        }
        *logged = Some(Instant::now());
        tracing::warn!(
            reason = error.name(),
            %error,
            refused,
            "a call of the metering endpoint was not signed by a known key"
        );
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth")
            .field("path", &self.shared.path)
            .field("keys", &self.keys())
            .finish_non_exhaustive()
    }
}
