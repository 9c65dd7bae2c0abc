//! `tollgate run`: configuration -> [`App`] -> run -> drain, in reading order.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::clock::Uptime;
use crate::config::{EntitlementCheck, RunConfig};
use crate::entitlement::keys::PublicKeys;
use crate::entitlement::platform::{self, HostError};
use crate::entitlement::registrar::{self, HOLD, Registrar, StorageError};
use crate::entitlement::status::{self, Status};
use crate::entitlement::{Policy, keys::KeyFiles};
use crate::exit::Exit;
use crate::health::{self, Health};
use crate::listener::{self, ListenError};
use crate::marketplace::aws::{CaBundleError, Connection};
use crate::shutdown::{self, Drain, DrainTrigger, SignalStream};

/// A sidecar whose listeners and folders are ready; nothing has been asked yet.
#[derive(Debug)]
pub struct App {
    config: RunConfig,
    environment: BTreeMap<String, String>,
    connection: Connection,
    uptime: Uptime,
    signals: SignalStream,
    health_listener: TcpListener,
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
            Self::Signals(_) => Exit::Internal,
            Self::Listen(_)
            | Self::StateDir { .. }
            | Self::Storage(_)
            | Self::CaBundle(_)
            | Self::Host(_) => Exit::Configuration,
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
        Ok(Self {
            config,
            environment,
            connection,
            uptime,
            signals,
            health_listener,
        })
    }

    /// Runs until a signal or a decision ends the process.
    pub async fn run(self) -> Result<Exit, AppError> {
        let (trigger, drain) = shutdown::drain();
        let initial = registrar::pending(&self.config.product_code, &self.config.check);
        let (status, watched) = watch::channel(initial);
        let (reload, reloaded) = watch::channel(None);
        warn_of_short_keys(&self.config.check);
        self.announce();

        let health = Health::new(watched, drain.clone());
        let handle = move |request: http::Request<hyper::body::Incoming>| {
            std::future::ready(health.answer(&request))
        };
        tokio::spawn(listener::serve(
            self.health_listener,
            health::BOUNDS,
            handle,
        ));
        tokio::spawn(serve_signals(
            self.signals,
            trigger,
            self.config.check.clone(),
            reload,
        ));

        let mut drained = drain.clone();
        let gate = Gatekeeping {
            config: &self.config,
            environment: &self.environment,
            connection: &self.connection,
            uptime: self.uptime,
        };
        tokio::select! {
            biased;
            () = drained.begun() => Ok(Exit::Success),
            ended = gate.keep(status, reloaded, drain) => ended,
        }
    }

    fn announce(&self) {
        let health = self
            .health_listener
            .local_addr()
            .map(|address| address.to_string());
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            product_code = %self.config.product_code,
            check = self.config.check.name(),
            health = health.unwrap_or_default(),
            "tollgate is up"
        );
    }
}

/// What the gate needs while it is kept.
struct Gatekeeping<'a> {
    config: &'a RunConfig,
    environment: &'a BTreeMap<String, String>,
    connection: &'a Connection,
    uptime: Uptime,
}

impl Gatekeeping<'_> {
    /// Finds out where this runs, registers, and then stays until the drain or the gate's own end.
    async fn keep(
        &self,
        status: watch::Sender<Status>,
        reloaded: watch::Receiver<Option<PublicKeys>>,
        mut drain: Drain,
    ) -> Result<Exit, AppError> {
        status::create_folder(&self.config.status_file)
            .map_err(|source| registrar::status_folder_error(&self.config.status_file, source))?;
        registrar::write_status(&status.borrow().clone(), &self.config.status_file)?;
        let host =
            platform::discover(self.environment, || self.connection.region_of_instance()).await?;
        let client = self.connection.client(&host.region).await;
        let policy = Policy {
            deadline: self.config.register_deadline,
            backoff: BACKOFF,
            on_denied: self.config.on_denied,
            on_unavailable: self.config.on_unavailable,
            hold: HOLD,
        };
        let registrar = Registrar::new(client, self.config, host, self.uptime, status);
        let ended = registrar
            .run(policy, fastrand::Rng::new(), reloaded)
            .await?;
        if ended.is_none() {
            drain.begun().await;
        }
        Ok(ended.unwrap_or(Exit::Success))
    }
}

async fn serve_signals(
    signals: SignalStream,
    trigger: DrainTrigger,
    check: EntitlementCheck,
    reload: watch::Sender<Option<PublicKeys>>,
) {
    signals
        .serve(trigger, || {
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

/// Creates the state folder and tries whether it takes a synced file, so that a full or read-only volume shows now.
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
    crate::atomic_file::replace(&probe, &[0; PROBE_BYTES], 0o600)?;
    fs::remove_file(&probe)
}

/// More than fits beside an inode: a full volume has to find a block for it.
const PROBE_BYTES: usize = 4096;
