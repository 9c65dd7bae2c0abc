//! A plain signer of AWS Signature Version 4, written from AWS's description and sharing nothing with the product.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub const ACCESS_KEY_ID: &str = "AKIDEXAMPLE";
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A request on its way; `target` and header values are sent as they stand here.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Who signs, and when and where that is said to be.
#[derive(Clone, Debug)]
pub struct Signer {
    pub access_key_id: String,
    pub secret: String,
    pub date_time: String,
    pub date: String,
    pub region: String,
    pub service: String,
    /// Names to leave out of the signature.
    pub unsigned: Vec<&'static str>,
}

impl Call {
    pub fn new(method: &str, target: &str, body: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec![("host".to_owned(), "127.0.0.1:8421".to_owned())],
            body: body.into(),
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(given, _)| given != name);
        self
    }

    /// With `value` in place of the header's own.
    pub fn replace(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }
}

impl Signer {
    /// The example key in us-east-1 at `date_time`, as `20261125T123600Z`.
    pub fn at(date_time: &str) -> Self {
        Self {
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret: SECRET.to_owned(),
            date_time: date_time.to_owned(),
            date: date_time[..8].to_owned(),
            region: "us-east-1".to_owned(),
            service: "aws-marketplace".to_owned(),
            unsigned: Vec::new(),
        }
    }

    /// Adds X-Amz-Date and Authorization. Target and header values have to be in canonical form already.
    pub fn sign(&self, call: Call) -> Call {
        let call = call.with("x-amz-date", &self.date_time);
        let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
        let mut headers: Vec<_> = call
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .filter(|(name, _)| !self.unsigned.contains(&name.as_str()))
            .collect();
        headers.sort();
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let signed_headers = names.join(";");
        let listed: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let payload = hex(&Sha256::digest(&call.body));
        let canonical = format!(
            "{}\n{path}\n{query}\n{}\n{signed_headers}\n{payload}",
            call.method,
            listed.concat()
        );
        let scope = format!(
            "{}/{}/{}/aws4_request",
            self.date, self.region, self.service
        );
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
            self.date_time,
            hex(&Sha256::digest(canonical))
        );
        let key = [&self.date, &self.region, &self.service, "aws4_request"]
            .iter()
            .fold(format!("AWS4{}", self.secret).into_bytes(), |key, step| {
                hmac(&key, step)
            });
        let signature = hex(&hmac(&key, &to_sign));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed_headers}, Signature={signature}",
            self.access_key_id
        );
        call.with("authorization", &authorization)
    }
}

fn hmac(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}
