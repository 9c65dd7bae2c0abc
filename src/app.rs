//! `tollgate run`: configuration -> [`App`] -> run -> drain, in reading order.

mod metering;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;

use metering::Metering;

use crate::atomic_file::{self, Durability};
use crate::auth::ClientAuth;
use crate::backoff::Backoff;
use crate::clock::Uptime;
use crate::config::metering::Listen;
use crate::config::{EntitlementCheck, RunConfig};
use crate::entitlement::keys::{KeyRing, PublicKeys};
use crate::entitlement::platform::{self, Host, HostError};
use crate::entitlement::registrar::{self, HOLD, Registrar, StorageError};
use crate::entitlement::status::{self, Status};
use crate::entitlement::{Policy, keys::KeyFiles};
use crate::exit::Exit;
use crate::health::{self, Health};
use crate::ledger::{Ledger, LedgerError};
use crate::listener::{self, Bound, ListenError};
use crate::marketplace::aws::{Aws, CaBundleError, Connection};
use crate::meter::Gate;
use crate::shutdown::{self, Drain, DrainTrigger, SignalStream};
use crate::termination::Termination;

/// A sidecar whose listeners and folders are ready; nothing has been asked yet.
#[derive(Debug)]
pub struct App {
    config: RunConfig,
    environment: BTreeMap<String, String>,
    connection: Connection,
    uptime: Uptime,
    signals: SignalStream,
    health_listener: TcpListener,
    metering_listener: Bound,
}

/// Why the sidecar can't go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Signal handlers can't be installed.
    #[error("can't catch signals: {0}")]
    Signals(#[source] std::io::Error),
    /// A port can't be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The state folder can't be used.
    #[error(
        "TOLLGATE_STATE_DIR {path} can't be used: {source}; it must be a folder on a volume with free space that this user may write"
    )]
    StateDir {
        /// The folder.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The status file or the grant can't be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// `AWS_CA_BUNDLE` can't be used.
    #[error(transparent)]
    CaBundle(#[from] CaBundleError),
    /// Region or identity can't be found.
    #[error(transparent)]
    Host(#[from] HostError),
    /// AWS would not take the identity.
    #[error("the identity can't be used: {0}; see POD_UID")]
    Identity(String),
    /// The ledger can't be opened.
    #[error("the ledger in TOLLGATE_STATE_DIR can't be opened: {}", chain(.0))]
    Ledger(#[from] LedgerError),
    /// The ledger can't be written any more.
    #[error("the ledger can't be written any more ({0}); a restart replays it")]
    LedgerFailed(String),
    /// A task of this process panicked.
    #[error("a task of this process panicked; please report it")]
    Panicked,
}

const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
};
const STATE_DIR_MODE: u32 = 0o700;

impl AppError {
    /// The exit code that says whose problem it is.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Signals(_) | Self::LedgerFailed(_) | Self::Panicked => Exit::Internal,
            Self::Listen(_)
            | Self::StateDir { .. }
            | Self::Storage(_)
            | Self::CaBundle(_)
            | Self::Host(_)
            | Self::Identity(_)
            | Self::Ledger(_) => Exit::Configuration,
        }
    }
}

impl App {
    /// Opens what has to be open before anything is asked: signals, folders, listeners.
    pub async fn build(
        config: RunConfig,
        environment: BTreeMap<String, String>,
        uptime: Uptime,
    ) -> Result<Self, AppError> {
        let signals = SignalStream::install().map_err(AppError::Signals)?;
        let connection = Connection::new(&environment, config.endpoint_override_allowed)?;
        prepare_state_dir(&config.state_dir).map_err(|source| AppError::StateDir {
            path: config.state_dir.display().to_string(),
            source,
        })?;
        let health_listener =
            listener::bind(config.health_listen, "TOLLGATE_HEALTH_LISTEN").await?;
        let metering_listener = match &config.metering.listen {
            Listen::Tcp(address) => Bound::Tcp(listener::bind(*address, "TOLLGATE_LISTEN").await?),
            Listen::Unix(path) => Bound::Unix(listener::bind_file(path, "TOLLGATE_LISTEN").await?),
        };
        Ok(Self {
            config,
            environment,
            connection,
            uptime,
            signals,
            health_listener,
            metering_listener,
        })
    }

