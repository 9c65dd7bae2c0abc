//! The metering half of `tollgate run`: ledger, endpoint and submitter, from the first report to the last flush.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::Instant;

use super::AppError;
use crate::api::{self, Api};
use crate::clock;
use crate::config::RunConfig;
use crate::config::metering::SaasMode;
use crate::control;
use crate::descriptors;
use crate::entitlement::keys::KeyRing;
use crate::entitlement::status::{StateName, Status};
use crate::ledger::{Filter, Ledger, Opened, Options, Record, RecordState};
use crate::listener::{self, Bound, Bounds};
use crate::marketplace::Marketplace;
use crate::meter::Gate;
use crate::shutdown::DrainTrigger;
use crate::submitter::{self, Answered};
use crate::termination::Termination;
use crate::usage::{Identity, Moment};

/// Everything that meters, running.
#[derive(Debug)]
pub(super) struct Metering<M> {
    pub(super) ledger: Ledger,
    api: Api<M>,
}

/// How much of the time until the exit the last flush gets for certain.
const FLUSH_SHARE: f64 = 0.4;
/// Callers that are silent for so long after SIGTERM have ended.
const SILENCE: Duration = Duration::from_secs(2);
/// The same where nothing was ever reported.
const SILENCE_UNUSED: Duration = Duration::from_millis(200);
/// Left for the ledger's last checkpoint and the exit itself.
const EXIT_RESERVE: Duration = Duration::from_millis(700);
const POLL: Duration = Duration::from_millis(20);
/// A pod that leaves more records behind than this logs the latest.
const LEFT_BEHIND_MAX: usize = 10_000;

impl<M: Marketplace + Clone> Metering<M> {
    /// Opens the ledger of `identity` and begins to serve and to submit. Nothing is submitted before the gate opens.
    pub(super) async fn start(
        config: &RunConfig,
        identity: &str,
        marketplace: M,
        listener: Bound,
        quit: DrainTrigger,
        answers: watch::Sender<Option<Answered>>,
        keys: Option<KeyRing>,
    ) -> Result<Self, AppError> {
        let options = Options {
            product: config.product_code.clone(),
            identity: identity
                .parse::<Identity>()
                .map_err(|error| AppError::Identity(error.to_string()))?,
            rules: config.metering.rules.clone(),
            segment_bytes: Options::SEGMENT_BYTES,
            seed: None,
        };
        let directory = config.state_dir.clone();
        let opening = tokio::task::spawn_blocking(move || {
            Ledger::open(
                &directory,
                &options,
                Arc::new(|| Moment::from(clock::now())),
            )
        });
        let (ledger, attempts, opened) = opening.await.map_err(|_| AppError::Panicked)??;
        announce(&opened, &config.state_dir);
        let quit = config.metering.quitquitquit.then_some(quit);
        let api = Api::new(api::Setup {
            ledger: ledger.clone(),
            product: config.product_code.clone(),
            marketplace: marketplace.clone(),
            passthrough: config.metering.saas_mode == Some(SaasMode::Passthrough),
            keys,
            auth: config.metering.client_auth.clone(),
            quit,
        });
        let served = api.clone();
        let handle = move |request: Request<Incoming>| {
            let api = served.clone();
            async move { api.answer(request).await }
        };
        let bounds = Bounds {
            connections_max: api::BOUNDS
                .connections_max
                .min(descriptors::for_connections()),
            ..api::BOUNDS
        };
        match listener {
            Bound::Tcp(listener) => tokio::spawn(listener::serve(listener, bounds, handle)),
            Bound::Unix(listener) => tokio::spawn(listener::serve(listener, bounds, handle)),
        };
        let submitter = submitter::run(
            Arc::new(marketplace),
            config.product_code.clone(),
            ledger.clone(),
            attempts,
            answers,
        );
        tokio::spawn(submitter);
        serve_control(&config.state_dir, ledger.clone());
        Ok(Self { ledger, api })
    }

