//! The listener: one address for the service, its surroundings and the administration.
//!
//! | route | what |
//! |---|---|
//! | POST / with X-Amz-Target | the metering service, AWS JSON 1.1 |
//! | POST / with a form | STS |
//! | /ecs/, /latest/ | the ECS agent, ECS credentials, IMDSv2 |
//! | /simulator/ | the administration |

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::config::{Config, Platform};
use crate::customers::CustomerError;
use crate::fault::{Fault, Kind};
use crate::sigv4::Authorization;
use crate::token::{Attack, KeyError};
use crate::wire::{AwsError, json_response};
use crate::world::{Call, World};
use crate::{admin, batch, customers, meter, model, register, surroundings};

/// A running simulator; it stops when this is dropped.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    _stop: watch::Sender<()>,
}

/// Why the simulator can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can't be had.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A signing key can't be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A customer or a registration token can't be.
    #[error(transparent)]
    Customer(#[from] CustomerError),
}

/// Who calls, once the signature has been checked.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) identity: String,
    pub(crate) platform: Platform,
    pub(crate) region: String,
    pub(crate) started_at: Option<Timestamp>,
}

/// The connection closes without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was closed on purpose")]
struct Hangup;

const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

impl Simulator {
    /// Starts serving on the current tokio runtime.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let world = World::new(config)?;
        let listen = |source| StartError::Listen {
            address: config.listen.clone(),
            source,
        };
        let listener = TcpListener::bind(&config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let world = Arc::new(Mutex::new(world));
        let (stop, stopped) = watch::channel(());
        tokio::spawn(accept(listener, Arc::clone(&world), stopped));
        Ok(Self {
            address,
            world,
            _stop: stop,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://` and the address: what AWS_ENDPOINT_URL_MARKETPLACE_METERING is set to.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything the simulated AWS knows, to be read and changed.
    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }
}

/// A panic elsewhere leaves the world as it was at its last complete step.
fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, world: Arc<Mutex<World>>, mut stopped: watch::Receiver<()>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            // The sender is dropped with the simulator.
            _ = stopped.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    while connections.try_join_next().is_some() {}
                    connections.spawn(serve(stream, Arc::clone(&world)));
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, world: Arc<Mutex<World>>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let service = service_fn(move |request| answer(Arc::clone(&world), request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn answer(
    world: Arc<Mutex<World>>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Hangup> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        let error = AwsError::new(
            "RequestEntityTooLargeException",
            "the body is too large or broke off",
        );
        return Ok(error.to_response().map(Answer::Whole));
    };
    let body = body.to_bytes();
    let path = parts.uri.path();
    if path.starts_with("/simulator/") {
        return Ok(admin::answer(&mut lock(&world), &parts.method, path, &body).map(Answer::Whole));
    }
    if path != "/" {
        return Ok(surroundings::answer(&mut lock(&world), &parts, path).map(Answer::Whole));
    }
    let target = parts
        .headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .unwrap_or_default();
    if target.is_empty() && body.starts_with(b"Action=") {
        return Ok(surroundings::sts(&mut lock(&world), &body).map(Answer::Whole));
    }
    let operation = target
        .strip_prefix("AWSMPMeteringService.")
        .unwrap_or_default()
        .to_owned();
    metering(&world, &parts, &operation, &body).await
}

/// A call of the service itself, with the faults that strike it. A delay holds the answer back, not the call.
async fn metering(
    world: &Mutex<World>,
    parts: &Parts,
    operation: &str,
    body: &Bytes,
) -> Result<Response<Answer>, Hangup> {
    let faults = lock(world).faults.strike(operation);
    let answer = carry_out(&mut lock(world), &faults, parts, operation, body);
    if let Some(pause) = faults.iter().find_map(|fault| fault.delay_ms) {
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    answer
}

fn carry_out(
    world: &mut World,
    faults: &[Fault],
    parts: &Parts,
    operation: &str,
    body: &Bytes,
) -> Result<Response<Answer>, Hangup> {
    if let Some(early) = before(faults) {
        log(world, parts, operation, body, &early);
        return match early {
            Early::Hangup => Err(Hangup),
            Early::Page(status) => Ok(page(status).map(Answer::Whole)),
            Early::Garbage => Ok(garbage().map(Answer::Whole)),
            Early::Error(error) => Ok(stamped(world, error.to_response()).map(Answer::Whole)),
        };
    }
    let attack = faults.iter().find_map(|fault| fault.attack);
    let response = match dispatch(world, parts, operation, body, attack) {
        Ok(answer) => json_response(StatusCode::OK, &answer),
        Err(error) => error.to_response(),
    };
    let struck = |kind| faults.iter().any(|fault| fault.kind == kind);
    if struck(Kind::ReplyLost) {
        return Err(Hangup);
    }
    if struck(Kind::InternalErrorAfter) {
        return Ok(stamped(world, internal_error().to_response()).map(Answer::Whole));
    }
    let body = if struck(Kind::Truncated) {
        Answer::Half
    } else {
        Answer::Whole
    };
    Ok(stamped(world, response).map(body))
}

/// What happens to a call before it is carried out.
enum Early {
    Hangup,
    Page(StatusCode),
    Garbage,
    Error(AwsError),
}

fn before(faults: &[Fault]) -> Option<Early> {
    faults.iter().find_map(|fault| match fault.kind {
        Kind::ConnectionReset => Some(Early::Hangup),
        Kind::UnavailablePage => Some(Early::Page(StatusCode::SERVICE_UNAVAILABLE)),
        Kind::HtmlPage => Some(Early::Page(StatusCode::OK)),
        Kind::Garbage => Some(Early::Garbage),
        Kind::InternalError => Some(Early::Error(internal_error())),
        Kind::Error => {
            let name = fault.error.as_deref().unwrap_or_default();
            Some(Early::Error(AwsError::new(
                name,
                format!("{name}, as the simulator was told"),
            )))
        }
        Kind::InternalErrorAfter
        | Kind::Truncated
        | Kind::ReplyLost
        | Kind::Delay
        | Kind::Attack
        | Kind::Unprocessed
        | Kind::CustomerNotSubscribed
        | Kind::DuplicateRecord => None,
    })
}

fn dispatch(
    world: &mut World,
    parts: &Parts,
    operation: &str,
    body: &Bytes,
    attack: Option<Attack>,
) -> Result<Value, AwsError> {
    let caller = authenticate(world, parts, operation, body);
    let result = caller
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|caller| match operation {
            "RegisterUsage" => register::register_usage(world, caller, body, attack),
            "MeterUsage" => meter::meter_usage(world, caller, body),
            "BatchMeterUsage" => batch::batch_meter_usage(world, caller, body),
            "ResolveCustomer" => customers::resolve_customer(world, caller, body),
            _ => {
                let known: Vec<_> = model::OPERATIONS
                    .iter()
                    .map(|operation| operation.name)
                    .collect();
                Err(AwsError::new(
                    "UnknownOperationException",
                    format!("{operation:?} is not modelled; there are {known:?}"),
                ))
            }
        });
    let outcome = match &result {
        Ok(_) => "Success".to_owned(),
        Err(error) => error.name.clone(),
    };
    world.log_call(call(world, operation, body, caller.ok(), outcome));
    result
}

fn log(world: &mut World, parts: &Parts, operation: &str, body: &Bytes, early: &Early) {
    let outcome = match early {
        Early::Hangup => "ConnectionReset".to_owned(),
        Early::Page(status) => format!("Page{}", status.as_u16()),
        Early::Garbage => "Garbage".to_owned(),
        Early::Error(error) => error.name.clone(),
    };
    let caller = authenticate(world, parts, operation, body).ok();
    world.log_call(call(world, operation, body, caller, outcome));
}

fn call(
    world: &World,
    operation: &str,
    body: &Bytes,
    caller: Option<Caller>,
    outcome: String,
) -> Call {
    Call {
        sequence: 0,
        at: world.now(),
        operation: operation.to_owned(),
        identity: caller.as_ref().map(|caller| caller.identity.clone()),
        region: caller.map(|caller| caller.region),
        request: serde_json::from_slice(body).unwrap_or(Value::Null),
        outcome,
    }
}

fn authenticate(
    world: &World,
    parts: &Parts,
    operation: &str,
    body: &Bytes,
) -> Result<Caller, AwsError> {
    let now = world.now();
    let refused =
        |error: crate::sigv4::SignatureError| AwsError::new(error.name(), error.to_string());
    let authorization = Authorization::parse(&parts.headers).map_err(refused)?;
    let unknown = || {
        AwsError::new(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )
    };
    let credential = world
        .credentials
        .get(&authorization.access_key_id)
        .ok_or_else(unknown)?;
    authorization
        .check(
            &credential.secret,
            &parts.method,
            parts.uri.path(),
            &parts.headers,
            body,
            now,
        )
        .map_err(refused)?;
    if credential.session_token.as_deref() != session_token(&parts.headers) {
        return Err(unknown());
    }
    if credential.expires_at.is_some_and(|end| now >= end) {
        return Err(AwsError::new(
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ));
    }
    if !credential.actions.is_empty()
        && !credential.actions.iter().any(|action| action == operation)
    {
        let message = format!(
            "{} is not authorized to perform: aws-marketplace:{operation}",
            credential.identity
        );
        return Err(AwsError::new("AccessDeniedException", message));
    }
    Ok(Caller {
        identity: credential.identity.clone(),
        platform: credential.platform,
        region: authorization.region,
        started_at: credential.started_at,
    })
}

fn session_token(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-amz-security-token")?.to_str().ok()
}

fn internal_error() -> AwsError {
    AwsError::new(
        "InternalServiceErrorException",
        "an internal error occurred, as the simulator was told",
    )
}

fn page(status: StatusCode) -> Response<Bytes> {
    let mut page = Response::new(Bytes::from_static(
        b"<html><body><h1>This is not the page you are looking for</h1></body></html>\n",
    ));
    *page.status_mut() = status;
    page.headers_mut()
        .insert("content-type", http::HeaderValue::from_static("text/html"));
    page
}

fn garbage() -> Response<Bytes> {
    let mut response = json_response(StatusCode::OK, &Value::Null);
    *response.body_mut() = Bytes::from_static(b"{\"Signature\": \"AAAA");
    response
}

/// Every answer of AWS carries a request id and its own time.
fn stamped(world: &World, mut response: Response<Bytes>) -> Response<Bytes> {
    let headers = response.headers_mut();
    let id = format!(
        "simulated-request-{}",
        world.calls().last().map_or(0, |call| call.sequence)
    );
    for (name, value) in [
        ("x-amzn-requestid", id),
        (
            "date",
            world
                .now()
                .strftime("%a, %d %b %Y %H:%M:%S GMT")
                .to_string(),
        ),
    ] {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    response
}

/// An answer's body: whole, or one that breaks off after its first half.
#[derive(Debug)]
enum Answer {
    Whole(Bytes),
    Half(Bytes),
    Broken,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Hangup;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Hangup>>> {
        let (frame, rest) = match std::mem::replace(&mut *self, Self::Whole(Bytes::new())) {
            Self::Whole(bytes) if bytes.is_empty() => (None, Self::Whole(bytes)),
            Self::Whole(bytes) => (Some(Ok(Frame::data(bytes))), Self::Whole(Bytes::new())),
            Self::Half(bytes) => (
                Some(Ok(Frame::data(bytes.slice(..bytes.len() / 2)))),
                Self::Broken,
            ),
            Self::Broken => (Some(Err(Hangup)), Self::Broken),
        };
        *self = rest;
        std::task::Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) | Self::Half(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Broken => SizeHint::default(),
        }
    }
}

/// Only these methods mean anything to the administration and the surroundings.
pub(crate) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}
