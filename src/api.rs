//! The local metering endpoint: what the main container reports to.
//!
//! | route | what |
//! |---|---|
//! | POST / with X-Amz-Target: AWSMPMeteringService.OPERATION | MeterUsage, BatchMeterUsage, ResolveCustomer, RegisterUsage: AWS JSON 1.1, for any AWS SDK |
//! | POST /v1/usage | the same for programs without an SDK: `{"dimension","quantity"\|"key"[,"timestamp","allocations"]}`, `Idempotency-Key` |
//! | GET /v1/usage/ID | how far the usage of that report is |
//! | POST /v1/entitlement/challenge | a fresh RegisterUsage with the app's `{"nonce"}`, for an app that checks its sidecar |
//! | POST /quitquitquit | ends the sidecar as SIGTERM does, where `TOLLGATE_QUITQUITQUIT` is on |
//!
//! A report is answered with 200 after the ledger's commit, never before. With client authentication every call has to be signed
//! ([`crate::auth`]); without it, requests that a web page or a proxy may have sent (a Host that is not this host's, X-Forwarded-For)
//! are refused.

mod aws;
mod challenge;
mod json;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use tokio::time::Instant;

use challenge::Limiter;

use crate::auth::{AuthError, Claim, ClientAuth};
use crate::clock;
use crate::entitlement::keys::KeyRing;
use crate::ledger::{CallKey, KeyKind, Ledger};
use crate::listener::Bounds;
use crate::marketplace::Marketplace;
use crate::meter::Report;
use crate::shutdown::DrainTrigger;
use crate::usage::{ProductCode, RecordId};
use crate::wire::{self, ApiError};

/// What requests are answered from. Cheap to clone.
#[derive(Debug)]
pub struct Api<M> {
    shared: Arc<Shared<M>>,
}

/// What an endpoint is made of.
#[derive(Debug)]
pub struct Setup<M> {
    /// Where usage goes.
    pub ledger: Ledger,
    /// What is metered.
    pub product: ProductCode,
    /// What is not for the ledger goes to AWS.
    pub marketplace: M,
    /// `TOLLGATE_SAAS_MODE=passthrough`: BatchMeterUsage too.
    pub passthrough: bool,
    /// What RegisterUsage's answers are verified with; none where the product has no RegisterUsage.
    pub keys: Option<KeyRing>,
    /// Whose calls are taken; without it anybody's on this host.
    pub auth: Option<ClientAuth>,
    /// What `POST /quitquitquit` triggers, where it is on.
    pub quit: Option<DrainTrigger>,
}

#[derive(Debug)]
struct Shared<M> {
    setup: Setup<M>,
    limiter: Limiter,
    began: Instant,
    /// Milliseconds from `began` to the last report; 0 is none.
    last_report_ms: AtomicU64,
    in_flight: AtomicUsize,
    closed: AtomicBool,
}

/// A request that is being answered.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Bounds of the metering endpoint: a thousand idle connections must not keep the app out.
pub const BOUNDS: Bounds = Bounds {
    connections_max: 4096,
    header_timeout: Duration::from_secs(10),
};

