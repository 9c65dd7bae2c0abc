//! Verification of what RegisterUsage answers: a JWT signed with RSASSA-PSS (seller guide, "Verifying the signature").
//!
//! A token is accepted only if its algorithm is exactly PS256, the signature verifies under the key of the version that was
//! asked for (SHA-256, MGF1 with SHA-256, a salt of 32 bytes), and product code, key version and nonce are the ones of this request.
//! AWS's pages spell the claims in two ways, and give the version as a number or as digits; both are read,
//! a token in which they disagree is refused.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::pss;
use rsa::signature::Verifier;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use sha2::Sha256;

use super::keys::PublicKeys;
use crate::usage::ProductCode;

/// What the token has to say.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The product asked for.
    pub product_code: &'a ProductCode,
    /// The key version asked for.
    pub key_version: u32,
    /// The nonce sent; none where the caller of RegisterUsage gave none.
    pub nonce: Option<&'a str>,
}

/// Why a token proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There was none in the answer.
    #[error("the answer carries no signature")]
    Missing,
    /// Longer than any real one.
    #[error("the signature is {0} characters long; a real one has under {TOKEN_CHARS_MAX}")]
    TooLong(usize),
    /// Not three parts of base64url, or not JSON inside.
    #[error("the signature is not a well-formed JWT: {0}")]
    Malformed(&'static str),
    /// Not PS256.
    #[error("the signature's algorithm is {0:?}; only PS256 is accepted")]
    Algorithm(String),
    /// The version has no key here.
    #[error("there is no public key of version {0} to verify with")]
    NoKey(u32),
    /// It does not verify.
    #[error("the signature does not verify with public key version {0}")]
    Invalid(u32),
    /// A claim is missing, twice there, or of the wrong type.
    #[error("the signature's claim {0} {1}")]
    Claim(&'static str, &'static str),
    /// It is for another product.
    #[error("the signature is for product {0:?}, not for this one")]
    OtherProduct(String),
    /// It is for another key version.
    #[error("the signature names public key version {0}, another one than was asked for")]
    OtherVersion(u64),
    /// It answers another request.
    #[error("the signature carries another nonce than this request's")]
    OtherNonce,
}

/// AWS's tokens have a few hundred characters; the longest possible nonce and an RSA-8192 signature stay far below.
const TOKEN_CHARS_MAX: usize = 16 * 1024;

/// Verifies `token` and that it says what is `expected`.
pub fn verify(
    token: &str,
    keys: &PublicKeys,
    expected: Expected<'_>,
) -> Result<(), SignatureError> {
    if token.is_empty() {
        return Err(SignatureError::Missing);
    }
    if token.len() > TOKEN_CHARS_MAX {
        return Err(SignatureError::TooLong(token.len()));
    }
    let (signed, signature) = token
        .rsplit_once('.')
        .ok_or(SignatureError::Malformed("it has no three parts"))?;
    let (header, claims) = signed
        .split_once('.')
        .filter(|(_, claims)| !claims.contains('.'))
        .ok_or(SignatureError::Malformed("it has no three parts"))?;
    check_header(&decode_object(header)?)?;
    check_signature(signed, signature, keys, expected.key_version)?;
    check_claims(&decode_object(claims)?, expected)
}

fn check_header(header: &Object) -> Result<(), SignatureError> {
    match header.get("alg") {
        Some(Value::String(algorithm)) if algorithm == "PS256" => {}
        Some(Value::String(algorithm)) => return Err(SignatureError::Algorithm(algorithm.clone())),
        Some(_) => return Err(SignatureError::Malformed("its algorithm is no text")),
        None => return Err(SignatureError::Malformed("it names no algorithm")),
    }
    // RFC 7515, 4.1.11: extensions that are not understood but marked critical make the token invalid.
    if header.get("crit").is_some() {
        return Err(SignatureError::Malformed("it demands extensions"));
    }
    Ok(())
}

fn check_signature(
    signed: &str,
    signature: &str,
    keys: &PublicKeys,
    version: u32,
) -> Result<(), SignatureError> {
    let key = keys.get(version).ok_or(SignatureError::NoKey(version))?;
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| SignatureError::Malformed("its third part is not base64url"))?;
    let signature = pss::Signature::try_from(signature.as_slice())
        .map_err(|_| SignatureError::Invalid(version))?;
    pss::VerifyingKey::<Sha256>::new(key.clone())
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| SignatureError::Invalid(version))
}

fn check_claims(claims: &Object, expected: Expected<'_>) -> Result<(), SignatureError> {
    let product = text(claims, ["productCode", "ProductCode"])?;
    if product != expected.product_code.as_str() {
        return Err(SignatureError::OtherProduct(product.to_owned()));
    }
    let version = number(claims, ["publicKeyVersion", "PublicKeyVersion"])?;
    if version != u64::from(expected.key_version) {
        return Err(SignatureError::OtherVersion(version));
    }
    match expected.nonce {
        Some(nonce) if text(claims, ["nonce", "Nonce"])? != nonce => {
            Err(SignatureError::OtherNonce)
        }
        Some(_) | None => Ok(()),
    }
}

fn text<'a>(claims: &'a Object, spellings: [&'static str; 2]) -> Result<&'a str, SignatureError> {
    let read = |value: &'a Value| value.as_str();
    claim(claims, spellings, read)
}

fn number(claims: &Object, spellings: [&'static str; 2]) -> Result<u64, SignatureError> {
    let read = |value: &Value| match value {
        Value::Number(number) => number.as_u64(),
        Value::String(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    };
    claim(claims, spellings, read)
}

fn claim<'a, T: PartialEq>(
    claims: &'a Object,
    spellings: [&'static str; 2],
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<T, SignatureError> {
    let name = spellings[0];
    let mut values = spellings
        .into_iter()
        .filter_map(|spelling| claims.get(spelling))
        .map(|value| {
            read(value).ok_or(SignatureError::Claim(name, "has a value of the wrong type"))
        });
    let first = values
        .next()
        .ok_or(SignatureError::Claim(name, "is missing"))??;
    match values.next().transpose()? {
        Some(second) if second != first => Err(SignatureError::Claim(
            name,
            "is there in both spellings with different values",
        )),
        _ => Ok(first),
    }
}

fn decode_object(part: &str) -> Result<Object, SignatureError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| SignatureError::Malformed("a part of it is not base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| {
        SignatureError::Malformed("a part of it is not a JSON object with distinct keys")
    })
}

/// A JSON object in which a key that stands twice is an error, not a choice.
struct Object(Vec<(String, Value)>);

impl Object {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if entries.iter().any(|(name, _)| *name == key) {
                return Err(A::Error::custom("a key stands twice"));
            }
            entries.push((key, value));
        }
        Ok(Object(entries))
    }
}
