//! One registration: RegisterUsage with the key versions at hand, and the verification of what it answers.

use super::grant::Proof;
use super::keys::PublicKeys;
use super::nonce::Nonce;
use super::signature::{self, Expected, SignatureError};
use crate::marketplace::{self, CallError, Marketplace, RegisterUsage, Registered, ServiceError};
use crate::usage::ProductCode;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The call did not succeed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What came proves nothing.
    #[error(transparent)]
    Unverified(#[from] SignatureError),
    /// No nonce could be made.
    #[error("no randomness: {0}")]
    Randomness(#[from] std::io::Error),
}

/// Asks with the highest key version, and with the next one after each InvalidPublicKeyVersionException. `nonce` makes the nonce
/// of each request.
pub async fn register(
    marketplace: &impl Marketplace,
    product_code: &ProductCode,
    keys: &PublicKeys,
    nonce: impl Fn() -> std::io::Result<Nonce>,
) -> Result<Proof, RegisterError> {
    let mut refusal = None;
    for version in keys.versions() {
        let nonce = nonce()?;
        let request = RegisterUsage {
            product_code: product_code.clone(),
            public_key_version: version,
            nonce: Some(nonce.clone()),
        };
        match marketplace::register_usage(marketplace, &request).await {
            Ok(answer) => return Ok(verified(keys, &request, &nonce, answer)?),
            Err(error) if names_key_version(&error) => {
                tracing::warn!(public_key_version = version, %error, "AWS does not know this key version");
                refusal = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(refusal.expect("there is at least one key version").into())
}

fn verified(
    keys: &PublicKeys,
    request: &RegisterUsage,
    nonce: &Nonce,
    answer: Registered,
) -> Result<Proof, SignatureError> {
    let signature = answer.signature.ok_or(SignatureError::Missing)?;
    let expected = Expected {
        product_code: &request.product_code,
        key_version: request.public_key_version,
        nonce: Some(nonce.as_str()),
    };
    signature::verify(&signature, keys, expected)?;
    if let Some(at) = answer.public_key_rotation_at {
        tracing::warn!(
            public_key_version = request.public_key_version,
            public_key_rotation_at = %at,
            "this public key version has been replaced; ship the next one with the next release"
        );
    }
    Ok(Proof {
        public_key_version: request.public_key_version,
        nonce: nonce.to_string(),
        signature,
        public_key_rotation_at: answer.public_key_rotation_at,
    })
}

fn names_key_version(error: &CallError) -> bool {
    matches!(error, CallError::Refused(ServiceError { code, .. })
        if code == "InvalidPublicKeyVersionException" || code == "InvalidPublicKeyException")
}
