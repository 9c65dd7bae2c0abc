//! What an app asks AWS by way of the sidecar: who a registration is, and proofs for nonces of its own.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::aws::{Aws, PRODUCT};
use crate::batches::{CUSTOMERS, account, identifier, license};
use crate::clients::{Client, Report, Way, aws_call};
use crate::pod::poll;

pub const QUESTIONS: [Way; 3] = [
    Client::resolve_customer,
    Client::register_usage,
    Client::challenge,
];

/// A registration of every customer.
pub fn put_tokens(aws: &Aws) {
    for n in 0..CUSTOMERS {
        let (account, identifier) = (account(n), identifier(n));
        aws.put_token(
            json!({"token": token(n, true), "customer": account, "license_arn": license(n)}),
        );
        aws.put_token(json!({"token": token(n, false), "customer": identifier}));
    }
}

fn token(n: u64, by_license: bool) -> String {
    format!("registration-{n}-{by_license}")
}

impl Client {
    fn resolve_customer(&mut self) {
        let (n, by_license) = (self.random.u64(0..CUSTOMERS), self.random.bool());
        let request = json!({"RegistrationToken": token(n, by_license)});
        let (code, answer) = self.ask(&aws_call("ResolveCustomer", None, &request));
        if code != 200 {
            return assert_trouble(code, &answer, &["ThrottlingException"]);
        }
        if by_license {
            assert_eq!(answer["LicenseArn"], license(n), "{answer}");
        } else {
            assert_eq!(answer["CustomerIdentifier"], identifier(n), "{answer}");
        }
        self.note("ResolveCustomer");
    }

    fn register_usage(&mut self) {
        let nonce = self.key();
        let request = json!({"ProductCode": PRODUCT, "PublicKeyVersion": 1, "Nonce": nonce});
        let (code, answer) = self.ask(&aws_call("RegisterUsage", None, &request));
        if code != 200 {
            return assert_trouble(code, &answer, &["ThrottlingException"]);
        }
        assert_eq!(signed_nonce(&answer["Signature"]), nonce);
        self.note("RegisterUsage");
    }

    fn challenge(&mut self) {
        let nonce = self.key();
        let report = Report {
            path: "/v1/entitlement/challenge",
            headers: Vec::new(),
            body: json!({"nonce": nonce}).to_string(),
        };
        let (code, answer) = self.ask(&report);
        if code != 200 {
            assert!([429, 502, 503].contains(&code), "{code}: {answer}");
            return;
        }
        assert_eq!(signed_nonce(&answer["signature"]), nonce);
        self.note("challenge");
    }

    fn note(&mut self, what: &'static str) {
        *self.told.answered.entry(what).or_default() += 1;
    }

    /// HTTP status and body, whatever they are.
    fn ask(&mut self, report: &Report) -> (u16, Value) {
        let (code, answer) = poll(|| self.shared.exchange(report)).expect("the sidecar comes back");
        (code, serde_json::from_str(&answer).expect("JSON"))
    }
}

/// AWS gives no answer that can be handed on, or one of these refusals.
fn assert_trouble(code: u16, answer: &Value, refusals: &[&str]) {
    let kind = answer["__type"].as_str().unwrap();
    let (_, name) = kind.split_once('#').unwrap();
    let expected = match code {
        400 => refusals.contains(&name),
        _ => name == "InternalServiceErrorException",
    };
    assert!(expected, "{code}: {answer}");
}

/// The nonce of a token's claims.
fn signed_nonce(token: &Value) -> String {
    let part = token.as_str().unwrap().split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(part)
        .unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let nonce = ["nonce", "Nonce"]
        .iter()
        .find_map(|name| claims[*name].as_str());
    nonce.expect("a nonce").to_owned()
}