    /// Runs until a signal or a decision ends the process.
    pub async fn run(self) -> Result<Exit, AppError> {
        let (trigger, drain) = shutdown::drain();
        let initial = registrar::pending(&self.config.product_code, &self.config.check);
        let (status, watched) = watch::channel(initial);
        let (ledger, ledger_watched) = watch::channel(None);
        let (reload, reloaded) = watch::channel(None);
        warn_of_short_keys(&self.config.check);
        self.announce();

        let health = Health::new(
            watched,
            ledger_watched,
            &self.config.metering,
            drain.clone(),
        );
        let handle = move |request: Request<Incoming>| {
            let health = health.clone();
            async move { health.answer(request.method(), request.uri().path()).await }
        };
        tokio::spawn(listener::serve(
            self.health_listener,
            health::BOUNDS,
            handle,
        ));
        tokio::spawn(serve_signals(
            self.signals,
            trigger.clone(),
            self.config.check.clone(),
            reload,
            self.config.metering.client_auth.clone(),
        ));

        let run = Run {
            config: self.config,
            environment: self.environment,
            connection: self.connection,
            uptime: self.uptime,
            status,
            ledger,
            drain,
        };
        run.run(reloaded, self.metering_listener, trigger).await
    }

    fn announce(&self) {
        let health = self.health_listener.local_addr();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            product_code = %self.config.product_code,
            check = self.config.check.name(),
            metering = self.metering_listener.name(),
            client_auth = self.config.metering.client_auth.is_some(),
            health = health.map(|address| address.to_string()).unwrap_or_default(),
            "tollgate is up"
        );
    }
}

/// What is left to do once listeners and signals are served.
struct Run {
    config: RunConfig,
    environment: BTreeMap<String, String>,
    connection: Connection,
    uptime: Uptime,
    status: watch::Sender<Status>,
    ledger: watch::Sender<Option<Ledger>>,
    drain: Drain,
}

impl Run {
    /// Finds out where this runs, registers and meters; then drains.
    async fn run(
        self,
        reloaded: watch::Receiver<Option<PublicKeys>>,
        listener: Bound,
        trigger: DrainTrigger,
    ) -> Result<Exit, AppError> {
        let mut drain = self.drain.clone();
        let host = tokio::select! {
            biased;
            () = drain.begun() => return Ok(Exit::Success),
            host = self.host() => host?,
        };
        let client = self.connection.client(&host.region).await;
        let (answers, answered) = watch::channel(None);
        let registrar = Registrar::new(
            client.clone(),
            &self.config,
            host.clone(),
            self.uptime,
            self.status.clone(),
            self.ledger.subscribe(),
            answered,
        );
        let keys = match &self.config.check {
            EntitlementCheck::RegisterUsage { keys, .. } => {
                Some(KeyRing::new(keys.clone(), reloaded.clone()))
            }
            EntitlementCheck::MeterUsage(_) | EntitlementCheck::None => None,
        };
        let registering = registrar.run(self.policy(), fastrand::Rng::new(), reloaded);
        let metering = Metering::start(
            &self.config,
            &host.identity,
            client,
            listener,
            trigger,
            answers,
            keys,
        );
        let (mut registering, mut metering) = (pin!(registering), pin!(metering));
        let mut decided = None;
        let metering = loop {
            tokio::select! {
                biased;
                () = drain.begun() => return Ok(Exit::Success),
                started = &mut metering => break started?,
                ended = &mut registering, if decided.is_none() => decided = Some(ended?),
            }
        };
        self.ledger.send_replace(Some(metering.ledger.clone()));
        let gate = metering.follow_gate(self.status.subscribe());
        let mut gate = pin!(gate);
        let exit = loop {
            if let Some(Some(exit)) = decided {
                break exit;
            }
            tokio::select! {
                biased;
                () = drain.begun() => break Exit::Success,
                reason = metering.failed() => return Err(ledger_failed(&metering, &reason).await),
                ended = &mut registering, if decided.is_none() => decided = Some(ended?),
                never = &mut gate => match never {},
            }
        };
        tokio::select! {
            _ = metering.failed() => {}
            () = self.end(&metering, exit) => {}
        }
        // Whichever was first: an end that could not be written is none.
        let failure = metering.ledger.failure().borrow().clone();
        match failure {
            Some(reason) => Err(ledger_failed(&metering, &reason).await),
            None => Ok(exit),
        }
    }