/// AWS takes requests of under 1 MB.
const BODY_BYTES_MAX: usize = 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const CLOSE_POLL: Duration = Duration::from_millis(5);
const INVOCATION_ID: HeaderName = HeaderName::from_static("amz-sdk-invocation-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// What only proxies and browsers send.
const FORWARDING: [HeaderName; 3] = [
    HeaderName::from_static("x-forwarded-for"),
    header::FORWARDED,
    header::ORIGIN,
];

impl<M> Clone for Api<M> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<M: Marketplace + Clone> Api<M> {
    /// An endpoint as `setup` says.
    pub fn new(setup: Setup<M>) -> Self {
        let shared = Shared {
            setup,
            limiter: Limiter::new(Instant::now()),
            began: Instant::now(),
            last_report_ms: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// When usage was last reported.
    pub fn last_report(&self) -> Option<Instant> {
        match self.shared.last_report_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(self.shared.began + Duration::from_millis(ms)),
        }
    }

    /// Refuses reports from now on, and waits for those that are being taken.
    pub async fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        let begun = Instant::now();
        while self.shared.in_flight.load(Ordering::Acquire) > 0 && begun.elapsed() < CLOSE_TIMEOUT {
            tokio::time::sleep(CLOSE_POLL).await;
        }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let aws = parts.uri.path() == "/";
        let result = match self.admit(&parts, body).await {
            Ok(body) => self.route(&parts, &body).await,
            Err(error) => Err(error),
        };
        let mut response = match result {
            Ok(response) => response,
            Err(error) if aws => aws_answer(error.status, error.name, &error.message),
            Err(error) => json::error(&error),
        };
        if response.status() == StatusCode::METHOD_NOT_ALLOWED
            && let Some(method) = method_of(parts.uri.path())
        {
            let method = HeaderValue::from_static(method);
            response.headers_mut().insert(header::ALLOW, method);
        }
        response
    }

    /// The body of a request that may be answered. Who has no key of the file is refused before the body is kept.
    async fn admit<B>(&self, parts: &Parts, body: B) -> Result<Bytes, ApiError>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(auth) = &self.shared.setup.auth else {
            check_origin(parts)?;
            return collect(body).await;
        };
        let refuse = |error: AuthError| {
            auth.note_refusal(&error);
            ApiError {
                status: if parts.uri.path() == "/" {
                    StatusCode::BAD_REQUEST
                } else {
                    StatusCode::FORBIDDEN
                },
                ..ApiError::new(error.name(), error.to_string())
            }
        };
        let keys = auth.keys();
        match Claim::read(parts, &keys, clock::now()) {
            Ok(claim) => {
                let body = collect(body).await?;
                claim.verify(&body).map_err(refuse)?;
                Ok(body)
            }
            Err(error) => {
                discard(body).await;
                Err(refuse(error))
            }
        }
    }

    async fn route(&self, parts: &Parts, body: &Bytes) -> Result<Response<Full<Bytes>>, ApiError> {
        let path = parts.uri.path();
        match (&parts.method, path) {
            (&Method::POST, "/") => self.aws(parts, body).await,
            (&Method::POST, "/v1/usage") => self.take_json(parts, body).await,
            (&Method::GET, _) if path.starts_with("/v1/usage/") => {
                self.find(&path["/v1/usage/".len()..]).await
            }
            (&Method::POST, "/v1/entitlement/challenge") => Box::pin(self.challenge(body)).await,
            (&Method::POST, "/quitquitquit") => self.quit(),
            _ => Err(match method_of(path) {
                Some(method) => ApiError {
                    status: StatusCode::METHOD_NOT_ALLOWED,
                    ..ApiError::validation(format!("only {method} is served here"))
                },
                None => ApiError {
                    status: StatusCode::NOT_FOUND,
                    ..ApiError::validation(
                        "there are POST /, POST /v1/usage, GET /v1/usage/ID, POST /v1/entitlement/challenge and POST /quitquitquit",
                    )
                },
            }),
        }
    }

    async fn take_json(
        &self,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let report = json::parse_report(body)?;
        let key = match idempotency_key(&parts.headers)? {
            Some(key) => Some(CallKey::new(
                KeyKind::IdempotencyKey,
                key,
                &fingerprint(&report),
            )),
            None => invocation(parts, body),
        };
        let id = self.take(report, key).await?;
        Ok(respond(
            StatusCode::OK,
            json::CONTENT_TYPE,
            format!("{{\"id\":\"{id}\"}}"),
        ))
    }

    async fn take(&self, report: Report, key: Option<CallKey>) -> Result<RecordId, ApiError> {
        let _in_flight = self.begin()?;
        let receipt = self.shared.setup.ledger.report(report, key).await?;
        Ok(receipt.id)
    }

    async fn take_all(
        &self,
        reports: Vec<Report>,
        key: Option<CallKey>,
    ) -> Result<Vec<Option<RecordId>>, ApiError> {
        let _in_flight = self.begin()?;
        Ok(self.shared.setup.ledger.report_all(reports, key).await?)
    }

    /// Notes that usage is being reported; refused once the shutdown has come so far.
    fn begin(&self) -> Result<InFlight<'_>, ApiError> {
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        let in_flight = InFlight(&self.shared.in_flight);
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(ApiError {
                status: StatusCode::SERVICE_UNAVAILABLE,
                ..ApiError::new(
                    "InternalServiceErrorException",
                    "the sidecar is shutting down and takes no more usage",
                )
            });
        }
        let since_ms = u64::try_from(self.shared.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.shared
            .last_report_ms
            .store(since_ms.max(1), Ordering::Relaxed);
        Ok(in_flight)
    }

    async fn find(&self, id: &str) -> Result<Response<Full<Bytes>>, ApiError> {
        let unknown = || ApiError {
            status: StatusCode::NOT_FOUND,
            ..ApiError::new(
                "RecordNotFound",
                "no report has this id here; it comes from the answer to the report",
            )
        };
        let id: RecordId = id.parse().map_err(|_| unknown())?;
        let found =
            self.shared.setup.ledger.lookup(id).await.map_err(|error| {
                ApiError::new("InternalServiceErrorException", error.to_string())
            })?;
        let record = found.ok_or_else(unknown)?;
        Ok(json::record(id, &record))
    }

    fn quit(&self) -> Result<Response<Full<Bytes>>, ApiError> {
        let Some(trigger) = &self.shared.setup.quit else {
            return Err(ApiError {
                status: StatusCode::NOT_FOUND,
                ..ApiError::validation("TOLLGATE_QUITQUITQUIT is off")
            });
        };
        tracing::info!("asked to quit; draining");
        trigger.begin();
        Ok(respond(
            StatusCode::OK,
            json::CONTENT_TYPE,
            "{\"draining\":true}".to_owned(),
        ))
    }
}

