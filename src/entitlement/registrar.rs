//! The gate's shell: asks AWS when the gate says so, verifies, keeps the grant, publishes the status.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::advice::{self, NO_CREDENTIALS, UNREACHABLE, UNVERIFIED};
use super::grant::{Grant, Proof, Wanted};
use super::keys::PublicKeys;
use super::nonce::Nonce;
use super::platform::Host;
use super::register::{RegisterError, register};
use super::status::{SCHEMA, StateName, Status};
use super::{Gate, Policy, Step, Verdict};
use crate::clock::{self, Uptime};
use crate::config::{EntitlementCheck, RunConfig};
use crate::exit::Exit;
use crate::ledger::Ledger;
use crate::marketplace::{CallError, Marketplace};
use crate::meter::{Answer, Startup};
use crate::submitter::Answered;
use crate::usage::{Dimension, ProductCode};

/// Everything the registration needs. The status that it publishes starts as pending.
#[derive(Debug)]
pub struct Registrar<M> {
    marketplace: M,
    product_code: ProductCode,
    check: EntitlementCheck,
    nonce: Option<Nonce>,
    host: Host,
    state_dir: PathBuf,
    status_file: PathBuf,
    uptime: Uptime,
    status: watch::Sender<Status>,
    failure: Option<Failure>,
    ledger: watch::Receiver<Option<Ledger>>,
    answers: watch::Receiver<Option<Answered>>,
}

/// What stands in the way, in AWS's words and ours.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    reason: String,
    detail: String,
}

/// A file that the registration depends on can't be written.
#[derive(Debug, thiserror::Error)]
#[error("{what} {} can't be written: {source}; {advice}", path.display())]
pub struct StorageError {
    what: &'static str,
    path: PathBuf,
    source: std::io::Error,
    advice: &'static str,
}

/// What an attempt came to, with what it brought.
enum Outcome {
    Granted(Option<Proof>),
    Refused(Failure),
    Undecided(Failure),
}

/// How long a held refusal stands before AWS is asked again.
pub const HOLD: Duration = Duration::from_mins(5);
/// tollgate's own reason: the ledger stands in the way.
const LEDGER: &str = "Ledger";

impl<M: Marketplace> Registrar<M> {
    /// Prepares the registration of `config`'s product on `host`.
    pub fn new(
        marketplace: M,
        config: &RunConfig,
        host: Host,
        uptime: Uptime,
        status: watch::Sender<Status>,
        ledger: watch::Receiver<Option<Ledger>>,
        answers: watch::Receiver<Option<Answered>>,
    ) -> Self {
        Self {
            marketplace,
            product_code: config.product_code.clone(),
            check: config.check.clone(),
            nonce: config.nonce.clone(),
            host,
            state_dir: config.state_dir.clone(),
            status_file: config.status_file.clone(),
            uptime,
            status,
            failure: None,
            ledger,
            answers,
        }
    }

    /// Runs until the gate rests or wants the process to end. `reloaded` brings new public keys. A future that is
    /// dropped leaves status file and grant whole.
    pub async fn run(
        mut self,
        policy: Policy,
        random: fastrand::Rng,
        mut reloaded: watch::Receiver<Option<PublicKeys>>,
    ) -> Result<Option<Exit>, StorageError> {
        let (mut gate, mut grant) = match self.kept_grant() {
            Some(grant) => (Gate::open(policy, random), Some(grant)),
            None => (Gate::new(policy, random), None),
        };
        let mut published = None;
        loop {
            let step = gate.next(self.uptime.elapsed());
            let state = gate.state();
            if published.as_ref() != Some(&(state, self.failure.clone())) {
                self.publish(state, grant.as_ref())?;
                published = Some((state, self.failure.clone()));
            }
            match step {
                Step::Rest => return Ok(None),
                Step::End(exit) => return Ok(Some(exit)),
                Step::WaitUntil(at) => {
                    tokio::select! {
                        () = self.uptime.sleep_until(at) => {}
                        Ok(()) = reloaded.changed() => {
                            self.take_keys(&mut reloaded);
                            gate.ask_now(self.uptime.elapsed());
                        }
                    }
                }
                Step::Ask { give_up_at } => {
                    let outcome = self.ask_until(give_up_at).await;
                    grant = self.keep(outcome, &mut gate)?;
                    self.take_keys(&mut reloaded);
                }
            }
        }
    }

