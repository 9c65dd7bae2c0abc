//! The key pairs of `TOLLGATE_CLIENT_AUTH_FILE`, and the signing keys derived from them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::claim::{SERVICE, TERMINATOR};

/// Key pairs by access key id; never empty. Neither secrets nor signing keys can be seen from outside.
pub struct Keys(BTreeMap<String, Key>);

/// A key pair.
pub(super) struct Key {
    pub(super) access_key_id: String,
    /// `AWS4` and the secret: where every signing key starts.
    secret: Zeroizing<Vec<u8>>,
    derived: Mutex<Vec<Derived>>,
}

/// The signing key of one day and region, ready to sign. A caller has one region and its day lasts for one.
struct Derived {
    date: String,
    region: String,
    mac: Hmac<Sha256>,
}

/// Why a file of keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// Not a file.
    #[error("it is not a file")]
    NotFile,
    /// Anybody can read or replace the secrets.
    #[error(
        "its mode is {0:04o}, so that every user can read or change it: make it 0400, or 0440 for a group (on Kubernetes \
         `defaultMode: 0440` with an `fsGroup`)"
    )]
    Mode(u32),
    /// Longer than any such file.
    #[error("it is longer than {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// Not TOML with the right members.
    #[error("{0}")]
    Malformed(String),
    /// No key at all.
    #[error("it has no [[key]]")]
    Empty,
    /// More keys than anybody has callers.
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    /// A key that can't be used.
    #[error("key {number}: {problem}")]
    Key {
        /// From 1 on, in the file's order.
        number: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMembers {
    #[serde(default)]
    key: Vec<KeyMembers>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyMembers {
    access_key_id: Text,
    secret_access_key: Text,
}

/// A string whose errors do not show what stands in its place.
struct Text(String);

const FILE_BYTES_MAX: u64 = 64 * 1024;
const KEYS_MAX: usize = 256;
const ID_BYTES_MAX: usize = 128;
const SECRET_BYTES_MAX: usize = 128;
/// Others may neither read nor write.
const MODE_OTHERS: u32 = 0o006;
/// Two days around midnight for a few regions.
const DERIVED_MAX: usize = 8;

impl Keys {
    /// Reads and checks the file at `path`.
    pub fn read(path: &Path) -> Result<Self, FileProblem> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(FileProblem::NotFile);
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & MODE_OTHERS != 0 {
            return Err(FileProblem::Mode(mode));
        }
        // Room for all of it, so that no copy of a secret is left behind where the text grew.
        let room = metadata.len().min(FILE_BYTES_MAX) + 2;
        let mut text = Zeroizing::new(String::with_capacity(
            usize::try_from(room).expect("the longest file fits"),
        ));
        let bytes = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
        if bytes as u64 > FILE_BYTES_MAX {
            return Err(FileProblem::TooLong);
        }
        Self::parse(&text)
    }

    /// Reads the TOML text of such a file.
    pub fn parse(text: &str) -> Result<Self, FileProblem> {
        let members: FileMembers =
            toml::from_str(text).map_err(|error| FileProblem::Malformed(describe(&error, text)))?;
        if members.key.is_empty() {
            return Err(FileProblem::Empty);
        }
        if members.key.len() > KEYS_MAX {
            return Err(FileProblem::TooMany);
        }
        let mut keys = BTreeMap::new();
        for (index, members) in members.key.into_iter().enumerate() {
            let number = index + 1;
            let key = Key::new(&members).map_err(|problem| FileProblem::Key { number, problem })?;
            if keys.insert(key.access_key_id.clone(), key).is_some() {
                let problem = "its access_key_id stands twice";
                return Err(FileProblem::Key { number, problem });
            }
        }
        Ok(Self(keys))
    }

    pub(super) fn find(&self, access_key_id: &str) -> Option<&Key> {
        self.0.get(access_key_id)
    }
}

impl Key {
    fn new(members: &KeyMembers) -> Result<Self, &'static str> {
        let (id, secret) = (&members.access_key_id.0, &members.secret_access_key.0);
        if !is_access_key_id(id) {
            return Err(
                "its access_key_id is not 1 to 128 printable characters without spaces, commas, slashes and equals signs",
            );
        }
        if !(1..=SECRET_BYTES_MAX).contains(&secret.len())
            || !secret.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(
                "its secret_access_key is not 1 to 128 printable characters without spaces; `openssl rand -base64 30` makes one",
            );
        }
        let mut seed = Zeroizing::new(Vec::with_capacity(4 + secret.len()));
        seed.extend_from_slice(b"AWS4");
        seed.extend_from_slice(secret.as_bytes());
        Ok(Self {
            access_key_id: id.clone(),
            secret: seed,
            derived: Mutex::default(),
        })
    }

    /// The signing key for `date` (YYYYMMDD) and `region`, and whether it had to be derived.
    pub(super) fn signing_key(&self, date: &str, region: &str) -> (Hmac<Sha256>, bool) {
        let derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        let known = derived
            .iter()
            .find(|known| known.date == date && known.region == region);
        match known {
            Some(known) => (known.mac.clone(), false),
            None => (self.derive(date, region), true),
        }
    }

    /// Keeps a signing key with which a signature was valid: who has no secret must not fill the memory with regions.
    pub(super) fn remember(&self, date: &str, region: &str) {
        let fresh = Derived {
            date: date.to_owned(),
            region: region.to_owned(),
            mac: self.derive(date, region),
        };
        let mut derived = self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if derived.len() == DERIVED_MAX {
            derived.remove(0);
        }
        derived.push(fresh);
    }

    fn derive(&self, date: &str, region: &str) -> Hmac<Sha256> {
        let mut mac = keyed(&self.secret);
        for step in [date, region, SERVICE, TERMINATOR] {
            mac.update(step.as_bytes());
            let mut key = mac.finalize().into_bytes();
            mac = keyed(&key);
            key.as_mut_slice().zeroize();
        }
        mac
    }
}

/// What an access key id may look like: nothing in it can be mistaken for the scope beside it.
pub(super) fn is_access_key_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b',' | b'='))
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Line and message, without the line's text: it may hold a secret.
fn describe(error: &toml::de::Error, text: &str) -> String {
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line}: {}", error.message())
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text)),
            _ => Err(serde::de::Error::custom("expected a string in quotes")),
        }
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
