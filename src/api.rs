//! The local metering endpoint: what the main container reports to.
//!
//! | route | what |
//! |---|---|
//! | POST / with X-Amz-Target: AWSMPMeteringService.MeterUsage | MeterUsage, AWS JSON 1.1, for any AWS SDK |
//! | POST /v1/usage | the same for programs without an SDK: `{"dimension","quantity"\|"key"[,"timestamp","allocations"]}`, `Idempotency-Key` |
//! | GET /v1/usage/ID | how far the usage of that report is |
//! | POST /quitquitquit | ends the sidecar as SIGTERM does, where `TOLLGATE_QUITQUITQUIT` is on |
//!
//! A report is answered with 200 after the ledger's commit, never before. Requests that a web page or a proxy may have sent
//! (a Host that is not this host's, X-Forwarded-For) are refused.

mod json;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use tokio::time::Instant;

use crate::ledger::{CallKey, KeyKind, Ledger, ReportError};
use crate::listener::Bounds;
use crate::marketplace::{CallError, Marketplace};
use crate::meter::Report;
use crate::shutdown::DrainTrigger;
use crate::usage::{ProductCode, RecordId};
use crate::wire::{self, ApiError, MeterUsage};

/// What requests are answered from. Cheap to clone.
#[derive(Debug)]
pub struct Api<M> {
    shared: Arc<Shared<M>>,
}

#[derive(Debug)]
struct Shared<M> {
    ledger: Ledger,
    product: ProductCode,
    marketplace: M,
    quit: Option<DrainTrigger>,
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
const TARGET_PREFIX: &str = "AWSMPMeteringService.";
const INVOCATION_ID: HeaderName = HeaderName::from_static("amz-sdk-invocation-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const FORWARDING: [HeaderName; 2] = [
    HeaderName::from_static("x-forwarded-for"),
    header::FORWARDED,
];

impl<M> Clone for Api<M> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<M: Marketplace + Clone> Api<M> {
    /// The endpoint of `product` over `ledger`; dry runs go through `marketplace`.
    pub fn new(
        ledger: Ledger,
        product: ProductCode,
        marketplace: M,
        quit: Option<DrainTrigger>,
    ) -> Self {
        let shared = Shared {
            ledger,
            product,
            marketplace,
            quit,
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
        let result = match check_origin(&parts) {
            Ok(()) => self.route(&parts, body).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(response) => response,
            Err(error) if aws => aws_answer(error.status, error.name, &error.message),
            Err(error) => json::error(&error),
        }
    }

    async fn route<B>(&self, parts: &Parts, body: B) -> Result<Response<Full<Bytes>>, ApiError>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = parts.uri.path();
        match (&parts.method, path) {
            (&Method::POST, "/") => self.aws(parts, &collect(body).await?).await,
            (&Method::POST, "/v1/usage") => self.take_json(parts, &collect(body).await?).await,
            (&Method::GET, _) if path.starts_with("/v1/usage/") => {
                self.find(&path["/v1/usage/".len()..]).await
            }
            (&Method::POST, "/quitquitquit") => self.quit(),
            (_, "/" | "/v1/usage" | "/quitquitquit") => Err(ApiError {
                status: StatusCode::METHOD_NOT_ALLOWED,
                ..ApiError::validation("only POST is served here")
            }),
            _ => Err(ApiError {
                status: StatusCode::NOT_FOUND,
                ..ApiError::validation(
                    "there are POST /, POST /v1/usage, GET /v1/usage/ID and POST /quitquitquit",
                )
            }),
        }
    }

    async fn aws(&self, parts: &Parts, body: &Bytes) -> Result<Response<Full<Bytes>>, ApiError> {
        let target = parts
            .headers
            .get("x-amz-target")
            .and_then(|target| target.to_str().ok());
        match target.and_then(|target| target.strip_prefix(TARGET_PREFIX)) {
            Some("MeterUsage") => self.meter_usage(parts, body).await,
            _ => Err(ApiError::new(
                "UnknownOperationException",
                format!(
                    "X-Amz-Target is {:?}; this endpoint serves AWSMPMeteringService.MeterUsage",
                    target.unwrap_or_default()
                ),
            )),
        }
    }