    fn kept_grant(&self) -> Option<Grant> {
        if let EntitlementCheck::None = self.check {
            return Some(Grant::new(self.wanted(), clock::now(), None));
        }
        match Grant::kept(&self.state_dir, self.wanted()) {
            Ok(Some(grant)) => {
                tracing::info!(registered_at = %grant.registered_at, "the kept grant still verifies; AWS is not asked again");
                Some(grant)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "the kept grant does not count; AWS is asked again");
                None
            }
        }
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            product_code: &self.product_code,
            check: &self.check,
            nonce: self.nonce.as_ref(),
            host: &self.host,
        }
    }

    fn take_keys(&mut self, reloaded: &mut watch::Receiver<Option<PublicKeys>>) {
        let fresh = reloaded.borrow_and_update().clone();
        if let (Some(fresh), EntitlementCheck::RegisterUsage { keys, .. }) =
            (fresh, &mut self.check)
        {
            *keys = fresh;
        }
    }

    /// Takes an attempt's outcome in: a grant is kept before the gate hears of it.
    fn keep(&mut self, outcome: Outcome, gate: &mut Gate) -> Result<Option<Grant>, StorageError> {
        let (verdict, failure, grant) = match outcome {
            Outcome::Granted(proof) => {
                let grant = Grant::new(self.wanted(), clock::now(), proof);
                grant.keep(&self.state_dir).map_err(|source| StorageError {
                    what: "the grant in",
                    path: self.state_dir.clone(),
                    source,
                    advice: "TOLLGATE_STATE_DIR must be on a volume with free space that this user may write",
                })?;
                (Verdict::Granted, None, Some(grant))
            }
            Outcome::Refused(failure) => (Verdict::Refused, Some(failure), None),
            Outcome::Undecided(failure) => (Verdict::Undecided, Some(failure), None),
        };
        self.failure = failure;
        gate.answer(self.uptime.elapsed(), verdict);
        Ok(grant)
    }

    async fn ask_until(&mut self, give_up_at: Option<Duration>) -> Outcome {
        let uptime = self.uptime;
        let known = self.failure.clone();
        let deadline = async move {
            match give_up_at {
                Some(at) => uptime.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = self.ask() => outcome,
            () = deadline => Outcome::Undecided(
                known.unwrap_or_else(|| Failure::new(UNREACHABLE, &"no answer came before the deadline")),
            ),
        }
    }

    async fn ask(&mut self) -> Outcome {
        match &self.check {
            EntitlementCheck::RegisterUsage { keys, .. } => self.register(keys).await,
            EntitlementCheck::MeterUsage(dimension) => {
                let dimension = dimension.clone();
                self.start_record(&dimension).await
            }
            EntitlementCheck::None => Outcome::Granted(None),
        }
    }

    async fn register(&self, keys: &PublicKeys) -> Outcome {
        let nonce = || match &self.nonce {
            Some(nonce) => Ok(nonce.clone()),
            None => Nonce::fresh(&self.product_code, &self.host.identity),
        };
        match register(&self.marketplace, &self.product_code, keys, nonce).await {
            Ok(proof) => Outcome::Granted(Some(proof)),
            Err(RegisterError::Call(error)) => outcome_of(error),
            Err(RegisterError::Unverified(error)) => {
                Outcome::Refused(Failure::new(UNVERIFIED, &error))
            }
            Err(RegisterError::Randomness(error)) => {
                Outcome::Undecided(Failure::new("Randomness", &error))
            }
        }
    }

    /// The start-up record of a custom-metered product. The ledger makes it durable, sends and repeats it like any other;
    /// here the next answer to it is awaited.
    async fn start_record(&mut self, dimension: &Dimension) -> Outcome {
        let ledger = match self.ledger.wait_for(Option::is_some).await {
            Ok(ledger) => ledger.clone(),
            Err(_) => None,
        };
        let Some(ledger) = ledger else {
            return Outcome::Undecided(Failure::new(LEDGER, &"it is not open"));
        };
        self.answers.mark_unchanged();
        match ledger.startup(dimension.clone()).await {
            Ok(Startup::Done(_)) => Outcome::Granted(None),
            Ok(Startup::HourTaken { until }) => {
                let detail = format!(
                    "this hour has a record already; the start-up record can be sent from {until} on"
                );
                Outcome::Undecided(Failure::new("HourTaken", &detail))
            }
            Ok(Startup::Pending(bucket)) => {
                let answered = self
                    .answers
                    .wait_for(|answered| answered.as_ref().is_some_and(|a| a.bucket == bucket));
                match answered.await.map(|answered| answered.clone()) {
                    Ok(Some(answered)) => start_record_outcome(&answered.answer),
                    Ok(None) | Err(_) => Outcome::Undecided(Failure::new(LEDGER, &"it is closed")),
                }
            }
            Err(error) => Outcome::Undecided(Failure::new(LEDGER, &error)),
        }
    }

    fn publish(&self, state: StateName, grant: Option<&Grant>) -> Result<(), StorageError> {
        let status = self.status_in(state, grant);
        log(&status);
        write_status(&status, &self.status_file)?;
        self.status.send_replace(status);
        Ok(())
    }

    fn status_in(&self, state: StateName, grant: Option<&Grant>) -> Status {
        let failure = self.failure.as_ref();
        let proof = grant.and_then(|grant| grant.proof.as_ref());
        Status {
            state,
            reason: failure.map(|failure| failure.reason.clone()),
            advice: failure.map(|failure| {
                format!(
                    "{} ({})",
                    advice::advice(&failure.reason, &self.check, &self.host),
                    failure.detail
                )
            }),
            public_key_version: proof.map(|proof| proof.public_key_version),
            nonce: proof.map(|proof| proof.nonce.clone()),
            signature: proof.map(|proof| proof.signature.clone()),
            registered_at: grant.map(|grant| clock::rfc3339(grant.registered_at)),
            region: grant
                .map_or(&self.host.region, |grant| &grant.region)
                .clone(),
            public_key_rotation_at: proof
                .and_then(|proof| proof.public_key_rotation_at)
                .map(clock::rfc3339),
            identity: self.host.identity.clone(),
            platform: self.host.platform.as_str().to_owned(),
            ..pending(&self.product_code, &self.check)
        }
    }
}