/// The one method that is served at `path`.
fn method_of(path: &str) -> Option<&'static str> {
    match path {
        "/" | "/v1/usage" | "/v1/entitlement/challenge" | "/quitquitquit" => Some("POST"),
        _ if path.starts_with("/v1/usage/") => Some("GET"),
        _ => None,
    }
}

/// A web page can make a browser post to loopback, under a name of its own or with its Origin, and a proxy can be talked into
/// it; neither may meter.
fn check_origin(parts: &Parts) -> Result<(), ApiError> {
    if let Some(name) = FORWARDING
        .iter()
        .find(|name| parts.headers.contains_key(*name))
    {
        let message = format!(
            "a request with {name} came through a proxy or from a web page; the app has to call directly"
        );
        return Err(ApiError::new("AccessDeniedException", message));
    }
    if header_text(&parts.headers, &header::HOST).is_none() {
        return Err(ApiError::validation("the Host header is missing"));
    }
    // An absolute request target names the host too, and nothing keeps a stranger from two headers.
    let headers = parts.headers.get_all(header::HOST).into_iter();
    let named = headers
        .map(|host| host.to_str().unwrap_or("no text"))
        .chain(parts.uri.authority().map(Authority::as_str));
    match named.into_iter().find(|host| !is_loopback(host)) {
        None => Ok(()),
        Some(host) => Err(ApiError::new(
            "AccessDeniedException",
            format!("the host is {host:?}; the app has to call 127.0.0.1, [::1] or localhost"),
        )),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

async fn collect<B>(body: B) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let whole = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::new(
            "RequestEntityTooLargeException",
            format!("the body is longer than {BODY_BYTES_MAX} bytes"),
        )),
        Ok(Err(error)) => Err(ApiError::new(
            "SerializationException",
            format!("the body broke off: {error}"),
        )),
        Err(_) => Err(ApiError {
            status: StatusCode::REQUEST_TIMEOUT,
            ..ApiError::validation(format!("the body did not come within {BODY_TIMEOUT:?}"))
        }),
    }
}

/// Reads a body that nobody wants to its end, so that the caller gets to read the answer.
async fn discard<B>(body: B)
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut body = pin!(Limited::new(body, BODY_BYTES_MAX));
    let end = async { while let Some(Ok(_)) = body.frame().await {} };
    // A body that does not end in time is cut off together with its connection.
    let _ = tokio::time::timeout(BODY_TIMEOUT, end).await;
}

/// What makes two reports the same: their parameters by value, not the bytes of the body.
fn fingerprint(report: &Report) -> Vec<u8> {
    let at = report.at.map(crate::usage::Moment::as_millis);
    postcard::to_stdvec(&(report.dimension.as_str(), at, &report.amount))
        .expect("a report is plain data")
}

/// A key that can't be read is refused: whoever sends one relies on a repeat's counting once.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    if keys.next().is_some() {
        return Err(ApiError::validation(
            "Idempotency-Key stands twice; give one",
        ));
    }
    match key.to_str() {
        Ok(key) if !key.is_empty() => Ok(Some(key)),
        _ => Err(ApiError::validation(
            "Idempotency-Key is empty or not printable ASCII; give one, or leave the header out",
        )),
    }
}

/// An SDK sends the same id with each of its own retries, and a new one with each call.
fn invocation(parts: &Parts, body: &Bytes) -> Option<CallKey> {
    let id = header_text(&parts.headers, &INVOCATION_ID)?;
    Some(CallKey::new(KeyKind::InvocationId, id, body))
}

fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .filter(|value| !value.is_empty())
}

fn aws_answer(status: StatusCode, name: &str, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({
        "__type": format!("com.amazonaws.marketplacemetering#{name}"),
        "message": message,
    });
    let mut response = respond(status, wire::CONTENT_TYPE, body.to_string());
    if let Ok(name) = HeaderValue::from_str(name) {
        response.headers_mut().insert("x-amzn-errortype", name);
    }
    response
}

fn respond(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_loopback() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8421",
            "127.9.9.9:1",
            "localhost",
            "LOCALHOST:8421",
            "[::1]",
            "[::1]:8421",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "10.0.0.1:8421",
            "127.0.0.1.nip.io",
            "::1:evil",
            "[::2]:1",
            "127.0.0.1:8421:1",
            "0.0.0.0",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
