//! AWS Signature Version 4 as the service checks it (AWS General Reference, "Signing AWS API requests"): header
//! authentication for service `aws-marketplace`, the payload included.

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use jiff::fmt::strtime;
use sha2::{Digest, Sha256};

/// A request's claim to be signed: the parts of its Authorization header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Whose key.
    pub access_key_id: String,
    date: String,
    /// The region of the credential scope: where the caller believes to be.
    pub region: String,
    service: String,
    signed_headers: Vec<String>,
    signature: String,
}

/// Why a signature does not count, by AWS's exception.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is none.
    #[error("Missing Authentication Token")]
    Missing,
    /// It can't be read.
    #[error("{0}")]
    Incomplete(&'static str),
    /// It does not fit the request.
    #[error("{0}")]
    Invalid(&'static str),
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "aws-marketplace";
/// AWS takes signatures that are up to five minutes off.
const SKEW_SECONDS_MAX: i64 = 300;

impl SignatureError {
    /// The exception's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::Invalid(_) => "InvalidSignatureException",
        }
    }
}

impl Authorization {
    /// Reads the Authorization header.
    pub fn parse(headers: &HeaderMap) -> Result<Self, SignatureError> {
        let value = headers
            .get("authorization")
            .ok_or(SignatureError::Missing)?;
        let malformed = SignatureError::Incomplete("the Authorization header can't be read");
        let text = value.to_str().map_err(|_| malformed.clone())?;
        let fields = text
            .strip_prefix(ALGORITHM)
            .ok_or(SignatureError::Incomplete(
                "the algorithm is not AWS4-HMAC-SHA256",
            ))?;
        let field = |name: &str| {
            fields
                .split(',')
                .filter_map(|field| field.trim().split_once('='))
                .find(|(found, _)| *found == name)
                .map(|(_, value)| value.to_owned())
                .ok_or(malformed.clone())
        };
        let credential = field("Credential")?;
        let scope: Vec<&str> = credential.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = scope[..] else {
            return Err(SignatureError::Incomplete(
                "the credential scope has not five parts",
            ));
        };
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers: field("SignedHeaders")?
                .split(';')
                .map(str::to_owned)
                .collect(),
            signature: field("Signature")?,
        })
    }

    /// Checks the signature of a `POST` or other request to `path` without a query.
    pub fn check(
        &self,
        secret: &str,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), SignatureError> {
        if self.service != SERVICE {
            return Err(SignatureError::Invalid(
                "the credential is scoped to another service",
            ));
        }
        let signed_at = self.check_date(headers, now)?;
        for required in ["host", "x-amz-date"] {
            if !self.signed_headers.iter().any(|name| name == required) {
                return Err(SignatureError::Invalid(
                    "host and x-amz-date have to be signed",
                ));
            }
        }
        let present = |name: &str| headers.contains_key(name);
        if headers.keys().any(|name| {
            name.as_str().starts_with("x-amz-")
                && !self.signed_headers.iter().any(|s| s == name.as_str())
        }) {
            return Err(SignatureError::Invalid(
                "every x-amz- header has to be signed",
            ));
        }
        let payload_hash = hex(&Sha256::digest(body));
        if present("x-amz-content-sha256") && text(headers, "x-amz-content-sha256") != payload_hash
        {
            return Err(SignatureError::Invalid(
                "x-amz-content-sha256 is not the body's",
            ));
        }
        let mut canonical_headers = String::new();
        for name in &self.signed_headers {
            canonical_headers.extend([name, ":", &text(headers, name), "\n"]);
        }
        let canonical = format!(
            "{method}\n{path}\n\n{canonical_headers}\n{}\n{payload_hash}",
            self.signed_headers.join(";")
        );
        let scope = format!(
            "{}/{}/{}/aws4_request",
            self.date, self.region, self.service
        );
        let to_sign = format!(
            "{ALGORITHM}\n{signed_at}\n{scope}\n{}",
            hex(&Sha256::digest(canonical))
        );
        let mut key = hmac(format!("AWS4{secret}").as_bytes(), self.date.as_bytes());
        for part in [self.region.as_str(), &self.service, "aws4_request"] {
            key = hmac(&key, part.as_bytes());
        }
        if hex(&hmac(&key, to_sign.as_bytes())) == self.signature {
            Ok(())
        } else {
            Err(SignatureError::Invalid(
                "The request signature we calculated does not match the signature you provided.",
            ))
        }
    }

    fn check_date(&self, headers: &HeaderMap, now: Timestamp) -> Result<String, SignatureError> {
        let signed_at = text(headers, "x-amz-date");
        let parsed = strtime::parse("%Y%m%dT%H%M%SZ", &signed_at)
            .and_then(|time| time.to_datetime())
            .and_then(|time| jiff::tz::TimeZone::UTC.to_timestamp(time))
            .map_err(|_| SignatureError::Incomplete("x-amz-date can't be read"))?;
        if !signed_at.starts_with(&self.date) {
            return Err(SignatureError::Invalid(
                "the credential scope is of another day than x-amz-date",
            ));
        }
        if (parsed.as_second() - now.as_second()).abs() > SKEW_SECONDS_MAX {
            return Err(SignatureError::Invalid(
                "Signature expired: x-amz-date is more than five minutes off",
            ));
        }
        Ok(signed_at)
    }
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<String> = headers
        .get_all(name)
        .iter()
        .map(|value| {
            let value = String::from_utf8_lossy(value.as_bytes());
            value
                .split(' ')
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    values.join(",")
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