fn log(status: &Status) {
    let state = status.state.as_str();
    let (reason, advice) = (status.reason.as_deref(), status.advice.as_deref());
    let product_code = status.product_code.as_str();
    match (status.state, reason) {
        (StateName::Pending, None) => {
            tracing::info!(
                state,
                product_code,
                region = status.region,
                identity = status.identity,
                "asking AWS Marketplace"
            );
        }
        (StateName::Entitled, _) => {
            tracing::info!(state, product_code, "the buyer is entitled")
        }
        (StateName::Pending, Some(reason)) => {
            tracing::warn!(state, reason, advice, "no decision yet; asking again")
        }
        (StateName::Grace, _) => {
            tracing::warn!(
                state,
                reason,
                advice,
                "no decision before the deadline; the main container may run for the grace period"
            );
        }
        (StateName::Denied, _) => {
            tracing::error!(
                state,
                reason,
                advice,
                "denied; the main container stays held back"
            )
        }
        (StateName::Unavailable, _) => {
            tracing::error!(state, reason, advice, "no decision before the deadline")
        }
    }
}

/// The status before anything is known.
pub fn pending(product_code: &ProductCode, check: &EntitlementCheck) -> Status {
    Status {
        schema: SCHEMA.to_owned(),
        state: StateName::Pending,
        reason: None,
        advice: None,
        product_code: product_code.to_string(),
        check: check.name().to_owned(),
        public_key_version: None,
        nonce: None,
        signature: None,
        registered_at: None,
        region: String::new(),
        identity: String::new(),
        platform: "unknown".to_owned(),
        public_key_rotation_at: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Writes `status` to `path`.
pub fn write_status(status: &Status, path: &std::path::Path) -> Result<(), StorageError> {
    status.write(path).map_err(|source| StorageError {
        what: "the status file",
        path: path.to_owned(),
        source,
        advice: STATUS_FILE_ADVICE,
    })
}

/// The folder of the status file can't be created.
pub fn status_folder_error(path: &std::path::Path, source: std::io::Error) -> StorageError {
    StorageError {
        what: "the folder of the status file",
        path: path.to_owned(),
        source,
        advice: STATUS_FILE_ADVICE,
    }
}

const STATUS_FILE_ADVICE: &str =
    "TOLLGATE_STATUS_FILE must be on a volume with free space that this user may write";

/// What AWS said of the start-up record in `bucket`, as far as it decides the entitlement.
fn start_record_outcome(answer: &Answer) -> Outcome {
    match answer {
        Answer::Recorded { .. } | Answer::Duplicate => Outcome::Granted(None),
        Answer::NotEntitled { message } => {
            Outcome::Refused(Failure::new("CustomerNotEntitledException", message))
        }
        Answer::Refused { code, message }
        | Answer::RefusedTogether { code, message }
        | Answer::Denied { code, message } => Outcome::Refused(Failure::new(code, message)),
        Answer::Throttled => Outcome::Undecided(Failure::new(
            "ThrottlingException",
            &"AWS asks for patience",
        )),
        Answer::OutOfBounds => Outcome::Undecided(Failure::new(
            "TimestampOutOfBoundsException",
            &"the record's hour is over",
        )),
        Answer::NotSent { why } | Answer::Doubtful { why } => {
            Outcome::Undecided(Failure::new(UNREACHABLE, why))
        }
    }
}

fn outcome_of(error: CallError) -> Outcome {
    match error {
        CallError::Refused(error) => Outcome::Refused(Failure::new(&error.code, &error.message)),
        CallError::NoCredentials(_) => Outcome::Refused(Failure::new(NO_CREDENTIALS, &error)),
        CallError::NotSent(_) | CallError::Lost(_) => {
            Outcome::Undecided(Failure::new(UNREACHABLE, &error))
        }
        CallError::Throttled(ref service)
        | CallError::Failed {
            error: ref service, ..
        } => Outcome::Undecided(Failure::new(&service.code, &error)),
    }
}

impl Failure {
    /// What `detail` says, on one line of bounded length: it may come from anywhere.
    fn new(reason: &str, detail: &dyn std::fmt::Display) -> Self {
        const REASON_CHARS_MAX: usize = 100;
        const DETAIL_CHARS_MAX: usize = 600;
        let one_line = |text: String, chars_max| -> String {
            text.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(chars_max)
                .collect()
        };
        Self {
            reason: one_line(reason.to_owned(), REASON_CHARS_MAX),
            detail: one_line(detail.to_string(), DETAIL_CHARS_MAX),
        }
    }
}
