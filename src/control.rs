//! The control socket: how `tollgate usage` speaks to the running sidecar.
//!
//! HTTP/1.1 over `control.sock` in the state folder, mode 0600: the app beside the sidecar, which runs as another user or does not
//! mount the folder, can't decide what was delivered.
//!
//! | route | what |
//! |---|---|
//! | GET /usage | every record: open, on its way, decided |
//! | POST /usage/ID/delivered | a record in doubt was delivered |
//! | POST /usage/ID/not-delivered | it was not: its quantity is owed by the open hour |

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::net::UnixListener;

use crate::ledger::{Filter, Ledger, LedgerError, Record, RecordState, ResolutionError};
use crate::listener::Bounds;
use crate::meter::Resolution;
use crate::usage::{BucketId, Customer};

/// Bounds of the control socket: one person at a time.
pub const BOUNDS: Bounds = Bounds {
    connections_max: 8,
    header_timeout: Duration::from_secs(10),
};

const SOCKET_NAME: &str = "control.sock";
const SOCKET_MODE: u32 = 0o600;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The latest; a year's records of 24 dimensions are fewer.
const RECORDS_MAX: usize = 250_000;
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Opens the socket in `state_dir`; one that a dead process left is replaced. The ledger's lock keeps a living one out.
pub fn bind(state_dir: &Path) -> io::Result<UnixListener> {
    let path = socket_path(state_dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

/// Answers one request.
pub async fn answer<B>(ledger: Ledger, request: Request<B>) -> Response<Full<Bytes>> {
    let segments: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let (status, body) = match (request.method(), &segments[..]) {
        (&Method::GET, ["usage"]) => match ledger.records(Filter::latest(RECORDS_MAX)).await {
            Ok(records) => (StatusCode::OK, records.iter().map(show).collect()),
            Err(error) => failed(&error),
        },
        (&Method::POST, ["usage", id, "delivered"]) => {
            resolve(&ledger, id, Resolution::Delivered).await
        }
        (&Method::POST, ["usage", id, "not-delivered"]) => {
            resolve(&ledger, id, Resolution::NotDelivered).await
        }
        _ => (
            StatusCode::NOT_FOUND,
            json!({"error": "there is no such route"}),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response
}

async fn resolve(ledger: &Ledger, id: &str, resolution: Resolution) -> (StatusCode, Value) {
    let Ok(bucket) = id.parse::<BucketId>() else {
        return (
            StatusCode::BAD_REQUEST,
            json!({"error": format!("{id:?} is no record's number; `tollgate usage` lists them")}),
        );
    };
    match ledger.resolve(bucket, resolution).await {
        Ok(()) => (StatusCode::OK, json!({"resolved": bucket.0})),
        Err(ResolutionError::Resolve(error)) => {
            (StatusCode::CONFLICT, json!({"error": error.to_string()}))
        }
        Err(ResolutionError::Ledger(error)) => failed(&error),
    }
}

fn show(record: &Record) -> Value {
    let (decided_at, aws_record_id, into) = match &record.state {
        RecordState::Open | RecordState::Sealed => (None, None, None),
        RecordState::Settled { at, aws_id } => (Some(at), aws_id.as_deref(), None),
        RecordState::RolledForward { at, into } => (Some(at), None, *into),
        RecordState::InDoubt { at } | RecordState::Rejected { at, .. } => (Some(at), None, None),
    };
    let code = match &record.state {
        RecordState::Rejected { code, .. } => Some(code),
        _ => None,
    };
    json!({
        "id": record.bucket.0,
        "state": record.state.name(),
        "customer_identifier": record.customer.as_ref().and_then(Customer::identifier),
        "customer_aws_account_id": record.customer.as_ref().and_then(Customer::account),
        "license_arn": record.customer.as_ref().and_then(Customer::license),
        "dimension": record.dimension.as_str(),
        "hour": record.hour.to_string(),
        "quantity": record.quantity(),
        "allocations": record.allocations,
        "attempts": record.attempts,
        "timestamp": record.timestamp.map(|at| at.to_string()),
        "identity": record.identity.as_ref().map(ToString::to_string),
        "aws_record_id": aws_record_id,
        "rolled_into": into.map(|bucket| bucket.0),
        "code": code,
        "problem": record.problem,
        "decided_at": decided_at.map(ToString::to_string),
    })
}

fn failed(error: &LedgerError) -> (StatusCode, Value) {
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        json!({"error": error.to_string()}),
    )
}

/// Asks the sidecar that runs on `state_dir`: HTTP status and body. Blocking, for the command line.
pub fn ask(state_dir: &Path, method: &str, path: &str) -> io::Result<(u16, Value)> {
    let mut stream = UnixStream::connect(socket_path(state_dir))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: tollgate\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let malformed = || io::Error::other("its answer is not HTTP");
    let status = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|status| status.parse().ok())
        .ok_or_else(malformed)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    Ok((status, serde_json::from_str(body).map_err(|_| malformed())?))
}

/// Where the socket is.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join(SOCKET_NAME)
}
