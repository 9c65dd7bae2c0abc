//! What a request claims: its Authorization header, judged as far as headers alone allow, then against the body.

use std::time::Duration;

use hmac::Mac;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::keys::{Key, Keys, is_access_key_id};
use super::{AuthError, Caller, canonical};

/// A signature that may be valid: everything fits but what only the whole request can show.
pub struct Claim<'r, 'k> {
    parts: &'r Parts,
    key: &'k Key,
    scope: Scope<'r>,
    date_time: &'r str,
    signed_headers: &'r str,
    signature: [u8; DIGEST_BYTES],
}

/// `DATE/REGION/aws-marketplace/aws4_request`.
#[derive(Clone, Copy)]
struct Scope<'r> {
    text: &'r str,
    date: &'r str,
    region: &'r str,
}

struct Authorization<'r> {
    credential: &'r str,
    signed_headers: &'r str,
    signature: &'r str,
}

pub(super) const SERVICE: &str = "aws-marketplace";
pub(super) const TERMINATOR: &str = "aws4_request";

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const DIGEST_BYTES: usize = 32;
const SKEW_MAX: Duration = Duration::from_mins(5);
const DATE_FORMAT: &str = "%Y%m%dT%H%M%SZ";
const REGION_BYTES_MAX: usize = 64;

/// Headers that this endpoint acts on. Twice, or with spaces that a signature does not see, they could mean another thing here than to the signer.
const UNAMBIGUOUS: [&str; 8] = [
    "authorization",
    "host",
    "x-amz-date",
    "x-amz-target",
    "x-amz-content-sha256",
    "content-type",
    "idempotency-key",
    "amz-sdk-invocation-id",
];
/// Signed always.
const SIGNED_ALWAYS: [&str; 2] = ["host", "x-amz-date"];
/// Signed where it is there, like every `x-amz-` header.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const AMZ_PREFIX: &str = "x-amz-";
/// Not signed by every SDK, and nothing here depends on it.
const USER_AGENT: &str = "x-amz-user-agent";

impl<'r, 'k> Claim<'r, 'k> {
    /// Judges what can be judged before the body is there, so that who has no key is not listened to at length.
    pub fn read(parts: &'r Parts, keys: &'k Keys, now: Timestamp) -> Result<Self, AuthError> {
        let headers = &parts.headers;
        if is_presigned(parts.uri.query().unwrap_or_default()) {
            return Err(AuthError::Presigned);
        }
        if !headers.contains_key(AUTHORIZATION) {
            return Err(AuthError::Missing);
        }
        if headers.contains_key("x-amz-security-token") {
            return Err(AuthError::SessionToken);
        }
        check_ambiguity(headers)?;
        let authorization = Authorization::parse(text(headers, "authorization")?)?;
        check_signed_headers(headers, authorization.signed_headers)?;
        let date_time = text(headers, "x-amz-date")?;
        let (access_key_id, scope) = Scope::parse(authorization.credential)?;
        scope.check(date_time)?;
        check_time(date_time, now)?;
        check_payload_header(headers)?;
        let key = keys
            .find(access_key_id)
            .ok_or_else(|| AuthError::UnknownKey(access_key_id.to_owned()))?;
        Ok(Self {
            parts,
            key,
            scope,
            date_time,
            signed_headers: authorization.signed_headers,
            signature: decode_hex(authorization.signature)
                .ok_or_else(|| incomplete("Signature is not 64 lower-case hexadecimal digits"))?,
        })
    }

    /// Judges the signature over the whole request, in constant time.
    pub fn verify(self, body: &[u8]) -> Result<Caller<'k>, AuthError> {
        let payload = encode_hex(&Sha256::digest(body).into());
        if let Some(stated) = self.parts.headers.get("x-amz-content-sha256")
            && stated.as_bytes() != payload
        {
            return Err(AuthError::Payload(
                "x-amz-content-sha256 is not the SHA-256 of the body that arrived",
            ));
        }
        let mut request = Sha256::new();
        canonical::write(self.parts, self.signed_headers, &payload, &mut |bytes| {
            request.update(bytes);
        });
        let (mut mac, derived) = self.key.signing_key(self.scope.date, self.scope.region);
        for part in [ALGORITHM, self.date_time, self.scope.text] {
            mac.update(part.as_bytes());
            mac.update(b"\n");
        }
        mac.update(&encode_hex(&request.finalize().into()));
        mac.verify_slice(&self.signature)
            .map_err(|_| AuthError::Mismatch)?;
        if derived {
            self.key.remember(self.scope.date, self.scope.region);
        }
        Ok(Caller {
            access_key_id: &self.key.access_key_id,
        })
    }
}

