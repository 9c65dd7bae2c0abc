//! Signatures that botocore made, as they are and altered in each part.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use marketplace_simulator::sigv4::{Authorization, SignatureError};
use serde::Deserialize;

#[derive(Clone, Deserialize)]
struct Signed {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    secret: String,
}

fn signed() -> Vec<Signed> {
    serde_json::from_str(include_str!("fixtures/signed_by_botocore.json")).unwrap()
}

impl Signed {
    fn at(&self) -> Timestamp {
        let time = strtime::parse("%Y%m%dT%H%M%SZ", &self.headers["x-amz-date"]).unwrap();
        TimeZone::UTC
            .to_timestamp(time.to_datetime().unwrap())
            .unwrap()
    }

    fn check(&self) -> Result<(), SignatureError> {
        self.check_at(self.at())
    }

    fn check_at(&self, now: Timestamp) -> Result<(), SignatureError> {
        let headers: HeaderMap = self
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    value.parse::<HeaderValue>().unwrap(),
                )
            })
            .collect();
        let method: Method = self.method.parse().unwrap();
        Authorization::parse(&headers)?.check(
            &self.secret,
            &method,
            &self.path,
            &headers,
            self.body.as_bytes(),
            now,
        )
    }
}

#[test]
fn what_botocore_signed_is_accepted() {
    for request in signed() {
        assert_eq!(request.check(), Ok(()));
    }
}

#[test]
fn every_altered_part_is_refused() {
    type Alter = fn(&mut Signed);
    let alterations: [(&str, Alter); 9] = [
        ("method", |r| r.method = "PUT".to_owned()),
        ("path", |r| r.path = "/x".to_owned()),
        ("body", |r| r.body.push(' ')),
        ("secret", |r| r.secret.push('x')),
        ("host", |r| r.headers.get_mut("host").unwrap().push('1')),
        ("target", |r| {
            r.headers.get_mut("x-amz-target").unwrap().push('s')
        }),
        ("content type", |r| {
            r.headers.get_mut("content-type").unwrap().push('0')
        }),
        ("region", |r| {
            *r.headers.get_mut("authorization").unwrap() =
                r.headers["authorization"].replace("us-east-1", "us-east-2")
        }),
        ("unsigned amz header", |r| {
            drop(r.headers.insert("x-amz-extra".to_owned(), "1".to_owned()))
        }),
    ];
    for request in signed() {
        for (part, alter) in alterations {
            let mut altered = request.clone();
            alter(&mut altered);
            assert!(
                matches!(altered.check(), Err(SignatureError::Invalid(_))),
                "{part}"
            );
        }
    }
}

#[test]
fn every_altered_digit_of_the_signature_is_refused() {
    let request = &signed()[0];
    let authorization = request.headers["authorization"].clone();
    let start = authorization.find("Signature=").unwrap() + "Signature=".len();
    for at in start..authorization.len() {
        let digit = if authorization.as_bytes()[at] == b'0' {
            "1"
        } else {
            "0"
        };
        let mut altered = request.clone();
        altered
            .headers
            .get_mut("authorization")
            .unwrap()
            .replace_range(at..=at, digit);
        assert!(altered.check().is_err(), "{at}");
    }
}

#[test]
fn a_signature_is_good_for_five_minutes() {
    let request = &signed()[0];
    for (seconds, good) in [
        (-300, true),
        (300, true),
        (-301, false),
        (301, false),
        (86_400, false),
    ] {
        let now = request
            .at()
            .checked_add(SignedDuration::from_secs(seconds))
            .unwrap();
        assert_eq!(request.check_at(now).is_ok(), good, "{seconds}");
    }
}

#[test]
fn a_missing_or_broken_authorization_is_named() {
    for (value, name) in [
        (None, "MissingAuthenticationTokenException"),
        (Some("Bearer x"), "IncompleteSignatureException"),
        (
            Some("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=00"),
            "IncompleteSignatureException",
        ),
        (
            Some("AWS4-HMAC-SHA256 SignedHeaders=host"),
            "IncompleteSignatureException",
        ),
    ] {
        let mut request = signed()[0].clone();
        match value {
            None => drop(request.headers.remove("authorization")),
            Some(value) => drop(
                request
                    .headers
                    .insert("authorization".to_owned(), value.to_owned()),
            ),
        }
        assert_eq!(request.check().unwrap_err().name(), name, "{value:?}");
    }
}
