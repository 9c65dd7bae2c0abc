//! Judging a status file from outside: what `tollgate wait` and `tollgate verify` do in the main container.
//!
//! The word of the file counts for nothing where a signature is expected: it has to verify with the reader's own keys, for
//! the reader's own product, and carry the reader's own nonce if there is one. A nonce that tollgate chose commits to
//! an identity, so a status file that was carried over from another task or pod does not pass.

use std::collections::BTreeMap;

use super::nonce::{self, Binding};
use super::platform::{self, Platform};
use super::signature::{self, Expected, SignatureError};
use super::status::{StateName, Status};
use crate::config::{EntitlementCheck, ProofConfig};

/// What a status file amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The main container may run.
    Positive,
    /// It may become positive.
    NotYet(String),
    /// AWS said no.
    Denied(String),
    /// It claims more than it proves.
    Invalid(ProofError),
}

/// Why a status file proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Another check than the one configured here.
    #[error("the status file speaks of the check {found:?}, here {expected:?} is configured")]
    OtherCheck {
        /// The file's.
        found: String,
        /// The configured one.
        expected: &'static str,
    },
    /// Another product than the one configured here.
    #[error("the status file is for product {0:?}, not for this one")]
    OtherProduct(String),
    /// Carried over from another task, pod or host.
    #[error("the status file belongs to {found:?}, this is {here:?}")]
    OtherIdentity {
        /// The file's.
        found: String,
        /// Where it was read.
        here: String,
    },
    /// Its nonce was made for another identity than the one it names.
    #[error("the status file's nonce was not made for the identity it names")]
    ForeignNonce,
    /// It says entitled and carries no proof.
    #[error("the status file carries no signature")]
    NoSignature,
    /// There is a nonce here, and the proof carries another.
    #[error("the status file's nonce is not the one in TOLLGATE_NONCE_FILE")]
    OtherNonce,
    /// The proof itself.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

/// What is known about the place where the proof is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    platform: Platform,
    /// What a sidecar beside this process may be called; the surest first.
    identities: Vec<String>,
    /// Whether a pod's UID is among them.
    knows_pod_uid: bool,
}

impl Place {
    /// This container, as far as its environment tells: a main container often lacks POD_UID, and then can't tell a sidecar's
    /// from another pod's.
    pub async fn here(environment: &BTreeMap<String, String>) -> Self {
        let platform = Platform::of(environment);
        let identities = match platform {
            Platform::Ecs => platform::task_arn(environment).await.ok().flatten(),
            Platform::Eks | Platform::Unknown => platform::local_identity(environment).ok(),
        };
        let knows_pod_uid = environment.contains_key(platform::POD_UID);
        let host_name = (platform == Platform::Eks && knows_pod_uid).then(platform::host_name);
        Self {
            platform,
            identities: identities.into_iter().chain(host_name).collect(),
            knows_pod_uid,
        }
    }

    /// A place about which nothing is known: `verify` on a file from elsewhere.
    pub fn elsewhere() -> Self {
        Self {
            platform: Platform::Unknown,
            identities: Vec::new(),
            knows_pod_uid: false,
        }
    }

    /// Identities can be told apart only where both sides take them from the same source.
    fn differs_from(&self, status: &Status) -> Option<String> {
        let here = self.identities.first()?;
        let comparable = status.platform == self.platform.as_str()
            && (self.platform != Platform::Eks || self.knows_pod_uid || !is_uuid(&status.identity));
        (comparable && !self.identities.contains(&status.identity)).then(|| here.clone())
    }
}

/// Kubernetes' UIDs are UUIDs, and no pod's host name is one.
fn is_uuid(text: &str) -> bool {
    text.parse::<uuid::Uuid>().is_ok()
}

/// Judges `status` as `config` demands.
pub fn judge(status: &Status, config: &ProofConfig, place: &Place) -> Judgement {
    let because = || {
        let reason = status.reason.as_deref().unwrap_or("no reason given");
        format!(
            "{reason}: {}",
            status.advice.as_deref().unwrap_or("no advice given")
        )
    };
    match status.state {
        StateName::Pending => Judgement::NotYet("AWS has not answered yet".to_owned()),
        StateName::Unavailable => {
            Judgement::NotYet(format!("AWS could not be asked: {}", because()))
        }
        StateName::Denied => Judgement::Denied(because()),
        StateName::Grace if config.grace_accepted => match check_place(status, config, place) {
            Ok(()) => Judgement::Positive,
            Err(error) => Judgement::Invalid(error),
        },
        StateName::Grace => Judgement::NotYet(
            "the sidecar grants grace, and TOLLGATE_ON_UNAVAILABLE does not allow it here"
                .to_owned(),
        ),
        StateName::Entitled => match check_entitled(status, config, place) {
            Ok(()) => Judgement::Positive,
            Err(error) => Judgement::Invalid(error),
        },
    }
}

fn check_entitled(status: &Status, config: &ProofConfig, place: &Place) -> Result<(), ProofError> {
    check_place(status, config, place)?;
    let keys = match &config.check {
        EntitlementCheck::RegisterUsage { keys, .. } => keys,
        EntitlementCheck::MeterUsage(_) | EntitlementCheck::None => return Ok(()),
    };
    let product_code = &config.product_code;
    let (Some(token), Some(nonce), Some(key_version)) =
        (&status.signature, &status.nonce, status.public_key_version)
    else {
        return Err(ProofError::NoSignature);
    };
    let expected = Expected {
        product_code,
        key_version,
        nonce: Some(nonce),
    };
    signature::verify(token, keys, expected)?;
    match &config.nonce {
        Some(wanted) if wanted.as_str() == nonce => Ok(()),
        Some(_) => Err(ProofError::OtherNonce),
        None => match nonce::binding(nonce, product_code, &status.identity) {
            Binding::Bound | Binding::Unbound => Ok(()),
            Binding::Other => Err(ProofError::ForeignNonce),
        },
    }
}

fn check_place(status: &Status, config: &ProofConfig, place: &Place) -> Result<(), ProofError> {
    let expected = config.check.name();
    if status.check != expected {
        return Err(ProofError::OtherCheck {
            found: status.check.clone(),
            expected,
        });
    }
    if status.product_code != config.product_code.as_str() {
        return Err(ProofError::OtherProduct(status.product_code.clone()));
    }
    match place.differs_from(status) {
        Some(here) => Err(ProofError::OtherIdentity {
            found: status.identity.clone(),
            here,
        }),
        None => Ok(()),
    }
}
