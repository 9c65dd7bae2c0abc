//! The names of records: tollgate's own, the caller's and AWS's side of them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Moment;

/// The number of a bucket: one hour of one dimension, and after sealing the submission made of it. Unique in a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BucketId(pub u32);

/// The id that an app gets for a report and that `GET /v1/usage/{id}` takes: a UUID v7.
///
/// It carries the bucket that the report went into, so that no table is needed to find it again:
///
/// ```text
///  48 bits        4   12        2   32         30
/// ┌──────────────┬───┬─────────┬───┬──────────┬──────────┐
/// │ ms since 1970│ 7 │ counter │ 2 │ bucket   │ check    │
/// └──────────────┴───┴─────────┴───┴──────────┴──────────┘
/// ```
///
/// The check is keyed with the ledger's secret, so that an invented id finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(Uuid);

/// The ledger's secret under the check of its [`RecordId`]s.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecordIdSecret([u8; 16]);

/// The idempotency token of a `MeterUsage` call: 1..=64 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientToken(Arc<str>);

/// What a `distinct` dimension counts: a user, a host, a seat. Only a 128-bit digest of it is kept, so that no name of a
/// buyer's user reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UsageKey(u128);

/// A text that is no client token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a client token has 1 to 64 characters, and this one has {0}")]
pub struct TokenError(usize);

/// A text that is no usage key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key has 1 to 1024 bytes, and this one has {0}")]
pub struct UsageKeyError(usize);

impl RecordId {
    /// Makes the id of the `counter`th report (12 bits) of a millisecond.
    pub fn new(secret: RecordIdSecret, at: Moment, counter: u16, bucket: BucketId) -> Self {
        let ms = at.as_millis().cast_unsigned() & MS_MASK;
        let counter = u128::from(counter & COUNTER_MASK);
        let check = u128::from(secret.check(ms, counter, bucket));
        let bits = u128::from(ms) << 80
            | 7 << 76
            | counter << 64
            | 2 << 62
            | u128::from(bucket.0) << 30
            | check;
        Self(Uuid::from_u128(bits))
    }

    /// The 16 bytes of the UUID.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// Reads what [`RecordId::to_bytes`] wrote.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The bucket that the report went into, if this ledger made the id.
    pub fn bucket(self, secret: RecordIdSecret) -> Option<BucketId> {
        let bits = self.0.as_u128();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "picks the 32 bits of the bucket"
        )]
        let bucket = BucketId((bits >> 30) as u32);
        let rebuilt = Self::new(secret, self.moment(), self.counter(), bucket);
        (rebuilt == self).then_some(bucket)
    }

    /// When the report was taken.
    pub fn moment(self) -> Moment {
        let ms = (self.0.as_u128() >> 80) as i64;
        Moment::from_millis(ms)
    }

    /// Which report of its millisecond it names.
    pub fn counter(self) -> u16 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "picks the 12 bits of the counter"
        )]
        let counter = (self.0.as_u128() >> 64) as u16;
        counter & COUNTER_MASK
    }
}

impl RecordIdSecret {
    /// Takes 16 random bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    fn check(self, ms: u64, counter: u128, bucket: BucketId) -> u32 {
        let mut input = [0; 38];
        input[..16].copy_from_slice(&self.0);
        input[16..24].copy_from_slice(&ms.to_be_bytes());
        input[24..34].copy_from_slice(&counter.to_be_bytes()[6..]);
        input[34..].copy_from_slice(&bucket.0.to_be_bytes());
        let digest = Sha256::digest(input);
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> 2
    }
}

impl ClientToken {
    /// A token of 32 hexadecimal digits.
    pub fn from_random(bits: u128) -> Self {
        Self(format!("{bits:032x}").into())
    }

    /// Checks the length of `text`.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        match text.chars().count() {
            length if length == 0 || length > TOKEN_CHARS_MAX => Err(TokenError(length)),
            _ => Ok(Self(text.into())),
        }
    }

    /// The token as AWS takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl UsageKey {
    /// Takes the name of what is counted.
    pub fn new(name: &str) -> Result<Self, UsageKeyError> {
        if name.is_empty() || name.len() > KEY_BYTES_MAX {
            return Err(UsageKeyError(name.len()));
        }
        let digest = Sha256::digest(name.as_bytes());
        let mut bits = [0; 16];
        bits.copy_from_slice(&digest[..16]);
        Ok(Self(u128::from_be_bytes(bits)))
    }
}

impl FromStr for RecordId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for BucketId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for BucketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RecordIdSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordIdSecret(..)")
    }
}

super::checked_text!(ClientToken, TokenError);

const TOKEN_CHARS_MAX: usize = 64;
const KEY_BYTES_MAX: usize = 1024;
const MS_MASK: u64 = (1 << 48) - 1;
const COUNTER_MASK: u16 = 0xfff;

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: RecordIdSecret = RecordIdSecret::new([7; 16]);

    #[test]
    fn record_ids_are_uuids_of_version_7_that_lead_to_their_bucket() {
        for (ms, counter, bucket) in [
            (0, 0, 0),
            (1_795_000_000_123, 0xfff, u32::MAX),
            (MS_MASK.cast_signed(), 1, 77),
        ] {
            let id = RecordId::new(SECRET, Moment::from_millis(ms), counter, BucketId(bucket));
            let uuid: Uuid = id.to_string().parse().unwrap();
            assert_eq!(uuid.get_version_num(), 7);
            assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
            let read: RecordId = id.to_string().parse().unwrap();
            assert_eq!(read.bucket(SECRET), Some(BucketId(bucket)));
            assert_eq!((read.moment().as_millis(), read.counter()), (ms, counter));
        }
    }

    #[test]
    fn an_altered_record_id_leads_nowhere() {
        let id = RecordId::new(
            SECRET,
            Moment::from_millis(1_795_000_000_123),
            5,
            BucketId(9),
        );
        for bit in 0..128 {
            let altered = RecordId(Uuid::from_u128(id.0.as_u128() ^ (1 << bit)));
            assert_eq!(altered.bucket(SECRET), None, "bit {bit}");
        }
        assert_eq!(id.bucket(RecordIdSecret::new([8; 16])), None);
    }

    #[test]
    fn client_tokens_fit_aws() {
        assert_eq!(ClientToken::from_random(u128::MAX).as_str().len(), 32);
        assert!("".parse::<ClientToken>().is_err());
        assert!("t".repeat(65).parse::<ClientToken>().is_err());
        assert!("t".repeat(64).parse::<ClientToken>().is_ok());
    }
}
