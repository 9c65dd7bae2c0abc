//! Client authentication: what counts as signed, against the signers of botocore and the SDK for JavaScript; the file of keys.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

#[path = "auth/keys.rs"]
mod keys;
#[path = "auth/rules.rs"]
mod rules;
#[path = "auth/signer.rs"]
mod signer;

use http::Request;
use http::request::Parts;
use jiff::Timestamp;
use serde::Deserialize;
use tollgate::auth::{AuthError, Claim, Keys, verify};

use signer::{ACCESS_KEY_ID, Call, SECRET, Signer};

impl Call {
    /// The value of a header that is there.
    pub fn header(&self, name: &str) -> &str {
        let (_, value) = self
            .headers
            .iter()
            .find(|(given, _)| given == name)
            .unwrap();
        value
    }

    /// The head of the request; `None` where HTTP itself has no such request.
    pub fn parts(&self) -> Option<Parts> {
        let mut request = Request::builder()
            .method(self.method.as_bytes())
            .uri(self.target.as_bytes());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        Some(request.body(()).ok()?.into_parts().0)
    }
}

/// Keys of which the example key is one.
fn known_keys() -> Keys {
    Keys::parse(&format!(
        "[[key]]\naccess_key_id = \"OTHER\"\nsecret_access_key = \"another-secret-of-some-length\"\n\
         [[key]]\naccess_key_id = \"{ACCESS_KEY_ID}\"\nsecret_access_key = \"{SECRET}\"\n"
    ))
    .unwrap()
}

const NOON: &str = "20261125T123600Z";

fn noon() -> Timestamp {
    "2026-11-25T12:36:00Z".parse().unwrap()
}

fn judge(call: &Call) -> Result<(), AuthError> {
    let parts = call.parts().expect("HTTP has this request");
    let keys = known_keys();
    let caller = verify(&parts, &call.body, &keys, noon())?;
    assert_eq!(caller.access_key_id, ACCESS_KEY_ID);
    Ok(())
}

/// A call of each kind that is signed over everything that can be.
fn full_call() -> Call {
    Call::new("POST", "/v1/usage?a=1&b=2", "{\"dimension\":\"gb\"}")
        .with("content-type", "application/json")
        .with("x-amz-target", "AWSMPMeteringService.MeterUsage")
        .with("idempotency-key", "night-job-7")
        .with("amz-sdk-request", "attempt=1; max=3")
}

#[derive(Deserialize)]
struct Signed {
    name: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
    at: Timestamp,
}

fn check_signed_by(file: &str, cases_min: usize) {
    let path = format!("{}/tests/auth/{file}", env!("CARGO_MANIFEST_DIR"));
    let cases: Vec<Signed> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() >= cases_min, "{} cases", cases.len());
    let keys = known_keys();
    for case in cases {
        let mut call = Call::new(&case.method, &case.target, &case.body);
        call.headers = case.headers;
        let parts = call.parts().unwrap_or_else(|| panic!("{}", case.name));
        let judged = verify(&parts, &call.body, &keys, case.at);
        assert_eq!(
            judged.map(|caller| caller.access_key_id),
            Ok(ACCESS_KEY_ID),
            "{}",
            case.name
        );
        call.body.push(b' ');
        let judged = verify(&parts, &call.body, &keys, case.at);
        assert!(judged.is_err(), "{} with another body", case.name);
    }
}

#[test]
fn what_botocore_signs_is_valid() {
    check_signed_by("botocore.json", 41);
}

#[test]
fn what_the_javascript_sdk_signs_is_valid() {
    check_signed_by("javascript.json", 39);
}

#[test]
fn every_byte_of_every_signed_part_counts() {
    let signed = Signer::at(NOON).sign(full_call());
    assert_eq!(judge(&signed), Ok(()));
    let keys = known_keys();
    let mut tried = 0;
    let mut refused = |altered: &Call, what: &str| {
        // What HTTP itself does not take never gets this far.
        let Some(parts) = altered.parts() else {
            return;
        };
        tried += 1;
        let judged = verify(&parts, &altered.body, &keys, noon());
        assert!(judged.is_err(), "{what} altered, and valid: {altered:?}");
    };
    alter(&signed.method, |method| {
        let method = method.to_owned();
        refused(
            &Call {
                method,
                ..signed.clone()
            },
            "method",
        );
    });
    alter(&signed.target, |target| {
        let target = target.to_owned();
        refused(
            &Call {
                target,
                ..signed.clone()
            },
            "target",
        );
    });
    for (index, (name, value)) in signed.headers.iter().enumerate() {
        let with = |name: &str, value: &str| {
            let mut altered = signed.clone();
            altered.headers[index] = (name.to_owned(), value.to_owned());
            altered
        };
        alter(name, |other| {
            // Header names have no case.
            if !other.eq_ignore_ascii_case(name) {
                refused(&with(other, value), &format!("name of {name}"));
            }
        });
        alter(value, |other| {
            refused(&with(name, other), &format!("value of {name}"));
        });
    }
    for index in 0..signed.body.len() {
        for byte in 0..=u8::MAX {
            let mut altered = signed.clone();
            altered.body[index] = byte;
            if altered.body != signed.body {
                refused(&altered, "body");
            }
        }
    }
    assert!(tried > 40_000, "{tried} requests were judged");
}

/// Calls `each` with `text` changed in one place to each other ASCII character, shortened by one, and with one more.
fn alter(text: &str, mut each: impl FnMut(&str)) {
    for index in 0..text.len() {
        let (before, after) = (&text[..index], &text[index + 1..]);
        for byte in 0..0x80_u8 {
            if text.as_bytes()[index] != byte {
                each(&format!("{before}{}{after}", char::from(byte)));
            }
        }
        // The separators of the Authorization header are not signed, and a space after a comma may be left out.
        let shorter = format!("{before}{after}");
        if shorter.replace(", ", ",") != text.replace(", ", ",") {
            each(&shorter);
        }
    }
    each(&format!("{text}x"));
}