    /// The last things before the exit: after a denial what was taken is rejected; otherwise, where anything may be
    /// submitted at all, it is.
    async fn end(&self, metering: &Metering<Aws>, exit: Exit) {
        let termination = Termination::default();
        if exit == Exit::Denied {
            if let Err(error) = metering.ledger.gate(Gate::Denied).await {
                tracing::error!(%error, "usage that was taken before the denial can't be marked as rejected");
            }
            return;
        }
        let was_positive = self.status.borrow().state.is_positive();
        if was_positive || exit == Exit::Unavailable {
            let grace = self.config.shutdown_grace;
            if tokio::time::timeout(grace, metering.drain(grace, &termination))
                .await
                .is_err()
            {
                tracing::warn!(
                    "the shutdown grace is over; what is not billed stays in the ledger"
                );
            }
        }
    }

    async fn host(&self) -> Result<Host, AppError> {
        let path = &self.config.status_file;
        status::create_folder(path)
            .map_err(|source| registrar::status_folder_error(path, source))?;
        registrar::write_status(&self.status.borrow().clone(), path)?;
        let host =
            platform::discover(&self.environment, || self.connection.region_of_instance()).await?;
        Ok(host)
    }

    fn policy(&self) -> Policy {
        Policy {
            deadline: self.config.register_deadline,
            backoff: BACKOFF,
            on_denied: self.config.on_denied,
            on_unavailable: self.config.on_unavailable,
            hold: HOLD,
        }
    }
}

/// The error to end with, once the callers that wait have been told.
async fn ledger_failed(metering: &Metering<Aws>, reason: &str) -> AppError {
    metering.refuse().await;
    AppError::LedgerFailed(reason.to_string())
}

async fn serve_signals(
    signals: SignalStream,
    trigger: DrainTrigger,
    check: EntitlementCheck,
    reload: watch::Sender<Option<PublicKeys>>,
    client_auth: Option<ClientAuth>,
) {
    signals
        .serve(trigger, || {
            if let Some(client_auth) = &client_auth {
                reload_client_auth(client_auth);
            }
            let EntitlementCheck::RegisterUsage { files, .. } = &check else {
                tracing::info!("SIGHUP: this entitlement check has no public keys to read again");
                return;
            };
            reload_keys(files, &reload);
        })
        .await;
}

fn reload_keys(files: &KeyFiles, reload: &watch::Sender<Option<PublicKeys>>) {
    match files.load() {
        Ok(keys) => {
            tracing::info!(?keys, "SIGHUP: public keys read again");
            reload.send_replace(Some(keys));
        }
        Err(error) => {
            tracing::error!(%error, "SIGHUP: public keys can't be read; the ones from before stay in force");
        }
    }
}

fn reload_client_auth(client_auth: &ClientAuth) {
    match client_auth.reload() {
        Ok(()) => tracing::info!(
            keys = ?client_auth.keys(),
            "SIGHUP: TOLLGATE_CLIENT_AUTH_FILE read again"
        ),
        Err(error) => tracing::error!(
            %error,
            "SIGHUP: TOLLGATE_CLIENT_AUTH_FILE can't be used; the keys from before stay in force"
        ),
    }
}

fn warn_of_short_keys(check: &EntitlementCheck) {
    let EntitlementCheck::RegisterUsage { keys, .. } = check else {
        return;
    };
    for (public_key_version, bits) in keys.short_keys() {
        tracing::warn!(
            public_key_version,
            bits,
            "this public key has under 2048 bits; ask AWS Marketplace for a longer one"
        );
    }
}

/// Creates the state folder and tries whether it takes a file, so that a full or read-only volume shows now.
fn prepare_state_dir(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(STATE_DIR_MODE)
        .create(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0
        && let Err(error) = fs::set_permissions(path, fs::Permissions::from_mode(STATE_DIR_MODE))
    {
        tracing::warn!(%error, path = %path.display(), "the state folder can be entered by others, and its mode can't be changed");
    }
    let probe = path.join(".probe");
    atomic_file::replace(&probe, &[0; PROBE_BYTES], 0o600, Durability::Readers)?;
    fs::remove_file(&probe)
}

/// More than fits beside an inode: a full volume has to find a block for it.
const PROBE_BYTES: usize = 4096;

/// An error and its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