    async fn meter_usage(
        &self,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let usage = MeterUsage::parse(body, &self.shared.product)?;
        if usage.dry_run {
            // Boxed, so that the future of every report is no larger for it.
            return Box::pin(self.dry_run(body.clone())).await;
        }
        let key = match &usage.client_token {
            Some(token) => Some(CallKey::new(
                KeyKind::ClientToken,
                token.as_str(),
                &fingerprint(&usage.report),
            )),
            None => invocation(parts, body),
        };
        let id = self.take(usage.report, key).await?;
        Ok(respond(
            StatusCode::OK,
            wire::CONTENT_TYPE,
            format!("{{\"MeteringRecordId\":\"{id}\"}}"),
        ))
    }

    /// AWS itself answers a dry run: it tells whether the role may meter.
    async fn dry_run(&self, body: Bytes) -> Result<Response<Full<Bytes>>, ApiError> {
        match self.shared.marketplace.meter_usage(body).await {
            Ok(record_id) => {
                let answer = serde_json::json!({"MeteringRecordId": record_id});
                Ok(respond(
                    StatusCode::OK,
                    wire::CONTENT_TYPE,
                    answer.to_string(),
                ))
            }
            Err(CallError::Refused(error) | CallError::Throttled(error)) => Ok(aws_answer(
                StatusCode::BAD_REQUEST,
                &error.code,
                &error.message,
            )),
            Err(error) => Err(ApiError::new(
                "InternalServiceErrorException",
                format!("AWS could not be asked: {error}"),
            )),
        }
    }

    async fn take_json(
        &self,
        parts: &Parts,
        body: &Bytes,
    ) -> Result<Response<Full<Bytes>>, ApiError> {
        let report = json::parse_report(body)?;
        let key = match header_text(&parts.headers, &IDEMPOTENCY_KEY) {
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
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
        let _in_flight = InFlight(&self.shared.in_flight);
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
        match self.shared.ledger.report(report, key).await {
            Ok(receipt) => Ok(receipt.id),
            Err(ReportError::Refused(refusal)) => Err(ApiError::from(&refusal)),
            Err(error @ ReportError::Conflict) => Err(ApiError::new(
                "IdempotencyConflictException",
                error.to_string(),
            )),
            Err(error @ ReportError::Failed(_)) => Err(ApiError::new(
                "InternalServiceErrorException",
                error.to_string(),
            )),
        }
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
            self.shared.ledger.lookup(id).await.map_err(|error| {
                ApiError::new("InternalServiceErrorException", error.to_string())
            })?;
        let record = found.ok_or_else(unknown)?;
        Ok(json::record(id, &record))
    }

    fn quit(&self) -> Result<Response<Full<Bytes>>, ApiError> {
        let Some(trigger) = &self.shared.quit else {
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

/// A web page can make a browser post to loopback under a name of its own, and a proxy can be talked into it; neither may meter.
fn check_origin(parts: &Parts) -> Result<(), ApiError> {
    if let Some(name) = FORWARDING
        .iter()
        .find(|name| parts.headers.contains_key(*name))
    {
        let message =
            format!("a request with {name} came through a proxy; the app has to call directly");
        return Err(ApiError::new("AccessDeniedException", message));
    }
    let Some(host) = header_text(&parts.headers, &header::HOST) else {
        return Err(ApiError::validation("the Host header is missing"));
    };
    if is_loopback(host) {
        return Ok(());
    }
    let message =
        format!("the Host header is {host:?}; the app has to call 127.0.0.1, [::1] or localhost");
    Err(ApiError::new("AccessDeniedException", message))
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

/// What makes two reports the same: their parameters by value, not the bytes of the body.
fn fingerprint(report: &Report) -> Vec<u8> {
    let at = report.at.map(crate::usage::Moment::as_millis);
    postcard::to_stdvec(&(report.dimension.as_str(), at, &report.amount))
        .expect("a report is plain data")
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

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
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
