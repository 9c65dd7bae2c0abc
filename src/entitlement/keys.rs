//! The seller's public keys: one SPKI PEM file per key version.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rsa::PublicKey;
use rsa::pkcs8::DecodePublicKey;
use rsa::pkcs8::spki;
use rsa::traits::PublicKeyParts;
use tokio::sync::watch;

/// Which file holds which key version: `1=/etc/tollgate/keys/1.pem,2=...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles(BTreeMap<u32, PathBuf>);

/// The loaded keys by version; never empty.
#[derive(Clone)]
pub struct PublicKeys(BTreeMap<u32, PublicKey>);

/// Why keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// An entry is not `VERSION=FILE`.
    #[error("{0:?} is not VERSION=FILE with a version from 1 on")]
    Entry(String),
    /// Two files for one version.
    #[error("version {0} is given twice")]
    Twice(u32),
    /// A file can't be used.
    #[error("version {version}, {}: {problem}", path.display())]
    File {
        /// The key version it was given for.
        version: u32,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// Longer than any public key.
    #[error("it is longer than {FILE_BYTES_MAX} bytes, which no public key is")]
    TooLong,
    /// A private key, which has no business here.
    #[error(
        "it holds a PRIVATE key: take it out of this machine or image at once, and put the public key in its place \
         (-----BEGIN PUBLIC KEY-----)"
    )]
    Private,
    /// A certificate.
    #[error(
        "it holds a certificate, not a bare public key: `openssl x509 -pubkey -noout -in FILE` prints the key"
    )]
    Certificate,
    /// The PKCS #1 form.
    #[error(
        "it holds a PKCS #1 key: `openssl rsa -RSAPublicKey_in -pubout -in FILE` prints it as SPKI"
    )]
    Pkcs1,
    /// Not PEM at all.
    #[error("it holds no PEM block that begins with -----BEGIN PUBLIC KEY-----")]
    NotPem,
    /// SPKI, but another algorithm.
    #[error("its key is not an RSA key; AWS Marketplace signs with RSA (PS256)")]
    NotRsa,
    /// Not decodable, or outside the accepted sizes.
    #[error("its key can't be decoded ({0}); expected an RSA public key of 1024 to 8192 bits")]
    Undecodable(String),
}

const FILE_BYTES_MAX: u64 = 64 * 1024;
const RECOMMENDED_BITS_MIN: usize = 2048;

impl KeyFiles {
    /// Parses `VERSION=FILE,...`; nothing is read yet.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut files = BTreeMap::new();
        for entry in text.split(',') {
            let (version, path) = entry
                .trim()
                .split_once('=')
                .and_then(|(version, path)| Some((version.parse::<u32>().ok()?, path)))
                .filter(|(version, path)| *version >= 1 && !path.is_empty())
                .ok_or_else(|| KeyError::Entry(entry.to_owned()))?;
            if files.insert(version, PathBuf::from(path)).is_some() {
                return Err(KeyError::Twice(version));
            }
        }
        Ok(Self(files))
    }

    /// Reads every file.
    pub fn load(&self) -> Result<PublicKeys, KeyError> {
        let mut keys = BTreeMap::new();
        for (version, path) in &self.0 {
            let key = read_key(path).map_err(|problem| KeyError::File {
                version: *version,
                path: path.clone(),
                problem,
            })?;
            keys.insert(*version, key);
        }
        Ok(PublicKeys(keys))
    }
}

impl PublicKeys {
    /// Keys that are at hand already; `None` without any.
    pub fn new(keys: BTreeMap<u32, PublicKey>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The versions from the highest down: the order in which AWS is asked.
    pub fn versions(&self) -> impl Iterator<Item = u32> {
        self.0.keys().rev().copied()
    }

    /// The key of `version`.
    pub fn get(&self, version: u32) -> Option<&PublicKey> {
        self.0.get(&version)
    }

    /// Versions whose key is shorter than today's recommendation, with their length in bits.
    pub fn short_keys(&self) -> impl Iterator<Item = (u32, usize)> {
        self.0
            .iter()
            .map(|(version, key)| (*version, key.n().bit_width() as usize))
            .filter(|(_, bits)| *bits < RECOMMENDED_BITS_MIN)
    }
}

/// The keys in force: those of the start, or the ones that SIGHUP has read since.
#[derive(Clone, Debug)]
pub struct KeyRing {
    initial: PublicKeys,
    reloaded: watch::Receiver<Option<PublicKeys>>,
}

impl KeyRing {
    /// The keys of the start, and what brings later ones.
    pub fn new(initial: PublicKeys, reloaded: watch::Receiver<Option<PublicKeys>>) -> Self {
        Self { initial, reloaded }
    }

    /// The keys of now.
    pub fn current(&self) -> PublicKeys {
        let reloaded = self.reloaded.borrow().clone();
        reloaded.unwrap_or_else(|| self.initial.clone())
    }
}

impl fmt::Debug for PublicKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn read_key(path: &Path) -> Result<PublicKey, FileProblem> {
    let mut text = String::new();
    let bytes = File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => FileProblem::NotPem,
            _ => FileProblem::Unreadable(error),
        })?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(FileProblem::TooLong);
    }
    parse_key(&text)
}

/// Decodes an RSA public key from SPKI PEM.
pub fn parse_key(pem: &str) -> Result<PublicKey, FileProblem> {
    if pem.contains("PRIVATE KEY-----") {
        return Err(FileProblem::Private);
    }
    if pem.contains("-----BEGIN CERTIFICATE") {
        return Err(FileProblem::Certificate);
    }
    if pem.contains("-----BEGIN RSA PUBLIC KEY-----") {
        return Err(FileProblem::Pkcs1);
    }
    if !pem.contains("-----BEGIN PUBLIC KEY-----") {
        return Err(FileProblem::NotPem);
    }
    PublicKey::from_public_key_pem(pem.trim()).map_err(|error| match error {
        spki::Error::OidUnknown { .. } => FileProblem::NotRsa,
        other => FileProblem::Undecodable(other.to_string()),
    })
}
