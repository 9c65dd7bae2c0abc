//! The health listener: read-only, for orchestrators and people.
//!
//! | route | answer |
//! |---|---|
//! | GET /livez | 200 while the process works |
//! | GET /startupz | 200 from the first positive decision on |
//! | GET /readyz | 200 while entitled or in grace and not draining, else 503 |
//! | GET /status | the status as JSON, without nonce and signature |
//! | GET / | a page for people |
//!
//! HEAD is answered as GET without a body. Anything else is 404 or 405.

mod page;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::sync::watch;

use crate::entitlement::status::Status;
use crate::listener::Bounds;
use crate::shutdown::Drain;

/// What the probes are answered from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    status: watch::Receiver<Status>,
    drain: Drain,
    started: Arc<AtomicBool>,
}

/// Bounds of the health listener: few callers, all of them fast.
pub const BOUNDS: Bounds = Bounds {
    connections_max: 128,
    header_timeout: Duration::from_secs(10),
};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

impl Health {
    /// Health of what `status` and `drain` tell.
    pub fn new(status: watch::Receiver<Status>, drain: Drain) -> Self {
        Self {
            status,
            drain,
            started: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Answers one request.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD\n".to_owned(),
            );
            refusal
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/livez" => plain(StatusCode::OK, "ok\n".to_owned()),
            "/startupz" => self.probe(self.has_started()),
            "/readyz" => self.probe(self.is_ready()),
            "/status" => respond(
                StatusCode::OK,
                JSON,
                format!("{:#}\n", self.status.borrow().public()),
            ),
            "/" => respond(
                StatusCode::OK,
                HTML,
                page::render(&self.status.borrow(), self.is_ready()),
            ),
            _ => plain(
                StatusCode::NOT_FOUND,
                "there are /livez, /startupz, /readyz, /status and /\n".to_owned(),
            ),
        }
    }

    fn is_ready(&self) -> bool {
        self.status.borrow().state.is_positive() && !self.drain.has_begun()
    }

    fn has_started(&self) -> bool {
        if self.status.borrow().state.is_positive() {
            self.started.store(true, Ordering::Relaxed);
        }
        self.started.load(Ordering::Relaxed)
    }

    fn probe(&self, passed: bool) -> Response<Full<Bytes>> {
        let status = self.status.borrow();
        let state = if self.drain.has_begun() {
            "draining"
        } else {
            status.state.as_str()
        };
        let code = if passed {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let reason = status
            .reason
            .as_deref()
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default();
        plain(code, format!("{state}{reason}\n"))
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    respond(status, TEXT, text)
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
