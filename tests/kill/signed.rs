//! Calls as a client with a key of TOLLGATE_CLIENT_AUTH_FILE makes them.

use std::net::SocketAddr;

use crate::clients::{Report, request};
use crate::signer::{ACCESS_KEY_ID, Call, SECRET, Signer};

/// The file with the example key.
pub fn keys() -> String {
    format!("[[key]]\naccess_key_id = \"{ACCESS_KEY_ID}\"\nsecret_access_key = \"{SECRET}\"\n")
}

/// Signed now.
pub fn signed(address: SocketAddr, report: &Report) -> String {
    let mut call =
        Call::new("POST", report.path, &report.body).replace("host", &address.to_string());
    for (name, value) in &report.headers {
        call = call.with(name, value);
    }
    let now = jiff::Timestamp::now()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string();
    let headers: Vec<String> = Signer::at(&now)
        .sign(call)
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    request(report, &headers.concat())
}
