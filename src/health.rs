//! The health listener: read-only, for orchestrators and people.
//!
//! | route | answer |
//! |---|---|
//! | GET /livez | 200 while the process works |
//! | GET /startupz | 200 from the first positive decision on |
//! | GET /readyz | 200 while entitled or in grace, with a ledger that can be written, and not draining; else 503 |
//! | GET /status | the status as JSON, without nonce and signature, with `metering` |
//! | GET /metrics | Prometheus |
//! | GET /openapi.yaml | the API of both listeners |
//! | GET / | a page for people |
//!
//! HEAD is answered as GET without a body. Anything else is 404 or 405.

mod page;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::auth::ClientAuth;
use crate::clock;
use crate::config::metering::{MeteringConfig, OnMeteringFailure};
use crate::entitlement::status::Status;
use crate::ledger::{Ledger, Summary};
use crate::listener::Bounds;
use crate::metrics;
use crate::shutdown::Drain;
use crate::usage::{Moment, Period};

/// What the probes are answered from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    status: watch::Receiver<Status>,
    ledger: watch::Receiver<Option<Ledger>>,
    on_failure: OnMeteringFailure,
    period: Period,
    client_auth: Option<ClientAuth>,
    drain: Drain,
    started: Arc<AtomicBool>,
}

/// What one answer is made of.
struct View {
    status: Status,
    /// None before the ledger is open, and after it has failed.
    summary: Option<Summary>,
    /// Why /readyz does not answer 200.
    unready: Option<&'static str>,
}

/// Bounds of the health listener: few callers, all of them fast.
pub const BOUNDS: Bounds = Bounds {
    connections_max: 128,
    header_timeout: Duration::from_secs(10),
};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// RFC 9512.
const YAML: &str = "application/yaml";
const OPENAPI: &str = include_str!("../openapi.yaml");

impl Health {
    /// Health of what `status`, `ledger` and `drain` tell.
    pub fn new(
        status: watch::Receiver<Status>,
        ledger: watch::Receiver<Option<Ledger>>,
        config: &MeteringConfig,
        drain: Drain,
    ) -> Self {
        Self {
            status,
            ledger,
            on_failure: config.on_failure,
            period: config.rules.period,
            client_auth: config.client_auth.clone(),
            drain,
            started: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Answers one request.
    pub async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refusal = plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD\n".to_owned(),
            );
            refusal
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/livez" => plain(StatusCode::OK, "ok\n".to_owned()),
            "/startupz" => probe(&self.view().await, self.has_started()),
            "/readyz" => {
                let view = self.view().await;
                probe(&view, view.unready.is_none())
            }
            "/status" => respond(
                StatusCode::OK,
                JSON,
                format!("{:#}\n", public(&self.view().await)),
            ),
            "/metrics" => {
                let view = self.view().await;
                let page = metrics::render(
                    &view.status,
                    view.unready.is_none(),
                    view.summary.as_ref(),
                    self.client_auth.as_ref().map(ClientAuth::refused),
                );
                respond(StatusCode::OK, metrics::CONTENT_TYPE, page)
            }
            "/openapi.yaml" => respond(StatusCode::OK, YAML, OPENAPI),
            "/" => {
                let view = self.view().await;
                let page = page::render(&view.status, view.unready, view.summary.as_ref());
                respond(StatusCode::OK, HTML, page)
            }
            _ => plain(
                StatusCode::NOT_FOUND,
                "there are /livez, /startupz, /readyz, /status, /metrics, /openapi.yaml and /\n"
                    .to_owned(),
            ),
        }
    }

    async fn view(&self) -> View {
        let ledger = self.ledger.borrow().clone();
        let summary = match &ledger {
            Some(ledger) => ledger.summary().await.ok(),
            None => None,
        };
        let status = self.status.borrow().clone();
        let unready = if self.drain.has_begun() {
            Some("draining")
        } else if !status.state.is_positive() {
            Some(status.state.as_str())
        } else {
            match (&ledger, &summary) {
                (None, _) => Some("opening the ledger"),
                (Some(_), None) => Some("the ledger can't be written"),
                (Some(_), Some(summary)) if self.is_overdue(summary) => {
                    Some("usage can't be delivered")
                }
                (Some(_), Some(_)) => None,
            }
        };
        View {
            status,
            summary,
            unready,
        }
    }

    /// Whether usage has waited for longer than `TOLLGATE_ON_METERING_FAILURE` allows, counted from the end of its hour.
    fn is_overdue(&self, summary: &Summary) -> bool {
        let (OnMeteringFailure::Closed(longest), Some(oldest)) =
            (self.on_failure, summary.oldest_unsettled_at)
        else {
            return false;
        };
        let hour_ended = self.period.end(self.period.hour_of(oldest));
        let waited_ms = Moment::from(clock::now()).ms_since(hour_ended);
        u128::try_from(waited_ms).is_ok_and(|waited_ms| waited_ms > longest.as_millis())
    }

    fn has_started(&self) -> bool {
        if self.status.borrow().state.is_positive() {
            self.started.store(true, Ordering::Relaxed);
        }
        self.started.load(Ordering::Relaxed)
    }
}

fn probe(view: &View, passed: bool) -> Response<Full<Bytes>> {
    let code = if passed {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let state = view.unready.unwrap_or(view.status.state.as_str());
    let reason = view
        .status
        .reason
        .as_deref()
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default();
    plain(code, format!("{state}{reason}\n"))
}

/// The status file's content without its secrets, and how metering stands.
fn public(view: &View) -> Value {
    let mut status = view.status.public();
    if let Some(fields) = status.as_object_mut() {
        let metering = view.summary.as_ref().map(|summary| {
            json!({
                "open": summary.open,
                "sealed": summary.sealed,
                "settled": summary.settled,
                "rolled_forward": summary.rolled_forward,
                "in_doubt": summary.in_doubt,
                "rejected": summary.rejected,
                "oldest_unsettled_at": summary.oldest_unsettled_at.map(|at| at.to_string()),
                "last_settled_at": summary.last_settled_at.map(|at| at.to_string()),
            })
        });
        fields.insert("metering".to_owned(), json!(metering));
    }
    status
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    respond(status, TEXT, text)
}

fn respond(
    status: StatusCode,
    kind: &'static str,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