impl<'r> Authorization<'r> {
    /// `AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...`, the three in any order.
    fn parse(header: &'r str) -> Result<Self, AuthError> {
        let rest = header
            .strip_prefix(ALGORITHM)
            .and_then(|rest| rest.strip_prefix(' '))
            .ok_or_else(|| {
                incomplete("Authorization is not AWS4-HMAC-SHA256, the one algorithm taken here")
            })?;
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let place = match part.trim_matches(' ').split_once('=') {
                Some(("Credential", value)) => credential.replace(value),
                Some(("SignedHeaders", value)) => signed_headers.replace(value),
                Some(("Signature", value)) => signature.replace(value),
                _ => {
                    return Err(incomplete(
                        "Authorization has a part that is none of Credential=, SignedHeaders= and Signature=",
                    ));
                }
            };
            if place.is_some() {
                return Err(incomplete("Authorization has a part twice"));
            }
        }
        let required = |value: Option<&'r str>, name: &str| {
            value.ok_or_else(|| {
                AuthError::Incomplete(format!("Authorization header requires '{name}' parameter."))
            })
        };
        Ok(Self {
            credential: required(credential, "Credential")?,
            signed_headers: required(signed_headers, "SignedHeaders")?,
            signature: required(signature, "Signature")?,
        })
    }
}

impl<'r> Scope<'r> {
    /// Splits `ACCESS_KEY_ID/DATE/REGION/SERVICE/aws4_request`.
    fn parse(credential: &'r str) -> Result<(&'r str, Self), AuthError> {
        let malformed = || {
            incomplete("Credential is not ACCESS_KEY_ID/DATE/REGION/aws-marketplace/aws4_request")
        };
        let (id, text) = credential.split_once('/').ok_or_else(malformed)?;
        let mut parts = text.split('/');
        let (Some(date), Some(region), Some(service), Some(terminator), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(malformed());
        };
        if !is_access_key_id(id) || !is_region(region) {
            return Err(malformed());
        }
        if service != SERVICE {
            return Err(AuthError::Scope(format!(
                "Credential should be scoped to correct service: '{SERVICE}'."
            )));
        }
        if terminator != TERMINATOR {
            return Err(AuthError::Scope(format!(
                "Credential should be scoped with a valid terminator: '{TERMINATOR}'."
            )));
        }
        Ok((id, Self { text, date, region }))
    }

    fn check(self, date_time: &str) -> Result<(), AuthError> {
        if date_time.split_once('T').map(|(date, _)| date) == Some(self.date) {
            return Ok(());
        }
        Err(AuthError::Scope(format!(
            "Date in Credential scope does not match YYYYMMDD from X-Amz-Date {date_time:?}."
        )))
    }
}

