//! The nonce: what ties a signature to one request and, where tollgate chooses it, to one task or pod.
//!
//! AWS's signature names product, key version and nonce, but not whose it is. A nonce of tollgate's own therefore
//! commits to the identity: `tg1-<random>-<commitment>`, both 16 bytes in base64url, the commitment being the start of
//! SHA-256 over random part, product code and identity. A signature carried over from another task or pod, in a grant or in a
//! status file, does not fit the identity there. A nonce that the main container chose proves the same by being its own.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::usage::ProductCode;

/// A nonce of 1 to 255 characters (service model, `Nonce`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

/// Why a nonce can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NonceError {
    /// The file can't be read.
    #[error("the file can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// Longer than AWS takes.
    #[error("it has more than 255 characters")]
    TooLong,
    /// A character that is none to be shown, or not UTF-8.
    #[error("it is not one line of printable UTF-8")]
    NotText,
}

/// What a nonce says about the task or pod it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// It commits to this identity and product.
    Bound,
    /// It commits to another one.
    Other,
    /// It commits to none: the main container chose it.
    Unbound,
}

const CHARS_MAX: usize = 255;
const PART_BYTES: usize = 16;
const MARK: &str = "tg1";

impl Nonce {
    /// Reads a nonce file; blanks and line ends around the nonce are not part of it.
    pub fn read(path: &Path) -> Result<Self, NonceError> {
        const BYTES_MAX: u64 = 4 * 1024;
        let mut bytes = Vec::new();
        File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| NonceError::NotText)?;
        Self::parse(text.trim())
    }

    /// Checks a nonce that was given.
    pub fn parse(text: &str) -> Result<Self, NonceError> {
        if text.is_empty() {
            return Err(NonceError::Empty);
        }
        if text.chars().count() > CHARS_MAX {
            return Err(NonceError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(NonceError::NotText);
        }
        Ok(Self(text.to_owned()))
    }

    /// A fresh nonce that commits to `identity`.
    pub fn fresh(product: &ProductCode, identity: &str) -> std::io::Result<Self> {
        let mut random = [0; PART_BYTES];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        let random = URL_SAFE_NO_PAD.encode(random);
        let commitment = commitment(&random, product, identity);
        Ok(Self(format!("{MARK}-{random}-{commitment}")))
    }

    /// The nonce as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `nonce` commits to `identity`.
pub fn binding(nonce: &str, product: &ProductCode, identity: &str) -> Binding {
    const PART_CHARS: usize = 22;
    let committed = nonce
        .strip_prefix(MARK)
        .and_then(|rest| rest.strip_prefix('-'))
        .filter(|rest| rest.len() == 2 * PART_CHARS + 1 && rest.is_ascii())
        .map(|rest| rest.split_at(PART_CHARS));
    match committed {
        None => Binding::Unbound,
        Some((random, rest)) if rest[1..] == commitment(random, product, identity) => {
            Binding::Bound
        }
        Some(_) => Binding::Other,
    }
}

fn commitment(random: &str, product: &ProductCode, identity: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"tollgate nonce 1");
    for part in [random, product.as_str(), identity] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..PART_BYTES])
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product() -> ProductCode {
        ProductCode::parse("prod-a").unwrap()
    }

    #[test]
    fn a_fresh_nonce_is_bound_to_its_identity_and_product_alone() {
        let nonce = Nonce::fresh(&product(), "task-1").unwrap();
        assert_eq!(
            binding(nonce.as_str(), &product(), "task-1"),
            Binding::Bound
        );
        assert_eq!(
            binding(nonce.as_str(), &product(), "task-2"),
            Binding::Other
        );
        let other = ProductCode::parse("prod-b").unwrap();
        assert_eq!(binding(nonce.as_str(), &other, "task-1"), Binding::Other);
    }

    #[test]
    fn fresh_nonces_differ() {
        let first = Nonce::fresh(&product(), "task-1").unwrap();
        assert_ne!(first, Nonce::fresh(&product(), "task-1").unwrap());
    }

    #[test]
    fn a_nonce_of_the_main_container_is_unbound() {
        for nonce in ["hello", "tg1", "tg1-", "tg1-short-short", &"ü".repeat(49)] {
            assert_eq!(
                binding(nonce, &product(), "task-1"),
                Binding::Unbound,
                "{nonce}"
            );
        }
    }

    #[test]
    fn a_nonce_file_is_read_without_the_blanks_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nonce");
        std::fs::write(&path, "  n-1\n").unwrap();
        assert_eq!(Nonce::read(&path).unwrap().as_str(), "n-1");
        for (content, error) in [
            ("", "empty"),
            (" \n", "empty"),
            ("a\nb", "printable"),
            (&"x".repeat(256), "255"),
            (&"x".repeat(100_000), "255"),
        ] {
            std::fs::write(&path, content).unwrap();
            assert!(Nonce::read(&path).unwrap_err().to_string().contains(error));
        }
        std::fs::write(&path, "ü".repeat(255)).unwrap();
        assert!(Nonce::read(&path).is_ok());
    }
}