    /// Tells the ledger each entitlement decision, for as long as there are any.
    pub(super) async fn follow_gate(&self, mut status: watch::Receiver<Status>) -> Infallible {
        loop {
            let state = status.borrow_and_update().state;
            let gate = match state {
                StateName::Pending | StateName::Unavailable => Gate::Pending,
                StateName::Entitled | StateName::Grace => Gate::Open,
                StateName::Denied => Gate::Denied,
            };
            // A ledger that has failed ends the process by its own way.
            let told = self.ledger.gate(gate).await;
            if told.is_err() || status.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Resolves with the reason when the ledger can't be written any more.
    pub(super) async fn failed(&self) -> Arc<str> {
        let mut failure = self.ledger.failure();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| "unknown".into()),
            Err(_) => std::future::pending().await,
        }
    }

    /// Takes no more reports, and lets those that wait for an answer have it.
    pub(super) async fn refuse(&self) {
        self.api.close().await;
    }

    /// The shutdown: takes reports until callers fall silent, seals what is open, submits, and says what is left.
    pub(super) async fn drain(&self, grace: Duration, termination: &Termination) {
        let started = Instant::now();
        let deadline = started + grace.saturating_sub(EXIT_RESERVE);
        self.await_silence(started, started + grace.mul_f64(1.0 - FLUSH_SHARE))
            .await;
        self.api.close().await;
        if let Err(error) = self.ledger.drain().await {
            tracing::error!(%error, "the open hours can't be sealed; they stay in the ledger");
            return;
        }
        while Instant::now() < deadline {
            match self.ledger.summary().await {
                Ok(summary) if summary.sealed > 0 => tokio::time::sleep(POLL).await,
                Ok(_) | Err(_) => break,
            }
        }
        self.report_left_behind(termination).await;
    }

    async fn await_silence(&self, started: Instant, until: Instant) {
        loop {
            let silence = if self.api.last_report().is_some() {
                SILENCE
            } else {
                SILENCE_UNUSED
            };
            let quiet_since = self.api.last_report().map_or(started, |at| at.max(started));
            let end = (quiet_since + silence).min(until);
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }

    /// One line per record with all it takes to bill it by hand, and a summary where `kubectl describe` shows it.
    async fn report_left_behind(&self, termination: &Termination) {
        let Ok(records) = self.ledger.records(Filter::latest(LEFT_BEHIND_MAX)).await else {
            return;
        };
        let left: Vec<&Record> = records
            .iter()
            .filter(|record| match record.state {
                RecordState::Open => record.millionths > 0,
                RecordState::Sealed | RecordState::InDoubt { .. } => true,
                RecordState::Settled { .. }
                | RecordState::RolledForward { .. }
                | RecordState::Rejected { .. } => false,
            })
            .collect();
        for record in &left {
            let allocations = serde_json::to_string(&record.allocations).unwrap_or_default();
            tracing::warn!(
                record = record.bucket.0,
                state = record.state.name(),
                dimension = %record.dimension,
                hour = %record.hour,
                timestamp = record.timestamp.map(|at| at.to_string()),
                quantity = record.quantity(),
                allocations,
                problem = record.problem,
                "not billed at shutdown; it stays in the ledger"
            );
        }
        if !left.is_empty() {
            termination.write(&format!(
                "tollgate: {} metering records are not billed; they are in the ledger, and the log has one line for each",
                left.len()
            ));
        }
    }
}

fn announce(opened: &Opened, state_dir: &Path) {
    if let Some(damage) = &opened.damaged {
        tracing::error!(
            why = damage.why,
            moved_to = %state_dir.join(&damage.moved_to).display(),
            "the ledger that was here can't be used and is kept aside; usage that was only in it has to be billed by hand"
        );
    }
    tracing::info!(
        new = opened.new,
        replayed = opened.replayed,
        "the ledger is open"
    );
}

fn serve_control(state_dir: &Path, ledger: Ledger) {
    match control::bind(state_dir) {
        Ok(listener) => {
            let handle = move |request: Request<Incoming>| control::answer(ledger.clone(), request);
            tokio::spawn(listener::serve(listener, control::BOUNDS, handle));
        }
        Err(error) => {
            tracing::warn!(%error, path = %control::socket_path(state_dir).display(), "no control socket; `tollgate usage` will not work");
        }
    }
}