fn is_region(text: &str) -> bool {
    (1..=REGION_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn is_presigned(query: &str) -> bool {
    query.split('&').any(|pair| {
        pair.get(..AMZ_PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(AMZ_PREFIX))
    })
}

fn check_ambiguity(headers: &HeaderMap) -> Result<(), AuthError> {
    for name in UNAMBIGUOUS {
        let mut values = headers.get_all(name).iter();
        let Some(value) = values.next() else {
            continue;
        };
        if values.next().is_some() {
            return Err(AuthError::Incomplete(format!(
                "the header {name} stands more than once"
            )));
        }
        if value.as_bytes().windows(2).any(|pair| pair == b"  ") {
            return Err(AuthError::Incomplete(format!(
                "the header {name} has several spaces in a row, which no signature tells from one"
            )));
        }
    }
    Ok(())
}

fn check_signed_headers(headers: &HeaderMap, signed: &str) -> Result<(), AuthError> {
    let mut before = "";
    for name in signed.split(';') {
        if name <= before || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(incomplete(
                "SignedHeaders is not a list of lower-case names in alphabetical order, each once",
            ));
        }
        if !headers.contains_key(name) {
            return Err(AuthError::Incomplete(format!(
                "SignedHeaders has {name:?}, and the request has no such header"
            )));
        }
        before = name;
    }
    let is_signed = |name: &str| signed.split(';').any(|listed| listed == name);
    if let Some(name) = SIGNED_ALWAYS.into_iter().find(|name| !is_signed(name)) {
        return Err(AuthError::Incomplete(format!(
            "'{name}' must be a 'SignedHeader' in the AWS Authorization."
        )));
    }
    let unsigned = headers.keys().map(http::HeaderName::as_str).find(|name| {
        let matters = *name == IDEMPOTENCY_KEY || name.starts_with(AMZ_PREFIX);
        matters && *name != USER_AGENT && !is_signed(name)
    });
    match unsigned {
        None => Ok(()),
        Some(name) => Err(AuthError::Incomplete(format!(
            "'{name}' is in the request, so it must be a 'SignedHeader' in the AWS Authorization."
        ))),
    }
}

fn check_time(date_time: &str, now: Timestamp) -> Result<(), AuthError> {
    let signed = parse_date_time(date_time).ok_or_else(|| {
        incomplete("X-Amz-Date must be in ISO-8601 'basic format': YYYYMMDD'T'HHMMSS'Z'.")
    })?;
    let age = now.duration_since(signed);
    let most = SignedDuration::try_from(SKEW_MAX).expect("five minutes fit");
    let show = |at: Timestamp| at.strftime(DATE_FORMAT).to_string();
    let minutes = SKEW_MAX.as_secs() / 60;
    if age > most {
        return Err(AuthError::Skewed(format!(
            "Signature expired: {date_time} is now earlier than {} ({} - {minutes} min.)",
            show(now - most),
            show(now)
        )));
    }
    if age < -most {
        return Err(AuthError::Skewed(format!(
            "Signature not yet current: {date_time} is still later than {} ({} + {minutes} min.)",
            show(now + most),
            show(now)
        )));
    }
    Ok(())
}

fn parse_date_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    if bytes.len() != "YYYYMMDDTHHMMSSZ".len() || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| {
        bytes[from..to].iter().try_fold(0_i16, |number, byte| {
            byte.is_ascii_digit()
                .then(|| number * 10 + i16::from(byte - b'0'))
        })
    };
    let small = |from: usize| number(from, from + 2).and_then(|number| i8::try_from(number).ok());
    let at = DateTime::new(
        number(0, 4)?,
        small(4)?,
        small(6)?,
        small(9)?,
        small(11)?,
        small(13)?,
        0,
    );
    Offset::UTC.to_timestamp(at.ok()?).ok()
}

/// Names of payloads that are not hashed, or hashed piece by piece, are refused before the body is read.
fn check_payload_header(headers: &HeaderMap) -> Result<(), AuthError> {
    let Some(value) = headers.get("x-amz-content-sha256") else {
        return Ok(());
    };
    if value.len() == 2 * DIGEST_BYTES {
        return Ok(());
    }
    Err(AuthError::Payload(
        "x-amz-content-sha256 is no SHA-256: UNSIGNED-PAYLOAD and chunked (STREAMING-...) signatures are not taken here; sign the whole body",
    ))
}

fn text<'r>(headers: &'r HeaderMap, name: &str) -> Result<&'r str, AuthError> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| AuthError::Incomplete(format!("the header {name} is not plain text")))
}

fn incomplete(message: &str) -> AuthError {
    AuthError::Incomplete(message.to_owned())
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn encode_hex(digest: &[u8; DIGEST_BYTES]) -> [u8; 2 * DIGEST_BYTES] {
    let mut text = [0; 2 * DIGEST_BYTES];
    for (pair, byte) in text.chunks_exact_mut(2).zip(digest) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 0xf)];
    }
    text
}

/// Lower case only: another spelling of the same digest is another signature.
fn decode_hex(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    let text = text.as_bytes();
    if text.len() != 2 * DIGEST_BYTES {
        return None;
    }
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut digest = [0; DIGEST_BYTES];
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}
