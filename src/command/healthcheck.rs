//! `tollgate healthcheck`: asks the sidecar's /readyz, as a container health check does. Plain blocking code: it starts in
//! every interval, and inside an image that has no curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::command::{complain, misconfigured};
use crate::config::health_address;
use crate::config::settings::Sources;
use crate::exit::Exit;

const TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Success when the sidecar at `TOLLGATE_HEALTH_LISTEN` is ready.
pub fn healthcheck(sources: &Sources) -> Exit {
    let address = match health_address(sources) {
        Ok(address) => address,
        Err(errors) => return misconfigured(&errors),
    };
    match ask(address) {
        Ok((200, state)) => {
            println!("ready: {state}");
            Exit::Success
        }
        Ok((code, state)) => {
            complain(&format_args!(
                "not ready: {state} (HTTP {code} from http://{address}/readyz)"
            ));
            Exit::NotReady
        }
        Err(error) => {
            complain(&format_args!(
                "no sidecar answers at http://{address}/readyz: {error}; is TOLLGATE_HEALTH_LISTEN the same here?"
            ));
            Exit::NotReady
        }
    }
}

fn ask(address: SocketAddr) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let malformed = || std::io::Error::other("its answer is not HTTP");
    let code = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or_else(malformed)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    Ok((code, body.trim().to_owned()))
}
